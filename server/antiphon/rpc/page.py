"""Pages of lists, small enough for the default limit of gRPC clients."""

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
    """Return a page of at most `size` entries, and of fewer if it would be larger than `MAX_ANSWER_BYTES`.

    An entry that is larger by itself comes alone. `read` takes a number of entries, and returns them and the answer that holds
    them and the token of the next page. It is called again with a smaller number if the answer is too large.
    """
    while True:
        entries, answer = await read(size)
        if len(entries) <= 1 or (length := answer.ByteSize()) <= MAX_ANSWER_BYTES:
            return answer
        # Read again, as only the store can make the token of a page that ends earlier.
        size = max(1, min(len(entries) - 1, len(entries) * MAX_ANSWER_BYTES // length))
