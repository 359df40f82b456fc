"""Pages of lists that every client can receive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sized
from typing import Final, Protocol, TypeVar

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""The largest message that a gRPC client takes if nobody has told it otherwise (`grpc.max_receive_message_length`)."""


class _Answer(Protocol):
    def ByteSize(self) -> int:
        """Bytes of the serialized message."""
        ...


Answer = TypeVar("Answer", bound=_Answer)


async def fitting(size: int, read: Callable[[int], Awaitable[tuple[Sized, Answer]]]) -> Answer:
    """Return the page of at most `size` entries that `read` makes, with fewer where it would be larger than `MAX_ANSWER_BYTES`.

    An entry that is larger by itself comes alone. `read` takes a size, and returns the entries and the answer, which holds the
    token of the page that follows.
    """
    while True:
        entries, answer = await read(size)
        if len(entries) <= 1 or (length := answer.ByteSize()) <= MAX_ANSWER_BYTES:
            return answer
        # The store knows where a page ends that has fewer.
        size = max(1, min(len(entries) - 1, len(entries) * MAX_ANSWER_BYTES // length))
