"""Lets go of what a failed call held: its request may be 32 MiB, and reference cycles stay until the garbage collector comes round.

An exception has a traceback, that has frames, and those have the request in their variables. Whatever refers to such an exception
and is itself in one of those variables closes a cycle: first of all gRPC's state of a call, which keeps the exception of `abort`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Answer = TypeVar("Answer")


def drop_tracebacks(error: BaseException) -> None:
    """Of an exception, and of all that it came from. Log it before."""
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


def releasing(serve: Callable[[Context], Awaitable[Answer]]) -> Callable[[Any, Context], Awaitable[Answer]]:
    """The handler of a method that leaves nothing behind where `serve` aborts the call."""

    async def handle(requests: Any, context: Context) -> Answer:
        try:
            return await serve(context)
        except grpc.aio.AbortError as error:
            drop_tracebacks(error)
            error.__context__ = None
            del requests, context  # this frame is in the next traceback
            raise

    return handle
