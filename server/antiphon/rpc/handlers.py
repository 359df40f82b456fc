"""The handlers of all methods, each wrapped according to its rules. `antiphon.rpc.handling` handles the call itself.

This is a generic handler and no interceptor: gRPC would start a coroutine of its own for an interceptor, for each call.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Coroutine, Iterable, Mapping, Sequence
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
from antiphon.rpc.admission import Admission, ErrorRenderer, MethodRules
from antiphon.rpc.context import Context
from antiphon.rpc.handling import Handling, ServedMethod
from antiphon.rpc.open_calls import OpenCalls
from antiphon.rpc.receiver import Receiver
from antiphon.rpc.sender import MethodHandler, Sender

OPEN_SERVICES = frozenset(
    {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
)
"""Services that need no key: they reveal only the public contract, and whether the server is healthy."""


class CallHandlers(grpc.GenericRpcHandler):
    """Finds the handler of a call by the name of its method.

    Each is wrapped with admission, reading of the request, and writing of the response. Open services are only bounded. Stands for
    the server where generated code adds a servicer.
    """

    def __init__(
        self,
        keys: Authenticator,
        scopes: Mapping[str, Scope | None],
        renderers: Mapping[str, ErrorRenderer],
        audit: AuditLog | None = None,
        observer: Observer = NO_OBSERVER,
        max_calls: int | None = None,
        max_request_bytes: int | None = None,
        heartbeat: float = 15.0,
        *,
        keys_in_body: Container[str] = frozenset(),
        edge_by_tcp: bool = False,
    ) -> None:
        """Take what applies to each service or method, by full name; an entry for a method takes precedence.

        `scopes` has every service but `OPEN_SERVICES`, or all of its methods; None: no key is needed. `renderers` has what turns an
        error into an HTTP response, for REST dialects. `audit` records refused calls, and `observer` is notified of what happens in
        each call.

        At most `max_calls` calls run at once, and their requests have at most `max_request_bytes` bytes together; None: no limit.
        `heartbeat` is the seconds of silence after which a stream that waits for its model sends a heartbeat; 0: never.
        `keys_in_body` are the methods whose key may be in the body: without an `authorization` header the caller is `ANONYMOUS`,
        and the servicer authenticates it. `edge_by_tcp` is True if the edge connects by TCP, so that its address does not tell it
        from other callers.
        """
        self._scopes = scopes
        self._keys_in_body = keys_in_body
        self._renderers = renderers
        self._receiver = Receiver(max_request_bytes)
        self._admission = Admission(keys, max_calls)
        self._audit = audit
        self._observer = observer
        self._open = OpenCalls(self._receiver, max_calls)
        self._heartbeat = heartbeat
        self._edge_by_tcp = edge_by_tcp
        self.methods: list[str] = []
        """All methods, as "/service/method"."""
        self._generic: list[grpc.GenericRpcHandler] = []
        self._wrapped: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add the handlers of a service. Generated code calls this."""
        self._generic += handlers

    def add_registered_method_handlers(self, service: str, handlers: Iterable[str]) -> None:
        """Take the names of the methods of a service. Generated code calls this as well."""
        self.methods += [f"/{service}/{name}" for name in handlers]

    @property
    def calls(self) -> int:
        """The number of calls that are being handled, without those of open services."""
        return self._admission.calls

    def drain(self) -> None:
        """End open calls, and calls whose request has not arrived, as the server stops. Calls that are being answered go on."""
        self._receiver.drain()
        self._open.drain()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the wrapped handler of a method, None if there is none. It is made once, as the methods do not change."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = next(filter(None, (generic.service(handler_call_details) for generic in self._generic)), None)
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

    def _wrap(self, service: str, name: str, handler: Any, scope: Scope) -> MethodHandler:
        """Return a handler that reads its request itself, so that a call can be refused before its request is read."""
        full = f"{service}/{name}"
        rules = MethodRules(
            f"{service.rpartition('.')[2]}/{name}",
            scope,
            self._renderers.get(full, self._renderers.get(service)),
            full in self._keys_in_body,
            self._edge_by_tcp,
        )
        read, serve = _request_parser(handler.request_deserializer), handler.unary_unary or handler.unary_stream
        assert serve, f"{full}: only unary-unary and unary-stream methods can be wrapped"
        method = ServedMethod(rules, read, serve, self._admission, self._receiver, self._audit, self._observer, self._heartbeat)
        is_unary = handler.unary_unary is not None

        def call(context: Context, sender: Sender) -> Coroutine[Any, Any, None]:
            handling = Handling(method, context, sender)
            return handling.unary() if is_unary else handling.stream()

        return MethodHandler(call)


def _request_parser(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a function that parses a request. It raises `InvalidRequest` for one that is too complex or cannot be parsed.

    `read` is the `FromString` of a generated class.
    """
    shape = wire.shape_of(read.__self__.DESCRIPTOR)  # type: ignore[attr-defined]  # the generated class

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
