"""Reads the parts of one choice of a Gemini reply as blocks. No I/O.

https://ai.google.dev/api/caching#Part. Parts have no starts and ends. The rules:

- A text or thought continues the block before it if that is of the same kind, and neither has a signature or other fields.
- A part with a signature is a block of its own, even if its text is empty. An empty part without one is nothing.
- Texts stay open until something else comes or the choice ends, because their sources are named last.
- Arguments in pieces are one `InputDelta`, when the call is complete. What the limit cut does not parse.
- `executableCode`, `toolCall` and their results are those of the provider's own tools.
- A part of an unknown kind, and a picture that is a thought, is `Opaque`.
"""

from __future__ import annotations

import binascii
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from antiphon.domain.content import (
    Audio,
    Block,
    Image,
    JsonObject,
    Media,
    Opaque,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
)
from antiphon.domain.events import Batch, BlockFinished, ExtraFields, InputDelta, MediaDelta, Place, TextDelta, ThinkingDelta
from antiphon.providers.codec.blocks import BlockNumbers, state_of
from antiphon.providers.codec.names import ToolNames
from antiphon.providers.codec.values import as_object, check_depth, text
from antiphon.providers.gemini.grounding import add_grounding, recited
from antiphon.providers.gemini.partial_args import PartialArgs

PROTOCOL: Final = "gemini"
"""The protocol's name in the origin of a reply."""

SIGNATURE: Final = "thoughtSignature"
CALL: Final = "functionCall"
CODE: Final = "executableCode"
CODE_RESULT: Final = "codeExecutionResult"
TOOL_CALL: Final = "toolCall"
TOOL_RESULT: Final = "toolResponse"
INLINE: Final = "inlineData"
CONTINUATION: Final = "continuationToken"
"""A field of a choice that was paused, which is sent back with the next request."""

_CALL_FIELDS: Final = frozenset({"id", "name", "args", "partialArgs", "willContinue"})
_PLAIN: Final = frozenset({"text", "thought"})
"""The fields of most parts."""


class _PendingCall(Struct):
    """A call whose arguments arrive in pieces."""

    block: int
    args: PartialArgs
    fields: JsonObject
    opaque: str | None
    is_changed: bool = False
    """The fields or the signature came after the start."""


class CandidateReader:
    """Reads one choice. All methods append events, and raise built-in errors for JSON of another shape."""

    def __init__(self, index: int, numbers: BlockNumbers, make_id: Callable[[], str], names: ToolNames) -> None:
        """`make_id` makes the ids of calls without one. `names` are the names of tools that were sent under others."""
        self.has_call = False
        """The model waits for the result of a call."""
        self.has_content = False
        """There is something beside thoughts and empty texts."""
        self.token = ""
        """The continuation token."""
        self.fields: dict[str, Any] = {}
        """The last values of the choice's unknown fields, which are sent at its end."""
        self.tools: Counter[str] = Counter()
        """How often each of the provider's tools was used."""
        self._index = index
        self._numbers = numbers
        self._make_id = make_id
        self._names = names
        self._texts: dict[int, list[str]] = {}  # the pieces of the open texts, by block
        self._text: int | None = None  # the one that the next text continues
        self._thought: int | None = None
        self._audio: tuple[int, JsonObject] | None = None  # the open recording, and its form
        self._pending: _PendingCall | None = None
        self._tool_call = ""  # the id of the last call of one of the provider's tools
        self._recited: list[JsonObject] = []

    def add_part(self, part: JsonObject, events: Batch) -> None:
        """Read a part of the content."""
        if part.keys() <= _PLAIN and "text" in part:  # nearly every part
            piece = text(part["text"])
            if piece and part.get("thought"):
                self._add_thought(piece, events)
            elif piece:
                self._add_text(piece, events)
            return
        check_depth(part)
        fields = {name: value for name, value in part.items() if name != SIGNATURE}
        opaque = text(part.get(SIGNATURE)) or None
        if not fields.get("thought"):
            fields.pop("thought", None)
        if CALL in fields:
            self._add_call(fields.pop(CALL), fields, opaque, events)
            return
        if not fields and opaque is None:
            return
        if INLINE in fields and self._add_audio(fields, opaque, events):
            return
        self._end_open(events, keeps_texts="text" in fields and not fields.get("thought"))
        if not fields or "text" in fields or fields.keys() == {"thought"}:
            self._add_signed(fields, opaque, events)
        elif INLINE in fields and not fields.get("thought"):
            self._add_media(fields, opaque, events)
        elif CODE in fields or TOOL_CALL in fields:
            self._add_tool_call(fields, opaque, events)
        elif CODE_RESULT in fields or TOOL_RESULT in fields:
            self._add_tool_result(fields, opaque, events)
        else:
            self.has_content = True
            self._complete(Opaque(state=State(opaque, fields)), events)

    def add_logprobs(self, entries: tuple[JsonObject, ...], at: int, events: Batch) -> bool:
        """Attach log probabilities to the first text in `events` from `at` on, or to the open text.

        Returns whether there is one.
        """
        for place in range(at, len(events)):
            event = events[place]
            if isinstance(event, TextDelta):
                events[place] = TextDelta(event.block, event.text, entries)
                return True
        if self._text is None:
            return False
        events.append(TextDelta(self._text, "", entries))
        return True

    def add_recited(self, entries: list[Any]) -> None:
        """Record citations of recited works. They are sent at the end, each once."""
        self._recited += [entry for entry in map(as_object, entries) if entry and entry not in self._recited]

    def end(self, events: Batch, *, is_cut: bool) -> None:
        """Finish all blocks, and send what is sent at the end. `is_cut`: the model was stopped, perhaps within a call."""
        self._end_thought(events)
        self._end_audio(events)
        self._end_call(events, is_cut=is_cut)
        texts = {block: "".join(pieces) for block, pieces in self._texts.items()}
        queries = as_object(self.fields.get("groundingMetadata")).get("webSearchQueries")
        if isinstance(queries, list) and queries:
            self.tools["google_search"] += len(queries)
        add_grounding(as_object(self.fields.get("groundingMetadata")), texts, events)
        uncited: list[JsonObject] = []
        for entry in self._recited:
            citation = recited(entry, texts)
            if citation is None:
                uncited.append(entry)
            else:
                events.append(citation)
        if uncited:
            self.fields["citationMetadata"] = {"citations": uncited}
        self._end_texts(events)
        if self.token:
            events.append(ExtraFields(self._index, {CONTINUATION: self.token}))
        if self.fields:
            check_depth(self.fields)
            events.append(ExtraFields(self._index, self.fields, Place.CHOICE))
        self.fields, self._recited = {}, []

    def _add_text(self, piece: str, events: Batch) -> None:
        self.has_content = True
        if self._text is None:
            self._end_open(events, keeps_texts=True)
            self._text = self._begin(Text(""), events)
            self._texts[self._text] = []
        self._texts[self._text].append(piece)
        events.append(TextDelta(self._text, piece))

    def _add_thought(self, piece: str, events: Batch) -> None:
        if self._thought is None:
            self._end_open(events)
            self._thought = self._begin(Thinking(""), events)
        events.append(ThinkingDelta(self._thought, piece))

    def _add_signed(self, fields: dict[str, Any], opaque: str | None, events: Batch) -> None:
        """Read a text or thought with a signature or unknown fields, which is a block of its own."""
        piece = text(fields.pop("text", ""))
        is_thought = bool(fields.pop("thought", False))
        state = state_of(opaque, fields)
        if is_thought:
            block = self._begin(Thinking("", state=state), events)
            if piece:
                events.append(ThinkingDelta(block, piece))
            events.append(BlockFinished(block))
            return
        if state is None and not piece:
            return
        block = self._begin(Text("", state=state), events)
        self._texts[block] = [piece]
        if piece:
            self.has_content = True
            events.append(TextDelta(block, piece))

    def _add_call(self, call: JsonObject, fields: dict[str, Any], opaque: str | None, events: Batch) -> None:
        """Read a function call, whole or in pieces."""
        name, pieces = text(call.get("name")), call.get("partialArgs") or ()
        pending = self._pending
        if name or pending is None:
            if not name and not call.get("args") and opaque is None:
                return  # the end of a call that has ended already
            self._end_open(events)
            inner = {key: value for key, value in call.items() if key not in _CALL_FIELDS}
            if inner:
                fields[CALL] = inner
            args = PartialArgs(call.get("args") or {})
            value = ToolCall(
                text(call.get("id")) or self._make_id(), self._names.original(name), "", state=state_of(opaque, fields)
            )
            self.has_call = self.has_content = True
            pending = self._pending = _PendingCall(self._begin(value, events), args, fields, opaque)
        else:
            pending.args.value |= call.get("args") or {}
            if opaque is not None or fields:
                pending.opaque = opaque if pending.opaque is None else pending.opaque
                pending.fields = {**pending.fields, **fields}
                pending.is_changed = True
        for piece in pieces:
            pending.args.add(piece)
        if not call.get("willContinue"):
            self._end_call(events)

    def _add_audio(self, fields: JsonObject, opaque: str | None, events: Batch) -> bool:
        """Read another piece of the open recording. Returns whether it is one."""
        inline = fields[INLINE]
        same = {name: value for name, value in inline.items() if name != "data"}
        if self._audio is None or opaque is not None or len(fields) > 1 or same != self._audio[1]:
            return False
        data = text(inline.get("data"))
        binascii.a2b_base64(data, strict_mode=True)
        events.append(MediaDelta(self._audio[0], data))
        return True

    def _add_media(self, fields: dict[str, Any], opaque: str | None, events: Batch) -> None:
        """Read a picture, which is whole, or the first piece of a recording."""
        inline = fields.pop(INLINE)
        mime, data = text(inline.get("mimeType")), text(inline.get("data"))
        rest = {name: value for name, value in inline.items() if name not in ("mimeType", "data")}
        if rest:
            fields[INLINE] = rest
        self.has_content = True
        if mime.startswith("audio/"):
            binascii.a2b_base64(data, strict_mode=True)
            fields[INLINE] = {**rest, "mimeType": mime}
            self._audio = (self._begin(Audio(Media(), state=State(opaque, fields)), events), fields[INLINE])
            events.append(MediaDelta(self._audio[0], data))
        elif mime.startswith("image/"):
            self._complete(Image(Media(f"data:{mime};base64,{data}"), state=state_of(opaque, fields)), events)
        else:
            self._complete(Opaque(state=State(opaque, {**fields, INLINE: inline})), events)

    def _add_tool_call(self, fields: dict[str, Any], opaque: str | None, events: Batch) -> None:
        """Read a call of one of the provider's own tools."""
        kind, given = (CODE, "code") if CODE in fields else (TOOL_CALL, "args")
        inner = dict(fields.pop(kind))
        value = inner.pop(given, None)
        self._tool_call = text(inner.get("id")) or self._make_id()
        name = "code_execution" if kind == CODE else text(inner.get("toolType"))
        self.tools[name] += 1
        state = State(opaque, {**fields, kind: inner})
        block = self._begin(ServerToolCall(self._tool_call, kind, name, state=state), events)
        if value is not None:
            events.append(InputDelta(block, text(value) if kind == CODE else dumps(value)))
        events.append(BlockFinished(block))
        self.has_content = True

    def _add_tool_result(self, fields: dict[str, Any], opaque: str | None, events: Batch) -> None:
        """Read the result of such a call."""
        kind = CODE_RESULT if CODE_RESULT in fields else TOOL_RESULT
        inner = fields[kind]
        call_id = text(inner.get("id")) or self._tool_call
        is_error = inner.get("outcome", "OUTCOME_OK") != "OUTCOME_OK"
        self._complete(ServerToolResult(call_id, kind, is_error, state=State(opaque, fields)), events)
        self.has_content = True

    def _begin(self, value: Block, events: Batch) -> int:
        return self._numbers.begin(self._index, value, events)

    def _complete(self, value: Block, events: Batch) -> None:
        self._numbers.add_complete(self._index, value, events)

    def _end_open(self, events: Batch, *, keeps_texts: bool = False) -> None:
        """Finish what another part ends. `keeps_texts`: that part is a text, too."""
        self._end_thought(events)
        self._end_audio(events)
        self._end_call(events)
        self._text = None
        if not keeps_texts:
            self._end_texts(events)

    def _end_thought(self, events: Batch) -> None:
        if self._thought is not None:
            events.append(BlockFinished(self._thought))
            self._thought = None

    def _end_texts(self, events: Batch) -> None:
        events.extend(map(BlockFinished, self._texts))
        self._texts.clear()
        self._text = None

    def _end_audio(self, events: Batch) -> None:
        if self._audio is not None:
            events.append(BlockFinished(self._audio[0]))
            self._audio = None

    def _end_call(self, events: Batch, *, is_cut: bool = False) -> None:
        call = self._pending
        if call is None:
            return
        call.args.close()
        check_depth(call.args.value)
        arguments = dumps(call.args.value)
        events.append(InputDelta(call.block, arguments[:-1] if is_cut else arguments))
        events.append(BlockFinished(call.block, state_of(call.opaque, call.fields) if call.is_changed else None))
        self._pending = None


def dumps(value: object) -> str:
    """Return the JSON of a value, with integers of any length."""
    return msgspec.json.encode(value).decode()
