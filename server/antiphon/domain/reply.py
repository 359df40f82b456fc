"""Assembles a whole reply from the events of a stream. No I/O.

A reply that does not stream is read the same way: a dialect that answers at once collects the events first.
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
    """A block of a reply while it is received."""

    __slots__ = ("citations", "data", "early", "logprobs", "number", "pieces", "value")

    def __init__(self, number: int, value: Block, logprobs: list[JsonObject]) -> None:
        """`logprobs` is the list of the choice, to which those of the block's text are added."""
        self.number = number
        self.logprobs = logprobs
        self.value = value
        """The block, without the text in `pieces`."""
        self.pieces: list[str] = []
        """The text in the pieces received: for a tool call its arguments, for a recording its transcript."""
        self.data: list[str] = []
        """Pieces of base64, each of which can be decoded on its own."""
        self.citations: list[Citation] = []
        self.early: int | None = None
        """The number of pieces that arrived before the first text or refusal of the choice. None: there is none yet."""

    @property
    def text(self) -> str:
        """Return the text so far."""
        return "".join(self.pieces)

    @property
    def is_plain_text(self) -> bool:
        """Return whether this is a text and nothing else."""
        value = self.value
        return type(value) is Text and value.state is None and not (value.extra or value.citations or self.citations)

    @property
    def early_text(self) -> str:
        """Return the text that arrived before the first answer text or refusal of the choice; all of it if there is none yet."""
        return "".join(self.pieces[: self.early])

    def add_media(self, event: MediaDelta) -> None:
        """Add a delta of a recording or image."""
        if event.data:
            self.data.append(event.data)
        if event.transcript:
            self.pieces.append(event.transcript)
        if isinstance(self.value, Audio) and (event.id or event.expires):
            self.value = replace(self.value, id=event.id or self.value.id, expires=event.expires or self.value.expires)

    def finish(self, event: BlockFinished) -> None:
        """Apply the state and call id of the end of the block."""
        value = self.value
        if event.state is not None:
            value = replace(value, state=event.state)
        if event.call_id is not None and isinstance(value, ToolCall):
            value = replace(value, id=event.call_id)
        self.value = value

    def block(self) -> Block:
        """Return the block as received so far. The bytes of a recording are left out."""
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
    """A choice of a reply while it is received."""

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
        self._has_text = False

    def start(self, event: BlockStarted) -> ReplyBlock:
        """Start a block, and return it."""
        block = ReplyBlock(event.block, event.value, self.logprobs)
        if self._has_text:
            block.early = 0
        elif isinstance(event.value, Text | Refusal):
            self._has_text = True
            for other in self.blocks:
                other.early = len(other.pieces)
        self.blocks.append(block)
        if len(self.blocks) > 1 and self.blocks[-2].number > event.block:
            self.blocks.sort(key=attrgetter("number"))
        return block

    @property
    def has_output(self) -> bool:
        """Return whether the model has produced output. Fields of the choice beside the message are not output."""
        return bool(self.blocks) or any(value is not None for value in self.fields.values())

    @property
    def text(self) -> str:
        """Return all text blocks, concatenated without separators."""
        return "".join(piece for block in self.blocks if type(block.value) is Text for piece in block.pieces)

    def calls(self) -> list[ToolCall]:
        """Return the calls of the client's tools, in order."""
        return [block for one in self.blocks if isinstance(block := one.block(), ToolCall)]

    def left_out(self) -> tuple[int, ...]:
        """Return the places of the empty texts that `message` leaves out."""
        empty = tuple([at for at, one in enumerate(self.blocks) if not any(one.pieces) and one.block() == Text("")])
        if not empty:
            return ()
        others = (one for at, one in enumerate(self.blocks) if at not in empty)
        has_fields = any(value is not None for value in self.fields.values())
        return () if has_fields or any(not isinstance(one.value, THOUGHTS) for one in others) else empty

    def message(self, origin: Origin | None = None) -> Message:
        """Return the content so far as a message of the conversation, made by `origin`.

        Empty texts are left out if the only other blocks are reasoning. The bytes of recordings are left out.
        """
        left_out = self.left_out()
        blocks = [one.block() for at, one in enumerate(self.blocks) if at not in left_out]
        fields = {name: value for name, value in self.fields.items() if value is not None}
        if not blocks and not fields:
            return Message(Role.ASSISTANT, ())
        return Message(Role.ASSISTANT, tuple(blocks), origin=origin, fields=fields)


class Reply:
    """A reply, assembled event by event."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.usage: Usage | None = None
        self.metrics: Metrics | None = None
        self._choices: dict[int, ReplyChoice] = {}
        self._blocks: dict[int, ReplyBlock] = {}

    @property
    def choices(self) -> list[ReplyChoice]:
        """Return the choices, in order of index."""
        choices = self._choices
        return list(choices.values()) if len(choices) == 1 else [choices[index] for index in sorted(choices)]

    @property
    def has_output(self) -> bool:
        """Return whether the model has produced output."""
        return any(choice.has_output for choice in self._choices.values())

    def message(self) -> Message:
        """Return the first choice as a message of the conversation; an empty message if there is no choice."""
        choices = self.choices
        origin = None if self.started is None else self.started.origin
        return choices[0].message(origin) if choices else Message(Role.ASSISTANT, ())

    def add(self, *events: Event) -> None:
        """Apply events, in order. Runs for every token of every recorded stream: the usual kinds come first."""
        for event in events:
            if type(event) is TextDelta:
                block = self._blocks[event.block]
                block.pieces.append(event.text)
                if event.logprobs:
                    block.logprobs.extend(event.logprobs)
            elif type(event) is InputDelta or type(event) is ThinkingDelta or type(event) is RefusalDelta:
                self._blocks[event.block].pieces.append(event.text)
            elif type(event) is BlockStarted:
                self._blocks[event.block] = self._choice(event.choice).start(event)
            elif type(event) is BlockFinished:
                if event.state is not None or event.call_id is not None:
                    self._blocks[event.block].finish(event)
            elif type(event) is Finished:
                choice = self._choices.get(event.choice) or self._choice(event.choice)
                choice.reason, choice.provider_reason, choice.details = event.reason, event.provider_reason, event.details
            elif type(event) is Started:
                self.started = event
            elif type(event) is Usage:
                self.usage = event
            elif type(event) is Metrics:
                self.metrics = event
            else:
                self._add_rare(event)

    def _add_rare(self, event: ExtraFields | MediaDelta | CitationDelta | DeltaGroup | BlockProgress) -> None:
        """Apply an event of one of the other kinds."""
        match event:
            case ExtraFields():
                self._add_fields(event)
            case MediaDelta():
                self._blocks[event.block].add_media(event)
            case CitationDelta():
                self._blocks[event.block].citations.append(event.citation)
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
            unknown_fields.add(choice.fields, event.fields, joins=True, continued=event.continued)
        else:
            unknown_fields.add(choice.choice_fields, event.fields, joins=False)

    def _choice(self, index: int) -> ReplyChoice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = ReplyChoice(index)
        return choice


async def collect(batches: AsyncIterator[Batch]) -> Reply:
    """Read a stream to its end, and return the reply. Raises what the stream raises."""
    reply = Reply()
    async for batch in batches:
        reply.add(*batch)
    return reply
