"""No secret can be read anywhere: every kind of credential is used in good and bad calls, and then all output is searched."""

import asyncio
import base64
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import grpc
import httpx2
import pytest
import pytest_asyncio

from antiphon.up.reload import CONFIG, NEXT
from antiphon.v1 import admin_pb2, admin_pb2_grpc, chat_pb2, chat_pb2_grpc, message_pb2
from tests.e2e.conftest import READY, Gateway
from tests.odd_upstream import CUT, LAST, OddUpstream, Step, answer, chunk, delta, head, sse
from tests.ports import free_port
from tests.unit.auth import signer

# No pattern for keys matches these, and every encoding changes some of their characters.
STATIC = "Wren/Static+1~owl=="
PROVIDER = "Heron/Provider+2~jay="
OTHER_PROVIDER = "Stork/Header+3~jay="
PATH_KEY = "Crane/Path+4~tit="
GEMINI_HEADER = "Egret/Gemini+5~tern="
GEMINI_QUERY = "Robin/Query+6~rook="
ENGINE = "Finch/Engine+7~lark="
REDIS = "Raven-Redis-8-swan"
POSTGRES = "Eagle-Postgres-9-duck"
ISSUER = "https://issuer.example"

CONTENTS = [{"parts": [{"text": "Hello"}]}]
ADMIN_PAGES = (
    "config_dump?include_eds",
    "clusters",
    "clusters?format=json",
    "stats",
    "server_info",
    "listeners",
    "certs",
    "runtime",
)


def forms(secret: str) -> set[bytes]:
    """Return the forms that a secret can have: plain, percent-encoded, escaped for JSON, hexadecimal, and inside of base64."""
    plain = secret.encode()
    encoded = quote(secret, safe="")
    lower = re.sub("%..", lambda match: match[0].lower(), encoded)
    found = {plain, encoded.encode(), lower.encode(), plain.replace(b"/", rb"\/")}
    found |= {quote(secret).encode(), plain.hex().encode(), json.dumps(secret)[1:-1].encode()}
    for before in range(3):
        # Only the characters that encode no bits of a neighbour.
        first = (before * 8 + 5) // 6
        last = (before + len(plain)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"\0" * before + plain)[first:last])
    return found


def assert_none(where: str, text: bytes | str, secrets: Iterator[str] | list[str]) -> None:
    """Check that no secret is in the text in any form."""
    data = text.encode() if isinstance(text, str) else text
    for secret in secrets:
        for form in forms(secret):
            at = data.find(form)
            assert at < 0, f"{secret} is in {where}: {data[max(0, at - 200) : at + 200]!r}"


def echo_of(*secrets: str) -> bytes:
    """Return a provider's error that quotes these secrets in every form."""
    quoted = [form.decode() for secret in secrets for form in sorted(forms(secret))]
    error = {"message": " ".join(["Bad key:", *quoted]), "type": quoted[0], "code": secrets[0], "param": quoted[-1]}
    return json.dumps({"error": error}).encode()


class Run(NamedTuple):
    """A gateway after all the calls, and everything that it has answered."""

    gateway: Gateway
    folder: Path
    secrets: list[str]
    answers: list[tuple[str, str]]
    """Pairs of a call and its whole answer, except for what a proxy passes on."""


def children_of(process: int) -> Iterator[int]:
    """Yield the id of a process and of all its descendants."""
    yield process
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield from children_of(int(child))


def command_lines(gateway: Gateway) -> list[bytes]:
    return [Path(f"/proc/{process}/cmdline").read_bytes() for process in children_of(gateway.process.pid)]


def runtime_folder(gateway: Gateway) -> Path:
    """Return the folder in which the gateway's Envoy runs."""
    (line,) = (line for line in command_lines(gateway) if b"--socket" in line)
    arguments = line.decode().split("\0")
    return Path(arguments[arguments.index("--socket") + 1]).parent


WHAT = ("ok", "400", "401", "429", "500", "page", "none", "late", "wrong", "cut", "away", "lost")
FAMILIES = {
    "leak": (PROVIDER, OTHER_PROVIDER),
    "own": (ENGINE, OTHER_PROVIDER, PROVIDER),
    "pass": (PATH_KEY, GEMINI_HEADER, GEMINI_QUERY),
}
"""The secrets that a provider knows, and so may quote, in calls with its configured key, with the caller's own key in the engine
dialect, and by a proxy."""


def script(upstream: OddUpstream) -> None:
    for family, known in FAMILIES.items():
        scripts: dict[str, list[Step]] = {
            "ok": [head(), chunk(sse(delta("Hello"), delta(finish="stop"), "[DONE]")), LAST],
            "page": [answer(b"<html>" + echo_of(*known), content_type="text/html")],
            "none": [answer(b"no JSON: " + echo_of(*known))],
            "late": [head(), chunk(sse(delta("Hel"), echo_of(*known).decode())), LAST],
            "wrong": [head(), chunk(sse(delta("Hel"), f"no JSON: {known[0]}")), LAST],
            "cut": [head(), chunk(sse(delta("Hel"))), CUT],
            "away": [answer(b"", "302 Found", "text/plain", f"location: http://x/?key={quote(known[0], safe='')}")],
        }
        for number, status in enumerate(("400 Bad", "401 No", "429 Slow", "500 Oh")):
            # Each secret comes first in one of them, because the log has only the beginning.
            first = number % len(known)
            scripts[status[:3]] = [answer(echo_of(*known[first:], *known[:first]), status)]
        for what, steps in scripts.items():
            upstream.script(f"{family}-{what}", steps)


async def call_rest(gateway: Gateway, base_url: str, key: str, answers: list[tuple[str, str]]) -> None:
    """Make good and bad calls with this key in every dialect, and append the answers to `answers`."""
    target = quote(base_url, safe="")
    root = quote(base_url.removesuffix("/v1"), safe="")
    openai_path = f"/api/v1/proxy/{target}/{quote(PATH_KEY, safe='')}/chat/completions"
    gemini_path = f"/api/v1/proxy/{root}/v1beta/models/m:generateContent"
    evil_path = f"/api/v1/proxy/{quote('https://evil.example/v1', safe='')}/{quote(PATH_KEY, safe='')}/chat/completions"
    async with httpx2.AsyncClient(base_url=f"http://{gateway.rest}", timeout=20, trust_env=False) as http:

        async def call(path: str, body: Any, *, passed_on: bool = False, method: str = "POST", **headers: str) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            named = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
            received = b""
            async with http.stream(method, path, content=content, headers=named) as response:
                with contextlib.suppress(httpx2.RemoteProtocolError):  # a broken transfer
                    async for piece in response.aiter_bytes():
                        received += piece
            if not passed_on:
                answers.append(
                    (f"{method} {path}", f"{response.status_code} {response.headers} {received.decode(errors='replace')}")
                )

        for what in WHAT:
            messages = {"model": f"leak-{what}", "messages": [{"role": "user", "content": "Hello"}]}
            await call("/api/v1/chat/completions", messages)
            await call("/api/v1/chat/completions", {**messages, "stream": True})
            await call("/api/v1/ai/chat", messages)
            engine = {"model": f"own-{what}", "chat_input": "Hello", "api_key": ENGINE}
            await call("/api/engine/chat/odd", engine)
            await call("/api/engine/chat/odd", {**engine, "is_stream": True})
            # The caller may read a provider's answer through a proxy.
            proxied = {"model": f"pass-{what}", "contents": CONTENTS, "messages": messages["messages"]}
            await call(openai_path, proxied, passed_on=True)
            await call(gemini_path, proxied, passed_on=True, **{"x-goog-api-key": GEMINI_HEADER})
            await call(f"{gemini_path}?key={quote(GEMINI_QUERY, safe='')}", proxied, passed_on=True)
        for bad in (
            b"{",
            b"[]",
            b"\xff\xfe",
            json.dumps({"api_key": ENGINE, "key": key}).encode(),
            b'{"api_key": "' + ENGINE.encode(),
        ):
            for path in ("/api/v1/chat/completions", "/api/engine/chat/odd", openai_path, evil_path):
                await call(path, bad)
            await call(gemini_path, bad, **{"x-goog-api-key": GEMINI_HEADER})
            await call(f"{gemini_path}?key={quote(GEMINI_QUERY, safe='')}", bad)
        # Keys in wrong places.
        await call("/api/v1/chat/completions", b"", authorization=f"Bearer {key}x")
        await call("/api/v1/chat/completions", b"", authorization=key)
        await call("/api/v1/chat/completions", b"", authorization=f"Basic {base64.b64encode(f'u:{key}'.encode()).decode()}")
        await call(f"/api/v1/models?key={quote(key, safe='')}", b"", method="GET")
        await call(f"/api/v1/{quote(key, safe='')}", b"")
        await call(f"/api/v1/chat/fetch/{quote(key, safe='')}", b"", method="GET")
        await call("/api/v1/models", b"", method="GET", **{"x-api-key": key, "cookie": f"key={key}", "user-agent": key})
        # The answer repeats the unknown name of a model or provider to its caller.
        await call(f"/api/engine/chat/{quote(key, safe='')}", {"chat_input": "Hello"}, passed_on=True)
        named = {"model": key, "messages": [{"role": "user", "content": "Hello"}]}
        await call("/api/v1/chat/completions", named, passed_on=True)
        await call(openai_path.replace("chat/completions", "nothing"), b"")
        await call(gemini_path, {"contents": CONTENTS}, authorization="", **{"x-goog-api-key": GEMINI_HEADER})
        await call(f"/api/v1/proxy/{target}/{quote(key, safe='')}/chat/completions", {"model": "m", "messages": CONTENTS})


async def call_grpc(address: str, key: str, answers: list[tuple[str, str]]) -> None:
    """Make recorded gRPC calls, and append messages, error details and trailers to `answers`."""
    message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hello"))])
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        for sent in (key, f"{key}x"):
            for model in (*(f"leak-{what}" for what in WHAT), key):
                request = chat_pb2.GenerateRequest(model=model, messages=[message], recording=chat_pb2.Recording(source="test"))
                metadata = (("authorization", f"Bearer {sent}"),)
                calls: list[Any] = [stub.Generate(request, metadata=metadata), stub.StreamGenerate(request, metadata=metadata)]
                for call in calls:
                    text = ""
                    try:
                        text = str(await call) if call is calls[0] else "".join([str(part) async for part in call])
                    except grpc.aio.AioRpcError as error:
                        text += f"{error.details()} {error.debug_error_string()}"
                    trailers = b" ".join(
                        value if isinstance(value, bytes) else value.encode() for _, value in await call.trailing_metadata() or ()
                    )
                    if model != key:  # the answer repeats an unknown name, as over REST
                        answers.append((f"gRPC {model}", text + trailers.decode("latin-1")))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def run(upstream: OddUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Run, None]:
    folder = tmp_path_factory.mktemp("redaction")
    root = upstream.base_url.removesuffix("/v1")
    config = {
        "models": {"default": "echo"},
        "providers": {
            "odd": {
                "base_url": upstream.base_url,
                "api_key_env": "TEST_PROVIDER_KEY",
                "headers": {"x-other": OTHER_PROVIDER},
                "models": [f"{family}-{what}" for family in ("leak", "own") for what in WHAT if what != "lost"],
            },
            "nowhere": {
                "base_url": f"http://127.0.0.1:{free_port()}/v1",
                "api_key_env": "TEST_PROVIDER_KEY",
                "models": ["leak-lost"],
            },
            "echo": {"protocol": "echo", "models": ["echo"], "token_delay": 0},
        },
        "auth": {
            "keys": [{"name": "static", "key_env": "TEST_KEY", "admin": True}],
            "tokens": [{"name": "shared", "issuer": ISSUER, "audience": "antiphon", "secret_env": "TOKEN_SECRET"}],
        },
        "engine": {"own_key_providers": ["odd"]},
        "proxy": {"allow": [root, upstream.base_url]},
        "sessions": {"automatic": True},
        # Nothing listens there; the messages about it are searched too.
        "limits": {"redis_url_env": "TEST_REDIS_URL", "per_key": {"requests_per_minute": 1_000_000}},
        "log": {"level": "debug"},
    }
    script(upstream)
    redis = f"redis://:{REDIS}@127.0.0.1:{free_port()}/0"
    environment = {"TEST_KEY": STATIC, "TEST_PROVIDER_KEY": PROVIDER, "TOKEN_SECRET": signer.SECRET, "TEST_REDIS_URL": redis}
    gateway = Gateway(folder, config, **environment)
    await asyncio.to_thread(gateway.wait_for, READY)
    try:
        async with grpc.aio.insecure_channel(gateway.grpc) as channel:
            stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
            scopes = ["SCOPE_CHAT", "SCOPE_HISTORY", "SCOPE_PROXY", "SCOPE_ENGINE"]
            wanted = admin_pb2.Key(name="stored", owner="stored", scopes=scopes)  # type: ignore[arg-type, unused-ignore]
            metadata = (("authorization", f"Bearer {STATIC}"),)
            stored = (await stub.CreateKey(admin_pb2.CreateKeyRequest(key=wanted), metadata=metadata)).secret
        token = signer.sign(signer.claims(iss=ISSUER), "oct-1", "HS256")
        expired = signer.sign(signer.claims(iss=ISSUER, exp=1), "oct-1", "HS256")
        answers: list[tuple[str, str]] = []
        for key in (STATIC, stored, token, expired):
            await call_rest(gateway, upstream.base_url, key, answers)
            await call_grpc(gateway.grpc, key, answers)
            await call_grpc(gateway.rest, key, answers)
        secrets = [STATIC, stored, token, expired, token.rpartition(".")[2], expired.rpartition(".")[2], signer.SECRET]
        secrets += [PROVIDER, OTHER_PROVIDER, PATH_KEY, GEMINI_HEADER, GEMINI_QUERY, ENGINE, REDIS]
        yield Run(gateway, folder, secrets, answers)
    finally:
        await asyncio.to_thread(gateway.stop)


def test_a_secret_is_found_in_every_form() -> None:
    """The search itself finds a secret in each form."""
    for text in (
        PROVIDER,
        quote(PROVIDER, safe=""),
        base64.b64encode(f"Bearer {PROVIDER}".encode()).decode(),
        PROVIDER.encode().hex(),
    ):
        for before in ("", "x", "xy"):
            with pytest.raises(AssertionError, match="is in here"):
                assert_none("here", before + text, [PROVIDER])


def test_no_log_has_a_secret(run: Run) -> None:
    """No secret is in the server's log at the level "debug", nor in Envoy's access log."""
    for event in ("provider_error_body", "[redacted]", "request failed", "limits_unavailable", "token_refused", '"event":"call"'):
        assert event in run.gateway.output_text, f"{event}: the log could have had a secret there"
    assert_none("the log", run.gateway.output_text, run.secrets)
    assert "call_failed" not in run.gateway.output_text


def test_no_answer_has_a_secret(run: Run) -> None:
    """No secret is in bodies, headers, gRPC details or trailers, of good calls or bad ones."""
    assert len(run.answers) > 400
    assert sum(text.startswith("200") for _, text in run.answers) > 20
    for what, text in run.answers:
        assert_none(f"the answer to {what}", text, run.secrets)


async def test_envoy_keeps_no_secret(run: Run) -> None:
    """No secret is on Envoy's admin socket or in its folder."""
    folder = runtime_folder(run.gateway)
    transport = httpx2.AsyncHTTPTransport(uds=str(folder / "admin.sock"))
    async with httpx2.AsyncClient(base_url="http://envoy", transport=transport, trust_env=False) as http:
        for page in ADMIN_PAGES:
            response = await http.get(f"/{page}")
            assert response.status_code == 200, page
            assert response.content or page == "certs"
            assert_none(page, response.content, run.secrets)
    files = {path for path in folder.rglob("*") if path.is_file()}
    copies = {
        path for path in files if path.name in {CONFIG, NEXT}
    }  # copies of the operator's configuration, which may have secrets in it
    assert copies
    assert all(path.stat().st_mode & 0o077 == 0 for path in copies)
    for path in files - copies:
        assert_none(str(path), path.read_bytes(), run.secrets)


def test_no_command_line_has_a_secret(run: Run) -> None:
    """No secret is on a command line of the gateway or its children, which everybody on the machine can read."""
    lines = command_lines(run.gateway)
    assert len(lines) >= 3
    for line in lines:
        assert_none("a command line", line, run.secrets)


def test_no_file_has_a_secret(run: Run) -> None:
    """No secret is in the database, nor in the files that SQLite writes beside it. Stored keys are hashed."""
    databases = list(run.folder.rglob("antiphon.db*"))
    assert {path.name for path in databases} >= {"antiphon.db", "antiphon.db-wal"}
    for path in databases:
        assert_none(str(path), path.read_bytes(), run.secrets)


def antiphon(folder: Path, *arguments: str, **environment: str) -> str:
    """Run a command, and return all that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "antiphon", *arguments, "--config", str(folder / "antiphon.yaml")],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "COLUMNS": "300", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output = ""
    with process:
        for line in process.stdout:
            output += line
            if "waiting for the database" in line:  # `up` waits for ever
                process.terminate()
    return output


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_no_command_prints_a_secret(tmp_path: Path, wrong: bool) -> None:
    """Commands print no secret, with an unreachable database and with an invalid setting."""
    port = free_port()
    query = quote(GEMINI_QUERY, safe="")
    config = {
        "database": {"url": f"postgresql://user:{POSTGRES}@127.0.0.1:{port}/name", "timeout": 1},
        "providers": {
            "odd": {
                "base_url": f"http://127.0.0.1:9/v1?key={query}",
                "api_key_env": "TEST_PROVIDER_KEY",
                "headers": {"x-other": f"{OTHER_PROVIDER}\n" if wrong else OTHER_PROVIDER},
                "query": {"code": GEMINI_HEADER},
                "models": ["m"],
            }
        },
        "auth": {"keys": [{"name": "static", "key_env": "TEST_KEY"}]},
        "limits": {"redis_url": f"redis://:{REDIS}@127.0.0.1:{port}/0"},
    }
    (tmp_path / "antiphon.yaml").write_text(json.dumps(config))
    for arguments in (["check-config"], ["check-config", "--json"], ["migrate"], ["up"]):
        output = antiphon(tmp_path, *arguments, TEST_KEY=STATIC, TEST_PROVIDER_KEY=PROVIDER)
        assert output
        assert ("x-other" in output) is wrong
        secrets = [STATIC, PROVIDER, OTHER_PROVIDER, GEMINI_HEADER, GEMINI_QUERY, POSTGRES, REDIS]
        assert_none(f"what {arguments} says", output, secrets)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"providers": {"p": {"base_url": f"http://user:{POSTGRES}/x@host/v1", "models": ["m"]}}},
        {"providers": {"p": {"base_url": f"http://user:{POSTGRES}@host/v1", "models": ["m"]}}},
        {"providers": {"p": {"api_key": STATIC}}},
        {"providers": {"p": {"base_url": "http://host/v1", "api_key_env": STATIC, "models": ["m"]}}},
        {"providers": {"p": {"headers": STATIC}}},
        {"clients": {"c": {"url": f"http://user:{POSTGRES}/x@host/v1"}}},
        {"clients": {"c": {"url": f"http://user:{POSTGRES}@host/v1"}}},
        {"auth": {"keys": [{"name": "n", "key": STATIC}]}},
        {"auth": {"keys": [{"name": "n", "key_env": STATIC}]}},
        {"auth": {"keys": STATIC}},
        {"auth": {"tokens": [{"name": "n", "issuer": f"https://user:{POSTGRES}@host", "audience": "a"}]}},
        {"auth": {"tokens": [{"name": "n", "issuer": ISSUER, "audience": "a", "secret_env": STATIC}]}},
        {"auth": {"tokens": [{"name": "n", "issuer": ISSUER, "audience": "a", "jwks_url": f"https://user:{POSTGRES}/x@host"}]}},
        {"proxy": {"allow": [f"https://user:{POSTGRES}@host"]}},
        {"proxy": {"aliases": {"a": f"https://user:{POSTGRES}@host"}}},
        {"database": {"url": f"postgresql://user:{POSTGRES}/x@host:y/name"}},
        {"database": {"url": f"{POSTGRES}"}},
        {"database": POSTGRES},
        {"limits": {"redis_url": f"redis://:{POSTGRES}/x@host:6379/0"}},
        {"limits": {"redis_url": POSTGRES}},
        {"limits": {"redis_url_env": STATIC}},
    ],
    ids=lambda config: next(iter(config)),
)
def test_a_mistake_is_reported_without_its_secret(tmp_path: Path, config: dict[str, Any]) -> None:
    """An error in the configuration is reported without a password in a URL, or a key given as a variable's name."""
    (tmp_path / "antiphon.yaml").write_text(json.dumps(config))
    output = antiphon(tmp_path, "check-config")
    assert f"antiphon.yaml: {next(iter(config))}" in output
    assert_none("what check-config says", output, [STATIC, POSTGRES])
