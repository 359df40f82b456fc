"""Tests of POSTs over real sockets: what is sent, what goes wrong, and when connections are released."""

import asyncio
import contextlib
import gzip
import socket
import time
import zlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, cast

import pytest
from yarl import URL

from antiphon.config import ProviderConfig, TimeoutsConfig
from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from antiphon.net.http import HttpResponse, Transport
from tests.odd_upstream import CUT, HANG, LAST, RESET, OddUpstream, Pause, Step, answer, chunk, head


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(connect=5, stall=5)))
    yield made
    await made.close()


def post(transport: Transport, upstream: OddUpstream, steps: Sequence[Step], **headers: str) -> Coroutine[Any, Any, HttpResponse]:
    upstream.default = steps
    return transport.post(URL(upstream.base_url + "/x?a=1"), headers, b'{"model": "any"}')


async def test_what_is_sent(upstream: OddUpstream, transport: Transport) -> None:
    """A request has the body, the caller's headers and only the headers that HTTP needs."""
    with await post(transport, upstream, [answer(b"ok", "200 OK", "text/plain", "x-a: b")], **{"x-key": "ü"}) as reply:
        assert (reply.status, reply.headers["X-A"], await reply.read()) == (200, "b", b"ok")
    (request,) = upstream.requests
    assert request.path == "/v1/x?a=1"
    assert request.body == b'{"model": "any"}'
    host = upstream.base_url.split("/")[2]
    sent = {name: value.encode("latin-1").decode() for name, value in request.headers.items()}
    assert sent == {"host": host, "content-length": "16", "x-key": "ü"}


async def test_large_bodies(upstream: OddUpstream, transport: Transport) -> None:
    """A large body arrives completely, with its length in the header."""
    upstream.default = [answer(b"ok")]
    for size in (2**20 - 1, 2**20, 30_000_000):
        with await transport.post(URL(upstream.base_url), {}, b"x" * size) as reply:
            assert await reply.read() == b"ok"
        sent = upstream.requests.pop()
        assert (len(sent.body), sent.headers["content-length"], sent.headers.get("transfer-encoding")) == (size, str(size), None)


async def test_no_redirect_is_followed_and_no_cookie_kept(upstream: OddUpstream, transport: Transport) -> None:
    """A redirect is an answer like any other, and a cookie is not sent back."""
    for _ in range(2):
        steps: list[Step] = [answer(b"", "302 Found", "text/plain", f"location: {upstream.base_url}/y", "set-cookie: a=b")]
        with await post(transport, upstream, steps) as reply:
            assert reply.status == 302
    assert [request.path for request in upstream.requests] == ["/v1/x?a=1"] * 2
    assert not any("cookie" in request.headers for request in upstream.requests)


async def test_a_finished_reply_keeps_its_connection(upstream: OddUpstream, transport: Transport) -> None:
    """The connection of a reply that was read to its end is used again, even if the end of the body comes a little later."""
    ended = asyncio.Event()
    scripts: list[list[Step]] = [[head(), chunk(b"a"), LAST], [head(), chunk(b"a"), ended, LAST]]
    for steps in scripts:
        with await post(transport, upstream, steps) as reply:
            assert await anext(reply) == b"a"
    ended.set()
    while transport._draining._timers:
        await asyncio.sleep(0)
    with await post(transport, upstream, [answer(b"")]):
        pass
    assert upstream.connections == 1


async def test_the_end_of_a_body_keeps_nobody_waiting(upstream: OddUpstream, transport: Transport) -> None:
    """Leaving a finished reply whose body is still open does not wait and leaves no task.

    Closing the transport drops the connection.
    """
    turns: list[int] = []
    with await post(transport, upstream, [head(), chunk(b"a"), HANG]) as reply:
        assert await anext(reply) == b"a"
        tasks = asyncio.all_tasks()
        asyncio.get_running_loop().call_soon(turns.append, 1)
    assert not turns, "nothing was waited for"
    assert asyncio.all_tasks() <= tasks
    assert upstream.left.empty()
    await transport.close()
    await asyncio.wait_for(upstream.left.get(), 5)


@pytest.mark.parametrize("body", [b"zz\r\nabc\r\n", b"fffffffffffffffffff\r\nabc\r\n"], ids=["no number", "too large"])
@pytest.mark.parametrize("end", [CUT, HANG])
async def test_a_body_that_is_no_http(upstream: OddUpstream, transport: Transport, body: bytes, end: Step) -> None:
    """Invalid bytes in a body end the reply at once."""
    more = asyncio.Event()
    async with asyncio.timeout(2):
        with pytest.raises(ProviderProtocolError), await post(transport, upstream, [head(), more, body, end]) as reply:
            asyncio.get_running_loop().call_soon(more.set)
            await anext(reply)


async def test_a_body_without_end_is_not_waited_for(upstream: OddUpstream, transport: Transport) -> None:
    """If a host does not end the body of a finished reply, the connection is dropped within two seconds."""
    with await post(transport, upstream, [head(), chunk(b"a"), HANG]) as reply:
        assert await anext(reply) == b"a"
        left_at = time.monotonic()
    assert await asyncio.wait_for(upstream.left.get(), 5) - left_at < 2
    assert time.monotonic() - left_at < 2


async def test_an_error_inside_drops_the_connection_at_once(upstream: OddUpstream, transport: Transport) -> None:
    """Leaving a reply by an exception drops the connection at once, without waiting for the rest of the body."""
    with pytest.raises(KeyError), await post(transport, upstream, [head(), chunk(b"a"), HANG]) as reply:
        await anext(reply)
        raise KeyError
    await asyncio.wait_for(upstream.left.get(), 5)
    assert upstream.open_connections == 0


@pytest.mark.parametrize("steps", [[HANG], [head(), chunk(b"a"), HANG]], ids=["before the head", "in the body"])
async def test_cancelling_drops_the_connection_at_once(upstream: OddUpstream, transport: Transport, steps: list[Step]) -> None:
    """A cancelled call drops its connection, whatever it waits for, and leaves no task."""

    async def call() -> None:
        with await post(transport, upstream, steps) as reply:
            async for _ in reply:
                read.set()

    read = asyncio.Event()
    task = asyncio.create_task(call())
    if len(steps) > 1:
        await read.wait()
    while not upstream.requests:
        await asyncio.sleep(0)
    tasks = asyncio.all_tasks()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(upstream.left.get(), 5)
    assert upstream.open_connections == 0
    assert asyncio.all_tasks() <= tasks


async def test_cancelled_while_nobody_reads(transport: Transport) -> None:
    """If a call is cancelled while the host does not read, the connection is dropped with the unsent rest of the request."""
    accepted, deaf = asyncio.Event(), asyncio.Event()
    received = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        cast(asyncio.Transport, writer.transport).pause_reading()
        accepted.set()
        await deaf.wait()
        cast(asyncio.Transport, writer.transport).resume_reading()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**20):
                received += len(data)
        writer.close()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    size = 50_000_000
    url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")

    async def call() -> None:
        with await transport.post(url, {}, b"x" * size):
            pass

    task = asyncio.create_task(call())
    await asyncio.wait_for(accepted.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deaf.set()
    await asyncio.wait_for(gone.wait(), 5)
    server.close()
    assert received < size


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([CUT], ProviderUnavailable),
        ([RESET], ProviderUnavailable),
        ([b"HTTP/1.1 200 OK\r\ncontent-", CUT], ProviderUnavailable),
        ([b"SSH-2.0-OpenSSH\r\n\r\n", CUT], ProviderProtocolError),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", CUT], ProviderProtocolError),
    ],
    ids=["cut", "reset", "cut in the head", "not HTTP", "bad length"],
)
async def test_failures_before_the_first_byte(
    upstream: OddUpstream, transport: Transport, steps: list[Step], kind: type[ProviderError]
) -> None:
    """A connection that breaks before the answer raises `ProviderUnavailable`.

    An answer that is not HTTP raises `ProviderProtocolError`.
    """
    with pytest.raises(ProviderError) as raised, await post(transport, upstream, steps):
        pass
    assert type(raised.value) is kind
    assert raised.value.provider == "acme"


@pytest.mark.parametrize(
    "steps",
    [
        [head(), chunk(b"abc"), CUT],
        [head(), chunk(b"abc"), RESET],
        [head(), chunk(b"abc"), b"5\r\nab", CUT],
        [head(), chunk(b"abc"), b"zzz\r\n", HANG],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", CUT],
    ],
    ids=["cut", "reset", "cut in a chunk", "bad chunk", "short of its length"],
)
async def test_failures_in_the_body(upstream: OddUpstream, transport: Transport, steps: list[Step]) -> None:
    """A body that breaks off raises `ProviderProtocolError` and never looks complete."""
    with pytest.raises(ProviderProtocolError), await post(transport, upstream, steps) as reply:
        async for _ in reply:
            pass


async def test_timeouts(upstream: OddUpstream) -> None:
    """Silence for longer than the read timeout raises `ProviderTimeout`, before the head and in the body."""
    transport = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(stall=0.05)))
    scripts: list[list[Step]] = [[HANG], [head(), HANG], [head(), chunk(b"a"), HANG]]
    for steps in scripts:
        with pytest.raises(ProviderTimeout), await post(transport, upstream, steps) as reply:
            async for _ in reply:
                pass
        await asyncio.wait_for(upstream.left.get(), 5)
    await transport.close()


async def test_nobody_listens(transport: Transport) -> None:
    """A closed port and an unknown name raise `ProviderUnavailable`."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}/", "http://name.invalid/"):
            with pytest.raises(ProviderUnavailable), await transport.post(URL(url), {}, b""):
                pass


async def test_connecting_takes_too_long(upstream: OddUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connect timeout includes the look-up of the name."""

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    transport = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(connect=0.05)))
    with pytest.raises(ProviderTimeout), await transport.post(URL("http://slow.test/"), {}, b""):
        pass
    await transport.close()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP"])
async def test_encoded_bodies(upstream: OddUpstream, transport: Transport, encoding: str) -> None:
    """An encoded body is decoded, although no encoding was asked for; one that is invalid raises `ProviderProtocolError`."""
    data = b"data: a\n\n" * 1000
    packed = zlib.compress(data) if encoding == "deflate" else gzip.compress(data)
    for body, good in ((packed, True), (b"nonsense", False)):
        steps: list[Step] = [answer(body, "200 OK", "text/event-stream", f"content-encoding: {encoding}")]
        if good:
            with await post(transport, upstream, steps) as reply:
                assert await reply.read() == data
        else:
            with pytest.raises(ProviderProtocolError), await post(transport, upstream, steps) as reply:
                await reply.read()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_encoded_bodies_that_are_cut(upstream: OddUpstream, transport: Transport, encoding: str) -> None:
    """An encoded body that is cut raises `ProviderProtocolError`, wherever it is cut."""
    data = b"data: a\n\n" * 10
    packed = zlib.compress(data) if encoding == "deflate" else gzip.compress(data)
    for at in range(1, len(packed)):
        cut = [answer(packed[:at], "200 OK", "a/b", f"content-encoding: {encoding}")]
        with pytest.raises(ProviderProtocolError), await post(transport, upstream, cut) as reply:
            assert data.startswith(await reply.read())


async def test_encodings_of_several_kinds(upstream: OddUpstream, transport: Transport) -> None:
    """Gzip with several members or trailing zeros, raw deflate, a large ratio and an empty body are all decoded."""
    members = gzip.compress(b"ab") + gzip.compress(b"cd")
    bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    large = b"x" * 5_000_000
    for packed, encoding, data in (
        (members, "x-gzip", b"abcd"),
        (members + b"\0\0", "gzip", b"abcd"),
        (bare.compress(b"ab") + bare.flush(), "deflate", b"ab"),
        (gzip.compress(large), "gzip", large),
        (b"", "gzip", b""),
    ):
        for size in (1, len(packed)) if len(packed) < 100 else (len(packed),):
            pieces = [chunk(packed[at : at + size]) for at in range(0, len(packed), size or 1)]
            with await post(transport, upstream, [head("200 OK", "a/b", f"content-encoding: {encoding}"), *pieces, LAST]) as reply:
                assert await reply.read() == data


async def test_limits_of_reading(upstream: OddUpstream, transport: Transport) -> None:
    """`read` raises if the body is over the limit.

    `read_some` cuts it, and returns what came if it breaks off or takes too long.
    """
    with await post(transport, upstream, [answer(b"x" * 100)]) as reply:
        assert await reply.read(100) == b"x" * 100
    with pytest.raises(ProviderProtocolError, match="99 bytes"), await post(transport, upstream, [answer(b"x" * 100)]) as reply:
        await reply.read(99)
    with await post(transport, upstream, [answer(b"x" * 100)]) as reply:
        assert await reply.read_some(99, 5) == b"x" * 99
    with await post(transport, upstream, [head(), chunk(b"abc"), CUT]) as reply:
        assert await reply.read_some(99, 5) == b"abc"
    for tail in ([HANG], [piece for _ in range(100) for piece in (chunk(b"."), Pause(0.02))]):
        began = time.monotonic()
        with await post(transport, upstream, [head(), chunk(b"abc"), *tail]) as reply:
            assert (await reply.read_some(99, 0.1)).startswith(b"abc")
        assert time.monotonic() - began < 1


async def test_a_body_that_counts_as_ended(upstream: OddUpstream, transport: Transport) -> None:
    """`end_within` ends the body after so many seconds of silence, and None takes that back. A shorter read timeout ends it too."""
    more = asyncio.Event()
    with await post(transport, upstream, [head(), chunk(b"abc"), more, chunk(b"d"), HANG]) as reply:
        assert await anext(reply) == b"abc"
        reply.end_within(0.01)
        reply.end_within(None)
        more.set()
        assert await anext(reply) == b"d"
        reply.end_within(0.01)
        assert [piece async for piece in reply] == []
    quick = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(stall=0.05)))
    with await post(quick, upstream, [head(), chunk(b"abc"), HANG]) as reply:
        reply.end_within(5)
        assert await reply.read() == b"abc", "a time-out that is shorter ends it too"
        assert reply.timed_out
    await quick.close()


async def test_peeking(upstream: OddUpstream, transport: Transport) -> None:
    """Bytes that were peeked at are read again; white space before them is skipped."""
    with await post(transport, upstream, [head(), chunk(b" \n"), chunk(b"\r\n a"), chunk(b"b"), LAST]) as reply:
        begin = await reply.peek()
        assert begin.startswith(b"a")
        assert await reply.read() == b"ab"
    with await post(transport, upstream, [head(), chunk(b" \n"), LAST]) as reply:
        assert await reply.peek() == b""
        assert await reply.read() == b""
