"""Tests of the text that begins a client's conversations (client context)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from antiphon.chat.client_context import Contexts
from antiphon.config import ClientConfig, ConfigError
from antiphon.domain.errors import ContextUnavailable
from tests.odd_upstream import CUT, HANG, OddUpstream, answer
from tests.waiting import until

CLIENT = "acme"


@asynccontextmanager
async def contexts(**config: Any) -> AsyncGenerator[Contexts, None]:
    made = Contexts({CLIENT: ClientConfig(**config)}, {"TOKEN": "secret-token"})
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def source(*steps: Any) -> AsyncGenerator[tuple[OddUpstream, str], None]:
    """Run a server that answers with `steps`. Yield it and the URL of a text on it."""
    async with OddUpstream() as server:
        server.default = steps
        yield server, f"{server.base_url}/context?of=acme"


def text(body: str) -> bytes:
    return answer(body.encode(), content_type="text/plain")


async def test_a_text_is_itself_and_a_client_without_one_has_none() -> None:
    """A context that is configured as text is returned as it is, and an unknown client gets an empty text."""
    async with contexts(context="Acme sells hats.") as made:
        assert await made.of(CLIENT) == "Acme sells hats."
        assert await made.of("somebody") == ""


async def test_a_file_is_read_again_after_its_time(tmp_path: Path) -> None:
    """A file is read again after its TTL and not before. A byte order mark and surrounding white space are removed."""
    path = tmp_path / "acme.txt"
    path.write_text("\ufeffhats 🎩\n")
    async with contexts(file=path) as kept, contexts(file=path, ttl=0) as fresh:
        assert (await kept.of(CLIENT), await fresh.of(CLIENT)) == ("hats 🎩", "hats 🎩")
        path.write_text("caps")
        assert (await kept.of(CLIENT), await fresh.of(CLIENT)) == ("hats 🎩", "caps")
        path.unlink()
        assert await fresh.of(CLIENT) == "caps"


async def test_a_url_is_requested_once_within_its_ttl() -> None:
    """A URL is requested once, with the configured headers and token, for concurrent calls and for calls within the TTL."""
    async with source(text("hats")) as (server, url), contexts(url=url, headers={"X-Team": "a"}, api_key_env="TOKEN") as made:
        assert await asyncio.gather(*(made.of(CLIENT) for _ in range(20))) == ["hats"] * 20
        assert await made.of(CLIENT) == "hats"
        (request,) = server.requests
    assert request.path == "/v1/context?of=acme"
    assert request.headers["authorization"] == "Bearer secret-token"
    assert request.headers["x-team"] == "a"


async def test_a_cancelled_caller_does_not_end_the_read_for_others() -> None:
    """If the first of two waiting callers is cancelled, the second still gets the text from the same request."""
    gate = asyncio.Event()
    async with source(gate, text("hats")) as (server, url), contexts(url=url) as made:
        first = asyncio.create_task(made.of(CLIENT))
        await until(lambda: server.requests)
        second = asyncio.create_task(made.of(CLIENT))
        await asyncio.sleep(0)
        first.cancel()
        gate.set()
        assert await second == "hats"
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "failure",
    [
        (answer(b"no", "500 Internal Server Error"),),
        (answer(b"", "302 Found", "text/plain", "location: http://127.0.0.1:1/"),),
        (answer(b"x" * 101),),
        (answer(b"a\0b"),),
        (answer(b"\xff"),),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhat", CUT),
        (CUT,),
        (HANG,),
    ],
)
async def test_the_previous_text_of_a_failing_source_is_used(failure: Any) -> None:
    """If a source fails, its previous text is used and a line is logged.

    Without a previous text the call raises a retryable `ContextUnavailable`.
    """
    async with source(*failure) as (server, url):
        async with contexts(url=url, timeout=0.2, max_bytes=100) as never:
            with pytest.raises(ContextUnavailable) as caught:
                await never.of(CLIENT)
            assert caught.value.retryable
        server.default = [text("hats")]
        async with contexts(url=url, ttl=0, timeout=0.2, max_bytes=100) as made:
            assert await made.of(CLIENT) == "hats"
            server.default = failure
            with capture_logs() as logs:
                assert await made.of(CLIENT) == "hats"
                requests_before = len(server.requests)
                assert await made.of(CLIENT) == "hats"
            assert len(server.requests) == requests_before, "it is left in peace for a moment"
    (entry,) = logs
    assert (entry["client"], entry["older_one_used"]) == (CLIENT, True)
    assert "127.0.0.1" not in str(entry), "an address may hold a secret"


async def test_an_older_text_is_not_used_for_ever() -> None:
    """A text older than `ttl` and `stale` together is not used any more."""
    async with source(text("hats")) as (server, url), contexts(url=url, ttl=0, stale=0, timeout=1) as made:
        assert await made.of(CLIENT) == "hats"
        server.default = [CUT]
        with pytest.raises(ContextUnavailable):
            await made.of(CLIENT)


async def test_stale_holds_even_if_the_source_is_not_asked_again_yet() -> None:
    """A text is not used longer than `stale` allows, even if its source would not be asked again yet."""
    now = 0.0
    async with source(text("hats")) as (server, url):
        made = Contexts({CLIENT: ClientConfig(url=url, ttl=100, stale=3, timeout=30)}, {}, lambda: now)
        assert await made.of(CLIENT) == "hats"
        server.default = [CUT]
        now = 101.0
        assert await made.of(CLIENT) == "hats"
        now = 104.0
        with pytest.raises(ContextUnavailable):
            await made.of(CLIENT)
        await made.close()


async def test_a_source_that_is_out_of_reach_is_asked_again_by_the_next_call(unused_tcp_port: int) -> None:
    """A source without a previous text is asked again by the next call, without a pause between the attempts."""
    async with contexts(url=f"http://127.0.0.1:{unused_tcp_port}/", timeout=1) as made:
        for _ in range(2):
            with pytest.raises(ContextUnavailable):
                await made.of(CLIENT)


async def test_closing_ends_a_reading() -> None:
    """Closing cancels a read in progress."""
    async with source(HANG) as (server, url):
        async with contexts(url=url) as made:
            reading = asyncio.create_task(made.of(CLIENT))
            await until(lambda: server.requests)
        with pytest.raises(asyncio.CancelledError):
            await reading


@pytest.mark.parametrize(
    "config",
    [
        {"file": Path("/nowhere/acme.txt")},
        {"url": "ftp://x.test/"},
        {"url": "https://"},
        {"url": "https://a:b@x.test/"},
        {"url": "https://x.test/", "api_key_env": "NO_SUCH"},
    ],
)
def test_impossible_settings_are_refused_at_start(config: dict[str, Any]) -> None:
    """A missing file, an invalid URL and an unset token variable are a `ConfigError` at the start."""
    with pytest.raises(ConfigError):
        Contexts({CLIENT: ClientConfig(**config)}, {})


@pytest.mark.parametrize("config", [{}, {"context": "a", "url": "https://x.test"}])
def test_a_client_has_one_source(config: dict[str, Any]) -> None:
    """A client must have exactly one of `context`, `file` and `url`."""
    with pytest.raises(ValueError, match="one of context, file and url"):
        ClientConfig(**config)
