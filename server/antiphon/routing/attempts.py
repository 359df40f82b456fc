"""Attempts: requests to providers, until one begins to answer. Each is closed at once however the caller's call ends.

`Attempts` is a stage of the chat pipeline, and looks like the stream of one provider. Nothing is passed on before the first output,
so every failure until then is followed by another attempt, if the rules allow it, and the caller does not notice. After it nothing
is tried again: two replies are never joined. From then on the provider's own stream is passed on, without a step in between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import msgspec
import structlog
from msgspec.structs import replace

from antiphon.config import RoutingConfig
from antiphon.domain.attempt_class import AttemptClass, classify
from antiphon.domain.call import CANCELLATIONS, Attempt, Call, FailedUse
from antiphon.domain.deadline import Deadline
from antiphon.domain.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRejected,
    ProviderTimeout,
    Rejection,
    Unsupported,
)
from antiphon.domain.events import AttemptReport, Batch, Finished, FinishReason, RefusalDelta, TextDelta, Usage
from antiphon.domain.output import has_output
from antiphon.domain.request import ChatRequest
from antiphon.domain.tokens import prompt_tokens
from antiphon.routing.breaker import BreakerState
from antiphon.routing.candidate import Candidate
from antiphon.routing.clocks import FIRST_TOKEN, bounded, too_slow
from antiphon.routing.itinerary import Itinerary
from antiphon.routing.router import Route
from antiphon.routing.rules import RULES

MAX_HELD: Final = 64
"""The most events before the first output that are held back."""

MAX_HELD_BYTES: Final = 256 * 1024
"""The most bytes of these, as JSON."""

ROUTE_HEADER: Final = "x-antiphon-route"
ATTEMPTS_HEADER: Final = "x-antiphon-attempts"

_ASCII: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""The characters that are not percent-encoded in a route's header."""

log = structlog.get_logger(__name__)


class Attempts:
    """The attempts of one call. An asynchronous iterator of the reply's batches, and a context manager around the reading of it."""

    def __init__(self, call: Call, route: Route, request: ChatRequest, rules: RoutingConfig, deadline: Deadline) -> None:
        self._call = call
        self._route = route
        self._request = request
        self._rules = rules
        self._deadline = deadline
        self._itinerary: Itinerary | None = None
        """Made when it is needed: not if the only candidate answers at once."""
        self.stream: AsyncGenerator[Batch, None] | None = None
        """The stream that is passed on; None until there is output."""
        self._open: AsyncGenerator[Batch, None] | None = None
        """The stream of the last attempt."""
        self._candidate: Candidate | None = None
        """The candidate of the attempt in progress; None if there is none."""
        self._attempt: Attempt | None = None
        """The last attempt."""
        self._epoch = 0
        """The number that the candidate's breaker gave it."""
        self._leaves_time = False
        """Whether the attempt has less time than its deployment's own, so that another candidate can still answer."""
        self._held: Batch = []
        self.close: Callable[[], Awaitable[None]] | None = None
        """Closes the reply at the end of the call, if something wraps this iterator."""
        self.usage: Callable[[BaseException | None], Usage | None] = _unknown
        """Returns what the reply has used so far, when the call ends with such an error."""
        self.is_pending = False
        """Whether an attempt was begun that has not failed: the provider may have read the request."""
        self.failed_uses: list[FailedUse] = []
        """What failed attempts used that providers had accepted, without the cost."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        candidate, self._candidate = self._candidate, None
        if candidate is None or self._open is None:
            return
        left = time.monotonic() if isinstance(error, CANCELLATIONS) else None
        try:
            await (self.close or self._open.aclose)()
        finally:
            self._report(candidate, error, left)
            if self._itinerary is not None and self._itinerary.allowance is not None:
                usage = self.usage(error)
                await self._itinerary.settle(candidate, 0 if usage is None else usage.tokens)

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[Batch]:
        """Return the next batch. Runs for every token of every stream."""
        stream = self.stream
        return self._begin() if stream is None else stream.__anext__()

    async def aclose(self) -> None:
        """Close the provider's call at once."""
        if self._open is not None:
            await self._open.aclose()

    async def _begin(self) -> Batch:
        """Return the first batch with output, or the whole reply. Raises the error of the last attempt."""
        candidate = self._route.only
        if candidate is None or not candidate.try_enter(time.monotonic()):
            candidate = await self._plan().next()
        while True:
            assert candidate is not None, "without a failure, there is a candidate or an error"
            stream = self._start(candidate)
            try:
                limit = self._limit(candidate)
                if limit is None:
                    batch = await stream.__anext__()
                    if not has_output(batch) and type(batch[-1]) is not Finished:
                        batch = await self._hold(stream, batch)
                else:
                    batch = await self._within(limit, stream, candidate)
                if self._route.when and self._may_turn() and _is_refusal(batch):
                    self._held = batch
                    raise _refused(candidate)
            except StopAsyncIteration:
                ended = candidate
                candidate = await self._fail(candidate, _ended(candidate))
                if candidate is None:
                    raise _ended(ended) from None
            except (ProviderError, Unsupported) as error:
                candidate = await self._fail(candidate, error)
                if candidate is None:
                    raise
            else:
                assert self._attempt is not None, "an attempt was started"
                now = time.monotonic()
                candidate.first_token.add(now - self._attempt.started_at)
                if candidate.breaker.state is BreakerState.HALF_OPEN:
                    candidate.breaker.succeed(now, self._epoch)  # not only at the end of what may be a long stream
                self.stream = self._open
                return batch

    def _start(self, candidate: Candidate) -> AsyncGenerator[Batch, None]:
        """Start an attempt, and return the stream of its reply. The candidate's deployment was entered."""
        call, deployment, before = self._call, candidate.deployment, self._attempt
        number, waited = 1 if before is None else before.number + 1, 0.0
        if self._itinerary is None or self._itinerary.is_first(candidate):
            deployment.budget.deposit()
        if self._itinerary is not None:
            waited = self._itinerary.take_waited()
        request = self._request
        if request.model != candidate.model:
            self._request = request = replace(request, model=candidate.model)
        if call.model != candidate.model or call.provider != deployment.pool:
            call.provider, call.model = deployment.pool, candidate.model
            call.log_fields.update(provider=call.provider, model=call.model)
        if number > 1 or self._route.only is None:  # else they would say nothing new, and headers cost time
            call.headers[ROUTE_HEADER] = route = candidate.route
            if not route.isascii():  # gRPC would fail the call
                call.headers[ROUTE_HEADER] = quote(route, _ASCII)
            call.headers[ATTEMPTS_HEADER] = str(number)
        now = time.monotonic()
        self._attempt = Attempt(deployment.pool, candidate.model, now, request.stream, deployment.name, number, waited)
        call.deployment = deployment.name
        self._candidate, self._epoch = candidate, candidate.breaker.begin(now)
        call.observer.attempt_started(call, self._attempt)
        self._open = stream = deployment.provider.stream(request, call.warn)
        self.is_pending = True
        return stream

    def _plan(self) -> Itinerary:
        if self._itinerary is None:
            self._itinerary = Itinerary(self._call, self._route, self._request, self._rules, self._deadline)
        return self._itinerary

    async def _within(self, seconds: float, stream: AsyncGenerator[Batch, None], candidate: Candidate) -> Batch:
        """Return the beginning of the reply, held back until there is output. Raises `ProviderTimeout` after so many seconds.

        The rest of the reply has what is left of `timeouts.total`.
        """
        deployment = candidate.deployment
        try:
            async with asyncio.timeout(seconds):
                batch = await self._hold(stream, await stream.__anext__())
        except TimeoutError:
            raise too_slow(deployment.name) from None
        if deployment.timeouts.total is not None:
            assert self._attempt is not None, "an attempt was started"
            used = time.monotonic() - self._attempt.started_at
            self._open = bounded(stream, deployment.timeouts.total - used, deployment.name)
        return batch

    async def _hold(self, stream: AsyncGenerator[Batch, None], batch: Batch) -> Batch:
        """Hold events back until there is output, or the end, or too much of them; return them all."""
        held, size = self._held, 0
        while True:
            held += batch
            if has_output(batch) or type(batch[-1]) is Finished or len(held) >= MAX_HELD:
                break
            size += len(msgspec.json.encode(batch))
            if size >= MAX_HELD_BYTES:
                break
            batch = await stream.__anext__()
        self._held = []
        return held

    def _may_turn(self) -> bool:
        """Return whether another model may be asked if this one refuses, on a route that has one for that."""
        assert self._attempt is not None, "an attempt was started"
        return self._attempt.number < self._rules.attempts and self._plan().turns(AttemptClass.REFUSED)

    def _limit(self, candidate: Candidate) -> float | None:
        """Return the seconds until the first token, or until the end of a reply that is not streamed; None: no limit."""
        timeouts = candidate.deployment.timeouts
        limit = timeouts.total
        if self._request.stream:
            first_token = timeouts.first_token
            if first_token is None and self._route.only is None and self._has_other(candidate):
                first_token = FIRST_TOKEN
            if limit is None or (first_token is not None and first_token < limit):
                limit = first_token
        self._leaves_time = False
        usual = candidate.first_token.value
        if usual is not None and self._route.only is None and usual > (half := self._deadline.left / 2):
            # It would leave no time for another one that is usually quick enough.
            self._leaves_time = (limit is None or half < limit) and self._has_quicker(candidate, half / 2)
        return half if self._leaves_time else limit

    def _has_quicker(self, candidate: Candidate, seconds: float) -> bool:
        """Return whether there is another candidate to go to, from which so many seconds usually suffice for the first token."""
        assert self._attempt is not None, "an attempt was started"
        return self._attempt.number < self._rules.attempts and self._plan().has_quicker(candidate, seconds)

    def _has_other(self, candidate: Candidate) -> bool:
        """Return whether there is another candidate to go to, if this one fails. The route has several."""
        assert self._attempt is not None, "an attempt was started"
        return self._attempt.number < self._rules.attempts and self._plan().has_other(candidate)

    async def _fail(self, candidate: Candidate, error: ProviderError | Unsupported) -> Candidate | None:
        """End the attempt, and return the candidate of the next one, once it can be called; None if there is none."""
        self._candidate = None
        self.is_pending = False
        assert self._open is not None, "an attempt was started"
        assert self._attempt is not None, "an attempt was started"
        held, self._held = self._held, []
        if held:
            usage = next((event for event in reversed(held) if type(event) is Usage), None)
            if usage is None:
                prompt = prompt_tokens(self._request)
                usage = Usage(prompt, 0, prompt, estimated=True)
            deployment = candidate.deployment
            self.failed_uses.append(FailedUse(deployment.pool, candidate.model, deployment.name, usage))
        try:
            await self._open.aclose()
        finally:
            self._report(candidate, error, None)
        plan = self._plan()
        if plan.allowance is not None:
            used = prompt_tokens(self._request) if isinstance(error, ProviderTimeout) else 0
            await plan.settle(candidate, self.failed_uses[-1].usage.tokens if held else used)
        request = plan.fail(candidate, error, self._request, self._attempt.number)
        if request is None:
            return None
        self._request = request
        following = await plan.next()
        if following is not None and self._attempt.number + 1 == self._rules.attempts:
            self._request = plan.for_last_attempt(request, following)
        return following

    def _report(self, candidate: Candidate, error: BaseException | None, left: float | None) -> None:
        """Report how the attempt ended, once it is closed. `left` is the time at which its caller left, if that is why."""
        call, attempt, now = self._call, self._attempt, time.monotonic()
        assert attempt is not None, "an attempt was started"
        if left is not None:
            call.observer.cancelled_upstream(call, attempt, now - left)
        call.observer.attempt_ended(call, attempt, error)
        found = AttemptClass.OK if error is None else classify(error, has_output=self.stream is not None)
        call.attempts += (AttemptReport(attempt.deployment, attempt.model, found, now - attempt.started_at, attempt.waited),)
        candidate.deployment.leave()
        was_open = candidate.breaker.state is BreakerState.OPEN or candidate.breaker.is_early
        own_key = self._request.api_key is not None
        verdict = AttemptClass.DEADLINE if found is AttemptClass.LATE and self._leaves_time else found
        candidate.record(now, self._epoch, verdict, error, own_key=own_key, alone=self._route.only is candidate)
        if error is None:
            return
        if self.stream is None and verdict in (AttemptClass.GONE, AttemptClass.DEADLINE):
            # No failure, as callers decide how long they wait. But those that wait for nothing should go elsewhere.
            candidate.first_token.add_at_least(now - attempt.started_at)
        name, model, seconds = attempt.deployment, attempt.model, round(candidate.breaker.wait(now), 1)
        if RULES[found].onward:
            log.warning("attempt_failed", deployment=name, model=model, error=found.value, number=attempt.number)
        if candidate.breaker.state is BreakerState.OPEN and not was_open:
            if found is AttemptClass.CREDENTIALS:
                log.error("deployment_refuses_all", deployment=name, model=model, error=found.value, seconds=seconds)
            else:
                log.warning("deployment_left_alone", deployment=name, model=model, error=found.value, seconds=seconds)


def _unknown(_error: BaseException | None) -> Usage | None:
    return None


def _ended(candidate: Candidate) -> ProviderProtocolError:
    name = candidate.deployment.name
    return ProviderProtocolError(f"The provider {name} closed its reply before the end of it.", provider=name)


def _refused(candidate: Candidate) -> ProviderRejected:
    name = candidate.deployment.name
    error = ProviderRejected(f"The provider {name} refused the request.", provider=name)
    error.rejection = Rejection.REFUSED
    return error


def _is_refusal(batch: Batch) -> bool:
    """Return whether a reply begins with a refusal, or ends as one without any text."""
    for event in batch:
        if type(event) is RefusalDelta:
            return True
        if type(event) is TextDelta and event.text:
            return False
        if type(event) is Finished:
            return event.reason in (FinishReason.CONTENT_FILTER, FinishReason.REFUSAL)
    return False


class Attempting:
    """One attempt of a proxied call, as a context manager."""

    def __init__(self, call: Call, close: Callable[[], Awaitable[None]], *, streamed: bool = False) -> None:
        """`close` ends the provider's call, whether or not it has begun; `streamed`: the answer will be streamed."""
        self._call = call
        self._close = close
        self._attempt = Attempt(call.provider, call.model, time.monotonic(), streamed)

    async def __aenter__(self) -> None:
        self._call.observer.attempt_started(self._call, self._attempt)

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> None:
        call, attempt = self._call, self._attempt
        left = time.monotonic() if isinstance(error, CANCELLATIONS) else None
        try:
            await self._close()
        finally:
            if left is not None:
                call.observer.cancelled_upstream(call, attempt, time.monotonic() - left)
            call.observer.attempt_ended(call, attempt, error)
