"""Which handlers are wrapped, and how: what may be called without a key, and what each method needs. `handling` has the call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from antiphon.auth.audit import AuditLog
from antiphon.auth.base import Authenticator
from antiphon.domain.call import NO_OBSERVER, Observer
from antiphon.domain.errors import InvalidRequest
from antiphon.domain.principal import Scope
from antiphon.net.json_bounds import TooMuch
from antiphon.rpc import wire
from antiphon.rpc.admission import Admission, ErrorRenderer, Rules
from antiphon.rpc.context import Context, Handler
from antiphon.rpc.handling import Handling
from antiphon.rpc.open_calls import OpenCalls
from antiphon.rpc.receiver import Receiver
from antiphon.rpc.release import releasing

OPEN_SERVICES = frozenset(
    {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
)
"""What may be called without a key: it tells nothing but the public contract and whether the server is well."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each handler: the key is judged, the request received, the answer written. Open ones get bounds alone."""

    def __init__(
        self,
        keys: Authenticator,
        scopes: Mapping[str, Scope | None],
        renderers: Mapping[str, ErrorRenderer],
        audit: AuditLog | None = None,
        observer: Observer = NO_OBSERVER,
        most: int | None = None,
        most_bytes: int | None = None,
        heartbeat: float = 15.0,
        *,
        keys_in_body: Container[str] = frozenset(),
        edge_by_tcp: bool = False,
    ) -> None:
        """By full name of service, or of a method that differs: what a caller needs, and what turns an error into an HTTP answer.

        `scopes` has every service but `OPEN_SERVICES`, or every method of it; None: no key is needed. Refused calls go to `audit`;
        what happens in each call is told to `observer`. No more than `most` calls go on at once, and their requests have no more
        than `most_bytes` together. `heartbeat` is the seconds of silence after which a stream that waits for its model gives a sign
        of life; 0: never. `keys_in_body` are the methods whose key may stand in the body: without `authorization` the caller is
        `ANONYMOUS`, and the servicer refuses it or not. `edge_by_tcp`: the edge has no unix socket of its own, and cannot be told
        from other callers.
        """
        self._scopes = scopes
        self._keys_in_body = keys_in_body
        self._renderers = renderers
        self._receiver = Receiver(most_bytes)
        self._admission = Admission(keys, most)
        self._audit = audit
        self._observer = observer
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
            elif (scope := self._scope(service, name)) is None:
                wrapped = self._open.wrap_unread(handler)
            else:
                wrapped = self._wrap(service, name, handler, scope)
            self._wrapped[method] = wrapped
        return wrapped

    def _scope(self, service: str, name: str) -> Scope | None:
        full = f"{service}/{name}"
        return self._scopes[full] if full in self._scopes else self._scopes[service]

    def _wrap(self, service: str, name: str, handler: Any, scope: Scope) -> Handler:
        """Return a handler that reads its request itself, so that a refused call is refused before its request is read."""
        full = f"{service}/{name}"
        rules = Rules(
            f"{service.rpartition('.')[2]}/{name}",
            scope,
            self._renderers.get(full, self._renderers.get(service)),
            full in self._keys_in_body,
            self._edge_by_tcp,
        )
        read = _reader(handler.request_deserializer)

        async def unary(context: Context) -> None:
            async with Handling(self._admission, self._receiver, rules, context, self._audit, self._observer) as call:
                await call.write(await handler.unary_unary(await call.request(read), context))

        async def stream(context: Context) -> None:
            async with Handling(self._admission, self._receiver, rules, context, self._audit, self._observer) as call:
                await call.write_all(handler.unary_stream(await call.request(read), context), self._heartbeat)

        if not handler.unary_unary:
            assert handler.unary_stream, f"{full}: no other kind of method is wrapped"
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
