"""Tests of reading the message in a stored row, whatever the row holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import Message, Role, Text
from antiphon.history import stored_form
from antiphon.history.body import LEVELS, UNREADABLE, pruned, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('ab"\\{}[]\n🎼')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from('a"{}[]\\')), inner, max_size=3),
)


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def shallow(value: object, levels: int) -> object:
    if isinstance(value, dict | list) and not levels:
        return None
    if isinstance(value, dict):
        return {name: shallow(inner, levels - 1) for name, inner in value.items()}
    return [shallow(inner, levels - 1) for inner in value] if isinstance(value, list) else value


@given(JSON, st.integers(0, 4))
def test_deeper_values_become_null(value: object, levels: int) -> None:
    """Values nested deeper than the limit become null. Brackets in texts and names are not counted."""
    assert json.loads(pruned(json.dumps(value), levels)) == shallow(value, levels)


@pytest.mark.parametrize("levels", [100, 250, 1000, 100_000])
def test_a_message_of_any_depth_is_read(levels: int) -> None:
    """A message of any depth is read with its text and with as many levels as can be encoded again."""
    body = f'{{"role":"user","parts":[{{"type":"text","text":"Hi {{[","extra":{nested(levels)}}}]}}'
    message = read(body, "m")
    text = message.blocks[0]
    assert isinstance(text, Text)
    assert (message.role, text.text) == (Role.USER, "Hi {[")
    assert json.dumps(text.extra).count("{") == min(levels, LEVELS - 3)


@pytest.mark.parametrize("text", ["{[" * 1000, "}]" * 1000, '"\\' * 1000])
def test_brackets_in_a_text_are_text(text: str) -> None:
    """A text with many brackets is read back completely."""
    message = Message(Role.ASSISTANT, (Text(text, extra={"a": [text]}),))
    assert read(stored_form.encode(message).decode(), "m") == message


@pytest.mark.parametrize(
    ("body", "role"),
    [
        ('{"role":"user","parts":[{"type":"hologram"}]}', Role.USER),
        ('{"role":"wizard","parts":[]}', Role.ASSISTANT),
        ('{"role":"tool","parts":', Role.TOOL),
        ("", Role.ASSISTANT),
    ],
)
def test_an_unreadable_body_is_shown_as_such(body: str, role: Role) -> None:
    """A body that cannot be decoded, such as one of a newer version, is shown as a message with the text UNREADABLE."""
    assert read(body, "m") == Message(role, (Text(UNREADABLE),))
