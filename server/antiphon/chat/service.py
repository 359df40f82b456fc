"""The chat service: every chat call of every dialect goes through it to a provider.

`ChatService.stream` is the pipeline: admit, guard, record, attempt, measure, settle. Each stage is a file of its own and does not
know the others. Stages wrap the call, not the token: a batch passes only two generators, the provider's and this one. The service
knows no dialect and no wire format. A call that is not recorded never uses the database.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from functools import partial
from operator import attrgetter
from typing import Final, NoReturn

from msgspec.structs import replace

from antiphon.chat.admit import check, estimate, permitted
from antiphon.chat.guard import guarded_record
from antiphon.chat.hold import HoldBack
from antiphon.chat.prices import Prices
from antiphon.chat.record import RecordedTurn
from antiphon.chat.settle import charge
from antiphon.chat.stopwatch import Stopwatch, closing
from antiphon.domain.call import Call
from antiphon.domain.content import Message
from antiphon.domain.deadline import Deadlines
from antiphon.domain.errors import ProviderProtocolError, ShuttingDown
from antiphon.domain.events import Batch, Finished, Usage
from antiphon.domain.fairness import yield_to_other_calls
from antiphon.domain.request import ChatRequest
from antiphon.guards.service import Guards
from antiphon.history.recorder import Record, Recorder
from antiphon.limits.limiter import Grant, Limiter
from antiphon.limits.quotas import Quotas
from antiphon.routing.attempts import Attempts
from antiphon.routing.router import Route, Router

_MANY_BLOCKS: Final = 1000
"""The number of blocks in a request above which other calls run before it is converted for the provider."""

_blocks_of: Final = attrgetter("blocks")

_NOTHING: Final[Batch] = []
"""An empty batch: the end of the provider's reply."""


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
        """Set the collaborators. `timeout` is the most seconds that a call may take. Without `limiter` there are no limits."""
        self._router = router
        self._recorder = recorder
        self._prices = prices
        self._limiter = limiter or Limiter(Quotas())
        self._guards = guards or Guards([], [])
        self._deadlines = Deadlines(timeout)

    async def stream(  # noqa: C901, PLR0915  # the whole pipeline, at a glance
        self, call: Call, request: ChatRequest, record: Record | None = None
    ) -> AsyncGenerator[Batch, None]:
        """Call the provider that has the model, and yield batches of events.

        The first batch has the first delta, or the whole reply, so a failure before any output can still be returned as a status.
        The last batch has `Usage`, `Metrics` and `Finished`; without it this raises. Closing the generator closes the provider's
        call at once.

        With `record`, the turn is stored before the provider is called, and the reply before the last batch is yielded. A turn that
        exists already is answered from the store: without `Metrics`, as nothing was measured, and with `Usage` if it was stored.

        Raises any `AntiphonError`.
        """
        if sum(map(len, map(_blocks_of, request.messages))) > _MANY_BLOCKS:
            await yield_to_other_calls()  # reading and converting so many takes long: other calls run in between
        route = self._resolve(call, request)
        deadline = self._deadlines.begin(call.time_left)
        grant: Grant | None = None
        turn: RecordedTurn | None = None
        try:
            with deadline:
                grant = await self._limiter.admit(call, partial(estimate, request, route, self._prices))
            if record is not None:
                with deadline:
                    request, turn = await self._record(call, request, record, route, grant)
                if turn.replay is not None:
                    for stored in turn.replay:
                        yield stored
                    return
            attempts: Attempts | None = None
            try:
                if request.model != route.model:
                    request = replace(request, model=route.model)
                if self._guards.filters_requests:
                    with deadline:  # recorded turns once more, as stored messages may be older than the guards
                        request = await self._guards.request(request)
                watch = Stopwatch(request)
                hold = HoldBack(call, watch)
                attempts = Attempts(call, route, request, self._router.rules, deadline)
                attempts.usage = watch.usage_on_error
                batches = self._guards.reply(attempts, request)
                if batches is not attempts:
                    attempts.close = batches.aclose
                async with attempts:
                    with deadline:
                        while True:
                            batch = await anext(batches, _NOTHING)
                            if not batch:
                                _raise_unfinished(call.provider)
                            if batches is attempts and attempts.stream is not None:
                                batches = attempts.stream  # nothing is tried again, so no step in between is needed
                            watch.see(batch)
                            if hold.is_needed or watch.reported is not None:
                                batch = hold.take(batch)
                            if batch and type(batch[-1]) is Finished:
                                await anext(batches, None)  # read to the end, so that the connection can be reused
                                break
                            if batch:
                                if turn is not None:
                                    turn.see(batch)
                                deadline.is_waiting = False  # while the caller reads
                                yield batch
                                deadline.resume()
                if turn is not None and request.stream and (early := turn.before_end(batch)):
                    turn.see(early)
                    yield early
                    batch = [event for event in batch if type(event) is Finished]
                usage = watch.usage()
                cost = await self._charge(grant, call, route, request, usage, attempts)
                batch = closing(batch, usage, watch.metrics(cost, call.attempts))
                if turn is not None:
                    turn.see(batch)
                    with deadline:
                        await turn.complete()
                yield batch
            except BaseException as error:
                try:
                    if attempts is not None and grant.open:
                        used = watch.usage_on_error(error) if attempts.is_pending else None
                        await self._charge(grant, call, route, request, used, attempts)
                finally:
                    if turn is not None:
                        await turn.fail(error)
                raise
        finally:
            self._deadlines.end(deadline)
            if grant is not None and grant.open:
                await grant.settle()

    @property
    def in_flight(self) -> int:
        """Return the number of calls in progress."""
        return len(self._deadlines)

    def interrupt(self) -> None:
        """End every call in flight with the error `ShuttingDown`."""
        self._deadlines.expire(ShuttingDown())

    async def settled(self, seconds: float = 10.0) -> None:
        """Return when every turn that has ended is stored, or after at most so many seconds."""
        await self._recorder.close(seconds)

    def _resolve(self, call: Call, request: ChatRequest) -> Route:
        """Check the request, and return its route. Raises `InvalidRequest`, `ModelNotFound`, `PermissionDenied`."""
        check(request)
        route = self._router.resolve(request.model, request.provider)
        call.route, call.provider, call.model = request.model or self._router.default, route.provider.name, route.model
        call.log_fields.update(model=route.model, provider=route.provider.name)
        return permitted(call, route, request)

    async def _record(
        self, call: Call, request: ChatRequest, record: Record, route: Route, grant: Grant
    ) -> tuple[ChatRequest, RecordedTurn]:
        """Filter what will be stored, and start the turn; return the request with the whole conversation, and the turn."""
        if self._guards.filters_requests:
            request = await self._guards.request(request)  # what is stored, also as title, is what the provider gets
            record = await guarded_record(record, self._guards)

        async def readmit(messages: tuple[Message, ...]) -> None:
            whole = replace(request, messages=messages)
            await self._limiter.readmit(grant, call, partial(estimate, whole, route, self._prices))

        recording = await self._recorder.begin(record, request.messages, readmit if grant.needs_estimate else None)
        if record.conversation is not None:
            record.report(record.conversation)
        if not recording.turn.existing:
            request = replace(request, messages=recording.messages, trusted=len(record.instructions))
        return request, RecordedTurn(call, record, recording)

    def _charge(
        self, grant: Grant, call: Call, route: Route, request: ChatRequest, usage: Usage | None, attempts: Attempts
    ) -> Awaitable[float | None]:
        """Charge what the call used, with all its attempts, and return the cost."""
        paid_by_caller = route.is_paid_by_caller(request)
        return charge(grant, call, self._prices, usage, attempts.failed_uses, paid_by_caller=paid_by_caller)


def _raise_unfinished(provider: str) -> NoReturn:
    raise ProviderProtocolError(f"The provider {provider} closed its reply before the end of it.", provider=provider)
