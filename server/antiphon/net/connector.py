"""Makes connections: looks names up, tries several addresses, speaks TLS, and asks outbound proxies for tunnels."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, Protocol, cast

from aiohappyeyeballs import start_connection
from msgspec import Struct
from yarl import URL

from antiphon.net.egress import look_up
from antiphon.net.exceptions import (
    BadAnswer,
    CertificateNotTrusted,
    ConnectionLost,
    NameNotResolved,
    NotConnected,
    ProxyRefused,
    ProxyUnreachable,
    TlsFailed,
)
from antiphon.net.refreshing import Refreshing, Times

_NAME_TIMES: Final = Times(ttl=60, stale=0, retry=0)
"""For how long an address is used before the name is looked up, and its addresses checked, again."""

_MAX_NAMES: Final = 1024
"""How many names are remembered; a caller of the proxy paths may name any number."""

_NEXT_ADDRESS: Final = 0.25
"""Seconds until the next address is tried beside one that does not answer: RFC 8305, section 5."""

_MAX_HEAD: Final = 64 * 1024
"""The most bytes of a proxy's answer to a request for a tunnel."""

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})")


class Resolver(Protocol):
    """Looks names up. A host that is an address already is not looked up."""

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host. Raises `OSError` if there is none, and anything else if it must not be reached."""
        ...


class ConnectOptions(Struct, frozen=True):
    """Where a connection leads to, and how."""

    host: str
    """The name or address, without brackets."""
    port: int
    is_secure: bool
    """Whether the host speaks TLS."""
    tls: ssl.SSLContext | None
    """The context for the host and the proxy; None if neither speaks TLS."""
    proxy: URL | None = None
    """The outbound proxy, without its password."""
    tunnel_headers: Mapping[str, str] = NO_HEADERS
    """The headers of a request for a tunnel."""


class Connector:
    """Makes the connections of one client. Belongs to the running event loop."""

    def __init__(self, *, timeout: float, resolver: Resolver | None) -> None:
        """Take the seconds that a connection may take, with the look-up of the name; and who looks up, None: the system."""
        self._timeout = timeout
        self._resolve = look_up if resolver is None else resolver.resolve
        self._names: dict[tuple[str, int], _Name] = {}

    async def connect(self, to: ConnectOptions) -> asyncio.Transport:
        """Return a connection on which a request can be sent, and whose protocol has to be set.

        Raises `TimeoutError`, `NotConnected`, `ProxyRefused`, `ConnectionLost`, `BadAnswer`, and what the resolver raises besides
        `OSError`.
        """
        async with asyncio.timeout(self._timeout):
            transport, waiting = await self._reach(to)
        if transport.is_closing():
            raise ConnectionLost
        if waiting.received:
            transport.abort()
            raise BadAnswer("The host answered before it was asked.")
        return transport

    async def close(self) -> None:
        """Cancel look-ups in progress."""
        for name in self._names.values():
            await name.close()

    async def _reach(self, to: ConnectOptions) -> tuple[asyncio.Transport, _Waiting]:
        if to.proxy is None:
            return await self._open(to.host, to.port, to.tls if to.is_secure else None)
        proxy_tls = to.tls if to.proxy.scheme == "https" else None
        transport, waiting = await self._open(to.proxy.raw_host or "", to.proxy.port or 0, proxy_tls, ProxyUnreachable)
        if not to.is_secure:  # the proxy reads the request itself
            return transport, waiting
        try:
            await _ask_for_tunnel(transport, waiting, to)
            return await _start_tls(transport, waiting, to)
        except BaseException:
            transport.abort()
            raise

    async def _open(
        self, host: str, port: int, tls: ssl.SSLContext | None, unreachable: type[NotConnected] = NotConnected
    ) -> tuple[asyncio.Transport, _Waiting]:
        """Connect to one of the addresses of a host. Raises `unreachable` if none of them answers."""
        addresses = await self._addresses(host, port)
        with _translated(host, unreachable):
            connected = await start_connection([_info(address, port) for address in addresses], happy_eyeballs_delay=_NEXT_ADDRESS)
            try:
                name = None if tls is None else _tls_name(host)
                return await asyncio.get_running_loop().create_connection(_Waiting, sock=connected, ssl=tls, server_hostname=name)
            except BaseException:
                connected.close()
                raise

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host. Raises `NameNotResolved`."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return [host]
        name = self._names.get((host, port))
        if name is None:
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            name = self._names[host, port] = _Name(lambda: self._resolve(host, port))
        try:
            return await name.addresses()
        except (OSError, UnicodeError) as error:  # UnicodeError: not a valid name
            raise NameNotResolved(host) from error


class _Name:
    """The addresses of a name, which are looked up when they are too old, once for all that wait."""

    def __init__(self, look_up: Callable[[], Awaitable[Sequence[str]]]) -> None:
        self._found = Refreshing(look_up, _NAME_TIMES, (Exception,))
        self._turn = 0

    async def addresses(self) -> Sequence[str]:
        """Return the addresses, each time with another one first. Raises what the look-up raises."""
        found = await self._found.get()
        self._turn += 1
        first = self._turn % len(found)
        return [*found[first:], *found[:first]]

    async def close(self) -> None:
        """Cancel a look-up in progress."""
        await self._found.close()


class _Waiting(asyncio.Protocol):
    """The protocol of a connection until its own is set. Only a proxy that is asked for a tunnel may send something meanwhile."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._is_lost = False
        self._changed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._changed.set()

    async def take_head(self) -> bytes:
        """Return the head of an answer, and remove it from what was received. Raises `ConnectionLost` or `BadAnswer`."""
        while (end := self.received.find(b"\r\n\r\n")) < 0:
            if self._is_lost:
                raise ConnectionLost
            if len(self.received) > _MAX_HEAD:
                raise BadAnswer("The head of the proxy's answer is too long.")
            self._changed.clear()
            await self._changed.wait()
        head = bytes(self.received[:end])
        del self.received[: end + 4]
        return head


async def _ask_for_tunnel(transport: asyncio.Transport, waiting: _Waiting, to: ConnectOptions) -> None:
    """Have the proxy connect to the host: RFC 9110, section 9.3.6. Raises `ProxyRefused`, `ConnectionLost` or `BadAnswer`."""
    authority = f"[{to.host}]:{to.port}" if ":" in to.host else f"{to.host}:{to.port}"
    lines = [
        f"CONNECT {authority} HTTP/1.1",
        f"Host: {authority}",
        *(f"{name}: {value}" for name, value in to.tunnel_headers.items()),
    ]
    transport.write("\r\n".join((*lines, "", "")).encode())
    status = _STATUS.match(await waiting.take_head())
    while status is not None and status[1].startswith(b"1"):  # an interim answer: RFC 9110, section 15.2
        status = _STATUS.match(await waiting.take_head())
    if status is None:
        raise BadAnswer("The proxy does not answer in HTTP.")
    if not status[1].startswith(b"2"):
        raise ProxyRefused(int(status[1]))
    if waiting.received:
        raise BadAnswer("The host answered before it was asked.")


async def _start_tls(transport: asyncio.Transport, waiting: _Waiting, to: ConnectOptions) -> tuple[asyncio.Transport, _Waiting]:
    """Speak TLS with the host through a tunnel."""
    with _translated(to.host):
        loop, tls = asyncio.get_running_loop(), cast(ssl.SSLContext, to.tls)
        secure = await loop.start_tls(transport, waiting, tls, server_hostname=_tls_name(to.host))
    if secure is None:
        raise ConnectionLost
    return secure, waiting


@contextmanager
def _translated(host: str, unreachable: type[NotConnected] = NotConnected) -> Iterator[None]:
    """Translate errors of connecting to `host`, those of TLS and all others, which become `unreachable`."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise CertificateNotTrusted(host) from error
    except ssl.SSLError as error:
        raise TlsFailed(host) from error
    except OSError as error:
        raise unreachable(host) from error


def _info(address: str, port: int) -> tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]:
    """Return an address as `socket.getaddrinfo` does."""
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port)


def _tls_name(host: str) -> str:
    """Return the name that the certificate must have: the final dot of an absolute name is no part of it."""
    return host.rstrip(".")
