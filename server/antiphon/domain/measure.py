"""Times and counts of one call. No I/O.

Where a provider does not tell the tokens they are estimated, by one rule for prompts and replies: all text is a quarter of a token
a character, whatever it stands in - what is said, thought or refused, a tool's call, result or description, a schema, a field that
only the provider knows (as JSON) - and each message or tool is a few tokens more. Pictures, sound and documents have a flat figure
each, and the characters of their base64 are never text.
"""

from __future__ import annotations

import string
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, assert_never

import msgspec

from antiphon.domain.content import (
    Audio,
    File,
    Image,
    Media,
    Message,
    Other,
    Part,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.domain.events import (
    AudioDelta,
    Batch,
    Event,
    ExtraDelta,
    Finished,
    Metrics,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    Usage,
)
from antiphon.domain.request import ChatRequest, JsonObjectFormat, JsonSchemaFormat, NativeFormat, NativeTool, ResponseFormat, Tool

_DELTAS: Final = frozenset({ThinkingDelta, ToolCallDelta, RefusalDelta, AudioDelta})

_CHARACTERS_A_TOKEN: Final = 4
"""The rule of thumb that providers give for English text."""

_TOKENS_A_MESSAGE: Final = 4
"""What roles and separators take, of a tool as well."""

_LOW_IMAGE: Final = 85
_IMAGE: Final = 765
"""What OpenAI states for a picture of low detail, and for one of 1024 x 1024 pixels in high detail (85, and 170 for each of four
tiles); Gemini has 258 for a tile, Claude up to 1,600 for a picture."""

_AUDIO: Final = 32 * 30
_VIDEO: Final = 263 * 30
"""Half a minute, at the tokens a second that Gemini states."""

_PAGE: Final = 2000
_PAGE_BASE64: Final = 65_536
"""A page of a PDF, of which Claude's documentation says 1,500 to 3,000 tokens; and the base64 that is taken for one, 48 KiB."""

_FLAT: Final[Mapping[str, int]] = {
    "image_url": _IMAGE,
    "input_audio": _AUDIO,
    "audio_url": _AUDIO,
    "video_url": _VIDEO,
}
"""By `type`: parts that a provider has in another form than the domain."""

_BASE64: Final = f"{string.ascii_letters}{string.digits}+/=".encode()
_LONG_BASE64: Final = 1000
"""No text has so many letters without a break."""
_STRETCH: Final = _LONG_BASE64 // 2


class Stopwatch:
    """Runs from the moment it is made."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._start = time.monotonic()
        self._first: float | None = None
        self._last = self._end = self._start
        self._chunks = 0
        self._characters = 0
        self._recordings: set[int] = set()

    @property
    def begun(self) -> bool:
        """Whether the provider has taken the request."""
        return self._end > self._start

    @property
    def has_delta(self) -> bool:
        """Whether anything of the reply itself has come."""
        return bool(self._chunks or self._characters)

    def see(self, batch: Batch) -> None:
        """Takes note of a batch, at the moment it comes. Runs for every token of every stream."""
        self._end = time.monotonic()
        chunks = 0
        for event in batch:
            if type(event) is TextDelta:
                self._characters += len(event.text)
                chunks += 1 if event.text or event.logprobs else 0  # "" alone is nothing said
            elif type(event) in _DELTAS:
                self._characters += self._said(event)
                chunks += 1
            elif type(event) is ExtraDelta:
                self._characters += _leaves(event.fields)
        if chunks:
            self._chunks += chunks
            self._last = self._end
            if self._first is None:
                self._first = self._last

    def usage(self, batch: Batch) -> Usage:
        """The tokens used: those that the last batch tells, else an estimate, of what has come so far, that says so."""
        for event in batch:
            if type(event) is Usage:
                return event
        prompt = prompt_tokens(self._request)
        completion = _tokens(self._characters) + _AUDIO * len(self._recordings)
        return Usage(prompt, completion, prompt + completion, estimated=True)

    def _said(self, event: Event) -> int:
        """Characters of what is not plain text. A signature is none of the model's, and sound counts by the recording."""
        match event:
            case ToolCallDelta():
                return len(event.arguments) + len(event.name or "") + (_leaves(event.extra) if event.extra else 0)
            case ThinkingDelta():
                return len(event.text) + len(event.redacted or "")
            case RefusalDelta():
                return len(event.text)
            case AudioDelta():
                if event.data:
                    self._recordings.add(event.choice)
                return len(event.transcript)
            case _:
                return 0

    def metrics(self, cost: float | None) -> Metrics:
        """What the call took, now that it is over."""
        gaps = self._chunks - 1
        first = self._first
        return Metrics(
            latency=self._end - self._start,
            time_to_first_token=None if first is None else first - self._start,
            inter_token_latency=(self._last - first) / gaps if first is not None and gaps > 0 else None,
            chunks=self._chunks,
            cost_usd=cost,
        )


def closing(batch: Batch, usage: Usage, metrics: Metrics) -> Batch:
    """The last batch with `usage` and `metrics` before the first `Finished`."""
    rest: Batch = [event for event in batch if type(event) is not Usage]
    at = next(index for index, event in enumerate(rest) if type(event) is Finished)
    return [*rest[:at], usage, metrics, *rest[at:]]


def prompt_tokens(request: ChatRequest) -> int:
    """About how many tokens a request is: its messages, tools, form of the reply, and what of it only the provider knows."""
    return (
        sum(map(_message, request.messages))
        + sum(map(_tool, request.tools))
        + _format(request.response_format)
        + _json(request.extra)  # such as `functions`, the tools of 2023
    )


def _message(message: Message) -> int:
    return _TOKENS_A_MESSAGE + _parts(message.parts) + _tokens(len(message.name or "")) + _json(message.extra)


def _parts(parts: Iterable[Part]) -> int:
    """Tokens of parts: the characters of all of them together, and what has a figure of its own."""
    characters = tokens = 0
    for part in parts:
        match part:
            case Text():
                characters += len(part.text)
                tokens += _json(part.extra)
            case ToolCall():
                characters += len(part.name) + len(part.arguments)
                tokens += _json(part.extra)
            case ToolResult():
                tokens += _parts(part.parts)
            case Thinking():
                characters += len(part.text) + len(part.redacted or "")
            case Refusal():
                characters += len(part.text)
            case Image():
                tokens += (_LOW_IMAGE if part.detail == "low" else _IMAGE) + _json(part.extra)
            case Audio():
                tokens += _AUDIO + _json(part.extra)
            case Video():
                tokens += _VIDEO + _json(part.extra)
            case File():
                characters += len(part.filename or "")
                tokens += _document(part.media) + _json(part.extra)
            case Other():
                kind = part.fields.get("type")
                flat = _FLAT.get(kind) if isinstance(kind, str) else None
                tokens += _json(part.fields) if flat is None else flat + _json(part.fields, 0)
            case _:
                assert_never(part)
    return tokens + _tokens(characters)


def _document(media: Media) -> int:
    """A text is its characters, as far as the media type says that it is one; all else is pages, at least one."""
    head, comma, data = (media.url or "").partition(",")
    if not comma or not head.startswith("data:"):
        return _PAGE
    if head.startswith("data:text/"):
        return _tokens(len(data) * 3 // 4 if head.endswith(";base64") else len(data))
    return _PAGE * max(1, -(-len(data) // _PAGE_BASE64))


def _tool(tool: Tool | NativeTool) -> int:
    if isinstance(tool, NativeTool):
        return _TOKENS_A_MESSAGE + _json(tool.fields)
    named = _tokens(len(tool.name) + len(tool.description or ""))
    return _TOKENS_A_MESSAGE + named + _json(tool.parameters) + _json(tool.extra)


def _format(form: ResponseFormat | None) -> int:
    match form:
        case None | JsonObjectFormat():
            return 0
        case JsonSchemaFormat():
            return _tokens(len(form.name) + len(form.description or "")) + _json(form.schema) + _json(form.extra)
        case NativeFormat():
            return _json(form.fields)
        case _:
            assert_never(form)


def _json(fields: Mapping[str, Any] | None, data: int = _PAGE) -> int:
    """Tokens of a JSON object; what is base64 in it is `data` tokens."""
    if not fields:
        return 0
    encoded = msgspec.json.encode(fields)
    found, size = _long_base64(encoded)
    return _tokens(len(encoded.decode()) - size) + data * found


def _long_base64(data: bytes) -> tuple[int, int]:
    """Return how many runs of `_LONG_BASE64` characters or more there are, and how many characters these have in all.

    A regular expression over 32 MiB takes up to two seconds, in which nobody else is served; this takes 30 ms. Each long run has a
    stretch of half its length that begins where it is looked for.
    """
    found = size = at = 0
    while at + _STRETCH <= len(data):
        if data[at : at + _STRETCH].translate(None, _BASE64):
            at += _STRETCH
            continue
        before = data[max(0, at - _STRETCH) : at]
        begin = at - len(before) + len(before.rstrip(_BASE64))
        while not data[at : at + _STRETCH].translate(None, _BASE64) and at < len(data):
            at += _STRETCH
        last = data[at : at + _STRETCH]
        at = min(at, len(data)) + len(last) - len(last.lstrip(_BASE64))
        if at - begin >= _LONG_BASE64:
            found += 1
            size += at - begin
    return found, size


def _leaves(value: Any) -> int:
    """Characters of the texts in a JSON value of a reply: names of fields are not said, and come again with every delta."""
    match value:
        case str():
            if len(value) < _LONG_BASE64:
                return len(value)
            found, size = _long_base64(value.encode("utf-8", "replace"))
            return len(value) - size + found * _PAGE * _CHARACTERS_A_TOKEN
        case Mapping():
            return sum(map(_leaves, value.values()))
        case list() | tuple():
            return sum(map(_leaves, value))
        case _:
            return 0


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS_A_TOKEN)
