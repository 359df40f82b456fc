"""Times in the database: integers of microseconds since 1970 in UTC, which both databases sort and compare alike."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def now() -> int:
    """Return the current time in microseconds since 1970."""
    return time.time_ns() // 1000


def stored(moment: datetime) -> int:
    """Return a time in the form in which it is stored."""
    return (moment - _EPOCH) // _MICROSECOND


def read(microseconds: int) -> datetime:
    """Return the time stored as `microseconds`."""
    return _EPOCH + timedelta(microseconds=microseconds)
