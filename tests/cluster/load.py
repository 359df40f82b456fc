"""The mixed load: clients of each kind that call until they are stopped, about 40 calls per second in total."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import grpc

from antiphon.v1 import chat_pb2
from tests.cluster.causes import ErrorEventError, cause_of
from tests.cluster.clients import Ask, Clients, Reply, ask_grpc, ask_http, ask_sdk, stream_grpc, stream_sdk
from tests.cluster.journal import Call, Journal, Outcome, Turn

KEY = "sk-cluster-key"
RATE_KEYS = {"rate-a": "sk-cluster-rate-a", "rate-b": "sk-cluster-rate-b"}
"""Keys that may make `RATE` calls a minute. Their clients try more."""

RATE = 60
AT_ONCE_KEY = "sk-cluster-at-once"
"""A key that may have `AT_ONCE` calls at once. Its clients try more."""

AT_ONCE = 3
AT_ONCE_GROUP = "at-once"
"""The word in the prompts of these calls by which the provider counts them."""

TURNS = 5
"""The number of turns in a conversation."""

TRIES = 60
"""How often a turn is tried: for about two minutes."""

_RETRY_DELAY = 0.5
"""Seconds before a failed turn is tried again."""


class Load:
    """All clients. Pauses are of random length, so that the clients do not call in step."""

    def __init__(self, clients: Clients, journal: Journal) -> None:
        self._clients = clients
        self._journal = journal
        self._over = asyncio.Event()
        self._conversations = count(1)

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Make calls during the block, and then wait until each call has ended."""
        callers = [
            *(self._http(pause=0.2) for _ in range(2)),
            self._sdk(tasks=2, pause=0.5),
            self._sdk_streams(tasks=5, pause=0.5),
            *(self._grpc(edge=False, pause=0.2) for _ in range(2)),
            self._grpc(edge=True, pause=0.25),
            self._grpc_streams(tasks=3, pause=0.5),
            *(self._history(edge=number % 2 == 0, pause=0.3) for number in range(4)),
            *(self._rated(name, pause=0.6) for name in RATE_KEYS),
            self._at_once(tasks=AT_ONCE + 1, pause=0.5),
        ]
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(caller)
            try:
                yield
            finally:
                self._over.set()

    async def _repeat(self, kind: str, ask: Ask, pause: float, *, limited: bool = False) -> None:
        while not self._over.is_set():
            await self._journal.attempt(kind, self._journal.name(kind), ask, limited=limited)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * random.uniform(0.5, 1.5))

    async def _http(self, pause: float) -> None:
        async with self._clients.http(KEY) as session:
            await self._repeat("http", lambda call: ask_http(session, call.name), pause)

    async def _sdk(self, tasks: int, pause: float) -> None:
        async with self._clients.sdk(KEY) as client:
            calls = (self._repeat("sdk", lambda call: ask_sdk(client, call.name), pause) for _ in range(tasks))
            await asyncio.gather(*calls)

    async def _sdk_streams(self, tasks: int, pause: float) -> None:
        async with self._clients.sdk(KEY) as client:
            calls = (self._repeat("sdk-stream", lambda call: stream_sdk(client, call, call.name), pause) for _ in range(tasks))
            await asyncio.gather(*calls)

    async def _grpc(self, *, edge: bool, pause: float) -> None:
        async with self._clients.edge() if edge else self._clients.headless() as channel:

            async def ask(call: Call) -> None:
                await ask_grpc(channel, KEY, call.name)

            await self._repeat("grpc-edge" if edge else "grpc", ask, pause)

    async def _grpc_streams(self, tasks: int, pause: float) -> None:
        async with self._clients.headless() as channel:

            async def ask(call: Call) -> None:
                await stream_grpc(channel, KEY, call, call.name)

            await asyncio.gather(*(self._repeat("grpc-stream", ask, pause) for _ in range(tasks)))

    async def _rated(self, name: str, pause: float) -> None:
        async with self._clients.http(RATE_KEYS[name]) as session:
            await self._repeat(name, lambda call: ask_http(session, call.name), pause, limited=True)

    async def _at_once(self, tasks: int, pause: float) -> None:
        async with self._clients.sdk(AT_ONCE_KEY) as client:

            async def ask(call: Call) -> None:
                await stream_sdk(client, call, f"{call.name} {AT_ONCE_GROUP}")

            await asyncio.gather(*(self._repeat(AT_ONCE_GROUP, ask, pause, limited=True) for _ in range(tasks)))

    async def _history(self, *, edge: bool, pause: float) -> None:
        """Record one conversation after another. A failed turn is tried again under the same request id, as a client should."""
        async with self._clients.edge() if edge else self._clients.headless() as channel:
            while not self._over.is_set():
                conversation = ""
                for number in range(TURNS):
                    reply = await self._turn(channel, conversation, streamed=number % 2 == 1)
                    if reply is None or self._over.is_set():
                        break
                    conversation = reply.conversation
                    await self._pause(pause)

    async def _turn(self, channel: grpc.aio.Channel, conversation: str, *, streamed: bool) -> Reply | None:
        """Try one turn until it is done. Return None for a turn that broke off, which only a new turn could replace."""
        kind = "history-stream" if streamed else "history"
        name = self._journal.name(kind)
        found: list[Reply] = []
        broken = False

        async def ask(call: Call) -> None:
            nonlocal broken
            recording = chat_pb2.Recording(conversation_id=conversation, request_id=name)
            try:
                if streamed:
                    found.append(await stream_grpc(channel, KEY, call, name, recording))
                else:
                    found.append(await ask_grpc(channel, KEY, name, recording))
            except (grpc.aio.AioRpcError, ErrorEventError) as error:
                broken = cause_of(error).endswith("TURN_NOT_COMPLETE")
                raise

        since = None
        for _ in range(TRIES):
            call = await self._journal.attempt(kind, name, ask, since=since)
            since = call.since
            if call.outcome is Outcome.DONE:
                (reply,) = found
                self._journal.turns.append(Turn(name, reply.conversation, reply.message, name, reply.text))
                return reply
            if broken:
                break
            await self._pause(_RETRY_DELAY)
        self._journal.given_up.append(name)
        return None
