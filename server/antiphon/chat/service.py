"""The chat service: every call of every dialect goes through here, and from here to a provider.

It resolves the route, holds the call against its caller's limits, guards it, records the turn, asks the provider within the call's
deadline, measures, and hands the events up. It knows no dialect and no wire. A call that is not recorded asks the database nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace

from antiphon.auth.caller import ANONYMOUS, CALLER
from antiphon.chat.prices import Prices
from antiphon.domain.content import Message, Other, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from antiphon.domain.deadline import Deadline
from antiphon.domain.errors import (
    AntiphonError,
    ContentBlocked,
    DeadlineExceeded,
    InvalidRequest,
    PermissionDenied,
    ShuttingDown,
    TurnInProgress,
    TurnNotComplete,
    Violation,
)
from antiphon.domain.events import (
    Batch,
    ExtraDelta,
    Finished,
    FinishReason,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from antiphon.domain.measure import Stopwatch, closing
from antiphon.domain.request import ChatRequest
from antiphon.domain.turns import give_way
from antiphon.guards.service import Guards
from antiphon.history.base import MAX_SOURCE, MAX_TITLE, MessageState, Turn
from antiphon.history.recorder import Record, Recorder, Recording
from antiphon.limits.limiter import Grant, Limiter
from antiphon.limits.quotas import Quotas
from antiphon.routing.router import Route, Router

_MANY_PARTS: Final = 1000
"""Parts of a request above which other calls have their turn before it is written for the provider."""

MAX_HELD: Final = 64
"""The most events before the first delta that are held back, so that a failure until then is a status."""


class ChatService:
    """Answers chat requests."""

    def __init__(
        self,
        router: Router,
        recorder: Recorder,
        prices: Prices,
        *,
        timeout: float,
        limiter: Limiter | None = None,
        guards: Guards | None = None,
    ) -> None:
        """`timeout` is the longest that a call may take, in seconds. Without a limiter nothing is limited."""
        self._guards = guards
        self._limiter = limiter or Limiter(Quotas())
        self._router = router
        self._recorder = recorder
        self._prices = prices
        self._timeout = timeout
        self._calls: set[Deadline] = set()

    async def stream(
        self, request: ChatRequest, *, timeout: float | None, record: Record | None = None
    ) -> AsyncGenerator[Batch, None]:
        """Asks the provider that has the model, and yields its events.

        `timeout` is what the caller gives it, in seconds; None leaves it to the configuration. The first batch holds the first
        delta, or all of the reply, so what fails before the model says anything can still be told as a status. The last batch
        holds `Usage`, `Metrics` and `Finished`; otherwise this raises. Closing the generator ends the provider's call at once.

        With `record` the turn is stored before the provider is asked, and the reply before the last batch comes. A turn that
        exists already is answered from the store.

        Raises any `AntiphonError`.
        """
        if sum(len(message.parts) for message in request.messages) > _MANY_PARTS:
            await give_way()  # to read so many took long, and so will writing them: others have their turn in between
        _check(request)
        route = self._router.resolve(request.model, request.provider)
        structlog.contextvars.bind_contextvars(model=route.model, provider=route.provider.name)
        caller = CALLER.get(ANONYMOUS)
        if not caller.may_use(route.model, route.provider.name):
            raise PermissionDenied(f"This key may not use the model {route.model[:200]!r}.")
        deadline = Deadline(self._timeout if timeout is None else min(timeout, self._timeout))
        self._calls.add(deadline)
        try:
            price = partial(self._prices.cost, route.provider.name, route.model)
            spends = not route.is_paid_by_caller(request)
            grant = await deadline.wait(self._limiter.admit(caller, request, price, spends=spends))

            async def weigh(messages: tuple[Message, ...]) -> None:
                nonlocal grant
                whole = replace(request, messages=messages)
                grant = await self._limiter.readmit(grant, caller, whole, price, spends=spends)

            try:
                if record is None:
                    answer = self._answer(replace(request, model=route.model), route, deadline, grant)
                else:
                    if self._guards is not None:  # what is stored, and what a title is made of, is what went to the provider
                        request = await deadline.wait(self._guards.request(request))
                        record = await deadline.wait(_guarded(record, self._guards))
                    begun = self._recorder.begin(record, request.messages, weigh if grant.weighs else None)
                    recording = await deadline.wait(begun)
                    if record.conversation is not None:
                        record.tell(record.conversation)
                    if recording.turn.existing:
                        answer = _replay(recording.turn)
                    else:
                        trusted = len(record.instructions)
                        asked = replace(request, model=route.model, messages=recording.messages, trusted=trusted)
                        answer = self._record(asked, route, deadline, grant, recording)
                try:
                    async for batch in answer:
                        if record is not None and type(batch[0]) is Started:
                            record.tell(batch[0].conversation_id)
                        yield batch
                finally:
                    await answer.aclose()
            finally:
                await grant.settle()
        finally:
            deadline.close()
            self._calls.discard(deadline)

    @property
    def in_flight(self) -> int:
        """Calls that are going on."""
        return len(self._calls)

    def interrupt(self, error: AntiphonError | None = None) -> None:
        """Ends every call in flight with an error, `ShuttingDown` unless told otherwise, as a failure that its caller is told."""
        for deadline in tuple(self._calls):
            deadline.expire(error or ShuttingDown())

    async def settled(self, seconds: float = 10.0) -> None:
        """Returns when every turn that has ended is stored, or after so many seconds."""
        await self._recorder.close(seconds)

    async def _answer(self, request: ChatRequest, route: Route, deadline: Deadline, grant: Grant) -> AsyncGenerator[Batch, None]:
        """Asks, measures, and settles with the limits: before the last batch, so that a caller who has it may call again."""
        if self._guards is not None:  # of a recorded turn too: what is stored may be older than the guards
            request = await deadline.wait(self._guards.request(request))
        watch = Stopwatch(request)
        left = False
        held: Batch | None = []  # what came before the first delta; None: it has been passed on
        batches = route.provider.stream(request)
        if self._guards is not None:
            batches = self._guards.reply(batches, request)
        try:
            while True:
                try:
                    batch = await deadline.wait(anext(batches))
                except StopAsyncIteration:
                    return
                watch.see(batch)
                if held is not None:
                    held += batch
                    if not watch.has_delta and len(held) < MAX_HELD and type(batch[-1]) is not Finished:
                        continue
                    batch, held = held, None
                if type(batch[-1]) is Finished:
                    usage = watch.usage(batch)
                    cost = await self._settle(grant, request, route, usage)
                    batch = closing(batch, usage, watch.metrics(cost))
                yield batch
        except (asyncio.CancelledError, DeadlineExceeded, ContentBlocked):
            left = True  # the provider was asked, and reads a prompt whether or not anybody waits for what it says
            raise
        finally:
            await batches.aclose()
            if grant.open and (watch.begun or left):  # broken off: what had come of it is used
                await self._settle(grant, request, route, watch.usage([]))

    async def _settle(self, grant: Grant, request: ChatRequest, route: Route, usage: Usage) -> float | None:
        """Charges what was used, and returns its cost in USD."""
        cost = self._prices.cost(route.provider.name, route.model, usage)
        await grant.settle(usage, 0.0 if route.is_paid_by_caller(request) else cost)
        return cost

    async def _record(
        self, request: ChatRequest, route: Route, deadline: Deadline, grant: Grant, recording: Recording
    ) -> AsyncGenerator[Batch, None]:
        """Asks, and stores what is answered before it is told to be whole."""
        turn = recording.turn
        batches = self._answer(request, route, deadline, grant)
        try:
            async for batch in batches:
                recording.see(batch)
                if type(batch[0]) is Started:
                    batch[0] = _in_conversation(batch[0], turn)
                if type(batch[-1]) is Finished:
                    await deadline.wait(recording.complete())
                yield batch
        except (asyncio.CancelledError, GeneratorExit):
            recording.cancel()
            raise
        except Exception as error:
            await recording.fail(error)
            raise
        finally:
            await batches.aclose()


async def _guarded(record: Record, guards: Guards) -> Record:
    """What the caller says beside the messages. What stands for a match may be longer than it. Raises `ContentBlocked`."""
    title, source = await guards.text(record.title), await guards.text(record.source)
    preamble = await guards.messages(record.preamble)
    return replace(record, title=title[:MAX_TITLE], source=source[:MAX_SOURCE], preamble=preamble)


def _in_conversation(started: Started, turn: Turn) -> Started:
    conversation = turn.conversation
    return replace(started, conversation_id=conversation.id, conversation_title=conversation.title, message_id=turn.reply.id)


async def _replay(turn: Turn) -> AsyncGenerator[Batch, None]:
    """A turn that was made before, as it is stored. Raises `TurnInProgress` while it is still going on."""
    reply = turn.reply
    if reply.state is MessageState.IN_PROGRESS:
        raise TurnInProgress(reply.request_id)
    told = turn.told
    created = told.created or int(reply.created.timestamp())
    started = Started(told.id or f"chatcmpl-{reply.id}", reply.model, reply.provider, created)
    batch: Batch = [_in_conversation(started, turn)]
    calls = 0
    for part in reply.message.parts:
        match part:
            case Text():
                batch.append(TextDelta(0, part.text))
            case Thinking():
                batch.append(ThinkingDelta(0, part.text, part.signature, part.redacted))
            case Refusal():
                batch.append(RefusalDelta(0, part.text))
            case ToolCall():
                batch.append(ToolCallDelta(0, calls, part.id, part.name, part.arguments, part.signature, part.extra))
                calls += 1
            case Other():
                batch.append(ExtraDelta(0, {"content": [part.fields]}))
            case _:
                pass  # a model says nothing else
    if extra := dict(reply.message.extra):
        if "tool_calls" in extra:  # of kinds that are not known here
            extra["tool_calls"] = [{**call, "index": index} for index, call in enumerate(extra["tool_calls"])]
        batch.append(ExtraDelta(0, extra))
    if reply.state is not MessageState.COMPLETE:
        yield batch
        raise TurnNotComplete(reply.id)
    if reply.usage is not None:
        batch.append(reply.usage)
    reason = reply.finish_reason or FinishReason.STOP
    batch.append(Finished(0, reason, told.reason or reason.value))
    yield batch


def _check(request: ChatRequest) -> None:
    """What no dialect allows. Raises `InvalidRequest`."""
    if not request.messages:
        raise InvalidRequest("A request needs a message.", (Violation(("messages",), "must hold at least one message"),))
    wrong = tuple(
        Violation(("messages", index), "text must not hold the character NUL")
        for index, message in enumerate(request.messages)
        if _hold_nul(message.parts)
    )
    if wrong:
        raise InvalidRequest("A message holds the character NUL.", wrong)


def _hold_nul(parts: Iterable[Part]) -> bool:
    return any(
        (isinstance(part, Text) and "\0" in part.text) or (isinstance(part, ToolResult) and _hold_nul(part.parts)) for part in parts
    )
