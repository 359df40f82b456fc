"""The OpenAPI 3.1 document of the REST paths, made from the protos and the rows of `antiphon.rest.registry`.

Paths, parameters and descriptions are those of the protos; bodies, responses and statuses those of the dialects' methods. No I/O.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final, TypeAlias

from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from pydantic import BaseModel, TypeAdapter

from antiphon.rest.registry import DIALECTS, Dialect
from antiphon.rest.shared.dialect import ErrorShape, Method
from antiphon.rest.shared.json import JSON
from antiphon.rest.shared.paths import VARIABLE, bindings, query_of

Schema: TypeAlias = dict[str, Any]

_DESCRIPTIONS: Final = {
    200: "Success.",
    201: "Created and stored.",
    400: "The request is not valid.",
    401: "The API key or token is missing or not valid.",
    402: "The caller's budget is used up.",
    403: "The key does not allow this.",
    404: "It does not exist, or is not the caller's.",
    408: "The request took too long to arrive.",
    409: "It has changed meanwhile, or the turn to continue from is not complete.",
    413: "The request is larger than 32 MiB.",
    415: "The body has a content-encoding.",
    422: "Fields of the request are not valid.",
    429: "Too many requests; `retry-after` says when to retry.",
    431: "The headers of the request are too large.",
    500: "The gateway failed.",
    502: "The provider failed, or cannot be reached.",
    503: "The gateway, or something that it needs, is not ready; `retry-after` says when to retry.",
    504: "The call took too long.",
}

_TYPES: Final = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
}

_ANY_KEY: Final[tuple[Mapping[str, list[str]], ...]] = ({"key": []}, {})
"""A key in the header, or none there: it may also be in the body, which OpenAPI cannot express."""


def document() -> Schema:
    """Return the document, as JSON values."""
    schemas = _Schemas()
    paths: dict[str, Schema] = {}
    for dialect in DIALECTS:
        for name, method in dialect.methods.items():
            rpc = dialect.service.methods_by_name[name]
            for number, (verb, path) in enumerate(bindings(rpc)):
                operation = _operation(dialect, rpc, method, path, schemas)
                operation["operationId"] = name if number == 0 else f"{name}{number + 1}"
                paths.setdefault(_template(path, rpc), {})[verb] = operation
    tags = {dialect.service.name: inspect.getdoc(dialect.contract) for dialect in DIALECTS}
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


def _template(path: str, rpc: MethodDescriptor) -> str:
    """Return a path template as OpenAPI writes it: {chat_id} as {chatId}, and {model=**} as {model}."""
    return VARIABLE.sub(lambda found: f"{{{rpc.input_type.fields_by_name[found[1]].json_name}}}", path)


def _operation(dialect: Dialect, rpc: MethodDescriptor, method: Method, path: str, schemas: _Schemas) -> Schema:
    operation: Schema = {
        "tags": [dialect.service.name],
        "description": inspect.getdoc(getattr(dialect.contract, rpc.name)),
        "parameters": list(_parameters(rpc, path)),
        "responses": _responses(dialect.errors_of(rpc.name), method, schemas),
    }
    if method.body is not None:
        content = {JSON: {"schema": schemas.of_body(f"{rpc.name}Body", method.body)}}
        operation["requestBody"] = {"required": method.body_required, "content": content}
    if method.scope is None:
        operation["security"] = []
    elif method.key_in_body:
        operation["security"] = list(_ANY_KEY)
    return operation


def _parameters(rpc: MethodDescriptor, path: str) -> Iterator[Schema]:
    in_path = {found[1] for found in VARIABLE.finditer(path)}
    in_query = query_of(rpc)
    for field in rpc.input_type.fields:
        if field.name in in_path:
            yield {"name": field.json_name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        elif field in in_query:
            behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
            required = field_behavior_pb2.REQUIRED in behavior
            yield {"name": field.json_name, "in": "query", "required": required, "schema": _TYPES[field.type]}


def _responses(errors: ErrorShape, method: Method, schemas: _Schemas) -> dict[str, Schema]:
    responses: dict[str, Schema] = {}
    if method.answer is not None:
        content = {JSON: {"schema": schemas.of(method.answer)}}
        responses[str(method.status)] = {"description": _DESCRIPTIONS[method.status], "content": content}
    for media_type in method.streams:
        streamed = responses.setdefault("200", {"description": _DESCRIPTIONS[200], "content": {}})
        streamed["content"][media_type] = {}  # OpenAPI 3.1 cannot describe the pieces; the description does
    encoded = () if method.body is None or method.passes_on else (415,)
    for status in sorted((*method.statuses, *encoded)):
        model = errors.models.get(status, errors.models[0])
        responses[str(status)] = {
            "description": f"{HTTPStatus(status).phrase}. {_DESCRIPTIONS[status]}",
            "content": {JSON: {"schema": schemas.of(model)}},
        }
    if method.passes_on:
        responses["default"] = {"description": "The provider's own answer, or an error of the gateway's in the provider's shape."}
    return responses


class _Schemas:
    """The named schemas: one for each model, so that others can refer to it."""

    def __init__(self) -> None:
        self.named: dict[str, Schema] = {}

    def of_body(self, name: str, body: type[BaseModel]) -> Schema:
        """Store the schema of a body under `name`, which is made from its method, and return a reference to it."""
        return self._keep(name, TypeAdapter(body).json_schema(ref_template="#/components/schemas/{model}", mode="validation"))

    def of(self, answer: Any) -> Schema:
        """Return the schema of a response; for a model, a reference to it."""
        schema = TypeAdapter(answer).json_schema(ref_template="#/components/schemas/{model}", mode="validation")
        if isinstance(answer, type) and issubclass(answer, BaseModel):
            return self._keep(answer.__name__, schema)
        return self._hoist(schema)

    def _keep(self, name: str, schema: Schema) -> Schema:
        """Store a schema under a name, and return a reference to it."""
        self._add(name, self._hoist(schema))
        return {"$ref": f"#/components/schemas/{name}"}

    def _hoist(self, schema: Schema) -> Schema:
        """Move the definitions within a schema to the named schemas, and return the schema."""
        for name, inner in schema.pop("$defs", {}).items():
            self._add(name, inner)
        return schema

    def _add(self, name: str, schema: Schema) -> None:
        assert self.named.setdefault(name, schema) == schema, f"two schemas are called {name}"
