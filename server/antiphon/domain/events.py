"""The events of a reply, which arrive in batches.

A reply is a list of blocks. `BlockStarted` opens a block, deltas extend it, and `BlockFinished` closes it. Every reader of a
provider's answer follows these rules:

1. Blocks are numbered from 0 over the whole reply, and only `BlockStarted` names the choice. The message of a choice is its blocks
   in order of number.
2. Several blocks may be open at once. Every delta of a block comes between its start and its finish.
3. `Started` comes first. `Usage` may come several times; each replaces the one before. Each choice has one `Finished`, after all
   its other events, and all its blocks are finished before it.
4. Deltas are authoritative: data that repeats or contradicts them makes no event, and data that continues them is another delta.
5. `BlockFinished.state`, if set, replaces the state of the start.
6. A failure is an exception of the reader, never an event.
7. The `InputDelta`s of a block concatenated are `ToolCall.arguments` or `ServerToolCall.input`.

The kinds are final, so that `type(event) is TextDelta` tells a type checker as much as `isinstance` and `match` do. Code that runs
for every token uses it, as the other two take several times as long for each kind that an event is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from enum import Enum, StrEnum, auto
from typing import Protocol, TypeAlias, final

from msgspec import Struct, field
from msgspec.structs import replace

from antiphon.domain.content import NOTHING, Block, Citation, JsonObject, Origin, State
from antiphon.domain.warnings import Warnings


class FinishReason(StrEnum):
    """The reason why a choice ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    """The model waits for results of the client's tools."""
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    """The model refused to answer."""
    PAUSE = "pause"
    """The provider paused a long turn, which continues if the request is sent again."""
    CONTEXT_WINDOW = "context_window"
    """The model's context window was full."""
    OTHER = "other"
    """A reason that only the provider defines; it is in `Finished.provider_reason`."""


@final
class Started(Struct, frozen=True):
    """The provider accepted the request. The first event, once. `created` is in Unix seconds."""

    id: str
    model: str
    """The provider's name of the model that answers."""
    origin: Origin
    """The source of the reply. `origin.model` is the model that was requested."""
    created: int
    fields: JsonObject = NOTHING
    """The provider's other fields of the reply as a whole."""
    conversation_id: str = ""
    """The conversation in which the turn is recorded; empty if none. `message_id` is the id of the reply."""
    conversation_title: str = ""
    message_id: str = ""
    warnings: Warnings = ()
    """The parameters of the request that the provider did not get as the caller set them. Not stored with the reply."""


@final
class BlockStarted(Struct, frozen=True):
    """A block starts. `value` is the block with everything known so far except its text."""

    block: int
    choice: int
    value: Block


@final
class TextDelta(Struct, frozen=True, gc=False):
    """More text. An empty text is sent only if the provider sent an empty one explicitly.

    `logprobs` are JSON objects in the form of the OpenAI API.
    """

    block: int
    text: str
    logprobs: tuple[JsonObject, ...] = ()


@final
class ThinkingDelta(Struct, frozen=True, gc=False):
    """More reasoning text."""

    block: int
    text: str


@final
class RefusalDelta(Struct, frozen=True, gc=False):
    """More text of a refusal."""

    block: int
    text: str


@final
class InputDelta(Struct, frozen=True, gc=False):
    """More of the arguments of a `ToolCall` or the input of a `ServerToolCall`."""

    block: int
    text: str


@final
class MediaDelta(Struct, frozen=True):
    """More of a recording or image. `data` is base64 that can be decoded on its own.

    `id` and `expires` (Unix seconds) are those of a recording, if they arrive after its start.
    """

    block: int
    data: str = ""
    transcript: str = ""
    id: str = ""
    expires: int | None = None


@final
class CitationDelta(Struct, frozen=True):
    """Another source of a text."""

    block: int
    citation: Citation


@final
class BlockProgress(Struct, frozen=True):
    """Intermediate output of a tool that the provider runs. It may be shown, but is never stored.

    For example: the status of a search, a preview of an image, the output of a shell.
    """

    block: int
    status: str
    fields: JsonObject = NOTHING


@final
class BlockFinished(Struct, frozen=True):
    """A block is complete. `state` replaces that of the start.

    `call_id` is the new id of a tool call, if the provider changed it.
    """

    block: int
    state: State | None = None
    call_id: str | None = None


class Place(Enum):
    """Where in a provider's answer an unknown field is."""

    MESSAGE = auto()
    CHOICE = auto()
    """In the choice beside the message, such as the results of a content filter."""
    REPLY = auto()
    """In the reply as a whole, as in `Started.fields`. A new value replaces the old one."""


@final
class ExtraFields(Struct, frozen=True):
    """Fields that only this provider has. `choice` is None for fields of the reply as a whole.

    `antiphon.domain.unknown_fields` says how the deltas of a field are merged.

    `repeats` is for fields of the reply as a whole: their values are known already, and the provider repeats them with every delta
    until the next event of this kind. `continued` names the lists whose first item goes on with the last one before.
    """

    choice: int | None
    fields: JsonObject
    place: Place = Place.MESSAGE
    repeats: bool = False
    continued: frozenset[str] = frozenset()


@final
class DeltaGroup(Struct, frozen=True):
    """The next `count` events, all of one choice, arrived in one delta. A dialect that streams deltas writes them as one.

    It is left out if the dialect would write a single delta anyway. Consumers that do not write deltas may ignore it.
    """

    choice: int
    count: int


class UsagePart(Struct, frozen=True, omit_defaults=True):
    """Tokens that have a price of their own: those of an inner call, such as one to another model, or those billed of a call."""

    model: str
    type: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0


@final
class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens used, as counted by the provider. It may come several times; the last one counts.

    None: the provider did not report the value; 0: it reported 0. The JSON names are those under which the values are stored.
    """

    input_tokens: int = field(name="prompt_tokens")
    """All input tokens, including those read from or written to a cache."""
    output_tokens: int = field(name="completion_tokens")
    """All output tokens, including reasoning."""
    total_tokens: int
    cached_tokens: int | None = field(default=None, name="cached_prompt_tokens")
    """Input tokens that were read from a cache."""
    cache_write_tokens: int | None = None
    """Input tokens that were written to a cache. `cache_write_1h_tokens` of these were written for an hour."""
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    """Output tokens that are reasoning."""
    audio_input_tokens: int | None = field(default=None, name="audio_prompt_tokens")
    audio_output_tokens: int | None = field(default=None, name="audio_completion_tokens")
    audio_cached_tokens: int | None = None
    """Input tokens that are audio and were read from a cache."""
    image_input_tokens: int | None = None
    image_output_tokens: int | None = None
    server_tools: Mapping[str, int] = {}
    """How often each of the provider's tools was used, by name."""
    parts: tuple[UsagePart, ...] = ()
    service_tier: str = ""
    """The service that the call got, if it is not the usual one: `flex`, `priority`, `batch`, or another word of the provider."""
    extra: JsonObject = NOTHING
    """The provider's other fields of the usage, unchanged."""
    estimated: bool = False
    """The provider reported no usage, and the gateway estimated it. Of a reader: the output is not counted yet."""

    def plus(self, other: Usage) -> Usage:
        """Return this usage with the input, output and total tokens of another attempt added."""
        total: Usage = replace(
            self,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )
        return total

    @property
    def tokens(self) -> int:
        """Return the number of all tokens. Some hosts count reasoning tokens only in the total."""
        return max(self.input_tokens + self.output_tokens, self.total_tokens)


class AttemptReport(Struct, frozen=True):
    """How one request to a provider ended. Times are in seconds."""

    deployment: str
    model: str
    outcome: str
    """One of `antiphon.domain.attempt_class`."""
    seconds: float
    waited: float = 0.0
    """How long the call waited before it."""


@final
class Metrics(Struct, frozen=True):
    """Measurements of a reply by the gateway. Sent once, before `Finished`. Times are in seconds."""

    latency: float
    """From the request to the end of the reply."""
    time_to_first_token: float | None
    """None if there was no output."""
    inter_token_latency: float | None
    """The mean time between two chunks; None if there were fewer than two."""
    chunks: int
    """The number of deltas that the provider sent."""
    cost_usd: float | None
    """None if the price is not known."""
    attempts: tuple[AttemptReport, ...] = ()
    """The attempts of the call; the last one made the reply."""


@final
class Finished(Struct, frozen=True):
    """A choice is complete. Sent once per choice, as its last event. `provider_reason` is empty if the provider gave no reason."""

    choice: int
    reason: FinishReason
    provider_reason: str
    details: JsonObject = NOTHING
    """The provider's other fields about the end."""


Event: TypeAlias = (
    Started
    | BlockStarted
    | TextDelta
    | ThinkingDelta
    | RefusalDelta
    | InputDelta
    | MediaDelta
    | CitationDelta
    | BlockProgress
    | BlockFinished
    | ExtraFields
    | DeltaGroup
    | Usage
    | Metrics
    | Finished
)

Batch: TypeAlias = list[Event]
"""The events of one read from the provider. They are passed on together, which keeps the cost per token low. Never empty."""


class ReplyStream(Protocol):
    """The batches of one reply. An asynchronous generator is one."""

    def __aiter__(self) -> AsyncIterator[Batch]: ...

    def __anext__(self) -> Awaitable[Batch]: ...

    async def aclose(self) -> None:
        """Close the provider's call at once."""
        ...
