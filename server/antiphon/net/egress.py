"""Where a caller may send this server: the targets of the proxy paths, and the addresses that their names may stand for.

Two questions, asked one after the other:

1. May this target be reached? What the caller writes is held against one strict grammar, and the scheme, the host, the port and
   the path that come out of it against the operator's list. Nothing is repaired: what could be read in two ways is refused.
2. May its address be connected to? The name is looked up, each of its addresses is judged, and the client is handed just those:
   what was checked is what is connected to, so that a name which means something else a moment later gains nothing.

The addresses that a name may stand for:

- public ones, always;
- private ones (RFC 1918, loopback, carrier-grade NAT, IPv6 unique local), if the operator's list has that name with a port written
  out, as in http://models.internal:8000: so an operator says that something inside is meant, and what;
- all others never: link-local with the clouds' metadata services, multicast, unspecified, reserved, and IPv6 that holds an IPv4
  address (mapped, NAT64, 6to4, Teredo, ISATAP). Whoever means one of them lists the address itself, as in http://169.254.1.2:80.

One address that may not be is enough to refuse a name. Opens no connection; knows no provider and no dialect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Final, TypeAlias

import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct

from antiphon.config import ConfigError, ProxyConfig
from antiphon.domain.errors import InvalidRequest, PermissionDenied

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text. Raises `OSError` if it has none."""

log = structlog.get_logger(__name__)

_PORTS: Final = {"http": 80, "https": 443}

# All that a target may be made of. What is not in here cannot occur in one: user names, "@", backslashes, "%" (and with it zone ids
# and whatever is encoded twice), "?", "#", white space, control characters, and all that is not ASCII.
_TARGET: Final = re.compile(
    r"(?:(?P<scheme>(?i:https?))://)?"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,253})"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/[0-9A-Za-z._~-]+)*)/?",
    re.ASCII,
)
_LABEL: Final = re.compile(r"[0-9a-z](?:[0-9a-z-]{0,61}[0-9a-z])?", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_ALIAS: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,62}", re.ASCII)

_LONGEST: Final = 2048

_PRIVATE: Final = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10", "::1/128", "fc00::/7")
)
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
_NEVER: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        # The metadata services of clouds that lie outside link-local: Azure, Oracle, Alibaba; AWS, Google, Scaleway over IPv6.
        "168.63.129.16/32",
        "192.0.0.192/32",
        "100.100.100.200/32",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
        "fd00:42::42/128",
        # Anycast relays, benchmarks, and IPv6 that holds IPv4 addresses: Teredo and 6to4. The rest of that kind is not in 2000::/3.
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "2001::/32",
        "2002::/16",
        "3fff::/20",  # documentation, RFC 9637, which older versions of Python do not know
    )
)


class Target(Struct, frozen=True):
    """Where a request goes. `name` is what a caller may be told of it: the host, or the alias."""

    scheme: str
    host: str
    port: int
    path: str
    """Empty, or segments that begin with a slash each, with none at the end."""
    name: str

    @property
    def url(self) -> str:
        """The base URL, in one form for all ways to write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def covers(self, other: Target) -> bool:
        """Whether `other` is this, or lies below its path."""
        same = (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)
        return same and f"{other.path}/".startswith(f"{self.path}/")


class EgressPolicy:
    """What the operator allows."""

    def __init__(self, config: ProxyConfig) -> None:
        """Raises `ConfigError` for an entry that is no base URL."""
        self._allowed: list[Target] = []
        self._inside: set[tuple[str, int]] = set()
        for index, entry in enumerate(config.allow):
            self._allow(entry, f"proxy.allow.{index}")  # not the entry itself: it may hold a password
        self._aliases: dict[str, Target] = {}
        for alias, entry in config.aliases.items():
            if not _ALIAS.fullmatch(alias):
                raise ConfigError(f"proxy.aliases: {alias!r}: an alias is made of letters, digits, - and _")
            target = self._allow(entry, f"proxy.aliases.{alias}")
            self._aliases[alias] = Target(target.scheme, target.host, target.port, target.path, alias)

    def _allow(self, entry: str, where: str) -> Target:
        match = _TARGET.fullmatch(entry)
        if match is None or not match["scheme"]:
            raise ConfigError(f"{where}: must be a base URL, such as https://api.openai.com")
        try:
            target = _read(match)
        except InvalidRequest as error:
            raise ConfigError(f"{where}: {error.message}") from None
        literal = _literal(target.host)
        if literal is not None and (literal.is_unspecified or literal.is_multicast):
            raise ConfigError(f"{where}: nothing can be reached at this address")
        self._allowed.append(target)
        if match["port"]:
            self._inside.add((target.host, target.port))
        return target

    def target(self, written: str, *, default_path: str = "") -> Target:
        """The target that a caller wrote: a base URL, a host that the list has, or an alias; decoded already.

        A host alone stands for the first entry of the list with that host, its scheme, port and path included; where the entry has
        no path, for `default_path` below it.

        Raises `InvalidRequest` for what is none of these, and `PermissionDenied` for what is not on the list.
        """
        if alias := self._aliases.get(written):
            return alias
        match = _TARGET.fullmatch(written) if len(written) <= _LONGEST else None
        if match is None:
            raise InvalidRequest("The target is not a base URL, a host or an alias.")
        target = _read(match)
        if not match["scheme"]:
            return self._listed(target, any_port=not match["port"], default_path=default_path)
        if not any(entry.covers(target) for entry in self._allowed):
            raise _denied()
        return target

    def _listed(self, bare: Target, *, any_port: bool, default_path: str) -> Target:
        for entry in self._allowed:
            if entry.host == bare.host and (any_port or entry.port == bare.port):
                path = bare.path or entry.path or default_path
                target = Target(entry.scheme, entry.host, entry.port, path, entry.name)
                if entry.covers(target):
                    return target
        raise _denied()

    def permits(self, host: str, port: int, address: str) -> bool:
        """Whether `address` may be connected to as one that the name `host` stands for."""
        match reach(ipaddress.ip_address(address)):
            case Reach.PUBLIC:
                return True
            case Reach.PRIVATE:
                return (host, port) in self._inside
            case Reach.NEVER:
                return False


class Reach(Enum):
    """Who may be at an address."""

    PUBLIC = "anybody on the Internet"
    PRIVATE = "somebody inside, who has to be named"
    NEVER = "nobody that a name may stand for"


def reach(address: Address) -> Reach:
    """Which kind of address this is."""
    if any(address in network for network in _NEVER) or _is_isatap(address):
        return Reach.NEVER
    if any(address in network for network in _PRIVATE):
        return Reach.PRIVATE
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC_V6:
        return Reach.NEVER
    odd = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    return Reach.PUBLIC if address.is_global and not odd else Reach.NEVER


def _is_isatap(address: Address) -> bool:
    """Whether an interface that leads to an IPv4 address is named at the end of an IPv6 one: RFC 5214, section 6.1."""
    return address.version == 6 and int(address) >> 32 & 0xFCFF_FFFF == 0x5EFE


class PinnedResolver(AbstractResolver):
    """What an aiohttp connector asks for addresses: those that were checked, and no others.

    The connector does not ask for a host that is an address already: such a one is on the operator's list, digit for digit.
    """

    def __init__(self, policy: EgressPolicy, lookup: Lookup | None = None) -> None:
        """`lookup` asks the system, unless told otherwise."""
        self._policy = policy
        self._lookup = lookup or look_up

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Raises `PermissionDenied` if one of the addresses may not be connected to, and `OSError` if there is none."""
        found = await self._lookup(host, port)
        refused = [address for address in found if not self._policy.permits(host, port, address)]
        if refused:
            log.warning("egress_refused", host=host, port=port, addresses=refused)
            raise PermissionDenied("The target's name stands for an address that may not be reached.")
        return resolved(host, port, family, found)

    async def close(self) -> None:
        """There is nothing to close."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses that the system has for a host. Raises `OSError` if it has none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(entry[4][0]) for entry in found]


def resolved(host: str, port: int, family: socket.AddressFamily, addresses: Sequence[str]) -> list[ResolveResult]:
    """Return addresses of a host as a connector takes them, those of `family`. Raises `OSError` if there is none."""
    results = [_result(host, address, port) for address in addresses]
    results = [result for result in results if family in (socket.AF_UNSPEC, result["family"])]
    if not results:
        raise OSError(f"{host} has no address")
    return results


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=socket.AF_INET6 if ":" in address else socket.AF_INET,
        proto=0,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )


def _read(match: re.Match[str]) -> Target:
    """The target in one form. Raises `InvalidRequest`."""
    scheme = (match["scheme"] or "https").lower()
    port = int(match["port"] or _PORTS[scheme])
    if port > 65535:
        raise InvalidRequest("The target's port is not one.")
    path = match["path"]
    if any(not segment.strip(".") for segment in path.split("/")[1:]):
        raise InvalidRequest("The target's path holds a segment of dots.")
    host = _host(match["host"].lower())
    return Target(scheme, host, port, path, host)


def _host(written: str) -> str:
    """A host in its one form, without brackets. Raises `InvalidRequest` for an address that is written in any other form."""
    if written.startswith("["):
        try:
            address = ipaddress.IPv6Address(written[1:-1])
        except ValueError:
            raise InvalidRequest("The target's host is not an IPv6 address.") from None
        if str(address) != written[1:-1] or address.ipv4_mapped is not None:
            raise InvalidRequest(
                "The target's host is an IPv6 address that is not in its shortest form, or that holds an IPv4 one."
            )
        return written[1:-1]
    labels = written.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # Whoever connects would read it as an address, in any of a dozen ways. Only the usual one is allowed.
        if _literal(written) is None:
            raise InvalidRequest("The target's host is a number, but not an IPv4 address of four decimal ones.")
    elif not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidRequest("The target's host is not a host name.")
    return written


def _literal(host: str) -> Address | None:
    """The address that a host is, if it is one in its usual form: Python takes no others."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _denied() -> PermissionDenied:
    return PermissionDenied("The target is not one that this gateway may reach.")
