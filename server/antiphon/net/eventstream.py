"""Parsing of Amazon's binary event streams (`application/vnd.amazon.eventstream`) from bytes, without I/O.

https://smithy.io/2.0/aws/amazon-eventstream.html. A message is, with all numbers big-endian:

| bytes | what |
|---|---|
| 4 | the length of the message |
| 4 | the length of its headers |
| 4 | the CRC32 of these eight bytes |
| | the headers: each the length of a name in one byte, the name, a type in one byte, and a value |
| | the payload |
| 4 | the CRC32 of everything before it |

Both checksums are checked, and nothing of a message is returned before it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from struct import Struct
from typing import Final, TypeAlias
from zlib import crc32

from antiphon.net.sse import EventTooLarge

Header: TypeAlias = bool | int | bytes | str
StreamMessage: TypeAlias = tuple[Mapping[str, Header], bytes]
"""The headers of a message by name, and its payload."""

_PRELUDE: Final = Struct(">III")
_CHECKSUM: Final = Struct(">I")
_SMALLEST: Final = _PRELUDE.size + _CHECKSUM.size

_MAX_HEADERS: Final = 128 * 1024
"""The most bytes of headers, as the specification has it."""

_NUMBERS: Final = {2: Struct(">b"), 3: Struct(">h"), 4: Struct(">i"), 5: Struct(">q"), 8: Struct(">q")}
"""By type: integers of one to eight bytes, and a time in milliseconds."""

_TRUE, _FALSE, _BYTES, _STRING, _UUID = 0, 1, 6, 7, 9
_LENGTH: Final = Struct(">H")
_UUID_SIZE: Final = 16


class InvalidStream(ValueError):
    """The bytes are not an event stream, or were changed on their way."""


class EventStreamReader:
    """Parses one response. `limit` is the size of the largest message, in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._wanted = _PRELUDE.size
        """The bytes without which nothing more can be read. They are joined once, however many reads they take."""

    @property
    def is_between_messages(self) -> bool:
        """Return whether no part of an incomplete message has arrived."""
        return not self._size

    def feed(self, data: bytes) -> Iterator[StreamMessage]:
        """Yield the messages that these bytes complete. They have to be taken before more bytes are fed.

        Raises `InvalidStream` and `EventTooLarge` in the place of the first message that is wrong.
        """
        self._pieces.append(data)
        self._size += len(data)
        return iter(()) if self._size < self._wanted else self._messages()

    def _messages(self) -> Iterator[StreamMessage]:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        at = 0
        wanted = _PRELUDE.size
        try:
            while len(data) - at >= _PRELUDE.size:
                size, header_size, checksum = _PRELUDE.unpack_from(data, at)
                if crc32(data[at : at + 8]) != checksum:
                    raise InvalidStream("the checksum of the lengths is wrong")
                if header_size > _MAX_HEADERS or size < header_size + _SMALLEST:
                    raise InvalidStream("a length is wrong")
                if size > self._limit:
                    raise EventTooLarge(f"a message is larger than {self._limit} bytes")
                end = at + size - _CHECKSUM.size
                if end + _CHECKSUM.size > len(data):
                    wanted = size
                    return
                if crc32(data[at:end]) != _CHECKSUM.unpack_from(data, end)[0]:
                    raise InvalidStream("the checksum of a message is wrong")
                begin = at + _PRELUDE.size + header_size
                headers = _headers(data[at + _PRELUDE.size : begin])
                at += size
                yield headers, data[begin:end]
        finally:
            rest = data[at:]
            self._pieces = [rest] if rest else []
            self._size = len(rest)
            self._wanted = wanted


@lru_cache(maxsize=64)  # a stream has a few different ones
def _headers(data: bytes) -> Mapping[str, Header]:
    """Return the headers. Raises `InvalidStream`."""
    headers: dict[str, Header] = {}
    at = 0
    try:
        while at < len(data):
            cut, at = _cut(data, at + 1, data[at])
            name = cut.decode()
            if name in headers:
                raise InvalidStream("a header is repeated")
            headers[name], at = _value(data, at + 1, data[at])
    except (LookupError, ValueError) as error:
        raise InvalidStream("a header is not readable") from error
    return headers


def _value(data: bytes, at: int, kind: int) -> tuple[Header, int]:
    """Return the value of a header, and where the next one begins."""
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind == _UUID:
        return _cut(data, at, _UUID_SIZE)
    if kind in (_BYTES, _STRING):
        length, at = _cut(data, at, _LENGTH.size)
        value, at = _cut(data, at, _LENGTH.unpack(length)[0])
        return (value.decode() if kind == _STRING else value), at
    number, at = _cut(data, at, _NUMBERS[kind].size)
    return _NUMBERS[kind].unpack(number)[0], at


def _cut(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    """Return `size` bytes, and where the rest begins. Raises `ValueError` if there are fewer."""
    end = at + size
    if end > len(data):
        raise ValueError("cut")
    return data[at:end], end
