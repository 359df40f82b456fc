"""`antiphon up` from an operator's point of view, and the other commands."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from llmock.testing import LLMockServer

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2, models_pb2, models_pb2_grpc
from tests.e2e.conftest import KEY, READY, Gateway, configuration
from tests.odd_upstream import LAST, OddUpstream, chunk, delta, head, sse
from tests.ports import free_port
from tests.waiting import block_until, until

ROOT = Path(__file__).parents[2]
ECHO: dict[str, Any] = {
    "providers": {"echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0}},
    "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
}
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[Gateway]:
    started = Gateway(tmp_path, {**ECHO, "workers": 2})
    started.wait_for(READY)
    yield started
    started.stop()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Yield a folder for TMPDIR. pytest's own path is too long for sockets, so the gateway would choose another."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def children(gateway: Gateway, of: str) -> list[int]:
    """Return the process ids of the gateway's children with `of` in their command line."""
    found = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    return [int(child) for child in found if of.encode() in Path(f"/proc/{child}/cmdline").read_bytes()]


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat, from the state on. Raises `FileNotFoundError`."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def age(pid: int) -> float:
    """Return the seconds since a process was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat(pid)[19]) / os.sysconf("SC_CLK_TCK")


async def wait_for_answer(http: httpx2.AsyncClient) -> None:
    """Wait until the gateway answers a call."""

    async def answered() -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return (await http.post("/chat/completions", json=HELLO)).status_code == 200
        return False

    await until(answered, 30)


def antiphon(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "antiphon", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("part", ["antiphon.worker", "envoy"])
async def test_a_part_that_is_killed_is_started_again(two_workers: Gateway, part: str) -> None:
    """A killed worker or Envoy is replaced, with a log line, and calls are answered at once or soon after."""
    (victim, *_) = children(two_workers, part)
    os.kill(victim, signal.SIGKILL)
    await asyncio.to_thread(two_workers.wait_for, "by SIGKILL")
    async with two_workers.client(transport=httpx2.AsyncHTTPTransport(retries=10)) as http:

        async def call() -> set[int]:
            return {(await http.post("/chat/completions", json=HELLO)).status_code for _ in range(40)}

        assert set().union(*await asyncio.gather(*(call() for _ in range(6)))) == {200}

    def replaced() -> bool:
        running = children(two_workers, part)
        return victim not in running and len(running) == (2 if part == "antiphon.worker" else 1)

    await until(replaced)


@pytest.mark.slow
async def test_a_kill_again_and_again_costs_no_delay(two_workers: Gateway) -> None:
    """A worker that has lived for a second is replaced at once, however often it is killed."""
    for count in range(1, 4):
        await asyncio.to_thread(two_workers.wait_for, '"event":"serving"', count + 1)
        victim = max(children(two_workers, "antiphon.worker"))
        await until(lambda: age(victim) > 1.1)  # noqa: B023 - awaited here; the kernel tells a start to 10 ms only
        os.kill(victim, signal.SIGKILL)
        await asyncio.to_thread(two_workers.wait_for, "starting it again", count)
    assert two_workers.output_text.count("starting it again now") == 3


def test_envoy_has_no_secret(two_workers: Gateway) -> None:
    """Envoy's environment has no secret; the workers' has."""
    (envoy,) = children(two_workers, "bootstrap.yaml")
    assert KEY.encode() not in Path(f"/proc/{envoy}/environ").read_bytes()
    assert KEY.encode() in Path(f"/proc/{children(two_workers, 'antiphon.worker')[0]}/environ").read_bytes()


async def test_a_start_waits_for_its_database(tmp_path: Path) -> None:
    """While the database is out of reach, a start says so, and callers get 503. A changed configuration begins it anew."""
    gateway = Gateway(tmp_path, {**ECHO, "database": {"url": f"postgresql://nobody@127.0.0.1:{free_port()}/none"}})
    await asyncio.to_thread(gateway.wait_for, "waiting for the database", 2)
    async with gateway.client() as http:
        assert (await http.post("/chat/completions", json=HELLO)).status_code == 503
        gateway.configure(ECHO)
        await asyncio.to_thread(gateway.wait_for, "The configuration has changed: starting again.")
        await asyncio.to_thread(gateway.wait_for, READY)
        assert (await http.post("/chat/completions", json=HELLO)).status_code == 200
    assert await asyncio.to_thread(gateway.stop) == 0


async def test_a_start_that_waits_can_be_stopped(tmp_path: Path) -> None:
    """A signal ends a start that waits for its database, and all that it has started."""
    gateway = Gateway(tmp_path, {**ECHO, "database": {"url": f"postgresql://nobody@127.0.0.1:{free_port()}/none"}})
    await asyncio.to_thread(gateway.wait_for, "waiting for the database")
    started = [*children(gateway, "antiphon"), *children(gateway, "bootstrap.yaml")]
    assert len(started) == 3
    assert await asyncio.to_thread(gateway.stop) == 0
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
async def test_a_log_that_cannot_be_written_breaks_nothing(tmp_path: Path) -> None:
    """If the log cannot be written, calls, restarts of workers and a stop work as usual."""
    gateway = Gateway(tmp_path, {**ECHO, "log": {"file": "/dev/full", "level": "debug"}})
    await asyncio.to_thread(gateway.wait_for, READY)
    (worker,) = children(gateway, "antiphon.worker")
    async with gateway.client() as http:
        assert (await http.post("/chat/completions", json=HELLO)).status_code == 200
        assert (await http.post("/chat/completions", json={**HELLO, "model": "none"})).status_code == 404
        os.kill(worker, signal.SIGKILL)
        await asyncio.to_thread(gateway.wait_for, "by SIGKILL")
        await wait_for_answer(http)
    assert await asyncio.to_thread(gateway.stop) == 0


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-", "| true"])
async def test_standard_streams_may_be_closed(closed: str, tmp_path: Path) -> None:
    """The gateway works if its standard streams are closed from the start or lose their reader."""
    rest = f"127.0.0.1:{free_port()}"
    reader = "2>&1 | true" if closed == "| true" else closed
    process = subprocess.Popen(
        ["bash", "-c", f"(sh -c 'echo $$ > pid; exec {sys.executable} -m antiphon up'; echo $? > code) {reader}"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "ANTIPHON_KEY": KEY,
            "ANTIPHON_GRPC__LISTEN": f"127.0.0.1:{free_port()}",
            "ANTIPHON_REST__LISTEN": rest,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    async with httpx2.AsyncClient(
        base_url=f"http://{rest}/api/v1", trust_env=False, headers={"authorization": f"Bearer {KEY}"}
    ) as http:
        await wait_for_answer(http)
        pid = int((tmp_path / "pid").read_text())
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        (worker,) = (int(child) for child in found if b"antiphon.worker" in Path(f"/proc/{child}/cmdline").read_bytes())
        os.kill(worker, signal.SIGKILL)  # the supervisor prints a line about it
        await wait_for_answer(http)
    os.kill(pid, signal.SIGTERM)
    await asyncio.to_thread(process.wait, 20)
    assert (tmp_path / "code").read_text() == "0\n"


async def test_every_worker_serves(two_workers: Gateway) -> None:
    """Calls are spread over all workers."""
    async with two_workers.client() as http:
        for _ in range(20):
            await http.post("/chat/completions", json=HELLO)
    workers = set(re.findall(r'"event":"call".*"worker":(\d)', two_workers.output_text))
    assert workers == {"0", "1"}


class OwnGroup(Gateway):
    """A gateway in a process group of its own, as a shell starts it."""

    group = 0


@pytest.mark.parametrize(
    "signalled",
    [
        "it",
        pytest.param("its group", marks=pytest.mark.slow),
        pytest.param("all of its processes, Envoy first", marks=pytest.mark.slow),
        pytest.param("all of its processes, itself first", marks=pytest.mark.slow),
    ],
)
async def test_a_stop_lets_streams_finish(tmp_path: Path, upstream: OddUpstream, llm: LLMockServer, signalled: str) -> None:
    """A stream in progress finishes after SIGTERM, whichever processes get the signal. Nothing is restarted; the code is 0."""
    gate = asyncio.Event()
    upstream.script("odd-drain", [head(), chunk(sse(delta("Hel"))), gate, chunk(sse(delta("lo", "stop"), "[DONE]")), LAST])
    gateway = OwnGroup(tmp_path, configuration(upstream, llm))
    await asyncio.to_thread(gateway.wait_for, READY)
    itself = gateway.process.pid
    pids = [*children(gateway, "envoy"), *children(gateway, "antiphon.worker"), itself]
    assert len(pids) == 3

    def send_signals() -> None:
        if signalled == "its group":
            os.killpg(itself, signal.SIGTERM)
        for pid in (
            [itself]
            if signalled == "it"
            else pids
            if "Envoy first" in signalled
            else pids[::-1]
            if "itself first" in signalled
            else []
        ):
            os.kill(pid, signal.SIGTERM)

    async with gateway.client() as http:
        body = {"model": "odd-drain", "messages": HELLO["messages"], "stream": True}
        async with http.stream("POST", "/chat/completions", json=body) as response:
            text = ""
            async for piece in response.aiter_text():
                text += piece
                if "Hel" in text and not gate.is_set():
                    send_signals()
                    await asyncio.to_thread(gateway.wait_for, "draining")
                    gate.set()
    assert text.endswith("data: [DONE]\n\n")
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert "starting it again" not in gateway.output_text
    assert '"level":"error"' not in gateway.output_text.replace('": "', '":"')


async def test_a_stop_waits_only_for_calls(tmp_path: Path) -> None:
    """A stop does not wait for health watchers, reflection or incomplete requests, however long limits.drain is."""
    gateway = Gateway(tmp_path, {**ECHO, "limits": {"drain": 600}})
    await asyncio.to_thread(gateway.wait_for, READY)
    async with grpc.aio.insecure_channel(gateway.grpc) as direct, grpc.aio.insecure_channel(gateway.rest) as edge:
        ends, watching = [], []
        for channel in (direct, edge):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            reflection = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")()
            await reflection.write(b"\x3a\x00")
            await reflection.read()
            half = channel.stream_unary("/antiphon.v1.ChatService/Generate")(metadata=[("authorization", f"Bearer {KEY}")])
            await half.wait_for_connection()
            # A connection's streams are served in order: when this call is answered, the server has the others.
            models = models_pb2_grpc.ModelServiceStub(channel)
            await models.ListModels(models_pb2.ListModelsRequest(), metadata=[("authorization", f"Bearer {KEY}")])
            ends += [reflection, half]
            watching.append(watch)
        assert await asyncio.to_thread(gateway.stop) == 0
        assert {await call.code() for call in ends} == {grpc.StatusCode.UNAVAILABLE}
        for watch in watching:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await watch.read() is grpc.aio.EOF
    assert '"level":"error"' not in gateway.output_text.replace('": "', '":"')


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_worker_that_dies_is_unavailable(tmp_path: Path, upstream: OddUpstream, llm: LLMockServer, kind: str) -> None:
    """If a worker dies before its answer, gRPC callers through the edge get UNAVAILABLE, which clients retry."""
    upstream.script("odd-dies", [asyncio.Event()])
    gateway = Gateway(tmp_path, configuration(upstream, llm))
    await asyncio.to_thread(gateway.wait_for, READY)
    before = len(upstream.requests)
    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        text = message_pb2.Block(text=message_pb2.Text(text="Hello"))
        request = chat_pb2.GenerateRequest(model="odd-dies", messages=[message_pb2.Message(role="ROLE_USER", blocks=[text])])
        method = stub.Generate if kind == "unary" else stub.StreamGenerate
        call = method(request, metadata=[("authorization", f"Bearer {KEY}")])
        ended = asyncio.ensure_future(call.code())
        reading = asyncio.ensure_future(call.read()) if kind == "stream" else None
        await until(lambda: len(upstream.requests) > before)
        os.kill(children(gateway, "antiphon.worker")[0], signal.SIGKILL)
        assert await ended is grpc.StatusCode.UNAVAILABLE
        if reading is not None:
            await asyncio.wait([reading])
            assert reading.exception() is not None
    gateway.stop()


async def test_a_stop_in_the_middle_of_a_start_leaves_nothing(temporary: Path) -> None:
    """A stop during the start removes the temporary folder and exits with code 0."""
    gateway = Gateway(temporary, ECHO, TMPDIR=str(temporary))
    await until(lambda: list(temporary.glob("antiphon-*")))
    assert await asyncio.to_thread(gateway.stop) == 0, gateway.output_text
    assert not list(temporary.glob("antiphon-*"))


@pytest.mark.slow
async def test_the_next_start_removes_the_folder_of_a_killed_gateway(temporary: Path) -> None:
    """The next start removes the folder of a killed gateway, but not of a running one. Only the owner can read the log file."""
    (temporary / "a").mkdir()
    (temporary / "b").mkdir()
    config = {**ECHO, "log": {"file": str(temporary / "log")}}
    (temporary / "log").touch()
    (temporary / "log").chmod(0o666)
    first = Gateway(temporary / "a", config, TMPDIR=str(temporary))
    await asyncio.to_thread(first.wait_for, READY)
    assert (temporary / "log").stat().st_mode & 0o777 == 0o600
    (killed,) = temporary.glob("antiphon-*")
    second = Gateway(temporary / "b", config, TMPDIR=str(temporary))
    await asyncio.to_thread(second.wait_for, READY)
    (living,) = set(temporary.glob("antiphon-*")) - {killed}
    pids = children(first, "")
    first.process.kill()
    first.process.wait(5)
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert killed.exists()
    third = Gateway(temporary / "a", config, TMPDIR=str(temporary))
    await asyncio.to_thread(third.wait_for, READY)
    assert (killed.exists(), living.exists()) == (False, True)
    assert await asyncio.to_thread(second.stop) == await asyncio.to_thread(third.stop) == 0
    assert not list(temporary.glob("antiphon-*"))


async def test_a_stop_ends_unfinished_streams_with_an_error(tmp_path: Path, upstream: OddUpstream, llm: LLMockServer) -> None:
    """A stream that does not finish in time ends with an error event and no [DONE]."""
    upstream.script("odd-endless", [head(), chunk(sse(delta("Hel"))), asyncio.Event()])
    gateway = Gateway(tmp_path, configuration(upstream, llm, limits={"drain": 0.3}))
    await asyncio.to_thread(gateway.wait_for, READY)
    async with gateway.client() as http:
        body = {"model": "odd-endless", "messages": HELLO["messages"], "stream": True}
        async with http.stream("POST", "/chat/completions", json=body) as response:
            text = ""
            async for piece in response.aiter_text():
                if not text:
                    gateway.process.send_signal(signal.SIGTERM)
                text += piece
    assert '"code":"shutting_down"' in text
    assert "[DONE]" not in text
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0


def test_children_die_with_a_supervisor_that_is_killed(two_workers: Gateway) -> None:
    """When the supervisor is killed, its children end too, so no orphan holds a port."""
    pids = children(two_workers, "")
    assert len(pids) == 3
    two_workers.process.kill()
    two_workers.process.wait(5)

    def gone(pid: int) -> bool:
        try:
            return stat(pid)[0] == "Z"
        except FileNotFoundError:
            return True

    block_until(lambda: all(gone(pid) for pid in pids))


@pytest.mark.parametrize("setting", ["grpc", "rest"])
def test_a_port_in_use_is_reported_with_its_setting(setting: str, tmp_path: Path) -> None:
    """A port in use is reported with its setting, without a traceback, with exit code 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "rest" if setting == "grpc" else "grpc"
        environment = {
            f"ANTIPHON_{setting.upper()}__LISTEN": address,
            f"ANTIPHON_{other.upper()}__LISTEN": f"127.0.0.1:{free_port()}",
        }
        ended = antiphon("up", folder=tmp_path, **environment)
    assert ended.returncode == 1
    assert f"{setting}.listen" in ended.stderr
    assert address in ended.stderr
    assert "Traceback" not in ended.stderr


def test_with_no_configuration_a_key_is_made_and_printed_once(tmp_path: Path) -> None:
    """Without a configuration a key is made and printed, with a curl line that works. The key is not in the log."""
    grpc, rest = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    output = tmp_path / "output.txt"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ANTIPHON_GRPC__LISTEN": grpc, "ANTIPHON_REST__LISTEN": rest}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "antiphon", "up"], cwd=tmp_path, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        for _ in range(400):
            if (found := re.search(r"^ +(curl (?:.*\\\n)*.*\n.*\}')$", output.read_text(), re.MULTILINE)) is not None:
                break
            subprocess.run(["sleep", "0.05"], check=True)
        assert found is not None
        answer = subprocess.run(["bash", "-c", found[1]], capture_output=True, text=True, timeout=20, check=True)
        assert answer.stdout.endswith("data: [DONE]\n\n")
        made = re.search(r"export ANTIPHON_KEY=(\S+)", output.read_text())
        assert made is not None
        chat = antiphon("chat", "Hello", "there", folder=tmp_path, ANTIPHON_KEY=made[1], ANTIPHON_ADDRESS=grpc)
        assert chat.stdout == "You said: Hello there\n"
        printed = re.search(r"REST +(\S+)", output.read_text())
        assert printed is not None
        for address in (rest, printed[1]):
            listed = antiphon("models", folder=tmp_path, ANTIPHON_KEY=made[1], ANTIPHON_ADDRESS=address)
            assert "echo" in listed.stdout
        refused = antiphon("models", folder=tmp_path, ANTIPHON_ADDRESS=grpc)
        assert refused.returncode == 1
        assert "UNAUTHENTICATED" in refused.stderr
    finally:
        process.terminate()
        process.wait(20)
    logged = [line for line in output.read_text().splitlines() if line.startswith("{")]
    assert logged
    assert not [line for line in logged if made[1] in line]


def test_the_environment_switches_a_provider_on(tmp_path: Path) -> None:
    """A provider's usual variables are enough to enable it, and its key is not printed."""
    checked = antiphon("check-config", folder=tmp_path, OPENAI_API_KEY="sk-very-secret", OLLAMA_HOST="127.0.0.1:11434")
    assert checked.returncode == 0
    assert "https://api.openai.com/v1" in checked.stdout
    assert "ollama" in checked.stdout
    assert "secret" not in checked.stdout + checked.stderr


def test_check_config_shows_what_keys_and_tokens_permit(tmp_path: Path) -> None:
    """check-config shows the scopes, models, end and limits of each key, and each issuer's rules; an empty list opens nothing."""
    (tmp_path / "a.yaml").write_text(
        "auth:\n"
        "  keys:\n"
        "    - {name: usual, key_env: A}\n"
        "    - {name: closed, key_env: B, scopes: [], models: []}\n"
        "    - {name: ops, key_env: C, admin: true, scopes: [chat], models: [gpt-*], expire_time: '2020-01-01', owner: team,\n"
        "       limits: {daily_usd: 2}}\n"
        "  tokens:\n"
        "    - {name: corp, issuer: 'https://id.test', audience: a, secret_env: D, default_scopes: [],\n"
        "       scopes: {llm: [chat], nil: []}}\n"
    )
    secrets = {"A": "sk-hush-1", "B": "sk-hush-2", "C": "sk-hush-3", "D": "hush" * 8, "COLUMNS": "80"}
    checked = antiphon("check-config", "--config", "a.yaml", folder=tmp_path, **secrets)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in checked.stdout.splitlines() if line.startswith("│")]
    assert ["usual", "usual", "no", "chat engine history proxy", "all", "never", "none"] in rows
    assert ["closed", "closed", "no", "opens nothing", "none", "never", "none"] in rows
    assert ["ops", "team", "yes", "admin chat", "gpt-*", "2020-01-01 00:00 UTC (ended)", "daily_usd=2.0"] in rows
    assert ["corp", "scope, scp", "llm: chat; nil: opens nothing", "opens nothing", "no"] in rows
    assert "hush" not in checked.stdout + checked.stderr
    parsed = json.loads(antiphon("check-config", "--config", "a.yaml", "--json", folder=tmp_path, **secrets).stdout)
    assert [key["opens"] for key in parsed["keys"]] == ["chat engine history proxy", "opens nothing", "admin chat"]
    assert parsed["tokens"][0]["without it"] == "opens nothing"


def test_check_config_shows_the_whole_configuration(tmp_path: Path) -> None:
    """check-config shows keys, database, limits and log in full, without a secret."""
    address = f"https://models.{'long.' * 30}test/v1"
    (tmp_path / "a.yaml").write_text(
        f"providers: {{far: {{base_url: '{address}', models: [m], api_key_env: FAR}}}}\n"
        "auth: {keys: [{name: alice, key_env: ALICE, admin: true}, {name: bob, key_env: BOB}]}\n"
        "database: {url: 'postgresql://me:hush@db.test/chats?password=hush&sslmode=require'}\n"
        "limits: {request_timeout: 77, drain: 8}\n"
        "log: {level: debug, file: here.log}\n"
        "traces: {sample: 0.25}\n"
    )
    collector = "https://me:hush@collector.test:4318/v1/traces?key=hush"
    for options in ([], ["--json"]):
        secrets = {"ALICE": "sk-hush-1", "BOB": "sk-hush-2", "FAR": "sk-hush-3", "COLUMNS": "80"}
        secrets["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = collector
        checked = antiphon("check-config", "--config", "a.yaml", *options, folder=tmp_path, **secrets)
        assert checked.returncode == 0
        for part in (
            "alice (admin), bob",
            "postgresql://me:***@db.test/chats",
            "sslmode=require",
            "77 s",
            "8 s",
            "debug",
            "here.log",
            "to collector.test:4318, 0.25 of the calls",
        ):
            assert part in checked.stdout
        assert options or address in checked.stdout
        assert "hush" not in checked.stdout + checked.stderr
    assert not (tmp_path / "here.log").exists()


@pytest.mark.parametrize("command", [["models"], ["chat", "Hello"]])
def test_an_unreachable_gateway_is_reported_in_a_line(command: list[str], tmp_path: Path) -> None:
    """An unreachable gateway is reported in one line with its address."""
    address = f"http://127.0.0.1:{free_port()}/api/v1"
    ended = antiphon(*command, "--address", address, folder=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == f"error: no gateway answers at {address}. Is it running? --address names another.\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wrokers: 2", "wrokers"),
        ("providers: {openai: {api_key_env: NOT_THERE}}", "antiphon.yaml: providers.openai.api_key_env: "),
        ("auth: {keys: [{name: dev, key_env: NOT_THERE}]}", "antiphon.yaml: auth.keys.dev.key_env: "),
        ("providers: {x: {protocol: smoke, base_url: 'http://x.test'}}", "smoke"),
        ("providers: {x: {models: [a]}}", "base_url"),
        ("models: {default: nope}", "nope"),
        ("rest: {listen: '127.0.0.1:50051'}", "rest.listen and grpc.listen"),
        ("log: {file: nowhere/log}", "log.file: nowhere/log: "),
    ],
)
@pytest.mark.parametrize(
    "command", ["check-config", pytest.param("up", marks=pytest.mark.slow), pytest.param("serve", marks=pytest.mark.slow)]
)
def test_an_invalid_configuration_is_reported_in_a_line(text: str, expected: str, command: str, tmp_path: Path) -> None:
    """Every command reports an invalid configuration in one line before it starts anything, with exit code 2."""
    (tmp_path / "antiphon.yaml").write_text(text)
    ended = antiphon(command, "--config", "antiphon.yaml", folder=tmp_path, ANTIPHON_KEY=KEY)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_does_not_share_the_port_of_another(two_workers: Gateway, tmp_path: Path) -> None:
    """A second server cannot share a gateway's port, or it would get some of its calls."""
    (tmp_path / "serve.yaml").write_text(f"grpc: {{listen: '{two_workers.grpc}'}}")
    ended = antiphon("serve", "--config", "serve.yaml", folder=tmp_path, ANTIPHON_KEY=KEY)
    assert ended.returncode == 1
    assert f"grpc.listen: {two_workers.grpc} is taken" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_archives_hold_every_file_of_the_sources(tmp_path: Path) -> None:
    """The wheel and the sdist include all files that are read at run time, such as Redis's scripts."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        installed = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    files = {path.relative_to(ROOT) for path in (ROOT / "server").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert Path("server/antiphon/limits/lua/take.lua") in files
    assert {str(path) for path in files} <= packed
    assert {str(path.relative_to("server")) for path in files} <= installed


@pytest.mark.slow
async def test_the_installed_wheel_is_whole(tmp_path: Path) -> None:
    """A gateway from the built and installed wheel starts in another folder and answers."""
    made = tmp_path / "venv"
    venv.create(made, system_site_packages=False, with_pip=False)
    site = made / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    # The dependencies of the tests' environment, without the sources that are installed in it.
    dependencies = str(Path(httpx2.__file__).parents[1])
    check = "import antiphon, sys; print(antiphon.__file__)"
    environment = {"PYTHONPATH": f"{site}:{dependencies}"}
    python = str(made / "bin" / "python")
    where = subprocess.run([python, "-c", check], env=environment, capture_output=True, text=True, check=True)
    assert where.stdout.startswith(str(site))
    rest = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [python, "-m", "antiphon", "up"],
        cwd=tmp_path,
        env={
            **environment,
            "HOME": str(tmp_path),
            "ANTIPHON_KEY": KEY,
            "ANTIPHON_GRPC__LISTEN": f"127.0.0.1:{free_port()}",
            "ANTIPHON_REST__LISTEN": rest,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(base_url=f"http://{rest}/api/v1", trust_env=False, headers=headers) as http:
            await wait_for_answer(http)
            response = await http.post("/chat/completions", json=HELLO)
        assert response.json()["choices"][0]["message"]["content"] == "You said: Hello"
    finally:
        process.terminate()
        process.wait(20)
