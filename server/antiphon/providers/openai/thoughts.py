"""Writes the reasoning of an earlier reply in the form that a host accepts. No I/O."""

from __future__ import annotations

from typing import Any

from antiphon.domain.content import JsonObject, Message, Origin, RedactedThinking, Thinking
from antiphon.providers.openai.block_json import detail_json, is_detailed
from antiphon.providers.openai.capabilities import HostCapabilities, Thoughts
from antiphon.providers.openai.details import DETAILS


def add_thoughts(body: dict[str, Any], thoughts: list[Thinking | RedactedThinking], host: HostCapabilities) -> None:
    """Add the reasoning to the message, in the fields that the host accepts."""
    visible = [thought for thought in thoughts if isinstance(thought, Thinking)]
    text = "".join(thought.text for thought in visible)
    detailed = [thought for thought in thoughts if is_detailed(thought)]
    field = next((thought.field for thought in visible if thought.field), "")
    match host.thoughts:
        case Thoughts.REASONING_CONTENT:
            if visible or host.empty_thought is not None:
                body["reasoning_content"] = text or (host.empty_thought or "")
        case Thoughts.REASONING if visible:
            body["reasoning"] = text
        case Thoughts.DETAILS if detailed:
            body[DETAILS] = [_detail(block, index) for index, block in enumerate(detailed)]
        case Thoughts.DETAILS if visible:
            body["reasoning"] = text
        case Thoughts.AS_RECEIVED if thoughts and has_calls(body):
            if detailed:
                body[DETAILS] = [_detail(block, index) for index, block in enumerate(detailed)]
            if len(detailed) < len(thoughts):
                body["reasoning" if field == "reasoning" else "reasoning_content"] = text
        case _:
            pass


def thought_part(block: Thinking | RedactedThinking, message: Message, provider: str, host: HostCapabilities) -> list[JsonObject]:
    """Return the reasoning as a content part, as Mistral's reasoning models use it. Only for this provider's own replies.

    Other models of that host refuse such parts.
    """
    if host.thoughts is not Thoughts.PARTS or not isinstance(block, Thinking) or message.origin is None:
        return []
    if not message.origin.provider or not message.origin.is_from(Origin(provider=provider)):
        return []
    return [{"type": "thinking", "thinking": [{"type": "text", "text": block.text}]}]


def has_calls(body: JsonObject) -> bool:
    """Return whether a message calls tools. Some hosts refuse their own calls without the reasoning that led to them."""
    return bool(body.get("tool_calls"))


def _detail(block: Thinking | RedactedThinking, index: int) -> JsonObject:
    return detail_json(block, index, None if block.state is None else block.state.opaque)
