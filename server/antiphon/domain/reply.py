"""A whole reply, put together from the events of a stream. No I/O.

Reading a reply and reading a stream are the same thing here: a dialect that answers at once collects the events first.

Fields that only a provider knows add up like this. Of a message, as hosts stream them in deltas: texts are joined, but for those
that name a thing (`id`, `type`, ...); objects add up field by field; in lists, objects of the same `index` and type are one, and
all else is appended; what else there is, is replaced. Null ends nothing that grew. Of a choice the same, except that texts are
replaced, as hosts tell there what they found. Of the reply as a whole, everything is replaced.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, assert_never

from msgspec.structs import replace

from antiphon.domain.content import NOTHING, JsonObject, Message, Other, Part, Refusal, Role, Text, Thinking, ToolCall, with_extra
from antiphon.domain.events import (
    AudioDelta,
    Batch,
    DeltaGroup,
    Event,
    ExtraDelta,
    Finished,
    FinishReason,
    Metrics,
    RefusalDelta,
    ReplyExtra,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)

_BESIDE_TEXT: Final = frozenset({"content", "tool_calls", "function_call"})
"""Fields that only a provider knows whose place among the text matters."""

_NAMING: Final = frozenset({"id", "type", "name", "role", "index", "format", "channel"})
"""Fields that name a thing: every delta may repeat them."""


class ReplyToolCall:
    """A tool call that grows."""

    __slots__ = ("arguments", "extra", "id", "name", "signature")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.signature: str | None = None
        self.extra: dict[str, Any] = {}

    def add(self, event: ToolCallDelta) -> None:
        """Takes one more piece."""
        self.id = event.id or self.id
        self.name += event.name or ""
        self.arguments.append(event.arguments)
        self.signature = event.signature or self.signature
        if event.extra:
            _merge(self.extra, event.extra, joins=True)

    def value(self, extra: JsonObject = NOTHING) -> ToolCall:
        """The call as it is now; `extra` is told beside its own, and may repeat its id."""
        if extra or self.extra:
            extra = {name: value for name, value in {**self.extra, **extra}.items() if name != "id"}
        return ToolCall(self.id, self.name, "".join(self.arguments), self.signature, extra)


class ReplyAudio:
    """A recording that grows; `data` are pieces of base64, each of them whole."""

    __slots__ = ("data", "expires", "id", "transcript")

    def __init__(self) -> None:
        self.id = ""
        self.data: list[str] = []
        self.transcript: list[str] = []
        self.expires: int | None = None


class ReplyChoice:
    """One choice that grows. Pieces of text are joined by whoever reads them."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.text: list[str] = []
        self.thinking: list[str] = []
        self.thinking_field = ""
        self.signature: str | None = None
        self.redacted: str | None = None
        self.refusal: list[str] = []
        self.tool_calls: dict[int, ReplyToolCall] = {}
        self.audio: ReplyAudio | None = None
        self.logprobs: list[JsonObject] = []
        self.extra: dict[str, Any] = {}
        """Fields of the message. Those of tool calls are in `calls`."""
        self.choice_extra: dict[str, Any] = {}
        """Fields of the choice."""
        self.call_extra: list[dict[str, Any]] = []
        """Fields of tool calls, and calls of kinds that are not known here, each with its `index`."""
        self.beside: list[tuple[int, RefusalDelta | AudioDelta | ToolCallDelta | ExtraDelta]] = []
        """What else than text was said, as it came, each behind how many pieces of text: the order is known by it."""
        self.reason = FinishReason.OTHER
        self.provider_reason = ""

    def add_extra(self, event: ExtraDelta) -> None:
        """Takes fields that only the provider knows."""
        fields = event.fields
        if "tool_calls" in fields:
            self.call_extra = _joined(self.call_extra, fields["tool_calls"], joins=True)
            fields = {name: value for name, value in fields.items() if name != "tool_calls"}
        _merge(self.extra, fields, joins=True)
        _merge(self.choice_extra, event.choice_fields, joins=False)

    @property
    def said(self) -> bool:
        """Whether the model has said anything yet: what is told of a choice is not."""
        spoken = self.text or self.thinking or self.refusal or self.tool_calls or self.call_extra or self.audio
        return bool(spoken) or any(value is not None for value in self.extra.values())

    def calls(self) -> list[ToolCall | JsonObject]:
        """The tool calls, in order of index: those of functions, and others as their JSON objects."""
        extra = {fields.get("index", place): fields for place, fields in enumerate(self.call_extra)}
        made: list[ToolCall | JsonObject] = []
        for index in sorted(self.tool_calls.keys() | extra):
            fields = {name: value for name, value in extra.get(index, {}).items() if name != "index"}
            call = self.tool_calls.get(index)
            made.append(fields if call is None else call.value(fields))
        return made

    def content(self) -> list[str | JsonObject]:
        """The text, and parts of kinds that are not known here, in the order in which they came. Empty if nothing did."""
        if "content" not in self.extra:
            return ["".join(self.text)] if self.text else []
        found: list[str | JsonObject] = []
        start = 0
        for end, event in self.beside:
            if isinstance(event, ExtraDelta) and "content" in event.fields:
                if text := "".join(self.text[start:end]):
                    found.append(text)
                start = end
                found = _joined(found, event.fields["content"], joins=True)
        if text := "".join(self.text[start:]):
            found.append(text)
        return found

    def message(self) -> Message:
        """What was said so far, as a message of the conversation. Sound is not kept: its transcript is, as text.

        Where a tool call is of no function, all of them are `extra`, in the form of the OpenAI API: so does a caller's own message
        that comes in that form have them.
        """
        parts: list[Part] = []
        if self.thinking or self.signature or self.redacted:
            parts.append(Thinking("".join(self.thinking), self.signature, self.redacted))
        content = self.content()
        calls = self.calls()
        extra = {name: value for name, value in self.extra.items() if value is not None and name != "content"}
        if content in ([], [""]) and self.audio is not None:
            content = ["".join(self.audio.transcript)]
        if content != [""] or (self.text and (calls or extra)):
            parts.extend(Text(part) if isinstance(part, str) else Other(part) for part in content)
        if self.audio is not None:
            extra.pop("audio", None)
        if self.refusal:
            parts.append(Refusal("".join(self.refusal)))
        functions = [call for call in calls if isinstance(call, ToolCall)]
        if len(functions) == len(calls):
            parts.extend(functions)
        else:
            extra["tool_calls"] = list(map(call_json, calls))
        return Message(Role.ASSISTANT, tuple(parts), extra=extra)


class Reply:
    """A reply that grows with each event."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.usage: Usage | None = None
        self.metrics: Metrics | None = None
        self._choices: dict[int, ReplyChoice] = {}

    @property
    def choices(self) -> list[ReplyChoice]:
        """The choices, in order of index."""
        return [self._choices[index] for index in sorted(self._choices)]

    @property
    def said(self) -> bool:
        """Whether the model has said anything yet."""
        return any(choice.said for choice in self._choices.values())

    def add(self, event: Event) -> None:
        """Takes one more event."""
        match event:
            case TextDelta():
                choice = self._choice(event.choice)
                choice.text.append(event.text)
                choice.logprobs.extend(event.logprobs)
            case ThinkingDelta():
                choice = self._choice(event.choice)
                choice.thinking.append(event.text)
                choice.thinking_field = event.field or choice.thinking_field
                choice.signature = event.signature or choice.signature
                choice.redacted = event.redacted or choice.redacted
            case ToolCallDelta():
                choice = self._choice(event.choice)
                choice.beside.append((len(choice.text), event))
                choice.tool_calls.setdefault(event.index, ReplyToolCall()).add(event)
            case RefusalDelta():
                choice = self._choice(event.choice)
                choice.beside.append((len(choice.text), event))
                choice.refusal.append(event.text)
            case AudioDelta():
                choice = self._choice(event.choice)
                choice.beside.append((len(choice.text), event))
                audio = choice.audio = choice.audio or ReplyAudio()
                audio.id = event.id or audio.id
                audio.data.append(event.data)
                audio.transcript.append(event.transcript)
                audio.expires = event.expires or audio.expires
            case ExtraDelta():
                choice = self._choice(event.choice)
                if not _BESIDE_TEXT.isdisjoint(event.fields):
                    choice.beside.append((len(choice.text), event))
                choice.add_extra(event)
            case DeltaGroup():
                pass
            case ReplyExtra():
                if self.started is not None and not event.repeats:
                    self.started = replace(self.started, extra={**self.started.extra, **event.fields})
            case Finished():
                choice = self._choice(event.choice)
                choice.reason = event.reason
                choice.provider_reason = event.provider_reason
            case Started():
                self.started = event
            case Usage():
                self.usage = event
            case Metrics():
                self.metrics = event
            case _:
                assert_never(event)

    def _choice(self, index: int) -> ReplyChoice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = ReplyChoice(index)
        return choice


async def collect(batches: AsyncIterator[Batch]) -> Reply:
    """Reads a stream to its end. Raises what the stream raises."""
    reply = Reply()
    async for batch in batches:
        for event in batch:
            reply.add(event)
    return reply


def call_json(call: ToolCall | JsonObject) -> JsonObject:
    """A tool call in the form of the OpenAI API."""
    if not isinstance(call, ToolCall):
        return call
    function = {"name": call.name, "arguments": call.arguments}
    return with_extra({"id": call.id, "type": call.extra.get("type", "function"), "function": function}, call.extra)


def _merge(known: dict[str, Any], fields: JsonObject, *, joins: bool) -> None:
    for name, value in fields.items():
        known[name] = _merged(name, known[name], value, joins=joins) if name in known else value


def _merged(name: str, old: Any, new: Any, *, joins: bool) -> Any:
    """What a field is after a delta. `joins`: texts are joined."""
    match old, new:
        case str(), str() if joins and name not in _NAMING:
            return old + new
        case str(), str() | None if name in _NAMING:
            return new or old
        case Mapping(), Mapping():
            whole = dict(old)
            _merge(whole, new, joins=joins)
            return whole
        case list(), list():
            return _joined(old, new, joins=joins)
        case ((str() | Mapping() | list()), None):
            return old
        case _:
            return new


def _joined(old: list[Any], new: list[Any], *, joins: bool) -> list[Any]:
    whole = list(old)
    for item in new:
        place = _place(whole, item)
        if place is None:
            whole.append(item)
        else:
            whole[place] = _merged("", whole[place], item, joins=joins)
    return whole


def _place(items: list[Any], item: Any) -> int | None:
    """Where the object is that this is more of; None: it is another one."""
    index = item.get("index") if isinstance(item, Mapping) else None
    if index is None:
        return None
    for place in range(len(items) - 1, -1, -1):
        known = items[place]
        if isinstance(known, Mapping) and known.get("index") == index:
            kinds = known.get("type"), item.get("type")
            if None in kinds or kinds[0] == kinds[1]:
                return place
    return None
