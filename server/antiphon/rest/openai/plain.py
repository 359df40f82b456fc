"""Reads a body whose messages are plain texts, as most are: a short way past the model of every other body. No I/O.

The types here name what such a body may have. Decoding fails for anything else, and `ChatCompletionBody` reads that: it alone says
what is wrong with a body.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from antiphon import domain
from antiphon.net import json_bounds

_ROLES: Final = {
    "system": domain.Role.SYSTEM,
    "developer": domain.Role.DEVELOPER,
    "user": domain.Role.USER,
    "assistant": domain.Role.ASSISTANT,
}

_UNIT: Final = Meta(ge=0, le=1)
_TWO: Final = Meta(ge=0, le=2)
_EITHER_WAY: Final = Meta(ge=-2, le=2)

_Count: TypeAlias = Annotated[int, Meta(ge=0)]
_Share: TypeAlias = Annotated[int, _UNIT] | Annotated[float, _UNIT]
_Temperature: TypeAlias = Annotated[int, _TWO] | Annotated[float, _TWO]
_Penalty: TypeAlias = Annotated[int, _EITHER_WAY] | Annotated[float, _EITHER_WAY]


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class PlainBody(Struct, forbid_unknown_fields=True):
    """A body with plain messages. Its fields are those of `ChatCompletionBody` that need no conversion."""

    messages: Annotated[list[_Message], Meta(min_length=1, max_length=domain.MAX_ENTRIES)]
    model: str | None = None
    temperature: _Temperature | None = None
    top_p: _Share | None = None
    top_k: int | UnsetType = UNSET
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: dict[Literal["include_usage"], bool] | None = None
    stop: str | Annotated[tuple[str, ...], Meta(max_length=domain.MAX_ENTRIES)] | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    session_id: str | None = None

    def to_request(self, *, stream: bool) -> domain.ChatRequest:
        """Return the domain request, as `request_from_body` does for any other body."""
        return domain.ChatRequest(
            model=self.model or "",
            messages=tuple([domain.Message(_ROLES[one.role], (domain.Text(text=one.content),)) for one in self.messages]),
            stream=stream,
            sampling=domain.Sampling(
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=None if self.top_k is UNSET else self.top_k,
                max_tokens=self.max_tokens,
                max_completion_tokens=self.max_completion_tokens,
                stop=self.stop,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                seed=self.seed,
                choices=self.n,
            ),
            reasoning=None if self.reasoning_effort is None else domain.Reasoning(self.reasoning_effort),
            end_user=self.user,
            extra=_NOT_STREAMED if self.stream is False else domain.NOTHING,
        )


_NOT_STREAMED: Final[domain.JsonObject] = {"stream": False}

_decode: Final = msgspec.json.Decoder(PlainBody).decode


def read_plain(data: bytes) -> PlainBody | None:
    """Return a body that has plain messages and nothing unusual; None for any other, whether it is valid or not."""
    if len(data) > json_bounds.SMALL:
        return None
    try:
        return _decode(data)
    except (ValueError, RecursionError):
        return None
