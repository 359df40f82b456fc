"""Tests, over real sockets, of what answers may look like, and of how much of one is kept."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import pytest
from yarl import URL

from antiphon.config import ProviderConfig, TimeoutsConfig
from antiphon.domain.errors import ProviderProtocolError
from antiphon.net.http import HttpResponse, Transport
from tests.odd_upstream import CUT, HANG, LAST, RESET, OddUpstream, Pause, Step, answer, chunk, head

OK = answer(b"ok")
LONG = b"a" * 400_000


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(stall=20)))
    yield made
    await made.close()


def post(transport: Transport, upstream: OddUpstream, steps: Sequence[Step]) -> Coroutine[Any, Any, HttpResponse]:
    upstream.default = steps
    return transport.post(URL(upstream.base_url), {}, b'{"model": "any"}')


async def ask(transport: Transport, upstream: OddUpstream, steps: Sequence[Step] = (OK,)) -> bytes:
    with await post(transport, upstream, steps) as reply:
        return await reply.read()


@pytest.mark.parametrize(
    "steps",
    [
        [b"HTTP/1.1 200 " + LONG],
        [b"HTTP/1.1 200 OK\r\n" + LONG],
        [b"HTTP/1.1 200 OK\r\nx: " + LONG],
        [b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 257 + b"content-length: 0\r\n\r\n"],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20_000],
        [head(), chunk(b"a"), Pause(0.01), b"1;" + LONG],
        [head(), chunk(b"a"), Pause(0.01), b"0\r\nx: " + LONG],
        [head(), chunk(b"a"), Pause(0.01), b"0\r\n" + b"x: y\r\n" * 257],
    ],
    ids=["status", "name", "value", "headers", "interim", "extension", "trailer", "trailers"],
)
async def test_what_is_no_body_has_a_limit(upstream: OddUpstream, transport: Transport, steps: list[Step]) -> None:
    """A head, interim answers, extensions of chunks or trailers without an end fail, though the host goes on."""
    async with asyncio.timeout(5):
        with pytest.raises(ProviderProtocolError):
            await ask(transport, upstream, [*steps, HANG])


async def test_a_large_head(upstream: OddUpstream, transport: Transport) -> None:
    """A head may have a hundred kilobytes, and two hundred headers."""
    lines = [*(f"x-{number}: y" for number in range(200)), f"x-long: {'z' * 100_000}"]
    with await post(transport, upstream, [answer(b"ok", "200 OK", "a/b", *lines)]) as reply:
        assert (reply.headers["x-199"], len(reply.headers["x-long"]), await reply.read()) == ("y", 100_000, b"ok")


@pytest.mark.parametrize("size", [1, 7])
async def test_an_answer_in_pieces(upstream: OddUpstream, transport: Transport, size: int) -> None:
    """An answer that arrives in the smallest pieces is the same one, and trailers are dropped."""
    whole = (
        b"HTTP/1.1 102 X\r\na: b\r\n\r\n" + head("200 OK", "a/b", "x-a: 1") + chunk(b"abc") + chunk(b"d") + b"0\r\nx-b: 2\r\n\r\n"
    )
    steps = [step for at in range(0, len(whole), size) for step in (whole[at : at + size], Pause(0))]
    for _ in range(2):
        with await post(transport, upstream, steps) as reply:
            assert await reply.read() == b"abcd"
            assert dict(reply.headers) == {"content-type": "a/b", "transfer-encoding": "chunked", "x-a": "1"}
    assert upstream.connections == 1


async def test_a_body_that_ends_with_its_connection(upstream: OddUpstream, transport: Transport) -> None:
    """A body without a length or chunks ends when the host closes the connection, but not when it resets it."""
    for more in (b"", b"transfer-encoding: x\r\n"):
        steps: list[Step] = [b"HTTP/1.1 200 OK\r\n" + more + b"\r\nab", Pause(0.01), b"c", CUT]
        assert await ask(transport, upstream, steps) == b"abc"
        with pytest.raises(ProviderProtocolError):
            await ask(transport, upstream, [*steps[:-1], RESET])
    assert upstream.connections == 4


async def test_what_arrived_before_a_failure_is_read(upstream: OddUpstream, transport: Transport) -> None:
    """The bytes before a failure come first, even if they arrived together, and then the failure."""
    async with asyncio.timeout(5):
        for end in (b"zz\r\n", CUT):
            with (
                pytest.raises(ProviderProtocolError),
                await post(transport, upstream, [head() + chunk(b"ab") + (end if isinstance(end, bytes) else b""), end]) as reply,
            ):
                await asyncio.sleep(0.05)
                assert await anext(reply) == b"ab"
                await anext(reply)


@pytest.mark.parametrize("surplus", [b"H", b"HTTP/1.1 200 OK\r\n", OK, b"x"])
@pytest.mark.parametrize("more", [(), ("connection: close",)])
async def test_what_follows_an_answer_at_once_costs_the_connection(
    upstream: OddUpstream, transport: Transport, surplus: bytes, more: tuple[str, ...]
) -> None:
    """The answer is good, but its connection is not used again if more bytes arrived with its end."""
    assert await ask(transport, upstream, [answer(b"a", "200 OK", "a/b", *more) + surplus]) == b"a"
    assert await ask(transport, upstream) == b"ok"
    assert upstream.connections == 2


async def test_switching_protocols_costs_the_connection(upstream: OddUpstream, transport: Transport) -> None:
    """An answer with status 101, which was not asked for, is an answer without a body."""
    for lines in (b"", b"upgrade: x\r\nconnection: upgrade\r\n"):
        with await post(transport, upstream, [b"HTTP/1.1 101 X\r\n" + lines + b"\r\nabc"]) as reply:
            assert (reply.status, await reply.read()) == (101, b"")
    assert upstream.connections == 2


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH\r\n", OK])
async def test_a_host_that_speaks_first(greeting: bytes) -> None:
    """What a host sends before it was asked is not taken for an answer, and does not make the call wait."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await left.wait()
        writer.close()

    left = asyncio.Event()
    transport = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(stall=20)))
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    async with asyncio.timeout(5):
        with contextlib.suppress(ProviderProtocolError), await transport.post(url, {}, b"") as reply:
            assert await reply.read() == b"ok", "it came later than the request was sent"
    left.set()
    await transport.close()
    server.close()


@pytest.mark.parametrize("body", [b"abc", b"x" * 3_000_000])
async def test_a_slow_reader_is_no_slow_host(upstream: OddUpstream, body: bytes) -> None:
    """No read time-out passes while bytes wait for their reader, of which a bounded number is kept; then it begins anew."""
    transport = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(stall=1)))
    with await post(transport, upstream, [head(), chunk(body), Pause(2.2), chunk(b"end"), LAST]) as reply:
        await asyncio.sleep(1.5)
        assert 0 < transport.buffered < 600_000
        pieces = [await anext(reply)]
        await asyncio.sleep(1)  # by then a short body has ended
        pieces += [piece async for piece in reply]
        assert b"".join(pieces) == body + b"end"
    await transport.close()


async def test_a_cancelled_call_leaves_the_connection_to_the_next_one(upstream: OddUpstream, transport: Transport) -> None:
    """A call that is cancelled when its answer has arrived does not drop the connection, which another call may have taken."""
    upstream.default = [OK]
    first = asyncio.create_task(ask(transport, upstream))
    client = transport._client
    while not (client._destinations and next(iter(client._destinations.values())).idle):
        assert not first.done()
        await asyncio.sleep(0)
    assert client._pool is not None
    taken = client._pool.take(next(iter(client._destinations.values())))
    assert taken is not None
    response = taken.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", None)
    assert not first.done(), "its answer has arrived, and it has not run since"
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await response.arrival
    assert (response.error, response.status) == (None, 200)
    assert upstream.connections == 1
