"""The short way for plain replies gives the events of the reader of all replies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ProviderError
from antiphon.domain.events import Batch, Event, Started
from antiphon.domain.request import ChatRequest
from antiphon.providers.codec.reader import StreamReader
from antiphon.providers.openai.plain import read_plain
from antiphon.providers.openai.response import OpenAIReader

REQUEST = ChatRequest(model="m", messages=(Message(Role.USER, (Text("Hi"),)),), stream=False)
NAMES = [
    *("id", "object", "created", "model", "choices", "usage", "error", "service_tier", "system_fingerprint", "x"),
    *("index", "message", "logprobs", "finish_reason"),
    *("role", "content", "refusal", "annotations", "tool_calls", "reasoning"),
    *("prompt_tokens", "total_tokens", "prompt_tokens_details"),
]
ODD = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=1) | st.just({})

MESSAGE = {"role": "assistant", "content": "A sung answer.", "refusal": None, "annotations": []}
CHOICE = {"index": 0, "message": MESSAGE, "logprobs": None, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "m-2026",
    "choices": [CHOICE],
    "usage": USAGE,
    "service_tier": "default",
    "system_fingerprint": None,
}
PLACES = [
    (),
    ("choices", 0),
    ("choices", 0, "message"),
    ("usage",),
]


def read_fully(body: bytes) -> Batch | type[ProviderError]:
    """Return the events of the reader of all replies, or the type of its error."""
    try:
        return StreamReader.read_object(OpenAIReader(REQUEST, "host"), body)
    except ProviderError as error:
        return type(error)


def timeless(event: Event) -> Event:
    """Return an event without what is made up at its reading."""
    return Started("", event.model, event.origin, 0, event.fields) if isinstance(event, Started) else event


def changed(reply: dict[str, Any], place: tuple[str | int, ...], name: str, value: object) -> dict[str, Any]:
    """Return a copy of a reply with one field set; a `value` of ... removes it."""
    copy: dict[str, Any] = json.loads(json.dumps(reply))
    inner: Any = copy
    for step in place:
        inner = inner[step]
    if value is ...:
        inner.pop(name, None)
    else:
        inner[name] = value
    return copy


@pytest.mark.parametrize("usage", [USAGE, {**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}])
@pytest.mark.parametrize("missing", ["none", "service_tier", "system_fingerprint"])
@pytest.mark.parametrize("tier", ["default", "priority"])
def test_a_plain_reply_is_read_by_the_short_way(usage: dict[str, Any], missing: str, tier: str) -> None:
    body = json.dumps(changed({**REPLY, "usage": usage, "service_tier": tier}, (), missing, ...)).encode()
    assert read_plain(body, "host", "m") == read_fully(body)


@given(
    st.sampled_from(PLACES).flatmap(
        lambda place: st.tuples(
            st.just(place),
            st.sampled_from(NAMES),
            ODD | st.just(...) | st.sampled_from(["length", "error", "tool_calls", "null", "\ud83d", "user"]),
        )
    )
)
def test_any_other_reply_is_read_the_same_or_left_to_the_long_way(change: tuple[Any, str, object]) -> None:
    body = json.dumps(changed(REPLY, *change)).encode()
    found = read_plain(body, "host", "m")
    if found is not None:
        expected = read_fully(body)
        assert isinstance(expected, list), expected
        assert list(map(timeless, found)) == list(map(timeless, expected))
