"""Filters a reply: runs between the provider's events and those that measure, record and send them.

Text, refusals and audio transcripts are each one text for each choice, over all its blocks, held back only while a match is
possible (`channel`). A thought is one text too, up to the next block of another kind in its choice. Tool calls, with the names of
their functions, are sent when their choice is complete, as nobody can use half of one. So are fields and blocks that only the
provider knows, unless anything in their choice was changed. Log probabilities spell out the text, so they are sent with it until
something is changed. A block whose text was changed loses its signature, which was valid only for the original text, and its
citations lose their positions; so does a block whose signature is a text in which something is found. Audio itself is not
filtered.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

import structlog
from msgspec.structs import replace

from antiphon.domain.content import NOTHING, Audio, Block, Compaction, Refusal, ServerToolCall, State, Text, Thinking, ToolCall
from antiphon.domain.errors import ProviderError
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
    RefusalDelta,
    ReplyStream,
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from antiphon.domain.reply import ReplyBlock
from antiphon.guards.base import Blocked, Guard
from antiphon.guards.chain import filter_text
from antiphon.guards.channel import Channel
from antiphon.guards.json_chain import filter_json
from antiphon.guards.unchanged import allowed_citation, allowed_extras, allowed_fields, allowed_opaque, allowed_state

log = structlog.get_logger(__name__)

_BLOCKED = FinishReason.CONTENT_FILTER


async def filter_reply(
    batches: ReplyStream, guards: Sequence[Guard], choices: int, *, json: bool = False
) -> AsyncGenerator[Batch, None]:
    """Yield the events of a reply that may be sent. `choices` is the number of its choices; `json`: its text is to be JSON.

    See `Provider.stream`. A choice with blocked text ends there, with the finish reason content filter. When all choices are
    blocked, the provider's call is closed.
    """
    reply = _Reply(guards, choices, json=json)
    try:
        async for batch in batches:
            out = await reply.feed(batch)
            if reply.over:
                await batches.aclose()
                yield out
                return
            if out:
                yield out
    except ProviderError:
        if rest := await reply.rest():  # what came before the failure is sent, and stored
            yield rest
        raise
    finally:
        await batches.aclose()


class _Reply:
    """Filters one reply."""

    def __init__(self, guards: Sequence[Guard], choices: int, *, json: bool) -> None:
        self._guards = guards
        self._json = json
        self._expected = choices
        self._choices: dict[int, _Choice] = {}
        self._blocks: dict[int, _Choice] = {}
        self.over = False
        """All events were returned; further batches of the provider are not needed."""

    async def feed(self, batch: Batch) -> Batch:
        """Take a batch, and return the events that may be sent now; may be empty."""
        out: Batch = []
        ended: dict[int, Finished] = {}
        for event in batch:
            match event:
                case Usage() | Metrics():
                    out.append(event)
                case Started():
                    fields = await allowed_fields(self._guards, event.fields) if event.fields else event.fields
                    out.append(event if fields is event.fields else replace(event, fields=fields))
                case ExtraFields(choice=index):
                    if index is not None:
                        self._choice(index).add_fields(event)
                    elif (fields := await allowed_fields(self._guards, event.fields)) or event.repeats:
                        out.append(replace(event, fields=fields))
                case DeltaGroup():
                    pass  # the events of a group are sent as the guards release them
                case Finished():
                    ended[event.choice] = event
                case BlockStarted():
                    choice = self._blocks[event.block] = self._choice(event.choice)
                    await choice.take(event, out)
                case _:
                    await self._blocks[event.block].take(event, out)
        if ended:  # they all come in the last batch, after all other events
            out += await self.rest(whole=True)
        if ended or self._all_blocked():
            out += self._endings(ended)
            self.over = True
        return out

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index, self._guards, json=self._json)
        return choice

    def _all_blocked(self) -> bool:
        return len(self._choices) >= self._expected and all(choice.blocked for choice in self._choices.values())

    def _endings(self, ended: Mapping[int, Finished]) -> Batch:
        """Return the last events of each choice; a blocked one ends as filtered, after the ends of its open blocks."""
        out: Batch = []
        for index in sorted(ended.keys() | self._choices):
            if index in self._choices and self._choices[index].blocked:
                out += self._choices[index].cut()
                out.append(Finished(index, _BLOCKED, _BLOCKED.value))
            elif index in ended:
                out.append(ended[index])
        return out

    async def rest(self, *, whole: bool = False) -> Batch:
        """Return what was held back, as no more comes. `whole`: the reply ended normally."""
        out: Batch = []
        for choice in self._choices.values():
            await choice.end(out, whole=whole)
        return out


class _Choice:
    """Filters one choice of a reply. Methods append the events that may be sent to `out`."""

    def __init__(self, index: int, guards: Sequence[Guard], *, json: bool) -> None:
        self.blocked = False
        self.open: set[int] = set()
        """The blocks whose start was sent and whose end was not."""
        self._index = index
        self._guards = guards
        self._text = Channel(guards, TextDelta, self._finish_mark, json=json)
        self._refusal = Channel(guards, RefusalDelta, self._finish_mark)
        self._transcript = Channel(guards, _transcript, self._finish_mark)
        self._thought: Channel | None = None
        self._thoughts_masked = False
        self._kinds: dict[int, Block] = {}
        self._waiting: dict[int, ReplyBlock] = {}
        """Tool calls, and blocks that only the provider knows: sent when the choice is complete."""
        self._states: dict[int, State | None] = {}
        """The states of the waiting blocks at their ends."""
        self._extras: list[ExtraFields] = []

    def add_fields(self, event: ExtraFields) -> None:
        """Take fields that only the provider knows."""
        if not self.blocked:
            self._extras.append(event)

    async def take(self, event: Event, out: Batch) -> None:
        """Filter an event, and append to `out` what may be sent now."""
        if self.blocked:
            return
        begin = len(out)
        try:
            await self._take(event, out)
        except Blocked as blocked:
            self._block(blocked)
        self._track_open(out[begin:])

    async def end(self, out: Batch, *, whole: bool) -> None:
        """Append to `out` what was held back; with `whole` also tool calls and fields, useless in an incomplete reply."""
        if self.blocked:
            return
        begin = len(out)
        try:
            await self._end_thought(out)
            channels = (self._refusal, self._transcript, self._text)
            for channel in channels:
                await channel.end(out)
            calls = {number: await self._filter_waiting(block) for number, block in self._waiting.items()} if whole else {}
        except Blocked as blocked:
            self._block(blocked)
        else:
            masked = self._thoughts_masked or any(channel.masked for channel in channels)
            if whole:
                await self._emit_waiting(calls, out, masked=masked)
        self._track_open(out[begin:])

    def cut(self) -> Batch:
        """Return the ends of the blocks that are open when the choice is blocked. Being incomplete, they lose their signatures."""
        return [self._finish_mark(BlockFinished(number), changed=True) for number in sorted(self.open)]

    def _track_open(self, out: Batch) -> None:
        """Update `open` from the events that were sent."""
        for event in out:
            if isinstance(event, BlockStarted):
                self.open.add(event.block)
            elif isinstance(event, BlockFinished):
                self.open.discard(event.block)

    async def _take(self, event: Event, out: Batch) -> None:
        """Filter an event of an unblocked choice. Raises `Blocked`."""
        value = event.value if isinstance(event, BlockStarted) else None
        if self._thought is not None and value is not None and not isinstance(value, Thinking):
            await self._end_thought(out)
        match event:
            case BlockStarted():
                await self._start(event, out)
            case TextDelta():
                await self._text.feed(event.block, event.text, out, logprobs=event.logprobs)
            case RefusalDelta():
                await self._refusal.feed(event.block, event.text, out)
            case ThinkingDelta():
                await self._thoughts().feed(event.block, event.text, out)
            case InputDelta():
                self._waiting[event.block].pieces.append(event.text)
            case MediaDelta():
                await self._media(event, out)
            case CitationDelta():
                citation = await allowed_citation(self._guards, event.citation)
                if citation is not None:
                    self._text.mark(event.block, replace(event, citation=citation), out)
            case BlockProgress():
                fields = await allowed_fields(self._guards, event.fields)
                out.append(replace(event, fields=fields, status=await filter_text(self._guards, event.status)))
            case BlockFinished():
                await self._finish(event, out)
            case _:
                pass

    async def _start(self, event: BlockStarted, out: Batch) -> None:
        """Take the start of a block, with the provider's fields checked."""
        value = self._kinds[event.block] = event.value
        if value.state is not None and not isinstance(value, ToolCall):
            state = await allowed_state(self._guards, value.state)
            if state is not value.state:
                event = replace(event, value=replace(value, state=state))
        match value:
            case Text():
                self._text.mark(event.block, event, out)
            case Refusal():
                self._refusal.mark(event.block, event, out)
            case Audio():
                self._transcript.mark(event.block, event, out)
            case Thinking():
                self._thoughts().mark(event.block, event, out)
            case _ if isinstance(value, ToolCall | ServerToolCall | Compaction) or (
                value.state is not None and value.state.opaque is None
            ):
                self._waiting[event.block] = ReplyBlock(event.block, value, [])
            case _:
                out.append(event)  # images, and encrypted contents

    async def _media(self, event: MediaDelta, out: Batch) -> None:
        """Take audio. It is sent at once, unless its block's start waits for an earlier transcript."""
        if event.transcript:
            await self._transcript.feed(event.block, event.transcript, out)
        if event.data or event.id or event.expires:
            sound = replace(event, transcript="")
            self._track_open(out)
            if event.block in self.open:
                out.append(sound)
            else:
                self._transcript.mark(event.block, sound, out)

    async def _finish(self, event: BlockFinished, out: Batch) -> None:
        """Take the end of a block."""
        state = event.state
        if state is not None and event.block not in self._waiting:
            state = await allowed_state(self._guards, state)
            event = replace(event, state=state)
        match self._kinds[event.block]:
            case Text():
                self._text.mark(event.block, event, out)
            case Refusal():
                self._refusal.mark(event.block, event, out)
            case Audio():
                self._transcript.mark(event.block, event, out)
            case Thinking():
                self._thoughts().mark(event.block, event, out)
                if state is not None and state.opaque is not None:
                    await self._end_thought(out)
            case _ if event.block in self._waiting:
                self._states[event.block] = state
                self._waiting[event.block].finish(event)
            case _:
                out.append(event)

    def _finish_mark(self, event: Event, changed: bool) -> Event:  # called by the channels
        """Return the event to send for a block's start, end or citation, given whether the block's text was changed."""
        match event:
            case BlockFinished() if changed:
                initial = self._kinds[event.block].state
                state = event.state or initial
                if state is None or state.opaque is None:
                    return event
                state = replace(state, opaque=None)
                return replace(event, state=None if initial is None and state == State() else state)
            case CitationDelta() if changed:
                return replace(event, citation=replace(event.citation, start=None, end=None))
            case _:
                return event

    def _thoughts(self) -> Channel:
        """Return the channel of the current thought."""
        if self._thought is None:
            self._thought = Channel(self._guards, ThinkingDelta, self._finish_mark)
        return self._thought

    async def _end_thought(self, out: Batch) -> None:
        """Emit the rest of the current thought, if there is one."""
        if self._thought is not None:
            thought, self._thought = self._thought, None
            await thought.end(out)
            self._thoughts_masked = self._thoughts_masked or thought.masked

    async def _filter_waiting(self, block: ReplyBlock) -> Block:
        """Return a waiting block with its name and arguments filtered. Raises `Blocked`."""
        value = block.block()
        match value:
            case ToolCall():
                arguments = await filter_json(self._guards, value.arguments)
                return replace(value, name=await filter_text(self._guards, value.name), arguments=arguments)
            case ServerToolCall(input=str(given)):
                return replace(
                    value, name=await filter_text(self._guards, value.name), input=await filter_json(self._guards, given)
                )
            case Compaction(text=str(text)):
                return replace(value, text=await filter_text(self._guards, text))
            case _:
                return value

    async def _emit_waiting(self, calls: Mapping[int, Block], out: Batch, *, masked: bool) -> None:
        """Emit tool calls; also blocks and fields that only the provider knows, if nothing in the choice was changed."""
        same = not masked and all(value == self._waiting[number].block() for number, value in calls.items())
        fields_of = {
            number: value.state.fields for number, value in calls.items() if value.state is not None and value.state.fields
        }
        kept = await allowed_extras(self._guards, self._extras, fields_of) if same and (self._extras or fields_of) else None
        for number, value in calls.items():
            changed = value != self._waiting[number].block()
            state = value.state
            if state is not None:
                opaque = None if changed else await allowed_opaque(self._guards, state.opaque)
                fields = state.fields if kept is not None else NOTHING
                state = State(opaque, fields, state.item, state.origin) if opaque is not None or fields else None
            match value:
                case ToolCall():
                    out.append(BlockStarted(number, self._index, replace(value, arguments="", state=state)))
                    out += [InputDelta(number, value.arguments)] if value.arguments else []
                case ServerToolCall():
                    out.append(BlockStarted(number, self._index, replace(value, input=None, state=state)))
                    out += [InputDelta(number, value.input)] if value.input is not None else []
                case Compaction():
                    out.append(BlockStarted(number, self._index, replace(value, state=state)))
                case _ if kept is None:
                    continue  # a block that only the provider knows
                case _:
                    out.append(BlockStarted(number, self._index, replace(value, state=state)))
            out.append(BlockFinished(number))
        out += kept or ()

    def _block(self, blocked: Blocked) -> None:
        self.blocked = True
        log.warning("reply blocked", guard=blocked.guard, choice=self._index)


def _transcript(block: int, text: str) -> Event:
    return MediaDelta(block, transcript=text)
