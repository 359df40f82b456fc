"""Reads one choice of an OpenAI answer, as deltas or as a whole message, into events. No I/O.

The API does not mark where a text starts and ends, so blocks are made here. A delta of the same kind as the open block continues
it; a delta of another kind ends it and starts a new one. A signature ends the block that it signs. Tool calls and a recording stay
open until the end of the choice.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from antiphon.domain.content import (
    NOTHING,
    Audio,
    Block,
    JsonObject,
    Media,
    Opaque,
    RedactedThinking,
    Refusal,
    State,
    Text,
    Thinking,
)
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    CitationDelta,
    DeltaGroup,
    ExtraFields,
    MediaDelta,
    Place,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
)
from antiphon.providers.codec.blocks import BlockNumbers, is_written, state_of
from antiphon.providers.codec.names import ToolNames
from antiphon.providers.codec.values import Base64Joiner, StreamedText, is_shallow, read_logprobs, seconds, text
from antiphon.providers.openai.attachments import read_citation, read_image
from antiphon.providers.openai.blocks import EXTRA_CONTENT, take_signature
from antiphon.providers.openai.calls import ToolCalls
from antiphon.providers.openai.details import DETAILS, ReasoningDetail, read_details
from antiphon.providers.openai.litellm import UnsignedThinking

CHOICE: Final = frozenset({"index", "delta", "message", "text", "logprobs", "finish_reason", "usage"})
"""Fields of a choice that have a place in the events."""

_DELTA: Final = frozenset({"role", "content", "reasoning_content", "reasoning", "refusal", "audio", "tool_calls", "function_call"})

_AUDIO: Final = frozenset({"id", "data", "transcript", "expires_at"})

_NULLS: Final = frozenset({"role", "content", "refusal", "tool_calls"})
"""Fields of a delta for which null means the same as a missing field."""

_REASONING: Final = "reasoning"
"""The field that OpenRouter, Groq and vLLM use for reasoning. Some hosts send the same text in `reasoning_content` as well."""

_NON_TEXT: Final = ("tool_calls", "function_call", "refusal", "audio")
"""Fields of a delta with which the content is null; some hosts stream "" instead."""


class _Open(Struct, frozen=True):
    """The open block of text, reasoning or refusal."""

    block: int
    kind: type[Block]
    key: object = None
    """Identifies the reasoning entry that the block belongs to, by the host's own numbering."""
    fields: JsonObject = NOTHING
    """The fields of its state at the start."""


class ErrorInside(Exception):
    """Raised if a choice, or its delta, holds an error instead of output."""

    def __init__(self, error: object) -> None:
        super().__init__("an error inside a choice")
        self.error = error


class ChoiceReader:
    """Reads one choice."""

    def __init__(
        self, index: int, tools: frozenset[str], numbers: BlockNumbers, names: ToolNames | None = None, *, is_object: bool
    ) -> None:
        """`tools` are the names of the offered tools, as they were sent; `names` has the caller's, None if they are the same.

        `is_object`: the reply is one JSON object, not a stream.
        """
        self.index = index
        self.text = StreamedText()
        """The streamed content. Code elsewhere that appends a `TextDelta`, as `response` does for plain text, must update it."""
        self.text_block: int | None = None
        """The number of the open text block; None if there is none."""
        self.is_empty = False
        """Whether the content was "", which differs from no content."""
        self._numbers = numbers
        self._open: _Open | None = None
        self._is_object = is_object
        self._thought = StreamedText()
        self._refusal = StreamedText()
        self._has_non_text = False  # there was output other than text: then a content of "" means none
        self._streams_messages = False  # the host sends its deltas in the field `message`
        self._calls = ToolCalls(index, tools, numbers, names, whole=is_object)
        self._audio_data: Base64Joiner | None = None
        self._audio_block = 0
        self._seen: set[str] = set()  # unknown fields of the message that had a value: a later null is ignored
        self._thinking = UnsignedThinking()
        self._choice_fields: dict[str, Any] = {}  # unknown fields of the choice, with their last values

    def read(self, choice: JsonObject, chunk: JsonObject, events: Batch) -> None:
        """Append the events of a chunk's choice, with a `DeltaGroup` in front if a dialect writes several of them.

        Raises `ErrorInside` for an error in the choice, and `TypeError` or `ValueError` for JSON of another shape.
        """
        begin = len(events)
        if not choice.keys() <= CHOICE and (fields := self.changed_fields(choice)):
            if fields.get("error"):
                raise ErrorInside(fields["error"])
            self._choice_fields |= fields
            self._add_fields(events, fields, Place.CHOICE)
        delta = choice.get("delta")
        logprobs = choice.get("logprobs") or NOTHING
        if self._is_object:
            self._read_delta(self._message(choice), logprobs, events)
        elif delta:
            self._read_delta(delta, logprobs, events)
        else:
            self._read_without_delta(choice, chunk, logprobs, events)
        if len(events) - begin > 1 and not self._is_object and sum(map(is_written, events[begin:])) > 1:
            events.insert(begin, DeltaGroup(self.index, len(events) - begin))

    def changed_fields(self, choice: JsonObject) -> dict[str, Any]:
        """Return the unknown fields beside the delta that are new or changed, such as the results of a content filter."""
        fields: dict[str, Any] = {}
        known = self._choice_fields
        for name, value in choice.items():
            if name in CHOICE:
                continue
            if name not in known or type(value) is list or (value is not None and value != known[name]):
                fields[name] = value
        return fields

    def begin_text(self, events: Batch) -> int:
        """Return the number of the open text block; start one if there is none."""
        if self.text_block is None:
            self.text_block = self._begin(Text(""), events)
        return self.text_block

    def end(self, events: Batch) -> None:
        """Append the ends of all blocks, and everything held back until then. Raises if a call or a recording is incomplete."""
        if self.is_empty and not self.text.length and not self._has_non_text:
            events.append(TextDelta(self.begin_text(events), ""))
        self._finish(events)
        if self._audio_data is not None:
            self._audio_data.end()
            events.append(BlockFinished(self._audio_block))
        self._calls.end(events)

    def break_off(self, events: Batch) -> None:
        """Append what was held back, as the reply breaks off."""
        self._calls.break_off(events)

    def _begin(self, value: Block, events: Batch, key: object = None) -> int:
        """End the open block, start a new one, and return its number. `key` identifies a reasoning entry."""
        self._finish(events)
        block = self._numbers.begin(self.index, value, events)
        fields = NOTHING if value.state is None else value.state.fields
        self._open = _Open(block, type(value), key, fields)
        return block

    def _finish(self, events: Batch, state: State | None = None) -> None:
        """End the open block, if there is one."""
        if self._open is not None:
            events.append(BlockFinished(self._open.block, state))
            self._open = self.text_block = None

    def _read_without_delta(self, choice: JsonObject, chunk: JsonObject, logprobs: JsonObject, events: Batch) -> None:
        """Read a chunk whose delta is missing or empty. Some hosts send a message or a text in its place."""
        delta, message = choice.get("delta"), choice.get("message")
        reason = choice.get("finish_reason")
        if message is not None and (delta is None or (reason and not self._has_output)):
            is_whole = chunk.get("object") == "chat.completion" and self._has_output
            if not self._streams_messages and (reason or is_whole):
                self._read_final_message(message, logprobs, events)
            else:
                self._streams_messages = True
                self._read_delta(message, logprobs, events)
        elif delta is None and choice.get("text") is not None:
            self._read_delta({"content": choice["text"]}, logprobs, events)  # the older completions API
        elif delta is not None and type(delta) is not dict:
            raise TypeError("delta")
        elif logprobs:
            self._read_delta(NOTHING, logprobs, events)

    @property
    def _has_output(self) -> bool:
        """Return whether any output has streamed."""
        return bool(self.text.length or self._thought.length or self._refusal.length or self._calls or self._audio_data)

    @staticmethod
    def _message(choice: JsonObject) -> JsonObject:
        """Return the message of a whole reply, from `message` or from the other fields that some hosts use."""
        for place in ("message", "delta"):
            if (message := choice.get(place)) is not None:
                return message  # type: ignore[no-any-return]
        if choice.get("text") is None:
            raise KeyError("message")
        return {"content": choice["text"]}

    def _read_final_message(self, message: JsonObject, logprobs: JsonObject, events: Batch) -> None:
        """Read a whole message at the end of a stream.

        Only the part that continues the streamed text and calls is used, because deltas that were sent cannot be changed.
        """
        rest = {name: value for name, value in message.items() if name in _DELTA or (value is not None and name not in self._seen)}
        for name, streamed in (
            ("content", self.text),
            ("reasoning_content", self._thought),
            ("reasoning", self._thought),
            ("refusal", self._refusal),
        ):
            if streamed.length and name in rest:
                rest[name] = streamed.rest(rest[name]) or None
        if self._thought.length:
            rest.pop(DETAILS, None)
        if isinstance(rest.get("content"), list) and (self._has_output or "content" in self._seen):
            rest["content"] = None
        if self._audio_data is not None:
            rest["audio"] = None
        if self._calls:
            self._calls.finish_from_message(rest.pop("tool_calls", None) or [], events)
            if called := rest.pop("function_call", None):
                self._calls.finish_function_call(called, events)
        self._read_delta(rest, NOTHING if self.text.length else logprobs, events)

    def _read_delta(self, delta: JsonObject, logprobs: JsonObject, events: Batch) -> None:
        """Append the events of a delta or of a whole message."""
        extra = self._unknown_fields(delta)
        self._read_thoughts(delta, extra, events)
        tokens = read_logprobs(logprobs.get("content"))
        content = delta.get("content")
        if isinstance(content, list):
            self._read_parts(content, events)
            content = None
        self._read_content(delta, content, tokens, extra, events)
        if "annotations" in extra:
            self._read_annotations(extra, events)
        refusal = delta.get("refusal")
        if refusal:
            if self._open is None or self._open.kind is not Refusal:
                self._begin(Refusal(""), events)
            assert self._open is not None, "started above"
            events.append(RefusalDelta(self._open.block, self._refusal.add(text(refusal))))
        audio = delta.get("audio")
        if audio:
            self._read_audio(audio, extra, events)
        if "images" in extra:
            self._read_images(extra, events)
        for call in delta.get("tool_calls") or ():
            self._calls.read(call, events)
        called = delta.get("function_call")
        if called:
            self._calls.read_function_call(called, events)
        if not self._is_object and any(delta.get(name) for name in _NON_TEXT):
            self._has_non_text = True
        if extra:
            self._add_fields(events, extra, continued=self._thinking.read(extra))
        if unknown := self._unknown_logprobs(logprobs, tokens):
            self._add_fields(events, unknown, Place.CHOICE)

    def _read_content(
        self, delta: JsonObject, content: object, tokens: tuple[JsonObject, ...], extra: dict[str, Any], events: Batch
    ) -> None:
        """Append the text of a delta, and the end of the block if there is a signature."""
        signature = None
        if EXTRA_CONTENT in extra and (content or self.text_block is not None or not self._has_other_output(delta)):
            signature = take_signature(extra)
        if content or tokens or (signature is not None and self.text_block is None):
            state = State(None, {EXTRA_CONTENT: extra.pop(EXTRA_CONTENT)}) if signature and EXTRA_CONTENT in extra else None
            if state is not None and self.text_block is None:
                self.text_block = self._begin(Text("", state=state), events)
            block = self.begin_text(events)
            if content or tokens:
                events.append(TextDelta(block, self.text.add(text(content)), tokens))
            self._has_non_text = self._has_non_text or not content
        elif text(content) == content:
            self.is_empty = True
        if signature is not None:
            assert self._open is not None, "a text block is open"
            self._finish(events, State(signature, self._open.fields))

    def _has_other_output(self, delta: JsonObject) -> bool:
        """Return whether a delta has output that is not text."""
        return any(delta.get(name) for name in (*_NON_TEXT, "reasoning_content", _REASONING, DETAILS))

    def _read_thoughts(self, delta: JsonObject, extra: dict[str, Any], events: Batch) -> None:
        """Append the reasoning of a delta, from whichever fields have it."""
        thought, reasoning = text(delta.get("reasoning_content")), delta.get("reasoning")
        field = ""
        if thought:
            field = _REASONING if reasoning == thought else ""
        elif reasoning and isinstance(reasoning, str):
            thought, field = reasoning, _REASONING
        if reasoning and reasoning != thought:
            extra[_REASONING] = reasoning
        details = read_details(extra[DETAILS]) if DETAILS in extra else None
        if details is not None:
            joined = "".join(detail.text for detail in details)
            if thought and joined and joined != thought:
                details = None
            else:
                del extra[DETAILS]
                thought = "" if joined else thought
        if thought:
            events.append(ThinkingDelta(self._thinking_block(field, None, NOTHING, events), self._thought.add(thought)))
        for detail in details or ():
            self._read_detail(detail, field or (_REASONING if reasoning else ""), events)

    def _thinking_block(self, field: str, key: object, fields: JsonObject, events: Batch) -> int:
        """Return the number of the open block of this reasoning entry; start one if there is none."""
        if self._open is not None and self._open.kind is Thinking and (key is None or self._open.key == key):
            return self._open.block
        return self._begin(Thinking("", field, state=state_of(None, fields)), events, key)

    def _read_detail(self, detail: ReasoningDetail, field: str, events: Batch) -> None:
        """Append an entry of `reasoning_details`. Encrypted data is a block of its own; a signature ends the block."""
        if detail.data is not None:
            self._finish(events)
            self._numbers.add_complete(self.index, RedactedThinking(state=State(detail.data, detail.fields)), events)
            return
        if detail.text or detail.signature is None or self._open is None or self._open.kind is not Thinking:
            block = self._thinking_block(field, detail.key, detail.fields, events)
            if detail.text:
                events.append(ThinkingDelta(block, self._thought.add(detail.text)))
        if detail.signature is not None:
            assert self._open is not None, "a thinking block is open"
            self._finish(events, State(detail.signature, self._open.fields or detail.fields))

    def _unknown_fields(self, delta: JsonObject) -> dict[str, Any]:
        """Return the fields of a delta that have no place in the events, or have one only if they are in a certain form."""
        extra: dict[str, Any] = {}
        for name, value in delta.items():
            if value is None:
                if name not in _NULLS and (self._is_object or (name not in _DELTA and name not in self._seen)):
                    extra[name] = None
                    self._seen.add(name)
            elif name not in _DELTA:
                if name == "error" and value:
                    raise ErrorInside(value)
                extra[name] = value
                self._seen.add(name)
        return extra

    def _unknown_logprobs(self, logprobs: JsonObject, tokens: tuple[JsonObject, ...]) -> JsonObject:
        """Return the fields of `logprobs` that no `TextDelta` holds, as extra fields of the choice."""
        unknown = {name: value for name, value in logprobs.items() if name != "content" and value is not None}
        if self._is_object and logprobs and not tokens:
            unknown["content"] = logprobs.get("content")
        return {"logprobs": unknown} if unknown else NOTHING

    def _add_fields(
        self, events: Batch, fields: JsonObject, place: Place = Place.MESSAGE, continued: frozenset[str] = frozenset()
    ) -> None:
        if not is_shallow(fields):
            raise ValueError("depth")
        events.append(ExtraFields(self.index, fields, place, continued=continued))

    def _read_annotations(self, extra: dict[str, Any], events: Batch) -> None:
        """Append the annotations as citations of the open text.

        They stay in `extra`, as unknown fields, if their form is unknown or no text is open.
        """
        annotations = extra["annotations"]
        if self.text_block is None or not isinstance(annotations, list) or not annotations:
            return
        found = list(map(read_citation, annotations))
        if None not in found:
            del extra["annotations"]
            events.extend(CitationDelta(self.text_block, citation) for citation in found if citation is not None)

    def _read_audio(self, audio: JsonObject, extra: dict[str, Any], events: Batch) -> None:
        """Append a piece of a recording; its first piece starts the block."""
        call_id, transcript = text(audio.get("id")), text(audio.get("transcript"))
        expires = seconds(audio.get("expires_at"))
        late_id = call_id
        if self._audio_data is None:
            self._audio_data, late_id = Base64Joiner(), ""
            self._audio_block = self._numbers.begin(self.index, Audio(Media(), call_id), events)
        delta = MediaDelta(self._audio_block, self._audio_data.feed(text(audio.get("data"))), transcript, late_id, expires)
        if delta.data or delta.transcript or delta.id or delta.expires:
            events.append(delta)
        if more := {name: value for name, value in audio.items() if name not in _AUDIO and value is not None}:
            extra["audio"] = more

    def _read_images(self, extra: dict[str, Any], events: Batch) -> None:
        """Append images in OpenRouter's form. Those of another form stay in `extra`."""
        images = extra["images"]
        found = list(map(read_image, images)) if isinstance(images, list) else []
        if found and None not in found:
            del extra["images"]
            self._finish(events)
            for image in found:
                if image is not None:
                    self._numbers.add_complete(self.index, image, events)

    def _read_parts(self, parts: list[Any], events: Batch) -> None:
        """Append content that arrives as parts, as from Mistral's reasoning models."""
        for part in parts:
            kind = part.get("type")
            if kind == "text":
                events.append(TextDelta(self.begin_text(events), self.text.add(text(part.get("text")))))
            elif kind == "thinking":
                thought = part.get("thinking")
                pieces = (thought,) if isinstance(thought, str) else (piece.get("text") for piece in thought or ())
                block = self._thinking_block("", None, NOTHING, events)
                events.append(ThinkingDelta(block, self._thought.add("".join(map(text, pieces)))))
            else:
                if not is_shallow(part):
                    raise ValueError("depth")
                self._seen.add("content")
                self._finish(events)
                self._has_non_text = True
                self._numbers.add_complete(self.index, Opaque(state=State(fields=part)), events)
