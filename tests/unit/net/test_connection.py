"""Tests, over real sockets, of requests that meet the close of an idle connection."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from antiphon.config import ProviderConfig, TimeoutsConfig
from antiphon.domain.errors import ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from antiphon.net import connection
from antiphon.net.authorities import Authorities
from antiphon.net.coalescing import Coalescer
from antiphon.net.http import HttpResponse, Transport
from antiphon.net.outbound import DIRECT, Outbound
from tests.certificates import Authority
from tests.odd_upstream import CUT, LAST, RESET, OddUpstream, Pause, Step, answer, chunk, head

OK = answer(b"ok")
BODY = b'{"model": "any"}'


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        server.default = [OK]
        yield server


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    made = Transport("acme", ProviderConfig())
    yield made
    await made.close()


def post(transport: Transport, upstream: OddUpstream, body: bytes = BODY) -> Coroutine[Any, Any, HttpResponse]:
    return transport.post(URL(upstream.base_url), {}, body)


async def ask(transport: Transport, upstream: OddUpstream, body: bytes = BODY) -> bytes:
    with await post(transport, upstream, body) as reply:
        return await reply.read()


@pytest.mark.parametrize("size", [16, 3_000_000])
@pytest.mark.parametrize("idle", [1, 3])
async def test_a_request_that_crosses_a_close_is_sent_again(
    upstream: OddUpstream, transport: Transport, size: int, idle: int
) -> None:
    """A request that crosses the close of its idle connection is sent again on a new one, whatever its size.

    The host reads it once.
    """
    async with asyncio.TaskGroup() as group:
        for _ in range(idle):
            group.create_task(ask(transport, upstream))
    assert (upstream.connections, upstream.open_connections) == (idle, idle)
    upstream.requests.clear()
    for accepted in list(upstream._open):
        accepted.drop()  # there is no await before the request is sent
    assert await ask(transport, upstream, b"x" * size) == b"ok"
    assert [len(request.body) for request in upstream.requests] == [size]
    assert upstream.connections == idle + 1


async def test_it_is_sent_again_on_no_other_idle_connection(upstream: OddUpstream, transport: Transport) -> None:
    """The request is sent again on a new connection and not on another idle one, which may be closed next."""
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(ask(transport, upstream))
    (destination,) = transport._client._destinations.values()
    port = destination.idle[-1].transport.get_extra_info("sockname")[1]
    (closing,) = (one for one in upstream._open if one._transport.get_extra_info("peername")[1] == port)
    closing.drop()
    assert await ask(transport, upstream) == b"ok"
    assert (upstream.connections, upstream.requests[-1].connection) == (3, 3)


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_it_is_sent_again_once(upstream: OddUpstream, transport: Transport, end: Step) -> None:
    """A request is sent again once; if the new connection is closed too, it fails."""
    await ask(transport, upstream)
    upstream.default = [end]
    with pytest.raises(ProviderUnavailable):
        await ask(transport, upstream)
    assert [request.connection for request in upstream.requests] == [1, 1, 2]


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_a_new_connection_that_is_closed_is_a_failure(upstream: OddUpstream, transport: Transport, end: Step) -> None:
    """A request on a new connection that is closed is not sent again."""
    upstream.default = [end]
    with pytest.raises(ProviderUnavailable):
        await ask(transport, upstream)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("end", [CUT, RESET])
@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([Pause(0.6)], ProviderUnavailable),
        ([b"H", Pause(0.01)], ProviderUnavailable),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", Pause(0.01)], ProviderUnavailable),
        ([OK[:-1], Pause(0.01)], ProviderProtocolError),
    ],
    ids=["later", "after a byte", "after a word", "in the body"],
)
async def test_what_a_host_may_have_read_is_not_sent_again(
    upstream: OddUpstream, transport: Transport, steps: list[Step], kind: type[Exception], end: Step
) -> None:
    """A request that the host may have processed is not sent again.

    That is so if the host answered anything, or closed too late to have missed the request.
    """
    await ask(transport, upstream)
    upstream.default = [*steps, end]
    with pytest.raises(kind):
        await ask(transport, upstream)
    assert len(upstream.requests) == 2


async def test_an_idle_connection_is_closed_before_its_host_does(upstream: OddUpstream) -> None:
    """An idle connection is closed after `keep_alive`, by default sooner than the five seconds of common hosts."""
    assert ProviderConfig().keep_alive < 5
    transport = Transport("acme", ProviderConfig(keep_alive=0.05))
    await ask(transport, upstream)
    async with asyncio.timeout(5):
        while upstream.open_connections:
            await asyncio.sleep(0)
    await ask(transport, upstream)
    assert upstream.connections == 2
    await transport.close()


async def test_the_read_timeout_of_a_large_reply_does_not_outlive_it(upstream: OddUpstream) -> None:
    """After a large reply an idle connection has no read timer left, which would fail the next request."""
    transport = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(stall=0.5), keep_alive=60))
    upstream.script("large", [answer(b"x" * 3_000_000)])
    with await transport.post(URL(upstream.base_url), {}, b'{"model": "large"}') as reply:
        async for _ in reply:
            await until_later(0.005)  # by then more has arrived than one read takes
    await until_later(0.6)
    assert await ask(transport, upstream) == b"ok"
    assert upstream.connections == 1
    await transport.close()


@pytest.mark.parametrize("steps", [[OK, Pause(0.02), answer(b"old")], [OK[:-1], Pause(0.02), OK[-1:] + answer(b"old")]])
async def test_an_answer_that_was_not_asked_for_is_dropped(upstream: OddUpstream, transport: Transport, steps: list[Step]) -> None:
    """What arrives on a connection after the end of an answer is not the answer to the next request."""
    upstream.default = steps
    assert await ask(transport, upstream) == b"ok"
    await until_later(0.1)
    upstream.default = [answer(b"new")]
    assert await ask(transport, upstream) == b"new"
    assert upstream.connections == 2


class Reader:
    """A host that reads the body of a request at `rate` bytes a second, and answers then, or already to the head if `early`."""

    def __init__(self, rate: int, *, early: bool = False) -> None:
        self.connections = 0
        self._rate = rate
        self._early = early
        self._left = asyncio.Event()

    async def __aenter__(self) -> URL:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        listening.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._serve, sock=listening, limit=16_384)
        return URL(f"http://127.0.0.1:{listening.getsockname()[1]}/")

    async def __aexit__(self, *_: object) -> None:
        self._left.set()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        head = await reader.readuntil(b"\r\n\r\n")
        if self._early:
            writer.write(OK)
        if not self._rate:
            await self._left.wait()
        left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]) if self._rate else 0
        while left:
            data = await reader.read(16_384)
            left -= len(data)
            await until_later(len(data) / self._rate)
        if not self._early:
            writer.write(OK)
        writer.close()


@pytest.mark.parametrize("size", [900_000, 8_000_000])
async def test_a_host_that_does_not_read_times_out(size: int) -> None:
    """A host that neither reads a large request nor answers is given up."""
    transport = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(stall=0.2)))
    async with Reader(0) as url, asyncio.timeout(2):
        with pytest.raises(ProviderTimeout):
            await transport.post(url, {}, b"x" * size)
    await transport.close()


@pytest.mark.parametrize("size", [5_000_000, 8_000_000])
async def test_an_early_answer_costs_the_connection(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose host answered without reading the request is not used again, as the rest would come first."""
    monkeypatch.setattr(connection, "_LARGE", 6_000_000)
    transport = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(stall=2)))
    host = Reader(0, early=True)
    async with host as url:
        for _ in range(2):
            with await transport.post(url, {}, b"x" * size) as reply:
                assert await reply.read() == b"ok"
        assert host.connections == 2
    await transport.close()


@pytest.fixture(params=[False, True], ids=["tcp", "tls"])
async def busy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[OddUpstream, Transport]]:
    """Make a host and a transport to it whose process is always busy: streams are held for half a second."""
    authority = Authority()
    tls = authority.issue("127.0.0.1").context(tmp_path) if request.param else None
    outbound = Outbound(authorities=Authorities("ca", authority.write(tmp_path / "ca.pem"))) if request.param else DIRECT
    coalescer = Coalescer(0.5, cpu_time=time.monotonic)
    transport = Transport("acme", ProviderConfig(timeouts=TimeoutsConfig(stall=0.2)), outbound, coalescer)
    async with OddUpstream(tls) as server:
        yield server, transport
    await transport.close()


async def test_a_busy_process_joins_reads_of_a_stream(busy: tuple[OddUpstream, Transport]) -> None:
    """What arrives after the first token, while a stream is held, is one read.

    The read time-out does not pass meanwhile, and the connection is reused.
    """
    upstream, transport = busy
    begin = asyncio.Event()
    rest = [step for number in range(20) for step in (chunk(b"%d," % number), Pause(0.005))]
    for count in range(2):
        begin.clear()
        upstream.default = [head(), chunk(b"first"), begin, chunk(b"second"), Pause(0.05), *rest, LAST]
        with await post(transport, upstream) as reply:
            assert await anext(reply) == b"first"
            reply.coalesce()
            begin.set()
            assert await anext(reply) == b"second" + b"".join(b"%d," % number for number in range(20))
            assert [piece async for piece in reply] == []
        assert upstream.requests[-1].connection == 1, count


async def test_a_busy_process_delays_nothing_before_it_may(busy: tuple[OddUpstream, Transport]) -> None:
    """A body that may not be coalesced is read as it arrives, also on a connection that was held before."""
    upstream, transport = busy
    upstream.default = [head(), chunk(b"a"), Pause(0.01), chunk(b"b") + LAST]
    with await post(transport, upstream) as reply:
        reply.coalesce()
        assert await reply.read() == b"ab"
    steps = [asyncio.Event() for _ in range(10)]
    upstream.default = [head(), *(part for step in steps for part in (step, chunk(b"x"))), LAST]
    async with asyncio.timeout(0.4):
        with await post(transport, upstream) as reply:
            for step in steps:
                step.set()
                assert await anext(reply) == b"x"


async def test_a_held_stream_can_be_left(busy: tuple[OddUpstream, Transport]) -> None:
    """A stream that is left or cut off while it is held does not disturb others that are held with it."""
    upstream, transport = busy
    upstream.script("cut", [head(), chunk(b"a"), Pause(0.01), chunk(b"b"), Pause(0.01), CUT])
    upstream.script("whole", [head(), chunk(b"a"), Pause(0.01), chunk(b"b"), Pause(0.01), chunk(b"c"), LAST])

    async def read(model: str, pieces: int) -> int:
        with await post(transport, upstream, b'{"model": "%b"}' % model.encode()) as reply:
            async for _ in reply:
                reply.coalesce()
                if not (pieces := pieces - 1):
                    raise ConnectionAbortedError
        return pieces

    reads = [read(model, pieces) for model, pieces in (("whole", 9), ("whole", 2), ("cut", 9), ("whole", 9))]
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*reads, return_exceptions=True)
    assert [type(end) for end in ends] == [int, ConnectionAbortedError, ProviderProtocolError, int]
    assert transport.buffered == 0


async def until_later(seconds: float) -> None:
    """Wait so many seconds, so that timers that were set before have fired."""
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, later.set)
    await later.wait()
