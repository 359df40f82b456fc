"""The messages of a request as the chat-completions API has them, as far as the host that is asked takes them. No I/O.

What goes back of a reply:

| block | to the host that made it | to another |
|---|---|---|
| text | joined; a list only where it came as one | the same |
| thinking | as `Host.thoughts` tells | nothing; but for DeepSeek and Moonshot, which want the field in every reply |
| redacted thinking | in `reasoning_details`, where the host has them | nothing |
| tool call | with its own fields and signature, where the host takes them | as it is, if a function or a tool of plain text |
| refusal | `refusal`, where the host has it | text |
| picture | `images` | to the next message of the user |
| recording | by its id until it expires, else its transcript | its transcript |
| a block of an unknown kind, fields of the message | as they came, where the host takes them | nothing |
| what the provider ran or made of its own: server tools, compaction | nothing | nothing |

What a caller writes has no origin, and goes as it was sent, but for what has the form of something here that the host refuses.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain.content import (
    CUSTOM,
    FUNCTION,
    FUNCTION_CALL,
    NOTHING,
    Audio,
    Block,
    Compaction,
    Document,
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
    Video,
    with_extra,
)
from antiphon.domain.errors import Unsupported
from antiphon.providers.openai.blocks import EXTRA_CONTENT, PROTOCOL, take_signature
from antiphon.providers.openai.capabilities import Capabilities, Thoughts
from antiphon.providers.openai.details import DETAILS
from antiphon.providers.openai.form import (
    call_json,
    citation_json,
    detail_json,
    function_call_json,
    image_json,
    is_detailed,
    with_signature,
)

_MESSAGE: Final = frozenset(
    {
        "role",
        "refusal",
        "audio",
        "function_call",
        "tool_calls",
        "tool_call_id",
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "extra_content",
    }
)
"""What may be known of a message's `extra`: the API's fields, and those in which hosts want a model's thoughts back."""

_PART: Final = frozenset({"type", "cache_control", "extra_content"})
"""The same of a part's, or of a tool call's; and where hosts are told what to keep in mind."""

_AUDIO_FORMATS: Final = {"mpeg": "mp3", "wave": "wav", "vnd.wave": "wav", "mp4": "m4a"}
"""The API's name for a subtype of `audio/`, where it is not the subtype itself."""

_THOUGHT_PARTS: Final = ("thinking", "reasoning")
"""Types of parts of the content that are thoughts: Mistral's, and Databricks'."""

_FUNCTION_ROLE: Final = "function"
"""The role of a tool's answer in 2023."""

_CALL_ID: Final = 9
"""Letters and digits of the ids that Mistral takes."""


class Encoder:
    """Writes the messages of one request."""

    def __init__(self, provider: str, host: Capabilities, model: str, *, known_fields: bool) -> None:
        """`known_fields`: of callers' unknown fields only those of the API are sent."""
        self._provider = provider
        self._model = model
        self._origin = Origin(PROTOCOL, provider)
        self._host = host
        self._known_fields = known_fields
        self._encoded: list[JsonObject] = []
        self._left_out: set[str] = set()
        """Ids of calls that this API has no word for: their results go with them."""
        self._pictures: list[Block] = []
        """Pictures that another provider's reply has, for the next message of the user."""
        self._functions = 0
        """How many function calls of 2023 were sent as tool calls."""

    def encode(self, messages: Iterable[Message]) -> list[JsonObject]:
        """Return the messages as they are sent. Raises `Unsupported` for what this API has no words for."""
        for message in messages:
            known = _known(message) if self._known_fields else message
            if message.role is Role.ASSISTANT:
                self._add_reply(known)
            else:
                self._add_message(known)
        return self._encoded

    def _add_message(self, message: Message) -> None:
        """A message of ours is more than one of theirs if it holds the results of several tools."""
        content: list[Block] = []
        has_results = False
        for block in message.blocks:
            if isinstance(block, ToolResult):
                has_results = True
                if block.tool_call_id not in self._left_out or not block.tool_call_id:
                    self._add_result(block, message)
            else:
                content.append(block)
        if has_results and not content:
            return
        if message.role is Role.USER:
            content, self._pictures = [*self._pictures, *content], []
        body: dict[str, Any] = {"role": message.role.value}
        if message.role is Role.USER and message.extra.get("role") == _FUNCTION_ROLE:
            body["role"] = _FUNCTION_ROLE  # which a caller of the typed API may write so
        if message.name is not None and self._takes("name"):
            body["name"] = message.name
        body["content"] = self._content(content, listed=message.listed and not has_results)
        self._encoded.append(with_extra(body, message.extra))

    def _add_result(self, block: ToolResult, message: Message) -> None:
        text = self._content(block.blocks, listed=message.listed)
        body: dict[str, Any] = {"role": "tool", "tool_call_id": self._call_id(block.tool_call_id)}
        if block.type == FUNCTION_CALL:
            as_tool = {**body, "tool_call_id": self._call_id(self._function_id)}
            body = {"role": _FUNCTION_ROLE} if self._takes(FUNCTION_CALL) else as_tool
        body["content"] = "" if text is None else text
        if message.name is not None:
            body["name"] = message.name
        self._encoded.append(with_extra(body, message.extra))

    def _add_reply(self, message: Message) -> None:  # noqa: C901, PLR0915  # a match over the kinds of block
        """What a model has said, as far as the host takes it."""
        body: dict[str, Any] = {"role": message.role.value}
        if message.name is not None and self._takes("name"):
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
                        content += self._thought_part(block, message)
                case ToolCall():
                    self._add_call(block, rest, is_own=is_own)
                case Refusal():
                    if message.listed:
                        content.append(block)
                    elif is_own and self._host.refusals and self._takes("refusal"):
                        rest["refusal"] = rest.get("refusal", "") + block.text
                    else:
                        content.append(Text(block.text))
                case Image() if not message.listed:
                    if is_own and self._takes("images"):
                        rest.setdefault("images", []).append(with_extra(image_json(block), block.extra))
                    else:
                        self._pictures.append(replace(block, state=None))
                case Audio(media=media) if media.url is None and media.file_id is None:
                    content += self._sound(block, rest, is_own=is_own)
                case Text():
                    content.append(block)
                    self._add_state(block, rest, is_own=is_own)
                case Opaque() if is_own and self._takes_part(block, message):
                    content.append(block)
                case Opaque():
                    is_listed = False  # without a thought a reply is a text, as every host takes it
                case ServerToolCall() | ServerToolResult() | Compaction():
                    pass
                case _:
                    content.append(block)
        body["content"] = self._content(content, listed=is_listed, joins=True)
        if body["content"] is None and "images" in rest and message.origin is not None:
            body["content"] = ""  # hosts want one with them
        body |= rest
        self._add_thoughts(body, thoughts, message)
        if message.fields and message.origin is not None and message.origin.is_from(self._origin):
            body = with_extra(body, self._taken(message.fields))
        body = with_extra(body, self._taken(message.extra))
        if message.blocks and body["content"] is None and not _says_something(body):
            return  # as hosts refuse it
        self._sign_calls(body)
        self._encoded.append(body if self._host.takes_nulls else _without_nulls(body))

    def _is_for_model(self, message: Message) -> bool:
        """Whether the model takes the thoughts of a reply: some models refuse those of others, and some all."""
        made_by = "" if message.origin is None else message.origin.model
        return made_by == self._model or self._host.takes_thoughts(self._model)

    def _takes_part(self, block: Opaque, message: Message) -> bool:
        """Whether the host takes a part of the content that is no text: of thoughts, those in its own form."""
        kind = block.form.get("type")
        match self._host.thoughts:
            case Thoughts.AS_TOLD if self._host.thought_parts:
                return True
            case Thoughts.PARTS if kind == "thinking":
                return self._is_for_model(message)
            case _:
                return kind not in _THOUGHT_PARTS

    def _sign_calls(self, body: dict[str, Any]) -> None:
        """Sign the first call of a reply that has no signature, where the host refuses it so."""
        signature, calls = self._host.signature_for(self._model), body.get("tool_calls")
        if signature is not None and calls and not any(map(_is_signed, calls)):
            body["tool_calls"] = [with_signature(calls[0], signature), *calls[1:]]

    def _is_own(self, block: Block, message: Message) -> bool:
        """Whether a block may go to the host with all of its state: it is from there, or a caller's own."""
        origin = message.origin if block.state is None else block.state.origin or message.origin
        return origin.is_from(self._origin) if origin is not None else block.state is None

    def _takes(self, name: str) -> bool:
        """Whether the host takes a field of an assistant's message."""
        return self._host.reply_fields is None or name in self._host.reply_fields

    def _taken(self, fields: JsonObject) -> JsonObject:
        return (
            {name: value for name, value in fields.items() if self._takes(name)} if self._host.reply_fields is not None else fields
        )

    def _add_state(self, block: Text, rest: dict[str, Any], *, is_own: bool) -> None:
        """What stands beside the content, of a text that has it."""
        state = block.state
        if not is_own:
            return
        if state is not None and (state.opaque is not None or state.fields) and self._takes("extra_content"):
            rest |= with_signature(dict(state.fields), state.opaque)
        if block.citations and self._takes("annotations"):
            rest.setdefault("annotations", []).extend(map(citation_json, block.citations))

    def _add_call(self, block: ToolCall, rest: dict[str, Any], *, is_own: bool) -> None:
        state = block.state
        fields = self._taken_of_call(block, {**(NOTHING if state is None or not is_own else state.fields), **block.extra})
        if block.type == FUNCTION_CALL and self._takes(FUNCTION_CALL):
            rest["function_call"] = function_call_json(block, fields)
            return
        if block.type == FUNCTION_CALL:
            self._functions += 1
            block = replace(block, id=self._function_id, type=FUNCTION)
        if block.type not in (FUNCTION, CUSTOM) and not is_own:
            self._left_out.add(block.id)
            return
        opaque = None if state is None or not is_own or not self._takes_of_call(EXTRA_CONTENT) else state.opaque
        call = call_json(replace(block, id=self._call_id(block.id)), fields, opaque)
        rest.setdefault("tool_calls", []).append(call)

    @property
    def _function_id(self) -> str:
        """The id of the last function call of 2023, which has none of its own."""
        return f"call_{self._functions}"

    def _takes_of_call(self, name: str) -> bool:
        """Whether the host takes a field of a tool call that the API has not."""
        return self._host.reply_fields is None or name in self._host.call_fields

    def _taken_of_call(self, call: ToolCall, fields: JsonObject) -> JsonObject:
        if self._host.reply_fields is None:
            return fields
        of_its_kind = call.type if call.type not in (FUNCTION, CUSTOM, FUNCTION_CALL) else None
        return {name: value for name, value in fields.items() if name == of_its_kind or self._takes_of_call(name)}

    def _call_id(self, given: str) -> str:
        """Return the id of a call in the form that the host takes."""
        if not self._host.short_call_ids or (len(given) == _CALL_ID and given.isascii() and given.isalnum()):
            return given
        return hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:_CALL_ID]

    def _sound(self, block: Audio, rest: dict[str, Any], *, is_own: bool) -> list[Block]:
        """A recording that a model made: by its id, or what is said in it."""
        if is_own and block.id and (block.expires is None or block.expires > time.time()) and self._takes("audio"):
            rest["audio"] = {"id": block.id, **block.extra}
            return []
        return [Text(block.transcript)] if block.transcript else []

    def _thought_part(self, block: Thinking | RedactedThinking, message: Message) -> list[JsonObject]:
        """A thought among the content, as Mistral's models have it; theirs alone, as others of that host refuse it."""
        if self._host.thoughts is not Thoughts.PARTS or not isinstance(block, Thinking) or message.origin is None:
            return []
        if message.origin.provider != self._provider:
            return []
        return [{"type": "thinking", "thinking": [{"type": "text", "text": block.text}]}]

    def _add_thoughts(self, body: dict[str, Any], thoughts: list[Thinking | RedactedThinking], message: Message) -> None:
        """The thoughts, where the host takes them in fields of the message."""
        said = [thought for thought in thoughts if isinstance(thought, Thinking)]
        text = "".join(thought.text for thought in said)
        detailed = [thought for thought in thoughts if is_detailed(thought)]
        field = next((thought.field for thought in said if thought.field), "")
        match self._host.thoughts:
            case Thoughts.REASONING_CONTENT:
                if said or self._host.fill is not None:
                    body["reasoning_content"] = text or (self._host.fill or "")
            case Thoughts.REASONING if said:
                body["reasoning"] = text
            case Thoughts.DETAILS if detailed:
                body[DETAILS] = [_detail(block, index) for index, block in enumerate(detailed)]
            case Thoughts.DETAILS if said:
                body["reasoning"] = text
            case Thoughts.AS_TOLD if thoughts and _calls(body):
                if detailed:
                    body[DETAILS] = [_detail(block, index) for index, block in enumerate(detailed)]
                if len(detailed) < len(thoughts):
                    body["reasoning" if field == "reasoning" else "reasoning_content"] = text
            case _:
                pass

    def _content(self, blocks: Iterable[Block | JsonObject], *, listed: bool, joins: bool = False) -> str | list[JsonObject] | None:
        """One text is a string, as some hosts know no other form; but a list where the caller wrote one (`listed`).

        `joins`: several texts are one, with nothing between them.
        """
        blocks = list(blocks)
        if not blocks:
            return [] if listed else None
        texts = [block.text for block in blocks if isinstance(block, Text) and not block.extra]
        if not listed and len(texts) == len(blocks) and (joins or len(texts) == 1):
            return "".join(texts)
        return [self._part(block) if isinstance(block, Struct) else block for block in blocks]

    def _part(self, block: Block) -> JsonObject:
        provider = self._provider
        match block:
            case Text():
                return with_extra({"type": "text", "text": block.text}, block.extra)
            case Image():
                if block.media.url is None:
                    raise Unsupported(f"The provider {provider} takes a picture as a URL only.", provider=provider)
                image = {"url": block.media.url} if block.detail is None else {"url": block.media.url, "detail": block.detail}
                return with_extra({"type": "image_url", "image_url": image}, block.extra)
            case Audio():
                return with_extra({"type": "input_audio", "input_audio": _audio(block, provider)}, block.extra)
            case Document():
                media = block.media
                file = {"file_id": media.file_id} if media.file_id is not None else {"file_data": media.url}
                if block.filename is not None:
                    file["filename"] = block.filename
                return with_extra({"type": "file", "file": file}, block.extra)
            case Refusal():
                return {"type": "refusal", "refusal": block.text}
            case Opaque():
                return block.form
            case Video():
                raise Unsupported(f"The provider {provider} takes no video.", provider=provider)
            case _:
                raise Unsupported(f"The provider {provider} takes no {type(block).__name__} at this place.", provider=provider)


def _detail(block: Thinking | RedactedThinking, index: int) -> JsonObject:
    return detail_json(block, index, None if block.state is None else block.state.opaque)


def _says_something(body: JsonObject) -> bool:
    """Whether more is left of a reply than who it is from, and what fills the place of a thought."""
    beside = body.keys() - {"role", "name", "content"}
    return bool(beside - {"reasoning_content"}) or bool(str(body.get("reasoning_content", "")).strip())


def _is_signed(call: JsonObject) -> bool:
    return take_signature(dict(call)) is not None


def _without_nulls(body: JsonObject) -> JsonObject:
    """Return a reply without fields that are null, and without an empty content if it calls a tool."""
    is_empty = _calls(body) and not body["content"]
    return {name: value for name, value in body.items() if value is not None and not (name == "content" and is_empty)}


def _calls(body: JsonObject) -> bool:
    """Whether a message calls a tool: some hosts refuse their own calls without the thoughts."""
    return bool(body.get("tool_calls"))


def _known(message: Message) -> Message:
    """Return the message without fields of the caller's that the API does not document."""
    return replace(message, blocks=tuple(map(_known_block, message.blocks)), extra=_only(_MESSAGE, message.extra))


def _known_block(block: Block) -> Block:
    match block:
        case ToolResult():
            return replace(block, blocks=tuple(map(_known_block, block.blocks)))
        case _ if block.extra:
            return replace(block, extra=_only(_PART, block.extra))
        case _:
            return block


def _only(names: frozenset[str], extra: JsonObject) -> JsonObject:
    return {name: value for name, value in extra.items() if name in names} if extra else extra


def _audio(block: Audio, provider: str) -> JsonObject:
    head, comma, data = (block.media.url or "").partition(",")
    media_type, *parameters = head.removeprefix("data:").lower().split(";")
    kind, _, subtype = media_type.partition("/")
    if not comma or not head.startswith("data:") or kind != "audio" or "base64" not in parameters:
        raise Unsupported(f"The provider {provider} takes a recording only as its bytes, with their media type.", provider=provider)
    subtype = subtype.removeprefix("x-")
    return {"data": data, "format": _AUDIO_FORMATS.get(subtype, subtype)}
