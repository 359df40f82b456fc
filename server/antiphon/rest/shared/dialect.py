"""The types with which a dialect describes itself: its methods, and the shape of its errors.

`antiphon.rest.registry` has one row of them for each dialect. The server, the OpenAPI document and Envoy's files are made from it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final, TypeAlias

import grpc
from google.api import httpbody_pb2
from msgspec import Struct
from pydantic import BaseModel, ConfigDict

from antiphon.domain.errors import AntiphonError
from antiphon.domain.principal import Scope

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""The context that gRPC passes to a method of a servicer."""

Pieces: TypeAlias = AsyncGenerator[httpbody_pb2.HttpBody, None]
"""The result of a dialect's method: the bytes of the HTTP response in pieces. The first piece has the content type."""

ErrorRenderer: TypeAlias = Callable[[AntiphonError], tuple[int, Mapping[str, str], bytes]]
"""Returns the HTTP status, headers and JSON body for an error that occurs before the first byte of a response."""

PUBLIC_STATUSES: Final = (400, 408, 413, 431, 500, 503, 504)
KEY_STATUSES: Final = (*PUBLIC_STATUSES, 401, 403)
STORE_STATUSES: Final = (*KEY_STATUSES, 404, 409)
MODEL_STATUSES: Final = (*KEY_STATUSES, 402, 404, 429, 502)
RECORD_STATUSES: Final = (*MODEL_STATUSES, 409)
"""HTTP statuses of errors, for a method that needs no key (PUBLIC), needs a key (KEY), reads or changes stored chats (STORE),
calls a model (MODEL), or calls a model and stores the turn (RECORD). Every method with a body also has 415, for a body with
an encoding."""


class ErrorShape(Struct, frozen=True):
    """The form that errors have for the callers of a dialect."""

    name: str
    """Its name in Envoy's files."""
    render: ErrorRenderer
    """Renders an error of the server."""
    refusal: Callable[[int, str], Mapping[str, Any]]
    """Returns the JSON body of an error that Envoy itself responds with, from the HTTP status and a message."""
    paths: str
    """An RE2 pattern of the paths whose errors have this form: those of the methods, and unknown paths near them.

    A path that no pattern matches gets the form of the fallback in `gateway/listeners.yaml`.
    """
    models: Mapping[int, type[BaseModel]] = {}
    """The schema of the body by status, for the OpenAPI document. 0 stands for all other statuses."""


class Method(Struct, frozen=True):
    """The properties of a method that its proto does not state."""

    scope: Scope | None
    """The scope that the caller's key needs. None: no key is needed."""
    statuses: tuple[int, ...] = ()
    """The HTTP statuses of its errors."""
    answer: Any = None
    """The type of its JSON response. None: it only streams."""
    status: int = 200
    streams: tuple[str, ...] = ()
    """The media types of its streamed responses."""
    body: type[BaseModel] | None = None
    body_required: bool = True
    key_in_body: bool = False
    """Whether the API key may be in the body. `gateway/status.lua` has to buffer such a body."""
    passes_on: bool = False
    """Whether the query and the response are a provider's, passed on as they are. A status then does not tell the gateway's errors
    from the provider's.

    `gateway/status.lua` has to pass such a query to the server as a header.
    """
    errors: ErrorShape | None = None
    """The form of its errors. None: that of the dialect."""


class AnswerSchema(BaseModel):
    """A JSON object of a response, for the OpenAPI document and for tests. Responses are not written with it: that is too slow.

    A field without a default is always present. An object may have more fields than these: unknown fields of a provider are passed
    on. The name of a subclass is its name in the OpenAPI document, so it must be unique among all dialects.
    """

    model_config = ConfigDict(extra="allow", defer_build=True)  # a server does not use them


class TokenCounts(AnswerSchema):
    """The tokens that a call used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class FieldAtFault(AnswerSchema):
    """A wrong field: its path, starting at the body or the query; a message; and the kind of the violation."""

    loc: list[str | int]
    msg: str
    type: str
