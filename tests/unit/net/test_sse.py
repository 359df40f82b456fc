"""Tests of reading server-sent events from bytes that are cut at any place."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.net.sse import EventTooLarge, SseEvent, SseReader

STREAMS = {
    "lf": b'data: {"a": 1}\n\ndata: two\n\n',
    "cr": b'data: {"a": 1}\r\rdata: two\r\r',
    "crlf": b'data: {"a": 1}\r\n\r\ndata: two\r\n\r\n',
    "mixed": b'data: {"a": 1}\r\n\ndata: two\r\r\n',
    "no space": b'data:{"a": 1}\n\ndata:two\n\n',
    "comments": b': hello\n\n: OPENROUTER PROCESSING\n\ndata: {"a": 1}\n: in between\n\n:\n\ndata: two\n\n',
    "bom": b'\xef\xbb\xbfdata: {"a": 1}\n\ndata: two\n\n',
    "blank lines": b'\n\n\ndata: {"a": 1}\n\n\n\n\ndata: two\n\n\n',
    "other fields": b'id: 7\nretry: 10\ndata: {"a": 1}\nunknown: x\nnonsense\n\nid\ndata: two\n\n',
}


def read(*pieces: bytes, limit: int = 1000) -> list[SseEvent]:
    reader = SseReader(limit)
    return [event for piece in pieces for event in reader.feed(piece)]


def every_cut(stream: bytes) -> list[tuple[bytes, ...]]:
    """Return the stream as a whole, cut in two at every place, and in single bytes."""
    cuts: list[tuple[bytes, ...]] = [(stream,)]
    cuts += [(stream[:at], stream[at:]) for at in range(len(stream) + 1)]
    cuts.append(tuple(stream[at : at + 1] for at in range(len(stream))))
    return cuts


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_every_manner_cut_anywhere(stream: bytes) -> None:
    """Line ends, comments, byte order marks, unknown fields and cuts make no difference to the events."""
    for pieces in every_cut(stream):
        assert read(*pieces) == [(b"", b'{"a": 1}'), (b"", b"two")], pieces


def test_cut_in_three() -> None:
    """Two cuts at any two places make no difference to the events."""
    stream = b"event: a\r\ndata: x\r\ndata: y\r\n\r\ndata: z\r\n\r\n"
    for first in range(len(stream)):
        for second in range(first, len(stream)):
            pieces = stream[:first], stream[first:second], stream[second:]
            assert read(*pieces) == [(b"a", b"x\ny"), (b"", b"z")], pieces


def test_names_and_lines_of_data() -> None:
    """An event has its name, and its lines of data are joined by line breaks. The name does not carry over to the next event."""
    stream = b"event: ping\ndata: one\ndata:  two\ndata\n\ndata: three\n\nevent: lost\n\ndata: four\n\n"
    for pieces in every_cut(stream):
        assert read(*pieces) == [(b"ping", b"one\n two\n"), (b"", b"three"), (b"", b"four")], pieces


def test_utf8_cut_inside_a_character() -> None:
    """A character that is cut between two pieces comes out whole."""
    for pieces in every_cut("data: größe 🦀\n\n".encode()):
        assert read(*pieces) == [(b"", "größe 🦀".encode())], pieces


def test_event_comes_with_its_blank_line() -> None:
    """An event is returned as soon as its blank line is there, also if a CR might be followed by an LF."""
    reader = SseReader(100)
    assert reader.feed(b"data: a\r\n\r") == [(b"", b"a")]
    assert reader.feed(b"\ndata: b\n") == []
    assert reader.feed(b"\n") == [(b"", b"b")]


def test_end_gives_the_event_without_a_blank_line() -> None:
    """An event without its blank line is returned by `end` only."""
    for tail in (b"data: last", b"data: last\n", b"event: x\r\ndata: last\r", b": c\ndata: last\nid: 1"):
        for pieces in every_cut(b"data: a\n\n" + tail):
            reader = SseReader(100)
            events = [event for piece in pieces for event in reader.feed(piece)]
            assert events == [(b"", b"a")], pieces
            rest = reader.end()
            assert rest is not None
            assert rest[1] == b"last", pieces


@pytest.mark.parametrize(
    "stream", [b"", b"\n\n", b"data: a\n\n", b"data: a\n\n: comment", b"data: a\n\nevent: x\n", b"\xef\xbb\xbf"]
)
def test_end_of_a_whole_stream(stream: bytes) -> None:
    """After a complete stream `end` returns None."""
    reader = SseReader(100)
    reader.feed(stream)
    assert reader.end() is None


def test_bom_only_at_the_beginning() -> None:
    """A byte order mark is skipped at the beginning only, even if no line ends."""
    assert read(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == [(b"", b"a")]
    reader = SseReader(100)
    reader.feed(b"\xef\xbb\xbfdata: a")
    assert reader.end() == (b"", b"a")


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 101 + b"\n\n"],
        [b"data: " + b"x" * 60, b"x" * 60],
        [b"data: " + b"x" * 60 + b"\n", b"data: " + b"x" * 60 + b"\n"],
        [b"data:\n" * 50, b"data:\n" * 60],
        [b":" + b"x" * 120],
    ],
    ids=["in one read", "in one line", "in several lines", "in empty lines", "a comment"],
)
def test_too_large(pieces: list[bytes]) -> None:
    """An event over the limit raises `EventTooLarge`, in whatever pieces it comes."""
    with pytest.raises(EventTooLarge, match="100 bytes"):
        read(*pieces, limit=100)


def test_the_limit_is_for_one_event() -> None:
    """The limit holds for one event; the number of events and keep-alive comments is not limited."""
    reader = SseReader(100)
    for _ in range(50):
        assert reader.feed(b": keep-alive\n\n") == []
        assert reader.feed(b": keep") == []
        assert reader.feed(b"-alive\n\ndata: " + b"x" * 90 + b"\n\n") == [(b"", b"x" * 90)]
    assert len(read(b"data: 1234\n\n" * 50, limit=100)) == 50


PARTS = [
    b"data: ",
    b"data:",
    b"data",
    b"event: a",
    b": x",
    b"id: 7",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\r",
    b"x",
    b"{}",
    b"\xef\xbb\xbf",
    b" ",
]
PIECES = st.lists(st.lists(st.sampled_from(PARTS) | st.sampled_from([b"data: {}\n\n", b"data: x\n\n"]), max_size=8).map(b"".join))


def interpreted(stream: bytes) -> list[SseEvent]:
    """Return the events of a whole stream, line by line as the specification says it."""
    events: list[SseEvent] = []
    name, data = b"", list[bytes]()
    for line in re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]:
        field, _, value = line.partition(b":")
        if not line:
            events += [(name, b"\n".join(data))] if data else []
            name, data = b"", []
        elif field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return events


@given(PIECES)
def test_events_are_those_of_the_specification(pieces: list[bytes]) -> None:
    """Reads of many whole events, which take a shorter way, have the same events as any others."""
    whole = b"".join(pieces)
    if whole.endswith(b"\r"):
        whole += b"\n"  # whether the next byte belongs to this line end is not known yet
        pieces = [*pieces, b"\n"]
    assert read(*pieces) == interpreted(whole)
