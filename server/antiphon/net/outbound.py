"""The way to a host: directly or through a configured outbound proxy, and the certificate authorities that are trusted.

A proxy looks up the host's name, so the host's addresses are not known here and not checked. No connection is made except to the
proxy: `ProxyResolver` returns addresses for no other name. The proxy's password is not part of any URL that a client gets, so no
error can contain it. Proxies named by the environment (`HTTPS_PROXY`) are not used.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Final

from multidict import CIMultiDict
from yarl import URL

from antiphon.config import ConfigError, OutboundConfig
from antiphon.domain.errors import PermissionDenied
from antiphon.net.authorities import Authorities
from antiphon.net.egress import look_up

_SCHEMES: Final = ("http", "https")


class ProxyResolver:
    """A resolver for a client that uses a proxy: it only returns addresses of the proxy."""

    def __init__(self, host: str) -> None:
        self._host = host

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the proxy's addresses. Raises `PermissionDenied` for any other host, and `OSError` if there is no address."""
        if host != self._host:
            raise PermissionDenied("This gateway connects to nothing but its outbound proxy.")
        return await look_up(host, port)


class Outbound:
    """One way to reach hosts, for any client."""

    def __init__(self, proxy: URL | None = None, authorities: Authorities | None = None) -> None:
        """Take the proxy's URL, with its user and password, and the authorities; None: no proxy, and those of the system."""
        self._authorities = authorities
        self.authorization: str | None = None
        """The value of `proxy-authorization`."""
        self.proxy: URL | None = None
        """The proxy, without its password."""
        self.resolver: ProxyResolver | None = None
        """The resolver for a client that can be given one."""
        if proxy is not None:
            if proxy.user is not None or proxy.password is not None:
                pair = f"{proxy.user or ''}:{proxy.password or ''}"
                self.authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
            self.proxy = proxy.with_user(None)
            self.resolver = ProxyResolver(self.proxy.raw_host or "")
        self.is_default = proxy is None and authorities is None
        """Whether there is neither a proxy nor a file of authorities."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """Return the context that verifies certificates; None: the system's. It is a new object when the file has changed."""
        return None if self._authorities is None else self._authorities.context()

    def options(self, url: URL, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return how a request with these headers is sent: `headers`, and if needed `ssl`, `proxy` and `proxy_headers`."""
        options: dict[str, Any] = {"headers": headers}
        if (context := self.tls) is not None:
            options["ssl"] = context
        if self.proxy is not None:
            options["proxy"] = self.proxy
            sent = CIMultiDict({"user-agent": "antiphon"})
            if self.authorization is not None:
                sent["proxy-authorization"] = self.authorization
            if url.scheme == "https":
                options["proxy_headers"] = sent
            elif self.authorization is not None:  # the proxy reads the request itself, and removes this header
                options["headers"] = CIMultiDict(headers)
                options["headers"]["proxy-authorization"] = self.authorization
        return options


DIRECT: Final = Outbound()
"""No proxy, and the authorities that the system trusts."""


def build(section: str, config: OutboundConfig, environment: Mapping[str, str]) -> Outbound:
    """Return what the settings at `section` ask for. Raises `ConfigError`, whose message does not contain the proxy's URL."""
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
    except ValueError:  # its message may contain part of a password
        raise wrong from None
    if url.scheme not in _SCHEMES or not host or port is None or url.path not in ("", "/") or url.query_string or url.fragment:
        raise wrong
    return url
