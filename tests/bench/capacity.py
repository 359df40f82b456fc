"""Measures the capacity and the needs of one replica: `python -m tests.bench.capacity`, on an idle machine.

It runs whole gateways of one worker with their own SQLite, PostgreSQL and Redis, measures CPU time and memory of each process for
calls, tokens, turns and streams, and writes the tables of docs/guide/sizing.md, with what it computes from them. This takes about
five minutes. `--reckon` measures nothing and computes the tables again from the page's figures, with another `--price` or `--busy`.

It measures CPU time and not durations, so other load on the machine changes the figures only a little. Each figure is the median of
three rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import redis.asyncio
from rich.console import Console

from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.bench import sizing
from tests.bench.load import load, open_streams, request
from tests.bench.processes import Clock, children, cpu, edges, memory, workers
from tests.bench.sizing import PACE, Cost, Figures, Memory, Plan
from tests.e2e.conftest import KEY, READY, Gateway
from tests.odd_upstream import HANG, LAST, OddUpstream, Pause, Step, answer, chunk, delta, head, sse
from tests.ports import free_port
from tests.postgres import Postgres
from tests.redis import Redis
from tests.waiting import until

PAGE: Final = Path(__file__).parents[2] / "docs" / "guide" / "sizing.md"

ROUNDS: Final = 3
CONNECTIONS: Final = 32
WARM: Final = 500
CALLS: Final = 1500
BURSTS: Final = 256
STREAMS: Final = 64
HELD: Final = 1000
TOKENS: Final = 256
SILENCE: Final = 16.0
"""Seconds for which silent streams are measured: a heartbeat is sent every 15."""
CHATS: Final = 96
TURNS: Final = 768
"""Turns in all: eight for each conversation, so a turn has four turns before it on average."""
RECORDED: Final = 300
"""Recorded streams at the same time."""
COUNTED_TURNS: Final = 32
"""Turns whose statements are counted."""

LIMITED: Final = "sk-limited"
QUOTA: Final = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "concurrent_streams": 10**6, "daily_usd": 10**9}
"""The quota of the key `LIMITED`, which is never reached."""

METADATA: Final = (("authorization", f"Bearer {KEY}"),)
PROMPT: Final = "What is an antiphon, who sang it, and where? " * 22
"""A prompt of 1,000 characters."""
REPLY: Final = "Two choirs sing in turn, verse by verse. " * 30
"""A reply of 1,200 characters, 300 tokens."""
USAGE: Final = {"prompt_tokens": 250, "completion_tokens": 300, "total_tokens": 550}

Work: TypeAlias = Callable[[], Awaitable[None]]

out: Final = Console(highlight=False, stderr=True)


class Watched:
    """The processes of a gateway and of its servers, whose CPU time and memory are measured."""

    def __init__(self, gateway: Gateway, database: Postgres | None = None, shared: Redis | None = None) -> None:
        self.worker, self.edge = workers(gateway), edges(gateway)
        self._database, self._redis = database, shared
        self._postgres = Clock()

    def cpu(self) -> Cost:
        """Return the CPU time used so far."""
        postgres = [] if self._database is None else [self._database.pid, *children(self._database.pid)]
        shared = [] if self._redis is None else [self._redis.pid]
        used = (cpu(self.worker), cpu(self.edge), self._postgres.read(postgres), cpu(shared))
        return Cost(*(nanoseconds / 1e6 for nanoseconds in used))

    async def each(self, name: str, works: Iterable[Work], count: int) -> Cost:
        """Run several equal workloads, and return the median cost of one of the `count` parts of each."""
        found = []
        for work in works:
            before = self.cpu()
            await work()
            found.append((self.cpu() + before * -1) * (1 / count))
        parts = zip(*((cost.worker, cost.edge, cost.database, cost.redis) for cost in found), strict=True)
        median = Cost(*(statistics.median(part) for part in parts))
        spread = max(cost.total for cost in found) / min(cost.total for cost in found) - 1
        out.print(f"{name}: {median.total:.3f} ms of CPU, of it the worker {median.worker:.3f}; spread {spread:.0%}")
        return median

    def memory(self, above: Memory | None = None) -> Memory:
        """Return the memory used now, or how much more than `above`."""
        worker, edge = (memory(pids) for pids in (self.worker, self.edge))
        return Memory(worker, edge) if above is None else Memory(max(0, worker - above.worker), max(0, edge - above.edge))


def scripts(upstream: OddUpstream) -> None:
    """Set the provider's answers."""
    message = {"index": 0, "message": {"role": "assistant", "content": REPLY}, "finish_reason": "stop"}
    upstream.script("whole", [answer({**delta(), "object": "chat.completion", "choices": [message], "usage": USAGE})])
    token = chunk(sse(delta(" word")))
    end = [chunk(sse(delta(finish="stop"), {**delta(), "choices": [], "usage": USAGE}, "[DONE]")), LAST]
    pause: Step = Pause(1 / PACE)
    upstream.script("burst", [head(), *repeat(token, TOKENS), *end])
    upstream.script("paced", [head(), *(step for _ in range(TOKENS) for step in (token, pause)), *end])
    upstream.script("silent", [head(), token, HANG])
    upstream.script("slow", [head(), *(step for _ in range(600) for step in (token, Pause(1.0)))])


@asynccontextmanager
async def gateway(
    folder: Path, name: str, upstream: OddUpstream, environment: dict[str, str], **more: Any
) -> AsyncIterator[Gateway]:
    """Run a gateway of one worker, warmed up by some calls. Metrics are on, as in a cluster."""
    (folder / name).mkdir()
    models = ["whole", "burst", "paced", "silent", "slow"]
    config = {
        "providers": {"openai": {"base_url": upstream.base_url, "models": models, "api_key_env": "TEST_PROVIDER_KEY"}},
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}, {"name": "limited", "key_env": "LIMITED_KEY", "limits": QUOTA}]},
        "metrics": {"listen": f"127.0.0.1:{free_port()}"},
        **more,
    }
    started = Gateway(folder / name, config, LIMITED_KEY=LIMITED, **environment)
    try:
        await until(lambda: READY in started.output_text or started.process.poll() is not None, 60)
        assert READY in started.output_text, started.output_text
        await calls(started, "whole", WARM)
        yield started
    finally:
        await asyncio.to_thread(started.stop)


async def calls(
    started: Gateway, model: str, count: int, connections: int = CONNECTIONS, chats: Iterable[str] = (), key: str = KEY
) -> None:
    """Make `count` calls through the edge, each in the next conversation of `chats` if there are any."""
    body = {"model": model, "stream": model != "whole", "messages": [{"role": "user", "content": PROMPT}]}
    bodies = [{**body, "session_id": chat} for chat in chats] or [body]
    bad = await load(started.rest, islice(cycle([request(started.rest, each, key) for each in bodies]), count), connections)
    for each in bad:  # a busy machine may be late; a few failures do not spoil the measurement
        out.print(f"failed: {each.decode()}", markup=False)
    assert len(bad) * 100 <= count, "too many calls failed"


async def typed_calls(address: str, count: int) -> None:
    """Make `count` calls over gRPC, from 4 channels."""
    left = iter(range(count))
    message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=PROMPT))])
    message_request = chat_pb2.GenerateRequest(model="whole", messages=[message])

    async def run(stub: Any) -> None:
        for _ in left:
            await stub.Generate(message_request, metadata=METADATA)

    async def channel() -> None:
        async with (
            grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as made,
            asyncio.TaskGroup() as group,
        ):
            stub = chat_pb2_grpc.ChatServiceStub(made)
            for _ in range(CONNECTIONS // 4):
                group.create_task(run(stub))

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(channel())


def each_round(function: Callable[..., Awaitable[None]], *arguments: Any) -> Iterable[Work]:
    """Return the same workload for each round."""
    return repeat(partial(function, *arguments), ROUNDS)


async def chats(started: Gateway, count: int = CHATS) -> list[str]:
    """Create conversations, and return their ids."""
    async with grpc.aio.insecure_channel(started.grpc) as channel:
        stub: Any = history_pb2_grpc.HistoryServiceStub(channel)
        create_request = history_pb2.CreateConversationRequest()
        return [(await stub.CreateConversation(create_request, metadata=METADATA)).conversation.id for _ in range(count)]


async def turns(started: Gateway) -> list[Work]:
    """Return one workload more than there are rounds, each with new conversations, so that all have the same length."""
    return [partial(calls, started, "whole", TURNS, CONNECTIONS, await chats(started)) for _ in range(ROUNDS + 1)]


async def watch(watched: Watched, name: str, started: Gateway, requests: list[bytes], above: Memory) -> tuple[Cost, Memory]:
    """Return the cost of one second of all these open streams, and their memory above `above`."""
    async with open_streams(started.rest, requests):
        before = watched.cpu()
        await asyncio.sleep(SILENCE)
        used = (watched.cpu() + before * -1) * (1 / SILENCE)
        more = watched.memory(above)
    out.print(f"{name}: {used.total:.1f} ms of CPU a second; {more.worker / 1e6:.0f} MB and {more.edge / 1e6:.0f} MB of Envoy")
    return used, more


async def alone(folder: Path, upstream: OddUpstream) -> tuple[dict[str, Any], Cost]:
    """Measure what needs no other server, and turns in SQLite. Also return the cost of a second of `HELD` slow streams."""
    async with gateway(folder, "alone", upstream, {}) as started:
        watched = Watched(started)
        at_rest = watched.memory()
        silent = repeat(request(started.rest, _stream("silent")), HELD)
        waiting, waiting_streams = await watch(watched, "streams that wait", started, list(silent), at_rest)
        await until(lambda: upstream.open_connections < HELD // 10)
        slow = repeat(request(started.rest, _stream("slow")), HELD)
        ticking, paced_streams = await watch(watched, "streams with a token a second", started, list(slow), at_rest)
        await until(lambda: upstream.open_connections < HELD // 10)
        whole = await watched.each("JSON", each_round(calls, started, "whole", CALLS), CALLS)
        burst = await watched.each("token in bursts", each_round(calls, started, "burst", BURSTS, 16), BURSTS * TOKENS)
        paced = await watched.each("paced token", each_round(calls, started, "paced", STREAMS, STREAMS), STREAMS * TOKENS)
        typed = await watched.each("gRPC", each_round(typed_calls, started.rest, CALLS), CALLS)
        direct = await watched.each("gRPC past the edge", each_round(typed_calls, started.grpc, CALLS), CALLS)
        at_work = watched.memory()
        recorded = await watched.each("turn in SQLite", (await turns(started))[1:], TURNS)
    share = whole * (1 / TOKENS)
    return {
        "json": whole,
        "grpc": typed,
        "direct": direct,
        "burst": burst.above(share),
        "paced": paced.above(share),
        "waiting": waiting,
        "sqlite": recorded.above(whole),
        "at_rest": at_rest,
        "at_work": at_work,
        "waiting_streams": waiting_streams,
        "paced_streams": paced_streams,
    }, ticking


async def with_postgres(folder: Path, upstream: OddUpstream, ticking: Cost) -> dict[str, Any]:
    """Measure turns in PostgreSQL, and recorded streams; `ticking` is the cost of `HELD` streams that are not recorded."""
    with Postgres() as database:
        settings = {"database": {"url": database.url, "timeout": 30}}  # a short time-out would fail on a busy machine
        async with gateway(folder, "postgres", upstream, {}, **settings) as started:
            watched = Watched(started, database)
            whole = await watched.each("JSON beside PostgreSQL", each_round(calls, started, "whole", CALLS), CALLS)
            first, *works = await turns(started)
            await first()
            before = _size(database)
            recorded = await watched.each("turn in PostgreSQL", works, TURNS)
            stored, logged, commits = (one - other for one, other in zip(_size(database), before, strict=True))
            connections = int(database.run("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")) - 1
            slow = [request(started.rest, {**_stream("slow"), "session_id": chat}) for chat in await chats(started, RECORDED)]
            kept, _ = await watch(watched, "recorded streams", started, slow, watched.memory())
            counted_turns = partial(calls, started, "whole", COUNTED_TURNS, 1, await chats(started))
            database.run("ALTER SYSTEM SET log_statement = 'all'")
            database.run("SELECT pg_reload_conf()")
            began = database.log.count(b"LOG:  execute")
            await counted_turns()
            statements = (database.log.count(b"LOG:  execute") - began) / COUNTED_TURNS
    count = ROUNDS * TURNS
    return {
        "postgres": recorded.above(whole),
        "kept": (kept * (1 / RECORDED)).above(ticking * (1 / HELD)),
        "statements": statements,
        "commits": commits / count,
        "stored": stored / count,
        "logged": logged / count,
        "database_connections": connections,
    }


async def with_redis(folder: Path, upstream: OddUpstream) -> dict[str, Any]:
    """Measure the additional cost of limits in Redis."""
    with Redis() as shared:
        settings = {"limits": {"redis_url_env": "REDIS_URL", "redis_timeout": 10}}  # as above
        async with (
            gateway(folder, "redis", upstream, {"REDIS_URL": shared.url}, **settings) as started,
            redis.asyncio.Redis.from_url(shared.url) as client,
        ):
            watched = Watched(started, None, shared)
            whole = await watched.each("JSON beside Redis", each_round(calls, started, "whole", CALLS), CALLS)
            before = await _scripts(client)
            limit = each_round(calls, started, "whole", CALLS, CONNECTIONS, (), LIMITED)
            limited = await watched.each("call with limits in Redis", limit, CALLS)
            asked = await _scripts(client) - before
            connections = len(await client.client_list()) - 1
    return {"redis": limited.above(whole), "asked": asked / (ROUNDS * CALLS), "redis_connections": connections}


async def measure() -> Figures:
    """Measure everything."""
    machine = _machine()
    with tempfile.TemporaryDirectory() as made:
        async with OddUpstream() as upstream:
            scripts(upstream)
            found, ticking = await alone(Path(made), upstream)
            found |= await with_postgres(Path(made), upstream, ticking)
            found |= await with_redis(Path(made), upstream)
    return Figures(machine=machine, **found)


async def _scripts(client: redis.asyncio.Redis) -> int:
    """Return the number of scripts that Redis ran: each is one request of a worker."""
    found = await client.info("commandstats")
    return sum(found[name]["calls"] for name in ("cmdstat_eval", "cmdstat_evalsha") if name in found)


def _stream(model: str) -> dict[str, Any]:
    return {"model": model, "stream": True, "messages": [{"role": "user", "content": PROMPT}]}


def _size(database: Postgres) -> tuple[int, int, int]:
    """Return the bytes of the database, the bytes of its log so far, and the number of commits."""
    queries = (
        "SELECT pg_database_size(current_database())",
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint",
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()",
    )
    size, logged, commits = (int(database.run(query)) for query in queries)
    return size, logged, commits


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "a processor without a name")
    return f"{os.cpu_count()} cores of {name} on {datetime.now(UTC):%Y-%m-%d}, with a load of {os.getloadavg()[0]:.1f} before"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--price", type=float, default=Plan().price, help="USD of a core for an hour")
    parser.add_argument("--busy", type=float, default=Plan().busy, help="the share of a core that is used")
    parser.add_argument("--reckon", action="store_true", help="measure nothing; compute the tables from the page's figures")
    options = parser.parse_args()
    figures = sizing.read(PAGE.read_text(encoding="utf-8"))[0] if options.reckon else asyncio.run(measure())
    made = sizing.block(figures, Plan(price=options.price, busy=options.busy))
    PAGE.write_text(sizing.replace(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
