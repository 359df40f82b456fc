"""A network bridge in the sandbox, and the network namespaces of the pods that are connected to it.

The addresses are those of RFC 2544, which are reserved for tests. The sandbox itself is the node: clients, stores and the provider
are at `NODE`.
"""

import asyncio
import contextlib
import subprocess
from itertools import count
from pathlib import Path

from tests.waiting import block_until

NODE = "198.18.0.1"
SERVICES = "198.18.1.0/24"
"""The addresses of Services. No interface has them: iptables sends their connections to pods."""

_BRIDGE = "cluster0"
_PREFIX = "198.18.0"
_FIRST = 10


def _do(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()}"


class Network:
    """The bridge. Each pod gets an address that was not used before."""

    def __init__(self) -> None:
        self._numbers = count(_FIRST)
        _do("ip", "link", "set", "lo", "up")
        _do("ip", "link", "add", _BRIDGE, "type", "bridge")
        _do("ip", "address", "add", f"{NODE}/24", "dev", _BRIDGE)
        _do("ip", "link", "set", _BRIDGE, "up")
        _do("ip", "route", "add", SERVICES, "dev", _BRIDGE)

    def namespace(self) -> "Namespace":
        """Make a namespace with an address of its own."""
        return Namespace(next(self._numbers))


class Namespace:
    """A network namespace with one interface. It exists as long as a process in it.

    Its own process does nothing, and keeps the namespace until `close`.
    """

    def __init__(self, number: int) -> None:
        self.address = f"{_PREFIX}.{number}"
        self._link = f"pod{number}"
        self._process = subprocess.Popen(["unshare", "--net", "--", "sleep", "infinity"])
        self._path = Path(f"/proc/{self._process.pid}/ns/net")
        block_until(lambda: self._path.readlink() != Path("/proc/self/ns/net").readlink())
        _do("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", str(self._process.pid))
        _do("ip", "link", "set", self._link, "master", _BRIDGE, "up")
        for words in ("link set lo up", f"address add {self.address}/24 dev eth0", "link set eth0 up"):
            _do(*self.enter(), "ip", *words.split())

    def enter(self) -> list[str]:
        """Return the arguments to put before a command so that it runs in this namespace."""
        return ["nsenter", f"--net={self._path}", "--"]

    async def unplug(self) -> None:
        """Drop all traffic from now on. Connections are not closed, so peers do not notice."""
        await asyncio.to_thread(_do, "ip", "link", "set", self._link, "down")

    async def plug(self) -> None:
        """Undo `unplug`."""
        await asyncio.to_thread(_do, "ip", "link", "set", self._link, "up")

    async def block(self, port: int) -> None:
        """Drop traffic to this port of the node from now on."""
        await asyncio.to_thread(_do, *self._rule("--append", port))

    async def unblock(self, port: int) -> None:
        """Undo `block`."""
        await asyncio.to_thread(_do, *self._rule("--delete", port))

    def close(self) -> None:
        """Remove the interface, and let the namespace end with the last process in it."""
        with contextlib.suppress(AssertionError):  # the end of its interfaces may be under way
            _do("ip", "link", "delete", self._link)
        self._process.kill()
        self._process.wait(10)

    def _rule(self, action: str, port: int) -> list[str]:
        words = f"{action} OUTPUT --destination {NODE} --protocol tcp --dport {port} --jump DROP"
        return [*self.enter(), "iptables", *words.split()]
