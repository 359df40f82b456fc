"""The way out to a host: directly, or by the outbound proxy that the operator names, and whose certificates are good on it.

With a proxy, it is the proxy that looks the host's name up, so nothing is known here of the host's addresses, and none is checked;
and no connection is ever made past the proxy: of no other name than the proxy's does `ProxyResolver` give an address. Its password
is in no URL that a client sees, so that no error can quote it. Proxies that the environment names are not followed.
"""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from antiphon.config import ConfigError, OutboundConfig
from antiphon.domain.errors import PermissionDenied
from antiphon.net.authorities import Authorities
from antiphon.net.egress import look_up, resolved

_SCHEMES: Final = ("http", "https")


class ProxyResolver(AbstractResolver):
    """What an aiohttp connector asks for addresses that reaches its hosts by a proxy: it has those of the proxy alone."""

    def __init__(self, host: str) -> None:
        self._host = host

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Raises `PermissionDenied` for any other host, and `OSError` if there is no address."""
        if host != self._host:
            raise PermissionDenied("This gateway connects to nothing but its outbound proxy.")
        return resolved(host, port, family, await look_up(host, port))

    async def close(self) -> None:
        """There is nothing to close."""


class Outbound:
    """One way out, for any client."""

    def __init__(self, proxy: URL | None = None, authorities: Authorities | None = None) -> None:
        """`proxy` may hold a user and a password."""
        self._authorities = authorities
        self.authorization: str | None = None
        """What `proxy-authorization` says."""
        self.proxy: URL | None = None
        """Without its password."""
        self.resolver: ProxyResolver | None = None
        """What a client that knows how is to ask for addresses."""
        if proxy is not None:
            if proxy.user is not None or proxy.password is not None:
                pair = f"{proxy.user or ''}:{proxy.password or ''}"
                self.authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
            self.proxy = proxy.with_user(None)
            self.resolver = ProxyResolver(self.proxy.raw_host or "")
        self.is_usual = proxy is None and authorities is None
        """Whether it is what there is without any setting."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What certificates are checked with; None: what the system trusts. Another object when the file has changed."""
        return None if self._authorities is None else self._authorities.context()

    def options(self, url: URL, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return what aiohttp is to be told about a request with these headers, the headers included."""
        options: dict[str, Any] = {"headers": headers}
        if (context := self.tls) is not None:
            options["ssl"] = context
        if self.proxy is not None:
            options["proxy"] = self.proxy
            told = CIMultiDict({"user-agent": "antiphon"})
            if self.authorization is not None:
                told["proxy-authorization"] = self.authorization
            if url.scheme == "https":
                options["proxy_headers"] = told
            elif self.authorization is not None:  # the proxy reads the request itself, and takes this header away
                options["headers"] = CIMultiDict(headers)
                options["headers"]["proxy-authorization"] = self.authorization
        return options


DIRECT: Final = Outbound()
"""Without any setting."""


def build(section: str, config: OutboundConfig, environment: Mapping[str, str]) -> Outbound:
    """Return the way out that the settings at `section` tell. Raise `ConfigError`, which tells nothing of the proxy's URL."""
    authorities = None if config.ca is None else Authorities(f"{section}.ca", config.ca)
    written = config.proxy_url(section, environment)
    if written is None:
        return DIRECT if authorities is None else Outbound(None, authorities)
    url = _proxy(f"{section}.proxy", written.get_secret_value())
    if config.proxy is not None and (url.user is not None or url.password is not None):
        raise ConfigError(f"{section}.proxy: must not hold a password; use proxy_env or proxy_file")
    return Outbound(url, authorities)


def _proxy(setting: str, written: str) -> URL:
    wrong = ConfigError(f'{setting}: must be a URL such as "http://proxy.internal:3128"; SOCKS is not known')
    try:
        url = URL(written)
        host, port = url.host, url.explicit_port
    except ValueError:  # which quotes what it cannot read, such as part of a password
        raise wrong from None
    if url.scheme not in _SCHEMES or not host or port is None or url.path not in ("", "/") or url.query_string or url.fragment:
        raise wrong
    return url
