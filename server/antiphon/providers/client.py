"""Calls a provider over HTTP: sends the request with its credentials, and reads the answer. The same for every protocol.

A protocol supplies the encoder of the body and the reader of the answer, both without I/O, and the authorization of its calls.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, Protocol

from msgspec import Struct
from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.domain.errors import ProviderCredentials, ProviderError, ProviderProtocolError, ProviderUnavailable
from antiphon.domain.events import Batch, Usage
from antiphon.domain.models import ModelInfo
from antiphon.domain.request import ChatRequest
from antiphon.domain.warnings import Warnings, ignore
from antiphon.net.http import HttpResponse, Transport
from antiphon.providers.failure import ERROR_BODY_BYTES, ERROR_BODY_SECONDS, error_of_status, explain, log_refusal
from antiphon.providers.model_list import ReadPage, named, unreadable

_BOM: Final = b"\xef\xbb\xbf"

_AFTER_DONE: Final = 0.25
"""Seconds to wait for usage after the end of a reply, if none has arrived before and the host does not end the body."""

_AFTER_DONE_BYTES: Final = 64 * 1024
"""The most bytes read during that wait."""

_SMALL_PAGE: Final = 32 * 1024
"""Bytes of a page that is read at once. Reading a longer one takes up to 50 ms, in which other calls have their turns."""

_MAX_PAGES: Final = 50
_MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""The most pages of a list of models, and the size of each: OpenRouter's has one, of less than 1 MiB."""


class EndState(Protocol):
    """What a reader knows about the end of its reply."""

    done: bool
    """The provider sent its end-of-reply marker."""
    changed: bool
    """The time that `wait` returns starts again. The caller resets this flag."""

    def wait(self) -> float | None:
        """Return the seconds of silence after which the reply counts as ended; None while it is unfinished."""
        ...


class Reader(Protocol):
    """Reads the answer to one request. No I/O."""

    failure: ProviderError | None
    """The error to raise after the batch that `feed` returned."""
    error_body: bytes
    """The provider's own text about the failure, for the log."""

    @property
    def ending(self) -> EndState:
        """Return what is known about the end of the reply."""
        ...

    @property
    def has_output(self) -> bool:
        """Whether the model has produced anything."""
        ...

    @property
    def has_usage(self) -> bool:
        """Return whether the provider has reported the tokens used."""
        ...

    def feed(self, data: bytes) -> Batch:
        """Return the events that these bytes complete; may be empty. Raises subclasses of `ProviderError`."""
        ...

    def feed_after_done(self, data: bytes) -> None:
        """Read data that follows the end of the reply. Raises nothing."""
        ...

    def end(self, *, silent: bool = False) -> Batch:
        """Return the last batch. Raises `ProviderProtocolError` if the reply is incomplete.

        `silent`: nothing marked the end of the body: the host was silent for the time of `EndState.wait`, or closed the connection.
        """
        ...

    def break_off(self) -> Batch:
        """Return everything held back, as the reply breaks off; may be empty. Raises nothing."""
        ...

    def read_object(self, body: bytes) -> Batch:
        """Return all events of an answer that is one JSON object. Raises subclasses of `ProviderError`."""
        ...


class Prepared(Struct, frozen=True):
    """A request that is ready to be sent, and how its answer is read."""

    url: URL
    body: bytes
    reader: Callable[[], Reader]
    """Returns the reader of the answer."""
    headers: Mapping[str, str] = {}
    """Headers of this call alone. They replace those of its credentials."""
    warnings: Warnings = ()
    """The parameters that the body does not have as the caller set them."""
    plain: Callable[[bytes], Batch | None] | None = None
    """Returns all events of an answer that is one JSON object, if it is a usual one that needs no reader; None for any other."""


class Credentials(Struct, frozen=True):
    """The authorization of one call: its headers, and all secrets in them, which no log may show."""

    headers: CIMultiDict[str]
    secrets: tuple[str, ...]


class Auth(Protocol):
    """Authorizes calls, for example by a header, a signature over the request, or a token that is fetched first."""

    @property
    def fixed(self) -> Credentials | None:
        """Return the authorization of all calls without a key of the caller; None: each has to ask for its own."""
        ...

    async def credentials(self, url: URL, body: bytes, own_key: SecretStr | None) -> Credentials:
        """Return the authorization of a call. `own_key` is the caller's own key, used instead of the gateway's.

        Raises subclasses of `ProviderError`.
        """
        ...

    async def replacement(self, refused: Credentials) -> Credentials | None:
        """Return other credentials, as the provider refused these with 401; None if there are none.

        Raises subclasses of `ProviderError`.
        """
        ...

    async def close(self) -> None:
        """End what is in progress."""
        ...


class HeaderAuth:
    """Sends the key in a header: as a bearer token in `authorization`, as it is in any other."""

    def __init__(
        self, header: str, key: str | None, headers: CIMultiDict[str], configured: Mapping[str, str], secrets: Iterable[str]
    ) -> None:
        """`headers` are those of the protocol, overridden by the `configured` ones. `secrets` are those in the URL."""
        self._header = header.lower()
        self._headers = headers
        if key is not None:
            self._headers[self._header] = self._value(key)
        for name, value in configured.items():
            self._headers[name.lower()] = value
        self._secrets = (*(() if key is None else (key,)), *configured.values(), *secrets)
        self.fixed = Credentials(self._headers, self._secrets)

    async def credentials(self, url: URL, body: bytes, own_key: SecretStr | None) -> Credentials:
        if own_key is None:
            return self.fixed
        key = own_key.get_secret_value()
        headers = self._headers.copy()
        headers[self._header] = self._value(key)
        return Credentials(headers, (*self._secrets, key))

    async def replacement(self, refused: Credentials) -> Credentials | None:
        """Return None: there is one key."""
        return None

    async def close(self) -> None:
        """Do nothing: nothing is in progress."""

    def _value(self, key: str) -> str:
        return f"Bearer {key}" if self._header == "authorization" else key


class ProviderClient:
    """Makes the calls of one provider. Needs no event loop until the first call, and then belongs to the loop of that call."""

    def __init__(self, name: str, transport: Transport, auth: Auth, url: URL) -> None:
        """`url` is one of the URLs that are called. Its host is removed from everything that callers read."""
        self._name = name
        self._auth = auth
        # A host name of one plain word, as within a cluster, might be an ordinary word of a message.
        host = url.host or ""
        self._hosts = (url.authority, host) if re.search(r"[^a-z]", host) else ()
        self._transport = transport

    async def stream(  # noqa: C901, PLR0915  # a branch for each way in which an answer comes or ends
        self, request: ChatRequest, prepare: Callable[[ChatRequest], Prepared], warn: Callable[[Warnings], None] = ignore
    ) -> AsyncGenerator[Batch, None]:
        """Send a request, and yield its events (see `Provider.stream`). `prepare` encodes it.

        A consumer that reads every batch lets the connection be reused.
        """
        prepared = prepare(request)
        warn(prepared.warnings)
        own_key = request.api_key is not None
        credentials = None if own_key else self._auth.fixed
        if credentials is None:
            credentials = await self._auth.credentials(prepared.url, prepared.body, request.api_key)
        reply = await self._post(prepared, credentials)
        if reply.status == 401 and not own_key:
            reply, credentials = await self._repeated(reply, prepared, credentials)
        secrets = credentials.secrets
        with reply:
            if not 200 <= reply.status < 300:
                raise await self._refusal(reply, secrets, own_key=own_key)
            # Hosts send wrong content types, so the start of the body decides.
            begin = (await reply.peek()).removeprefix(_BOM).lstrip()
            if begin.startswith(b"<"):
                raise self._web_page(reply, begin, secrets)
            whole = await reply.read() if begin.startswith((b"{", b"[")) else None
            if whole is not None and prepared.plain is not None and (plain := prepared.plain(whole)) is not None:
                yield plain
                return
            reader = prepared.reader()
            ending = reader.ending
            collected: Batch = []
            size = 0
            coalesces = has_usage = False
            try:
                if whole is not None:
                    yield reader.read_object(whole)
                    return
                async for piece in reply:
                    batch = reader.feed(piece)
                    if ending.done:
                        has_usage = reader.has_usage
                    # What arrives with the end is passed on with it: a message less for each stream.
                    if batch and request.stream and not has_usage:
                        yield batch
                        if not coalesces and reader.has_output:
                            coalesces = True
                            reply.coalesce()
                    else:
                        collected += batch
                    size += len(piece)
                    if size > MAX_MESSAGE_BYTES and not request.stream:
                        raise ProviderProtocolError(
                            f"The provider {self._name} sent a reply of more than {MAX_MESSAGE_BYTES} bytes.", provider=self._name
                        )
                    if reader.failure is not None:
                        raise reader.failure
                    if ending.done:
                        break
                    if ending.changed:
                        ending.changed = False
                        reply.end_within(ending.wait())
                if ending.done and not has_usage:
                    reader.feed_after_done(await reply.read_some(_AFTER_DONE_BYTES, _AFTER_DONE))
                yield collected + reader.end(silent=reply.is_end_uncertain)
            except ProviderError as error:
                self._explain(error, reply, reader.error_body, secrets)
                held: Batch = collected + reader.break_off()
                if not request.stream:
                    held = _usage_in(held)
                if held:
                    yield held
                raise

    async def status_of(self, url: URL) -> int:
        """Return the HTTP status of a free request with the gateway's own key. Raises subclasses of `ProviderError`."""
        credentials = await self._auth.credentials(url, b"", None)
        return await self._transport.status_of(url, credentials.headers)

    async def list_models(self, url: URL, read_page: ReadPage) -> tuple[ModelInfo, ...]:
        """Return the models of all pages of a list, which begins at `url`, read with the gateway's own key. Logs nothing.

        Raises subclasses of `ProviderError`.
        """
        found: list[ModelInfo] = []
        query: Mapping[str, str] = {}
        for _ in range(_MAX_PAGES):
            page_url = url.update_query(query)
            credentials = await self._auth.credentials(page_url, b"", None)
            with await self._transport.get(page_url, credentials.headers) as reply:
                if not 200 <= reply.status < 300:
                    body = await reply.read_some(ERROR_BODY_BYTES, ERROR_BODY_SECONDS)
                    raise error_of_status(self._name, reply.status, reply.headers, body)
                body = await reply.read(_MAX_PAGE_BYTES)
            try:
                page = read_page(body) if len(body) < _SMALL_PAGE else await asyncio.to_thread(read_page, body)
            except ValueError:
                raise unreadable(self._name) from None
            found += page.models
            if not page.next_query or page.next_query == query:
                break
            query = page.next_query
        return named(found)

    @property
    def buffered(self) -> int:
        """Return the bytes of replies that were received but not read yet. Safe to call from any thread."""
        return self._transport.buffered

    async def close(self) -> None:
        """Close the connections that are kept open."""
        await self._auth.close()
        await self._transport.close()

    def _post(self, prepared: Prepared, credentials: Credentials) -> Coroutine[Any, Any, HttpResponse]:
        headers = credentials.headers
        if prepared.headers:
            headers = headers.copy()
            headers.update(prepared.headers)
        return self._transport.post(prepared.url, headers, prepared.body)

    async def _repeated(
        self, refused: HttpResponse, prepared: Prepared, credentials: Credentials
    ) -> tuple[HttpResponse, Credentials]:
        """After a 401, return the answer to a repetition with other credentials, and these; if there are none, what was refused.

        Raises subclasses of `ProviderError`.
        """
        try:
            other = await self._auth.replacement(credentials)
        except BaseException:
            refused.close(finished=False)
            raise
        if other is None:
            return refused, credentials
        refused.close(finished=True)
        # Nothing was done for the refused request, so this costs nothing twice.
        return await self._post(prepared, other), Credentials(other.headers, (*credentials.secrets, *other.secrets))

    def _web_page(self, reply: HttpResponse, begin: bytes, secrets: tuple[str, ...]) -> ProviderProtocolError:
        """Return the error for a web page in place of an answer, and log it."""
        log_refusal(self._name, reply.status, begin, secrets)
        return ProviderProtocolError(f"The provider {self._name} answered with a web page.", provider=self._name)

    def _explain(self, error: ProviderError, reply: HttpResponse, error_body: bytes, secrets: tuple[str, ...]) -> None:
        """Log a failure inside a 2xx answer, and add to `error` the parts of `error_body` that the caller may read.

        `error_body` is the provider's text about the failure; nothing is logged or added if it is empty.
        """
        if isinstance(error, ProviderUnavailable):
            error.was_reached = True
        if error_body:
            log_refusal(self._name, error.status or reply.status, error_body, secrets)
            explain(error, error_body, (*secrets, *self._hosts))

    async def _refusal(self, reply: HttpResponse, secrets: tuple[str, ...], *, own_key: bool) -> ProviderError:
        """Return the error for an answer that is not 2xx, and log it. `own_key`: the call used the caller's key."""
        body = await reply.read_some(ERROR_BODY_BYTES, ERROR_BODY_SECONDS)
        log_refusal(self._name, reply.status, body, secrets)
        error = error_of_status(self._name, reply.status, reply.headers, body)
        explain(error, body, (*secrets, *self._hosts))
        if own_key and isinstance(error, ProviderCredentials) and not error.is_about_model:
            return ProviderCredentials(
                f"The provider {self._name} refused the key of the request.", provider=self._name, status=error.status
            )
        return error


def _usage_in(batch: Batch) -> Batch:
    """Return the tokens used that a batch tells of."""
    return [event for event in batch if type(event) is Usage]
