"""Tests of the response header with the warnings about parameters."""

import re

from antiphon.domain.warnings import ParameterWarning, Treatment
from antiphon.rest.shared.body import message_paths, option_path
from antiphon.rest.shared.warnings import MAX_LENGTH, WARNINGS_HEADER, write_header

SEED = ParameterWarning(("sampling", "seed"), Treatment.DROPPED, "there is none")
EFFORT = ParameterWarning(("reasoning", "effort"), Treatment.MAPPED, 'it says "low"', "thinking.budget_tokens")

_ITEM = re.compile(r'([A-Za-z*][\w!#$%&\'*+.^`|~:/-]*)((?:;[a-z]+(?:=(?:"(?:[^"\\]|\\["\\])*"|\d+))?)*)(?:, |$)')
"""An item of a list of RFC 9651: a token with parameters."""


def header(*warnings: ParameterWarning) -> str:
    headers: dict[str, str] = {}
    write_header(headers, option_path, warnings)
    return headers[WARNINGS_HEADER]


def test_names_are_those_of_the_callers_body() -> None:
    """A parameter is named as in chat completions, with what was done, and why."""
    assert header(SEED, EFFORT) == (
        'seed;dropped;reason="there is none", reasoning_effort;mapped="thinking.budget_tokens";reason="it says \\"low\\""'
    )


def test_no_warnings_no_header() -> None:
    """The warnings of an attempt replace those of the one before, even by none."""
    headers = {"x-session-id": "1"}
    write_header(headers, option_path, (SEED,))
    write_header(headers, option_path, ())
    assert headers == {"x-session-id": "1"}


def test_nothing_breaks_the_header() -> None:
    """Whatever a caller's own field is called, the header stays one line of ASCII in the documented form."""
    odd = [ParameterWarning(("extra", name), Treatment.DROPPED, "a\r\nb\\é") for name in ("x\r\ny", "é", "", "1", "a b;c=1,d")]
    value = header(*odd)
    assert value.isascii()
    assert value.isprintable()
    items = _ITEM.findall(value)
    assert len(items) == len(odd)
    assert _ITEM.sub("", value) == ""


def test_the_length_is_bounded() -> None:
    """What does not fit is counted."""
    many = [ParameterWarning(("extra", "x" * 500), Treatment.DROPPED, "y" * 50)] * 300
    value = header(*many)
    assert len(value) <= MAX_LENGTH
    shown = value.count("dropped")
    assert shown > 5
    assert value.endswith(f", more;count={300 - shown}")


def test_the_paths_of_options() -> None:
    """Options are named as in chat completions; other paths are those of the dialect."""
    assert option_path(("sampling", "choices")) == ("n",)
    assert option_path(("sampling", "top_p")) == ("top_p",)
    assert option_path(("extra", "prediction")) == ("prediction",)
    assert option_path(("audio_output",)) == ("audio",)
    assert option_path(("tools", "strict")) == ("tools", "strict")
    assert option_path(("messages", 0)) == ("messages", 0)
    assert message_paths("chat_history")(("end_user",)) == ("user",)
