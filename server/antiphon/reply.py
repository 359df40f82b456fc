"""A whole reply, put together from the events of a stream. No I/O.

Reading a reply and reading a stream are the same thing here: a dialect that answers at once collects the events first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, assert_never

from antiphon.messages import (
    AudioDelta,
    Batch,
    Event,
    ExtraDelta,
    Finished,
    FinishReason,
    JsonObject,
    Message,
    Metrics,
    Part,
    Refusal,
    RefusalDelta,
    Role,
    Started,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)


class ReplyToolCall:
    """A tool call that grows."""

    __slots__ = ("arguments", "id", "name", "signature")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.signature: str | None = None

    def add(self, event: ToolCallDelta) -> None:
        """Takes one more piece."""
        self.id = event.id or self.id
        self.name = event.name or self.name
        self.arguments.append(event.arguments)
        self.signature = event.signature or self.signature

    def value(self) -> ToolCall:
        """The call as it is now."""
        return ToolCall(self.id, self.name, "".join(self.arguments), self.signature)


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
        self.signature: str | None = None
        self.redacted: str | None = None
        self.refusal: list[str] = []
        self.tool_calls: dict[int, ReplyToolCall] = {}
        self.audio: ReplyAudio | None = None
        self.logprobs: list[JsonObject] = []
        self.extra: dict[str, Any] = {}
        self.reason = FinishReason.OTHER
        self.provider_reason = ""

    def message(self) -> Message:
        """What was said so far, as a message of the conversation. Sound is not kept: its transcript is, as text."""
        parts: list[Part] = []
        if self.thinking or self.signature or self.redacted:
            parts.append(Thinking("".join(self.thinking), self.signature, self.redacted))
        spoken = "".join(self.text) or ("".join(self.audio.transcript) if self.audio else "")
        if spoken:
            parts.append(Text(spoken))
        if self.refusal:
            parts.append(Refusal("".join(self.refusal)))
        parts.extend(self.tool_calls[index].value() for index in sorted(self.tool_calls))
        return Message(Role.ASSISTANT, tuple(parts), extra=self.extra)


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
                choice.signature = event.signature or choice.signature
                choice.redacted = event.redacted or choice.redacted
            case ToolCallDelta():
                self._choice(event.choice).tool_calls.setdefault(event.index, ReplyToolCall()).add(event)
            case RefusalDelta():
                self._choice(event.choice).refusal.append(event.text)
            case AudioDelta():
                choice = self._choice(event.choice)
                audio = choice.audio = choice.audio or ReplyAudio()
                audio.id = event.id or audio.id
                audio.data.append(event.data)
                audio.transcript.append(event.transcript)
                audio.expires = event.expires or audio.expires
            case ExtraDelta():
                _merge(self._choice(event.choice).extra, event.fields)
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


def _merge(known: dict[str, Any], fields: JsonObject) -> None:
    """Lists grow, text grows, all else is replaced: so do the providers that stream such fields mean them."""
    for name, value in fields.items():
        old = known.get(name)
        match old, value:
            case (list(), list()) | (str(), str()):
                known[name] = old + value
            case _:
                known[name] = value
