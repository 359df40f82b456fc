"""The handling of one call: admit it, receive its request, write its response, and turn its error into a status.

A servicer raises errors; it never aborts the call. For a REST call the dialect renders the error: the HTTP status and the body are
sent first, and then the call ends with the gRPC status.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import structlog
from google.api import httpbody_pb2
from msgspec import Struct

from antiphon.auth.audit import REFUSED, AuditLog, Event
from antiphon.config import CUT_TRAILERS, MAX_MESSAGE_BYTES
from antiphon.domain import tags
from antiphon.domain.call import Call, Heartbeat, Observer, make_current
from antiphon.domain.deadline import Deadline, time_left
from antiphon.domain.errors import AntiphonError, InvalidRequest, Reason, to_public_error
from antiphon.domain.principal import ANONYMOUS, Scope
from antiphon.domain.trace import TRACEPARENT, TRACESTATE, trace_of
from antiphon.rpc.admission import Admission, MethodRules, peer_of, refuse_duplicates
from antiphon.rpc.context import Context
from antiphon.rpc.heartbeat import WRITING, HeartbeatWriter
from antiphon.rpc.receiver import Arrival, Receiver
from antiphon.rpc.release import drop_tracebacks
from antiphon.rpc.sender import Metadata, Sender
from antiphon.rpc.status import DETAILS_KEY, code_of, status_of

AUDITED_REASONS = frozenset({Reason.UNAUTHENTICATED, Reason.PERMISSION_DENIED, Reason.RATE_LIMIT_EXCEEDED, Reason.BUDGET_EXCEEDED})
"""The reasons that the audit log records."""

REQUEST_ID_HEADER = "x-request-id"

TAGS_HEADER = "x-antiphon-tags"
"""Metadata key of a call's tags, as in "team=search, feature=x". For REST and gRPC callers."""

EDGE_HEADER = "x-antiphon-edge"
"""Metadata key that the edge adds to REST calls. `status.lua` sets it, and removes it from what callers send.

It says that the edge sends a message only once it has all of it, and that it takes the headers of the response out of the content
type of the first message: gRPC sends initial metadata in an operation of their own, which takes 20 to 60 us, and delays the first
token of a busy worker by 2 ms.
"""

TIMEOUT_HEADER = "x-antiphon-timeout"
"""Metadata key of a REST caller's deadline, as in "30S". The edge makes it of the caller's `grpc-timeout`.

gRPC itself ends a call at its deadline if the server is too busy to do so. Its status has the shape of no dialect, and the edge
would end a stream as if it were complete.
"""

SMALL_BYTES = 32 * 1024
"""The most bytes of a response that is sent with its status: the log cannot tell a caller that leaves meanwhile."""

PIECE_BYTES = 1024 * 1024
"""The most bytes of a response body in one message."""
_VALID_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TIMEOUT = re.compile(r"([0-9]+)([HMSmun])")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
"""The units of `TIMEOUT_HEADER`, as gRPC has them."""

log = structlog.get_logger(__name__)


def _pieces(body: httpbody_pb2.HttpBody) -> Iterator[httpbody_pb2.HttpBody]:
    """Yield the body in messages of at most `PIECE_BYTES` bytes; Envoy joins them again."""
    for at in range(0, len(body.data), PIECE_BYTES):
        yield httpbody_pb2.HttpBody(content_type=body.content_type if at == 0 else "", data=body.data[at : at + PIECE_BYTES])


def _seconds(timeout: str) -> float | None:
    """Return the seconds that `TIMEOUT_HEADER` names; None if the edge cannot have sent it."""
    found = _TIMEOUT.fullmatch(timeout)
    return float(found[1]) * _SECONDS[found[2]] if found else None


class ServedMethod(Struct, frozen=True):
    """What all calls of a method have in common."""

    rules: MethodRules
    read: Callable[[bytes], Any]
    """Parses the request."""
    serve: Callable[[Any, Context], Any]
    """The servicer's method: a coroutine function if the response is one message, else one that returns a generator."""
    admission: Admission
    receiver: Receiver
    audit: AuditLog | None
    observer: Observer
    heartbeat: float
    """Seconds of silence after which a stream sends a heartbeat; 0: never. See `CallHandlers`."""


class Handling:
    """One call. `unary` or `stream` handles it, ends it with the status of its error, and reports its end to the observer."""

    __slots__ = (
        "_admitted",
        "_arrival",
        "_at_edge",
        "_call",
        "_context",
        "_deadline",
        "_entries",
        "_message",
        "_metadata",
        "_method",
        "_pulse",
        "_sender",
        "_written",
    )

    def __init__(self, method: ServedMethod, context: Context, sender: Sender) -> None:
        self._method = method
        self._sender = sender
        self._context = context
        self._arrival: Arrival | None = None
        self._admitted = False
        self._message: Any = None
        self._written = False
        self._pulse: HeartbeatWriter | None = None
        """None until the servicer has set a heartbeat."""
        self._deadline: Deadline | None = None
        """That of a call with a `TIMEOUT_HEADER`, which gRPC does not know of."""

    async def unary(self) -> None:
        """Handle a call whose response is one message."""
        self._start()
        method, metadata, last = self._method, None, None
        try:
            message = await method.serve(await self._request(method.read), self._context)
            if message.ByteSize() > SMALL_BYTES:
                await self.write(message)
            else:
                metadata, message = self._begin(message)
                last = message.SerializeToString()
        except BaseException as error:
            if not await self._fail(error):
                raise
        else:
            self._end("OK")
            await self._sender.end(metadata, last)

    async def stream(self) -> None:  # noqa: C901  # one coroutine and not several, as each token wakes it
        """Handle a call whose response is a stream of messages, with heartbeats.

        A message that is the last, by `Call.is_last`, is sent with the status if it is small.
        """
        self._start()
        method, call, deadline = self._method, self._call, self._deadline
        metadata: Metadata | None = None
        last: bytes | None = None
        messages: AsyncGenerator[Any, None] | None = None
        try:
            try:
                waiting = self._request(method.read) if deadline is None else self._request_in_time(method.read, deadline)
                messages = method.serve(await waiting, self._context)
                async for message in messages:
                    pulse = self._pulse
                    if pulse is not None:
                        pulse.last = WRITING  # first, as the timer would begin another heartbeat once this one is written
                        if pulse.beat is not None:
                            await pulse.beat  # gRPC allows one write at a time on a call
                    if call.is_last and len(message.data) <= SMALL_BYTES:
                        if not self._written:
                            metadata, message = self._begin(message)  # noqa: PLW2901
                        last = message.SerializeToString()
                    else:
                        await self.write(message)
                    if pulse is not None:
                        pulse.last = pulse.time()
            except BaseException:
                if messages is not None:
                    await messages.aclose()  # grpc.aio does not, and the provider's call has to end when its caller's does
                raise
            finally:
                if self._pulse is not None:
                    await self._pulse.stop()
        except BaseException as error:
            if not await self._fail(error):
                raise
        else:
            self._end("OK")
            if not self._written:  # there was no message
                metadata, _ = self._begin(None)
            await self._sender.end(metadata, last)

    def _start(self) -> None:
        """Begin, in the task of the call: it is what a deadline interrupts, and has the context variable of the call."""
        method, context = self._method, self._context
        self._entries = tuple(context.invocation_metadata() or ())
        metadata: dict[str, str] = dict(self._entries)  # type: ignore[arg-type]  # only binary fields, which are not read, have bytes
        self._metadata = metadata
        self._at_edge = metadata.get(EDGE_HEADER) == "1"
        request_id = metadata.get(REQUEST_ID_HEADER, "")
        if not _VALID_REQUEST_ID.fullmatch(request_id):
            request_id = os.urandom(16).hex()
        remaining: float | None = context.time_remaining()
        if self._at_edge and TIMEOUT_HEADER in metadata and (remaining := _seconds(metadata[TIMEOUT_HEADER])) is not None:
            self._deadline = Deadline(remaining)
        self._call = call = Call(
            method=method.rules.method,
            timeout=time_left(remaining),
            takes_headers=method.rules.render is not None,
            observer=method.observer,
            request_id=request_id,
            accept=metadata.get("accept", ""),
            pulse=self,
        )
        call.log_fields.update(request_id=request_id)
        make_current(call)
        if TRACEPARENT in metadata:
            call.trace = trace_of(metadata[TRACEPARENT], metadata.get(TRACESTATE, ""))
        call.observer.started(call)

    def keep(self, heartbeat: Heartbeat) -> None:
        """Send a heartbeat from now on; see `HeartbeatSender`."""
        self._pulse = HeartbeatWriter(self._method.heartbeat, self.write, heartbeat)

    async def _request_in_time(self, read: Callable[[bytes], Any], deadline: Deadline) -> Any:
        """Do as `_request`. Raises `DeadlineExceeded` too, which the servicer and its services do from then on."""
        with deadline:
            return await self._request(read)

    async def _request(self, read: Callable[[bytes], Any]) -> Any:
        """Admit the call, and return its request as parsed by `read`.

        Raises what `Admission.admit`, `Receiver.receive` and `read` raise, and `InvalidRequest` if there is no request.
        """
        call, entries, metadata, rules = self._call, self._entries, self._metadata, self._method.rules
        self._entries, self._metadata = (), {}  # free them now, as a stream may be long
        if len(metadata) < len(entries):
            refuse_duplicates([str(key) for key, _ in entries])
            call.accept = ",".join(str(value) for key, value in entries if key == "accept")
        await self._method.admission.admit(call, rules, metadata.get("authorization") or None)
        self._admitted = True
        if rules.scope is Scope.ADMIN:
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
        self._arrival = Arrival(authenticated=authenticated, buffered=self._at_edge and self._comes_from_edge(authenticated))
        data = await self._method.receiver.receive(self._context, self._arrival)
        if data is None:
            raise InvalidRequest("The call has no request message.")
        return read(data)

    def _comes_from_edge(self, authenticated: bool) -> bool:
        """Return True if the call comes from the edge, so that its `EDGE_HEADER` can be trusted.

        Others can reach the server's own port. So a call by TCP is trusted only if the edge connects by TCP and the caller is
        `authenticated`.
        """
        if self._method.rules.render is None:
            return False
        return str(self._context.peer()).startswith("unix:") or (authenticated and self._method.rules.edge_by_tcp)

    def write(self, message: Any) -> Awaitable[None]:
        """Write a message of the response; the initial metadata go out with the first one. None writes the metadata alone.

        The metadata are not sent earlier, as Envoy and clients retry a call only until they have received them. For most messages
        this returns gRPC's own awaitable, so that a token costs no coroutine of ours.
        """
        self._message, metadata = message, None
        if not self._written:
            metadata, message = self._begin(message)
        if type(message) is httpbody_pb2.HttpBody and len(message.data) > PIECE_BYTES:
            return self._write_pieces(metadata, message)
        return self._sender.send(metadata, None if message is None else message.SerializeToString())

    async def _write_pieces(self, metadata: Metadata | None, message: httpbody_pb2.HttpBody) -> None:
        for piece in _pieces(message):
            await self._sender.send(metadata, piece.SerializeToString())
            metadata = None

    def _begin(self, first: Any) -> tuple[Metadata, Any]:
        """Return the initial metadata and the first message, which has the headers instead if the edge gets it; None: not yet."""
        self._written = True
        headers = self._call.headers
        if self._method.rules.render is None:
            return ((REQUEST_ID_HEADER, self._call.request_id),), first  # REST callers get it from Envoy
        if headers and self._at_edge and first is not None:
            content_type = "\t".join([first.content_type, *map(":".join, headers.items())])
            return (), httpbody_pb2.HttpBody(content_type=content_type, data=first.data)
        return tuple(headers.items()), first

    async def _fail(self, error: BaseException) -> bool:
        """End a call that failed, with the status of its error. Return False if nobody waits for one: the error is to be raised."""
        match error:
            case asyncio.CancelledError(args=(AntiphonError() as expired,)):
                # A deadline found the caller not reading. No event of a stream tells it, and without a status it would never end.
                if self._written and self._method.rules.render is not None:
                    self._context.set_trailing_metadata(CUT_TRAILERS)
                await self._report(expired)
                return True
            case asyncio.CancelledError():
                # A server that is too busy to end a call before its deadline finds it ended by gRPC, as if the caller had left.
                self._end("DEADLINE_EXCEEDED" if self._call.time_left == 0 else "CANCELLED")
                return False
            case grpc.aio.InternalError():
                # Nothing can be sent: the caller is gone, or gRPC has ended the call because the message is too large.
                is_too_large = self._message is not None and self._message.ByteSize() > MAX_MESSAGE_BYTES
                self._end("RESOURCE_EXHAUSTED" if is_too_large else "CANCELLED")
                raise asyncio.CancelledError from None
            case Exception():
                if not isinstance(error, AntiphonError):
                    log.error("call_failed", exc_info=error)
                drop_tracebacks(error)
                await self._report(to_public_error(error))
                return True
            case _:
                return False

    async def _report(self, error: AntiphonError) -> None:
        """Report the error, and end the call with it."""
        code = code_of(error)
        self._end(code.name, error)
        if self._method.audit is not None and error.reason in AUDITED_REASONS:
            call = self._call
            event = Event(REFUSED, call.caller.id, call.method, error.reason, call.request_id, peer_of(self._context))
            self._method.audit.refused(event)
        trailers = (*(self._context.trailing_metadata() or ()), (DETAILS_KEY, status_of(error).SerializeToString()))
        metadata: Metadata | None = None
        body: bytes | None = None
        if not self._written:
            if self._method.rules.render is None:
                metadata, trailers = (), ((REQUEST_ID_HEADER, self._call.request_id), *trailers)
            else:
                status, headers, data = self._method.rules.render(error)
                self._call.headers.update({"x-http-status": str(status), **headers})
                metadata, message = self._begin(httpbody_pb2.HttpBody(content_type="application/json", data=data))
                body = message.SerializeToString()
        try:
            await self._sender.fail(metadata, body, code, error.message, trailers)
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None  # the caller is gone

    def _end(self, code: str, error: AntiphonError | None = None) -> None:
        if self._admitted:
            self._method.admission.leave()
        if self._arrival is not None and self._arrival.reserved:
            self._method.receiver.release(self._arrival)
        if self._deadline is not None:
            self._deadline.close()
        call = self._call
        call.pulse = None  # it is this object, and refers to the call
        call.observer.ended(call, code, error)
