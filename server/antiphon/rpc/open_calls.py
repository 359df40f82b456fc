"""Calls that need no key: health, reflection, and GET /health. They are not logged, and end when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from antiphon.domain.errors import AntiphonError, InvalidRequest, ShuttingDown
from antiphon.rpc.admission import CallSlots
from antiphon.rpc.context import Context, Handler
from antiphon.rpc.receiver import DRAIN_GRACE, Arrival, Receiver
from antiphon.rpc.release import releasing
from antiphon.rpc.status import code_of

Answer = TypeVar("Answer")


class OpenCalls:
    """Wraps the handlers of methods that need no key."""

    def __init__(self, receiver: Receiver, max_calls: int | None) -> None:
        """Allow at most `max_calls` streams of such calls at once; None: no limit."""
        self._receiver = receiver
        self._streams = CallSlots(max_calls)
        self._timeouts: set[asyncio.Timeout] = set()

    def drain(self) -> None:
        """End all calls that are still open after `DRAIN_GRACE` seconds, as the server stops."""
        for timeout in self._timeouts:
            timeout.reschedule(asyncio.get_running_loop().time() + DRAIN_GRACE)

    def wrap(self, handler: Any) -> Handler:
        """Return a handler that reads its requests itself, through the receiver, which bounds them."""
        read = handler.request_deserializer
        if handler.unary_unary:

            async def unary(context: Context) -> Any:
                return await handler.unary_unary(await self._request(context, read), context)

            return grpc.stream_unary_rpc_method_handler(self._drained(unary), None, handler.response_serializer)

        async def stream(context: Context) -> None:
            if handler.unary_stream:
                await self._write_all(handler.unary_stream(await self._request(context, read), context), context)
            else:
                async with aclosing(self._requests(context, read)) as requests:
                    await self._write_all(handler.stream_stream(requests, context), context)

        return grpc.stream_stream_rpc_method_handler(self._drained(stream), None, handler.response_serializer)

    def wrap_unread(self, handler: Any) -> Handler:
        """Return a handler for a method that ignores its request: the request is not read."""

        async def stream(context: Context) -> None:
            await self._write_all(handler.unary_stream(None, context), context)

        return grpc.stream_stream_rpc_method_handler(self._drained(stream), None, handler.response_serializer)

    def _drained(self, serve: Callable[[Context], Awaitable[Answer]]) -> Callable[[Any, Context], Awaitable[Answer]]:
        """Return `serve` so that the call ends when the server drains, and an `AntiphonError` becomes the call's status."""

        async def served(context: Context) -> Answer:
            timeout = asyncio.timeout(None)
            self._timeouts.add(timeout)
            try:
                async with timeout:
                    return await serve(context)
            except TimeoutError:
                error: AntiphonError = ShuttingDown()
            except AntiphonError as raised:
                error = raised
            except grpc.aio.InternalError:
                raise asyncio.CancelledError from None  # the caller is gone
            finally:
                self._timeouts.discard(timeout)
            try:
                await context.abort(code_of(error), error.message)
            except grpc.aio.InternalError:
                raise asyncio.CancelledError from None  # the caller does not read: an earlier message is still being written
            raise AssertionError  # unreachable: `abort` raises

        return releasing(served)

    async def _write_all(self, messages: AsyncIterable[Any], context: Context) -> None:
        self._streams.take()
        try:
            async with aclosing(messages):  # type: ignore[type-var]  # the handlers return generators
                async for message in messages:
                    await context.write(message)
        finally:
            self._streams.give_back()

    async def _requests(self, context: Context, read: Callable[[bytes], Any]) -> AsyncGenerator[Any, None]:
        while True:
            arrival = Arrival(authenticated=False)
            try:
                data = await self._receiver.receive(context, arrival)
                if data is None:
                    return
                request = _read(read, data)
            finally:
                self._receiver.release(arrival)  # parsed requests of open services are small
            yield request

    async def _request(self, context: Context, read: Callable[[bytes], Any]) -> Any:
        async for request in self._requests(context, read):
            return request
        raise InvalidRequest("The call has no request message.")


def _read(read: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return read(data)
    except DecodeError:
        raise InvalidRequest("The request cannot be read.") from None
