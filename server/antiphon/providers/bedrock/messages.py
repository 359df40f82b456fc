"""Writes the messages of a request for the Converse API. No I/O.

What is sent of an earlier reply:

| block | to the provider and a model of the maker that made it | to another |
|---|---|---|
| text | with its citations | the text alone |
| refusal | text | the same |
| reasoning with a signature, redacted reasoning | unchanged | nothing |
| reasoning without one | unchanged to Amazon's models | nothing |
| call of a function or of a custom tool | with its own fields | without them |
| call of a tool of the provider, its result, a block of an unknown kind | unchanged | nothing |
| image | in the next user message | the same |
| recording | its transcript | the same |

The rules of the API that the form follows:

- Consecutive messages of one role are one turn, and the first is the user's. The results of a turn's calls come before everything
  else, and with some models stand alone: a turn of the assistant is then put after them.
- Blank text is refused, and so is a message without content. A document needs a text beside it.
- A call needs its result in the next turn, and a result its call: else they are left out. Both need tools: if none are offered,
  they are written as text.
- Instructions come first. Later ones stay in their place if the model accepts that, and move to the others if it does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from antiphon.domain.content import (
    FUNCTION_CALL,
    NOTHING,
    Audio,
    Block,
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
from antiphon.providers.bedrock.blocks import DELTA, RESULT, START
from antiphon.providers.bedrock.capabilities import CLAUDE, family, maker
from antiphon.providers.bedrock.citations import citation_json
from antiphon.providers.bedrock.names import CALL_IDS, NAMES
from antiphon.providers.bedrock.parts import DocumentNames, cache_point, native, part_of
from antiphon.providers.codec.calls import SENT_CALLS, input_of, object_of
from antiphon.providers.codec.names import CallIds
from antiphon.providers.codec.pictures import of_the_user
from antiphon.providers.codec.results import paired

PROTOCOL: Final = "bedrock"
"""The protocol's name in the origin of a reply."""

_FILLER: Final = {"text": "."}
"""The text of a turn that the API demands and nobody wrote, and the text that it demands beside a document."""

_ERROR: Final = {"text": "Error"}
"""The content of an error without any, which Claude does not accept."""

_ADDRESSES: Final = ("data:", "s3://")
"""The beginnings of the addresses that the API reads."""

_REASONING: Final = "reasoningContent"
_MEDIA: Final = ("document", "video")


class _Turn(Struct):
    """Consecutive messages of one role."""

    role: str
    results: list[JsonObject] = []
    content: list[JsonObject] = []


class BedrockEncoder:
    """Writes the messages of one request."""

    def __init__(self, provider: str, model: str, *, system_turns: bool, has_tools: bool) -> None:
        """`system_turns`: the model accepts instructions after a user message. `has_tools`: tools are offered."""
        self._provider = provider
        self._model = model
        self._family = family(model)
        self._system_turns = system_turns
        self._has_tools = has_tools
        self._documents = DocumentNames()
        self.system: list[JsonObject] = []
        """The instructions before the conversation."""
        self._turns: list[_Turn] = []
        self._late: list[JsonObject] = []
        """Instructions that may stay in their place, if a reply follows or nothing."""
        self._pictures: list[Block] = []
        """Images of a reply, to be added to the next user message."""
        self._ids = CallIds(CALL_IDS.sent, CALL_IDS.length)
        self._calls: dict[str, str] = {}
        """The ids of the calls that were sent, and so may have a result, and the names of their tools."""
        self._functions = 0
        """The number of function calls of OpenAI's API of 2023, which have no ids."""

    def encode(self, messages: Sequence[Message]) -> None:
        """Add the messages. Raises `Unsupported` for content that this API cannot express."""
        messages = paired(messages)
        for message in messages:
            match message.role:
                case Role.SYSTEM | Role.DEVELOPER:
                    self._add_instructions(message)
                case Role.ASSISTANT:
                    self._add_reply(message)
                case _:
                    self._add_message(message)
        self._trim()
        self._place_late(is_followed_by_user=False)
        if not self._turns:
            self._turns, self.system = [_Turn("user", content=self.system or [_FILLER])], []

    def _trim(self) -> None:
        """Remove white space from the end of a reply that is to be continued, where Claude does not accept it."""
        if self._turns and self._turns[-1].role == "assistant":
            content = self._turns[-1].content
            if "text" in content[-1]:
                content[-1] = {"text": content[-1]["text"].rstrip()}

    @property
    def messages(self) -> list[JsonObject]:
        """Return the messages as JSON objects."""
        return [message for turn in self._turns for message in self._messages_of(turn)]

    @property
    def is_prefilled(self) -> bool:
        """Return whether the model is to continue a reply that it did not pause itself."""
        last = self._turns[-1]
        return last.role == "assistant" and not any("toolUse" in part or "toolResult" in part for part in last.content)

    def ask(self, text: str) -> None:
        """Add a message of the user."""
        self._turns.append(_Turn("user", content=[{"text": text}]))

    @property
    def continues_unsigned(self) -> bool:
        """Return whether the model is to continue a reply without thinking, or after results of calls that it made without it.

        A Claude model that is told how much to think refuses that.
        """
        if self._turns[-1].role == "assistant":
            return _REASONING not in self._turns[-1].content[0]
        if len(self._turns) <= 1 or not self._turns[-1].results:
            return False
        reply = self._turns[-2].content
        return not reply or _REASONING not in reply[0]

    def _messages_of(self, turn: _Turn) -> Iterable[JsonObject]:
        """Yield the messages that are a turn: with some models, results stand alone."""
        content = turn.content
        has_media = any(name in part for part in content for name in _MEDIA)
        if has_media and not any("text" in part for part in content):
            content = [*content, _FILLER]
        family = self._family
        is_split = not family.text_beside_results or (has_media and not family.media_beside_results)
        if turn.results and content and is_split:
            yield {"role": turn.role, "content": turn.results}
            yield {"role": "assistant", "content": [_FILLER]}
            yield {"role": turn.role, "content": content}
        else:
            yield {"role": turn.role, "content": [*turn.results, *content]}

    def _add_instructions(self, message: Message) -> None:
        parts = [*self._parts(message.blocks), *cache_point(message.extra)]
        if self._system_turns and self._turns and self._turns[-1].role == "user":
            self._late += parts
        else:
            self.system += parts

    def _place_late(self, *, is_followed_by_user: bool) -> None:
        if self._late and is_followed_by_user:
            self.system += self._late
        elif self._late:
            self._turns.append(_Turn("system", content=self._late))
        self._late = []

    def _add_message(self, message: Message) -> None:
        """Add a message of the user, or results of tools."""
        results: list[JsonObject] = []
        content: list[JsonObject] = []
        blocks, self._pictures = (
            ((*self._pictures, *message.blocks), []) if message.role is Role.USER else (message.blocks, self._pictures)
        )
        for block in blocks:
            if not isinstance(block, ToolResult):
                content += self._parts([block])
            elif self._has_tools:
                results += self._result(block)
            else:
                content += self._result_as_text(block)
        mark = cache_point(message.extra)
        if content:
            content += mark
        elif results:
            results += mark
        if content or results:
            self._place_late(is_followed_by_user=True)
            self._append("user", content, results)

    def _append(self, role: str, content: list[JsonObject], results: Iterable[JsonObject] = ()) -> None:
        if not self._turns and role == "assistant":
            self._turns.append(_Turn("user", content=[_FILLER]))
        if not self._turns or self._turns[-1].role != role:
            self._turns.append(_Turn(role))
        self._turns[-1].results += results
        self._turns[-1].content += content

    def _parts(self, blocks: Iterable[Block]) -> list[JsonObject]:
        """Return the blocks as parts, each with the mark of a cache after it."""
        parts: list[JsonObject] = []
        for block in blocks:
            part = part_of(block, self._provider, self._documents)
            if part is not None:
                parts += (part, *cache_point(block.extra))
        return parts

    def _result(self, block: ToolResult) -> list[JsonObject]:
        """Return the result of a call, with the mark of a cache after it; nothing if the call was not sent."""
        call_id = self._function_id if block.type == FUNCTION_CALL else block.tool_call_id
        sent_id = self._ids.answered(call_id)
        if sent_id is None:
            return []
        content = self._parts(block.blocks)
        # The API caches results, not the parts within them.
        marks = [*cache_point(block.extra), *(part for part in content if "cachePoint" in part)]
        content = [part for part in content if "cachePoint" not in part]
        result: dict[str, Any] = {"toolUseId": sent_id, "content": content or ([_ERROR] if block.is_error else [])}
        if block.is_error and self._family.result_status:
            result["status"] = "error"
        return [{"toolResult": result}, *marks[:1]]

    def _result_as_text(self, block: ToolResult) -> list[JsonObject]:
        call_id = self._function_id if block.type == FUNCTION_CALL else block.tool_call_id
        name = self._calls.get(call_id)
        if name is None:
            return []
        what = "Error" if block.is_error else "Result"
        return [{"text": f"{what} of the tool {name}:"}, *self._parts(block.blocks)]

    def _add_reply(self, message: Message) -> None:
        """Add an earlier reply."""
        content: list[JsonObject] = []
        for block in message.blocks:
            content += self._reply_parts(block, message)
        if any(_REASONING not in part for part in content):
            self._place_late(is_followed_by_user=False)
            self._append("assistant", [*content, *cache_point(message.extra)])

    def _reply_parts(self, block: Block, message: Message) -> list[JsonObject]:
        """Return a block of a reply as parts; none if it is not sent."""
        is_own, is_exact = self._is_own(block, message), self._is_exact(block, message)
        # A signature says where it is from, other fields do not.
        fields = block.state.fields if block.state is not None and is_exact else NOTHING
        opaque = None if block.state is None or not is_own else block.state.opaque
        mark = cache_point(block.extra)
        match block:
            case Text(text=text) | Refusal(text=text) | Audio(transcript=text) if text:
                return [*_text(text, block, has_citations=is_exact), *mark]
            case Thinking() if opaque:
                return [{_REASONING: {"reasoningText": {**fields, "text": block.text, "signature": opaque}}}]
            case Thinking() if is_own and block.text and self._family.unsigned_thoughts:
                return [{_REASONING: {"reasoningText": {**fields, "text": block.text}}}]
            case RedactedThinking() if opaque:
                return [{_REASONING: {"redactedContent": opaque}}]
            case ToolCall() if block.type in SENT_CALLS:
                return [self._call(block, fields), *mark]
            case ServerToolCall() if is_exact and self._has_tools:
                call = {"toolUseId": block.id, "name": block.name, "input": object_of(block.input or "") or {}}
                return [{"toolUse": {**call, "type": block.type, **fields}}]
            case ServerToolResult() if is_exact and self._has_tools:
                kind = {} if block.type == RESULT else {"type": block.type}
                return [{"toolResult": {"toolUseId": block.call_id, **kind, **fields}}]
            case Opaque() if is_own and START not in block.form and DELTA not in block.form:
                return [native(block.form)]
            case Image():
                self._pictures += of_the_user(block, lambda picture: part_of(picture, self._provider, DocumentNames()), _ADDRESSES)
                return []
            case _:
                return []

    def _call(self, block: ToolCall, fields: JsonObject) -> JsonObject:
        call_id = block.id
        if block.type == FUNCTION_CALL:
            self._functions += 1
            call_id = self._function_id
        self._calls[call_id] = block.name
        if not self._has_tools:
            return {"text": f"Call of the tool {block.name}: {block.arguments or '{}'}"}
        sent_id = self._ids.called(call_id)
        return {"toolUse": {"toolUseId": sent_id, "name": NAMES.sent(block.name), "input": input_of(block), **fields}}

    @property
    def _function_id(self) -> str:
        """Return the id for the latest function call of OpenAI's API of 2023."""
        return f"call_{self._functions}"

    def _is_own(self, block: Block, message: Message) -> bool:
        """Return whether this provider and a model of the same maker made a block, or the caller wrote it."""
        origin = message.origin_of(block)
        if origin is None:
            return block.state is None
        return origin.is_from(Origin(PROTOCOL, self._provider)) and self._is_same_maker(origin.model)

    def _is_exact(self, block: Block, message: Message) -> bool:
        """Return whether a block is known to be of this provider and this protocol."""
        origin = message.origin_of(block)
        return origin is not None and origin.protocol == PROTOCOL and self._is_own(block, message)

    def _is_same_maker(self, model: str) -> bool:
        """Return whether a model is of the maker of the model that is asked. An id may not tell: then it has to be the same.

        What a client sends back tells the provider alone: then it is Claude's, as no other maker's models sign what they think.
        """
        if not model:
            return maker(self._model) == CLAUDE
        made_by = maker(model)
        return model == self._model or (made_by != "" and made_by == maker(self._model))


def _text(text: str, block: Block, *, has_citations: bool) -> list[JsonObject]:
    """Return a text of a reply, as a list of one; of none if it is blank."""
    if not text.strip():
        return []
    if has_citations and isinstance(block, Text) and block.citations:
        return [{"citationsContent": {"content": [{"text": text}], "citations": [citation_json(one) for one in block.citations]}}]
    return [{"text": text}]
