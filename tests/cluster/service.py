"""The Services before the pods: what kube-proxy does with iptables, and a cluster's DNS with headless ones.

A new connection goes to one of the ready pods by chance, and those that are there stay where they are. Both know of a change of the
pods only `DELAY` seconds later, as everything has to come by way of the API server.
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
"""The Service's."""

NAME = "antiphon-headless.antiphon.svc.cluster.local"
"""The headless Service's."""

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
    """The Service at `ADDRESS`, and the headless one. As a context manager it answers for names."""

    def __init__(self, port: int, target_port: int) -> None:
        """Connections to `port` go to `target_port` of the pods."""
        self.port = port
        self.addresses: tuple[str, ...] = ()
        """Those of the pods that connections and names lead to."""
        self._target_port = target_port
        self._wanted: tuple[str, ...] = ()
        _restore(_ROOT)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Names(self), (NODE, 53))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    def lead_to(self, addresses: Sequence[str]) -> None:
        """Take the ready pods, which are of account in a moment."""
        if (wanted := tuple(addresses)) != self._wanted:
            self._wanted = wanted
            asyncio.get_running_loop().call_later(DELAY, self._apply, wanted)

    def _apply(self, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses
        _restore(rules(addresses, self.port, self._target_port))


def rules(addresses: Sequence[str], port: int, target_port: int) -> str:
    """What iptables is to restore, so that each address gets the same share of new connections."""
    lines = [
        f"-A {_CHAIN} --protocol tcp --dport {port} --match statistic --mode random --probability {1 / left:.6f}"
        f" --jump DNAT --to-destination {address}:{target_port}"
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True)
    ]
    return "\n".join(["*nat", f":{_CHAIN} - [0:0]", *lines, "COMMIT", ""])


def answer(query: bytes, addresses: Sequence[str]) -> bytes:
    """Answer a query of DNS, whatever the name: each address where IPv4 addresses are asked for, else nothing (RFC 1035)."""
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
