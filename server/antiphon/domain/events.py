"""What happens while a model answers, as events; they come in batches.

A reply is a list of blocks. `BlockStarted` begins one, deltas grow it and `BlockFinished` ends it. The rules, which every reader of
a provider's answer keeps:

1. Blocks are numbered from 0 over the whole reply; `BlockStarted` alone names the choice. A choice's message is its blocks in order
   of number.
2. Several blocks may be open at once. Every delta of a block stands between its start and its finish.
3. `Started` comes first. `Usage` may come several times, each taking the place of the last. Every block is finished before the
   `Finished` of its choice, which comes once, after everything else of the choice.
4. Deltas are the truth: what repeats or contradicts them makes no event; what continues them is one more delta.
5. `BlockFinished.state`, if there is one, takes the place of the state of the start.
6. A failure is an exception of the reader, and never an event.
7. `InputDelta`s add up to `ToolCall.arguments` or `ServerToolCall.input`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from typing import Final, TypeAlias

from msgspec import Struct, field

from antiphon.domain.content import NOTHING, Block, Citation, JsonObject, Origin, State


class FinishReason(StrEnum):
    """Why a choice ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    """The model waits for the client's tools."""
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    """The model declined."""
    PAUSE = "pause"
    """The provider paused a long turn: sent again, it goes on."""
    CONTEXT_WINDOW = "context_window"
    """The context of the model was full."""
    OTHER = "other"
    """A reason that only the provider knows; `Finished.provider_reason` has it."""


class Started(Struct, frozen=True):
    """The provider took the request. The first event, once. `created` is in Unix seconds."""

    id: str
    model: str
    """As the provider names it."""
    origin: Origin
    """`origin.model` is as it was asked for."""
    created: int
    fields: JsonObject = NOTHING
    """What else the provider's reply has as a whole."""
    conversation_id: str = ""
    """Where the turn is recorded, if it is; `message_id` is the reply's."""
    conversation_title: str = ""
    message_id: str = ""


class BlockStarted(Struct, frozen=True):
    """A block begins. `value` is the block with what is known of it; there is no text in it yet."""

    block: int
    choice: int
    value: Block


class TextDelta(Struct, frozen=True):
    """More text; an empty one where the provider said just that, and not nothing.

    `logprobs` are JSON objects as the OpenAI API documents them.
    """

    block: int
    text: str
    logprobs: tuple[JsonObject, ...] = ()


class ThinkingDelta(Struct, frozen=True):
    """More thought."""

    block: int
    text: str


class RefusalDelta(Struct, frozen=True):
    """More of a refusal."""

    block: int
    text: str


class InputDelta(Struct, frozen=True):
    """More of what a tool is given: of a `ToolCall` or a `ServerToolCall`."""

    block: int
    text: str


class MediaDelta(Struct, frozen=True):
    """More of a recording or picture: `data` is base64, each piece of it whole.

    `id` and `expires` (Unix seconds) of a recording, where they come after its start.
    """

    block: int
    data: str = ""
    transcript: str = ""
    id: str = ""
    expires: int | None = None


class CitationDelta(Struct, frozen=True):
    """One more source of a text."""

    block: int
    citation: Citation


class BlockProgress(Struct, frozen=True):
    """How far a tool of the provider's is, a picture before it is whole, the output of a shell: shown, and never kept."""

    block: int
    status: str
    fields: JsonObject = NOTHING


class BlockFinished(Struct, frozen=True):
    """A block is whole. `state` takes the place of that of its start; `call_id`, of a call whose id the provider changed."""

    block: int
    state: State | None = None
    call_id: str | None = None


class Place(Enum):
    """Where unknown fields stand."""

    MESSAGE = auto()
    CHOICE = auto()
    """Beside the message, such as what a filter found."""
    REPLY = auto()
    """In the reply as a whole, as `Started.fields`: each takes the place of an older one."""


class ExtraFields(Struct, frozen=True):
    """Fields that only this provider has. `choice` is None for those of the reply as a whole.

    How the deltas of a field add up is told in `antiphon.domain.unknown_fields`.

    `repeats`, of the reply as a whole: the fields are known already; the provider sends them again with every delta, until the next
    such event.
    """

    choice: int | None
    fields: JsonObject
    place: Place = Place.MESSAGE
    repeats: bool = False


class DeltaGroup(Struct, frozen=True):
    """The next `count` events, all of one choice, came in one delta of the provider: a dialect that has deltas writes them as one.

    A delta that a dialect would write as one anyway has no group. Whoever does not write deltas may drop it.
    """

    choice: int
    count: int


class UsagePart(Struct, frozen=True, omit_defaults=True):
    """Tokens of an inner call, such as that of another model: they are priced by its own model."""

    model: str
    type: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens used, as the provider counts them. May come several times; the last one counts.

    None: the provider did not tell; 0: it told that there were none. The names in JSON are those under which it is stored.
    """

    input_tokens: int = field(name="prompt_tokens")
    """All of the input, what was read from or written to a cache included."""
    output_tokens: int = field(name="completion_tokens")
    """All of the output, thoughts included."""
    total_tokens: int
    cached_tokens: int | None = field(default=None, name="cached_prompt_tokens")
    """Of the input: read from a cache."""
    cache_write_tokens: int | None = None
    """Of the input: written to a cache; `cache_write_1h_tokens` of those, for an hour."""
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    """Of the output: thought."""
    audio_input_tokens: int | None = field(default=None, name="audio_prompt_tokens")
    audio_output_tokens: int | None = field(default=None, name="audio_completion_tokens")
    image_input_tokens: int | None = None
    image_output_tokens: int | None = None
    server_tools: Mapping[str, int] = {}
    """How often each tool of the provider's was used."""
    parts: tuple[UsagePart, ...] = ()
    extra: JsonObject = NOTHING
    """What else the provider tells about it, as it tells it."""
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
    details: JsonObject = NOTHING
    """What else the provider tells about the end."""


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

OF_BLOCKS: Final = (
    TextDelta,
    ThinkingDelta,
    RefusalDelta,
    InputDelta,
    MediaDelta,
    CitationDelta,
    BlockProgress,
    BlockStarted,
    BlockFinished,
)
"""Events that have a block."""

Batch: TypeAlias = list[Event]
"""Events that arrived together from one read of the provider: what makes a token cheap. Never empty."""
