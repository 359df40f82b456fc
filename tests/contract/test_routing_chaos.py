"""Whatever providers and callers do at the same time, nothing is left behind: no place, no probe, no grant, and no outage."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable

import pytest

from antiphon.config.routing import BreakerConfig, QueueConfig, TimeoutsConfig
from antiphon.domain.events import Batch, TextDelta
from antiphon.domain.request import ChatRequest
from antiphon.domain.warnings import Warnings, ignore
from antiphon.routing.breaker import BreakerState
from tests.unit.routing.test_attempts import BROKEN, BUSY, CUT, FAST, KEY, REPLY, UNREACHABLE, Turns, ask, routed
from tests.unit.scripted import START

RULES = FAST.model_copy(update={"breaker": BreakerConfig(consecutive=2, open=0.05, open_most=0.2), "retry_after_most": 0.2})
SCRIPTS = (
    REPLY,
    BROKEN,
    BUSY,
    CUT,
    UNREACHABLE,
    KEY,
    (None,),
    ([START, TextDelta(0, "Hel")], None),
    ([START], BROKEN),
    (REPLY[0], CUT),
)


class Erratic(Turns):
    """A provider that does anything, after any time."""

    def __init__(self, name: str, source: random.Random) -> None:
        super().__init__(name)
        self.source = source
        self.is_well = False

    async def _late(self, stream: AsyncGenerator[Batch, None]) -> AsyncGenerator[Batch, None]:
        try:
            async for batch in stream:
                await asyncio.sleep(self.source.random() * 0.02)
                yield batch
        finally:
            await stream.aclose()

    def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
        self.scripts = [REPLY]
        if not self.is_well:
            found = self.source.choice(SCRIPTS)
            self.scripts = [found if isinstance(found, tuple) else (found,)]
        return self._late(super().stream(request, warn))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("granted", [None, 3000], ids=["no grant", "a grant"])
async def test_nothing_is_left_behind(seed: int, granted: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls fail, wait, probe, time out and are left at any moment. Then all is as it was, and every call is answered."""
    source = random.Random(seed)  # no secret
    monkeypatch.setattr("antiphon.routing.candidate.TRIP", 0.2)
    providers = [Erratic(name, source) for name in "abc"]
    router = routed(
        [*providers[:2]],
        [providers[2]],
        rules=RULES,
        queue=QueueConfig(size=5, wait=0.3),
        concurrent=2,
        timeouts=TimeoutsConfig(first_token=0.05, total=0.2),
        requests_per_minute=granted,
    )

    async def call() -> None:
        await asyncio.sleep(source.random() * 0.6)
        task = asyncio.create_task(ask(router, seconds=source.choice([0.02, 0.1, 1])))
        if source.random() < 0.4:
            await asyncio.sleep(source.random() * 0.1)
            task.cancel()
        await asyncio.wait([task])

    await asyncio.gather(*(call() for _ in range(150)))
    deployments = router.deployments()
    assert [(each.in_flight, each.queued) for each in deployments] == [(0, 0)] * 3
    for provider in providers:
        provider.is_well = True
    await asyncio.sleep(0.5)
    for _ in range(10):
        outcome = await ask(router)
        now = asyncio.get_running_loop().time()
        health = [(one.breaker.state.value, one.wait(now)) for each in deployments for one in each.candidates()]
        assert outcome.text == "Hello", (outcome.error, outcome.tries, health)
    for candidate in (one for each in deployments for one in each.candidates()):
        assert candidate.breaker.refresh(asyncio.get_running_loop().time()) is not BreakerState.OPEN
        assert not candidate.breaker._probing
