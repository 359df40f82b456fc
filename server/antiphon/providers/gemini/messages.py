"""Writes the messages of a request for the Gemini API. No I/O.

What is sent of an earlier reply:

| block | to the provider and model that made it | to another |
|---|---|---|
| text, refusal | a part of its own, with its signature | the text |
| thinking | with its signature; nothing without one | nothing |
| call of a function or of a custom tool | with its signature and id | without them, if it has a result |
| image | with its signature | the image |
| recording | its transcript | the same |
| calls and results of the provider's own tools, blocks of an unknown kind | unchanged | nothing |
| all else | nothing | nothing |

The form of a conversation there:

- Instructions are not among the contents, wherever they stood.
- Neighbours of the same role are one content. A reply at the start gets an empty question before it.
- The results of calls follow the calls, in their order, in a content of their own. A call without a result, and a result without a
  call, are left out, because the API refuses them.
- The first of the calls of a reply needs a signature, unless the model is an old one. If another model made it, or nobody, it gets
  the one that the API documents for that: https://ai.google.dev/gemini-api/docs/thought-signatures. So do the first part and the
  images of a reply, with a model that makes images.

A message written by the caller has no origin, and is sent as if another provider had made it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from antiphon.domain.content import (
    CUSTOM,
    Audio,
    Block,
    Document,
    Image,
    JsonObject,
    Message,
    Opaque,
    Origin,
    Refusal,
    Role,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
    with_extra,
)
from antiphon.domain.errors import Unsupported
from antiphon.providers.codec.calls import INPUT, SENT_CALLS, object_of
from antiphon.providers.codec.pictures import of_the_user
from antiphon.providers.gemini.blocks import CALL, CODE, CONTINUATION, PROTOCOL, SIGNATURE, TOOL_CALL
from antiphon.providers.gemini.capabilities import SENTINEL, GeminiCapabilities
from antiphon.providers.gemini.media import media_part
from antiphon.providers.gemini.names import NAMES, is_made

_RESULT_MEDIA: Final = ("image/png", "image/jpeg", "image/webp", "application/pdf", "text/plain")
"""The media types that the result of a tool may hold: https://ai.google.dev/gemini-api/docs/function-calling#multimodal."""

_ADDRESSES: Final = ("data:", "https://", "http://", "gs://")
"""The beginnings of the addresses that the API reads."""

_RESPONSE: Final = "functionResponse"
_NOTHING_SAID: Final = " "
"""The text of a message that has none, as the API refuses an empty one."""

_INSTRUCTIONS: Final = (Role.SYSTEM, Role.DEVELOPER)


class GeminiEncoder:
    """Writes the messages of one request."""

    def __init__(self, provider: str, model: str, capabilities: GeminiCapabilities) -> None:
        self.instructions: list[JsonObject] = []
        """The parts of `systemInstruction`."""
        self.continuation = ""
        """The token with which a paused reply is continued."""
        self._provider = provider
        self._origin = Origin(PROTOCOL, provider)
        self._model = model
        self._capabilities = capabilities
        self._contents: list[dict[str, Any]] = []
        self._results: dict[tuple[int, int], ToolResult] = {}
        """The results of calls, by the number of the message and of the block in it."""

    def encode(self, messages: Iterable[Message]) -> list[dict[str, Any]]:
        """Return the contents. Raises `Unsupported` for content that this API cannot express."""
        messages = tuple(messages)
        self._pair(messages)
        if messages and (token := self._continuation(messages[-1])):
            self.continuation = token
            messages = messages[:-1]
        for number, message in enumerate(messages):
            if message.role is Role.ASSISTANT:
                self._add_reply(number, message)
            elif message.role in _INSTRUCTIONS:
                self.instructions += [part for block in message.blocks for part in self._parts(block)]
            else:
                self._add_message(message)
        if not self._contents and self.instructions:
            self._contents, self.instructions = [{"role": "user", "parts": self.instructions}], []
        if not self._contents or self._contents[0]["role"] == "model":
            self._contents.insert(0, {"role": "user", "parts": [{"text": _NOTHING_SAID}]})
        if self._capabilities.signs_calls:
            for content in self._contents:
                _sign(content)
        if self._capabilities.signs_parts:
            for content in self._contents:
                _sign_images(content)
        return self._contents

    def _pair(self, messages: tuple[Message, ...]) -> None:
        """Find the call of each result: the first one of that id without a result."""
        waiting: dict[str, list[tuple[int, int]]] = {}
        for number, message in enumerate(messages):
            for position, block in enumerate(message.blocks):
                if isinstance(block, ToolCall) and block.type in SENT_CALLS and message.role is Role.ASSISTANT:
                    waiting.setdefault(block.id, []).append((number, position))
                elif isinstance(block, ToolResult) and waiting.get(block.tool_call_id):
                    self._results[waiting[block.tool_call_id].pop(0)] = block

    def _add_message(self, message: Message) -> None:
        """Add a message of the user. Results of tools are added with their calls."""
        content = [block for block in message.blocks if not isinstance(block, ToolResult)]
        parts = [part for block in content for part in self._parts(block)]
        if parts:
            self._add("user", parts)
        elif len(content) == len(message.blocks):
            self._add("user", [{"text": _NOTHING_SAID}])

    def _add_reply(self, number: int, message: Message) -> None:
        """Add an earlier reply with the results of its calls. It is left out if only thoughts and empty texts remain."""
        parts: list[JsonObject] = []
        results: list[JsonObject] = []
        media: list[JsonObject] = []
        has_content = False
        # Only the first of the calls of a reply is signed. The others are of the same model, and so are their ids.
        is_signed = any(isinstance(block, ToolCall) and self._own_state(block, message) is not None for block in message.blocks)
        for position, block in enumerate(message.blocks):
            state = self._own_state(block, message)
            if isinstance(block, ToolCall):
                state = State() if state is None and is_signed and block.state is None else state
                result = self._results.get((number, position))
                if result is None:
                    continue
                parts.append(self._call(block, state))
                results.append(self._result(block, result, state, media))
            else:
                parts += self._reply_parts(block, state, message)
            has_content = has_content or not isinstance(block, Thinking | Text) or bool(isinstance(block, Text) and block.text)
        if not parts or not has_content:
            return
        self._add("model", parts)
        if results:
            self._contents.append({"role": "user", "parts": results})
        if media:
            self._contents.append({"role": "user", "parts": media})

    def _continuation(self, message: Message) -> str:
        """Return the token of a paused reply, which stands for it; empty if it has none, or another model made it."""
        token = message.fields.get(CONTINUATION)
        return token if isinstance(token, str) and message.origin is not None and self._is_own(message.origin) else ""

    def _reply_parts(self, block: Block, state: State | None, message: Message) -> list[JsonObject]:
        """Return a block of an earlier reply, but for calls, as parts. `state` is that of a block that the same model made."""
        match block:
            case Thinking():
                made: JsonObject = {"text": block.text, "thought": True}
                return [] if state is None or state.opaque is None else [_with_state(made, state)]
            case Text():
                return [_with_state({"text": block.text}, state)] if block.text or state not in (None, State()) else []
            case Refusal(text=text) | Audio(transcript=text):
                return [{"text": text}] if text else []
            case Image() if of_the_user(block, lambda picture: media_part(picture, self._provider), _ADDRESSES):
                return [_with_state(media_part(block, self._provider), state)]
            case ServerToolCall() if state is not None and state.fields:
                value = block.input if block.type == CODE else _decoded(block.input)
                given = {} if block.input is None else {"code" if block.type == CODE else "args": value}
                return [_with_state({block.type: given}, state)] if block.type in (CODE, TOOL_CALL) else []
            case ServerToolResult() if state is not None and state.fields:
                return [_with_state({}, state)]
            case Opaque() if state is not None and state.fields and (state.opaque is not None or not state.fields.get("thought")):
                return [_with_state({}, state)]
            case Opaque() if block.fields and message.origin is None and not _is_foreign(block):
                return [block.fields]
            case _:
                return []

    def _call(self, block: ToolCall, state: State | None) -> JsonObject:
        call: dict[str, Any] = {"name": NAMES.sent(block.name), "args": _arguments(block)}
        if self._sends_id(block, state):
            call["id"] = block.id
        return _with_state({CALL: call}, state)

    def _result(self, call: ToolCall, result: ToolResult, state: State | None, media: list[JsonObject]) -> JsonObject:
        """Return the result of a call. What of it may not stand there is appended to `media`."""
        texts: list[str] = []
        inner: list[JsonObject] = []
        for block in result.blocks:
            match block:
                case Text() | Refusal():
                    texts.append(block.text)
                case Image() | Audio() | Video() | Document():
                    part = media_part(block, self._provider)
                    kind = (part.get("inlineData") or part.get("fileData") or {}).get("mimeType")
                    (inner if self._capabilities.result_media and kind in _RESULT_MEDIA else media).append(part)
                case Opaque():
                    texts.append(msgspec.json.encode(block.form).decode())
                case _:
                    pass
        response: dict[str, Any] = {"name": NAMES.sent(call.name), "response": _response("".join(texts), is_error=result.is_error)}
        if self._sends_id(call, state):
            response["id"] = call.id
        if inner:
            response["parts"] = inner
        return {_RESPONSE: response}

    def _sends_id(self, call: ToolCall, state: State | None) -> bool:
        """Return whether the API itself made the id of a call."""
        return state is not None and bool(call.id) and not is_made(call.id)

    def _own_state(self, block: Block, message: Message) -> State | None:
        """Return the state of a block that the same provider and model made; None for any other block.

        A block of such a reply has one, even if it is empty. A client of another API sends signatures back, and the fields of that
        API, which are left out: such a state names the provider, but not the protocol.
        """
        origin = message.origin_of(block)
        if origin is None or not self._is_own(origin):
            return None
        state = block.state or State()
        return state if origin.protocol == PROTOCOL else State(state.opaque)

    def _is_own(self, origin: Origin) -> bool:
        return origin.is_from(self._origin) and origin.model in ("", self._model)

    def _parts(self, block: Block) -> list[JsonObject]:
        """Return a block of a message as parts. Raises `Unsupported` for blocks that this API cannot express."""
        match block:
            case Text():
                return [{"text": block.text}] if block.text else []
            case Image() | Audio() | Video() | Document():
                return [media_part(block, self._provider)]
            case Opaque() if not _is_foreign(block):
                return [block.form]
            case _:
                kind = type(block).__name__
                raise Unsupported(f"The provider {self._provider} accepts no {kind} here.", provider=self._provider)

    def _add(self, role: str, parts: list[JsonObject]) -> None:
        """Add parts, to the last content if it has the same role and is not one of results."""
        last = self._contents[-1] if self._contents else None
        if last is not None and last["role"] == role and _RESPONSE not in last["parts"][0]:
            last["parts"] += parts
        else:
            self._contents.append({"role": role, "parts": parts})


def _is_foreign(block: Opaque) -> bool:
    """Return whether a block has the form of another API: the parts of this one have no `type`."""
    return "type" in block.form


def _with_state(part: JsonObject, state: State | None) -> JsonObject:
    """Return a part with the fields and the signature of its state."""
    if state is None:
        return part
    made = with_extra(part, state.fields)
    if state.opaque is not None:
        made[SIGNATURE] = state.opaque
    return made


def _sign(content: dict[str, Any]) -> None:
    """Sign the first call of a content without a signature."""
    for position, part in enumerate(content["parts"]):
        if CALL in part:
            if SIGNATURE not in part:
                content["parts"][position] = {**part, SIGNATURE: SENTINEL}
            return


def _sign_images(content: dict[str, Any]) -> None:
    """Sign the first part of a reply after the thoughts, and each image, without a signature."""
    if content["role"] != "model":
        return
    is_first = True
    for position, part in enumerate(content["parts"]):
        if part.get("thought"):
            continue
        if (is_first or "inlineData" in part) and SIGNATURE not in part:
            content["parts"][position] = {**part, SIGNATURE: SENTINEL}
        is_first = False


def _arguments(call: ToolCall) -> JsonObject:
    """Return the arguments of a call as an object. A text that is none, such as that for a custom tool, is its `input`."""
    found = None if call.type == CUSTOM else object_of(call.arguments)
    return {INPUT: call.arguments} if found is None else found


def _response(text: str, *, is_error: bool) -> JsonObject:
    """Return the result of a tool as an object, which the API requires."""
    if is_error:
        return {"error": text}
    value = _decoded(text)
    return value if isinstance(value, dict) and not _has_reference(value) else {"output": text}


def _has_reference(value: Any) -> bool:
    """Return whether a result has a `$ref`, with which the API refers to media: in a JSON schema it is another one."""
    if isinstance(value, dict):
        return "$ref" in value or any(map(_has_reference, value.values()))
    return isinstance(value, list) and any(map(_has_reference, value))


def _decoded(text: str | None) -> Any:
    """Return the value of a JSON text; the text itself if it is not JSON."""
    try:
        return msgspec.json.decode(text or "")
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text
