"""Writes the messages of a request for Anthropic's Messages API. No I/O.

What is sent of an earlier reply:

| block | to the provider that made it | to another |
|---|---|---|
| text | with its citations | the text alone |
| refusal | text | the same |
| thinking with a signature, redacted thinking | unchanged | nothing |
| thinking without one | nothing | the same |
| call of a function or of a custom tool | with its own fields | without them |
| server tool, its result, compaction, a block of an unknown kind | unchanged | nothing |
| image | in the next user message | the same |
| recording | its transcript | the same |

The rules of the API that the form follows:

- Consecutive messages of one role are one turn. The results of a turn's calls are in one user message, before everything else.
- Blank text is refused. It is joined to the text before it, else left out, and so is a message without content. A reply that is to
  be continued does not end in white space.
- A call needs its result in the next turn, and a result its call: else they are left out. A tool of the provider's needs its
  result, unless the turn continues.
- Instructions come first; alone, they are a message of the user. Later ones stay in their place if the model accepts that, and move
  to the others if it does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from antiphon.domain.content import (
    FUNCTION_CALL,
    NOTHING,
    Audio,
    Block,
    Compaction,
    Image,
    JsonObject,
    Message,
    Opaque,
    Origin,
    RedactedThinking,
    Refusal,
    Role,
    ServerToolCall,
    ServerToolResult,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from antiphon.providers.anthropic.citations import citation_json
from antiphon.providers.anthropic.names import NAMES, accepted_id
from antiphon.providers.anthropic.parts import part_of, with_caller_fields
from antiphon.providers.codec.calls import SENT_CALLS, input_of, object_of
from antiphon.providers.codec.names import CallIds
from antiphon.providers.codec.pictures import of_the_user
from antiphon.providers.codec.results import paired

PROTOCOL: Final = "anthropic"
"""The protocol's name in the origin of a reply."""

_OPENING: Final = {"type": "text", "text": "."}
"""The user message of a conversation that the assistant begins, or in which nothing was said, which the API does not accept."""

_ERROR: Final = {"type": "text", "text": "Error"}
"""The content of an error without any, which the API does not accept."""

_SAID: Final = frozenset({"text", "thinking", "redacted_thinking"})
"""What a reply has that its model did not pause for its own tools or for a compaction."""

CACHE: Final = "cache_control"


class AnthropicEncoder:
    """Writes the messages of one request."""

    def __init__(self, provider: str, *, system_turns: bool) -> None:
        """`system_turns`: the model accepts instructions after a user message."""
        self._provider = provider
        self._origin = Origin(PROTOCOL, provider)
        self._system_turns = system_turns
        self._ids = CallIds(accepted_id)
        self.system: list[JsonObject] = []
        """The instructions before the conversation."""
        self.messages: list[dict[str, Any]] = []
        self._late: list[JsonObject] = []
        """Instructions that may stay in their place, if a reply follows or nothing."""
        self._pictures: list[Block] = []
        """Images of a reply, to be added to the next user message."""
        self._calls: set[str] = set()
        """Ids of the calls of the provider's own tools that were sent, and so may have a result."""
        self._answered: frozenset[str] = frozenset()
        """Ids of all calls that have a result, of tools of either side."""
        self._functions = 0
        """The number of function calls of OpenAI's API of 2023, which have no ids."""

    def encode(self, messages: Sequence[Message]) -> None:
        """Add the messages. Raises `Unsupported` for content that this API cannot express."""
        messages = paired(messages)
        self._answered = frozenset(_answered(messages))
        for number, message in enumerate(messages, 1):
            match message.role:
                case Role.SYSTEM | Role.DEVELOPER:
                    self._add_instructions(message)
                case Role.ASSISTANT:
                    self._add_reply(message, is_last=number == len(messages))
                case _:
                    self._add_message(message)
        self._trim()
        self._place_late(is_followed_by_user=False)
        if not self.messages:
            self.messages, self.system = [{"role": "user", "content": self.system or [_OPENING]}], []

    def _trim(self) -> None:
        """Remove white space from the end of a reply that is to be continued."""
        if self.messages and self.messages[-1]["role"] == "assistant":
            content = self.messages[-1]["content"]
            if content[-1].get("type") == "text":
                content[-1] = {**content[-1], "text": content[-1]["text"].rstrip()}

    @property
    def is_prefilled(self) -> bool:
        """Return whether the model is to continue a reply that it did not pause itself."""
        last = self.messages[-1]
        return last["role"] == "assistant" and all(part.get("type") in _SAID for part in last["content"])

    def ask(self, text: str) -> None:
        """Add a message of the user."""
        self._append("user", [{"type": "text", "text": text}])

    @property
    def continues_unsigned(self) -> bool:
        """Return whether the model is to continue a reply without thinking, or after results of calls that it made without it.

        A model that is told how much to think refuses that.
        """
        if self.messages[-1]["role"] == "assistant":
            return self.messages[-1]["content"][0].get("type") not in ("thinking", "redacted_thinking")
        if len(self.messages) <= 1 or (self.messages[-2]["role"], self.messages[-1]["role"]) != ("assistant", "user"):
            return False
        reply = self.messages[-2]["content"]
        has_calls = any(part.get("type") == "tool_result" for part in self.messages[-1]["content"])
        return has_calls and reply[0].get("type") not in ("thinking", "redacted_thinking")

    def _add_instructions(self, message: Message) -> None:
        parts = _marked(self._parts(message.blocks), message.extra)
        if self._system_turns and self.messages and self.messages[-1]["role"] == "user":
            self._late += parts
        else:
            self.system += parts

    def _place_late(self, *, is_followed_by_user: bool) -> None:
        if self._late and is_followed_by_user:
            self.system += self._late
        elif self._late:
            self.messages.append({"role": "system", "content": self._late})
        self._late = []

    def _add_message(self, message: Message) -> None:
        """Add a message of the user, or results of tools."""
        results = [part for block in message.blocks if isinstance(block, ToolResult) for part in self._result(block)]
        others: list[Block] = [block for block in message.blocks if not isinstance(block, ToolResult)]
        if message.role is Role.USER:
            others, self._pictures = [*self._pictures, *others], []
        content = _marked([*results, *self._parts(others)], message.extra)
        if content:
            self._place_late(is_followed_by_user=True)
            self._append("user", content)

    def _append(self, role: str, content: list[JsonObject]) -> None:
        """Add the content to the conversation. Results of tools go before the other parts of their turn."""
        if not self.messages and role == "assistant":
            self.messages.append({"role": "user", "content": [_OPENING]})
        if not self.messages or self.messages[-1]["role"] != role:
            self.messages.append({"role": role, "content": content})
            return
        known = self.messages[-1]["content"]
        at = next((at for at, part in enumerate(known) if part.get("type") != "tool_result"), len(known))
        for part in content:
            if part.get("type") == "tool_result":
                known.insert(at, part)
                at += 1
            else:
                known.append(part)

    def _parts(self, blocks: Iterable[Block]) -> list[JsonObject]:
        return [part for block in blocks if (part := part_of(block, self._provider)) is not None]

    def _result(self, block: ToolResult) -> Iterable[JsonObject]:
        """Return the result of a call, as a list of one; of none if the call was not sent."""
        call_id = self._function_id if block.type == FUNCTION_CALL else block.tool_call_id
        sent_id = self._ids.answered(call_id)
        if sent_id is None:
            return []
        content = self._parts(block.blocks)
        part: dict[str, Any] = {"type": "tool_result", "tool_use_id": sent_id}
        if content and CACHE in content[-1]:
            # The API caches results, not the parts within them.
            part[CACHE] = content[-1][CACHE]
            content[-1] = {name: value for name, value in content[-1].items() if name != CACHE}
        if content or block.is_error:
            part["content"] = plain(content or [_ERROR])
        if block.is_error:
            part["is_error"] = True
        return [with_caller_fields(part, block.extra)]

    def _add_reply(self, message: Message, *, is_last: bool) -> None:
        """Add an earlier reply. `is_last`: the turn is to be continued."""
        content: list[dict[str, Any]] = []
        continues = is_last or any(isinstance(block, ToolCall) for block in message.blocks)
        for block in message.blocks:
            is_own, is_exact = self._is_own(block, message), self._is_exact(block, message)
            # A signature says where it is from, other fields do not.
            fields = block.state.fields if block.state is not None and is_exact else NOTHING
            opaque = None if block.state is None or not is_own else block.state.opaque
            match block:
                case Text(text=text) | Refusal(text=text) | Audio(transcript=text) if text:
                    self._add_text(content, text, block, fields, has_citations=is_exact)
                case Thinking() if opaque:
                    content.append({"type": "thinking", **fields, "thinking": block.text, "signature": opaque})
                case RedactedThinking() if opaque:
                    content.append({"type": "redacted_thinking", **fields, "data": opaque})
                case ToolCall() if block.type in SENT_CALLS:
                    content.append(self._call(block, fields))
                case ServerToolCall() if is_exact and (continues or block.id in self._answered):
                    content.append(_server_call(block, fields))
                    self._calls.add(block.id)
                case ServerToolResult() if is_exact and block.call_id in self._calls:
                    content.append({"type": block.type, "tool_use_id": block.call_id, **fields})
                case Compaction() if is_exact:
                    encrypted = {} if opaque is None else {"encrypted_content": opaque}
                    content.append({"type": "compaction", **fields, "content": block.text, **encrypted})
                case Opaque() if is_own:
                    content.append(dict(block.form))
                case Image():
                    self._pictures += of_the_user(block, lambda picture: part_of(picture, self._provider))
                case _:
                    pass
        _marked(content, message.extra)
        if any(part.get("type") not in ("thinking", "redacted_thinking") for part in content):
            self._place_late(is_followed_by_user=False)
            self._append("assistant", content)  # type: ignore[arg-type]

    def _add_text(self, content: list[dict[str, Any]], text: str, block: Block, fields: JsonObject, *, has_citations: bool) -> None:
        if not text.strip():
            if content and content[-1].get("type") == "text":
                content[-1]["text"] += text
            return
        part: dict[str, Any] = {"type": "text", **fields, "text": text}
        if has_citations and isinstance(block, Text) and block.citations:
            part["citations"] = [citation_json(one) for one in block.citations]
        elif not part.get("citations", True):
            del part["citations"]
        content.append(with_caller_fields(part, block.extra))

    def _call(self, block: ToolCall, fields: JsonObject) -> dict[str, Any]:
        call_id = block.id
        if block.type == FUNCTION_CALL:
            self._functions += 1
            call_id = self._function_id
        part = {
            "type": "tool_use",
            "id": self._ids.called(call_id),
            "name": NAMES.sent(block.name),
            "input": input_of(block),
            **fields,
        }
        return with_caller_fields(part, block.extra)

    @property
    def _function_id(self) -> str:
        """Return the id for the latest function call of OpenAI's API of 2023."""
        return f"call_{self._functions}"

    def _is_own(self, block: Block, message: Message) -> bool:
        """Return whether this provider made a block, or the caller wrote it."""
        origin = message.origin_of(block)
        return origin.is_from(self._origin) if origin is not None else block.state is None

    def _is_exact(self, block: Block, message: Message) -> bool:
        """Return whether a block is known to be of this provider and this protocol."""
        origin = message.origin_of(block)
        return origin is not None and origin.protocol == PROTOCOL and origin.is_from(self._origin)


def plain(content: list[JsonObject]) -> str | list[JsonObject]:
    """Return the content as a string if it is a single text without other fields."""
    match content:
        case [{"type": "text", "text": str(text), **others}] if not others:
            return text
        case _:
            return content


def _answered(messages: Iterable[Message]) -> Iterable[str]:
    """Yield the ids of the calls that have a result."""
    for message in messages:
        for block in message.blocks:
            match block:
                case ToolResult():
                    yield block.tool_call_id
                case ServerToolResult():
                    yield block.call_id
                case _:
                    pass


def _server_call(block: ServerToolCall, fields: JsonObject) -> dict[str, Any]:
    part: dict[str, Any] = {"type": block.type, "id": block.id, "name": block.name}
    if block.input is not None:
        part["input"] = object_of(block.input) or {}
    return {**part, **fields}


def _marked(parts: list[Any], extra: JsonObject) -> list[Any]:
    """Put a cache mark of a message on the last part, which is what it means there. Thinking takes no marks."""
    mark = extra.get(CACHE)
    if mark is not None and parts and parts[-1].get("type") not in ("thinking", "redacted_thinking"):
        parts[-1] = {CACHE: mark, **parts[-1]}
    return parts
