"""Converts stored conversations and messages to typed messages."""

from __future__ import annotations

from typing import Final

from antiphon.history.base import Conversation, MessageState, StoredMessage
from antiphon.rpc.convert.blocks import message_to_proto
from antiphon.rpc.convert.reply import REASONS, fill_usage, time_to_proto
from antiphon.v1 import chat_pb2, history_pb2

_STATES: Final = {
    MessageState.IN_PROGRESS: history_pb2.MESSAGE_STATE_IN_PROGRESS,
    MessageState.COMPLETE: history_pb2.MESSAGE_STATE_COMPLETE,
    MessageState.INCOMPLETE: history_pb2.MESSAGE_STATE_INCOMPLETE,
    MessageState.CANCELLED: history_pb2.MESSAGE_STATE_CANCELLED,
    MessageState.FAILED: history_pb2.MESSAGE_STATE_FAILED,
}


def conversation_to_proto(conversation: Conversation) -> history_pb2.Conversation:
    """Return a conversation as a typed message. Its owner is left out, as it is the caller."""
    return history_pb2.Conversation(
        id=conversation.id,
        title=conversation.title,
        pinned=conversation.pinned,
        source=conversation.source,
        create_time=time_to_proto(conversation.created),
        update_time=time_to_proto(conversation.updated),
        message_count=conversation.message_count,
        head_message_id=conversation.head_id or "",
        forked_from=conversation.forked_from or "",
    )


def stored_to_proto(stored: StoredMessage) -> history_pb2.StoredMessage:
    """Return a stored message as a typed message."""
    made = history_pb2.StoredMessage(
        id=stored.id,
        parent_message_id=stored.parent_id or "",
        message=message_to_proto(stored.message),
        state=_STATES[stored.state],
        create_time=time_to_proto(stored.created),
        model=stored.model,
        provider=stored.provider,
        finish_reason=REASONS[stored.finish_reason] if stored.finish_reason else chat_pb2.FINISH_REASON_UNSPECIFIED,
        request_id=stored.request_id,
        error_reason=stored.error_reason,
    )
    if stored.usage:
        fill_usage(made.usage, stored.usage)
    return made
