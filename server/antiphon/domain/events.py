"""What happens while a model answers, as events; they come in batches."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct

from antiphon.domain.content import NOTHING, JsonObject


class FinishReason(StrEnum):
    """Why a choice ended. The values are the OpenAI API's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    FUNCTION_CALL = "function_call"
    """As TOOL_CALLS, of the one function that a model of 2023 asks for."""
    CONTENT_FILTER = "content_filter"
    OTHER = "other"
    """A reason that only the provider knows; `Finished.provider_reason` has it."""


# What happens while it answers. `choice` counts the replies from 0.


class Started(Struct, frozen=True):
    """The provider took the request. The first event, once. `created` is in Unix seconds."""

    id: str
    model: str
    provider: str
    created: int
    extra: JsonObject = NOTHING
    conversation_id: str = ""
    """Where the turn is recorded, if it is; `message_id` is the reply's."""
    conversation_title: str = ""
    message_id: str = ""


class TextDelta(Struct, frozen=True):
    """More text; an empty one where the provider said just that, and not nothing.

    `logprobs` are JSON objects as the OpenAI API documents them.
    """

    choice: int
    text: str
    logprobs: tuple[JsonObject, ...] = ()


class ThinkingDelta(Struct, frozen=True):
    """More thought; `signature` once it is whole. `field` is what its provider calls it, if that is not `reasoning_content`."""

    choice: int
    text: str
    signature: str | None = None
    redacted: str | None = None
    field: str = ""


class ToolCallDelta(Struct, frozen=True):
    """More of the tool call `index`: `id` with its first delta, `name` and `arguments` further pieces of text.

    `extra` are fields that only this provider has, where they stand in a call of the OpenAI API, those of `function` included; they
    add up like those of a message.
    """

    choice: int
    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: str | None = None
    extra: JsonObject = NOTHING


class RefusalDelta(Struct, frozen=True):
    """More of a refusal."""

    choice: int
    text: str


class AudioDelta(Struct, frozen=True):
    """More sound: `data` is base64. `expires` is in Unix seconds."""

    choice: int
    id: str | None = None
    data: str = ""
    transcript: str = ""
    expires: int | None = None


class ExtraDelta(Struct, frozen=True):
    """Fields that only this provider has: of the message, such as annotations, and of the choice, such as what a filter found.

    How the deltas of a field add up is told in `antiphon.domain.reply`.
    """

    choice: int
    fields: JsonObject
    choice_fields: JsonObject = NOTHING


class DeltaGroup(Struct, frozen=True):
    """The next `count` events, all of one choice, came in one delta of the provider: a dialect that has deltas writes them as one.

    A delta that became a single event has no group. Whoever does not write deltas may drop it.
    """

    choice: int
    count: int


class ReplyExtra(Struct, frozen=True):
    """Fields of the reply as a whole, as those of `Started.extra`, told later: each takes the place of an older one.

    `repeats`: the fields are known already; the provider sends them again with every delta, until the next such event.
    """

    fields: JsonObject
    repeats: bool = False


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens used, as the provider counts them. At most once, before `Finished`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_prompt_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_prompt_tokens: int = 0
    audio_completion_tokens: int = 0
    extra: JsonObject = NOTHING
    estimated: bool = False
    """The provider did not tell: counted here, roughly."""


class Metrics(Struct, frozen=True):
    """What a call took, as it was measured here. Once, before `Finished`. Times are in seconds."""

    latency: float
    """From the request to the end of the reply."""
    time_to_first_token: float | None
    """None where nothing was said."""
    inter_token_latency: float | None
    """The mean time between two chunks; None for fewer than two."""
    chunks: int
    """Deltas that the provider sent."""
    cost_usd: float | None
    """None where the price is not known."""


class Finished(Struct, frozen=True):
    """A choice is whole. Once for each choice, after everything else. `provider_reason` is empty where none was given."""

    choice: int
    reason: FinishReason
    provider_reason: str


Event: TypeAlias = (
    Started
    | TextDelta
    | ThinkingDelta
    | ToolCallDelta
    | RefusalDelta
    | AudioDelta
    | ExtraDelta
    | DeltaGroup
    | ReplyExtra
    | Usage
    | Metrics
    | Finished
)

Batch: TypeAlias = list[Event]
"""Events that arrived together from one read of the provider: what makes a token cheap. Never empty."""
