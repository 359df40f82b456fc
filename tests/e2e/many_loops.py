"""Many loops of tool calls at once, each turn of which may go to another replica of the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any, Final

import grpc
import httpx2

from tests.e2e.conftest import Gateway
from tests.e2e.tool_loops import Caller, ChatCaller, GrpcCaller
from tests.strict.pair import STATEFUL, StrictPair

AT_ONCE: Final = 6
_IN_TURN: Final = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})


class InTurn:
    """An HTTP client of several gateways: each request goes to the next one."""

    def __init__(self, clients: Sequence[httpx2.AsyncClient]) -> None:
        self._clients = cycle(clients)

    async def post(self, path: str, **options: Any) -> httpx2.Response:
        """Send a request."""
        return await next(self._clients).post(path, **options)


async def run_loops(gateways: Sequence[Gateway], strict: StrictPair, loops: int, turns: int) -> int:
    """Run so many loops: half over gRPC, half over chat completions, streamed and whole. Return the number of turns.

    Raises the error of the first call that failed.
    """
    options = [
        ("grpc.service_config", _IN_TURN),
        ("grpc.default_authority", "replicas"),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    made = 0
    async with AsyncExitStack() as stack:
        address = "ipv4:" + ",".join(gateway.rest for gateway in gateways)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
        clients = [await stack.enter_async_context(gateway.client()) for gateway in gateways]
        for by_chat in (False, True):
            strict.expect(by_chat=by_chat)
            numbers = iter(range(loops // 2))

            async def loop() -> None:
                nonlocal made
                for number in numbers:  # noqa: B023
                    http: Any = InTurn(clients)
                    caller: Caller = ChatCaller(http, stored=False) if by_chat else GrpcCaller(channel, stored=False)  # noqa: B023
                    for turn in range(turns):
                        await caller.turn(strict.model(STATEFUL[number % len(STATEFUL)]), turn, stream=(number + turn) % 3 > 0)
                        made += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(loop())
    return made
