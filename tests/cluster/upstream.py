"""The provider: a chat-completions server with a predictable reply to each prompt, which counts the calls it receives.

The first word of a prompt is the name of the call. Since the reply to it is known in advance, a client can check that it is
complete.
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
"""The models: `quick` answers at once, and `talk` waits `PAUSE` before each word."""

WORDS = {QUICK: 6, TALK: 24}
"""The number of words in a reply."""

PAUSE = 0.1
"""Seconds before each word of `TALK`."""

_ENDED = 1.0


def words_of(prompt: str, model: str) -> list[str]:
    """Return the words of the reply to a prompt."""
    name = prompt.split(" ", 1)[0]
    return [f"{name}-{number} " for number in range(WORDS[model])]


def reply_to(prompt: str, model: str) -> str:
    """Return the complete reply to a prompt."""
    return "".join(words_of(prompt, model))


class Upstream:
    """The server. As a context manager it runs during the block."""

    base_url = f"http://{NODE}:{PORT}/v1"

    def __init__(self) -> None:
        self.request_counts: Counter[str] = Counter()
        """How often each call was received, by its name."""
        self.cancelled: set[str] = set()
        """The names of calls whose client left before the end."""
        self.going: Counter[str] = Counter()
        """The number of calls in progress, by group; the second word of a prompt names the group."""
        self.most: dict[str, list[tuple[float, int]]] = {}
        """For each group, the time of each new call and the number of calls in progress at that time."""

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
        body = orjson.loads(await request.read())
        prompt: str = body["messages"][-1]["content"]
        name, _, rest = prompt.partition(" ")
        self.request_counts[name] += 1
        async with self._counted(rest.split(" ", 1)[0]):
            try:
                return await (self._stream(request, prompt, body) if body.get("stream") else self._whole(prompt, body))
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

    async def _whole(self, prompt: str, body: dict[str, Any]) -> web.Response:
        model = body["model"]
        if model == TALK:
            await asyncio.sleep(PAUSE * WORDS[TALK])
        message = {"role": "assistant", "content": reply_to(prompt, model)}
        completion = {
            **_head(model, "chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _usage(model),
        }
        return web.Response(body=orjson.dumps(completion), content_type="application/json")

    async def _stream(self, request: web.Request, prompt: str, body: dict[str, Any]) -> web.StreamResponse:
        model = body["model"]
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
        with contextlib.suppress(ConnectionError):  # the reply is complete
            await response.write_eof()
        return response


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-cluster", "object": kind, "created": 1_700_000_000, "model": model}


def _usage(model: str) -> dict[str, int]:
    return {"prompt_tokens": 4, "completion_tokens": WORDS[model], "total_tokens": 4 + WORDS[model]}


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(event) + b"\n\n"
