"""How long to wait before the same candidate is tried again. No I/O."""

from __future__ import annotations

from msgspec import Struct


class Backoff(Struct, frozen=True):
    """Exponential backoff with full jitter: any time from 0 to the limit, which doubles with each try. In seconds.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    first: float = 0.25
    most: float = 8.0

    def seconds(self, retries: int, at: float) -> float:
        """Return the wait before a retry. `retries` is the number of retries before it, `at` a random number from 0 to 1."""
        return at * min(self.most, self.first * 2.0 ** min(retries, 30))
