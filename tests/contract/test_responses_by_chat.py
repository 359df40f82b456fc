"""Reasoning of the Responses API by way of a client of chat completions: it comes back, to its origin only."""

import json
from typing import Any

import pytest

from antiphon.domain.events import Batch, BlockFinished, BlockStarted
from antiphon.domain.reply import Reply
from antiphon.providers.openai.capabilities import UNKNOWN
from antiphon.providers.openai.messages import OpenAIEncoder
from antiphon.providers.responses.messages import ResponsesEncoder
from antiphon.rest.openai.delta import DeltaFields
from antiphon.rest.openai.reply import completion
from antiphon.rest.openai.request import ChatCompletionBody, request_from_body
from tests.unit.providers.responses.test_response import CALLS, HELLO, MESSAGE, START, THOUGHT, added, done, end, read

REDACTED = {"id": "rs", "type": "reasoning", "encrypted_content": "gZZZ", "summary": []}
HELLO_AFTER = [{**event, "output_index": 1} for event in HELLO[2:9]]


def whole(events: Batch) -> dict[str, Any]:
    """Return the message that a client gets in a whole reply."""
    reply = Reply()
    for event in events:
        reply.add(event)
    message: dict[str, Any] = json.loads(json.dumps(completion(reply)["choices"][0]["message"]))
    return message


def sent(message: dict[str, Any], provider: str) -> list[Any]:
    """Return what the provider gets when the client sends the message back."""
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "42"} for call in message.get("tool_calls", ())]
    body = ChatCompletionBody.model_validate({"model": "m", "messages": [{"role": "user", "content": "hi"}, message, *results]})
    request = request_from_body(body, stream=False)
    return list(ResponsesEncoder(provider).encode(request.messages))


def test_calls() -> None:
    """The items come back as they were, with all parts of the reasoning."""
    message = whole(read(*CALLS))
    assert sent(message, "acme") == [
        {"role": "user", "content": "hi"},
        THOUGHT,
        {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "c1",
            "name": "f",
            "arguments": '{"q":1}',
        },
        {"id": "ct_1", "type": "custom_tool_call", "call_id": "c3", "name": "sql", "input": "SELECT 1"},
        {"type": "function_call_output", "call_id": "c1", "output": "42"},
        {"type": "custom_tool_call_output", "call_id": "c3", "output": "42"},
    ]
    assert not {one for one in ("gAAA", "rs_1", "fc_1", "ct_1") if one in json.dumps(sent(message, "other"))}


def test_a_client_that_drops_the_reasoning() -> None:
    """Without it the ids of the items are not sent either, as they would name items that need it."""
    message = whole(read(*CALLS))
    del message["reasoning_details"], message["reasoning_content"]
    assert sent(message, "acme")[1:3] == [
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"q":1}'},
        {"type": "custom_tool_call", "call_id": "c3", "name": "sql", "input": "SELECT 1"},
    ]


@pytest.mark.parametrize("is_streamed", [True, False], ids=["stream", "whole"])
def test_redacted_reasoning(is_streamed: bool) -> None:
    """Reasoning without a text is carried as well."""
    events = read(START, added({**REDACTED, "encrypted_content": "half"}), done(REDACTED), *HELLO_AFTER, end())
    message = whole(events)
    if is_streamed:
        fields = DeltaFields()
        fields.set_origin(events[0].origin)  # type: ignore[union-attr]
        fields.count(events)
        deltas = [made for event in events if isinstance(event, BlockStarted | BlockFinished) and (made := fields.fields_of(event))]
        assert deltas == [{"reasoning_details": [entry]} for entry in message["reasoning_details"]]
    assert sent(message, "acme")[1:] == [REDACTED, MESSAGE]


def test_a_chat_provider_goes_on() -> None:
    """A host of chat completions gets the calls of the reply without fields that it does not know."""
    reply = Reply()
    for event in read(*CALLS):
        reply.add(event)
    (body,) = OpenAIEncoder("x", UNKNOWN, "m", known_fields=False).encode([reply.message()])
    assert [set(call) for call in body["tool_calls"]] == [{"id", "type", "function"}, {"id", "type", "custom"}]
