"""Requests to the endpoints that issue tokens: OAuth 2.0 (RFC 6749, sections 4 and 5), and the metadata services of clouds.

No redirect is followed, and nothing of an answer but its token is kept. An endpoint's own text may quote what was sent, so only
the word in its `error`, and Microsoft's number of an error, get into a message.
"""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

import httpx2
import orjson

from antiphon.config import ConfigError
from antiphon.net.fetch import FetchedAnswer, Fetcher, FetchFailed, is_loopback
from antiphon.net.outbound import DIRECT, Outbound
from antiphon.providers.credentials.token import AccessToken, TokenFailed
from antiphon.providers.retry_advice import retry_after

MAX_BYTES: Final = 64 * 1024
"""The largest answer, in bytes."""

_HEADERS: Final = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "antiphon"}

_WORD: Final = re.compile(r"[A-Za-z_]{1,64}")
_ENTRA_CODE: Final = re.compile(r"AADSTS\d{4,10}")

_TRANSIENT: Final = frozenset({404, 408, 410, 425, 429})
"""Statuses below 500 after which another try may succeed: 404 and 410 are those of Azure's metadata service while it starts."""

_MAX_CHARACTERS: Final = 32 * 1024
"""The most characters of a token: a head of a request has to hold it."""

_LONGEST: Final = 7 * 86400.0
"""The most seconds for which a token is used, whatever its answer says."""

_METADATA_NAMES: Final = frozenset({"localhost", "metadata.google.internal"})


class Endpoint:
    """One URL that issues tokens."""

    def __init__(self, fetcher: Fetcher, url: httpx2.URL, outbound: Outbound = DIRECT) -> None:
        self._fetcher = fetcher
        self._url = url
        self._outbound = outbound

    async def post_form(self, fields: Mapping[str, str], headers: Mapping[str, str] = {}) -> Mapping[str, Any]:
        """Send a form, and return the JSON object of the answer. Raises `TokenFailed`."""
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return await self._send("POST", {**kind, **headers}, urlencode(fields).encode())

    async def post_json(self, value: object, headers: Mapping[str, str]) -> Mapping[str, Any]:
        """Send JSON, and return the JSON object of the answer. Raises `TokenFailed`."""
        return await self._send("POST", {"content-type": "application/json", **headers}, orjson.dumps(value))

    async def get(self, headers: Mapping[str, str], *, answered_with: Mapping[str, str] = {}) -> Mapping[str, Any]:
        """Return the JSON object at the URL. Raises `TokenFailed`, also if the answer lacks the headers `answered_with`."""
        return await self._send("GET", headers, None, answered_with)

    async def _send(
        self, method: str, headers: Mapping[str, str], body: bytes | None, answered_with: Mapping[str, str] = {}
    ) -> Mapping[str, Any]:
        try:
            answer = await self._fetcher.send(method, self._url, {**_HEADERS, **headers}, body, MAX_BYTES, self._outbound)
        except FetchFailed as error:
            raise TokenFailed(str(error)) from None
        if answer.status != 200:
            raise refusal(answer)
        if any(answer.headers.get(name) != value for name, value in answered_with.items()):
            raise TokenFailed("the answer is not one of the metadata server")
        found = json_object(answer.body)
        if found is None:
            raise TokenFailed("the answer is not a JSON object")
        return found


def read_token(found: Mapping[str, Any], *, value: str = "access_token") -> AccessToken:
    """Return the token of an answer: RFC 6749, section 5.1, or one whose end is a time. Raises `TokenFailed`.

    Numbers may be texts, as Azure's metadata services have them.
    """
    token = found.get(value)
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not 0 < len(token) <= _MAX_CHARACTERS:
        raise TokenFailed("the answer has no token")
    kind = found.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokenFailed("the answer has a token of another kind than Bearer")
    lifetime = _number(found.get("expires_in"))
    if lifetime is None and (end := _end(found)) is not None:
        lifetime = end - time.time()
    if lifetime is None:
        raise TokenFailed("the answer does not tell when the token expires")
    if lifetime <= 0:
        raise TokenFailed("the token has expired already; the clocks may differ")
    return AccessToken(token, min(lifetime, _LONGEST))


def token_url(written: str, where: str) -> httpx2.URL:
    """Return a URL to which credentials may be sent: https, or http to this host. Raises `ConfigError`, which names `where`."""
    url = _url(written, where)
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host)):
        raise ConfigError(f"{where}: must be an https URL")
    return url


def metadata_url(written: str, where: str) -> httpx2.URL:
    """Return the URL of a metadata service: https, or http to an address of this machine or its network.

    Such a service has no certificate. Raises `ConfigError`, which names `where`.
    """
    url = _url(written, where)
    if url.scheme != "https" and not (url.scheme == "http" and _is_near(url.host)):
        raise ConfigError(f"{where}: must be an http URL of an address of this machine or its network, or an https URL")
    return url


def _url(written: str, where: str) -> httpx2.URL:
    try:
        url = httpx2.URL(written)
    except httpx2.InvalidURL:
        raise ConfigError(f"{where}: is not a URL") from None
    if not url.host or url.userinfo or url.fragment:
        raise ConfigError(f"{where}: must be a URL without password and fragment")
    return url


def _is_near(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in _METADATA_NAMES
    return not address.is_global and not address.is_multicast and not address.is_unspecified


def refusal(answer: FetchedAnswer) -> TokenFailed:
    """Return the error for an answer that is not 200: RFC 6749, section 5.2, and the errors of Google's APIs."""
    found = json_object(answer.body) or {}
    error = found.get("error")
    word = error.get("status") if isinstance(error, dict) else error
    code = _ENTRA_CODE.search(str(found.get("error_description", "")))
    words = [f"status {answer.status}"]
    if isinstance(word, str) and _WORD.fullmatch(word):
        words.append(word)
    if code is not None:
        words.append(code[0])
    transient = answer.status >= 500 or answer.status in _TRANSIENT
    return TokenFailed(", ".join(words), refused=not transient, retry_after=retry_after(answer.headers) if transient else None)


def json_object(body: bytes) -> Mapping[str, Any] | None:
    """Return the JSON object in an answer; None if it is none."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _end(found: Mapping[str, Any]) -> float | None:
    """Return the end of a token as seconds since 1970; None if there is none."""
    end = _number(found.get("expires_on"))
    if end is None and isinstance(written := found.get("expireTime"), str):
        try:
            return datetime.fromisoformat(written).timestamp()
        except (ValueError, OverflowError, OSError):  # the last two for a time without a zone that the system does not know
            return None
    return end


def _number(value: object) -> float | None:
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        return float(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None
