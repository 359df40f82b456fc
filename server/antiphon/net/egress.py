"""The rules on where callers may make this server connect to: the targets of the proxy paths, and the addresses of their names.

Two checks, one after the other:

1. May this target be reached? The text from the caller must match one strict grammar, and the resulting scheme, host, port and path
   are compared with the operator's list. Nothing is repaired: a text that could be read in two ways is refused.
2. May its address be connected to? The name is looked up, each of its addresses is checked, and the HTTP client gets exactly these
   addresses: the connection goes to what was checked, so a name that changes its addresses a moment later gains nothing.

The addresses that a name may resolve to:

- public ones, always;
- private ones (RFC 1918, loopback, carrier-grade NAT, IPv6 unique local), if the operator's list has the name with an explicit
  port, as in http://models.internal:8000: so the operator states which internal service is meant;
- all others never: link-local with the clouds' metadata services, multicast, unspecified, reserved, and IPv6 that contains an IPv4
  address (mapped, NAT64, 6to4, Teredo, ISATAP). To allow such an address, list the address itself, as in http://169.254.1.2:80.

One forbidden address is enough to refuse a name. This module opens no connection, and knows no provider and no dialect.
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
from msgspec import Struct

from antiphon.config import ConfigError, ProxyConfig
from antiphon.domain.errors import InvalidRequest, PermissionDenied

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host, as text. Raises `OSError` if it has none."""

log = structlog.get_logger(__name__)

_PORTS: Final = {"http": 80, "https": 443}

# The grammar of targets. It leaves out user names, "@", backslashes, "%" (and so zone ids and double encoding), "?", "#", white
# space, control characters, and everything that is not ASCII.
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

_MAX_LENGTH: Final = 2048

_PRIVATE: Final = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10", "::1/128", "fc00::/7")
)
_PUBLIC_V6: Final = ipaddress.IPv6Network("2000::/3")
_FORBIDDEN: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        # Metadata services of clouds outside link-local: Azure, Oracle, Alibaba; AWS, Google, Scaleway over IPv6.
        "168.63.129.16/32",
        "192.0.0.192/32",
        "100.100.100.200/32",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
        "fd00:42::42/128",
        # Anycast relays, benchmarks, and IPv6 that contains IPv4: Teredo and 6to4. Other such ranges are outside 2000::/3.
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "2001::/32",
        "2002::/16",
        "3fff::/20",  # documentation, RFC 9637; unknown to older versions of Python
    )
)


class Target(Struct, frozen=True):
    """The destination of a request. `name` is what a caller may learn of it: the host, or the alias."""

    scheme: str
    host: str
    port: int
    path: str
    """Empty, or segments that each begin with a slash; no slash at the end."""
    name: str

    @property
    def url(self) -> str:
        """Return the base URL in its canonical form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def covers(self, other: Target) -> bool:
        """Return whether `other` is this target, or below its path."""
        same = (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)
        return same and f"{other.path}/".startswith(f"{self.path}/")


class EgressPolicy:
    """The targets and addresses that the operator allows."""

    def __init__(self, config: ProxyConfig) -> None:
        """Read the lists. Raises `ConfigError` for an entry that is not a base URL."""
        self._allowed: list[Target] = []
        self._with_port: set[tuple[str, int]] = set()
        for index, entry in enumerate(config.allow):
            self._allow(entry, f"proxy.allow.{index}")  # the index and not the entry, which may contain a password
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
            target = _parse_target(match)
        except InvalidRequest as error:
            raise ConfigError(f"{where}: {error.message}") from None
        literal = _address(target.host)
        if literal is not None and (literal.is_unspecified or literal.is_multicast):
            raise ConfigError(f"{where}: nothing can be reached at this address")
        self._allowed.append(target)
        if match["port"]:
            self._with_port.add((target.host, target.port))
        return target

    def target(self, written: str, *, default_path: str = "") -> Target:
        """Return the target that a caller named: a base URL, a host on the list, or an alias; already decoded.

        A host alone means the first entry of the list with that host, with its scheme, port and path; if the entry has no path,
        `default_path` is added.

        Raises `InvalidRequest` for any other text, and `PermissionDenied` for a target that is not on the list.
        """
        if alias := self._aliases.get(written):
            return alias
        match = _TARGET.fullmatch(written) if len(written) <= _MAX_LENGTH else None
        if match is None:
            raise InvalidRequest("The target is not a base URL, a host or an alias.")
        target = _parse_target(match)
        if not match["scheme"]:
            return self._find_host(target, any_port=not match["port"], default_path=default_path)
        if not any(entry.covers(target) for entry in self._allowed):
            raise _denied()
        return target

    def _find_host(self, wanted: Target, *, any_port: bool, default_path: str) -> Target:
        for entry in self._allowed:
            if entry.host == wanted.host and (any_port or entry.port == wanted.port):
                path = wanted.path or entry.path or default_path
                target = Target(entry.scheme, entry.host, entry.port, path, entry.name)
                if entry.covers(target):
                    return target
        raise _denied()

    def permits(self, host: str, port: int, address: str) -> bool:
        """Return whether `address`, to which the name `host` resolves, may be connected to."""
        match classify(ipaddress.ip_address(address)):
            case AddressKind.PUBLIC:
                return True
            case AddressKind.PRIVATE:
                return (host, port) in self._with_port
            case AddressKind.FORBIDDEN:
                return False


class AddressKind(Enum):
    """The kinds of addresses."""

    PUBLIC = "public"
    PRIVATE = "private"
    FORBIDDEN = "forbidden"


def classify(address: Address) -> AddressKind:
    """Return the kind of an address."""
    if any(address in network for network in _FORBIDDEN) or _is_isatap(address):
        return AddressKind.FORBIDDEN
    if any(address in network for network in _PRIVATE):
        return AddressKind.PRIVATE
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC_V6:
        return AddressKind.FORBIDDEN
    special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    return AddressKind.PUBLIC if address.is_global and not special else AddressKind.FORBIDDEN


def _is_isatap(address: Address) -> bool:
    """Return whether an IPv6 address ends in an ISATAP interface with an IPv4 address: RFC 5214, section 6.1."""
    return address.version == 6 and int(address) >> 32 & 0xFCFF_FFFF == 0x5EFE


class PinnedResolver:
    """A resolver that only returns checked addresses.

    It is not asked for a host that is already an address: such an address is on the operator's list, digit for digit.
    """

    def __init__(self, policy: EgressPolicy, lookup: Lookup | None = None) -> None:
        """Take the policy; `lookup` uses the system's resolver by default."""
        self._policy = policy
        self._lookup = lookup or look_up

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host.

        Raises `PermissionDenied` if one of them is not allowed, and `OSError` if there is none.
        """
        found = await self._lookup(host, port)
        refused = [address for address in found if not self._policy.permits(host, port, address)]
        if refused:
            log.warning("egress_refused", host=host, port=port, addresses=refused)
            raise PermissionDenied("The target's name resolves to an address that is not allowed.")
        if not found:
            raise OSError(f"{host} has no address")
        return found


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the system's addresses of a host. Raises `OSError` if it has none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(entry[4][0]) for entry in found]


def _parse_target(match: re.Match[str]) -> Target:
    """Return the target in canonical form. Raises `InvalidRequest`."""
    scheme = (match["scheme"] or "https").lower()
    port = int(match["port"] or _PORTS[scheme])
    if port > 65535:
        raise InvalidRequest("The target's port is not valid.")
    path = match["path"]
    if any(not segment.strip(".") for segment in path.split("/")[1:]):
        raise InvalidRequest("The target's path has a segment of dots.")
    host = _canonical_host(match["host"].lower())
    return Target(scheme, host, port, path, host)


def _canonical_host(written: str) -> str:
    """Return a host in canonical form, without brackets. Raises `InvalidRequest` for an address in any other form."""
    if written.startswith("["):
        try:
            address = ipaddress.IPv6Address(written[1:-1])
        except ValueError:
            raise InvalidRequest("The target's host is not an IPv6 address.") from None
        if str(address) != written[1:-1] or address.ipv4_mapped is not None:
            raise InvalidRequest(
                "The target's host is an IPv6 address that is not in its shortest form, or that contains an IPv4 address."
            )
        return written[1:-1]
    labels = written.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # The system would read it as an address, which has a dozen notations. Only the usual one is allowed.
        if _address(written) is None:
            raise InvalidRequest("The target's host is a number, but not an IPv4 address of four decimal numbers.")
    elif not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidRequest("The target's host is not a host name.")
    return written


def _address(host: str) -> Address | None:
    """Return the address that a host is, if written in its usual form (Python accepts no other), else None."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _denied() -> PermissionDenied:
    return PermissionDenied("The target is not one that this gateway may reach.")
