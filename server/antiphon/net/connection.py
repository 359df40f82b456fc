"""One connection of the HTTP client: it sends requests, one after the other, and parses their answers.

`net.connector` makes the connection, httptools parses: docs/adr/0006 tells why.

Hosts close idle connections, and a request may already be on its way then. So connections are kept for less time than common hosts
keep them (`ProviderConfig.keep_alive`), and such a request is sent once more (`was_closed_before_arrival`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict, CIMultiDictProxy

from antiphon.net.coalescing import Coalescer
from antiphon.net.exceptions import BadAnswer, BodyCut, ConnectionLost
from antiphon.net.response import ClientResponse

_CLOSE_MARGIN: Final = 0.05
"""Seconds, in addition to a round trip, within which we must see a close that was sent before the request arrived."""

_MAX_CLOSE_DELAY: Final = 0.5
"""The upper limit in seconds, round trip included: connecting may have been slow for another reason."""

_LARGE: Final = 1024 * 1024
"""Size in bytes from which a body is written in pieces, so that other calls are served in between."""

_PIECE: Final = 64 * 1024
"""Size in bytes of these pieces."""

_UNREAD: Final = 128 * 1024
"""Bytes of a body that may wait for their reader before the host has to wait, too. One more read may follow."""

_MAX_HEAD: Final = 128 * 1024
"""Bytes that may arrive in a row that are no body: a head, interim answers, trailers. One more read may follow."""

_MAX_HEADERS: Final = 256


class Connection(asyncio.Protocol):
    """A connection, which belongs to one request at a time, or to the pool. The `on_` methods are called by the parser."""

    def __init__(self, transport: asyncio.Transport, *, opened_in: float, read_timeout: float, coalescer: Coalescer | None) -> None:
        """Take over a connected transport; it took `opened_in` seconds to connect, at least a round trip.

        `read_timeout` is in seconds. `coalescer` joins reads; None: each is passed on at once.
        """
        self.transport: Final = transport
        self.idle_since = 0.0
        """The time of the event loop when it was given back to the pool; 0 until then."""
        self.on_reusable: Callable[[Connection], None]
        """Called when an answer has ended and the next request can be sent."""
        self.on_lost: Callable[[Connection], None]
        """Called when the connection is closed, whoever closed it. Both are set by the pool."""
        self._loop = asyncio.get_running_loop()
        self._opened_in = opened_in
        self._read_timeout = read_timeout
        self._coalescer = coalescer
        self._response: ClientResponse | None = None
        self._sent_at = 0.0
        self._heard_at = 0.0  # when the read time-out began
        self._timer: asyncio.TimerHandle | None = None
        self._upload: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None  # while the transport's buffer is full
        self._answered = False  # whether a byte has arrived since the request
        self._is_interim = False
        self._is_complete = False
        self._is_persistent = False
        self._overhead = 0  # bytes since the last one of a body
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []  # of the present read
        self._coalesces = False  # whether reads of this body may be delayed: its first token has arrived
        self._is_full = False  # reading is paused as the reader is slow,
        self._is_held = False  # or for the coalescer
        self.on_body = self._body.append
        self._parser = HttpResponseParser(self)
        # What many hosts get wrong. Nobody else reads the same bytes, who might understand them in another way.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        transport.set_protocol(self)

    @property
    def unread(self) -> int:
        """Return the number of bytes of the present body that arrived and were not read yet. Thread-safe."""
        response = self._response
        return 0 if response is None else response.size

    def send(self, head: bytes, body: bytes | None) -> ClientResponse:
        """Send a request, and return its answer, which has not arrived yet. Raises nothing: a failure is one of the answer."""
        loop = self._loop
        self._response = response = ClientResponse(self, loop)
        self._sent_at = self._heard_at = loop.time()
        self._answered = self._is_complete = self._is_persistent = self._coalesces = False
        self._overhead = 0
        if self._timer is None:
            self._timer = loop.call_later(self._read_timeout, self._check_time)
        if body is None or len(body) < _LARGE:
            self.transport.write(head if body is None else head + body)
        else:
            self.transport.write(head)
            self._upload = loop.create_task(self._send_large(body))
        return response

    def was_closed_before_arrival(self) -> bool:
        """Return whether the host closed a connection that is lost now before the request reached it.

        This cannot be known for sure: a host that reads a request and dies at once looks the same. So it is assumed only if the
        connection had been idle, nothing was answered, and the close came within the time of a round trip: a close in reaction to
        the request takes longer, as the host has worked on it.
        """
        if not self.idle_since or self._answered:
            return False
        return self._loop.time() - self._sent_at <= min(self._opened_in + _CLOSE_MARGIN, _MAX_CLOSE_DELAY)

    def resume(self) -> None:
        """Continue to read, as the body that arrived was read. The host has the whole read time-out for more."""
        self._heard_at = self._loop.time()
        if self._is_full:
            self._is_full = False
            self._read_on()

    def coalesce(self) -> None:
        """Delay reads of this body from now on, if the process is busy: the next one, too."""
        self._coalesces = True
        if self._coalescer is not None:
            self._coalescer.after_read(self, 0, self._loop)

    def hold(self) -> None:
        """Stop reading until `release`."""
        if not self._is_held and not self.transport.is_closing():
            self._is_held = True
            self.transport.pause_reading()

    def release(self) -> None:
        """Continue to read, unless the reader of the body is slow."""
        if self._is_held:
            self._is_held = False
            self._read_on()

    def abort(self) -> None:
        """Close at once.

        What is not sent yet is given up: a close that sends it first would wait forever for a host that does not read.
        """
        self._response = None
        if self._upload is not None:
            self._upload.cancel()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, and pass it on."""
        response = self._response
        if response is None:  # nobody has asked
            self.transport.abort()
            return
        self._answered = True
        self._heard_at = self._loop.time()
        error: Exception | None = None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as found:
            error = found
        body = self._body
        if body:
            piece = body[0] if len(body) == 1 else b"".join(body)
            body.clear()
            self._overhead = 0
        else:
            piece = b""
            self._overhead += len(data)
        if self._is_complete:
            self._is_persistent = self._is_persistent and error is None  # otherwise there is more than the answer
            self._end(response, piece)
            return
        if piece:
            response.receive(piece, ended=False)
        if error is None and self._overhead > _MAX_HEAD:
            error = BadAnswer("The head, or what follows the body, is too long.")
        if error is not None:
            response.fail(error)
            self.abort()
        elif response.size > _UNREAD:
            if not self._is_held:
                self.transport.pause_reading()
            self._is_full = True
        elif self._coalesces and piece and self._coalescer is not None:
            self._coalescer.after_read(self, len(data), self._loop)

    def on_message_begin(self) -> None:
        """Begin an answer. The one that was asked for may follow interim ones; after it there must be none."""
        if self._is_complete:
            raise BadAnswer("There are two answers to one request.")
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or after the body a trailer, which is dropped."""
        if len(self._headers) >= _MAX_HEADERS:
            raise BadAnswer("There are too many headers.")
        self._headers.append((name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")))

    def on_headers_complete(self) -> None:
        """Pass on the head of an answer, unless it is an interim one: RFC 9110, section 15.2."""
        status = self._parser.get_status_code()
        self._is_interim = 100 <= status < 200 and status != 101
        if not self._is_interim and self._response is not None:
            self._response.begin(status, CIMultiDictProxy(CIMultiDict(self._headers)))

    def on_message_complete(self) -> None:
        """End an answer."""
        if not self._is_interim:
            self._is_complete = True
            self._is_persistent = self._parser.should_keep_alive()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the present answer, unless its body is one that ends with the connection: RFC 9112, section 6.3."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._upload is not None:
            self._upload.cancel()
        response, self._response = self._response, None
        if response is not None:
            if not response.begun:
                lost = ConnectionLost()
                lost.__cause__ = exc
                response.fail(lost)
            elif exc is None and ends_with_connection(response.headers):
                response.receive(b"", ended=True)
            else:
                response.fail(BodyCut("The body is not complete."))
        self.on_lost(self)

    def pause_writing(self) -> None:
        """Let a large body wait: the transport's buffer is full."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Continue to send a large body."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _end(self, response: ClientResponse, piece: bytes) -> None:
        """Give the connection back, unless the host wants to close it, or has answered without reading the request."""
        self._response = None
        if self._is_held or self._is_full:
            self._is_held = self._is_full = False
            self._read_on()
        upload, self._upload = self._upload, None
        is_sending = (upload is not None and not upload.done()) or self.transport.get_write_buffer_size()
        if self._is_persistent and not is_sending:
            self.on_reusable(self)
        else:
            self._upload = upload
            self.abort()
        response.receive(piece, ended=True)

    def _read_on(self) -> None:
        self._heard_at = self._loop.time()  # the host may have sent something
        if not (self._is_held or self._is_full or self.transport.is_closing()):
            self.transport.resume_reading()

    def _check_time(self) -> None:
        """Fail the answer if the read time-out has passed. One timer serves all requests: it is late, and then set anew."""
        self._timer = None
        response = self._response
        if response is None:
            return
        now = self._loop.time()
        if self._is_held or response.size:  # it is not the host that is slow
            self._heard_at = now
        left = self._heard_at + self._read_timeout - now
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_time)
        else:
            response.fail(TimeoutError("The host has sent nothing for too long."))
            self.abort()

    async def _send_large(self, body: bytes) -> None:
        """Write a large body in pieces. If the connection is lost meanwhile, the answer fails, and this task is cancelled."""
        rest = memoryview(body)
        while rest and not self.transport.is_closing():
            if self._writable is not None:
                await self._writable
            self.transport.write(rest[:_PIECE])
            rest = rest[_PIECE:]
            self._heard_at = self._loop.time()
            await asyncio.sleep(0)  # other calls come first


def ends_with_connection(headers: Mapping[str, str]) -> bool:
    """Return whether a body has no other end than that of its connection, so that one that was cut looks like a whole one."""
    return "content-length" not in headers and "chunked" not in headers.get("transfer-encoding", "").lower()
