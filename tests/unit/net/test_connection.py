"""Tests, over real sockets, of requests that meet the close of an idle connection."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from yarl import URL

from antiphon.config import ProviderConfig
from antiphon.domain.errors import ProviderProtocolError, ProviderUnavailable
from antiphon.net.http import Exchange, Transport
from tests.odd_upstream import CUT, RESET, OddUpstream, Pause, Step, answer

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


def post(transport: Transport, upstream: OddUpstream, body: bytes = BODY) -> Exchange:
    return transport.post(URL(upstream.base_url), {}, body)


async def ask(transport: Transport, upstream: OddUpstream, body: bytes = BODY) -> bytes:
    async with post(transport, upstream, body) as reply:
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
    for connection in list(upstream._open):
        connection.drop()  # there is no await before the request is sent
    assert await ask(transport, upstream, b"x" * size) == b"ok"
    assert [len(request.body) for request in upstream.requests] == [size]
    assert upstream.connections == idle + 1


async def test_it_is_sent_again_on_no_other_idle_connection(upstream: OddUpstream, transport: Transport) -> None:
    """The request is sent again on a new connection and not on another idle one, which may be closed next."""
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(ask(transport, upstream))
    connector = cast(Any, transport._client._connector)
    ((next_protocol, _), _) = next(iter(connector._conns.values()))
    port = next_protocol.transport.get_extra_info("sockname")[1]
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
    transport = Transport("acme", ProviderConfig(read_timeout=0.5, keep_alive=60))
    upstream.script("large", [answer(b"x" * 3_000_000)])
    async with transport.post(URL(upstream.base_url), {}, b'{"model": "large"}') as reply:
        async for _ in reply:
            await until_later(0.005)  # by then more has arrived than one read takes
    await until_later(0.6)
    assert await ask(transport, upstream) == b"ok"
    assert upstream.connections == 1
    await transport.close()


async def until_later(seconds: float) -> None:
    """Wait so many seconds, so that timers that were set before have fired."""
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, later.set)
    await later.wait()
