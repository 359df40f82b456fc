"""Parsing of server-sent events from bytes, without I/O.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation, with three exceptions: the text stays
UTF-8 bytes; `id` and `retry` are dropped, as nothing here reconnects; and a last event without the blank line after it can be
requested by `end`: some hosts end that way, and only the payload can show whether it is complete.

Bytes are buffered only until their line is complete, and a line is joined once, however many reads it took.
"""

from __future__ import annotations

from itertools import repeat
from typing import TypeAlias

SseEvent: TypeAlias = tuple[bytes, bytes]
"""The event's name, empty if it has none, and its data."""

_BOM = b"\xef\xbb\xbf"
_CR, _LF = b"\r\n"  # numbers, which are found in a third of the time of bytes


class EventTooLarge(Exception):
    """An event is larger than the limit."""


class SseReader:
    """Parses one response. `limit` is the size of the largest event, in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line: list[bytes] = []  # pieces of the incomplete line
        self._buffered = 0  # bytes in `_line` and `_data`; may be too high, as comments count until the next check
        self._in_event = False  # lines of an event have arrived, but not the blank line after it
        self._name = b""
        self._data: bytearray | None = None  # joined at once: a list of many empty lines would take far more memory than its bytes
        self._begun = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that these bytes complete. Raises `EventTooLarge`."""
        if self._after_cr or _CR in data:
            data = self._without_cr(data)
        self._buffered += len(data)
        if _LF not in data:
            self._line.append(data)
            if self._buffered > self._limit:
                self._check_size([])
            return []

        if self._line:
            self._line.append(data)
            data = b"".join(self._line)
        if not self._begun:
            self._begun = True
            data = data.removeprefix(_BOM)
        if self._in_event:
            # Put back the consumed line break before `data`, so that a blank line is two line breaks here too.
            data = b"\n" + data

        events: list[SseEvent] = []
        if data.startswith(b"data: ") and (end := data.rfind(b"\n\n")) > 0:
            texts = data[6:end].split(b"\n\ndata: ")
            if data.count(b"\n", 0, end) == 2 * len(texts) - 2:  # each event is one line of data, as nearly all are
                events = list(zip(repeat(b""), texts, strict=False))
                data = data[end + 2 :]
        self._line = []
        if data:
            data = self._take_events(data, events)

        if self._buffered > self._limit:
            self._check_size(events)
        elif events:
            self._buffered = len(data)
        return events

    def take_back(self, data: bytes) -> bytes:
        """Return `data` after the incomplete line that it continues, for a reader that tries a shorter way first; feed it the rest.

        Empty in the middle of an event of several lines, and where the shorter way would cost more: nothing is taken back then.
        """
        if self._in_event or self._after_cr or len(self._line) > 1:
            return b""
        if self._line:
            data = self._line[0] + data
            self._line = []
            self._buffered = 0
        return data

    def end(self) -> SseEvent | None:
        """Return the last event if no blank line ended it, otherwise None.

        It may be cut off anywhere: use it only if its payload is complete by itself, as a JSON object is.
        """
        line = b"".join(self._line)
        if not self._begun:
            line = line.removeprefix(_BOM)
        self._take_lines(line)
        events: list[SseEvent] = []
        self._dispatch(events)
        self._line = []
        return events[0] if events else None

    def _take_events(self, data: bytes, events: list[SseEvent]) -> bytes:
        """Append the events that `data` completes, keep what follows them, and return that."""
        *blocks, rest = data.split(b"\n\n")
        for block in blocks:
            self._take_lines(block)
            self._dispatch(events)
        lines, line_break, line = rest.rpartition(b"\n")
        if line_break:
            self._take_lines(lines)
            self._in_event = True
        if line:
            self._line = [line]
        return rest

    def _without_cr(self, data: bytes) -> bytes:
        """Return `data` with LF for every line break."""
        if self._after_cr and data:
            # The CR before already ended its line, so the LF that follows it is not another line break.
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if _CR in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _take_lines(self, lines: bytes) -> None:
        for line in lines.split(b"\n"):
            field, _, value = line.partition(b":")
            if field == b"data":
                if self._data is None:
                    self._data = bytearray()
                else:
                    self._data += b"\n"
                self._data += value.removeprefix(b" ")
            elif field == b"event":
                self._name = value.removeprefix(b" ")

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data is not None:
            events.append((self._name, bytes(self._data)))
            self._data = None
        self._name = b""
        self._in_event = False

    def _check_size(self, events: list[SseEvent]) -> None:
        self._buffered = sum(map(len, self._line)) + len(self._data or b"")
        if max(self._buffered, *(len(data) for _, data in events), 0) > self._limit:
            raise EventTooLarge(f"an event is larger than {self._limit} bytes")
