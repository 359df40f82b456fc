"""Tests of stored values as typed messages."""

from datetime import UTC, datetime

import pytest
from google.protobuf import json_format

from antiphon import domain
from antiphon.history.base import MessageState, StoredMessage
from antiphon.rpc.convert import history as convert_history
from antiphon.rpc.convert.blocks import message_to_proto
from antiphon.rpc.convert.request import messages_from_proto
from antiphon.v1 import chat_pb2, history_pb2
from tests.unit.rpc.convert.test_request import REQUEST

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def test_every_part_of_a_message_comes_back() -> None:
    """Every kind of block comes back exactly, with its state, origin and unknown fields."""
    sent = json_format.ParseDict(REQUEST, chat_pb2.GenerateRequest()).messages
    assert [message_to_proto(message) for message in messages_from_proto(sent)] == list(sent)


@pytest.mark.parametrize(
    ("url", "data", "media_type"),
    [
        ("data:image/png;base64,AAEC", b"\0\1\2", "image/png"),
        ("data:image/png;base64,", b"", "image/png"),
        ("data:image/png;base64,AAE", None, ""),
        ("data:image/png;base64,AA EC", None, ""),
        ("data:text/plain;charset=utf-8;base64,AAEC", None, ""),
        ("data:text/plain,hello", None, ""),
        ("https://x.test/a.png", None, ""),
    ],
)
def test_a_data_url_is_bytes_again_if_nothing_is_lost(url: str, data: bytes | None, media_type: str) -> None:
    """A data URL becomes bytes if that loses nothing, and else stays a URL; both give the same message again."""
    message = domain.Message(domain.Role.USER, (domain.Image(domain.Media(url=url)),))
    proto = message_to_proto(message)
    media = proto.blocks[0].image.media
    assert (media.data, media.url, media.media_type) == ((data or b"", "", media_type) if data is not None else (b"", url, ""))
    assert messages_from_proto([proto]) == (message,)


@pytest.mark.parametrize("levels", [1, 24, 25, 100])
@pytest.mark.parametrize("kind", ["object", "list"])
def test_a_client_can_read_a_message_of_any_depth(levels: int, kind: str) -> None:
    """Values nested deeper than protobuf allows become null, and the rest of the message is kept."""
    deep: object = 1
    for _ in range(levels - 1):
        deep = {"a": deep} if kind == "object" else [deep]
    fields = {"type": "odd", "deep": deep}
    message = domain.Message(
        domain.Role.USER, (domain.Text("Hi", extra=fields), domain.ToolResult("c", (domain.Text("x", extra=fields),))), extra=fields
    )
    page = history_pb2.ListMessagesResponse(messages=[history_pb2.StoredMessage(message=message_to_proto(message))])
    read = history_pb2.ListMessagesResponse.FromString(page.SerializeToString()).messages[0].message
    assert read.blocks[0].text.text == "Hi"
    assert (messages_from_proto([read]) == (message,)) is (levels <= 24)


def test_a_reply_has_usage_and_reasons() -> None:
    """A stored reply has times in microseconds, usage, finish reason and error reason."""
    stored = StoredMessage(
        "m2",
        "m1",
        domain.Message(domain.Role.ASSISTANT, (domain.Text("Hi"),)),
        MessageState.INCOMPLETE,
        NOW,
        request_id="r",
        model="gpt",
        provider="openai",
        usage=domain.Usage(1, 2, 3, estimated=True),
        finish_reason=domain.FinishReason.LENGTH,
        error_reason="PROVIDER_PROTOCOL",
    )
    assert json_format.MessageToDict(convert_history.stored_to_proto(stored)) == {
        "id": "m2",
        "parentMessageId": "m1",
        "message": {"role": "ROLE_ASSISTANT", "blocks": [{"text": {"text": "Hi"}}]},
        "state": "MESSAGE_STATE_INCOMPLETE",
        "createTime": "2026-01-02T03:04:05.678901Z",
        "model": "gpt",
        "provider": "openai",
        "usage": {"inputTokens": "1", "outputTokens": "2", "totalTokens": "3", "estimated": True},
        "finishReason": "FINISH_REASON_LENGTH",
        "requestId": "r",
        "errorReason": "PROVIDER_PROTOCOL",
    }
