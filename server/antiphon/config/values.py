"""Types of checked values in settings: addresses, names, times and headers. No I/O.

The messages of their errors are the end of a sentence that begins with the setting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING: Final = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError('must be "host:port", such as "127.0.0.1:8080"')
    return value


def _header_name(value: str) -> str:
    """Return the name of a header (RFC 9110, section 5.1), unless the client uses it to frame messages. Raises `ValueError`."""
    if not _TOKEN.fullmatch(value):
        raise ValueError("is not the name of a header: letters, digits and dashes")
    if value.lower() in _FRAMING:
        raise ValueError(f"{value.lower()} must not be set: it belongs to the connection")
    return value


def _headers(values: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in values.items():
        try:
            _header_name(name)
        except ValueError as error:
            raise ValueError(f"{name!r} {error}" if not _TOKEN.fullmatch(name) else str(error)) from None
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"{name}: its value has a line break or another character that is not allowed in a header")
    return values


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("has a non-printable character, such as a line break")
    return value


def _name(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return _printable(value)


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Address = Annotated[str, AfterValidator(_address)]
"""A host and a port."""

Name = Annotated[str, AfterValidator(_name)]
"""A name for the database, lists and logs: printable characters only."""

Prefix = Annotated[str, AfterValidator(_printable)]
"""The start of names, which may be empty."""

OneOrMore = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]
"""Texts; a single one may be written without a list."""

Time = Annotated[datetime, AfterValidator(_in_utc)]
"""A time; in UTC if it has no zone."""

HeaderName = Annotated[str, AfterValidator(_header_name)]
"""The name of a header that may be set."""
Headers = Annotated[Mapping[str, str], AfterValidator(_headers)]
"""Headers that may be sent, by name."""
