"""Two providers of chat completions that can be made to fail, and that note every call: who sent it, when, and how it ended."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from typing import Any, Final, Self

import msgspec
from aiohttp import web

from tests.odd_upstream import delta, sse
from tests.ports import free_port

USUAL: Final = 0.02
"""Seconds until the first token, and from each to the next."""
TOKENS: Final = 3
SLOW: Final = 1.5
"""Seconds until the first token of a deployment that is slow."""
PART: Final = 0.3
"""The part of the calls that fail, of a deployment that fails in part."""
RETRY_AFTER: Final = 5


_SILENT: Final = logging.getLogger(f"{__name__}.server")
_SILENT.setLevel(logging.CRITICAL)
"""aiohttp would report each call that is interrupted when a provider is killed."""


class Mode(Enum):
    """What a provider does with a call."""

    GOOD = auto()
    FAILS = auto()
    """It answers 503."""
    PART = auto()
    """It answers 503 to a part of the calls."""
    BUSY = auto()
    """It answers 429, and names a time."""
    SLOW = auto()
    """It answers late."""
    ENDLESS = auto()
    """Its streams have tokens until the caller leaves, and its other answers never come."""
    FAILS_ONCE = auto()
    """It answers 503 to a call that none of the two has received before, after the usual time for a token; then it is endless."""


class Received(msgspec.Struct):
    """A call that a provider got. Times are in seconds of the monotonic clock."""

    name: str
    """What the caller's message says: the name of the call."""
    began: float
    ended: float | None = None
    left: bool = False
    """The gateway closed the connection before the end of the answer."""


class Provider:
    """One of them. As an asynchronous context manager it runs during the block, on a port of its own."""

    def __init__(self, known: set[str]) -> None:
        """`known` are the names of the calls that it or another one has received."""
        self.mode = Mode.GOOD
        self._known = known
        self.received: list[Received] = []
        self._port = free_port()
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """Return where its API begins."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Listen."""
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._answer)
        options: dict[str, Any] = {"handler_cancellation": True, "access_log": None, "logger": _SILENT}
        self._runner = web.AppRunner(application, shutdown_timeout=0.01, **options)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()

    @property
    def is_running(self) -> bool:
        """Whether it listens."""
        return self._runner is not None

    @property
    def _is_endless(self) -> bool:
        return self.mode in (Mode.ENDLESS, Mode.FAILS_ONCE)

    async def kill(self) -> None:
        """Close the port and every connection, whatever is in progress."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = msgspec.json.decode(await request.read())
        call = Received(body["messages"][-1]["content"], time.monotonic())
        self.received.append(call)
        try:
            if (refused := await self._refused(call)) is not None:
                return refused
            return await (self._stream(request) if body.get("stream") else self._whole())
        except (asyncio.CancelledError, ConnectionError):
            call.left = True
            raise
        finally:
            call.ended = time.monotonic()

    async def _refused(self, call: Received) -> web.Response | None:
        error = msgspec.json.encode({"error": {"message": "not now", "type": "server_error"}})
        is_first = call.name not in self._known
        self._known.add(call.name)
        if self.mode is Mode.FAILS_ONCE and is_first:
            await asyncio.sleep(USUAL)
            return web.Response(status=503, body=error, content_type="application/json")
        if self.mode is Mode.FAILS or (self.mode is Mode.PART and random.random() < PART):
            return web.Response(status=503, body=error, content_type="application/json")
        if self.mode is Mode.BUSY:
            return web.Response(status=429, body=error, content_type="application/json", headers={"retry-after": str(RETRY_AFTER)})
        return None

    async def _whole(self) -> web.Response:
        if self._is_endless:
            await asyncio.Event().wait()
        await asyncio.sleep((SLOW if self.mode is Mode.SLOW else USUAL) + USUAL * (TOKENS - 1))
        message = {"index": 0, "message": {"role": "assistant", "content": "word " * TOKENS}, "finish_reason": "stop"}
        answer = {**delta(), "object": "chat.completion", "choices": [message], "usage": _USAGE}
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(SLOW if self.mode is Mode.SLOW else USUAL)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        number = 0
        while self._is_endless or number < TOKENS:
            await response.write(sse(delta("word ")))
            number += 1
            await asyncio.sleep(USUAL)
        await response.write(sse(delta(finish="stop"), {**delta(), "choices": [], "usage": _USAGE}, "[DONE]"))
        with suppress(ConnectionError):  # the reply is complete
            await response.write_eof()
        return response


_USAGE: Final[dict[str, Any]] = {"prompt_tokens": 5, "completion_tokens": TOKENS, "total_tokens": 5 + TOKENS}


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Provider, Provider]]:
    """Run two providers."""
    known: set[str] = set()
    async with Provider(known) as one, Provider(known) as other:
        yield one, other
