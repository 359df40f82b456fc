"""Counts what a call costs inside the server process: counts and not times, so that other load on the machine has no influence.

    python -m tests.bench.hops
    python -m tests.bench.hops --with '{"sessions": {"automatic": true}}'     # more of the configuration

A real server runs in this process. Another process is its upstream and its caller, over loopback sockets, and sends the next tokens
when the previous ones have arrived: so each read by the server is one batch of events and one write, of a single token unless
`--tokens` says otherwise. An *async hop* is the start of a coroutine, or a request for the next value of an asynchronous generator;
an *await woken* is a frame that resumes because what it awaits continues. `probes` documents what else is counted.

Each scenario is counted several times, and the lowest result is shown: the server's housekeeping runs every few seconds, and so not
in all of them. Of the server's internals, only `App` and the configuration are used here. `--json` prints what a program can read,
without allocations: `tests/contract/test_bench_hops.py` holds these counts to their bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import grpc
import orjson
import uvloop
from google.api import httpbody_pb2
from rich.console import Console
from rich.table import Table

from antiphon.app import App
from antiphon.config import Config, LogConfig
from antiphon.database.migrate import migrate
from antiphon.rest.v1 import openai_pb2, openai_pb2_grpc
from antiphon.telemetry import log
from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc, message_pb2
from tests.bench.probes import GRPC_LOGGED, Allocations, Trace, expose_serialisation
from tests.odd_upstream import LAST, OddUpstream, answer, chunk, delta, head, sse

CALLS: Final = 20
READS: Final = 50
ROUNDS: Final = 3

PAUSE: Final = 0.01
"""Seconds between the arrival of a token and the next one: by then the server waits for it, as for nearly every token of a
model."""

SETTLED: Final = 0.15
"""Seconds after which the server has handled everything: its longest timer for a call is 0.1."""

KEY: Final = "sk-bench"
METADATA: Final = (("authorization", f"Bearer {KEY}"),)
FROM_EDGE: Final = (*METADATA, ("x-antiphon-edge", "1"))
"""The metadata of a REST call, which the edge makes a call of gRPC."""
MESSAGES: Final = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is an antiphon?"}]
USAGE: Final = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}

Probe: TypeAlias = Trace | Allocations


class Window(NamedTuple):
    """The calls or reads that are counted together: `units` of a scenario, by a probe."""

    scenario: str
    probe: type[Probe]
    units: int


Results: TypeAlias = dict[Window, Probe]


class Server:
    """The gateway. Counts between two messages of the caller, which makes no call at these moments."""

    def __init__(self, pipe: Connection, address: str) -> None:
        self._results: Results = {}
        self._pipe = pipe
        self._address = address
        self._stop = asyncio.Event()
        self._probe: Probe | None = None

    async def serve(self, app: App) -> Results:
        """Serve until the caller is done; return the counts of each window, from the round with the lowest total."""
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._receive)
        self._pipe.send(self._address)
        await app.serve([self._address], self._stop)
        return self._results

    def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            loop.call_later(SETTLED, self._switch, self._pipe.recv())
        except EOFError:
            loop.remove_reader(self._pipe.fileno())
            self._stop.set()

    def _switch(self, window: Window) -> None:
        """Start or stop counting."""
        if self._probe is None:
            self._probe = window.probe()
            self._probe.start()
        else:
            self._probe.stop()
            rounds = (self._results.get(window, self._probe), self._probe)
            self._results[window] = min(rounds, key=lambda probe: probe.counts.total())
            self._probe = None
        self._pipe.send(None)


class Caller:
    """The other process: the upstream, and a client of the gateway."""

    def __init__(
        self, pipe: Connection, probes: Sequence[type[Probe]], tokens: int, upstream: OddUpstream, channel: grpc.aio.Channel
    ) -> None:
        self._pipe = pipe
        self._probes = probes
        self._read = chunk(sse(*[delta(" word")] * tokens))
        self._upstream = upstream
        self._openai = openai_pb2_grpc.OpenAIServiceStub(channel)
        self._chat = chat_pb2_grpc.ChatServiceStub(channel)
        self._history: Any = history_pb2_grpc.HistoryServiceStub(channel)
        message = {"index": 0, "message": {"role": "assistant", "content": "A sung answer."}, "finish_reason": "stop"}
        upstream.script("whole", [answer({**delta(), "object": "chat.completion", "choices": [message], "usage": USAGE})])

    async def run(self) -> None:
        """Run every scenario several times with each probe."""
        for probe in self._probes:
            await self._calls("REST JSON call", probe, self._whole)
            await self._turns("REST JSON turn", probe)
            await self._calls("gRPC call", probe, self._typed)
            for dialect, begin in (("REST", self._rest), ("gRPC", self._grpc)):
                await self._calls(f"{dialect} stream of 1 read", probe, partial(self._stream, begin, 1))
                for _ in range(ROUNDS):
                    await self._stream(begin, READS + 2, self._counted(Window(f"{dialect} read", probe, READS)))

    @contextmanager
    def _counted(self, window: Window) -> Iterator[None]:
        self._pipe.send(window)
        self._pipe.recv()
        yield
        self._pipe.send(window)
        self._pipe.recv()

    async def _calls(self, scenario: str, probe: type[Probe], call: Callable[[], Awaitable[None]]) -> None:
        await call()  # the first call opens connections and fills caches
        for _ in range(ROUNDS):
            with self._counted(Window(scenario, probe, CALLS)):
                for _ in range(CALLS):
                    await call()

    async def _turns(self, scenario: str, probe: type[Probe]) -> None:
        """Make recorded calls, each the first turn of its conversation."""
        for _ in range(ROUNDS):
            asked = history_pb2.CreateConversationRequest()
            made = [await self._history.CreateConversation(asked, metadata=METADATA) for _ in range(CALLS)]
            with self._counted(Window(scenario, probe, CALLS)):
                for each in made:
                    await self._whole(session_id=each.conversation.id)

    async def _whole(self, **more: Any) -> None:
        async for _ in self._rest("whole", **more):
            pass

    async def _stream(
        self, begin: Callable[[str], AsyncIterable[Any]], reads: int, counted: AbstractContextManager[None] | None = None
    ) -> None:
        """Read a stream that takes the server `reads` reads. All but the first two are `counted`, without the end of the reply."""
        turns = [asyncio.Event() for _ in range(reads)]
        steps = [step for turn in turns for step in (self._read, turn)]
        end = sse(delta(finish="stop"), {**delta(), "choices": [], "usage": USAGE}, "[DONE]")
        self._upstream.script("stream", [head(), *steps, chunk(end), LAST])
        messages = aiter(begin("stream"))
        with ExitStack() as stack:
            for number, turn in enumerate(turns):
                await anext(messages)
                if number == 1 and counted is not None:
                    stack.enter_context(counted)
                if turn is turns[-1]:
                    stack.close()
                await asyncio.sleep(PAUSE)
                turn.set()
        async for _ in messages:
            pass

    def _rest(self, model: str, **more: Any) -> AsyncIterable[Any]:
        body = orjson.dumps({"model": model, "messages": MESSAGES, "temperature": 0.5, "stream": model == "stream", **more})
        data = httpbody_pb2.HttpBody(content_type="application/json", data=body)
        return self._openai.CreateChatCompletion(openai_pb2.CreateChatCompletionRequest(body=data), metadata=FROM_EDGE)

    async def _typed(self) -> None:
        await self._chat.Generate(_request("whole"), metadata=METADATA)

    def _grpc(self, model: str) -> AsyncIterable[Any]:
        return self._chat.StreamGenerate(_request(model), metadata=METADATA)


def _request(model: str) -> chat_pb2.GenerateRequest:
    """Return the typed request of a chat."""
    messages = [
        message_pb2.Message(
            role=f"ROLE_{each['role'].upper()}", blocks=[message_pb2.Block(text=message_pb2.Text(text=each["content"]))]
        )
        for each in MESSAGES
    ]
    return chat_pb2.GenerateRequest(model=model, messages=messages)


def call(pipe: Connection, probes: Sequence[type[Probe]], tokens: int) -> None:
    """Run the other process."""

    async def run() -> None:
        async with OddUpstream() as upstream:
            pipe.send(upstream.base_url)
            async with grpc.aio.insecure_channel(pipe.recv()) as channel:
                await channel.channel_ready()
                await Caller(pipe, probes, tokens, upstream, channel).run()

    asyncio.run(run())


def measure(more: dict[str, Any], probes: Sequence[type[Probe]], tokens: int, folder: str) -> Results:
    """Run the server and its caller, and return the counts.

    `more` are settings of the configuration, `tokens` the tokens in each read.
    """
    for name in GRPC_LOGGED:
        os.environ.pop(name, None)  # the caller logs nothing
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=call, args=(theirs, probes, tokens), daemon=True)
    process.start()
    theirs.close()
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    database = f"sqlite:///{folder}/antiphon.db"
    config = {
        "grpc": {"listen": address},
        "database": {"url": database},
        "providers": {"upstream": {"base_url": ours.recv(), "models": ["whole", "stream"]}},
        "auth": {"keys": [{"name": "bench", "key_env": "KEY"}]},
        **more,
    }
    log.configure(LogConfig(file=Path(folder, "log")))
    expose_serialisation()
    app = App(Config.model_validate(config), {"KEY": KEY})
    uvloop.run(migrate(database, 5.0))
    with standard_error_in(Path(folder, "stderr")):
        results = uvloop.run(Server(ours, address).serve(app))
    process.join()
    if process.exitcode:
        raise SystemExit("the caller failed, as it says above")
    return results


@contextmanager
def standard_error_in(path: Path) -> Iterator[None]:
    """Send standard error to a file during the block, where `Trace` finds what gRPC logs; an exception is shown after it."""
    before = os.dup(2)
    with path.open("wb+") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def figures(results: Results) -> dict[str, dict[str, float]]:
    """Return the counts of each unit, by scenario and name."""
    found: dict[str, dict[str, float]] = {}
    for window, probe in results.items():
        found.setdefault(window.scenario, {}).update((name, count / window.units) for name, count in probe.counts.items())
    return found


def show(results: Results, top: int) -> None:
    """Print a table of all counts, and for each scenario the places in the code with the most of each."""
    console = Console(width=132)
    found = figures(results)
    names = sorted({name for counts in found.values() for name in counts}, key=str.lower)
    table = Table("each", *found)
    for name in names:
        table.add_row(name, *(f"{counts.get(name, 0):.1f}" for counts in found.values()))
    console.print(table)
    for window, probe in results.items():
        for title, places in probe.lists.items():
            lines = [
                f"{count / window.units:9.1f}  {place}" for place, count in places.most_common(top) if count / window.units >= 0.05
            ]
            if lines:
                console.print(f"\n{window.scenario}: {title}", style="bold")
                console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with", dest="more", type=json.loads, default={}, help="more of the configuration, as JSON")
    parser.add_argument("--tokens", type=int, default=1, help="tokens that come with each read")
    parser.add_argument("--top", type=int, default=30, help="the most places to list of each kind")
    parser.add_argument("--json", action="store_true", help="print the counts of what runs as JSON, and nothing else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        results = measure(options.more, (Trace,) if options.json else (Trace, Allocations), options.tokens, made)
    if options.json:
        print(json.dumps(figures(results)))  # noqa: T201  # it is what a program reads
    else:
        show(results, options.top)


if __name__ == "__main__":
    if not GRPC_LOGGED.items() <= os.environ.items():  # it has to be there before grpc is imported
        os.execve(sys.executable, [sys.executable, "-m", "tests.bench.hops", *sys.argv[1:]], {**os.environ, **GRPC_LOGGED})  # noqa: S606
    main()
