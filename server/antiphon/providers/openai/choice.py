"""One choice of an answer of the OpenAI API: its deltas, or its whole message, as events. No I/O."""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.content import NOTHING, JsonObject
from antiphon.domain.events import AudioDelta, Batch, DeltaGroup, ExtraDelta, RefusalDelta, TextDelta, ThinkingDelta, ToolCallDelta
from antiphon.providers.openai.calls import ReadCall, ToolCalls
from antiphon.providers.openai.values import Sound, is_shallow, read_logprobs, seconds, text

CHOICE: Final = frozenset({"index", "delta", "message", "text", "logprobs", "finish_reason", "usage"})
"""Fields of a choice that have a place in the events."""

_DELTA: Final = frozenset({"role", "content", "reasoning_content", "reasoning", "refusal", "audio", "tool_calls"})

_AUDIO: Final = frozenset({"id", "data", "transcript", "expires_at"})

_NULLS: Final = frozenset({"role", "content", "refusal", "tool_calls"})
"""Fields of a delta whose null is the same as nothing."""

_REASONING: Final = "reasoning"
"""What OpenRouter, Groq and vLLM call the thoughts; some hosts have the same text under both names."""

_INSTEAD: Final = ("tool_calls", "function_call", "refusal", "audio")
"""Fields of a delta beside which the content is null; some hosts write "" there while they stream."""


class ErrorInside(Exception):
    """A choice, or its delta, holds an error in place of output."""

    def __init__(self, error: object) -> None:
        super().__init__("an error inside a choice")
        self.error = error


class Streamed:
    """The length and the last piece of a text that streams. The text itself is not kept, to keep the cost of a token low."""

    __slots__ = ("last", "length")

    def __init__(self) -> None:
        self.length = 0
        self.last = ""

    def add(self, piece: str) -> str:
        """Add a piece, and return it."""
        self.length += len(piece)
        self.last = piece
        return piece

    def rest(self, whole: object) -> str:
        """Return what a whole text adds to what has streamed; empty if it does not continue that."""
        if not isinstance(whole, str):
            return ""
        goes_on = whole[self.length - len(self.last) : self.length] == self.last
        return whole[self.length :] if goes_on else ""


class ChoiceReader:
    """Reads one choice."""

    def __init__(self, index: int, tools: frozenset[str], *, is_object: bool) -> None:
        """`tools` are the names of those that were offered. `is_object`: the reply is one JSON object, and does not stream."""
        self.index = index
        self.text = Streamed()
        """The content. Whoever makes its `TextDelta` elsewhere, as `response` does for plain text, counts it here."""
        self.is_empty = False
        """There was a content of "", which is not the same as none."""
        self._is_object = is_object
        self._thought = Streamed()
        self._refusal = Streamed()
        self._other_output = False  # there was output without text: then a content of "" is no content
        self._by_message = False  # the host streams its pieces as messages
        self._calls = ToolCalls(index, tools, whole=is_object)
        self._sound: Sound | None = None
        self._seen: set[str] = set()  # unknown fields of the message that have an event: null adds nothing to them
        self._beside_fields: dict[str, Any] = {}  # unknown fields of the choice, with their last values

    def read(self, choice: JsonObject, chunk: JsonObject, batch: Batch) -> None:
        """Append the events of one chunk's part of the choice, behind a `DeltaGroup` if there are several.

        Raises `ErrorInside`, and `TypeError` or `ValueError` for another shape.
        """
        begin = len(batch)
        if not choice.keys() <= CHOICE and (fields := self.changed_fields(choice)):
            if fields.get("error"):
                raise ErrorInside(fields["error"])
            self._beside_fields |= fields
            self._hand_on(batch, {}, fields)
        delta = choice.get("delta")
        logprobs = choice.get("logprobs") or NOTHING
        if self._is_object:
            self._delta(self._message(choice), logprobs, batch)
        elif delta:
            self._delta(delta, logprobs, batch)
        else:
            self._no_delta(choice, chunk, logprobs, batch)
        if len(batch) - begin > 1 and not self._is_object:
            batch.insert(begin, DeltaGroup(self.index, len(batch) - begin))

    def changed_fields(self, choice: JsonObject) -> dict[str, Any]:
        """Unknown fields beside the delta, such as what a filter found: those that are new or changed."""
        fields: dict[str, Any] = {}
        known = self._beside_fields
        for name, value in choice.items():
            if name in CHOICE:
                continue
            if name not in known or type(value) is list or (value is not None and value != known[name]):
                fields[name] = value
        return fields

    def _no_delta(self, choice: JsonObject, chunk: JsonObject, logprobs: JsonObject, batch: Batch) -> None:
        """A chunk without a delta, or with an empty one: some hosts have a message in its place, or a text."""
        delta, message = choice.get("delta"), choice.get("message")
        reason = choice.get("finish_reason")
        if message is not None and (delta is None or (reason and not self._has_output)):
            is_whole = chunk.get("object") == "chat.completion" and self._has_output
            if not self._by_message and (reason or is_whole):
                self._conclude(message, logprobs, batch)
            else:
                self._by_message = True
                self._delta(message, logprobs, batch)
        elif delta is None and choice.get("text") is not None:
            self._delta({"content": choice["text"]}, logprobs, batch)  # of the older completions API
        elif delta is not None and type(delta) is not dict:
            raise TypeError("delta")
        elif logprobs:
            self._delta(NOTHING, logprobs, batch)

    def end(self) -> Batch:
        """The events that had to wait for the end. Raises if a call or a recording is not complete."""
        if self._sound is not None:
            self._sound.end()
        self._calls.end()
        return [TextDelta(self.index, "")] if self.is_empty and not self.text.length and not self._other_output else []

    @property
    def _has_output(self) -> bool:
        """Whether anything has streamed."""
        return bool(self.text.length or self._thought.length or self._refusal.length or self._calls or self._sound)

    @staticmethod
    def _message(choice: JsonObject) -> JsonObject:
        """Where a whole reply has its message, or where else some hosts have it."""
        for place in ("message", "delta"):
            if (message := choice.get(place)) is not None:
                return message  # type: ignore[no-any-return]
        if choice.get("text") is None:
            raise KeyError("message")
        return {"content": choice["text"]}

    def _conclude(self, message: JsonObject, logprobs: JsonObject, events: Batch) -> None:
        """Read a whole message at the end of a stream: only what continues the stream, which cannot be taken back."""
        rest = {name: value for name, value in message.items() if name in _DELTA or (value is not None and name not in self._seen)}
        for name, streamed in (
            ("content", self.text),
            ("reasoning_content", self._thought),
            ("reasoning", self._thought),
            ("refusal", self._refusal),
        ):
            if streamed.length and name in rest:
                rest[name] = streamed.rest(rest[name]) or None
        if isinstance(rest.get("content"), list) and (self._has_output or "content" in self._seen):
            rest["content"] = None
        if self._sound is not None:
            rest["audio"] = None
        if self._calls:
            others: dict[str, Any] = {}
            for call in self._calls.conclude(rest.pop("tool_calls", None) or []):
                self._call(call, others, events)
            if others:
                self._hand_on(events, others)
        self._delta(rest, NOTHING if self.text.length else logprobs, events)

    def _delta(self, delta: JsonObject, logprobs: JsonObject, events: Batch) -> None:
        """A delta, or a whole message."""
        index = self.index
        extra = self._unknown(delta)
        thought, reasoning = text(delta.get("reasoning_content")), delta.get("reasoning")
        if thought:
            events.append(ThinkingDelta(index, self._thought.add(thought), field=_REASONING if reasoning == thought else ""))
        elif reasoning and isinstance(reasoning, str):
            events.append(ThinkingDelta(index, self._thought.add(reasoning), field=_REASONING))
            reasoning = None
        if reasoning and reasoning != thought:
            extra[_REASONING] = reasoning

        tokens = read_logprobs(logprobs.get("content"))
        content = delta.get("content")
        if isinstance(content, list):
            self._parts(content, events)
            content = None
        if content or tokens:
            events.append(TextDelta(index, self.text.add(text(content)), tokens))
            self._other_output = self._other_output or not content
        elif text(content) == content:
            self.is_empty = True
        refusal = delta.get("refusal")
        if refusal:
            events.append(RefusalDelta(index, self._refusal.add(text(refusal))))
        audio = delta.get("audio")
        if audio:
            self._audio(audio, extra, events)
        for call in delta.get("tool_calls") or ():
            self._call(self._calls.read(call), extra, events)
        if not self._is_object and any(delta.get(name) for name in _INSTEAD):
            self._other_output = True
        beside = self._unknown_logprobs(logprobs, tokens)
        if extra or beside:
            self._hand_on(events, extra, beside)

    @staticmethod
    def _call(call: ReadCall | None, extra: dict[str, Any], events: Batch) -> None:
        if isinstance(call, ToolCallDelta):
            events.append(call)
        elif call is not None:
            extra.setdefault("tool_calls", []).append(call)

    def _unknown(self, delta: JsonObject) -> dict[str, Any]:
        """Fields of a delta that have no place in the events."""
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
        unknown = {name: value for name, value in logprobs.items() if name != "content" and value is not None}
        if self._is_object and logprobs and not tokens:
            unknown["content"] = logprobs.get("content")
        return {"logprobs": unknown} if unknown else NOTHING

    def _hand_on(self, events: Batch, extra: JsonObject, beside: JsonObject = NOTHING) -> None:
        if not is_shallow(extra) or not is_shallow(beside):
            raise ValueError("depth")
        events.append(ExtraDelta(self.index, extra, beside))

    def _audio(self, audio: JsonObject, extra: dict[str, Any], events: Batch) -> None:
        if self._sound is None:
            self._sound = Sound()
        delta = AudioDelta(
            self.index,
            id=text(audio.get("id")) or None,
            data=self._sound.feed(text(audio.get("data"))),
            transcript=text(audio.get("transcript")),
            expires=seconds(audio.get("expires_at")),
        )
        if delta.id or delta.data or delta.transcript or delta.expires:
            events.append(delta)
        if more := {name: value for name, value in audio.items() if name not in _AUDIO and value is not None}:
            extra["audio"] = more

    def _parts(self, parts: list[Any], events: Batch) -> None:
        """Content in parts, as Mistral's thinking models answer."""
        for part in parts:
            kind = part.get("type")
            if kind == "text":
                events.append(TextDelta(self.index, self.text.add(text(part.get("text")))))
            elif kind == "thinking":
                thought = part.get("thinking")
                pieces = (thought,) if isinstance(thought, str) else (piece.get("text") for piece in thought or ())
                events.append(ThinkingDelta(self.index, self._thought.add("".join(map(text, pieces)))))
            else:
                self._seen.add("content")
                self._hand_on(events, {"content": [part]})
