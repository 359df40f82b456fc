"""Guards over a reply: between the provider's events and whoever measures, records and tells them.

Text, refusals and transcripts of sound are each one text a choice, held back only as far as a match may be in it (`scanner`). A
thought is one too, until anything else of its choice comes. Tool calls, the names of their functions too, come when their choice
is whole: nobody can act on half of one. So do fields that only the provider knows, if nothing of their choice was
changed. Log probabilities, which spell the text out, go with it until something of it is changed. Sound itself is not listened to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias, assert_never

import structlog
from msgspec.structs import replace

from antiphon.domain.content import NOTHING, JsonObject, ToolCall
from antiphon.domain.errors import ProviderError
from antiphon.domain.events import (
    AudioDelta,
    Batch,
    DeltaGroup,
    Event,
    ExtraDelta,
    Finished,
    FinishReason,
    Metrics,
    RefusalDelta,
    ReplyExtra,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from antiphon.domain.reply import ReplyToolCall
from antiphon.guards.base import Blocked, Guard
from antiphon.guards.chain import Chain, passed
from antiphon.guards.json_chain import JsonChain, passed_json
from antiphon.guards.unchanged import passed_extras, passed_fields, passed_logprobs

log = structlog.get_logger(__name__)

_BLOCKED = FinishReason.CONTENT_FILTER

_Delta: TypeAlias = TextDelta | ThinkingDelta | ToolCallDelta | RefusalDelta | AudioDelta | ExtraDelta


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
                    told.append(replace(event, extra=await passed_fields(self._guards, event.extra)) if event.extra else event)
                case ReplyExtra():
                    fields = await passed_fields(self._guards, event.fields)
                    if fields or event.repeats:
                        told.append(replace(event, fields=fields))
                case DeltaGroup():
                    pass  # what comes together is told as it passes
                case Finished():
                    ended[event.choice] = event
                case _:
                    await self._choice(event.choice).take(event, told)
        if ended:  # all of them come in the last batch, after everything else
            told += await self.rest()
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
        """How each choice ends: as filtered where it was blocked."""
        told: Batch = []
        for index in sorted(ended.keys() | self._choices):
            if index in self._choices and self._choices[index].blocked:
                told.append(Finished(index, _BLOCKED, _BLOCKED.value))
            elif index in ended:
                told.append(ended[index])
        return told

    async def rest(self) -> Batch:
        """What was held back, now that no more comes."""
        told: Batch = []
        for choice in self._choices.values():
            await choice.end(told)
        return told


class _Choice:
    """What has come of one choice."""

    def __init__(self, index: int, guards: Sequence[Guard], *, json: bool) -> None:
        self.blocked = False
        self._index = index
        self._guards = guards
        self._text = _Channel(guards, partial(TextDelta, index), json=json)
        self._extras: list[ExtraDelta] = []
        self._refusal = _Channel(guards, partial(RefusalDelta, index))
        self._transcript = _Channel(guards, lambda text: AudioDelta(index, transcript=text))
        self._thought: _Channel | None = None
        self._thoughts_masked = False  # the signature of what they were is of no use any more
        self._calls: dict[int, ReplyToolCall] = {}
        self._call_extras: list[JsonObject] = []

    async def take(self, event: _Delta, told: Batch) -> None:
        """Adds to `told` what of an event may be told now."""
        if self.blocked:
            return
        try:
            await self._take(event, told)
        except Blocked as blocked:
            self._block(blocked)

    async def end(self, told: Batch) -> None:
        """Adds to `told` what was held back."""
        if self.blocked:
            return
        try:
            await self._end_thought(told)
            for channel in (self._refusal, self._transcript, self._text):
                await channel.feed("", told, final=True)
            calls = {index: await self._passed_call(call) for index, call in self._calls.items()}
        except Blocked as blocked:
            self._block(blocked)
        else:
            masked = self._thoughts_masked or any(channel.masked for channel in (self._refusal, self._transcript, self._text))
            extras = None
            if (
                (self._extras or self._call_extras)
                and not masked
                and all(call == self._calls[index].value() for index, call in calls.items())
            ):
                extras = await passed_extras(self._guards, self._extras, self._call_extras)
            told += (
                ToolCallDelta(
                    self._index,
                    index,
                    call.id,
                    call.name,
                    call.arguments,
                    call.signature,
                    NOTHING if extras is None else call.extra,
                )
                for index, call in calls.items()
            )
            told += extras or ()

    async def _passed_call(self, call: ReplyToolCall) -> ToolCall:
        whole = call.value()
        name, arguments = await passed(self._guards, whole.name), await passed_json(self._guards, whole.arguments)
        return replace(whole, name=name, arguments=arguments)

    async def _take(self, event: _Delta, told: Batch) -> None:
        if self._thought is not None and type(event) is not ThinkingDelta:
            await self._end_thought(told)
        match event:
            case TextDelta():
                await self._text.feed(event.text, told, logprobs=event.logprobs)
            case RefusalDelta():
                await self._refusal.feed(event.text, told)
            case AudioDelta():
                await self._transcript.feed(event.transcript, told)
                if event.id or event.data or event.expires:
                    told.append(replace(event, transcript=""))
            case ThinkingDelta():
                await self._take_thought(event, told)
            case ToolCallDelta():
                self._calls.setdefault(event.index, ReplyToolCall()).add(event)
                if event.extra:
                    self._call_extras.append({"index": event.index, **event.extra})
            case ExtraDelta():
                self._extras.append(event)
            case _:
                assert_never(event)

    async def _take_thought(self, event: ThinkingDelta, told: Batch) -> None:
        if self._thought is None:
            self._thought = _Channel(self._guards, partial(ThinkingDelta, self._index, field=event.field))
        await self._thought.feed(event.text, told)
        if event.signature or event.redacted:
            await self._end_thought(told)
            signature = None if self._thoughts_masked else event.signature
            if signature or event.redacted:
                told.append(ThinkingDelta(self._index, "", signature, event.redacted))

    async def _end_thought(self, told: Batch) -> None:
        if self._thought is not None:
            thought, self._thought = self._thought, None
            await thought.feed("", told, final=True)
            self._thoughts_masked = self._thoughts_masked or thought.masked

    def _block(self, blocked: Blocked) -> None:
        self.blocked = True
        log.warning("reply blocked", guard=blocked.guard, choice=self._index)


class _Channel:
    """One text of a choice, told in deltas of one kind."""

    def __init__(self, guards: Sequence[Guard], delta: Callable[..., Event], *, json: bool = False) -> None:
        self._guards = guards
        self._chain = JsonChain(guards) if json else Chain(guards)
        self._delta = delta
        self._held = ""  # what came and is not told
        self._changed = False
        self._pieces: deque[tuple[str, tuple[JsonObject, ...]]] = deque()  # as they came, where they have log probabilities
        self._begun = 0  # how much of the first of them is told

    async def feed(self, text: str, told: Batch, *, final: bool = False, logprobs: tuple[JsonObject, ...] = ()) -> None:
        """See `Chain.feed`; what came before a match is told before this raises `Blocked`."""
        if not self._changed:
            if logprobs or self._pieces:
                if self._held and not self._pieces:
                    self._pieces.append((self._held, ()))
                self._pieces.append((text, logprobs))
            self._held += text
        try:
            passed = await self._chain.feed(text, final=final)
        except Blocked as blocked:
            if blocked.before:
                await self._tell(blocked.before, told)
            raise
        if passed:
            await self._tell(passed, told)

    async def _tell(self, passed: str, told: Batch) -> None:
        self._changed = self._changed or not self._held.startswith(passed)
        logprobs: list[JsonObject] = []
        if not self._changed:
            self._held = self._held[len(passed) :]
            self._begun = self._begun + len(passed) if self._pieces else 0
            while self._pieces and self._begun >= len(self._pieces[0][0]):
                text, more = self._pieces.popleft()
                self._begun -= len(text)
                logprobs += await passed_logprobs(self._guards, text, more)
        told.append(self._delta(passed, tuple(logprobs)) if logprobs else self._delta(passed))

    @property
    def masked(self) -> bool:
        """Whether what was told is not what came. To be asked at the end."""
        return self._changed or bool(self._held)
