"""Writes the messages of a request for Cohere's chat API. No I/O.

What is sent of an earlier reply:

| block | to the provider that made it | to another |
|---|---|---|
| text, refusal | text | the same |
| thinking | `tool_plan` if it was one and calls follow, else a part of the content | nothing |
| tool call | as it is, if it is a function | the same |
| image | in the next user message | the same |
| recording | its transcript | the same |
| a block of an unknown kind | unchanged | nothing |
| all else | nothing | nothing |

The results of calls follow the calls, in their order; one without a call is left out. Their pictures are in a message of the user
after them. Blank messages are left out, and instructions alone are a message of the user, because the API refuses them.

A message written by the caller has no origin, and is sent as if this provider had made it. Other APIs have no word for a plan, so
that a caller's thought before calls is sent as one, which models that cannot think accept too. Unknown fields of messages and
blocks are not sent, except those that the API documents.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from antiphon.domain.content import (
    FUNCTION,
    FUNCTION_CALL,
    Audio,
    Block,
    Image,
    JsonObject,
    Message,
    Opaque,
    Origin,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    with_extra,
)
from antiphon.domain.errors import Unsupported
from antiphon.providers.codec.pictures import of_the_user, without_media
from antiphon.providers.cohere.blocks import PLAN, PROTOCOL
from antiphon.providers.cohere.names import NAMES

_REPLY_FIELDS: Final = ("citations", PLAN)
"""The fields of an assistant message that callers may set and the domain has no place for."""


_NOTHING_SAID: Final = {"role": "user", "content": "."}
"""The message of a user who said nothing, as the API refuses an empty one."""


class CohereEncoder:
    """Writes the messages of one request."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._origin = Origin(PROTOCOL, provider)
        self._encoded: list[JsonObject] = []
        self._dropped_calls: set[str] = set()
        """Ids of calls that this API cannot express, so that their results are left out too."""
        self._pictures: list[Block] = []
        """Images of a reply or of the results of its calls, to be added to the next user message."""
        self._functions = 0
        """The number of function calls of OpenAI's API of 2023, which have no ids."""

    def encode(self, messages: Iterable[Message]) -> list[JsonObject]:
        """Return the messages as JSON objects. Raises `Unsupported` for content that this API cannot express."""
        for message in messages:
            if message.role is Role.ASSISTANT:
                self._show_pictures()
                self._add_reply(message)
            else:
                self._add_message(message)
        self._show_pictures()
        ordered = _in_order(self._encoded)
        if all(message["role"] == "system" for message in ordered):
            return [{**message, "role": "user"} for message in ordered] or [_NOTHING_SAID]
        return ordered

    def _show_pictures(self) -> None:
        """Add the pictures that stood in the latest results as a message of the user, if there is none after them."""
        if self._pictures and self._encoded and self._encoded[-1]["role"] == "tool":
            self._encoded.append({"role": "user", "content": self._content(self._pictures)})
            self._pictures = []

    def _add_message(self, message: Message) -> None:
        """Add a message that is not a reply. It becomes several messages if it holds the results of several tools."""
        content: list[Block] = []
        for block in message.blocks:
            if not isinstance(block, ToolResult):
                content.append(block)
            elif block.type in (FUNCTION, FUNCTION_CALL) and block.tool_call_id not in self._dropped_calls:
                self._add_result(block)
        content = [block for block in content if not isinstance(block, Text) or block.text.strip()]
        if message.role is Role.USER:
            content, self._pictures = [*self._pictures, *content], []
        if not content:
            return
        role = Role.SYSTEM if message.role is Role.DEVELOPER else message.role
        self._encoded.append({"role": role.value, "content": self._content(content)})

    def _add_result(self, block: ToolResult) -> None:
        call_id = self._function_id if block.type == FUNCTION_CALL else block.tool_call_id
        content = self._content(without_media(block, self._pictures).blocks)
        self._encoded.append({"role": "tool", "tool_call_id": call_id, "content": content})

    def _add_reply(self, message: Message) -> None:  # noqa: C901  # a match over the kinds of block
        """Add an earlier reply. It is left out if neither text nor calls remain, because the API refuses that."""
        content: list[JsonObject] = []
        calls: list[JsonObject] = []
        plan = ""
        is_planned = message.origin is None and any(isinstance(block, ToolCall) for block in message.blocks)
        for block in message.blocks:
            is_own = self._is_own(block, message)
            match block:
                case Thinking() if block.text and is_own and (is_planned or block.field == PLAN):
                    plan += block.text
                case Thinking() if block.text and is_own:
                    content.append({"type": "thinking", "thinking": block.text})
                case Text(text=text) | Refusal(text=text) | Audio(transcript=text) if text:
                    content.append({"type": "text", "text": text})
                case ToolCall(type="function" | "function_call"):
                    calls.append(self._call(block))
                case ToolCall():
                    self._dropped_calls.add(block.id)
                case Image():
                    self._pictures += of_the_user(block, self._part)
                case Opaque() if is_own:
                    content.append(block.form)
                case _:
                    pass
        if not calls and all(part.get("type") == "thinking" for part in content):
            return
        body: dict[str, Any] = {"role": "assistant"}
        if content:
            body["content"] = content
        if calls:
            body["tool_calls"] = calls
        if calls and plan:
            body[PLAN] = plan
        self._encoded.append(
            with_extra(body, {name: message.extra[name] for name in _REPLY_FIELDS if message.extra.get(name) is not None})
        )

    def _call(self, block: ToolCall) -> JsonObject:
        if block.type == FUNCTION_CALL:
            self._functions += 1
            block = replace(block, id=self._function_id)
        return {
            "id": block.id,
            "type": FUNCTION,
            "function": {"name": NAMES.sent(block.name), "arguments": _arguments(block.arguments)},
        }

    @property
    def _function_id(self) -> str:
        """Return the id for the latest function call of OpenAI's API of 2023."""
        return f"call_{self._functions}"

    def _is_own(self, block: Block, message: Message) -> bool:
        """Return whether this provider made a block, or the caller wrote it."""
        origin = message.origin_of(block)
        return origin.is_from(self._origin) if origin is not None else block.state is None

    def _content(self, blocks: Sequence[Block]) -> str | list[JsonObject]:
        """Return the content: a string for a single text or none, otherwise a list."""
        match blocks:
            case ():
                return ""
            case (Text(text=text),):
                return text
            case _:
                return [self._part(block) for block in blocks]

    def _part(self, block: Block) -> JsonObject:
        """Return a block as a part of the content. Raises `Unsupported` for blocks that this API cannot express."""
        match block:
            case Text():
                return {"type": "text", "text": block.text}
            case Image() if block.media.url is not None:
                image = {"url": block.media.url} if block.detail is None else {"url": block.media.url, "detail": block.detail}
                return {"type": "image_url", "image_url": image}
            case Image():
                raise Unsupported(f"The provider {self._provider} accepts an image only as a URL.", provider=self._provider)
            case Opaque():
                return block.form
            case _:
                kind = type(block).__name__
                raise Unsupported(f"The provider {self._provider} accepts no {kind} here.", provider=self._provider)


def _in_order(messages: list[JsonObject]) -> list[JsonObject]:
    """Return the messages with the results of each reply's calls behind it."""
    results: dict[str, deque[JsonObject]] = {}
    for message in messages:
        if message["role"] == "tool":
            results.setdefault(message["tool_call_id"], deque()).append(message)
    ordered: list[JsonObject] = []
    for message in messages:
        if message["role"] != "tool":
            ordered.append(message)
            calls = message.get("tool_calls", ())
            ordered += [results[call["id"]].popleft() for call in calls if results.get(call["id"])]
    return ordered


def _arguments(written: str) -> str:
    """Return the arguments of a call; an empty object if they are none, which the API refuses."""
    try:
        value = msgspec.json.decode(written) if written.strip() else None
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        value = None
    return written if isinstance(value, dict) else "{}"
