"""Tests of connecting, over real sockets. TLS and outbound proxies that others wrote are tested in `test_outbound.py`."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from yarl import URL

from antiphon.domain.errors import PermissionDenied
from antiphon.net.connector import ConnectOptions, Connector
from antiphon.net.exceptions import BadAnswer, ConnectionLost, NameNotResolved, NotConnected, ProxyRefused, ProxyUnreachable
from tests.ports import free_port

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Names:
    """A resolver that answers with `addresses`, or raises them."""

    def __init__(self, addresses: Sequence[str] | Exception) -> None:
        self.addresses = addresses
        self.asked: list[tuple[str, int]] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        await asyncio.sleep(0)
        if isinstance(self.addresses, Exception):
            raise self.addresses
        return self.addresses


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@asynccontextmanager
async def server(serve: Serve = silent, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Run a server, and yield its port. At the end, wait for its connections to end."""
    serving: set[asyncio.Task[None]] = set()

    async def serve_to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with suppress(OSError):
            await serve(reader, writer)
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    started = await asyncio.start_server(serve_to_the_end, host, 0)
    try:
        yield started.sockets[0].getsockname()[1]
    finally:
        started.close()
        if serving:
            _, hanging = await asyncio.wait(serving, timeout=5)
            assert not hanging


def plain(port: int, host: str = "127.0.0.1") -> ConnectOptions:
    return ConnectOptions(host, port, is_secure=False, tls=None)


async def reached(connector: Connector, to: ConnectOptions) -> str:
    """Connect, and return the address that was connected to."""
    transport = await connector.connect(to)
    transport.abort()
    return str(transport.get_extra_info("peername")[0])


async def test_the_next_address_is_tried() -> None:
    """If an address of a name refuses, the next one is connected to. An error is that of a host without one that answers."""
    async with server() as port:
        names = Names(["127.0.0.2", "127.0.0.1"])
        connector = Connector(timeout=5, resolver=names)
        assert [await reached(connector, plain(port, "models.test")) for _ in range(3)] == ["127.0.0.1"] * 3
        names.addresses = ["127.0.0.2", "127.0.0.3"]
        with pytest.raises(NotConnected) as caught:
            await connector.connect(plain(port, "others.test"))
        assert type(caught.value) is NotConnected
        assert caught.value.host == "others.test"
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        await connector.close()


async def test_all_addresses_of_a_name_have_their_turn() -> None:
    """Connections are spread over the addresses of a name, which is looked up once, also for several at a time."""
    async with server(host="0.0.0.0") as port:
        names = Names(["127.0.0.1", "127.0.0.2"])
        connector = Connector(timeout=5, resolver=names)
        found = await asyncio.gather(*(reached(connector, plain(port, "models.test")) for _ in range(4)))
        assert sorted(found) == ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"]
        assert names.asked == [("models.test", port)]
        await connector.close()


async def test_an_address_is_not_looked_up() -> None:
    """A host that is an address is connected to as it is."""
    names = Names(OSError("asked"))
    connector = Connector(timeout=5, resolver=names)
    async with server() as port:
        assert await reached(connector, plain(port)) == "127.0.0.1"
    if socket.has_ipv6:
        async with server(host="::1") as port:
            assert await reached(connector, plain(port, "::1")) == "::1"
    assert not names.asked


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("none"), NameNotResolved),
        (UnicodeError("label too long"), NameNotResolved),
        (PermissionDenied("no"), PermissionDenied),
    ],
)
async def test_a_failed_look_up_is_not_remembered(error: Exception, expected: type[Exception]) -> None:
    """A name that is not found, or refused, is looked up again for the next connection."""
    async with server() as port:
        names = Names(error)
        connector = Connector(timeout=5, resolver=names)
        with pytest.raises(expected):
            await connector.connect(plain(port, "models.test"))
        names.addresses = ["127.0.0.1"]
        assert await reached(connector, plain(port, "models.test")) == "127.0.0.1"
        await connector.close()


async def test_the_names_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound names are looked up anew, as callers of the proxy paths may send any number of them."""
    monkeypatch.setattr("antiphon.net.connector._MAX_NAMES", 2)
    async with server() as port:
        names = Names(["127.0.0.1"])
        connector = Connector(timeout=5, resolver=names)
        for name in "abca":
            await reached(connector, plain(port, name))
        assert [name for name, _ in names.asked] == ["a", "b", "c", "a"]


async def test_the_time_is_for_everything() -> None:
    """The time-out includes the look-up, TLS with a host that says nothing, and the answer of a proxy. Nothing stays open."""
    tls = ssl.create_default_context()
    gone: asyncio.Queue[None] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.put_nowait(None)

    class Slow(Names):
        async def resolve(self, host: str, port: int) -> Sequence[str]:
            await asyncio.sleep(60)
            return []

    async with server(serve) as port:
        for to, resolver in (
            (plain(port, "models.test"), Slow([])),
            (ConnectOptions("127.0.0.1", port, is_secure=True, tls=tls), None),
            (ConnectOptions("models.test", 443, is_secure=True, tls=tls, proxy=URL(f"http://127.0.0.1:{port}")), None),
        ):
            connector = Connector(timeout=0.1, resolver=resolver)
            with pytest.raises(TimeoutError):
                await connector.connect(to)
            await connector.close()
        for _ in range(2):
            await asyncio.wait_for(gone.get(), 5)


async def tunnel(answers: bytes, to: str = "models.test") -> tuple[bytes, Exception]:
    """Ask a proxy that sends `answers` for a tunnel. Return what it was sent, and the error."""
    asked = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked = await reader.readuntil(b"\r\n\r\n")
        for at in range(min(len(answers), 40)):  # in small pieces
            writer.write(answers[at : at + 1])
            await writer.drain()
        writer.write(answers[40:])

    async with server(serve) as port:
        connector = Connector(timeout=5, resolver=Names(["127.0.0.1"]))
        with pytest.raises(Exception) as caught:  # noqa: PT011  # returned
            await connector.connect(
                ConnectOptions(
                    to,
                    443,
                    is_secure=True,
                    tls=ssl.create_default_context(),
                    proxy=URL(f"http://proxy.test:{port}"),
                    tunnel_headers={"user-agent": "antiphon", "proxy-authorization": "Basic eA=="},
                )
            )
        await connector.close()
    return asked, caught.value


async def test_a_tunnel_is_asked_for() -> None:
    """The proxy is sent host and port, an IPv6 address in brackets, and the headers for it alone."""
    for host, written in (("models.test", "models.test:443"), ("2001:db8::1", "[2001:db8::1]:443")):
        asked, error = await tunnel(b"HTTP/1.1 407 Who?\r\n\r\n", host)
        assert asked.decode().split("\r\n") == [
            f"CONNECT {written} HTTP/1.1",
            f"Host: {written}",
            "user-agent: antiphon",
            "proxy-authorization: Basic eA==",
            "",
            "",
        ]
        assert isinstance(error, ProxyRefused)
        assert error.status == 407


async def test_interim_answers_of_a_proxy_are_skipped() -> None:
    """A client has to expect any number of interim answers before the one that counts."""
    _, error = await tunnel(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + b"HTTP/1.1 407 Who?\r\n\r\n")
    assert isinstance(error, ProxyRefused)
    assert error.status == 407


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (b"HTTP/1.1 503 No\r\nx: y\r\n\r\nbody", ProxyRefused),
        (b"SSH-2.0-x\r\n\r\n", BadAnswer),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, BadAnswer),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 40 + b"\r\n\r\n220 mail.test", BadAnswer),  # the host speaks first
        (b"HTTP/1.1 200 OK\r\n", ConnectionLost),
        (b"", ConnectionLost),
        (b"HTTP/1.1 200 OK\r\n\r\n", NotConnected),  # closed before TLS
    ],
)
async def test_a_tunnel_that_does_not_come_about(answers: bytes, expected: type[Exception]) -> None:
    """Whatever a proxy answers in place of a tunnel is an error of its own."""
    _, error = await tunnel(answers)
    assert type(error) is expected


async def test_a_proxy_that_is_not_there_is_told_apart() -> None:
    """A proxy that cannot be connected to is `ProxyUnreachable`."""
    proxy = URL(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ProxyUnreachable):
        await Connector(timeout=5, resolver=None).connect(ConnectOptions("models.test", 80, is_secure=False, tls=None, proxy=proxy))
