"""The OpenAPI 3.1 document of the REST paths, made of what serves them.

Paths, parameters and descriptions are those of the protos, bodies those of the dialects' models. Kept by hand is only what stands
in no other place: what each method answers, and with which statuses. No I/O.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final, TypeAlias

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from msgspec import Struct
from pydantic import BaseModel, TypeAdapter

from antiphon.rest.analytics import servicer as analytics
from antiphon.rest.assistant import chats
from antiphon.rest.assistant import servicer as assistant
from antiphon.rest.engine import request as engine_request
from antiphon.rest.openai import servicer as openai
from antiphon.rest.openapi import answers
from antiphon.rest.shared.body import Fields
from antiphon.rest.shared.json import EVENT_STREAM, JSON
from antiphon.rest.v1 import (
    analytics_pb2,
    analytics_pb2_grpc,
    assistant_pb2,
    assistant_pb2_grpc,
    engine_pb2,
    engine_pb2_grpc,
    openai_pb2,
    openai_pb2_grpc,
    proxy_pb2,
    proxy_pb2_grpc,
)

Schema: TypeAlias = dict[str, Any]

_WORDS: Final = {
    200: "Done.",
    201: "Made, and kept.",
    400: "The request is at fault.",
    401: "No API key or token, or not a good one.",
    402: "What the caller may spend is spent.",
    403: "The key may not do this.",
    404: "There is no such thing, or it is not the caller's.",
    408: "The request took too long to arrive.",
    409: "It has changed meanwhile, or what it goes on with is not complete.",
    413: "The request is larger than 32 MiB.",
    415: "The body has a content-encoding.",
    422: "Fields of the request are at fault.",
    429: "Too many requests; `retry-after` tells when to come again.",
    431: "The headers of the request are too large.",
    500: "The gateway failed.",
    502: "The provider failed, or cannot be reached.",
    503: "The gateway, or something that it needs, is not ready; `retry-after` tells when to come again.",
    504: "It took too long.",
}

_OPEN: Final = (400, 408, 413, 431, 500, 503, 504)
_KEYED: Final = (*_OPEN, 401, 403)
_STORED: Final = (*_KEYED, 404, 409)
_ASKING: Final = (*_KEYED, 402, 404, 429, 502)
_RECORDED: Final = (*_ASKING, 409)
"""Statuses that are errors: of what needs no key, of what does, of what is about a chat, and of what asks a model."""

_TYPES: Final = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
}

_VARIABLE: Final = re.compile(r"\{(\w+)(?:=[^}]*)?\}")


class Operation(Struct, frozen=True):
    """What the protos do not tell of a method. `answer` is a type that can be written as JSON; None: a stream alone."""

    errors: tuple[int, ...]
    answer: Any = None
    status: int = 200
    streams: tuple[str, ...] = ()
    """Media types of an answer that comes piece by piece."""
    body: type[BaseModel] | None = None
    body_required: bool = True
    passes_on: bool = False
    """The query is the provider's, and so is the answer: no status tells the gateway's errors from the provider's."""
    security: tuple[Mapping[str, list[str]], ...] | None = None
    """None: as everywhere."""


class Dialect(Struct, frozen=True):
    """The methods of a service. `errors` has the model of each status; that of 0 is the model of all others."""

    service: ServiceDescriptor
    servicer: type
    errors: Mapping[int, type[BaseModel]]
    operations: Mapping[str, Operation]


class ProxiedChat(Fields):
    """A chat completion. Only these fields are looked at; all others pass on."""

    model: str
    messages: list[Any]


class ProxiedPart(Fields):
    """A part of a content."""

    text: str | None = None


class ProxiedContent(Fields):
    """A content."""

    parts: list[ProxiedPart]
    role: str | None = None


class ProxiedSetting(Fields):
    """What of a kind of harm is blocked."""

    category: str
    threshold: str


class ProxiedContents(Fields):
    """A call of a Gemini model. Only these fields are looked at; all others pass on. countTokens may have other ones.

    The known fields of `generationConfig` have the types that the Gemini API documents.
    """

    contents: list[ProxiedContent]
    generationConfig: dict[str, Any] | None = None
    safetySettings: list[ProxiedSetting] | None = None


_ANY: Final[tuple[Mapping[str, list[str]], ...]] = ({"key": []}, {})

DIALECTS: Final = (
    Dialect(
        openai_pb2.DESCRIPTOR.services_by_name["OpenAIService"],
        openai_pb2_grpc.OpenAIServiceServicer,
        {422: answers.FieldsAtFaultAndError, 0: answers.DetailAndError},
        {
            "CreateChatCompletion": Operation((*_RECORDED, 422), answers.ChatCompletion, streams=(EVENT_STREAM,), body=openai.Body),
            "ListModels": Operation((*_KEYED, 422), answers.Models),
            "GetModel": Operation((*_KEYED, 404, 422), answers.Model),
        },
    ),
    Dialect(
        assistant_pb2.DESCRIPTOR.services_by_name["AssistantService"],
        assistant_pb2_grpc.AssistantServiceServicer,
        {0: answers.Message},
        {
            "Generate": Operation(_RECORDED, answers.Generated, status=201, streams=(EVENT_STREAM,), body=assistant.GenerateBody),
            "GenerateStream": Operation(_RECORDED, streams=(EVENT_STREAM,), body=assistant.GenerateBody),
            "Chat": Operation(_ASKING, answers.PassingReply, body=assistant.ChatBody),
            "ListChats": Operation(_KEYED, answers.Chats),
            "FetchChat": Operation(_STORED, answers.WholeChat),
            "ForkChat": Operation(_STORED, answers.Chat, status=201, body=chats.ForkBody),
            "PinChat": Operation(_STORED, answers.Chat, body=chats.PinBody, body_required=False),
            "UpdateChat": Operation(_STORED, answers.Chat, body=chats.UpdateBody),
            "DeleteChat": Operation(_STORED, answers.DeletedChat),
            "CreateChat": Operation(_KEYED, answers.Chat, status=201, body=chats.NewBody),
        },
    ),
    Dialect(
        analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"],
        analytics_pb2_grpc.AnalyticsServiceServicer,
        {0: answers.AnalyticsError},
        {"CreateAnalyticsChat": Operation(_ASKING, answers.AnalyticsReply, streams=(EVENT_STREAM,), body=analytics.Body)},
    ),
    Dialect(
        engine_pb2.DESCRIPTOR.services_by_name["EngineService"],
        engine_pb2_grpc.EngineServiceServicer,
        {422: answers.FieldsAtFault, 0: answers.Detail},
        {
            "CreateEngineChat": Operation(
                (*_ASKING, 422), answers.EngineReply, streams=("text/plain",), body=engine_request.Body, security=_ANY
            ),
            "ListEngineProviders": Operation((*_KEYED, 422), list[str]),
            "ListEngineModels": Operation((*_KEYED, 404, 422), dict[str, answers.EngineProvider] | answers.EngineProvider),
            "ListEngineParameters": Operation((*_KEYED, 404, 422), list[answers.EngineParameter]),
            "GetHealth": Operation(_OPEN, answers.Health, security=()),
        },
    ),
    Dialect(
        proxy_pb2.DESCRIPTOR.services_by_name["ProxyService"],
        proxy_pb2_grpc.ProxyServiceServicer,
        {},
        {
            "ProxyChatCompletion": Operation((), passes_on=True, body=ProxiedChat),
            "ProxyGemini": Operation((), passes_on=True, body=ProxiedContents),
        },
    ),
)


def document() -> Schema:
    """The document, as JSON values."""
    schemas = _Schemas()
    paths: dict[str, Schema] = {}
    for dialect in DIALECTS:
        for name, operation in dialect.operations.items():
            method = dialect.service.methods_by_name[name]
            for number, (verb, path) in enumerate(bindings(method)):
                made = _operation(dialect, method, operation, path, schemas)
                made["operationId"] = name if number == 0 else f"{name}{number + 1}"
                paths.setdefault(_template(path, method), {})[verb] = made
    tags = {dialect.service.name: inspect.getdoc(dialect.servicer) for dialect in DIALECTS}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Antiphon",
            "version": version("antiphon"),
            "description": "The REST paths of the gateway. Every response has an `x-request-id`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": name, "description": description} for name, description in tags.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.named,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of an identity provider."}
            },
        },
    }


def bindings(method: MethodDescriptor) -> Iterator[tuple[str, str]]:
    """The HTTP methods, in lower case, and path templates that a method is called by."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        yield verb, getattr(binding, verb)


def _template(path: str, method: MethodDescriptor) -> str:
    """{chat_id} as {chatId}, and {model=**} as {model}."""
    return _VARIABLE.sub(lambda found: f"{{{method.input_type.fields_by_name[found[1]].json_name}}}", path)


def _operation(dialect: Dialect, method: MethodDescriptor, operation: Operation, path: str, schemas: _Schemas) -> Schema:
    made: Schema = {
        "tags": [dialect.service.name],
        "description": inspect.getdoc(getattr(dialect.servicer, method.name)),
        "parameters": list(_parameters(method, operation, path)),
        "responses": _responses(dialect, operation, schemas),
    }
    if operation.body is not None:
        content = {JSON: {"schema": schemas.of_body(f"{method.name}Body", operation.body)}}
        made["requestBody"] = {"required": operation.body_required, "content": content}
    if operation.security is not None:
        made["security"] = list(operation.security)
    return made


def _parameters(method: MethodDescriptor, operation: Operation, path: str) -> Iterator[Schema]:
    in_path = {found[1] for found in _VARIABLE.finditer(path)}
    in_others = {found[1] for _, other in bindings(method) for found in _VARIABLE.finditer(other)}
    for field in method.input_type.fields:
        if field.name in in_path:
            yield {"name": field.json_name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        elif field.name != "body" and field.name not in in_others and not operation.passes_on:
            behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
            required = field_behavior_pb2.REQUIRED in behavior
            yield {"name": field.json_name, "in": "query", "required": required, "schema": _TYPES[field.type]}


def _responses(dialect: Dialect, operation: Operation, schemas: _Schemas) -> dict[str, Schema]:
    responses: dict[str, Schema] = {}
    if operation.answer is not None:
        content = {JSON: {"schema": schemas.of(operation.answer)}}
        responses[str(operation.status)] = {"description": _WORDS[operation.status], "content": content}
    for media_type in operation.streams:
        streamed = responses.setdefault("200", {"description": _WORDS[200], "content": {}})
        streamed["content"][media_type] = {}  # what the pieces are, OpenAPI 3.1 cannot say; the description does
    encoded = () if operation.body is None or operation.passes_on else (415,)
    for status in sorted((*operation.errors, *encoded)):
        model = dialect.errors.get(status, dialect.errors[0])
        responses[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}. {_WORDS[status]}",
            "content": {JSON: {"schema": schemas.of(model)}},
        }
    if operation.passes_on:
        responses["default"] = {"description": "The provider's own answer, or an error of the gateway's in the provider's shape."}
    return responses


class _Schemas:
    """The schemas that have a name: one for each model, so that they can be referred to."""

    def __init__(self) -> None:
        self.named: dict[str, Schema] = {}

    def of_body(self, name: str, body: type[BaseModel]) -> Schema:
        """A reference to what a body has to be. Several dialects call theirs the same, so it gets a name here."""
        return self._keep(name, TypeAdapter(body).json_schema(ref_template="#/components/schemas/{model}", mode="validation"))

    def of(self, answer: Any) -> Schema:
        """What an answer is: a reference, if it is of a model."""
        schema = TypeAdapter(answer).json_schema(ref_template="#/components/schemas/{model}", mode="validation")
        if isinstance(answer, type) and issubclass(answer, BaseModel):
            return self._keep(answer.__name__, schema)
        return self._hoist(schema)

    def _keep(self, name: str, schema: Schema) -> Schema:
        self._add(name, self._hoist(schema))
        return {"$ref": f"#/components/schemas/{name}"}

    def _hoist(self, schema: Schema) -> Schema:
        for name, inner in schema.pop("$defs", {}).items():
            self._add(name, inner)
        return schema

    def _add(self, name: str, schema: Schema) -> None:
        assert self.named.setdefault(name, schema) == schema, f"two schemas are called {name}"
