"""Tests, over real sockets, of which connections are kept and used again."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from antiphon.net.client import Client
from antiphon.net.response import ClientResponse
from tests.odd_upstream import HANG, OddUpstream, answer, chunk, head
from tests.waiting import until


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        server.default = [answer(b"ok")]
        yield server


def make(keep_alive: float) -> Client:
    return Client(connect_timeout=5, read_timeout=5, keep_alive=keep_alive)


async def ask(client: Client, upstream: OddUpstream) -> ClientResponse:
    response = await client.post("acme", URL(upstream.base_url), {}, b"")
    assert await response.read() == b"ok"
    return response


async def test_the_connection_used_last_is_used_next(upstream: OddUpstream) -> None:
    """Of several idle connections the one that was used last is taken, so that the others are closed when they are not needed."""
    client = make(0.3)
    await asyncio.gather(*(ask(client, upstream) for _ in range(3)))
    assert upstream.open_connections == 3
    upstream.requests.clear()
    async with asyncio.timeout(10):
        while upstream.open_connections > 1:
            await ask(client, upstream)
            await asyncio.sleep(0.01)
    await ask(client, upstream)
    assert len({request.connection for request in upstream.requests}) == 1
    await until(lambda: not upstream.open_connections)
    await client.close()


async def test_a_connection_that_its_host_closed_is_passed_over(upstream: OddUpstream) -> None:
    """A closed connection is not used, and neither that nor its removal disturbs the others."""
    client = make(0.2)
    await asyncio.gather(*(ask(client, upstream) for _ in range(2)))
    (destination,) = client._destinations.values()
    port = destination.idle[-1].transport.get_extra_info("sockname")[1]
    (last,) = (one for one in upstream._open if one._transport.get_extra_info("peername")[1] == port)
    last.drop()
    await until(destination.idle[-1].transport.is_closing)
    await ask(client, upstream)
    assert upstream.connections == 2
    await until(lambda: not destination.idle)
    await ask(client, upstream)
    assert upstream.connections == 3
    await client.close()


async def test_closing_ends_calls_in_progress(upstream: OddUpstream) -> None:
    """Closing drops all connections, idle or not. A reader that waits gets an error."""
    client = make(60)
    await asyncio.gather(*(ask(client, upstream) for _ in range(2)))
    upstream.default = [head(), chunk(b"a"), HANG]
    response = await client.post("acme", URL(upstream.base_url), {}, b"")
    assert await response.read_any() == b"a"
    waiting = asyncio.create_task(response.read_any())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await client.close()
        with pytest.raises(Exception, match="not complete"):
            await waiting
        await until(lambda: not upstream.open_connections)


async def test_hosts_beyond_those_remembered(upstream: OddUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections of hosts that are forgotten are closed in their time, too."""
    monkeypatch.setattr("antiphon.net.client._DESTINATIONS", 1)
    client = make(0.2)
    async with OddUpstream() as other:
        other.default = upstream.default
        for one in (upstream, other, upstream):
            await ask(client, one)
        assert (upstream.connections, other.connections, len(client._destinations)) == (2, 1, 1)
        await until(lambda: not upstream.open_connections and not other.open_connections)
    await client.close()
