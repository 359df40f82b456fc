"""The chat service: every chat call of every dialect goes through here, and from here to a provider.

`ChatService.stream` is the pipeline: admit, guard, record, attempt, measure, settle. Each stage is a file of its own and knows no
other; it wraps the call and not the token, so that a batch passes two generators, the provider's and this one. No dialect and no
wire is known here. A call that is not recorded asks the database nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace

from antiphon.chat.admit import check, estimate, permit
from antiphon.chat.guard import guarded_record
from antiphon.chat.hold import HoldBack
from antiphon.chat.prices import Prices
from antiphon.chat.record import Recorded, Turning, Unrecorded
from antiphon.chat.settle import Settlement
from antiphon.chat.stopwatch import Stopwatch, closing
from antiphon.domain.call import Call
from antiphon.domain.content import Message
from antiphon.domain.deadline import Deadlines
from antiphon.domain.errors import ProviderProtocolError, ShuttingDown
from antiphon.domain.events import Batch, Finished
from antiphon.domain.fairness import yield_to_other_calls
from antiphon.domain.request import ChatRequest
from antiphon.guards.service import Guards
from antiphon.history.recorder import Record, Recorder
from antiphon.limits.limiter import Grant, Limiter
from antiphon.limits.quotas import Quotas
from antiphon.routing.attempts import Attempting
from antiphon.routing.router import Route, Router

_MANY_BLOCKS: Final = 1000
"""Blocks of a request above which other calls have their turn before it is written for the provider."""

_NOTHING: Final[Batch] = []
"""No batch: the provider's reply is over."""


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
        self._router = router
        self._recorder = recorder
        self._prices = prices
        self._limiter = limiter or Limiter(Quotas())
        self._guards = guards or Guards([], [])
        self._deadlines = Deadlines(timeout)

    async def stream(self, call: Call, request: ChatRequest, record: Record | None = None) -> AsyncGenerator[Batch, None]:
        """Ask the provider that has the model, and yield its events.

        The first batch holds the first delta, or all of the reply, so what fails before the model says anything can still be told
        as a status. The last batch holds `Usage`, `Metrics` and `Finished`; otherwise this raises. Closing the generator ends the
        provider's call at once.

        With `record` the turn is stored before the provider is asked, and the reply before the last batch comes. A turn that
        exists already is answered from the store: without `Metrics`, as nothing was measured, and with `Usage` if it was stored.

        Raises any `AntiphonError`.
        """
        route = await self._resolve(call, request)
        deadline = self._deadlines.begin(call.time_left)
        try:
            with deadline:
                grant = await self._limiter.admit(call, partial(estimate, request, route, self._prices))
            async with grant:
                turn: Turning = Unrecorded()
                if record is not None:
                    with deadline:
                        request, turn = await self._record(call, request, record, route, grant)
                if turn.replay is not None:
                    for stored in turn.replay:
                        yield stored
                    return
                async with turn:
                    with deadline:  # of a recorded turn once more: what is stored may be older than the guards
                        request = await self._guards.request(replace(request, model=route.model))
                    watch = Stopwatch(request)
                    hold = HoldBack(call, watch)
                    asked = self._guards.reply(route.provider.stream(request), request)
                    async with self._settlement(route, request, grant, watch) as settlement:
                        async with Attempting(call, asked.aclose, streamed=request.stream):
                            while True:
                                with deadline:
                                    batch = await anext(asked, _NOTHING)
                                if not batch:
                                    raise _unfinished(call.provider)
                                batch = hold.take(batch)
                                if batch and type(batch[-1]) is Finished:
                                    with deadline:
                                        await anext(asked, None)  # to its end, so that the connection can be used again
                                    break
                                if batch:
                                    turn.see(batch)
                                    yield batch
                        usage = watch.usage(batch)
                        batch = closing(batch, usage, watch.metrics(await settlement.charge(usage)))
                        turn.see(batch)
                        with deadline:
                            await turn.complete()
                        yield batch
        finally:
            self._deadlines.end(deadline)

    @property
    def in_flight(self) -> int:
        """Calls that are going on."""
        return len(self._deadlines)

    def interrupt(self) -> None:
        """End every call in flight with `ShuttingDown`, as a failure that its caller is told."""
        self._deadlines.expire(ShuttingDown())

    async def settled(self, seconds: float = 10.0) -> None:
        """Return when every turn that has ended is stored, or after so many seconds."""
        await self._recorder.close(seconds)

    async def _resolve(self, call: Call, request: ChatRequest) -> Route:
        """Check the request, and find who answers it. Raises `InvalidRequest`, `ModelNotFound`, `PermissionDenied`."""
        if sum(len(message.blocks) for message in request.messages) > _MANY_BLOCKS:
            await yield_to_other_calls()  # to read so many took long, and so will writing them: others have their turn in between
        check(request)
        route = self._router.resolve(request.model, request.provider)
        call.route, call.provider, call.model = request.model or self._router.default, route.provider.name, route.model
        structlog.contextvars.bind_contextvars(model=route.model, provider=route.provider.name)
        permit(call, route)
        return route

    async def _record(
        self, call: Call, request: ChatRequest, record: Record, route: Route, grant: Grant
    ) -> tuple[ChatRequest, Turning]:
        """Guard what is to be stored, and begin the turn; return the request with the whole conversation in it."""
        request = await self._guards.request(request)  # what is stored, and what a title is made of, is what goes to the provider
        record = await guarded_record(record, self._guards)

        async def readmit(messages: tuple[Message, ...]) -> None:
            whole = replace(request, messages=messages)
            await self._limiter.readmit(grant, call, partial(estimate, whole, route, self._prices))

        recording = await self._recorder.begin(record, request.messages, readmit if grant.needs_estimate else None)
        if record.conversation is not None:
            record.tell(record.conversation)
        if not recording.turn.existing:
            request = replace(request, messages=recording.messages, trusted=len(record.instructions))
        return request, Recorded(call, record, recording)

    def _settlement(self, route: Route, request: ChatRequest, grant: Grant, watch: Stopwatch) -> Settlement:
        price = partial(self._prices.cost, route.provider.name, route.model)
        return Settlement(grant, price, watch.broken_off, paid_by_caller=route.is_paid_by_caller(request))


def _unfinished(provider: str) -> ProviderProtocolError:
    return ProviderProtocolError(f"The provider {provider} ended its reply without saying so.", provider=provider)
