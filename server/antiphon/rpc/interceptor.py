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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeAlias

import grpc
import structlog
from google.api import httpbody_pb2
from google.protobuf.message import DecodeError
from msgspec import Struct

from antiphon import headers as response_headers
from antiphon.auth.audit import REFUSED, AuditLog, Event
from antiphon.auth.base import Authenticator, identify
from antiphon.auth.caller import ANONYMOUS, CALLER, ORIGIN, Origin, require
from antiphon.errors import AntiphonError, InvalidRequest, RateLimited, Reason, Unauthenticated, told
from antiphon.json_bounds import TooMuch
from antiphon.principal import Scope
from antiphon.rpc import wire
from antiphon.rpc.heartbeat import Pulse
from antiphon.rpc.status import DETAILS_KEY, code_of, status_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
HttpError: TypeAlias = tuple[int, Mapping[str, str], bytes]
"""An HTTP status, headers, and a JSON body."""
ErrorRenderer: TypeAlias = Callable[[AntiphonError], HttpError]

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

CREDENTIALS = frozenset({"authorization", "x-goog-api-key"})
"""The metadata that hold keys: ours, and a provider's for its proxy. Of two, who stands before us may have judged the other."""

REQUEST_ID = "x-request-id"

PIECE = 1024 * 1024
"""Bytes of a body that are written at once."""
_GOOD_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

log = structlog.get_logger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of the server, but those of `OPEN_SERVICES` and `OPEN_METHODS`."""

    def __init__(
        self,
        keys: Authenticator,
        scopes: Mapping[str, Scope],
        renderers: Mapping[str, ErrorRenderer],
        audit: AuditLog | None = None,
        most: int | None = None,
        heartbeat: float = 15.0,
    ) -> None:
        """By full name of service, or of a method that differs: what a caller needs, and what turns an error into an HTTP answer.

        `scopes` has every service that is wrapped. Refused calls go to `audit`. No more than `most` calls go on at once.
        `heartbeat` is the seconds of silence after which a stream that waits for its model gives a sign of life; 0: never.
        """
        self._keys = keys
        self._scopes = scopes
        self._renderers = renderers
        self._audit = audit
        self._places = _Places(most)
        self._heartbeat = heartbeat
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps a method's handler once, and keeps it: the methods of a server do not change."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            service, _, name = method.removeprefix("/").rpartition("/")
            if handler is None or service in OPEN_SERVICES:
                return handler
            if method in OPEN_METHODS:
                return _unread(handler)
            wrapped = self._wrapped[method] = self._wrap(service, name, handler)
        return wrapped

    def _wrap(self, service: str, name: str, handler: Any) -> Handler:
        full = f"{service}/{name}"
        rules = _Rules(
            f"{service.rpartition('.')[2]}/{name}",
            self._scopes[full] if full in self._scopes else self._scopes[service],
            self._renderers.get(full, self._renderers.get(service)),
            f"/{full}" in BODY_KEY_METHODS,
        )
        if handler.unary_unary:

            async def unary(request: Any, context: Context) -> Any:
                async with _Call(self._keys, rules, context, self._audit, self._places):
                    if isinstance(request, InvalidRequest):
                        raise request
                    return await handler.unary_unary(request, context)

            return grpc.unary_unary_rpc_method_handler(unary, _reader(handler.request_deserializer), handler.response_serializer)

        assert handler.unary_stream, f"{service}/{name}: no other kind of method is wrapped"
        assert inspect.isasyncgenfunction(handler.unary_stream), f"{service}/{name} must be an asynchronous generator"

        async def stream(request: Any, context: Context) -> None:
            # grpc.aio does not close the generators of handlers; this does, so that a provider's call ends with its caller's.
            messages = handler.unary_stream(request, context)
            async with _Call(self._keys, rules, context, self._audit, self._places) as call, aclosing(messages):
                if isinstance(request, InvalidRequest):
                    raise request
                await call.write_all(messages, self._heartbeat)

        return grpc.unary_stream_rpc_method_handler(stream, _reader(handler.request_deserializer), handler.response_serializer)


def _reader(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Reads a request. One that cannot be read becomes the error that its call ends with: gRPC's own is in no dialect's shape.

    `read` is a generated class's `FromString`. A request that holds too much is not read at all.
    """
    shape = wire.shape_of(read.__self__.DESCRIPTOR)  # type: ignore[attr-defined]  # the class that it belongs to

    def deserialize(data: bytes) -> Any:
        try:
            wire.check(data, shape)
            return read(data)
        except TooMuch as error:
            return InvalidRequest(f"The request {error}.")
        except DecodeError:
            return InvalidRequest("The request cannot be read: a text in it is not UTF-8.")

    return deserialize


def _unread(handler: Any) -> Handler:
    """A method that does not look at its request: one that cannot be read is none the worse, and no fault of ours for the log."""
    return grpc.unary_stream_rpc_method_handler(handler.unary_stream, lambda _: None, handler.response_serializer)


def peer_of(context: Context) -> str:
    """Where a call comes from: the caller's address as the edge saw it, or else the address that is connected, without its port.

    Only what comes through a unix socket or from this machine, as the edge does, is believed about others.
    """
    peer = str(context.peer())
    if peer.startswith(("ipv4:", "ipv6:")):
        peer = peer.rpartition(":")[0]
    if peer.startswith(("unix:", "ipv4:127.", "ipv6:%5B::1%5D")):
        forwarded = next((str(value) for key, value in context.invocation_metadata() or () if key == "x-forwarded-for"), "")
        return forwarded.rpartition(",")[2].strip() or peer
    return peer


def _refuse_doubles(names: Sequence[str]) -> None:
    """Raises `Unauthenticated` if a credential is there more than once."""
    for name in CREDENTIALS:
        if names.count(name) > 1:
            raise Unauthenticated(f"There is more than one {name}. Send it once.")


def _pieces(body: httpbody_pb2.HttpBody) -> Iterator[httpbody_pb2.HttpBody]:
    """A body in pieces that are no larger than a message may be; Envoy puts them together."""
    for at in range(0, len(body.data), PIECE):
        yield httpbody_pb2.HttpBody(content_type=body.content_type if at == 0 else "", data=body.data[at : at + PIECE])


class _Rules(Struct, frozen=True):
    """What holds for a method. `render` None: its callers speak gRPC."""

    method: str
    scope: Scope
    render: ErrorRenderer | None
    key_in_body: bool


class _Places:
    """Of the calls that may go on at once in this process: 401 and 403 need none."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._taken = 0

    def take(self) -> None:
        """Raises `RateLimited` if all are taken."""
        if self._most is not None and self._taken >= self._most:
            message = f"This server has as many calls as it takes at once, {self._most}. Try again in a moment."
            raise RateLimited(message, limit="calls_per_worker", scope="worker", quota=self._most, retry_after=1.0)
        self._taken += 1

    def give_back(self) -> None:
        self._taken -= 1


class _Call:
    """One call, as a context: entered, it has a request id and a good key; left, it is logged, and its error is a status."""

    __slots__ = ("_audit", "_context", "_headers", "_keys", "_places", "_principal", "_request_id", "_rules", "_start", "_written")

    def __init__(self, keys: Authenticator, rules: _Rules, context: Context, audit: AuditLog | None, places: _Places) -> None:
        self._keys = keys
        self._rules = rules
        self._context = context
        self._audit = audit
        self._places = places
        self._principal = ANONYMOUS
        self._headers = response_headers.begin()
        self._request_id = ""
        self._start = time.monotonic()
        self._written = False

    async def __aenter__(self) -> Self:
        entries = self._context.invocation_metadata() or ()
        metadata = {str(key): value for key, value in entries}
        request_id = str(metadata.get(REQUEST_ID, ""))
        self._request_id = request_id if _GOOD_REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=self._request_id)
        try:
            if self._rules.render is None:
                # REST callers get it from Envoy, which spares them a write of its own here.
                await self._context.send_initial_metadata(((REQUEST_ID, self._request_id),))
            if len(metadata) < len(entries):
                _refuse_doubles([str(key) for key, _ in entries])
            authorization = str(metadata.get("authorization", "")) or None
            if authorization is not None or not self._rules.key_in_body:
                self._principal = await identify(self._keys, authorization)
            CALLER.set(self._principal)
            if self._rules.scope is Scope.ADMIN:
                ORIGIN.set(Origin(self._principal.id, self._request_id, peer_of(self._context)))
            if self._principal is not ANONYMOUS:
                require(self._rules.scope)
            self._places.take()
        except AntiphonError as error:
            await self._fail(error)
            raise  # not reached: `_fail` aborts
        structlog.contextvars.bind_contextvars(key=self._principal.name)
        return self

    async def write_all(self, messages: AsyncIterator[Any], heartbeat: float) -> None:
        """Writes a stream of answers. See `CallInterceptor` for `heartbeat`."""
        pulse = Pulse(heartbeat, self._write)
        try:
            async for message in messages:
                await pulse.write(message)
        finally:
            await pulse.stop()

    async def _write(self, message: Any) -> None:
        """Writes a message, with the headers if it is the first. None: the headers alone."""
        if not self._written:
            self._written = True
            if self._headers and self._rules.render is not None:
                await self._context.send_initial_metadata(tuple(self._headers.items()))
        if isinstance(message, httpbody_pb2.HttpBody) and len(message.data) > PIECE:
            for piece in _pieces(message):
                await self._context.write(piece)
        elif message is not None:
            await self._context.write(message)

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._places.give_back()
        match error:
            case None:
                self._log("OK")
            case asyncio.CancelledError():
                self._log("CANCELLED")
            case Exception():
                if not isinstance(error, AntiphonError):
                    log.error("call_failed", exc_info=error)
                await self._fail(told(error))

    async def _fail(self, error: AntiphonError) -> None:
        """Tells the caller, and aborts the call: raises."""
        code = code_of(error)
        self._log(code.name, reason=error.reason)
        if self._audit is not None and error.reason in REFUSALS:
            actor = CALLER.get(self._principal).id
            event = Event(REFUSED, actor, self._rules.method, error.reason, self._request_id, peer_of(self._context))
            self._audit.refused(event)
        if self._rules.render is not None and not self._written:
            status, headers, body = self._rules.render(error)
            metadata = {**self._headers, "x-http-status": str(status), **headers}
            await self._context.send_initial_metadata(tuple(metadata.items()))
            await self._context.write(httpbody_pb2.HttpBody(content_type="application/json", data=body))
        details = (*(self._context.trailing_metadata() or ()), (DETAILS_KEY, status_of(error).SerializeToString()))
        await self._context.abort(code, error.message, details)

    def _log(self, code: str, **fields: Any) -> None:
        duration = round((time.monotonic() - self._start) * 1000, 1)
        log.info("call", method=self._rules.method, code=code, duration_ms=duration, **fields)
