"""A real gateway for the tests: `antiphon up` with Envoy and workers, in front of third-party test upstreams and `OddUpstream`.

All tests here share one event loop, because the upstream runs in it.
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
    """Run all asynchronous tests of this folder in one event loop."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


class Gateway:
    """One process of `antiphon up`."""

    group: int | None = None
    """The process group; 0 gives the process a group of its own."""

    session = False
    """True if the process has a session of its own, and so no terminal, like a daemon."""

    running: ClassVar[set[Self]] = set()
    """The gateways that were started and not stopped yet."""

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
        """Write the configuration file in one step."""
        addresses = {"grpc": {"listen": self.grpc}, "rest": {"listen": self.rest}}
        new = self.path.with_suffix(".new")
        new.write_text(yaml.safe_dump({**addresses, **config}))
        new.replace(self.path)

    @property
    def output_text(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until the gateway has printed `text` `count` times."""
        try:
            block_until(lambda: self.output_text.count(text) >= count or self.process.poll() is not None)
        except TimeoutError:
            pytest.fail(f"printed {text!r} {self.output_text.count(text)} times: {self.output_text}")
        assert self.output_text.count(text) >= count, f"ended with {self.process.returncode}: {self.output_text}"

    def stop(self) -> int:
        """Stop the gateway by SIGTERM, and return its exit code."""
        self.running.discard(self)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def client(self, **options: Any) -> httpx2.AsyncClient:
        """Return a plain HTTP client with a valid key."""
        headers = {"authorization": f"Bearer {KEY}"} | options.pop("headers", {})
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=20, trust_env=False, **options)

    def sdk(self, **options: Any) -> openai.AsyncOpenAI:
        """Return the OpenAI SDK, configured with only a base URL and a key."""
        return openai.AsyncOpenAI(**{"base_url": self.url, "api_key": KEY, "max_retries": 0, "timeout": 20, **options})


def configuration(upstream: OddUpstream, llm: LLMockServer, **more: Any) -> dict[str, Any]:
    """Return a configuration with the providers `odd`, for all models that begin with "odd-", llmock, `nowhere` and `echo`."""
    return {
        "models": {"default": "gpt-4o-mini"},
        "providers": {
            "odd": {
                "base_url": upstream.base_url,
                "api_key_env": "TEST_PROVIDER_KEY",
                "models": ["odd-*"],
                "timeouts": {"stall": 5},
            },
            "llmock": {"base_url": llm.base_url("openai"), "api_key_env": "TEST_PROVIDER_KEY", "models": ["gpt-4o", "gpt-4o-mini"]},
            "nowhere": {"base_url": f"http://127.0.0.1:{free_port()}/v1", "models": ["lost"]},
            "echo": {"protocol": "echo", "models": ["echo"]},
        },
        # Tests script failures, and each is about one of them: nothing is tried again, or left alone, except in tests of routing.
        "routing": {"attempts": 1, "breaker": {"consecutive": 1_000_000, "of": 1_000_000}},
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
        "log": {"level": "debug"},
        **more,
    }


@pytest.fixture(scope="session")
def llm() -> Iterator[LLMockServer]:
    with LLMockServer() as server:
        yield server


@pytest.fixture(autouse=True)
def kill_leftover_gateways() -> Iterator[None]:
    """Kill the gateways that a failed test has left running."""
    before = set(Gateway.running)
    yield
    for gateway in Gateway.running - before:
        gateway.process.kill()
        gateway.stop()


@pytest.fixture(autouse=True)
def reset_llm(llm: LLMockServer) -> None:
    """Remove the scenarios of other tests from llmock."""
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
    assert KEY not in started.output_text
    assert PROVIDER_KEY not in started.output_text
    assert "call_failed" not in started.output_text, "the server had an unexpected exception"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def persona_gateway(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway with two keys, a persona and automatic sessions. Its default model is `echo`."""
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
    assert "call_failed" not in started.output_text, "the server had an unexpected exception"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def source() -> AsyncGenerator[OddUpstream, None]:
    """Yield the upstream to which the URLs of client contexts point."""
    async with OddUpstream() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def admin_gateway(
    upstream: OddUpstream, source: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway whose key is an admin's, with client contexts, and with `odd` as a provider for callers' own keys."""
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
    assert KEY not in started.output_text
    assert PROVIDER_KEY not in started.output_text
    assert "call_failed" not in started.output_text, "the server had an unexpected exception"


@pytest_asyncio.fixture(loop_scope="session")
async def admin(admin_gateway: Gateway) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """Yield a plain HTTP client with an admin key."""
    async with admin_gateway.client() as made:
        yield made


@pytest_asyncio.fixture(params=["direct", "envoy"], loop_scope="session")
async def channel(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncGenerator[grpc.aio.Channel, None]:
    """Yield a gRPC channel: once directly to the server, once through Envoy."""
    address = gateway.grpc if request.param == "direct" else gateway.rest
    async with grpc.aio.insecure_channel(address) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def sdk(gateway: Gateway) -> AsyncGenerator[openai.AsyncOpenAI, None]:
    """Yield the OpenAI SDK with a valid key."""
    async with gateway.sdk() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def http(gateway: Gateway) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """Yield a plain HTTP client with a valid key."""
    async with gateway.client() as made:
        yield made
