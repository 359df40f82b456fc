"""The Services in front of the pods: iptables rules as kube-proxy makes them, and DNS for headless Services.

A new connection goes to a random ready pod, and existing connections stay. Both follow a change of the pods after `DELAY` seconds,
because in a cluster the change has to pass through the API server.
"""

import asyncio
import socket
import struct
import subprocess
from collections.abc import Sequence
from typing import Self

from tests.cluster.network import NODE

DELAY = 1.0
"""Seconds from a change of a pod until connections and names follow."""

ADDRESS = "198.18.1.1"
"""The address of the Service."""

NAME = "antiphon-headless.antiphon.svc.cluster.local"
"""The name of the headless Service."""

_TTL = 5
_A, _IN = 1, 1
_RESPONSE = 0x8580  # a response, authoritative, no error

_CHAIN = "SERVICE"
_ROOT = f"""*nat
:{_CHAIN} - [0:0]
-A OUTPUT --destination {ADDRESS} --protocol tcp --jump {_CHAIN}
COMMIT
*filter
-A OUTPUT --destination {ADDRESS} --protocol tcp --jump REJECT --reject-with tcp-reset
COMMIT
"""


class Service:
    """The Service at `ADDRESS`, and the headless one. As a context manager it answers DNS queries."""

    def __init__(self, port: int, target_port: int) -> None:
        """Set up the rules. Connections to `port` go to `target_port` of the pods."""
        self.port = port
        self.addresses: tuple[str, ...] = ()
        """The addresses of the pods that connections and names are routed to."""
        self._target_port = target_port
        self._wanted: tuple[str, ...] = ()
        _restore(_ROOT)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Names(self), (NODE, 53))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    def route_to(self, addresses: Sequence[str]) -> None:
        """Set the ready pods. Connections and names follow after `DELAY` seconds."""
        if (wanted := tuple(addresses)) != self._wanted:
            self._wanted = wanted
            asyncio.get_running_loop().call_later(DELAY, self._apply, wanted)

    def _apply(self, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses
        _restore(rules(addresses, self.port, self._target_port))


def rules(addresses: Sequence[str], port: int, target_port: int) -> str:
    """Return the input for iptables-restore that gives each address the same share of new connections."""
    lines = [
        f"-A {_CHAIN} --protocol tcp --dport {port} --match statistic --mode random --probability {1 / left:.6f}"
        f" --jump DNAT --to-destination {address}:{target_port}"
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True)
    ]
    return "\n".join(["*nat", f":{_CHAIN} - [0:0]", *lines, "COMMIT", ""])


def answer(query: bytes, addresses: Sequence[str]) -> bytes:
    """Return the answer to a DNS query for any name: each IPv4 address for type A, else no records (RFC 1035)."""
    end = query.index(b"\0", 12) + 5  # the name, and its type and class
    (kind,) = struct.unpack_from(">H", query, end - 4)
    found = addresses if kind == _A else ()
    head = query[:2] + struct.pack(">HHHHH", _RESPONSE, 1, len(found), 0, 0)
    records = [b"\xc0\x0c" + struct.pack(">HHIH", _A, _IN, _TTL, 4) + socket.inet_aton(address) for address in found]
    return head + query[12:end] + b"".join(records)


class _Names(asyncio.DatagramProtocol):
    def __init__(self, service: Service) -> None:
        self._service = service

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(answer(data, self._service.addresses), addr)  # type: ignore[attr-defined]


def _restore(text: str) -> None:
    done = subprocess.run(["iptables-restore", "--noflush"], check=False, input=text.encode(), capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
