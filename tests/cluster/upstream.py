"""The provider: a chat-completions server that says what is to be said to a prompt, and knows what it was asked.

The first word of a prompt names the call. The reply to it is known beforehand, so that a caller can tell whether it is whole.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import orjson
from aiohttp import web

from tests.cluster.network import NODE

PORT = 18080
QUICK, TALK = "quick", "talk"
"""The models: one that answers at once, and one that takes `PAUSE` before each word."""

WORDS = {QUICK: 6, TALK: 24}
"""Of a reply."""

PAUSE = 0.1
"""Seconds."""

_ENDED = 1.0


def words_of(prompt: str, model: str) -> list[str]:
    """What is said to a prompt."""
    name = prompt.split(" ", 1)[0]
    return [f"{name}-{number} " for number in range(WORDS[model])]


def reply_to(prompt: str, model: str) -> str:
    """The whole of it."""
    return "".join(words_of(prompt, model))


class Upstream:
    """The server. As a context manager it runs."""

    base_url = f"http://{NODE}:{PORT}/v1"

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        """How often each call came."""
        self.cancelled: set[str] = set()
        """Those whose caller left before the end."""
        self.going: Counter[str] = Counter()
        """How many go on now, by the group of callers that a prompt names as its second word."""
        self.most: dict[str, list[tuple[float, int]]] = {}
        """When more calls of a group went on than before in the same second, and how many."""

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(application, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, NODE, PORT, shutdown_timeout=_ENDED).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        asked = orjson.loads(await request.read())
        prompt: str = asked["messages"][-1]["content"]
        name, _, rest = prompt.partition(" ")
        self.asked[name] += 1
        async with self._counted(rest.split(" ", 1)[0]):
            try:
                return await (self._stream(request, prompt, asked) if asked.get("stream") else self._whole(prompt, asked))
            except (asyncio.CancelledError, ConnectionError):
                self.cancelled.add(name)
                raise

    @asynccontextmanager
    async def _counted(self, group: str) -> AsyncIterator[None]:
        self.going[group] += 1
        self.most.setdefault(group, []).append((time.monotonic(), self.going[group]))
        try:
            yield
        finally:
            self.going[group] -= 1

    async def _whole(self, prompt: str, asked: dict[str, Any]) -> web.Response:
        model = asked["model"]
        if model == TALK:
            await asyncio.sleep(PAUSE * WORDS[TALK])
        message = {"role": "assistant", "content": reply_to(prompt, model)}
        body = {
            **_head(model, "chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _usage(model),
        }
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _stream(self, request: web.Request, prompt: str, asked: dict[str, Any]) -> web.StreamResponse:
        model = asked["model"]
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        head = _head(model, "chat.completion.chunk")
        for word in words_of(prompt, model):
            if model == TALK:
                await asyncio.sleep(PAUSE)
            await response.write(_event({**head, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}))
        await response.write(_event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        await response.write(_event({**head, "choices": [], "usage": _usage(model)}))
        await response.write(b"data: [DONE]\n\n")
        with contextlib.suppress(ConnectionError):  # all was said
            await response.write_eof()
        return response


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-cluster", "object": kind, "created": 1_700_000_000, "model": model}


def _usage(model: str) -> dict[str, int]:
    return {"prompt_tokens": 4, "completion_tokens": WORDS[model], "total_tokens": 4 + WORDS[model]}


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(event) + b"\n\n"
