"""The short way for plain bodies gives the request of the model of all bodies, or leaves a body to it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from antiphon.net import json_bounds
from antiphon.rest.openai.plain import PlainBody, read_plain
from antiphon.rest.openai.request import ChatCompletionBody, include_usage, request_from_body
from antiphon.rest.shared.body import parse

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "developer", "content": ""},
]
BODY = {
    "model": "m",
    "messages": MESSAGES,
    "temperature": 0.5,
    "top_p": 1,
    "top_k": 40,
    "n": 2,
    "stream": False,
    "stream_options": {"include_usage": True},
    "stop": ["a", "b"],
    "max_tokens": 9,
    "max_completion_tokens": 0,
    "presence_penalty": -2,
    "frequency_penalty": 1.5,
    "seed": -7,
    "reasoning_effort": "low",
    "user": "u",
    "session_id": "s",
}
FIELDS = sorted(ChatCompletionBody.model_fields)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 130)
    | st.integers()
    | st.floats(-3, 3)
    | st.text(max_size=3)
    | st.sampled_from(["stop", "auto", "low", "tool", "function", "\ud83d"])
    | st.lists(st.text(max_size=2), max_size=2)
    | st.dictionaries(st.sampled_from(["include_usage", "type", "x"]), st.booleans() | st.just("text"), max_size=2)
)
NAMES = st.sampled_from([*FIELDS, "top_k", "store", "x"])
ROLES = ["system", "developer", "user", "assistant", "tool", "function", "x"]
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(ROLES),
        "content": st.text(max_size=3) | VALUES,
    },
    optional={"name": st.text(max_size=2), "tool_call_id": st.just("t"), "refusal": st.none(), "x": VALUES},
)
BODIES = st.fixed_dictionaries({"messages": st.lists(MESSAGE, max_size=3)}) | st.just({"messages": MESSAGES})


def assert_same(data: bytes, plain: PlainBody) -> None:
    """Assert that the model of all bodies reads a body as the short way did. `repr` tells 1 from 1.0."""
    body = parse(data, ChatCompletionBody)
    assert include_usage(plain) == include_usage(body)
    assert (plain.stream, plain.session_id) == (body.stream, body.session_id)
    for stream in (False, True):
        assert repr(plain.to_request(stream=stream)) == repr(request_from_body(body, stream=stream))


@pytest.mark.parametrize("left", [set(BODY), {"messages"}, *({"messages", name} for name in BODY)])
def test_a_plain_body_is_read_by_the_short_way(left: set[str]) -> None:
    data = json.dumps({name: value for name, value in BODY.items() if name in left}).encode()
    plain = read_plain(data)
    assert plain is not None
    assert_same(data, plain)


@given(BODIES, st.dictionaries(NAMES, VALUES, max_size=3))
@example({"messages": []}, {})
@example({"messages": [{"role": "user", "content": "a", "tool_calls": []}]}, {})
@example({"messages": MESSAGES}, {"temperature": 2.5})
@example({"messages": MESSAGES}, {"seed": 10**30})
@example({"messages": MESSAGES * 2501}, {})  # more than are allowed
def test_any_other_body_is_read_the_same_or_left_to_the_long_way(body: dict[str, Any], fields: dict[str, Any]) -> None:
    """Whatever the model refuses, the short way leaves to it: so the errors are always those of the model."""
    data = json.dumps({**body, **fields}).encode()
    plain = read_plain(data)
    if plain is not None:
        assert_same(data, plain)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'{"messages": [{"role": "user", "content": "Hi"}]} x',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b"[" * 5000,
        b'{"messages": ' + b"[" * 5000,
        b'{"messages": [{"role": "user", "content": "' + b"x" * json_bounds.SMALL + b'"}]}',
    ],
)
def test_what_is_no_small_object_is_left_to_the_long_way(data: bytes) -> None:
    assert read_plain(data) is None


def test_of_a_field_that_is_sent_twice_the_last_counts() -> None:
    data = b'{"messages": [{"role": "user", "content": "Hi"}], "seed": 1, "seed": 2}'
    plain = read_plain(data)
    assert plain is not None
    assert_same(data, plain)
