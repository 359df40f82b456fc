"""A caller that leaves ends its call wherever it is: no try runs on or begins, and no place stays taken."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count, product
from pathlib import Path
from typing import Any

import grpc

from antiphon.v1 import admin_pb2, admin_pb2_grpc
from tests.e2e.conftest import Gateway
from tests.e2e.test_complaints import busy, running
from tests.e2e.test_grpc import METADATA
from tests.e2e.test_routing import DOWN, GOOD, HOST, body, is_answered, two
from tests.odd_upstream import HANG, OddUpstream, Step, chunk, delta, head, sse
from tests.waiting import until

ADMIN = {"keys": [{"name": "test", "key_env": "TEST_KEY", "scopes": ["chat", "admin"]}]}


async def busy_with(gateway: Gateway) -> tuple[int, int]:
    """Return how many calls the deployments have in progress, and how many wait for them."""
    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
        found = (await stub.ListDeployments(admin_pb2.ListDeploymentsRequest(), metadata=METADATA)).deployments
    ours = [each for each in found if each.name.startswith(f"{HOST}/")]
    assert len(ours) == 2
    return sum(each.in_flight for each in ours), sum(each.queued for each in ours)


async def is_idle(gateway: Gateway) -> bool:
    return await busy_with(gateway) == (0, 0)


HEAD: list[Step] = [head(), HANG]
TOKEN: list[Step] = [head(), chunk(sse(delta("Hm"))), HANG]


class FailsFirst(OddUpstream):
    """One of two deployments that fail the first try of a call, and then do what is scripted."""

    def __init__(self, tries: Iterator[int]) -> None:
        """Take the count of the tries of both; there is one call at a time."""
        super().__init__()
        self._tries = tries

    def steps(self, body: bytes) -> Sequence[Step]:
        return DOWN if next(self._tries) % 2 == 0 else super().steps(body)


async def test_a_second_try_ends_with_its_caller(tmp_path: Path) -> None:
    """Complaint: the upstream running on after the caller left. Behind a failure at one deployment, the try at the other ends."""
    tries = count()
    async with FailsFirst(tries) as east, FailsFirst(tries) as west:
        deployments = {"east": {"base_url": east.base_url}, "west": {"base_url": west.base_url}}
        routing = {"breaker": {"consecutive": 100, "of": 100}}
        config = {"auth": ADMIN, "providers": {HOST: {"models": ["m"], "deployments": deployments}}, "routing": routing}
        async with running(tmp_path, config) as gateway, gateway.client() as http:
            for number, (steps, stream) in enumerate(product(([HANG], HEAD, TOKEN), (True, False))):
                east.default = west.default = steps
                call = asyncio.create_task(http.post("/chat/completions", json=body(stream)))
                await until(lambda: len(east.requests) + len(west.requests) == 2 * number + 2)  # noqa: B023
                call.cancel()
                await until(lambda: east.left.qsize() + west.left.qsize() == number + 1)  # noqa: B023
                await until(lambda: is_idle(gateway))
            await asyncio.sleep(0.2)
            assert len(east.requests) + len(west.requests) == 12


async def test_no_try_begins_behind_a_wait_that_the_caller_left(llm: Any, tmp_path: Path) -> None:
    """A caller that leaves while its call waits for the end of a rate limit is not called for any more."""
    async with two(tmp_path, llm, auth=ADMIN) as (gateway, east, west), gateway.client() as http:
        east.default = west.default = busy(1)
        call = asyncio.create_task(http.post("/chat/completions", json=body()))
        await until(lambda: east.requests and west.requests)
        call.cancel()
        await until(lambda: is_idle(gateway))
        await asyncio.sleep(1.5)
        assert (len(east.requests), len(west.requests)) == (1, 1)


async def test_a_caller_that_leaves_the_queue_gives_its_place_up(tmp_path: Path) -> None:
    """With one call at a time for each deployment, those that left the queue are passed over, and no try is made for them."""
    async with OddUpstream() as east, OddUpstream() as west:
        narrow = {"models": ["m"], "concurrent": 1, "queue": {"wait": 20}}
        deployments = {"east": {"base_url": east.base_url}, "west": {"base_url": west.base_url}}
        config = {"auth": ADMIN, "providers": {HOST: {**narrow, "deployments": deployments}}}
        release = asyncio.Event()
        east.default = west.default = [release, *GOOD]
        async with running(tmp_path, config) as gateway, gateway.client() as http:
            holders = [asyncio.create_task(is_answered(http)) for _ in range(2)]
            await until(lambda: len(east.requests) + len(west.requests) == 2)
            waiting = [asyncio.create_task(http.post("/chat/completions", json=body())) for _ in range(4)]
            stays = asyncio.create_task(is_answered(http))

            async def has(number: int) -> bool:
                return await busy_with(gateway) == (2, number)

            await until(lambda: has(5))
            for each in waiting:
                each.cancel()
            await until(lambda: has(1))
            release.set()
            assert all(await asyncio.gather(*holders, stays))
            assert len(east.requests) + len(west.requests) == 3
            await until(lambda: is_idle(gateway))
