"""Messages in JSON."""

from typing import Any

import pytest

from antiphon import domain
from antiphon.rest.shared.content import MessageBody, message_json, message_of

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
        {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://x.test/"}}]},
        {"role": "assistant", "content": None, "tool_calls": [FUNCTION]},
        {"role": "assistant", "content": "See", "tool_calls": [{"id": "c2", "type": "custom", "custom": {"name": "g"}}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
        {"role": "tool", "content": [{"type": "text", "text": "7"}], "tool_call_id": "c1"},
        {"role": "function", "content": "7", "name": "f"},
        {"role": "developer", "content": "x", "odd": {"a": 1}},
    ],
)
def test_a_message_comes_back_as_it_was_sent(body: dict[str, Any]) -> None:
    """Text as text, lists as lists, and what is not known too."""
    assert message_json(message_of(MessageBody.model_validate(body), ())) == body


def test_what_only_models_and_typed_callers_say() -> None:
    """Thought and refusal of a reply; several results in one message; media that this API has no words for."""
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
