"""Tests of the limit on fields in a protobuf message, counted on its bytes."""

from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, struct_pb2
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.errors import InvalidRequest
from antiphon.net.json_bounds import MAX_VALUES, SMALL, TooMuch
from antiphon.rpc import wire
from antiphon.rpc.handlers import _request_parser
from antiphon.v1 import admin_pb2, chat_pb2, message_pb2

LARGE = b"\x92\x4e" + bytes([SMALL & 127 | 128, SMALL >> 7 & 127 | 128, SMALL >> 14]) + b"x" * SMALL
"""An unknown field that makes a message large enough to be checked."""


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def checked(kind: Any, data: bytes) -> None:
    wire.check(data, wire.shape_of(kind.DESCRIPTOR))


ROLE, BLOCK = b"\x08\x03", field(2, field(1, field(1, b"x")))
USER = field(2, ROLE + BLOCK)
"""A message with a role and a text: five fields."""


def test_the_layout_is_that_of_the_protos() -> None:
    """The hand-written bytes of these tests are a valid request."""
    request = chat_pb2.GenerateRequest.FromString(USER)
    assert (request.messages[0].role, request.messages[0].blocks[0].text.text) == (message_pb2.ROLE_USER, "x")


@pytest.mark.parametrize(
    ("kind", "data", "fields"),
    [
        (chat_pb2.GenerateRequest, USER, 5),
        (struct_pb2.Struct, field(1, field(2, field(6, field(1, b"")))), 4),
        (chat_pb2.GenerateRequest, field(2, b"\x13\x0a\x00\x14"), 4),  # a group has a start and an end field
        (chat_pb2.GenerateRequest, b"\x99\x4e" + b"x" * 8 + b"\x9d\x4e" + b"x" * 4, 2),
        (admin_pb2.Key, field(4, b"\x01" * 7), 8),  # packed numbers
        (chat_pb2.GenerateRequest, field(1, b"\x0a\x00" * 99), 1),  # a text that looks like fields
    ],
)
def test_the_number_of_fields_is_limited(kind: Any, data: bytes, fields: int) -> None:
    """At most MAX_VALUES fields are accepted, in nested messages too. Bytes in texts do not count."""
    most = (MAX_VALUES - 1) // fields
    checked(kind, LARGE + data * most)
    with pytest.raises(TooMuch, match="more than 65536 values"):
        checked(kind, LARGE + data * (most + 1))
    checked(kind, data * min(most + 1, SMALL // len(data)))  # a small message is never refused


@pytest.mark.parametrize("data", [b"\x0a", b"\x80" * 9, b"\x0f\x00"])
def test_what_is_no_message_is_not_read(data: bytes) -> None:
    """A malformed message is refused, whatever comes before the malformed bytes."""
    with pytest.raises(DecodeError):
        checked(chat_pb2.GenerateRequest, LARGE + USER * 20 + data)
    read = _request_parser(chat_pb2.GenerateRequest.FromString)
    for unreadable in (data, LARGE + data):
        with pytest.raises(InvalidRequest, match="cannot be read"):
            read(unreadable)


def test_a_value_that_is_nested_too_deep_is_reported_as_such() -> None:
    """A value that is nested too deep for protobuf is reported as such."""
    value = b"\x20\x01"
    for _ in range(200):
        value = field(6, field(1, value))
    read = _request_parser(struct_pb2.Struct.FromString)
    with pytest.raises(InvalidRequest, match="nested deeper"):
        read(field(1, field(1, b"k") + field(2, value)))


@given(st.binary(max_size=40))
def test_any_bytes_can_be_looked_at(data: bytes) -> None:
    """Checking any bytes ends and raises only `TooMuch` or `DecodeError`."""
    for kind in (chat_pb2.GenerateRequest, descriptor_pb2.FileDescriptorProto):
        with suppress(TooMuch, DecodeError):
            checked(kind, data + LARGE)


def test_what_holds_too_much_is_not_read() -> None:
    """A message with too many fields is refused before it is parsed."""
    read = []

    class Kind:
        DESCRIPTOR = chat_pb2.GenerateRequest.DESCRIPTOR

        @classmethod
        def from_string(cls, data: bytes) -> bytes:
            read.append(data)
            return data

    reader = _request_parser(Kind.from_string)
    with pytest.raises(InvalidRequest, match=r"^The request must not hold more than 65536 values\.$"):
        reader(LARGE + USER * MAX_VALUES)
    assert read == []
    assert reader(LARGE + USER) == LARGE + USER
