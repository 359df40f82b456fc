"""Writes the messages of a request for the chat-completions API, in the form that the host accepts. No I/O.

What is sent of an earlier reply:

| block | to the host that made it | to another |
|---|---|---|
| text | joined; a list only if it came as one | the same |
| thinking | in the form of `HostCapabilities.thoughts` | nothing; DeepSeek and Moonshot get the field in every reply |
| redacted thinking | in `reasoning_details`, if the host has them | nothing |
| tool call | with those of its own fields that the host accepts | without them, if it is a function or takes plain text |
| refusal | `refusal`, if the host has the field; else text | text |
| image | `images` | in the next user message |
| recording | its id until it expires, else its transcript | its transcript |
| a block of an unknown kind, fields of the message | unchanged, if the host accepts them | nothing |
| calls, results and summaries of the provider: server tools, compaction | nothing | nothing |

Pictures in the results of tools are in a message of the user after the results, if the host has none there.

A message written by the caller has no origin. It is sent unchanged, except for fields and forms listed here that the host refuses.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from msgspec.structs import replace

from antiphon.domain.content import (
    CUSTOM,
    FUNCTION,
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
    with_extra,
)
from antiphon.providers.codec.names import stable_hash
from antiphon.providers.codec.pictures import of_the_user, without_media
from antiphon.providers.openai.block_json import (
    call_json,
    citation_json,
    function_call_json,
    image_json,
    with_signature,
)
from antiphon.providers.openai.blocks import EXTRA_CONTENT, PROTOCOL, take_signature
from antiphon.providers.openai.capabilities import HostCapabilities, Thoughts
from antiphon.providers.openai.known_fields import without_cache_marks, without_unknown
from antiphon.providers.openai.parts import content_json
from antiphon.providers.openai.thoughts import add_thoughts, has_calls, thought_part

_THOUGHT_PARTS: Final = ("thinking", "reasoning")
"""The types of content parts that are reasoning, at Mistral and at Databricks."""

_FUNCTION_ROLE: Final = "function"
"""The role of a tool result in the API of 2023."""

_CALL_ID_LENGTH: Final = 9
"""Length of the call ids that Mistral accepts, in letters and digits."""


def encode_messages(
    messages: Iterable[Message], provider: str, host: HostCapabilities, model: str, *, known_fields: bool
) -> list[JsonObject]:
    """Return the messages as JSON objects, as `OpenAIEncoder` does; if all are plain texts, without one."""
    plain: list[JsonObject] = []
    for message in messages:
        blocks = message.blocks
        if (
            len(blocks) != 1
            or type(block := blocks[0]) is not Text
            or block.state is not None
            or block.extra
            or block.citations
            or message.name is not None
            or message.extra
            or message.fields
            or message.listed
            or (host.empty_thought is not None and message.role is Role.ASSISTANT)
        ):
            return OpenAIEncoder(provider, host, model, known_fields=known_fields).encode(messages)
        role = message.role
        plain.append({"role": _role(message, host) if role is Role.DEVELOPER else role, "content": block.text})
    return plain


def _role(message: Message, host: HostCapabilities) -> Role:
    return Role.SYSTEM if message.role is Role.DEVELOPER and not host.developer else message.role


class OpenAIEncoder:
    """Writes the messages of one request."""

    def __init__(self, provider: str, host: HostCapabilities, model: str, *, known_fields: bool) -> None:
        """`known_fields`: send only those unknown fields of callers that the API documents."""
        self._provider = provider
        self._model = model
        self._origin = Origin(PROTOCOL, provider)
        self._host = host
        self._known_fields = known_fields
        self._encoded: list[JsonObject] = []
        self._dropped_calls: set[str] = set()
        """Ids of calls that this API cannot express, so that their results are left out too."""
        self._pictures: list[Block] = []
        """Images of another provider's reply, and media of results, to be added to the next user message."""
        self._functions = 0
        """The number of function calls of the API of 2023 that were sent as tool calls."""

    def encode(self, messages: Iterable[Message]) -> list[JsonObject]:
        """Return the messages as JSON objects. Raises `Unsupported` for content that this API cannot express."""
        for message in messages:
            known = without_unknown(message) if self._known_fields else message
            if not self._host.cache_marks:
                known = without_cache_marks(known)
            if message.role is Role.ASSISTANT:
                self._show_pictures()
                self._add_reply(known)
            else:
                self._add_message(known)
        self._show_pictures()
        return self._encoded

    def _show_pictures(self) -> None:
        """Add what stood in the latest results beside text as a message of the user, if there is none after them."""
        if self._pictures and self._encoded and self._encoded[-1]["role"] in ("tool", _FUNCTION_ROLE):
            self._encoded.append({"role": Role.USER, "content": content_json(self._pictures, self._provider, listed=True)})
            self._pictures = []

    def _add_message(self, message: Message) -> None:
        """Add a message that is not a reply. It becomes several messages if it holds the results of several tools."""
        content: list[Block] = []
        has_results = False
        for block in message.blocks:
            if isinstance(block, ToolResult):
                has_results = True
                if block.tool_call_id not in self._dropped_calls or not block.tool_call_id:
                    self._add_result(block, message)
            else:
                content.append(block)
        if has_results and not content:
            return
        if message.role is Role.USER:
            content, self._pictures = [*self._pictures, *content], []
        body: dict[str, Any] = {"role": _role(message, self._host)}
        if message.role is Role.USER and message.extra.get("role") == _FUNCTION_ROLE:
            body["role"] = _FUNCTION_ROLE  # a caller of the typed API may set it in `extra`
        if message.name is not None and self._accepts("name"):
            body["name"] = message.name
        is_listed = message.listed and not has_results
        body["content"] = content_json(
            content, self._provider, listed=is_listed, document_urls=self._host.document_urls, videos=self._host.videos
        )
        self._encoded.append(with_extra(body, message.extra))

    def _add_result(self, block: ToolResult, message: Message) -> None:
        """Add the result of a tool call as a message with the role "tool", or "function" for the API of 2023."""
        if not self._host.result_media:
            block = without_media(block, self._pictures)
        text = content_json(block.blocks, self._provider, listed=message.listed)
        body: dict[str, Any] = {"role": "tool", "tool_call_id": self._call_id(block.tool_call_id)}
        if block.type == FUNCTION_CALL:
            as_tool = {**body, "tool_call_id": self._call_id(self._function_id)}
            body = {"role": _FUNCTION_ROLE} if self._accepts(FUNCTION_CALL) else as_tool
        body["content"] = "" if text is None else text
        if message.name is not None:
            body["name"] = message.name
        self._encoded.append(with_extra(body, message.extra))

    def _add_reply(self, message: Message) -> None:  # noqa: C901, PLR0915  # a match over the kinds of block
        """Add an earlier reply, in the form that the host accepts.

        The reply is left out if no content remains, because hosts refuse empty replies.
        """
        body: dict[str, Any] = {"role": message.role}
        if message.name is not None and self._accepts("name"):
            body["name"] = message.name
        content: list[Block | JsonObject] = []
        thoughts: list[Thinking | RedactedThinking] = []
        rest: dict[str, Any] = {}
        is_listed = message.listed
        for block in message.blocks:
            is_own = self._is_own(block, message)
            match block:
                case Thinking() | RedactedThinking():
                    if is_own and self._is_for_model(message):
                        thoughts.append(block)
                        content += thought_part(block, message, self._provider, self._host)
                case ToolCall():
                    self._add_call(block, rest, is_own=is_own)
                case Refusal():
                    if message.listed:
                        content.append(block)
                    elif is_own and self._host.refusals and self._accepts("refusal"):
                        rest["refusal"] = rest.get("refusal", "") + block.text
                    else:
                        content.append(Text(block.text))
                case Image() if not message.listed:
                    if is_own and self._accepts("images"):
                        opaque = None if block.state is None else block.state.opaque
                        rest.setdefault("images", []).append(with_extra(image_json(block, message.origin, opaque), block.extra))
                    else:
                        self._pictures += of_the_user(block, lambda picture: content_json([picture], self._provider, listed=True))
                case Audio(media=media) if media.url is None and media.file_id is None:
                    content += self._audio_blocks(block, rest, is_own=is_own)
                case Text():
                    content.append(block)
                    self._add_state(block, rest, is_own=is_own)
                case Opaque() if is_own and self._accepts_part(block, message):
                    content.append(block)
                case Opaque():
                    is_listed = False  # without reasoning a reply can be a string, which every host accepts
                case ServerToolCall() | ServerToolResult() | Compaction():
                    pass
                case _:
                    content.append(block)
        body["content"] = content_json(content, self._provider, listed=is_listed, joins=True)
        if body["content"] is None and "images" in rest and message.origin is not None:
            body["content"] = ""  # hosts require content next to images
        body |= rest
        add_thoughts(body, thoughts, self._host)
        if message.fields and message.origin is not None and message.origin.is_from(self._origin):
            body = with_extra(body, self._accepted(message.fields))
        body = with_extra(body, self._accepted(message.extra))
        if message.blocks and body["content"] is None and not _has_content(body):
            return  # hosts refuse an empty reply
        self._sign_calls(body)
        self._encoded.append(body if self._host.nulls else _without_nulls(body))

    def _is_for_model(self, message: Message) -> bool:
        """Return whether the model accepts the reasoning of a reply. Some models refuse reasoning, at least that of others."""
        made_by = "" if message.origin is None else message.origin.model
        return made_by == self._model or self._host.accepts_thoughts(self._model)

    def _accepts_part(self, block: Opaque, message: Message) -> bool:
        """Return whether the host accepts a content part that is not text. It accepts reasoning only in its own form."""
        kind = block.form.get("type")
        match self._host.thoughts:
            case Thoughts.AS_RECEIVED if self._host.thought_parts:
                return True
            case Thoughts.PARTS if kind == "thinking":
                return self._is_for_model(message)
            case _:
                return kind not in _THOUGHT_PARTS

    def _sign_calls(self, body: dict[str, Any]) -> None:
        """Sign the first call of a reply without signatures, if the host refuses unsigned calls."""
        signature, calls = self._host.signature_for(self._model), body.get("tool_calls")
        if signature is not None and calls and not any(map(_is_signed, calls)):
            body["tool_calls"] = [with_signature(calls[0], signature), *calls[1:]]

    def _is_own(self, block: Block, message: Message) -> bool:
        """Return whether a block may be sent with its state: the host made it, or the caller wrote it."""
        origin = message.origin_of(block)
        return origin.is_from(self._origin) if origin is not None else block.state is None

    def _accepts(self, name: str) -> bool:
        """Return whether the host accepts a field of an assistant message."""
        return self._host.reply_fields is None or name in self._host.reply_fields

    def _accepted(self, fields: JsonObject) -> JsonObject:
        """Return those fields that the host accepts in an assistant message."""
        return {name: value for name, value in fields.items() if self._accepts(name)}

    def _add_state(self, block: Text, rest: dict[str, Any], *, is_own: bool) -> None:
        """Add a text's signature and citations, which are fields of the message, to `rest`."""
        state = block.state
        if not is_own:
            return
        if state is not None and (state.opaque is not None or state.fields) and self._accepts("extra_content"):
            rest |= with_signature(dict(state.fields), state.opaque)
        if block.citations and self._accepts("annotations"):
            rest.setdefault("annotations", []).extend(map(citation_json, block.citations))

    def _add_call(self, block: ToolCall, rest: dict[str, Any], *, is_own: bool) -> None:
        """Add a tool call to `rest`. A call of a type that only another provider knows is dropped, and later its result."""
        state = block.state
        fields = self._accepted_in_call(block, {**(NOTHING if state is None or not is_own else state.fields), **block.extra})
        if block.type == FUNCTION_CALL:
            if self._accepts(FUNCTION_CALL):
                rest["function_call"] = function_call_json(block, fields)
                return
            self._functions += 1
            block = replace(block, id=self._function_id, type=FUNCTION)
        if block.type not in (FUNCTION, CUSTOM) and not is_own:
            self._dropped_calls.add(block.id)
            return
        opaque = None if state is None or not is_own or not self._accepts_in_call(EXTRA_CONTENT) else state.opaque
        name, arguments = block.name, block.arguments
        if block.type == FUNCTION:
            name = name if self._host.names is None else self._host.names.sent(name)
            arguments = arguments or "{}"  # hosts that parse them refuse an empty text
        call = call_json(replace(block, id=self._call_id(block.id), name=name, arguments=arguments), fields, opaque)
        rest.setdefault("tool_calls", []).append(call)

    @property
    def _function_id(self) -> str:
        """Return the id for the latest function call of the API of 2023, which has none of its own."""
        return f"call_{self._functions}"

    def _accepts_in_call(self, name: str) -> bool:
        """Return whether the host accepts a field of a tool call that the API does not have."""
        return self._host.reply_fields is None or name in self._host.call_fields

    def _accepted_in_call(self, call: ToolCall, fields: JsonObject) -> JsonObject:
        """Return those of the fields that the host accepts in this tool call."""
        own_name = call.type if call.type not in (FUNCTION, CUSTOM, FUNCTION_CALL) else None
        return {name: value for name, value in fields.items() if name == own_name or self._accepts_in_call(name)}

    def _call_id(self, given: str) -> str:
        """Return the id of a call in a form that the host accepts.

        Any other id is replaced by the start of its SHA-256 in hexadecimal.
        """
        host = self._host
        if not host.short_call_ids:
            return given if host.call_id_length is None or len(given) <= host.call_id_length else f"call_{stable_hash(given)[:32]}"
        is_accepted = len(given) == _CALL_ID_LENGTH and given.isascii() and given.isalnum()
        return given if is_accepted else stable_hash(given)[:_CALL_ID_LENGTH]

    def _audio_blocks(self, block: Audio, rest: dict[str, Any], *, is_own: bool) -> list[Block]:
        """Return the transcript of a recording, or set `rest["audio"]` to its id if the host still has it."""
        if is_own and block.id and (block.expires is None or block.expires > time.time()) and self._accepts("audio"):
            rest["audio"] = {"id": block.id, **block.extra}
            return []
        return [Text(block.transcript)] if block.transcript else []


def _has_content(body: JsonObject) -> bool:
    """Return whether a reply still has content besides its role, name and an empty reasoning field."""
    other = body.keys() - {"role", "name", "content"}
    return bool(other - {"reasoning_content"}) or bool(str(body.get("reasoning_content", "")).strip())


def _is_signed(call: JsonObject) -> bool:
    return take_signature(dict(call)) is not None


def _without_nulls(body: JsonObject) -> JsonObject:
    """Return a reply without fields that are null, and without an empty content if it calls a tool."""
    is_empty = has_calls(body) and not body["content"]
    return {name: value for name, value in body.items() if value is not None and not (name == "content" and is_empty)}
