"""Metrics and probes of a whole gateway: two workers scraped as one, after a known load."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from antiphon.database.migrate import migrate
from antiphon.telemetry.names import TABLE
from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY, READY, Gateway
from tests.odd_upstream import LAST, OddUpstream, answer, chunk, delta, head, sse
from tests.ports import free_port
from tests.waiting import until

METADATA = (("authorization", f"Bearer {KEY}"),)
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
WHOLE = {"id": "c", "object": "chat.completion", "created": 1, "model": "reported", "choices": [MESSAGE]}
OPERATION = 'gen_ai_operation_name="chat",gen_ai_provider_name="odd",gen_ai_request_model="reported"'
CALLS, STREAMS, INVENTED, LIMITED, TURNS, GONE = 30, 6, 5, 8, 4, 3


class Counted(Gateway):
    """A gateway of two workers with a port for metrics."""

    def __init__(self, folder: Path, upstream: OddUpstream) -> None:
        self.metrics = f"127.0.0.1:{free_port()}"
        config = {
            "workers": 2,
            "metrics": {"listen": self.metrics},
            "models": {"default": "reported"},
            "routing": {"attempts": 2},
            "providers": {
                "odd": {"base_url": upstream.base_url, "models": ["reported", "down", "waits", "silent", "slow", "*"]},
                "echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0.001},
            },
            "prices": {"odd/reported": {"input": 1, "output": 2}},
            "auth": {
                "keys": [
                    {"name": "test", "key_env": "TEST_KEY"},
                    {"name": "limited", "key_env": "LIMITED_KEY", "limits": {"requests_per_minute": 2}},
                ]
            },
        }
        super().__init__(folder, config, LIMITED_KEY="sk-limited")

    async def scrape(self) -> dict[str, float]:
        """Return the value of each series as Prometheus' own parser reads it, with labels ordered by name."""
        text = (await self.probe("/metrics")).text
        families = text_string_to_metric_families(text)
        return {_series(sample.name, sample.labels): sample.value for family in families for sample in family.samples}

    async def probe(self, path: str) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False, timeout=20) as http:
            return await http.get(f"http://{self.metrics}{path}")

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {int(pid) for pid in children if b"antiphon.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def _series(name: str, labels: dict[str, str]) -> str:
    pairs = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{pairs}}}" if pairs else name


def chat_body(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def counted(upstream: OddUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Counted, None]:
    upstream.script("reported", [answer({**WHOLE, "usage": USAGE})])
    upstream.script("silent", [answer(WHOLE)])
    upstream.script("down", [answer({"error": {"message": "no"}}, "503 Service Unavailable")])
    upstream.script("waits", [head(), chunk(sse(delta("Hi"))), asyncio.Event()])
    started = Counted(tmp_path_factory.mktemp("counted"), upstream)
    Gateway.running.discard(started)  # it runs for all tests of this file
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0


async def load(gateway: Counted, upstream: OddUpstream) -> int:
    """Make calls of every kind through the edge, and return how many a limit refused."""
    streamed = [head(), chunk(sse(delta("Hi"))), chunk(sse(delta(" you"), delta(finish="stop"))), LAST]
    async with gateway.client() as http:

        async def chat(body: dict[str, Any], **headers: str) -> int:
            return (await http.post("/chat/completions", json=body, headers=headers)).status_code

        assert set(await asyncio.gather(*(chat(chat_body("reported")) for _ in range(CALLS)))) == {200}
        usage = {**delta(), "choices": [], "usage": USAGE}
        upstream.script("reported", [*streamed[:-1], chunk(sse(usage, "[DONE]")), LAST])
        assert set(await asyncio.gather(*(chat(chat_body("reported", stream=True)) for _ in range(STREAMS)))) == {200}
        upstream.script("reported", [answer({**WHOLE, "usage": USAGE})])
        assert [await chat(chat_body(f"invented-{number}")) for number in range(INVENTED)] == [502] * INVENTED
        assert [await chat(chat_body("silent")), await chat(chat_body("down"))] == [200, 502]
        statuses = [await chat(chat_body("reported"), authorization="Bearer sk-limited") for _ in range(LIMITED)]
        for _ in range(GONE):
            async with http.stream("POST", "/chat/completions", json=chat_body("waits", stream=True)) as response:
                await anext(aiter(response.aiter_lines()))
            await upstream.left.get()
    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        for _ in range(TURNS):
            messages = [message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hi"))])]
            await stub.Generate(
                chat_pb2.GenerateRequest(model="echo", messages=messages, recording=chat_pb2.Recording()), metadata=METADATA
            )
    return statuses.count(429)


@pytest.mark.slow
async def test_two_workers_are_scraped_as_one(counted: Counted, upstream: OddUpstream) -> None:
    """Every documented metric exists, and its value matches the load, which both workers served."""
    refused = await load(counted, upstream)
    assert refused
    await until(lambda: _is_idle(counted))
    found = await counted.scrape()
    ok = CALLS + STREAMS + LIMITED - refused
    stated = {
        "antiphon_workers": 2,
        "antiphon_worker_exits_total": 0,
        "antiphon_config_last_reload_successful": 1,
        'antiphon_attempts_total{class="ok",provider="odd"}': ok + 1,
        'antiphon_attempts_total{class="ok",provider="echo"}': TURNS,
        'antiphon_attempts_total{class="overloaded",provider="odd"}': 2,
        'antiphon_attempts_total{class="gone",provider="odd"}': GONE,
        'antiphon_cancelled_upstream_total{provider="odd"}': GONE,
        'antiphon_cancel_seconds_count{provider="odd"}': GONE,
        'antiphon_limits_refused_total{limit="requests_per_minute",scope="key"}': refused,
        'antiphon_failed_calls_total{reason="RATE_LIMIT_EXCEEDED"}': refused,
        'antiphon_tokens_total{kind="input",model="reported",provider="odd"}': 1000 * ok,
        'antiphon_tokens_total{kind="output",model="reported",provider="odd"}': 100 * ok,
        'antiphon_cost_usd_total{model="reported",provider="odd"}': pytest.approx(0.0012 * ok),
        'antiphon_estimated_usage_total{model="silent",provider="odd"}': 1,
        'antiphon_turns_recorded_total{outcome="complete"}': TURNS,
        f'gen_ai_client_token_usage_sum{{{OPERATION},gen_ai_token_type="input"}}': 1000 * ok,
        f'gen_ai_client_token_usage_count{{{OPERATION},gen_ai_token_type="output"}}': ok,
        f'gen_ai_client_operation_duration_seconds_count{{error_type="",{OPERATION}}}': ok,
        f"gen_ai_server_time_to_first_token_seconds_count{{{OPERATION}}}": STREAMS,
        f"gen_ai_server_time_per_output_token_seconds_count{{{OPERATION}}}": STREAMS,
        'grpc_server_call_duration_seconds_count{grpc_method="ChatService/Generate",grpc_status="OK"}': TURNS,
        "antiphon_overhead_seconds_count": ok + 1 + TURNS + INVENTED + 1 + GONE,
        "antiphon_calls_in_flight": 0,
        "antiphon_stream_buffer_bytes": 0,
        "antiphon_stream_coalescing_seconds": 0,
    }
    assert {name: found.get(name) for name in stated} == stated
    for metric in TABLE:
        name = metric.name + ("_count" if metric.buckets else "")
        assert any(series.partition("{")[0] == name for series in found), metric.name
    assert not [series for series in found if "invented" in series]
    lines = [json.loads(line) for line in counted.output_text.splitlines() if line.startswith("{")]
    answered = {line["worker"] for line in lines if line["event"] == "call"}
    assert answered == {0, 1}


async def _is_idle(gateway: Counted) -> bool:
    return (await gateway.scrape())["antiphon_calls_in_flight"] == 0


async def test_the_buffers_of_slow_readers_are_reported(counted: Counted, upstream: OddUpstream) -> None:
    """The bytes buffered for slow readers are reported and bounded, and go back to zero when the readers leave."""
    piece = chunk(sse(delta("x" * 1000)))
    upstream.script("slow", [head(), *[piece] * 20_000, LAST])
    body = json.dumps(chat_body("slow", stream=True)).encode()
    host, _, port = counted.rest.partition(":")
    readers = []
    for _ in range(2):
        _, writer = await asyncio.open_connection(host, int(port), limit=1)  # it reads no more than the system buffers
        lines = f"POST /api/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        writer.write(f"{lines}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        readers.append(writer)
    name = "antiphon_stream_buffer_bytes"

    async def is_full() -> bool:
        return (await counted.scrape())[name] > 2 * 64 * 1024

    try:
        await until(is_full)
        assert (await counted.scrape())[name] < 2 * 1024 * 1024
    finally:
        for writer in readers:
            writer.transport.abort()

    async def is_empty() -> bool:
        return (await counted.scrape())[name] == 0

    await until(is_empty)


async def test_counters_never_drop_when_a_worker_is_killed(counted: Counted) -> None:
    """The counters of a killed worker stay in the sum, and its successor's are added."""
    series = 'antiphon_attempts_total{class="ok",provider="odd"}'
    async with counted.client() as http:

        async def call() -> None:
            assert (await http.post("/chat/completions", json=chat_body("reported"))).status_code == 200

        for _ in range(10):
            await call()
        before = await counted.scrape()
        victim = min(counted.workers())
        os.kill(victim, signal.SIGKILL)

        async def replaced() -> bool:
            found = await counted.scrape()
            return found["antiphon_workers"] == 2 and found["antiphon_worker_exits_total"] == 1

        await until(replaced)
        after = await counted.scrape()
        counters = [name for name in before if "_total" in name or "_bucket" in name or "_count" in name]
        assert {name: (before[name], after.get(name)) for name in counters if after.get(name, -1) < before[name]} == {}
        assert after[series] == before[series] >= 10
        made = 0
        while (await counted.scrape())[series] < before[series] + 5:
            with suppress(AssertionError, httpx2.TransportError):  # the edge may not know the new worker yet
                await call()
                made += 1
        assert made == 5


async def test_unknown_methods_are_no_label(counted: Counted) -> None:
    """An unknown method, which anybody may call, does not become a label."""
    async with grpc.aio.insecure_channel(counted.grpc) as channel:
        call = channel.unary_unary("/antiphon.v1.ChatService/Invented")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(b"", metadata=METADATA)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not [series for series in await counted.scrape() if "Invented" in series]


async def test_the_port_answers_probes(counted: Counted) -> None:
    """The metrics port answers probes without a key, and the edge serves no metrics."""
    assert (await counted.probe("/healthz")).json() == {"status": "ok"}

    async def ready() -> bool:
        return (await counted.probe("/readyz")).json() == {"status": "ready"}

    await until(ready)
    async with counted.client() as http:
        assert (await http.get(f"http://{counted.rest}/metrics")).status_code == 404


async def test_a_server_alone_has_the_port_itself(tmp_path: Path) -> None:
    """`antiphon serve` has the same metrics port. It is not ready until the database is migrated."""
    listen, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    database = f"sqlite:///{tmp_path}/antiphon.db"
    config = {
        "grpc": {"listen": listen},
        "metrics": {"listen": metrics},
        "database": {"url": database},
        "providers": {"echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0}},
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
    }
    path = tmp_path / "antiphon.yaml"
    path.write_text(yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "antiphon", "serve", "--config", str(path)),
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "TEST_KEY": KEY,
            "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://{metrics}", trust_env=False) as http:

            async def readiness() -> object:
                with suppress(httpx2.TransportError):
                    return (await http.get("/readyz")).json()
                return None

            async def lacks_a_schema() -> bool:
                return await readiness() == {"status": "not ready", "missing": ["the first contact with the database"]}

            async def ready() -> bool:
                return await readiness() == {"status": "ready"}

            await until(lacks_a_schema)
            assert (await http.get("/healthz")).status_code == 200
            await migrate(database)
            await until(ready)
            async with grpc.aio.insecure_channel(listen) as channel:
                stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
                messages = [message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hi"))])]
                await stub.Generate(chat_pb2.GenerateRequest(model="echo", messages=messages), metadata=METADATA)

            async def is_counted() -> bool:
                return 'antiphon_attempts_total{class="ok",provider="echo"} 1.0' in (await http.get("/metrics")).text

            await until(is_counted)
            text = (await http.get("/metrics")).text  # with the selected names, and no others
            assert "gen_ai_client_inference_duration_seconds_count{" in text
            assert "gen_ai_client_operation_duration_seconds" not in text
    finally:
        process.terminate()
        assert await process.wait() == 0
