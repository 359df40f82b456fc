"""Tests of messages in JSON."""

from typing import Any

import pytest

from antiphon import domain
from antiphon.rest.shared.content import CLIENT_ORIGIN, MessageBody, message_of
from antiphon.rest.shared.message_json import message_json

FUNCTION = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "body",
    [
        {"role": "user", "content": "Hi"},
        {"role": "user", "content": ""},
        {"role": "user", "content": []},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "ann"},
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAEC", "format": "mp3"}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": "AA==", "filename": "a.pdf"}}]},
        {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://x.test/", "fps": 2}, "a": 1}]},
        {"role": "user", "content": [{"type": "video_url", "video_url": "https://x.test/"}]},
        {"role": "user", "content": [{"type": "video_url"}]},
        {"role": "assistant", "content": None, "tool_calls": [FUNCTION]},
        {"role": "assistant", "content": "See", "tool_calls": [{"id": "c2", "type": "custom", "custom": {"name": "g"}}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
        {"role": "tool", "content": [{"type": "text", "text": "7"}], "tool_call_id": "c1"},
        {"role": "function", "content": "7", "name": "f"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "assistant", "content": "Hi", "refusal": "No", "reasoning_content": "Hm"},
        {"role": "assistant", "content": "Hi", "reasoning_content": "Hm", "reasoning": "Hm"},
        {"role": "assistant", "content": None, "audio": {"id": "a"}},
        {"role": "assistant", "content": "Hi", "images": [{"type": "image_url", "image_url": {"url": "u"}, "index": 0}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "odd", "odd": {"a": 1}, "note": "x"}]},
        {"role": "developer", "content": "x", "odd": {"a": 1}},
    ],
)
def test_a_message_comes_back_as_it_was_sent(body: dict[str, Any]) -> None:
    """A message that is read and written again is unchanged, unknown parts and fields included."""
    assert message_json(message_of(MessageBody.model_validate(body), ())) == body


def test_content_without_a_form_in_the_api_is_written() -> None:
    """Thoughts, refusals, several results in one message, and media that the API has no form for are written in JSON."""
    reply = domain.Message(domain.Role.ASSISTANT, (domain.Thinking("Hm"), domain.Refusal("No"), domain.ToolCall("c1", "f", "{}")))
    assert message_json(reply) == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hm",
        "refusal": "No",
        "tool_calls": [FUNCTION],
    }
    results = domain.Message(
        domain.Role.TOOL, (domain.ToolResult("c1", (domain.Text("7"),)), domain.ToolResult("c2", (domain.Text("8"),)))
    )
    assert message_json(results)["content"] == [
        {"type": "tool_result", "tool_call_id": "c1", "content": "7"},
        {"type": "tool_result", "tool_call_id": "c2", "content": "8"},
    ]
    media = domain.Message(
        domain.Role.USER,
        (
            domain.Audio(domain.Media(url="https://x.test/a.wav")),
            domain.Video(domain.Media(url="https://x.test/a.mp4")),
            domain.Image(domain.Media(file_id="f")),
        ),
    )
    assert message_json(media)["content"] == [
        {"type": "audio_url", "audio_url": {"url": "https://x.test/a.wav"}},
        {"type": "video_url", "video_url": {"url": "https://x.test/a.mp4"}},
        {"type": "image_url", "image_url": {"file_id": "f"}},
    ]


WRAPPED = "ap1.up.sig"
UP = domain.Origin(provider="up", deployment="up")


def read(**fields: Any) -> domain.Message:
    return message_of(MessageBody.model_validate({"role": "assistant", **fields}), ())


def test_what_the_gateway_adds_to_a_reply_is_removed() -> None:
    """Nulls, an empty list of annotations and the index of a call, which replies have, are dropped when they come back."""
    call = {"index": 0, **FUNCTION}
    sent = read(content="Hi", refusal=None, annotations=[], audio=None, function_call=None, tool_calls=[call])
    assert sent == domain.Message(domain.Role.ASSISTANT, (domain.Text("Hi"), domain.ToolCall("c1", "f", "{}")))


def test_one_thought_under_several_names_is_one() -> None:
    """A thought that comes under several names is one block with its signature. An encrypted thought is a block of its own."""
    entry = {"type": "reasoning.text", "index": 0, "format": "f"}
    fields = {"reasoning_details": entry}
    signed = domain.Thinking("Hm", "reasoning", state=domain.State("sig", fields, origin=UP))
    names = {"reasoning_content": "Hm", "reasoning": "Hm"}
    for details in ([{**entry, "text": "Hm", "signature": WRAPPED}], [{**entry, "signature": WRAPPED}]):
        assert read(content="Hi", **names, reasoning_details=details).blocks == (signed, domain.Text("Hi"))
    sealed = {"type": "reasoning.encrypted", "data": WRAPPED, "id": "r"}
    rest = {"reasoning_details": {"type": "reasoning.encrypted", "id": "r"}}
    assert read(content="Hi", reasoning_details=[sealed]).blocks == (
        domain.RedactedThinking(state=domain.State("sig", rest, origin=UP)),
        domain.Text("Hi"),
    )
    own = read(content="Hi", reasoning_details=[{**entry, "text": "Hm", "signature": "mine"}])
    assert own.blocks[0] == domain.Thinking("Hm", state=domain.State("mine", fields))
    assert own.origin == CLIENT_ORIGIN
    assert read(content="Hi", reasoning="a", reasoning_content="b").extra == {"reasoning": "a"}
    assert read(content="Hi", reasoning_content="").blocks[0] == domain.Thinking("")
    assert read(content="Hi", reasoning_details=[{"odd": 1}]).extra == {"reasoning_details": [{"odd": 1}]}


def test_signatures_go_back_to_where_they_are_from() -> None:
    """Signatures of texts, calls and images, in the form of Google's hosts, are unwrapped with their origin."""
    google = {"extra_content": {"google": {"thought_signature": WRAPPED}}}
    state = domain.State("sig", origin=UP)
    assert read(content="Hi", **google).blocks == (domain.Text("Hi", state=state),)
    call = {**FUNCTION, "extra_content": {"google": {"thought_signature": WRAPPED, "x": 1}}}
    extra = {"extra_content": {"google": {"x": 1}}}
    assert read(content=None, tool_calls=[call]).blocks == (domain.ToolCall("c1", "f", "{}", extra=extra, state=state),)
    image = {"type": "image_url", "image_url": {"url": "u"}, **google}
    message = read(content=None, images=[image])
    assert message.blocks == (domain.Image(domain.Media("u"), state=state),)
    assert message_json(message)["images"] == [image]


def test_a_stored_reply_is_written_as_it_was_answered() -> None:
    """A stored reply is written as it was answered, with its signatures wrapped.

    Blocks that the API has no form for are left out.
    """
    origin = domain.Origin("openai-chat", "up", "m", "up")
    message = domain.Message(
        domain.Role.ASSISTANT,
        (
            domain.Thinking("Hm", state=domain.State("sig")),
            domain.RedactedThinking(state=domain.State("d")),
            domain.ServerToolCall("w", "web_search"),
            domain.Text("a", (domain.Citation("u", "t"),)),
            domain.Text("b", state=domain.State("sig")),
            domain.ToolCall("c1", "f", "{}", state=domain.State("sig")),
            domain.Audio(domain.Media(), "x", "la", 7),
        ),
        origin=origin,
        fields={"x": 1},
    )
    wrapped = "ap1.up:openai-chat:m.sig"
    google = {"google": {"thought_signature": wrapped}}
    assert message_json(message) == {
        "role": "assistant",
        "content": "ab",
        "x": 1,
        "reasoning_content": "Hm",
        "reasoning_details": [
            {"type": "reasoning.text", "index": 0, "text": "Hm", "signature": wrapped},
            {"type": "reasoning.encrypted", "index": 1, "data": "ap1.up:openai-chat:m.d"},
        ],
        "annotations": [{"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}],
        "extra_content": google,
        "tool_calls": [{**FUNCTION, "extra_content": google}],
        "audio": {"id": "x", "transcript": "la", "expires_at": 7},
    }


def test_a_stored_recording_is_written_as_its_transcript() -> None:
    """The content of a stored recording is its transcript, for clients that read text only. When it comes back, it adds no text."""
    sound = domain.Audio(domain.Media(), "x", "la", 7)
    body = message_json(domain.Message(domain.Role.ASSISTANT, (sound,)))
    assert body == {"role": "assistant", "content": "la", "audio": {"id": "x", "transcript": "la", "expires_at": 7}}
    assert read(content=body["content"], audio=body["audio"]).blocks == (sound,)


def test_fields_added_by_the_openai_sdk_are_removed() -> None:
    """Nulls for fields that a reply does not have, and parsed values, are removed, because providers refuse them."""
    call = {**FUNCTION, "function": {**FUNCTION["function"], "parsed_arguments": {"x": 1}}}
    assert read(content="Hi", annotations=None, parsed={"x": 1}, tool_calls=[call]) == read(content="Hi", tool_calls=[FUNCTION])


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("anthropic-claude-v1" * 3, "anthropic-claude-v1"),
        ("unknown" * 2, "unknown"),
        ("anthropic-claude-v1", "anthropic-claude-v1"),
        ("rs_1rs_1", "rs_1rs_1"),
        ("11", "11"),
        ("", ""),
        ("ab" * 5000, "ab" * 5000),
        (None, None),
    ],
)
def test_names_that_the_openai_sdk_repeats(given: str | None, name: str | None) -> None:
    """The stream helper of the SDK concatenates the format and the id of all pieces of a thought; the repetition is removed."""
    entry = {"type": "reasoning.text", "index": 0, "format": given, "id": given}
    (thought,) = read(reasoning_details=[{**entry, "text": "Hm", "signature": "s"}]).blocks
    assert thought.state == domain.State("s", {"reasoning_details": {**entry, "format": name, "id": name}})


def test_signatures_of_a_text_that_a_client_has_joined() -> None:
    """Of a stream with several, the last one counts, as in a whole reply."""
    signature = {"google": {"thought_signature": "ap1.gemini.Aap1.gemini.B"}}
    (text,) = read(content="Hi", extra_content=signature).blocks
    assert text.state is not None
    assert text.state.opaque == "B"


def test_a_refusal_among_the_parts() -> None:
    """It is one of an assistant's parts in this API, and a block of its own, unless it has fields that only a provider knows."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": "Hm."}, {"type": "refusal", "refusal": "No."}]
    message = message_of(MessageBody(role="assistant", content=parts), ("messages", 0))
    assert message.blocks == (domain.Text("Hm."), domain.Refusal("No."))
    assert message.listed
    odd = {"type": "refusal", "refusal": "No.", "why": 1}
    assert message_of(MessageBody(role="assistant", content=[odd]), ("messages", 0)).blocks == (domain.Opaque(odd),)
