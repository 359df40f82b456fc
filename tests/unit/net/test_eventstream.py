"""Amazon's binary event streams: complete messages come out, and nothing else."""

import struct
from itertools import pairwise
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from antiphon.net.eventstream import EventStreamReader, InvalidStream, StreamMessage
from antiphon.net.sse import EventTooLarge
from tests.eventstream import event, exception, header, message

DATA = b"".join(
    (
        event("messageStart", {"role": "assistant"}),
        message(b"", b""),
        exception("throttlingException", {"message": "slow"}),
        message(
            header("true", b"", 0)
            + header("false", b"", 1)
            + header("byte", struct.pack(">b", -2), 2)
            + header("short", struct.pack(">h", -3), 3)
            + header("int", struct.pack(">i", -4), 4)
            + header("long", struct.pack(">q", -5), 5)
            + header("bytes", b"\0\2ab", 6)
            + header("text", "ü")
            + header("time", struct.pack(">q", 1_700_000_000_123), 8)
            + header("uuid", bytes(range(16)), 9),
            b"payload",
        ),
    )
)


def read(*pieces: bytes, limit: int = 1000) -> list[StreamMessage]:
    reader = EventStreamReader(limit)
    return [one for piece in pieces for one in reader.feed(piece)]


def test_messages() -> None:
    """Headers of all types and payloads are read."""
    start, empty, failure, last = read(DATA)
    assert start == (
        {":event-type": "messageStart", ":content-type": "application/json", ":message-type": "event"},
        b'{"role": "assistant"}',
    )
    assert empty == ({}, b"")
    assert failure[0][":exception-type"] == "throttlingException"
    assert last == (
        {
            "true": True,
            "false": False,
            "byte": -2,
            "short": -3,
            "int": -4,
            "long": -5,
            "bytes": b"ab",
            "text": "ü",
            "time": 1_700_000_000_123,
            "uuid": bytes(range(16)),
        },
        b"payload",
    )


def test_botocore_reads_the_same() -> None:
    """AWS's own parser finds the same messages in the same bytes."""
    theirs = EventStreamBuffer()
    theirs.add_data(DATA)
    assert [(one.headers, one.payload) for one in theirs] == read(DATA)


@given(st.lists(st.integers(0, len(DATA)), max_size=10))
def test_cut_anywhere(cuts: list[int]) -> None:
    """Messages do not depend on where the bytes are cut."""
    places = [0, *sorted(cuts), len(DATA)]
    assert read(*(DATA[begin:end] for begin, end in pairwise(places))) == read(DATA)


def test_each_cut() -> None:
    """A reader knows at each byte whether it is between two messages, and has returned only what was complete."""
    ends = {0}
    for at in range(len(DATA) + 1):
        reader = EventStreamReader(1000)
        found = list(reader.feed(DATA[:at]))
        if reader.is_between_messages:
            ends.add(at)
        assert len(found) == len([end for end in ends if 0 < end <= at])
    assert len(ends) == 5


def test_each_changed_bit() -> None:
    """No bit of a message can be changed without notice."""
    data = event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}})
    for at in range(len(data) * 8):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises((InvalidStream, EventTooLarge)):
            read(bytes(changed))


def test_messages_before_a_wrong_one() -> None:
    """They are returned before the failure is raised."""
    messages = EventStreamReader(1000).feed(event("a", {}) + b"x" * 16)
    assert next(messages)[1] == b"{}"
    with pytest.raises(InvalidStream):
        next(messages)


def test_a_large_message() -> None:
    """It is refused by its length, before it has arrived."""
    data = event("a", {"text": "x" * 200})
    assert len(read(data, limit=len(data))) == 1
    with pytest.raises(EventTooLarge):
        read(data[:12], limit=len(data) - 1)


@pytest.mark.parametrize(
    "headers",
    [
        header("a", "b") + header("a", "b"),
        header("a", "b")[:-1],
        b"\5a",
        header("a", b"", 10),
        header("a", b"\0", 3),
        header("a", b"\0\1\xff"),
        b"\1\xff\0",
    ],
    ids=["repeated", "cut value", "cut name", "unknown type", "cut number", "not UTF-8", "name is not UTF-8"],
)
def test_wrong_headers(headers: bytes) -> None:
    """They are refused, though their checksums are right."""
    with pytest.raises(InvalidStream):
        read(message(headers, b"{}"))


@pytest.mark.parametrize("lengths", [(15, 0), (20, 5), (200_000, 140_000), (16, 2**31)])
def test_wrong_lengths(lengths: tuple[int, int]) -> None:
    """Lengths that contradict each other, or the specification, are refused at once."""
    prelude = struct.pack(">II", *lengths)
    with pytest.raises(InvalidStream):
        read(prelude + struct.pack(">I", crc32(prelude)), limit=1 << 20)
