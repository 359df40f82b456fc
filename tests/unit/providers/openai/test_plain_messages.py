"""The short way for plain messages writes what the encoder of all messages does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import (
    Citation,
    Image,
    Media,
    Message,
    Opaque,
    Origin,
    Refusal,
    Role,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.domain.errors import Unsupported
from antiphon.providers.body import dumps
from antiphon.providers.openai import messages as module
from antiphon.providers.openai.capabilities import UNKNOWN, HostCapabilities, capabilities_of
from antiphon.providers.openai.messages import OpenAIEncoder, encode_messages

HOSTS = ["openai", "gemini", "mistral", "deepseek", "moonshot", "groq", "openrouter", "unknown"]
SOME = st.sampled_from([{}, {"x": 1}, {"content": "other"}, {"role": "function"}])
STATES = st.sampled_from([None, State("sig"), State(fields={"x": 1}, origin=Origin("openai", "openai"))])
TEXTS = st.builds(
    Text, text=st.text(max_size=3), citations=st.sampled_from([(), (Citation(url="https://x.test/"),)]), extra=SOME, state=STATES
)
BLOCKS = (
    st.builds(Text, text=st.text(max_size=3))
    | TEXTS
    | st.builds(Thinking, text=st.text(max_size=3), state=STATES)
    | st.builds(Refusal, text=st.text(max_size=3))
    | st.sampled_from(
        [
            Image(media=Media("https://x.test/a")),
            ToolCall(id="c1", name="f", arguments="{}"),
            ToolResult(tool_call_id="c1", blocks=(Text(text="ok"),)),
            Opaque(fields={"type": "x"}),
        ]
    )
)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(Role),
    blocks=st.lists(BLOCKS, max_size=2).map(tuple),
    name=st.sampled_from([None, "n"]),
    extra=SOME,
    listed=st.booleans(),
    origin=st.sampled_from([None, Origin("openai"), Origin("openai", "openai", "m"), Origin("gemini", "g")]),
    fields=SOME,
)
PLAIN = st.builds(
    Message,
    role=st.sampled_from([role for role in Role if role is not Role.DEVELOPER]),
    blocks=st.tuples(st.builds(Text, text=st.text(max_size=3))),
)


def host_of(name: str) -> HostCapabilities:
    return UNKNOWN if name == "unknown" else capabilities_of(name, None)


def written(messages: list[Message], host: str, *, known_fields: bool, short: bool) -> bytes | str:
    """Return the JSON of the messages by the short way or by the encoder, or the message of its error."""
    takes = host_of(host)
    try:
        if short:
            found = encode_messages(messages, host, takes, "m", known_fields=known_fields)
        else:
            found = OpenAIEncoder(host, takes, "m", known_fields=known_fields).encode(messages)
    except Unsupported as error:
        return str(error)
    return dumps({"messages": found})


@given(st.lists(PLAIN | MESSAGES, max_size=3), st.sampled_from(HOSTS), st.booleans())
def test_messages_are_the_same_by_both_ways(messages: list[Message], host: str, known_fields: bool) -> None:
    short = written(messages, host, known_fields=known_fields, short=True)
    assert short == written(messages, host, known_fields=known_fields, short=False)


@given(st.lists(PLAIN, max_size=3), st.sampled_from(sorted({*HOSTS} - {"deepseek", "moonshot"})))
def test_plain_messages_need_no_encoder(messages: list[Message], host: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(module, "OpenAIEncoder")
        found = encode_messages(messages, host, host_of(host), "m", known_fields=True)
    assert json.loads(dumps({"messages": found}))["messages"] == [
        {"role": message.role.value, "content": message.blocks[0].text}  # type: ignore[union-attr]
        for message in messages
    ]
