"""The handling of one call: admit it, receive its request, write its response, and turn its error into a status.

A servicer raises errors; it never aborts the call. For a REST call the dialect renders the error: the HTTP status and the body are
sent first, and then the call ends with the gRPC status.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Self

import grpc
import structlog
from google.api import httpbody_pb2

from antiphon.auth.audit import REFUSED, AuditLog, Event
from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.domain import tags
from antiphon.domain.call import Call, Observer, make_current
from antiphon.domain.deadline import time_left
from antiphon.domain.errors import AntiphonError, InvalidRequest, Reason, to_public_error
from antiphon.domain.principal import ANONYMOUS, Scope
from antiphon.domain.trace import TRACEPARENT, TRACESTATE, trace_of
from antiphon.rpc.admission import Admission, MethodRules, peer_of, refuse_duplicates
from antiphon.rpc.context import Context
from antiphon.rpc.heartbeat import HeartbeatWriter
from antiphon.rpc.receiver import Arrival, Receiver
from antiphon.rpc.release import drop_tracebacks
from antiphon.rpc.status import DETAILS_KEY, code_of, status_of

AUDITED_REASONS = frozenset({Reason.UNAUTHENTICATED, Reason.PERMISSION_DENIED, Reason.RATE_LIMIT_EXCEEDED, Reason.BUDGET_EXCEEDED})
"""The reasons that the audit log records."""

REQUEST_ID_HEADER = "x-request-id"

TAGS_HEADER = "x-antiphon-tags"
"""Metadata key of a call's tags, as in "team=search, feature=x". For REST and gRPC callers."""

BUFFERED_HEADER = "x-antiphon-whole"
"""Metadata key that the edge adds to REST calls, to say that it sends a message only once it has all of it.

`status.lua` sets it, and removes it from what callers send.
"""

SMALL_BYTES = 32 * 1024
"""The most bytes of a response that is sent with its status: a caller that leaves meanwhile is not noticed."""

PIECE_BYTES = 1024 * 1024
"""The most bytes of a response body in one message."""
_VALID_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

log = structlog.get_logger(__name__)


def _is_large(message: Any) -> bool:
    return isinstance(message, httpbody_pb2.HttpBody) and len(message.data) > PIECE_BYTES


def _pieces(body: httpbody_pb2.HttpBody) -> Iterator[httpbody_pb2.HttpBody]:
    """Yield the body in messages of at most `PIECE_BYTES` bytes; Envoy joins them again."""
    for at in range(0, len(body.data), PIECE_BYTES):
        yield httpbody_pb2.HttpBody(content_type=body.content_type if at == 0 else "", data=body.data[at : at + PIECE_BYTES])


class Handling:
    """Context manager for one call. On exit it reports the end to the observer, and ends the call with the status of its error."""

    __slots__ = (
        "_admission",
        "_admitted",
        "_arrival",
        "_audit",
        "_call",
        "_context",
        "_entries",
        "_message",
        "_metadata",
        "_receiver",
        "_rules",
        "_written",
    )

    def __init__(
        self,
        admission: Admission,
        receiver: Receiver,
        rules: MethodRules,
        context: Context,
        audit: AuditLog | None,
        observer: Observer,
    ) -> None:
        self._admission = admission
        self._receiver = receiver
        self._rules = rules
        self._context = context
        self._audit = audit
        self._call = Call(method=rules.method, timeout=time_left(context.time_remaining()), observer=observer)
        self._arrival: Arrival | None = None
        self._admitted = False
        self._entries: Sequence[tuple[str, str | bytes]] = ()
        self._metadata: dict[str, str] = {}
        self._message: Any = None
        self._written = False

    async def __aenter__(self) -> Self:
        self._entries = tuple(self._context.invocation_metadata() or ())
        metadata = self._metadata = dict(self._entries)  # type: ignore[arg-type]  # only binary fields, which are not read, have bytes
        call, request_id = self._call, metadata.get(REQUEST_ID_HEADER, "")
        call.request_id = request_id if _VALID_REQUEST_ID.fullmatch(request_id) else os.urandom(16).hex()
        call.log_fields.update(request_id=call.request_id)
        call.accept = metadata.get("accept", "")
        make_current(call)
        if TRACEPARENT in metadata:
            call.trace = trace_of(metadata[TRACEPARENT], metadata.get(TRACESTATE, ""))
        call.observer.started(call)
        return self

    async def request(self, read: Callable[[bytes], Any]) -> Any:
        """Admit the call, and return its request as parsed by `read`.

        Call it once, inside the context. Raises what `Admission.admit`, `Receiver.receive` and `read` raise, and `InvalidRequest`
        if there is no request.
        """
        call, entries, metadata = self._call, self._entries, self._metadata
        self._entries, self._metadata = (), {}  # free them now, as a stream may be long
        if len(metadata) < len(entries):
            refuse_duplicates([str(key) for key, _ in entries])
            call.accept = ",".join(str(value) for key, value in entries if key == "accept")
        await self._admission.admit(call, self._rules, metadata.get("authorization") or None)
        self._admitted = True
        if self._rules.scope is Scope.ADMIN:
            call.peer = peer_of(self._context)
        call.log_fields.update(key=call.caller.name)
        authenticated = call.caller is not ANONYMOUS
        if TAGS_HEADER in metadata or call.caller.tags:
            given = ",".join(str(value) for key, value in entries if key == TAGS_HEADER)  # the key may repeat
            try:
                call.tags = tags.merged(call.caller.tags, tags.parse(given, TAGS_HEADER))
            except InvalidRequest:
                if authenticated:  # report no mistakes before authentication, which may need the body
                    raise
        self._arrival = Arrival(
            authenticated=authenticated, buffered=metadata.get(BUFFERED_HEADER) == "1" and self._comes_from_edge(authenticated)
        )
        data = await self._receiver.receive(self._context, self._arrival)
        if data is None:
            raise InvalidRequest("The call has no request message.")
        return read(data)

    def _comes_from_edge(self, authenticated: bool) -> bool:
        """Return True if the call comes from the edge, so that its `BUFFERED_HEADER` can be trusted.

        Others can reach the server's own port. So a call by TCP is trusted only if the edge connects by TCP and the caller is
        `authenticated`.
        """
        if self._rules.render is None:
            return False
        return str(self._context.peer()).startswith("unix:") or (authenticated and self._rules.edge_by_tcp)

    def write(self, message: Any) -> Awaitable[None]:
        """Write a message of the response; the initial metadata go out before the first one. None writes the metadata alone.

        The metadata are not sent earlier, as Envoy and clients retry a call only until they have received them. For most messages
        this returns gRPC's own awaitable, so that a token costs no coroutine of ours.
        """
        self._message = message
        if (
            self._written
            and message is not None
            and (type(message) is not httpbody_pb2.HttpBody or len(message.data) <= PIECE_BYTES)
        ):
            return self._context.write(message.SerializeToString())
        return self._write_first_or_large(message)

    async def _write_first_or_large(self, message: Any) -> None:
        """Send the initial metadata if they are not sent yet, then the message, in pieces if it is large."""
        if not self._written:
            self._written = True
            if self._rules.render is None:
                # REST callers get the request id from Envoy, which saves a write here.
                await self._context.send_initial_metadata(((REQUEST_ID_HEADER, self._call.request_id),))
            elif self._call.headers:
                await self._context.send_initial_metadata(tuple(self._call.headers.items()))
        if message is None:
            return
        for piece in _pieces(message) if _is_large(message) else (message,):
            await self._context.write(piece.SerializeToString())

    async def write_all(self, messages: AsyncGenerator[Any, None], heartbeat: float) -> bytes:
        """Write a stream of messages, with heartbeats after `heartbeat` seconds of silence; see `CallHandlers`.

        A message that is the last, by `Call.is_last`, is returned instead if it is small, for gRPC to send with the status. Closes
        the generator at the end, which grpc.aio does not do, so that the provider's call ends when its caller's does.
        """
        last = b""
        self._call.pulse = pulse = HeartbeatWriter(heartbeat, self.write)
        try:
            async for message in messages:
                if pulse.beat is not None:
                    await pulse.beat  # gRPC allows one write at a time on a call
                pulse.pause()
                if self._call.is_last and len(message.data) <= SMALL_BYTES:
                    if self._call.headers and not self._written:
                        await self.write(None)
                    last = message.SerializeToString()
                else:
                    await self.write(message)
                pulse.resume()
        finally:
            try:
                await messages.aclose()
            finally:
                await pulse.stop()
        return last

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._admitted:
            self._admission.leave()
        if self._arrival is not None:
            self._receiver.release(self._arrival)
        match error:
            case None:
                self._end("OK")
            case asyncio.CancelledError():
                # A server that is too busy to end a call before its deadline finds it ended by gRPC, as if the caller had left.
                self._end("DEADLINE_EXCEEDED" if self._call.time_left == 0 else "CANCELLED")
            case grpc.aio.InternalError():
                # Nothing can be sent: the caller is gone, or gRPC has ended the call because the message is too large.
                is_too_large = self._message is not None and self._message.ByteSize() > MAX_MESSAGE_BYTES
                self._end("RESOURCE_EXHAUSTED" if is_too_large else "CANCELLED")
                raise asyncio.CancelledError from None
            case Exception():
                if not isinstance(error, AntiphonError):
                    log.error("call_failed", exc_info=error)
                drop_tracebacks(error)
                await self._fail(to_public_error(error))

    async def _fail(self, error: AntiphonError) -> None:
        """Report the error, write it to the caller, and abort the call. Always raises."""
        code = code_of(error)
        self._end(code.name, error)
        if self._audit is not None and error.reason in AUDITED_REASONS:
            call = self._call
            event = Event(REFUSED, call.caller.id, call.method, error.reason, call.request_id, peer_of(self._context))
            self._audit.refused(event)
        trailers = (*(self._context.trailing_metadata() or ()), (DETAILS_KEY, status_of(error).SerializeToString()))
        try:
            if self._written:
                pass
            elif self._rules.render is None:
                trailers = ((REQUEST_ID_HEADER, self._call.request_id), *trailers)
            else:
                status, headers, body = self._rules.render(error)
                metadata = {**self._call.headers, "x-http-status": str(status), **headers}
                await self._context.send_initial_metadata(tuple(metadata.items()))
                await self._context.write(httpbody_pb2.HttpBody(content_type="application/json", data=body).SerializeToString())
            await self._context.abort(code, error.message, trailers)
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None  # the caller is gone

    def _end(self, code: str, error: AntiphonError | None = None) -> None:
        self._call.observer.ended(self._call, code, error)
