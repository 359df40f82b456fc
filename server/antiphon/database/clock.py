"""Times as the database has them: microseconds since 1970 in UTC, as integers, which both kinds sort and compare alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def now() -> int:
    """Microseconds since 1970."""
    return (datetime.now(UTC) - _EPOCH) // _MICROSECOND


def stored(time: datetime) -> int:
    """What is stored of a time."""
    return (time - _EPOCH) // _MICROSECOND


def read(microseconds: int) -> datetime:
    """The time that is stored as `microseconds`."""
    return _EPOCH + timedelta(microseconds=microseconds)
