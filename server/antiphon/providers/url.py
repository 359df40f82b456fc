"""The URLs and headers that calls of every protocol have."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from multidict import CIMultiDict
from yarl import URL

from antiphon.config import ConfigError, ProviderConfig

MODEL: Final = "{model}"
"""The part of a base URL that is replaced by the model's name."""


def template(name: str, config: ProviderConfig, path: str) -> str:
    """Return the URL of `path` at the provider `name`, with `MODEL` still in it.

    Raises `ConfigError` if the base URL is missing or invalid.
    """
    base, _, query = (config.base_url or "").partition("?")
    query = "&".join(filter(None, (query, urlencode(dict(config.query)))))
    text = f"{base.rstrip('/')}{path}{'?' if query else ''}{query}"
    unreadable = ConfigError(f"providers.{name}.base_url: is not a valid URL")
    if not text.isprintable():  # yarl would drop line breaks silently
        raise unreadable
    try:
        url = URL(text.replace(MODEL, "model"))
    except ValueError:  # its message may quote part of a password
        raise unreadable from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f'providers.{name}.base_url: must be a URL such as "https://api.example.com/v1"')
    if url.user is not None or url.password is not None:
        raise ConfigError(f"providers.{name}.base_url: must not hold a password; use api_key_env or headers")
    return text


def headers() -> CIMultiDict[str]:
    """Return the headers of a call without its credentials."""
    return CIMultiDict(
        {
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": "antiphon",
        }
    )
