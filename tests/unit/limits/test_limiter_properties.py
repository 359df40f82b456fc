"""Property test of the limiter against a simple account of what was taken and returned."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from antiphon.domain.errors import RateLimited
from antiphon.domain.events import Usage
from antiphon.limits.base import WINDOW
from antiphon.limits.limiter import Grant
from tests.unit.limits.admitting import admit
from tests.unit.limits.test_limiter import Clock, limiter, request_of

TOKENS, REQUESTS, STREAMS = 1000, 20, 3

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 3000)),
        st.tuples(st.just("end"), st.one_of(st.none(), st.integers(0, 2000))),
        st.tuples(st.just("wait"), st.integers(1, 70)),
    ),
    max_size=60,
)
"""Steps of a test: a call with a prompt of so many characters, the end of a call, or a wait in seconds.

The end has the tokens that the call used, or None if it failed.
"""


class Taken(Struct):
    """Tokens that a call took, and the second in which it did."""

    second: int
    tokens: int


@given(STEPS)
def test_what_is_left_is_the_limit_less_what_was_used(steps: list[tuple[str, int | None]]) -> None:
    """The rest is always the limit less what is used, never negative or above the limit.

    Tokens that are not used are free at once.
    """
    asyncio.run(follow(steps))


async def follow(steps: list[tuple[str, int | None]]) -> None:
    clock = Clock()
    headers: dict[str, str] = {}
    limits = limiter(
        {"per_key": {"tokens_per_minute": TOKENS, "requests_per_minute": REQUESTS, "concurrent_streams": STREAMS}}, clock=clock
    )
    account: list[Taken] = []
    requests: list[int] = []
    running: list[tuple[Grant, Taken]] = []

    def used() -> tuple[int, int]:
        over = int(clock.now) - WINDOW
        return sum(entry.tokens for entry in account if entry.second > over), sum(second > over for second in requests)

    for step, amount in steps:
        if step == "wait":
            clock.now += amount or 0
        elif step == "end" and running:
            grant, taken = running.pop(0)
            await grant.settle(None if amount is None else Usage(amount, 0, amount), 0.0)
            await grant.settle(Usage(9, 9, 18), 0.0)  # the second time has no effect
            spent = amount or 0
            if spent > taken.tokens:
                account.append(Taken(int(clock.now), spent - taken.tokens))
            else:
                taken.tokens = spent
        elif step == "call":
            request = request_of(amount or 0, max_tokens=100)
            wanted = min(-(-(amount or 0) // 4) + 4 + 100, TOKENS)
            tokens, calls = used()
            try:
                grant = await admit(limits, request, headers=headers)
            except RateLimited as error:
                refusal = error
            else:
                refusal = None
            if refusal is not None:
                assert 0 < (refusal.retry_after or WINDOW) <= WINDOW
                assert not refusal.retryable or tokens + wanted > TOKENS or calls >= REQUESTS or len(running) >= STREAMS
                continue
            assert tokens + wanted <= TOKENS
            assert calls < REQUESTS
            assert len(running) < STREAMS
            assert int(headers["x-ratelimit-remaining-tokens"]) == TOKENS - tokens - wanted
            assert int(headers["x-ratelimit-remaining-requests"]) == REQUESTS - calls - 1
            taken = Taken(int(clock.now), wanted)
            account.append(taken)
            requests.append(int(clock.now))
            running.append((grant, taken))

    for grant, _ in running:
        await grant.settle()
    clock.now += WINDOW
    await (await admit(limits, request_of(0, max_tokens=1), headers=headers)).settle()
    assert int(headers["x-ratelimit-remaining-tokens"]) == TOKENS - 5, "something was not given back"
