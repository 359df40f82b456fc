"""The OpenAI chat-completions protocol: OpenAI itself, Azure, and every host that speaks it. Hosts are rows in `hosts`.

Here is the call; `request` and `response` have the two directions of the conversion.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import quote, urlencode

from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from antiphon.config import MAX_MESSAGE_BYTES, ConfigError, ProviderConfig
from antiphon.domain.errors import ProviderCredentials, ProviderError, ProviderProtocolError
from antiphon.domain.events import Batch
from antiphon.domain.request import ChatRequest
from antiphon.net.http import Reply, Transport
from antiphon.net.outbound import DIRECT, Outbound
from antiphon.providers.failure import ERROR_BODY_BYTES, ERROR_BODY_SECONDS, explain, log_refusal, of_status
from antiphon.providers.openai.request import encode
from antiphon.providers.openai.response import ReplyReader

_PATH: Final = "/chat/completions"
_MODEL: Final = "{model}"
_BOM: Final = b"\xef\xbb\xbf"

_AFTER_DONE: Final = 0.25
"""Seconds that usage behind `[DONE]` is waited for, where none has come before and the host does not end the body."""

_AFTER_DONE_BYTES: Final = 64 * 1024
"""As much as is read then."""


class OpenAIProvider:
    """One configured host. Needs no event loop until the first call, and belongs to the loop of that call.

    Raises `ConfigError` if the base URL is missing or no good. A `{model}` in it is replaced by the model's name.
    """

    def __init__(self, name: str, config: ProviderConfig, api_key: SecretStr | None, outbound: Outbound = DIRECT) -> None:
        self.name = name
        self._url = _template(name, config)
        self._fixed_url = None if _MODEL in self._url else URL(self._url)
        self._stream_usage = config.stream_usage
        key = None if api_key is None else api_key.get_secret_value()
        self._key_header = config.auth_header.lower()
        self._headers = _headers(config, key)
        url = URL(self._url.replace(_MODEL, "model"))
        # A value of the query may be a key too.
        self._secrets = (*((key,) if key is not None else ()), *config.headers.values(), *url.query.values())
        # A host of one plain word, as there are within a cluster, could be any word of a message.
        host = url.host or ""
        self._hosts = (url.authority, host) if re.search(r"[^a-z]", host) else ()
        self._transport = Transport(name, config, outbound)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Batch, None]:
        """See `Provider.stream`. A caller that takes every batch lets the connection be used again."""
        body = encode(request, self.name, stream_usage=self._stream_usage)
        url = self._fixed_url or URL(self._url.replace(_MODEL, quote(request.model, safe="")))
        headers, secrets = self._credentials(request)
        async with self._transport.post(url, headers, body) as reply:
            begin = await self._begin(reply, secrets, own_key=request.api_key is not None)
            reader = ReplyReader(request, self.name)
            ending = reader.ending
            collected: Batch = []
            size = 0
            try:
                if begin.startswith((b"{", b"[")):
                    yield reader.whole(await reply.read())
                    return
                async for piece in reply:
                    batch = reader.feed(piece)
                    if batch and request.stream:
                        yield batch
                    else:
                        collected += batch
                    size += len(piece)
                    if size > MAX_MESSAGE_BYTES and not request.stream:
                        raise ProviderProtocolError(
                            f"The provider {self.name} sent a reply of more than {MAX_MESSAGE_BYTES} bytes.", provider=self.name
                        )
                    if reader.failure is not None:
                        raise reader.failure
                    if ending.done:
                        break
                    if ending.changed:
                        ending.changed = False
                        reply.end_within(ending.wait())
                if ending.done and not reader.has_usage:
                    reader.feed_after_done(await reply.read_some(_AFTER_DONE_BYTES, _AFTER_DONE))
                yield collected + reader.end(silent=reply.timed_out)
            except ProviderError as error:
                self._explain(error, reply, reader.blame, secrets)
                raise

    async def probe(self) -> int | None:
        """See `Provider.probe`: the list of models."""
        path, _, query = self._url.replace(_MODEL, "model").partition("?")
        url = URL(f"{path.removesuffix(_PATH)}/models{'?' if query else ''}{query}")
        return await self._transport.status_of(url, self._headers)

    @property
    def buffered(self) -> int:
        """See `Provider.buffered`."""
        return self._transport.buffered

    async def close(self) -> None:
        """Ends the connections that are kept open."""
        await self._transport.close()

    def _credentials(self, request: ChatRequest) -> tuple[CIMultiDict[str], tuple[str, ...]]:
        """Return the headers with the key of the request, or the configured one, and all secrets that are sent."""
        if request.api_key is None:
            return self._headers, self._secrets
        key = request.api_key.get_secret_value()
        headers = self._headers.copy()
        headers[self._key_header] = _credential(self._key_header, key)
        return headers, (*self._secrets, key)

    async def _begin(self, reply: Reply, secrets: tuple[str, ...], *, own_key: bool) -> bytes:
        """What the body of a good answer begins with. Raises for any other."""
        if not 200 <= reply.status < 300:
            raise await self._refusal(reply, secrets, own_key=own_key)
        # Hosts get the content type wrong; what the body begins with tells what it is.
        begin = (await reply.peek()).removeprefix(_BOM).lstrip()
        if begin.startswith(b"<"):
            log_refusal(self.name, reply.status, begin, secrets)
            raise ProviderProtocolError(f"The provider {self.name} answered with a web page.", provider=self.name)
        return begin

    def _explain(self, error: ProviderError, reply: Reply, blame: bytes, secrets: tuple[str, ...]) -> None:
        """Log a failure inside a good answer, and tell of it what a caller may read; `blame` is what the provider said of it."""
        if blame:
            log_refusal(self.name, error.status or reply.status, blame, secrets)
            explain(error, blame, (*secrets, *self._hosts))

    async def _refusal(self, reply: Reply, secrets: tuple[str, ...], *, own_key: bool) -> ProviderError:
        body = await reply.read_some(ERROR_BODY_BYTES, ERROR_BODY_SECONDS)
        log_refusal(self.name, reply.status, body, secrets)
        error = of_status(self.name, reply.status, reply.headers, body)
        explain(error, body, (*secrets, *self._hosts))
        if own_key and isinstance(error, ProviderCredentials) and not error.of_model:
            return ProviderCredentials(
                f"The provider {self.name} refused the key of the request.", provider=self.name, status=error.status
            )
        return error


def _template(name: str, config: ProviderConfig) -> str:
    """The URL of the one method that is called, `{model}` still in it."""
    base, _, query = (config.base_url or "").partition("?")
    query = "&".join(filter(None, (query, urlencode(dict(config.query)))))
    text = f"{base.rstrip('/')}{_PATH}{'?' if query else ''}{query}"
    unreadable = ConfigError(f"providers.{name}.base_url: is no URL that can be read")
    if not text.isprintable():  # of line breaks, yarl would leave them out without a word
        raise unreadable
    try:
        url = URL(text.replace(_MODEL, "model"))
    except ValueError:  # which quotes what it cannot read, such as part of a password
        raise unreadable from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f'providers.{name}.base_url: must be a URL such as "https://api.example.com/v1"')
    if url.user is not None or url.password is not None:
        raise ConfigError(f"providers.{name}.base_url: must not hold a password; use api_key_env or headers")
    return text


def _headers(config: ProviderConfig, key: str | None) -> CIMultiDict[str]:
    headers = {
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "antiphon",
    }
    if key is not None:
        name = config.auth_header.lower()
        headers[name] = _credential(name, key)
    headers |= {name.lower(): value for name, value in config.headers.items()}
    return CIMultiDict(headers)


def _credential(header: str, key: str) -> str:
    return f"Bearer {key}" if header == "authorization" else key
