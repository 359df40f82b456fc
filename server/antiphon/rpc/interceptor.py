"""What happens around every call: a request id, the caller's key, one log line, and the one place where errors become statuses.

A servicer raises; it never aborts. An error of a REST call goes through its dialect, which alone knows the shape of the body: the
body and the HTTP status are sent first, and the true gRPC status ends the call.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Self

import grpc
import structlog
from google.api import httpbody_pb2
from google.protobuf.message import DecodeError

from antiphon.auth.audit import REFUSED, AuditLog, Event
from antiphon.auth.base import Authenticator
from antiphon.auth.caller import ANONYMOUS, CALLER, ORIGIN, Origin
from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.domain import headers as response_headers
from antiphon.domain.errors import AntiphonError, InvalidRequest, Reason, told
from antiphon.domain.principal import Scope
from antiphon.net.json_bounds import TooMuch
from antiphon.rpc import wire
from antiphon.rpc.admission import Admission, ErrorRenderer, Rules, peer_of, refuse_doubles
from antiphon.rpc.context import Context, Handler
from antiphon.rpc.heartbeat import Pulse
from antiphon.rpc.open_calls import OpenCalls
from antiphon.rpc.receiver import Arrival, Receiver
from antiphon.rpc.release import drop_tracebacks, releasing
from antiphon.rpc.status import DETAILS_KEY, code_of, status_of

OPEN_SERVICES = frozenset(
    {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
)
"""What may be called without a key: it tells nothing but the public contract and whether the server is well."""

OPEN_METHODS = frozenset({"/antiphon.rest.v1.EngineService/GetHealth"})
"""The same, of services whose other methods want a key."""

BODY_KEY_METHODS = frozenset({"/antiphon.rest.v1.EngineService/CreateEngineChat"})
"""What may carry its key in the body: without `authorization` the caller is `ANONYMOUS`, and the servicer refuses it or not."""

REFUSALS = frozenset({Reason.UNAUTHENTICATED, Reason.PERMISSION_DENIED, Reason.RATE_LIMIT_EXCEEDED, Reason.BUDGET_EXCEEDED})
"""What the audit log wants to know of."""

REQUEST_ID = "x-request-id"

WHOLE = "x-antiphon-whole"
"""What the edge adds to REST calls, whose message it holds until it is complete. `status.lua` sets it, and removes a caller's."""

PIECE = 1024 * 1024
"""The most bytes of a body that are written as one message."""
_GOOD_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

log = structlog.get_logger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of the server: those of `OPEN_SERVICES` and `OPEN_METHODS` are called without a key, and not logged."""

    def __init__(
        self,
        keys: Authenticator,
        scopes: Mapping[str, Scope],
        renderers: Mapping[str, ErrorRenderer],
        audit: AuditLog | None = None,
        most: int | None = None,
        most_bytes: int | None = None,
        heartbeat: float = 15.0,
        *,
        edge_by_tcp: bool = False,
    ) -> None:
        """By full name of service, or of a method that differs: what a caller needs, and what turns an error into an HTTP answer.

        `scopes` has every service that is wrapped. Refused calls go to `audit`. No more than `most` calls go on at once, and their
        requests have no more than `most_bytes` together. `heartbeat` is the seconds of silence after which a stream that waits for
        its model gives a sign of life; 0: never. `edge_by_tcp`: the edge has no unix socket of its own, and cannot be told from
        other callers.
        """
        self._scopes = scopes
        self._renderers = renderers
        self._receiver = Receiver(most_bytes)
        self._admission = Admission(keys, most)
        self._audit = audit
        self._open = OpenCalls(self._receiver, most)
        self._heartbeat = heartbeat
        self._edge_by_tcp = edge_by_tcp
        self._wrapped: dict[str, Handler] = {}

    @property
    def calls(self) -> int:
        """Calls that go on, but for open ones."""
        return self._admission.calls

    def drain(self) -> None:
        """End open calls, and calls whose request has not arrived: the server stops. Calls that are being answered go on."""
        self._receiver.drain()
        self._open.drain()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap a method's handler once, and keep it: the methods of a server do not change."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            service, _, name = method.removeprefix("/").rpartition("/")
            if service in OPEN_SERVICES:
                wrapped = self._open.wrap(handler)
            elif method in OPEN_METHODS:
                wrapped = self._open.wrap_unread(handler)
            else:
                wrapped = self._wrap(service, name, handler)
            self._wrapped[method] = wrapped
        return wrapped

    def _wrap(self, service: str, name: str, handler: Any) -> Handler:
        """Return a handler that reads its request itself, so that a refused call is refused before its request is read."""
        full = f"{service}/{name}"
        rules = Rules(
            f"{service.rpartition('.')[2]}/{name}",
            self._scopes[full] if full in self._scopes else self._scopes[service],
            self._renderers.get(full, self._renderers.get(service)),
            f"/{full}" in BODY_KEY_METHODS,
            self._edge_by_tcp,
        )
        read = _reader(handler.request_deserializer)

        async def unary(context: Context) -> None:
            async with _Call(self._admission, self._receiver, rules, context, self._audit) as call:
                await call.write(await handler.unary_unary(await call.request(read), context))

        async def stream(context: Context) -> None:
            async with _Call(self._admission, self._receiver, rules, context, self._audit) as call:
                await call.write_all(handler.unary_stream(await call.request(read), context), self._heartbeat)

        if not handler.unary_unary:
            assert handler.unary_stream, f"{full}: no other kind of method is wrapped"
            assert inspect.isasyncgenfunction(handler.unary_stream), f"{full} must be an asynchronous generator"
        # A unary reply, too, is written here and not by gRPC afterwards, so that the log tells whether it could be written.
        serve = unary if handler.unary_unary else stream
        return grpc.stream_stream_rpc_method_handler(releasing(serve), None, handler.response_serializer)


def _reader(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a function that parses a request, and raises `InvalidRequest` for one that holds too much or cannot be parsed.

    `read` is a generated class's `FromString`.
    """
    shape = wire.shape_of(read.__self__.DESCRIPTOR)  # type: ignore[attr-defined]  # the class that it belongs to

    def deserialize(data: bytes) -> Any:
        try:
            wire.check(data, shape)
            return read(data)
        except TooMuch as error:
            raise InvalidRequest(f"The request {error}.") from None
        except DecodeError:
            message = "The request cannot be read: it is broken off, nested deeper than 100 levels, or a text in it is not UTF-8."
            raise InvalidRequest(message) from None

    return deserialize


def _pieces(body: httpbody_pb2.HttpBody) -> Iterator[httpbody_pb2.HttpBody]:
    """Yield a body in pieces that fit into messages; Envoy puts them together."""
    for at in range(0, len(body.data), PIECE):
        yield httpbody_pb2.HttpBody(content_type=body.content_type if at == 0 else "", data=body.data[at : at + PIECE])


class _Call:
    """One call, as a context manager: on leaving, it is logged, and its error becomes a status."""

    __slots__ = (
        "_admission",
        "_admitted",
        "_arrival",
        "_audit",
        "_context",
        "_headers",
        "_receiver",
        "_request_id",
        "_rules",
        "_start",
        "_too_large",
        "_written",
    )

    def __init__(self, admission: Admission, receiver: Receiver, rules: Rules, context: Context, audit: AuditLog | None) -> None:
        self._admission = admission
        self._receiver = receiver
        self._rules = rules
        self._context = context
        self._audit = audit
        self._headers = response_headers.begin()
        self._arrival: Arrival | None = None
        self._admitted = False
        self._request_id = ""
        self._start = time.monotonic()
        self._too_large = False
        self._written = False

    async def __aenter__(self) -> Self:
        return self

    async def request(self, read: Callable[[bytes], Any]) -> Any:
        """Judge the key, take a place for the call, and return its request, parsed by `read`.

        Raises what `Admission.admit` and `Receiver.receive` raise, and `InvalidRequest`.
        """
        entries = self._context.invocation_metadata() or ()
        metadata = {str(key): value for key, value in entries}
        request_id = str(metadata.get(REQUEST_ID, ""))
        self._request_id = request_id if _GOOD_REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=self._request_id)
        if len(metadata) < len(entries):
            refuse_doubles([str(key) for key, _ in entries])
        principal = await self._admission.admit(self._rules, str(metadata.get("authorization", "")) or None)
        self._admitted = True
        if self._rules.scope is Scope.ADMIN:
            ORIGIN.set(Origin(principal.id, self._request_id, peer_of(self._context)))
        structlog.contextvars.bind_contextvars(key=principal.name)
        known = principal is not ANONYMOUS
        self._arrival = Arrival(known=known, whole=metadata.get(WHOLE) == "1" and self._is_by_edge(known))
        data = await self._receiver.receive(self._context, self._arrival)
        if data is None:
            raise InvalidRequest("The call has no request message.")
        return read(data)

    def _is_by_edge(self, known: bool) -> bool:
        """Whether it is the edge that says a thing of this call. Anybody could say it at the server's own port."""
        if self._rules.render is None:
            return False
        return str(self._context.peer()).startswith("unix:") or (known and self._rules.edge_by_tcp)

    async def write(self, message: Any) -> None:
        """Write a message of the response, and before the first one the initial metadata; None writes the metadata alone.

        The metadata do not go out sooner, as Envoy and clients retry a call only until they have them.
        """
        if not self._written:
            self._written = True
            if self._rules.render is None:
                # REST callers get it from Envoy, which spares them a write of its own here.
                await self._context.send_initial_metadata(((REQUEST_ID, self._request_id),))
            elif self._headers:
                await self._context.send_initial_metadata(tuple(self._headers.items()))
        if isinstance(message, httpbody_pb2.HttpBody) and len(message.data) > PIECE:
            for piece in _pieces(message):
                await self._context.write(piece)
            return
        if message is None:
            return
        try:
            await self._context.write(message)
        except grpc.aio.InternalError:
            self._too_large = message.ByteSize() > MAX_MESSAGE_BYTES
            raise

    async def write_all(self, messages: AsyncGenerator[Any, None], heartbeat: float) -> None:
        """Write a stream of messages. See `CallInterceptor` for `heartbeat`.

        Closes the stream as well, which grpc.aio does not do, so that the provider's call ends with its caller's.
        """
        pulse = Pulse(heartbeat, self.write)
        try:
            async with aclosing(messages):
                async for message in messages:
                    await pulse.write(message)
        finally:
            await pulse.stop()

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._admitted:
            self._admission.leave()
        if self._arrival is not None:
            self._receiver.release(self._arrival)
        match error:
            case None:
                self._log("OK")
            case asyncio.CancelledError():
                self._log("CANCELLED")
            case grpc.aio.InternalError():
                # Nothing can be sent: the caller has gone, or was told by gRPC that the message is too large.
                self._log("RESOURCE_EXHAUSTED" if self._too_large else "CANCELLED")
                raise asyncio.CancelledError from None
            case Exception():
                if not isinstance(error, AntiphonError):
                    log.error("call_failed", exc_info=error)
                drop_tracebacks(error)
                await self._fail(told(error))

    async def _fail(self, error: AntiphonError) -> None:
        """Send the error to the caller, and abort the call, which raises."""
        code = code_of(error)
        self._log(code.name, reason=error.reason)
        if self._audit is not None and error.reason in REFUSALS:
            actor = CALLER.get(ANONYMOUS).id
            event = Event(REFUSED, actor, self._rules.method, error.reason, self._request_id, peer_of(self._context))
            self._audit.refused(event)
        trailers = (*(self._context.trailing_metadata() or ()), (DETAILS_KEY, status_of(error).SerializeToString()))
        try:
            if self._written:
                pass
            elif self._rules.render is None:
                trailers = ((REQUEST_ID, self._request_id), *trailers)
            else:
                status, headers, body = self._rules.render(error)
                metadata = {**self._headers, "x-http-status": str(status), **headers}
                await self._context.send_initial_metadata(tuple(metadata.items()))
                await self._context.write(httpbody_pb2.HttpBody(content_type="application/json", data=body))
            await self._context.abort(code, error.message, trailers)
        except grpc.aio.InternalError:
            raise asyncio.CancelledError from None  # nobody is there to be told

    def _log(self, code: str, **fields: Any) -> None:
        duration = round((time.monotonic() - self._start) * 1000, 1)
        log.info("call", method=self._rules.method, code=code, duration_ms=duration, **fields)
