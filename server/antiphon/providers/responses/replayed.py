"""What a request replays of earlier replies in encrypted form, and the request without it. No I/O."""

from __future__ import annotations

from msgspec.structs import replace

from antiphon.domain.content import Message, Role
from antiphon.domain.request import ChatRequest


def has_encrypted(request: ChatRequest) -> bool:
    """Return whether a request has encrypted content of earlier replies."""
    return any(
        block.state is not None and block.state.opaque is not None
        for message in request.messages
        if message.role is Role.ASSISTANT
        for block in message.blocks
    )


def without_states(request: ChatRequest) -> ChatRequest:
    """Return the request with the texts and calls of earlier replies, as if another provider had made them.

    Their reasoning is left out, and so are the ids of items: an item with an id needs the reasoning that came before it.
    """
    return replace(request, messages=tuple(_plain(message) for message in request.messages))


def _plain(message: Message) -> Message:
    if message.role is not Role.ASSISTANT:
        return message
    return replace(message, blocks=tuple(replace(block, state=None) for block in message.blocks))
