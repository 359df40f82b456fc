"""A bounded queue with fair turns: owners take turns, so one that sends many calls delays mostly its own. No I/O."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Waiting entries, each of an owner. Holds at most `size` of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._turns: OrderedDict[str, deque[T]] = OrderedDict()
        """The entries of each owner that has any, in the order of their turns."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, owner: str, entry: T) -> bool:
        """Add an entry, and return True; or return False if the queue is full."""
        if self._count >= self.size:
            return False
        self._turns.setdefault(owner, deque()).append(entry)
        self._count += 1
        return True

    def pop(self) -> T | None:
        """Remove and return the oldest entry of the owner whose turn it is; None if the queue is empty."""
        if not self._turns:
            return None
        owner, entries = self._turns.popitem(last=False)
        entry = entries.popleft()
        self._count -= 1
        if entries:
            self._turns[owner] = entries
        return entry

    def remove(self, owner: str, entry: T) -> bool:
        """Remove an entry that no longer waits, and return whether it was still there."""
        entries = self._turns.get(owner)
        if entries is None or entry not in entries:
            return False
        entries.remove(entry)
        self._count -= 1
        if not entries:
            del self._turns[owner]
        return True
