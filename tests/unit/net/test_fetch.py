"""Tests of fetching documents by GET, over real sockets."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx2
import pytest

from antiphon.net.fetch import Fetcher, FetchFailed, is_loopback
from tests.odd_upstream import CUT, HANG, RESET, OddUpstream, Step, answer, chunk, head


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    made = Fetcher()
    yield made
    await made.close()


async def get(fetcher: Fetcher, upstream: OddUpstream, *steps: Step, limit: int = 1000) -> bytes:
    upstream.default = steps
    return await fetcher.get(httpx2.URL(f"{upstream.base_url}/x?a=%2F+b"), {"x-key": "ü"}, limit)


async def test_what_is_sent(upstream: OddUpstream, fetcher: Fetcher) -> None:
    """A request has the URL as written, the caller's headers and `host`; cookies are not kept."""
    for _ in range(2):
        assert await get(fetcher, upstream, answer(b"hats", "200 OK", "text/plain", "set-cookie: a=b")) == b"hats"
    for request in upstream.requests:
        assert request.path == "/v1/x?a=%2F+b"
        sent = {name: value.encode("latin-1").decode() for name, value in request.headers.items()}
        assert sent == {"host": upstream.base_url.split("/")[2], "x-key": "ü"}


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([answer(b"no", "500 Internal Server Error")], "status 500"),
        ([answer(b"", "302 Found", "text/plain", "location: /v1/y")], "status 302"),
        ([answer(b"x" * 1001)], "more than 1000 bytes"),
        ([answer(gzip.compress(bytes(100_000_000)), "200 OK", "a/b", "content-encoding: gzip")], "more than 1000 bytes"),
        ([answer(gzip.compress(b"hats")[:-1], "200 OK", "a/b", "content-encoding: gzip")], "cut off"),
        ([answer(b"hats", "200 OK", "a/b", "content-encoding: gzip")], "error"),
        ([answer(b"hats")[:-1], CUT], "cut off"),
        ([head(), chunk(b"hats"), CUT], "cut off"),
        ([b"SSH-2.0-x\r\n\r\n", CUT], "not HTTP"),
        ([CUT], "cut off"),
        ([RESET], "cut off"),
    ],
)
async def test_a_failed_fetch_has_its_reason(upstream: OddUpstream, fetcher: Fetcher, steps: list[Step], why: str) -> None:
    """An error status, a redirect, a large, cut or invalid answer raises `FetchFailed` with the reason and without the address.

    The request is sent once.
    """
    with pytest.raises(FetchFailed, match=why) as raised:
        await get(fetcher, upstream, *steps)
    assert "127.0.0.1" not in str(raised.value)
    assert len(upstream.requests) == 1


async def test_nobody_listens(fetcher: Fetcher, unused_tcp_port: int) -> None:
    """A closed port and an unknown name raise `FetchFailed` as out of reach."""
    for url in (f"http://127.0.0.1:{unused_tcp_port}/", "http://name.invalid/"):
        with pytest.raises(FetchFailed, match="out of reach"):
            await fetcher.get(httpx2.URL(url), {}, 1000)


async def test_an_encoded_document_is_decoded(upstream: OddUpstream, fetcher: Fetcher) -> None:
    """An encoded document is decoded, although no encoding was asked for."""
    assert await get(fetcher, upstream, answer(gzip.compress(b"hats"), "200 OK", "a/b", "content-encoding: gzip")) == b"hats"


async def test_a_time_out_of_the_caller_drops_the_connection(upstream: OddUpstream, fetcher: Fetcher) -> None:
    """If the caller times out, the connection is dropped and no task is left."""
    tasks = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await get(fetcher, upstream, head(), chunk(b"a"), HANG)
    await asyncio.wait_for(upstream.left.get(), 5)
    assert asyncio.all_tasks() <= tasks


async def test_proxies_of_the_environment_are_not_used(
    upstream: OddUpstream, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies of the environment are not used, because they would see the tokens."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await get(fetcher, upstream, answer(b"hats")) == b"hats"


async def test_sending(upstream: OddUpstream, fetcher: Fetcher) -> None:
    """A POST has its body and length, and any status is an answer, whose headers are found in any case."""
    upstream.default = [answer(b"no", "429 Too Many Requests", "text/plain", "Retry-After: 7")]
    found = await fetcher.send("POST", httpx2.URL(f"{upstream.base_url}/x"), {"content-type": "a/b"}, b"hats", 10)
    assert (found.status, found.headers["retry-after"], found.body) == (429, "7", b"no")
    (sent,) = upstream.requests
    assert (sent.body, sent.headers["content-length"], sent.headers["content-type"]) == (b"hats", "4", "a/b")
    assert set(sent.headers) == {"host", "content-length", "content-type"}
    with pytest.raises(FetchFailed, match="^more than 1 bytes$"):
        await fetcher.send("POST", httpx2.URL(f"{upstream.base_url}/x"), {}, b"", 1)


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("127.0.0.1.example.com", False), ("10.0.0.1", False), ("", False)],
)
def test_the_hosts_that_are_this_one(host: str, *, is_here: bool) -> None:
    """Loopback addresses and "localhost" are this host, and no other name is."""
    assert is_loopback(host) is is_here
