"""Frees the memory of a failed call at once. Its request may be 32 MiB, and a reference cycle stays until the collector runs.

An exception refers to its traceback, which refers to frames, whose variables refer to the request. A cycle arises if an object in
those variables refers to the exception, as gRPC's state of a call does: it keeps the exception of `abort`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from antiphon.rpc.context import Context

Answer = TypeVar("Answer")


def drop_tracebacks(error: BaseException) -> None:
    """Remove the tracebacks of an exception and of all its causes, contexts and group members. Log the exception first."""
    found: list[BaseException | None] = [error]
    seen: set[int] = set()
    while found:
        one = found.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = None
        found += (one.__cause__, one.__context__)
        if isinstance(one, BaseExceptionGroup):
            found += one.exceptions


def release(error: grpc.aio.AbortError) -> None:
    """Remove everything from the exception of `abort` that refers to the call, before the handler raises it or returns."""
    drop_tracebacks(error)
    error.__context__ = None


def releasing(serve: Callable[[Context], Awaitable[Answer]]) -> Callable[[Any, Context], Awaitable[Answer]]:
    """Return a gRPC handler that calls `serve`, and leaves no reference cycle if `serve` aborts the call."""

    async def handle(requests: Any, context: Context) -> Answer:
        try:
            return await serve(context)
        except grpc.aio.AbortError as error:
            release(error)
            del requests, context  # the traceback of `raise` refers to this frame
            raise

    return handle
