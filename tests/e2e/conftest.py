"""A real gateway: `antiphon up`, its Envoy and its workers, in front of upstreams that others wrote and one of odd manners.

All tests here share one event loop, as the upstream lives in it.
"""

import asyncio
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import grpc
import httpx2
import openai
import pytest
import pytest_asyncio
import yaml
from llmock.testing import LLMockServer

from tests.odd_upstream import OddUpstream
from tests.ports import free_port
from tests.waiting import block_until

KEY = "sk-test-e2e-key"
PROVIDER_KEY = "sk-provider-secret"
READY = "Antiphon is up."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One loop for all asynchronous tests of this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


class Gateway:
    """One `antiphon up`."""

    group: int | None = None
    """0: it has a process group of its own."""

    session = False
    """True: it has a session of its own, and so no terminal, as a daemon."""

    running: ClassVar[set[Self]] = set()
    """Those that were started, and not yet stopped by `stop`."""

    def __init__(self, folder: Path, config: dict[str, Any], **environment: str) -> None:
        self.grpc = f"127.0.0.1:{free_port()}"
        self.rest = f"127.0.0.1:{free_port()}"
        self.output = folder / "output.txt"
        self.path = path = folder / "antiphon.yaml"
        self.configure(config)
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "antiphon", "up", "--config", str(path)],
                cwd=folder,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(folder),
                    "TEST_KEY": KEY,
                    "TEST_PROVIDER_KEY": PROVIDER_KEY,
                    **environment,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=self.group,
                start_new_session=self.session,
            )
        self.url = f"http://{self.rest}/api/v1"
        self.running.add(self)

    def configure(self, config: dict[str, Any]) -> None:
        """Write the configuration file, whole at once."""
        addresses = {"grpc": {"listen": self.grpc}, "rest": {"listen": self.rest}}
        new = self.path.with_suffix(".new")
        new.write_text(yaml.safe_dump({**addresses, **config}))
        new.replace(self.path)

    @property
    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str, count: int = 1) -> None:
        """Until the gateway has printed it so often."""
        try:
            block_until(lambda: self.said.count(text) >= count or self.process.poll() is not None)
        except TimeoutError:
            pytest.fail(f"said {text!r} {self.said.count(text)} times: {self.said}")
        assert self.said.count(text) >= count, f"ended with {self.process.returncode}: {self.said}"

    def stop(self) -> int:
        """Tells it to stop, and returns its exit code."""
        self.running.discard(self)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def client(self, **options: Any) -> httpx2.AsyncClient:
        """A plain HTTP client with a good key."""
        headers = {"authorization": f"Bearer {KEY}"} | options.pop("headers", {})
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=20, trust_env=False, **options)

    def sdk(self, **options: Any) -> openai.AsyncOpenAI:
        """The OpenAI SDK: nothing but base URL and key."""
        return openai.AsyncOpenAI(**{"base_url": self.url, "api_key": KEY, "max_retries": 0, "timeout": 20, **options})


def configuration(upstream: OddUpstream, llm: LLMockServer, **more: Any) -> dict[str, Any]:
    """Two providers: `odd` for every model that begins with "odd-", and llmock."""
    return {
        "models": {"default": "gpt-4o-mini"},
        "providers": {
            "odd": {"base_url": upstream.base_url, "api_key_env": "TEST_PROVIDER_KEY", "models": ["odd-*"], "read_timeout": 5},
            "llmock": {"base_url": llm.base_url("openai"), "api_key_env": "TEST_PROVIDER_KEY", "models": ["gpt-4o", "gpt-4o-mini"]},
            "nowhere": {"base_url": f"http://127.0.0.1:{free_port()}/v1", "models": ["lost"]},
            "echo": {"protocol": "echo", "models": ["echo"]},
        },
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
        "log": {"level": "debug"},
        **more,
    }


@pytest.fixture(scope="session")
def llm() -> Iterator[LLMockServer]:
    with LLMockServer() as server:
        yield server


@pytest.fixture(autouse=True)
def no_gateway_stays() -> Iterator[None]:
    """A test that fails leaves none of its own behind for those that follow."""
    before = set(Gateway.running)
    yield
    for gateway in Gateway.running - before:
        gateway.process.kill()
        gateway.stop()


@pytest.fixture(autouse=True)
def clean_llm(llm: LLMockServer) -> None:
    """No scenario of another test."""
    llm.state.scenarios.clear()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def upstream() -> AsyncGenerator[OddUpstream, None]:
    async with OddUpstream() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    started = Gateway(tmp_path_factory.mktemp("gateway"), configuration(upstream, llm))
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert KEY not in started.said
    assert PROVIDER_KEY not in started.said
    assert "call_failed" not in started.said, "the server met an exception that it does not know"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def persona_gateway(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """Two callers, a persona of its own, automatic sessions; `echo` is the default model."""
    more = {
        "models": {"default": "echo"},
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}, {"name": "other", "key_env": "OTHER_KEY"}]},
        "personas": {"odd": {"system": "You are odd.", "model": "odd-persona", "temperature": 0.5}},
        "sessions": {"automatic": True},
    }
    config = {**configuration(upstream, llm), **more}
    started = Gateway(tmp_path_factory.mktemp("personas"), config, OTHER_KEY="sk-other")
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.said, "the server met an exception that it does not know"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def source() -> AsyncGenerator[OddUpstream, None]:
    """What the URLs of clients' contexts lead to."""
    async with OddUpstream() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def admin_gateway(
    upstream: OddUpstream, source: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """The key is an admin's; clients have contexts; the provider `odd` may be asked with its own key alone."""
    folder = tmp_path_factory.mktemp("admin")
    (folder / "filed.txt").write_text("Filed sells files.")
    url = source.base_url.removesuffix("/v1") + "/context"
    more = {
        "auth": {"keys": [{"name": "boss", "key_env": "TEST_KEY", "admin": True}]},
        "clients": {
            "acme-retail": {"context": "Acme sells hats."},
            "filed": {"file": str(folder / "filed.txt")},
            "asked": {"url": url, "api_key_env": "TEST_PROVIDER_KEY", "ttl": 300},
            "lost": {"url": f"{url}/lost", "ttl": 0, "timeout": 1},
        },
        "engine": {"own_key_providers": ["odd"]},
        "prices": {"odd-priced": {"input": 1, "output": 10, "cached_input": 0.5}},
    }
    started = Gateway(folder, {**configuration(upstream, llm), **more})
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert KEY not in started.said
    assert PROVIDER_KEY not in started.said
    assert "call_failed" not in started.said, "the server met an exception that it does not know"


@pytest_asyncio.fixture(loop_scope="session")
async def admin(admin_gateway: Gateway) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A plain HTTP client with an admin's key."""
    async with admin_gateway.client() as made:
        yield made


@pytest_asyncio.fixture(params=["direct", "envoy"], loop_scope="session")
async def channel(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncGenerator[grpc.aio.Channel, None]:
    """GRPC straight to the server, and through Envoy."""
    address = gateway.grpc if request.param == "direct" else gateway.rest
    async with grpc.aio.insecure_channel(address) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def sdk(gateway: Gateway) -> AsyncGenerator[openai.AsyncOpenAI, None]:
    """The OpenAI SDK with a good key."""
    async with gateway.sdk() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def http(gateway: Gateway) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A plain HTTP client with a good key."""
    async with gateway.client() as made:
        yield made
