"""What a call sends to its caller: initial metadata, messages, and its status.

Each operation of gRPC costs a wake-up of its thread and one of the event loop, 20 to 60 us. So what is sent together is one
operation, where the server can do that (`rpc/acceptor`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeAlias

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # has no types

from antiphon.rpc.context import Context
from antiphon.rpc.release import release

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class Sender(Protocol):
    """Sends what one call answers. One method may run at a time.

    `metadata` are the initial ones, in the first use of a sender; None in all others. `message` is a serialized message, or None.
    All raise `grpc.aio.InternalError` if the caller is gone.
    """

    def send(self, metadata: Metadata | None, message: bytes | None) -> Awaitable[None]:
        """Send a message of which more follow, or only the metadata."""
        ...

    def end(self, metadata: Metadata | None, message: bytes | None) -> Awaitable[None]:
        """Send the last message, if there is one, and the status OK."""
        ...

    def fail(
        self, metadata: Metadata | None, message: bytes | None, code: grpc.StatusCode, details: str, trailers: Metadata
    ) -> Awaitable[None]:
        """Send a message, if there is one, and the status of an error."""
        ...


Serve: TypeAlias = Callable[[Context, Sender], Coroutine[Any, Any, None]]
"""Handles a call, to its end."""


class ContextSender:
    """Sends by the context that any server of grpc.aio passes to a handler; for one of a method with streamed responses."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def send(self, metadata: Metadata | None, message: bytes | None) -> None:
        """Send a message, after the metadata."""
        if metadata:
            await self._context.send_initial_metadata(tuple(metadata))
        if message is not None:
            await self._context.write(message)

    async def end(self, metadata: Metadata | None, message: bytes | None) -> None:
        """Send the last message. gRPC sends the status when the handler returns."""
        await self.send(metadata, message)

    async def fail(
        self, metadata: Metadata | None, message: bytes | None, code: grpc.StatusCode, details: str, trailers: Metadata
    ) -> None:
        """Send a message, and abort the call."""
        await self.send(metadata, message)
        try:
            await self._context.abort(code, details, tuple(trailers))
        except grpc.aio.AbortError as aborted:
            release(aborted)  # gRPC raises it again after the handler, without these frames


class Stopping(Protocol):
    """A server that can stop."""

    is_stopped: bool
    """Whether no call is left. The core's state of a call must not be used any more then."""


class DirectSender:
    """Sends by grpc.aio's own functions: what is sent together is one batch of operations of gRPC's core.

    They are not public: `rpc/acceptor` checks that they are what they were.
    """

    __slots__ = ("_ended", "_loop", "_server", "_state")

    def __init__(self, state: Any, loop: asyncio.AbstractEventLoop, server: Stopping) -> None:
        """`state` is grpc.aio's `RPCState` of a call of `server`."""
        self._state = state
        self._loop = loop
        self._server = server
        self._ended = False

    def send(self, metadata: Metadata | None, message: bytes | None, status: tuple[Any, ...] = ()) -> Awaitable[None]:
        """Send a message, or only the metadata. `status` has the operation that ends the call."""
        if self._ended or self._server.is_stopped:
            raise grpc.aio.InternalError("The call has ended.")
        self._ended = bool(status)
        operations = status if message is None else (cygrpc.SendMessageOperation(message, 0), *status)
        if metadata is not None:
            operations = (cygrpc.SendInitialMetadataOperation(metadata, 0), *operations)
        executing: Awaitable[None] = cygrpc.execute_batch(self._state, operations, self._loop)
        return executing

    def end(self, metadata: Metadata | None, message: bytes | None) -> Awaitable[None]:
        """Send the last message and the status OK."""
        return self.send(metadata, message, (cygrpc.SendStatusFromServerOperation((), 0, "", 0),))

    def fail(
        self, metadata: Metadata | None, message: bytes | None, code: grpc.StatusCode, details: str, trailers: Metadata
    ) -> Awaitable[None]:
        """Send a message and the status of an error."""
        return self.send(metadata, message, (cygrpc.SendStatusFromServerOperation(trailers, code.value[0], details, 0),))


class MethodHandler:
    """A method whose calls `serve` handles. Has the attributes of `grpc.RpcMethodHandler`."""

    request_streaming = response_streaming = True
    request_deserializer = response_serializer = None
    unary_unary = unary_stream = stream_unary = None

    def __init__(self, serve: Serve) -> None:
        self.serve = serve

    async def stream_stream(self, _requests: Any, context: Context) -> None:
        """Handle a call where only gRPC's own handlers are known."""
        await self.serve(context, ContextSender(context))
