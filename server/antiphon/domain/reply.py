"""A whole reply, put together from the events of a stream. No I/O.

Reading a reply and reading a stream are the same thing here: a dialect that answers at once collects the events first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from operator import attrgetter
from typing import Any, assert_never

from msgspec.structs import replace

from antiphon.domain import unknown_fields
from antiphon.domain.content import (
    NOTHING,
    THOUGHTS,
    Audio,
    Block,
    Citation,
    Compaction,
    Image,
    JsonObject,
    Media,
    Message,
    Origin,
    Refusal,
    Role,
    ServerToolCall,
    Text,
    Thinking,
    ToolCall,
)
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockProgress,
    BlockStarted,
    CitationDelta,
    DeltaGroup,
    Event,
    ExtraFields,
    Finished,
    FinishReason,
    InputDelta,
    MediaDelta,
    Metrics,
    Place,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
)


class ReplyBlock:
    """A block that grows."""

    __slots__ = ("citations", "data", "early", "logprobs", "number", "pieces", "value")

    def __init__(self, number: int, value: Block, logprobs: list[JsonObject]) -> None:
        """`logprobs` are those of the choice."""
        self.number = number
        self.logprobs = logprobs
        self.value = value
        """The block without its text."""
        self.pieces: list[str] = []
        """Its text, in the pieces in which it came: of a tool call the arguments, of a recording the transcript."""
        self.data: list[str] = []
        """Pieces of base64, each of them whole."""
        self.citations: list[Citation] = []
        self.early: int | None = None
        """How many of the pieces came before the first text of the choice. None: none has come yet."""

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    @property
    def early_text(self) -> str:
        """The text that came before the choice had any text of its own."""
        return "".join(self.pieces[: self.early])

    def add_media(self, event: MediaDelta) -> None:
        """Take more of a recording or picture."""
        if event.data:
            self.data.append(event.data)
        if event.transcript:
            self.pieces.append(event.transcript)
        if isinstance(self.value, Audio) and (event.id or event.expires):
            self.value = replace(self.value, id=event.id or self.value.id, expires=event.expires or self.value.expires)

    def finish(self, event: BlockFinished) -> None:
        """Take what is known at the end."""
        value = self.value
        if event.state is not None:
            value = replace(value, state=event.state)
        if event.call_id is not None and isinstance(value, ToolCall):
            value = replace(value, id=event.call_id)
        self.value = value

    def block(self) -> Block:
        """Return the block as it is now. Of a recording the bytes are left out."""
        value = self.value
        match value:
            case Text():
                return replace(value, text=self.text, citations=(*value.citations, *self.citations))
            case Thinking() | Refusal():
                return replace(value, text=self.text)
            case ToolCall():
                return replace(value, arguments=self.text)
            case ServerToolCall():
                return replace(value, input=self.text if self.pieces else value.input)
            case Audio():
                return replace(value, transcript=self.text)
            case Compaction():
                return replace(value, text=self.text if self.pieces else value.text)
            case Image():
                return replace(value, media=Media(url="".join(self.data))) if self.data else value
            case _:
                return value


class ReplyChoice:
    """One choice that grows."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.blocks: list[ReplyBlock] = []
        """In order of number."""
        self.logprobs: list[JsonObject] = []
        self.fields: dict[str, Any] = {}
        """Unknown fields of the message."""
        self.choice_fields: dict[str, Any] = {}
        """Unknown fields of the choice."""
        self.reason = FinishReason.OTHER
        self.provider_reason = ""
        self.details: JsonObject = NOTHING
        self._speaks = False

    def start(self, event: BlockStarted) -> ReplyBlock:
        """Begin a block, and return it."""
        block = ReplyBlock(event.block, event.value, self.logprobs)
        if self._speaks:
            block.early = 0
        elif isinstance(event.value, Text | Refusal):
            self._speaks = True
            for other in self.blocks:
                other.early = len(other.pieces)
        self.blocks.append(block)
        if len(self.blocks) > 1 and self.blocks[-2].number > event.block:
            self.blocks.sort(key=attrgetter("number"))
        return block

    @property
    def has_output(self) -> bool:
        """Whether there is any output of the model yet: what is told of a choice is none."""
        return bool(self.blocks) or any(value is not None for value in self.fields.values())

    @property
    def text(self) -> str:
        """All text, with nothing between the blocks."""
        return "".join(piece for block in self.blocks if type(block.value) is Text for piece in block.pieces)

    def calls(self) -> list[ToolCall]:
        """The calls of the client's tools, in order."""
        return [block for one in self.blocks if isinstance(block := one.block(), ToolCall)]

    def message(self, origin: Origin | None = None) -> Message:
        """Return what has come so far as a message of the conversation, made by `origin`.

        An empty text is left out where nothing but thoughts stands beside it. The bytes of recordings are not kept.
        """
        blocks = [one.block() for one in self.blocks]
        fields = {name: value for name, value in self.fields.items() if value is not None}
        if not fields and not any(not isinstance(block, THOUGHTS) and block != Text("") for block in blocks):
            blocks = [block for block in blocks if block != Text("")]
        if not blocks and not fields:
            return Message(Role.ASSISTANT, ())
        return Message(Role.ASSISTANT, tuple(blocks), origin=origin, fields=fields)


class Reply:
    """A reply that grows with each event."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.usage: Usage | None = None
        self.metrics: Metrics | None = None
        self._choices: dict[int, ReplyChoice] = {}
        self._blocks: dict[int, ReplyBlock] = {}

    @property
    def choices(self) -> list[ReplyChoice]:
        """The choices, in order of index."""
        return [self._choices[index] for index in sorted(self._choices)]

    @property
    def has_output(self) -> bool:
        """Whether there is any output of the model yet."""
        return any(choice.has_output for choice in self._choices.values())

    def message(self) -> Message:
        """Return the first choice as a message of the conversation."""
        choices = self.choices
        origin = None if self.started is None else self.started.origin
        return choices[0].message(origin) if choices else Message(Role.ASSISTANT, ())

    def add(self, event: Event) -> None:
        """Take one more event. Runs for every token of every stream."""
        match event:
            case TextDelta():
                block = self._blocks[event.block]
                block.pieces.append(event.text)
                if event.logprobs:
                    block.logprobs.extend(event.logprobs)
            case InputDelta() | ThinkingDelta() | RefusalDelta():
                self._blocks[event.block].pieces.append(event.text)
            case BlockStarted():
                self._blocks[event.block] = self._choice(event.choice).start(event)
            case BlockFinished():
                self._blocks[event.block].finish(event)
            case MediaDelta():
                self._blocks[event.block].add_media(event)
            case CitationDelta():
                self._blocks[event.block].citations.append(event.citation)
            case ExtraFields():
                self._add_fields(event)
            case Finished():
                choice = self._choice(event.choice)
                choice.reason, choice.provider_reason, choice.details = event.reason, event.provider_reason, event.details
            case Started():
                self.started = event
            case Usage():
                self.usage = event
            case Metrics():
                self.metrics = event
            case DeltaGroup() | BlockProgress():
                pass
            case _:
                assert_never(event)

    def _add_fields(self, event: ExtraFields) -> None:
        if event.place is Place.REPLY or event.choice is None:
            if self.started is not None and not event.repeats:
                self.started = replace(self.started, fields={**self.started.fields, **event.fields})
            return
        choice = self._choice(event.choice)
        if event.place is Place.MESSAGE:
            unknown_fields.add(choice.fields, event.fields, joins=True)
        else:
            unknown_fields.add(choice.choice_fields, event.fields, joins=False)

    def _choice(self, index: int) -> ReplyChoice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = ReplyChoice(index)
        return choice


async def collect(batches: AsyncIterator[Batch]) -> Reply:
    """Read a stream to its end. Raises what the stream raises."""
    reply = Reply()
    async for batch in batches:
        for event in batch:
            reply.add(event)
    return reply
