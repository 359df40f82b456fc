"""Authorizes calls with access tokens that are fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from antiphon.providers.client import Auth, Credentials, HeaderAuth
from antiphon.providers.credentials.cache import TokenCache

_HEADER = "authorization"
_SCHEME = "Bearer "


class TokenAuth:
    """Sends a fetched token as a bearer token. A caller's own key is sent in its place as `HeaderAuth` sends it."""

    fixed: Final = None

    def __init__(
        self, tokens: TokenCache, header: str, headers: CIMultiDict[str], configured: Mapping[str, str], secrets: Iterable[str]
    ) -> None:
        """See `HeaderAuth`; `header` is that of a caller's own key."""
        headers.update(tokens.headers)
        self._fixed = HeaderAuth(header, None, headers, configured, secrets)
        self._tokens = tokens
        self._made: tuple[str, Credentials] | None = None

    async def credentials(self, url: URL, body: bytes, own_key: SecretStr | None) -> Credentials:
        if own_key is not None:
            return await self._fixed.credentials(url, body, own_key)
        return self._with(await self._tokens.get())

    async def replacement(self, refused: Credentials) -> Credentials | None:
        """Return other credentials than those that the provider refused; None if they would be no better."""
        token = await self._tokens.replace(refused.headers[_HEADER].removeprefix(_SCHEME))
        return None if token is None else self._with(token)

    async def close(self) -> None:
        """Cancel a fetch in progress."""
        await self._tokens.close()

    def _with(self, token: str) -> Credentials:
        """Return the credentials with a token, the same object for all calls with it."""
        if self._made is None or self._made[0] != token:
            fixed = self._fixed.fixed
            headers = fixed.headers.copy()
            headers[_HEADER] = f"{_SCHEME}{token}"
            self._made = token, Credentials(headers, (*fixed.secrets, token))
        return self._made[1]


def authorize(
    key: SecretStr | TokenCache | None,
    header: str,
    headers: CIMultiDict[str],
    configured: Mapping[str, str],
    secrets: Iterable[str],
) -> Auth:
    """Return what authorizes the calls of a provider with its API key, its fetched token, or neither. See `HeaderAuth`."""
    if isinstance(key, TokenCache):
        return TokenAuth(key, header, headers, configured, secrets)
    return HeaderAuth(header, None if key is None else key.get_secret_value(), headers, configured, secrets)
