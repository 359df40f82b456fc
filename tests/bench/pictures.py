"""Draws the dashboards from a gateway under real load: `make pictures`, or `python -m tests.bench.pictures`.

A gateway of two workers serves clients of every kind for a few minutes, with providers that also fail; its database is stopped for
a while, and one worker is killed. A real Prometheus scrapes it, with the alert rules. Every panel of deploy/dashboards is then
queried and drawn into docs/images. A panel without data is an error, unless `EMPTY` gives the reason. It needs Prometheus (`apt-get
install prometheus`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc
import httpx2
from rich.console import Console

from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.bench.plot import Points, Series, dashboard
from tests.bench.processes import workers
from tests.e2e.conftest import KEY, READY, Gateway
from tests.odd_upstream import CUT, LAST, OddUpstream, Pause, Step, answer, chunk, delta, head, sse
from tests.ports import free_port
from tests.postgres import Postgres
from tests.prometheus import BINARY, Prometheus

ROOT: Final = Path(__file__).parents[2]
DASHBOARDS: Final = ROOT / "deploy" / "dashboards"
ALERTS: Final = ROOT / "deploy" / "alerts" / "antiphon.yaml"
IMAGES: Final = ROOT / "docs" / "images"

INTERVAL: Final = 2
VARIABLES: Final = {"$job": ".*", "$instance": ".*", "$__rate_interval": f"{5 * INTERVAL}s"}

EMPTY: Final[dict[str, str]] = {}
"""Panels that may have no data, by title, with the reason."""

out: Final = Console(highlight=False)

METADATA: Final = (("authorization", f"Bearer {KEY}"),)
MODELS: Final = {"openai": ["gpt-4o", "gpt-4o-mini", "o3"], "azure-eu": ["gpt-4.1"], "local": ["qwen3-8b"]}
PRICES: Final = {
    "openai/gpt-4o": {"input": 2.5, "output": 10, "cached_input": 1.25},
    "openai/gpt-4o-mini": {"input": 0.15, "output": 0.6, "cached_input": 0.075},
    "openai/o3": {"input": 2, "output": 8, "cached_input": 0.5},
    "azure-eu/gpt-4.1": {"input": 2, "output": 8, "cached_input": 0.5},
}

Once = Callable[[], Awaitable[object]]


def usage(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    """Return the usage as a provider reports it."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def whole(reported: dict[str, Any] | None) -> list[Step]:
    """Return a reply that arrives at once, with or without usage."""
    message = {"index": 0, "message": {"role": "assistant", "content": "Two choirs. " * 20}, "finish_reason": "stop"}
    reply = {**delta(), "object": "chat.completion", "choices": [message]}
    return [Pause(0.05), answer(reply if reported is None else {**reply, "usage": reported})]


def streamed(first: float, tokens: int, reported: dict[str, Any], *ending: Step) -> list[Step]:
    """Return a reply that begins after `first` seconds and then has a token every 20 ms."""
    steps: list[Step] = [head(), Pause(first)]
    steps += [step for _ in range(tokens) for step in (chunk(sse(delta(" word"))), Pause(0.02))]
    end = sse(delta(finish="stop"), {**delta(), "choices": [], "usage": reported}, "[DONE]")
    return [*steps, *(ending or (chunk(end), LAST))]


def replies(upstream: OddUpstream, chance: random.Random) -> None:
    """Set the providers' next answers."""
    upstream.script("gpt-4o-mini", whole(usage(chance.randrange(200, 900), chance.randrange(50, 300), cached=150)))
    upstream.script("gpt-4o", streamed(chance.uniform(0.1, 0.4), 60, usage(chance.randrange(800, 4000), 60, cached=500)))
    upstream.script("o3", streamed(chance.uniform(0.8, 2), 40, usage(900, 540, cached=100, reasoning=500)))
    upstream.script("qwen3-8b", whole(None))
    fine = streamed(0.2, 30, usage(600, 30, cached=300))
    down: list[Step] = [answer({"error": {"message": "overloaded"}}, "503 Service Unavailable")]
    slow: list[Step] = [answer({"error": {"message": "slow down"}}, "429 Too Many Requests")]
    cut = streamed(0.2, 10, {}, CUT)
    upstream.script("gpt-4.1", chance.choices([fine, down, slow, cut], [12, 2, 2, 1])[0])


class Load:
    """Clients that call until a given time."""

    def __init__(self, gateway: Gateway, upstream: OddUpstream, seconds: float) -> None:
        self._gateway, self._upstream, self._seconds = gateway, upstream, seconds
        self._began = time.monotonic()
        self._chance = random.Random(11)
        self._limited = {"authorization": "Bearer sk-limited"}

    async def run(self, database: Postgres) -> None:
        """Run all clients, and the failures meanwhile."""
        channel = grpc.aio.insecure_channel(self._gateway.rest)
        chat: Any = chat_pb2_grpc.ChatServiceStub(channel)
        history: Any = history_pb2_grpc.HistoryServiceStub(channel)
        message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hi"))])
        recorded = chat_pb2.GenerateRequest(model="echo", messages=[message], recording=chat_pb2.Recording(request_id="again"))
        async with self._gateway.client() as http, channel:
            listed = partial_of(history.ListConversations, history_pb2.ListConversationsRequest())
            made = partial_of(history.CreateConversation, history_pb2.CreateConversationRequest(messages=[message]))
            again = partial_of(chat.Generate, recorded)
            kinds: list[tuple[int, Once]] = [
                (6, lambda: self._chat(http, "gpt-4o-mini")),
                (6, lambda: self._chat(http, "gpt-4o", stream=True)),
                (3, lambda: self._chat(http, "o3", stream=True)),
                (4, lambda: self._chat(http, "gpt-4.1", stream=True)),
                (2, lambda: self._chat(http, "qwen3-8b")),
                (1, lambda: self._chat(http, "gpt-4o-mini", self._limited)),
                (1, lambda: self._chat(http, "unknown-model")),
                (2, lambda: self._leave(http)),
                *[(1, await self._session(history, http)) for _ in range(4)],
                (1, listed),
                (1, made),
                (1, again),
            ]
            async with asyncio.TaskGroup() as group:
                for count, once in kinds:
                    for _ in range(count):
                        group.create_task(self._callers(once))
                group.create_task(self._callers(self._change, 0.5))
                group.create_task(self._events(database))

    async def _callers(self, once: Once, pause: float | None = None) -> None:
        while (now := time.monotonic() - self._began) < self._seconds:
            # As the day goes: at most in the middle.
            rest = self._chance.uniform(0.5, 1.5) * (1.1 - math.sin(math.pi * now / self._seconds)) if pause is None else pause
            await asyncio.sleep(rest)
            with suppress(httpx2.TransportError, grpc.aio.AioRpcError):  # a worker is killed, the database is away
                await once()

    async def _change(self) -> None:
        replies(self._upstream, self._chance)

    async def _events(self, database: Postgres) -> None:
        await asyncio.sleep(self._seconds * 0.4)
        await asyncio.to_thread(database.stop)
        await asyncio.sleep(8)
        await asyncio.to_thread(database.start)
        await asyncio.sleep(self._seconds * 0.3)
        os.kill(workers(self._gateway)[0], signal.SIGKILL)

    async def _chat(
        self, http: httpx2.AsyncClient, model: str, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx2.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "What is an antiphon?"}], **more}
        return await http.post("/chat/completions", json=body, headers=headers)

    async def _leave(self, http: httpx2.AsyncClient) -> None:
        body = {"model": "o3", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        async with http.stream("POST", "/chat/completions", json=body) as response:
            await anext(aiter(response.aiter_lines()), None)

    async def _session(self, history: Any, http: httpx2.AsyncClient) -> Once:
        """Return a client that continues one conversation."""
        made = await history.CreateConversation(history_pb2.CreateConversationRequest(), metadata=METADATA)
        return lambda: self._chat(http, "gpt-4.1", session_id=made.conversation.id)


def partial_of(method: Callable[..., Awaitable[Any]], argument: Any) -> Once:
    """Return a call that is repeated."""

    async def once() -> None:
        await method(argument, metadata=METADATA)

    return once


def series(prometheus: Prometheus, panel: dict[str, Any], start: float, end: float) -> list[Series]:
    """Return the data of a panel, by its own queries."""
    found = []
    for target in panel["targets"]:
        query = target["expr"]
        for name, value in VARIABLES.items():
            query = query.replace(name, value)
        for line in prometheus.get("query_range", query=query, start=start, end=end, step=INTERVAL)["result"]:
            labels = line["metric"]
            name = re.sub(r"\{\{(\w+)\}\}", lambda match, labels=labels: labels.get(match[1], ""), target["legendFormat"])  # type: ignore[misc]
            points: Points = [(second - start, float(value)) for second, value in line["values"] if math.isfinite(float(value))]
            found.append(Series(name, points))
    return found


def draw(prometheus: Prometheus, start: float, end: float) -> list[str]:
    """Write the pictures, and return the panels that have no data and no reason for it."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    empty = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        described = json.loads(path.read_text())
        panels = []
        for panel in described["panels"]:
            lines = series(prometheus, panel, start, end)
            panels.append((panel, lines, EMPTY.get(panel["title"], "")))
            if not any(each.points for each in lines) and panel["title"] not in EMPTY:
                empty.append(f"{described['title']}: {panel['title']}")
        name = path.stem.replace("antiphon-", "dashboard-")
        (IMAGES / f"{name}.svg").write_text(dashboard(described["title"], panels, end - start), encoding="utf-8")
    return empty


async def run(folder: Path, seconds: float) -> list[str]:
    """Run everything, and return what is wrong."""
    metrics = f"127.0.0.1:{free_port()}"
    with Postgres() as database:
        async with OddUpstream() as upstream:
            replies(upstream, random.Random(11))
            config = {
                "workers": 2,
                "metrics": {"listen": metrics},
                "database": {"url": database.url},
                "providers": {
                    **{
                        name: {"base_url": upstream.base_url, "models": models, "api_key_env": "TEST_PROVIDER_KEY"}
                        for name, models in MODELS.items()
                    },
                    "echo": {"protocol": "echo", "models": ["echo"]},
                },
                "prices": PRICES,
                "auth": {
                    "keys": [
                        {"name": "test", "key_env": "TEST_KEY"},
                        {"name": "limited", "key_env": "LIMITED_KEY", "limits": {"requests_per_minute": 20}},
                    ]
                },
            }
            gateway = Gateway(folder, config, LIMITED_KEY="sk-limited")
            try:
                await asyncio.to_thread(gateway.wait_for, READY)
                with Prometheus(folder, {"antiphon": metrics}, ALERTS, INTERVAL) as prometheus:
                    start = time.time()
                    await Load(gateway, upstream, seconds).run(database)
                    faults = [f"empty: {panel}" for panel in await asyncio.to_thread(draw, prometheus, start, time.time())]
                    rules = prometheus.get("rules")["groups"][0]["rules"]
                    faults += [f"rule {rule['name']}: {rule['lastError']}" for rule in rules if rule["health"] != "ok"]
                    out.print("alerts:", *(f"{rule['name']} {rule['state']}" for rule in rules if rule["state"] != "inactive"))
            finally:
                await asyncio.to_thread(gateway.stop)
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150)
    options = parser.parse_args()
    if BINARY is None:
        raise SystemExit("wants Prometheus: apt-get install prometheus")
    with tempfile.TemporaryDirectory() as made:
        found = asyncio.run(run(Path(made), options.seconds))
    raise SystemExit("\n".join(found) or None)
