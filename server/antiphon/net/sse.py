"""Server-sent events out of bytes, without I/O.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation, except that the text stays UTF-8 bytes,
that `id` and `retry` are dropped (nobody here reconnects), and that the event at the end of the input that no blank line closed
can be asked for: some hosts end that way, and whether it is whole only its payload can tell.

Bytes are held only until their line is whole, and a line is joined once, however many reads it is spread over.
"""

from __future__ import annotations

from typing import TypeAlias

SseEvent: TypeAlias = tuple[bytes, bytes]
"""The name, empty if it has none, and the data."""

_BOM = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """An event is longer than the limit."""


class SseReader:
    """Reads one response. `limit` is the largest event, in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line: list[bytes] = []  # pieces of the line that has not ended
        self._held = 0  # bytes in `_line` and `_data`, or more: comments count until they are found to be none of it
        self._open = False  # whole lines of an event have come, but not the blank line after it
        self._name = b""
        self._data: bytearray | None = None  # joined as they come: a line may be empty, and a list of them be long for its bytes
        self._begun = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that are whole with these bytes. Raises `EventTooLarge`."""
        if self._after_cr or b"\r" in data:
            data = self._without_cr(data)
        self._held += len(data)
        if b"\n" not in data:
            self._line.append(data)
            if self._held > self._limit:
                self._check([])
            return []

        if self._line:
            self._line.append(data)
            data = b"".join(self._line)
        if not self._begun:
            self._begun = True
            data = data.removeprefix(_BOM)
        if self._open:
            # The line break before `data` is spent; with it again, a blank line is the same two bytes here as everywhere.
            data = b"\n" + data

        events: list[SseEvent] = []
        blocks = data.split(b"\n\n")
        rest = blocks.pop()
        for block in blocks:
            if not self._open and block.startswith(b"data: ") and b"\n" not in block:
                events.append((b"", block[6:]))
            else:
                self._take_lines(block)
                self._dispatch(events)
        lines, line_break, line = rest.rpartition(b"\n")
        if line_break:
            self._take_lines(lines)
            self._open = True
        self._line = [line] if line else []

        if self._held > self._limit:
            self._check(events)
        elif events:
            self._held = len(rest)
        return events

    def end(self) -> SseEvent | None:
        """The event that no blank line closed, if there is one.

        It may be cut anywhere: it is to be taken for whole only if its payload says so by itself, as a JSON object does.
        """
        line = b"".join(self._line)
        if not self._begun:
            line = line.removeprefix(_BOM)
        self._take_lines(line)
        events: list[SseEvent] = []
        self._dispatch(events)
        self._line = []
        return events[0] if events else None

    def _without_cr(self, data: bytes) -> bytes:
        """Return it with LF for every line break."""
        if self._after_cr and data:
            # The CR before was taken for the end of its line at once, so the LF that belongs to it is not another one.
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
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
        self._open = False

    def _check(self, events: list[SseEvent]) -> None:
        self._held = sum(map(len, self._line)) + len(self._data or b"")
        if max(self._held, *(len(data) for _, data in events), 0) > self._limit:
            raise EventTooLarge(f"an event is larger than {self._limit} bytes")
