"""Frees the memory of a failed call at once. Its request may be 32 MiB, and a reference cycle stays until the collector runs.

An exception refers to its traceback, that to frames, and those to the request in their variables. An object in one of those
variables that refers to the exception closes a cycle. gRPC's state of a call is one: it keeps the exception of `abort`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from antiphon.rpc.context import Context

Answer = TypeVar("Answer")


def drop_tracebacks(error: BaseException) -> None:
    """Drop the tracebacks of an exception and of all its causes, contexts and parts. Log the exception before."""
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
    """Return a handler that calls `serve`, and leaves no reference cycle where `serve` aborts the call."""

    async def handle(requests: Any, context: Context) -> Answer:
        try:
            return await serve(context)
        except grpc.aio.AbortError as error:
            drop_tracebacks(error)
            error.__context__ = None
            del requests, context  # this frame is in the next traceback
            raise

    return handle
