"""Pages of lists that stay below the default message limit of gRPC clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sized
from typing import Final, Protocol, TypeVar

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""The largest message in bytes that a gRPC client accepts by default (`grpc.max_receive_message_length`)."""


class _Answer(Protocol):
    def ByteSize(self) -> int:
        """Return the size of the serialized message in bytes."""
        ...


Answer = TypeVar("Answer", bound=_Answer)


async def fit_page(size: int, read: Callable[[int], Awaitable[tuple[Sized, Answer]]]) -> Answer:
    """Return a page of at most `size` entries, and of fewer if it would be larger than `MAX_ANSWER_BYTES`.

    `read` takes a number of entries; it returns the entries, and the response that holds them and the next page's token. It is
    called again with a smaller number while the response is too large. A single entry is returned however large it is.
    """
    while True:
        entries, answer = await read(size)
        if len(entries) <= 1 or (length := answer.ByteSize()) <= MAX_ANSWER_BYTES:
            return answer
        # Read again: only the store can make the token of a shorter page.
        size = max(1, min(len(entries) - 1, len(entries) * MAX_ANSWER_BYTES // length))
