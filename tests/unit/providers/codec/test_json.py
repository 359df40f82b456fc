"""Tests of JSON that is not quite valid."""

import math

import pytest

from antiphon.net import json_bounds
from antiphon.providers.codec.json import read


def test_integers_of_any_length_are_kept() -> None:
    """An integer beyond 64 bits is not rounded."""
    assert read(b'{"n": 123456789012345678901234567890}') == {"n": 123456789012345678901234567890}


def test_what_the_decoder_rejects_is_repaired() -> None:
    """A byte order mark and NaN are read, a split pair of surrogates is joined, and single halves are replaced."""
    assert math.isnan(read(b'\xef\xbb\xbf{"n": NaN}')["n"])
    assert read(b"[" + rb'"\ud83d\ude00", {"x": "a\ud83d"}, NaN]')[:2] == ["\N{GRINNING FACE}", {"x": "a\N{REPLACEMENT CHARACTER}"}]


@pytest.mark.parametrize("payload", [b"", b"<html>", b'{"x": ', b"\xff"])
def test_other_texts_are_refused(payload: bytes) -> None:
    """What is not JSON raises `ValueError`."""
    with pytest.raises(ValueError):  # noqa: PT011  # of several kinds
        read(payload)


def test_too_many_values() -> None:
    """A text with too many values is refused before it is decoded."""
    with pytest.raises(json_bounds.TooMuch):
        read(b"[" + b"[]," * json_bounds.MAX_VALUES + b"[]]")
