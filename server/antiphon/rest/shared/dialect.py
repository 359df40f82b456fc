"""What a dialect tells the rest of the gateway about itself: the methods it has, and the shape of its errors.

`antiphon.rest.registry` has one row for each dialect, made of these; the server, the OpenAPI document and Envoy's files go by it.
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
"""What gRPC hands to a servicer."""

Pieces: TypeAlias = AsyncGenerator[httpbody_pb2.HttpBody, None]
"""What the methods of a dialect return: the bytes of the HTTP answer, in pieces; the first has the content type."""

ErrorRenderer: TypeAlias = Callable[[AntiphonError], tuple[int, Mapping[str, str], bytes]]
"""Makes the HTTP status, the headers and the JSON body of an error that comes before the first byte of an answer."""

PUBLIC_STATUSES: Final = (400, 408, 413, 431, 500, 503, 504)
KEY_STATUSES: Final = (*PUBLIC_STATUSES, 401, 403)
STORE_STATUSES: Final = (*KEY_STATUSES, 404, 409)
MODEL_STATUSES: Final = (*KEY_STATUSES, 402, 404, 429, 502)
RECORD_STATUSES: Final = (*MODEL_STATUSES, 409)
"""HTTP statuses of errors: of a method that needs no key, one that does, one about a stored chat, one that asks a model, and one
that asks a model and stores the turn. 415, for a body with an encoding, is added to every method that has a body."""


class ErrorShape(Struct, frozen=True):
    """How errors look to the callers of a dialect."""

    name: str
    """A word for it in Envoy's files."""
    render: ErrorRenderer
    """Makes the answer of an error of the server's."""
    refusal: Callable[[int, str], Mapping[str, Any]]
    """Makes the JSON body of what Envoy refuses itself, of an HTTP status and a message."""
    paths: str
    """An RE2 pattern of the paths whose errors have this shape: those of its methods, and what else is near them.

    A path that no pattern fits, such as an unknown neighbour, gets the shape of the fallback in `gateway/listeners.yaml`.
    """
    models: Mapping[int, type[BaseModel]] = {}
    """The bodies by status, for the OpenAPI document; that of 0 is the body of all other statuses."""


class Method(Struct, frozen=True):
    """What the proto does not tell of a method."""

    scope: Scope | None
    """What the caller's key has to have. None: no key is needed."""
    statuses: tuple[int, ...] = ()
    """HTTP statuses that are errors."""
    answer: Any = None
    """The type of the JSON that it answers. None: it only streams."""
    status: int = 200
    streams: tuple[str, ...] = ()
    """Media types of an answer that comes piece by piece."""
    body: type[BaseModel] | None = None
    body_required: bool = True
    key_in_body: bool = False
    """Whether the key may stand in the body. `gateway/status.lua` has to hold such a body until it is whole."""
    passes_on: bool = False
    """Whether the query is the provider's, and so is the answer: no status tells the gateway's errors from the provider's.

    `gateway/status.lua` has to hand such a query to the server as a header.
    """
    errors: ErrorShape | None = None
    """None: the dialect's."""


class AnswerSchema(BaseModel):
    """A JSON object that is answered, for the OpenAPI document and for tests: nothing is written through it, which would cost time.

    A field without a default is always there. An object may hold more than is named: what only a provider knows is handed on.
    The name of a subclass is its name in the OpenAPI document, so it has to be unique among all dialects.
    """

    model_config = ConfigDict(extra="allow", defer_build=True)  # a server needs none of them built


class TokenCounts(AnswerSchema):
    """What a call used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class FieldAtFault(AnswerSchema):
    """What is wrong with a field: where it stands, from the body or the query on, why, and that in a word."""

    loc: list[str | int]
    msg: str
    type: str
