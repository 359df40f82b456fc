"""Guards over a reply: between the provider's events and whoever measures, records and tells them.

Text, refusals and transcripts of sound are each one text a choice, over all its blocks, held back only as far as a match may be in
it (`channel`). A thought is one too, until anything else of its choice comes. Calls of tools, the names of their functions too,
come when their choice is whole: nobody can act on half of one. So do fields and blocks that only the provider knows, if nothing of
their choice was changed. Log probabilities, which spell the text out, go with it until something of it is changed. A block whose
text was changed has no signature any more, which was good for that text alone, and its sources no place in it; nor has one whose
signature is a text in which something is found. Sound itself is not listened to.
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
    Started,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from antiphon.domain.reply import ReplyBlock
from antiphon.guards.base import Blocked, Guard
from antiphon.guards.chain import passed
from antiphon.guards.channel import Channel
from antiphon.guards.json_chain import passed_json
from antiphon.guards.unchanged import passed_citation, passed_extras, passed_fields, passed_opaque, passed_state

log = structlog.get_logger(__name__)

_BLOCKED = FinishReason.CONTENT_FILTER


async def guarded(
    batches: AsyncGenerator[Batch, None], guards: Sequence[Guard], choices: int, *, json: bool = False
) -> AsyncGenerator[Batch, None]:
    """The events that may be passed on, of a reply of so many choices, whose text is to be JSON or not. See `Provider.stream`.

    A choice in which something is blocked ends there, as filtered. When none is left that is not, the provider's call is ended.
    """
    reply = _Reply(guards, choices, json=json)
    try:
        async for batch in batches:
            told = await reply.feed(batch)
            if reply.over:
                await batches.aclose()
                yield told
                return
            if told:
                yield told
    except ProviderError:
        if rest := await reply.rest():  # what came before a cut is told, and stored
            yield rest
        raise
    finally:
        await batches.aclose()


class _Reply:
    """What has come of a reply."""

    def __init__(self, guards: Sequence[Guard], choices: int, *, json: bool) -> None:
        self._guards = guards
        self._json = json
        self._expected = choices
        self._choices: dict[int, _Choice] = {}
        self._blocks: dict[int, _Choice] = {}
        self.over = False
        """Everything has been told, whatever the provider would still say."""

    async def feed(self, batch: Batch) -> Batch:
        """What to tell now: nothing, at times."""
        told: Batch = []
        ended: dict[int, Finished] = {}
        for event in batch:
            match event:
                case Usage() | Metrics():
                    told.append(event)
                case Started():
                    fields = await passed_fields(self._guards, event.fields) if event.fields else event.fields
                    told.append(event if fields is event.fields else replace(event, fields=fields))
                case ExtraFields(choice=index):
                    if index is not None:
                        self._choice(index).add_fields(event)
                    elif (fields := await passed_fields(self._guards, event.fields)) or event.repeats:
                        told.append(replace(event, fields=fields))
                case DeltaGroup():
                    pass  # what comes together is told as it passes
                case Finished():
                    ended[event.choice] = event
                case BlockStarted():
                    choice = self._blocks[event.block] = self._choice(event.choice)
                    await choice.take(event, told)
                case _:
                    await self._blocks[event.block].take(event, told)
        if ended:  # all of them come in the last batch, after everything else
            told += await self.rest(whole=True)
        if ended or self._all_blocked():
            told += self._endings(ended)
            self.over = True
        return told

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index, self._guards, json=self._json)
        return choice

    def _all_blocked(self) -> bool:
        return len(self._choices) >= self._expected and all(choice.blocked for choice in self._choices.values())

    def _endings(self, ended: Mapping[int, Finished]) -> Batch:
        """How each choice ends: as filtered where it was blocked, with the blocks that were open there."""
        told: Batch = []
        for index in sorted(ended.keys() | self._choices):
            if index in self._choices and self._choices[index].blocked:
                told += self._choices[index].cut()
                told.append(Finished(index, _BLOCKED, _BLOCKED.value))
            elif index in ended:
                told.append(ended[index])
        return told

    async def rest(self, *, whole: bool = False) -> Batch:
        """What was held back, now that no more comes. `whole`: the reply has ended well."""
        told: Batch = []
        for choice in self._choices.values():
            await choice.end(told, whole=whole)
        return told


class _Choice:
    """What has come of one choice."""

    def __init__(self, index: int, guards: Sequence[Guard], *, json: bool) -> None:
        self.blocked = False
        self.open: set[int] = set()
        """The blocks whose start was told and whose end was not."""
        self._index = index
        self._guards = guards
        self._text = Channel(guards, TextDelta, self._marked, json=json)
        self._refusal = Channel(guards, RefusalDelta, self._marked)
        self._transcript = Channel(guards, _transcript, self._marked)
        self._thought: Channel | None = None
        self._thoughts_masked = False
        self._kinds: dict[int, Block] = {}
        self._waiting: dict[int, ReplyBlock] = {}
        """Calls, and blocks that only the provider knows: they come when the choice is whole."""
        self._states: dict[int, State | None] = {}
        """Their states at their ends."""
        self._extras: list[ExtraFields] = []

    def add_fields(self, event: ExtraFields) -> None:
        """Take fields that only the provider knows."""
        if not self.blocked:
            self._extras.append(event)

    async def take(self, event: Event, told: Batch) -> None:
        """Add to `told` what of an event may be told now."""
        if self.blocked:
            return
        begin = len(told)
        try:
            await self._take(event, told)
        except Blocked as blocked:
            self._block(blocked)
        self._note(told[begin:])

    async def end(self, told: Batch, *, whole: bool) -> None:
        """Add to `told` what was held back. `whole`: with calls and fields, which nobody can use of half a reply."""
        if self.blocked:
            return
        begin = len(told)
        try:
            await self._end_thought(told)
            channels = (self._refusal, self._transcript, self._text)
            for channel in channels:
                await channel.end(told)
            calls = {number: await self._passed_call(block) for number, block in self._waiting.items()} if whole else {}
        except Blocked as blocked:
            self._block(blocked)
        else:
            masked = self._thoughts_masked or any(channel.masked for channel in channels)
            if whole:
                await self._tell_waiting(calls, told, masked=masked)
        self._note(told[begin:])

    def cut(self) -> Batch:
        """The ends of the blocks that are open where the choice was blocked: none of them is what its provider has signed."""
        return [self._marked(BlockFinished(number), changed=True) for number in sorted(self.open)]

    def _note(self, told: Batch) -> None:
        for event in told:
            if isinstance(event, BlockStarted):
                self.open.add(event.block)
            elif isinstance(event, BlockFinished):
                self.open.discard(event.block)

    async def _take(self, event: Event, told: Batch) -> None:
        value = event.value if isinstance(event, BlockStarted) else None
        if self._thought is not None and value is not None and not isinstance(value, Thinking):
            await self._end_thought(told)
        match event:
            case BlockStarted():
                await self._start(event, told)
            case TextDelta():
                await self._text.feed(event.block, event.text, told, logprobs=event.logprobs)
            case RefusalDelta():
                await self._refusal.feed(event.block, event.text, told)
            case ThinkingDelta():
                await self._thoughts().feed(event.block, event.text, told)
            case InputDelta():
                self._waiting[event.block].pieces.append(event.text)
            case MediaDelta():
                await self._media(event, told)
            case CitationDelta():
                citation = await passed_citation(self._guards, event.citation)
                if citation is not None:
                    self._text.mark(event.block, replace(event, citation=citation), told)
            case BlockProgress():
                fields = await passed_fields(self._guards, event.fields)
                told.append(replace(event, fields=fields, status=await passed(self._guards, event.status)))
            case BlockFinished():
                await self._finish(event, told)
            case _:
                pass

    async def _start(self, event: BlockStarted, told: Batch) -> None:
        value = self._kinds[event.block] = event.value
        if value.state is not None and not isinstance(value, ToolCall):
            state = await passed_state(self._guards, value.state)
            if state is not value.state:
                event = replace(event, value=replace(value, state=state))
        match value:
            case Text():
                self._text.mark(event.block, event, told)
            case Refusal():
                self._refusal.mark(event.block, event, told)
            case Audio():
                self._transcript.mark(event.block, event, told)
            case Thinking():
                self._thoughts().mark(event.block, event, told)
            case _ if isinstance(value, ToolCall | ServerToolCall | Compaction) or (
                value.state is not None and value.state.opaque is None
            ):
                self._waiting[event.block] = ReplyBlock(event.block, value, [])
            case _:
                told.append(event)  # a picture, or what is encrypted

    async def _media(self, event: MediaDelta, told: Batch) -> None:
        """Sound passes at once, unless its block waits behind another's transcript."""
        if event.transcript:
            await self._transcript.feed(event.block, event.transcript, told)
        if event.data or event.id or event.expires:
            sound = replace(event, transcript="")
            self._note(told)
            if event.block in self.open:
                told.append(sound)
            else:
                self._transcript.mark(event.block, sound, told)

    async def _finish(self, event: BlockFinished, told: Batch) -> None:
        state = event.state
        if state is not None and event.block not in self._waiting:
            state = await passed_state(self._guards, state)
            event = replace(event, state=state)
        match self._kinds[event.block]:
            case Text():
                self._text.mark(event.block, event, told)
            case Refusal():
                self._refusal.mark(event.block, event, told)
            case Audio():
                self._transcript.mark(event.block, event, told)
            case Thinking():
                self._thoughts().mark(event.block, event, told)
                if state is not None and state.opaque is not None:
                    await self._end_thought(told)
            case _ if event.block in self._waiting:
                self._states[event.block] = state
                self._waiting[event.block].finish(event)
            case _:
                told.append(event)

    def _marked(self, event: Event, changed: bool) -> Event:  # told by the channel
        """What is told of a start, an end or a source in a text, which was changed or not."""
        match event:
            case BlockFinished() if changed:
                begun = self._kinds[event.block].state
                state = event.state or begun
                if state is None or state.opaque is None:
                    return event
                state = replace(state, opaque=None)
                return replace(event, state=None if begun is None and state == State() else state)
            case CitationDelta() if changed:
                return replace(event, citation=replace(event.citation, start=None, end=None))
            case _:
                return event

    def _thoughts(self) -> Channel:
        if self._thought is None:
            self._thought = Channel(self._guards, ThinkingDelta, self._marked)
        return self._thought

    async def _end_thought(self, told: Batch) -> None:
        if self._thought is not None:
            thought, self._thought = self._thought, None
            await thought.end(told)
            self._thoughts_masked = self._thoughts_masked or thought.masked

    async def _passed_call(self, block: ReplyBlock) -> Block:
        """A block that has waited, with what of its name and of what it is given may be told."""
        value = block.block()
        match value:
            case ToolCall():
                arguments = await passed_json(self._guards, value.arguments)
                return replace(value, name=await passed(self._guards, value.name), arguments=arguments)
            case ServerToolCall(input=str(given)):
                return replace(value, name=await passed(self._guards, value.name), input=await passed_json(self._guards, given))
            case Compaction(text=str(text)):
                return replace(value, text=await passed(self._guards, text))
            case _:
                return value

    async def _tell_waiting(self, calls: Mapping[int, Block], told: Batch, *, masked: bool) -> None:
        """Tell calls, and what only the provider knows, which goes only with a choice of which nothing was changed."""
        same = not masked and all(value == self._waiting[number].block() for number, value in calls.items())
        stated = {number: value.state.fields for number, value in calls.items() if value.state is not None and value.state.fields}
        kept = await passed_extras(self._guards, self._extras, stated) if same and (self._extras or stated) else None
        for number, value in calls.items():
            changed = value != self._waiting[number].block()
            state = value.state
            if state is not None:
                opaque = None if changed else await passed_opaque(self._guards, state.opaque)
                fields = state.fields if kept is not None else NOTHING
                state = State(opaque, fields, state.item, state.origin) if opaque is not None or fields else None
            match value:
                case ToolCall():
                    told.append(BlockStarted(number, self._index, replace(value, arguments="", state=state)))
                    told += [InputDelta(number, value.arguments)] if value.arguments else []
                case ServerToolCall():
                    told.append(BlockStarted(number, self._index, replace(value, input=None, state=state)))
                    told += [InputDelta(number, value.input)] if value.input is not None else []
                case Compaction():
                    told.append(BlockStarted(number, self._index, replace(value, state=state)))
                case _ if kept is None:
                    continue  # of a kind that only the provider knows
                case _:
                    told.append(BlockStarted(number, self._index, replace(value, state=state)))
            told.append(BlockFinished(number))
        told += kept or ()

    def _block(self, blocked: Blocked) -> None:
        self.blocked = True
        log.warning("reply blocked", guard=blocked.guard, choice=self._index)


def _transcript(block: int, text: str) -> Event:
    return MediaDelta(block, transcript=text)
