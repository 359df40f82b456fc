"""Turns an answer of the OpenAI chat-completions API into events: server-sent chunks, or one JSON object. No I/O.

https://platform.openai.com/docs/api-reference/chat/streaming, and the variants of compatible hosts. `ending` decides when a reply
has ended and whether it is complete; `choice` reads the deltas. The rules here:

- A `finish_reason` may come in any chunk, with more content after it. So `Finished` is held back until the end of the reply.
- The last usage counts, wherever it is, even behind `[DONE]`.
- Events that only keep the connection alive are ignored, even if they are sent as data.
- Unknown fields are passed on, so that nothing is lost: as `ExtraFields` of the message, the choice or the reply, and those of the
  first chunk as `Started.fields`. A null is passed on as well, if it is the first value of its field.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, Final
from uuid import uuid4

from msgspec.structs import replace

from antiphon.domain.content import JsonObject
from antiphon.domain.errors import ProviderUnavailable
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    DeltaGroup,
    Event,
    ExtraFields,
    Finished,
    FinishReason,
    Place,
    Started,
    TextDelta,
    Usage,
)
from antiphon.domain.request import ChatRequest, NativeTool, Tool
from antiphon.net.sse import EventTooLarge, SseEvent
from antiphon.providers.codec.blocks import BlockNumbers
from antiphon.providers.codec.names import NameRule, ToolNames, tool_names
from antiphon.providers.codec.reader import StreamReader
from antiphon.providers.codec.values import as_object, changed_fields, index_of, seconds, service_tier
from antiphon.providers.failure import error_of_payload
from antiphon.providers.openai.blocks import PROTOCOL
from antiphon.providers.openai.choice import CHOICE, ChoiceReader, ErrorInside
from antiphon.providers.openai.ending import OpenAIEnding, meaning_of
from antiphon.providers.openai.frame import MAX_MISSES, TextFrame, frame_of
from antiphon.providers.openai.inband import HEARTBEATS, error_in, is_heartbeat
from antiphon.providers.openai.json import ChunkDecoder
from antiphon.providers.openai.usage import read_usage

_KNOWN_FIELDS: Final = frozenset({"id", "object", "created", "model", "choices", "usage", "error", "obfuscation"})
"""Fields of a chunk that have a place in the events. `obfuscation` is padding against eavesdroppers, which each hop adds anew."""

_FIRST: Final = 3
"""The number of events in which a chunk with a text usually is: one with the role may come before it."""

_SEVERAL: Final = 1000
"""The size of a read in bytes from which it is tried to read all its texts together."""

_PLAIN_TEXT: Final = frozenset({"role", "content"})

_NO_OUTPUT: Final = (Started, BlockFinished, DeltaGroup, Usage)


class OpenAIReader(StreamReader):
    """Reads the answer to one request."""

    protocol = PROTOCOL

    def __init__(self, request: ChatRequest, provider: str, names: NameRule | None = None) -> None:
        """`names`: which names of tools the host accepts; None if all."""
        super().__init__(request, provider)
        self.ending = OpenAIEnding(request.sampling.choices)
        self._json = ChunkDecoder()
        self._message_field = "delta"  # the field of a choice that has its message
        self._started = False
        self._reply_fields: dict[str, Any] = {}
        self._repeated: list[str] = []  # fields of the reply that the last chunk repeated
        self._choices: dict[int, ChoiceReader] = {}
        self._numbers = BlockNumbers()
        self._tools = frozenset(map(_name_of, request.tools))
        self._names = None
        if names is not None and request.tools:
            self._tools = frozenset(names.sent(tool.name) if isinstance(tool, Tool) else _name_of(tool) for tool in request.tools)
            self._names = ToolNames(names, tool_names(request))
        self._usage: JsonObject | None = None
        self._told: JsonObject | None = None  # the usage that was passed on before the end
        self._at_finish = 0  # length of the batch when the last choice finished
        self._frame: TextFrame | None = None  # of the last chunk, if it had a text and nothing new beside it
        self._chunk_start = 0  # length of the batch before the chunk that is being read
        self._misses = 0  # frames that fitted no later chunk, one after the other

    @property
    def has_usage(self) -> bool:
        return self._usage is not None

    def feed_after_done(self, data: bytes) -> None:
        """Read the usage from data that follows `[DONE]`. Ignores everything else, and raises nothing."""
        try:
            events = self._sse.feed(data)
        except EventTooLarge:
            return
        unclosed = self._sse.end()
        self._read_late_usage(events if unclosed is None else [*events, unclosed])

    def break_off(self) -> Batch:
        """Return everything held back, as the reply breaks off: tool calls whose names may have been incomplete, and the usage."""
        events: Batch = []
        for index in sorted(self._choices):
            self._choices[index].break_off(events)
        self._tell_usage(events)
        return events

    def _feed(self, data: bytes) -> None:
        if not self._started:  # the first chunks show what others look like
            first, data = _cut(data, _FIRST)
            self._read_events(first)
        if len(data) > _SEVERAL and self._frame is not None and (whole := self._sse.take_back(data)):
            data = self._read_texts(self._frame, whole)
        if data:
            self._read_events(data)
        if self._usage is not self._told and not self.ending.done and not self.ending.is_finished:
            self._tell_usage(self._batch)

    def _read_events(self, data: bytes) -> None:
        ending = self.ending
        if ending.done:
            self.feed_after_done(data)
            return
        events = iter(self._sse.feed(data))
        for name, payload in events:
            frame = self._frame
            if frame is not None and not name and (text := frame.text_of(payload)):  # nearly every chunk of a paced stream
                frame.has_fitted = True
                self._batch.append(TextDelta(frame.block, text))
                streamed = frame.choice.text
                streamed.length += len(text)
                streamed.last = text
                continue
            if not name and payload[:1] == b"{":
                self._read_chunk(self._json.read(payload), payload)
                continue
            self._read_event(name, payload)
            if ending.done:
                self._read_late_usage(events)

    def _read_texts(self, frame: TextFrame, data: bytes) -> bytes:
        """Read the chunks at the start of `data` that differ from the last one in their text alone; return the rest."""
        texts, rest = frame.texts_of(data)
        if texts:
            frame.has_fitted = True
            block = frame.block
            self._batch += [TextDelta(block, text) for text in texts]
            streamed = frame.choice.text
            streamed.length += sum(map(len, texts))
            streamed.last = texts[-1]
        return rest

    def _read_rest(self) -> None:
        event = None if self.ending.done else self._sse.end()
        if event is not None:
            self._read_event(*event)

    def _read_whole(self, body: bytes) -> None:
        """Read an answer that is one JSON object."""
        self.ending.is_object = True
        self._message_field = "message"
        self._read_json(body)
        self.ending.done = True

    def _used(self) -> Usage | None:
        if self._usage is None:
            return None
        used = read_usage(self._usage)
        tier = service_tier(self._reply_fields.get("service_tier"))
        return replace(used, service_tier=tier) if tier else used

    def _is_complete(self, *, silent: bool) -> bool:
        return self.ending.is_complete(silent=silent)

    def _finish(self) -> None:
        """Close everything that is still open, and append the usage and the ends.

        Raises if a call or recording is incomplete although the reply is complete.
        """
        rest = self._json.end()
        if rest is not None:
            self._read_chunk(rest, b"")
        for index in sorted(self._choices):
            self._choices[index].end(self._batch)
        used = self._used()
        if used is not None:
            self._batch.append(used)
        for choice, reason in sorted(self.ending.reasons.items(), key=itemgetter(0)):
            self._batch.append(Finished(choice, meaning_of(reason or "") or FinishReason.OTHER, reason or ""))

    @staticmethod
    def _is_output(event: Event) -> bool:
        """Return whether an event is output of the model. Fields of the reply or of a choice are not."""
        if isinstance(event, ExtraFields):
            return event.place is Place.MESSAGE and any(value is not None for value in event.fields.values())
        return not isinstance(event, _NO_OUTPUT)

    def _read_event(self, name: bytes, payload: bytes) -> None:
        """Read one server-sent event: a chunk, an error, `[DONE]`, or a heartbeat, which is ignored."""
        if payload[:1] != b"{":
            payload = payload.strip()
            if payload[:6] == b"[DONE]":
                self.ending.done = True
                return
            if payload in (b"", b"null") or payload[:1] == b":" or payload.strip(b'[]" ').lower() in HEARTBEATS:
                return
            if payload[:1] == b"[" and not name:
                self._read_json(payload)
                return
        if name:
            if name == b"error":
                self.error_body = payload
                raise error_of_payload(self._provider, self._json.read(payload))
            if name.lower() in HEARTBEATS:
                return
        self._read_chunk(self._json.read(payload), payload)

    def _read_late_usage(self, events: Iterable[SseEvent]) -> None:
        """Keep the usage in events that follow `[DONE]`. Everything else is ignored."""
        for _, payload in events:
            if b'"usage"' in payload:
                try:
                    chunk = self._json.read(payload)
                except (ValueError, RecursionError):
                    continue
                self._keep_usage(as_object(chunk))

    def _read_json(self, body: bytes) -> None:
        """Read an answer that is one JSON object, or an array with one. Choices without an index are numbered."""
        chunk = self._json.read(body)
        if isinstance(chunk, list) and chunk:  # Google's hosts put an error in an array
            chunk = chunk[0]
        choices = chunk.get("choices") or ()
        if len({choice.get("index") or 0 for choice in choices}) < len(choices):  # some hosts do not number them
            for index, choice in enumerate(choices):
                choice["index"] = index
        self._read_chunk(chunk, body)

    def _read_chunk(self, chunk: dict[str, Any], payload: bytes) -> None:
        """Read one chunk, or one whole reply. `payload` is its JSON text, for the log."""
        self._chunk_start = len(self._batch)
        if self._frame is not None:
            self._drop_frame(self._frame)
        choices = chunk.get("choices")
        if not choices and is_heartbeat(chunk):
            return
        if chunk.get("usage") or "x_groq" in chunk:
            self._keep_usage(chunk)
        error = chunk.get("error") or (None if choices else error_in(chunk))
        if error:
            self.error_body = payload
            raise error_of_payload(self._provider, error)
        if not self._started:
            self._start(chunk, bool(choices))
        elif self._repeated or not chunk.keys() <= _KNOWN_FIELDS:
            self._read_later_fields(chunk)
        for choice in choices or ():
            self._read_delta(choice, chunk, payload)

    def _read_delta(self, choice: JsonObject, chunk: JsonObject, payload: bytes) -> None:
        """Read what a chunk has of one choice."""
        index = choice.get("index") or 0
        try:
            reader = self._choices[index]
        except KeyError:
            reader = self._begin(index)
        delta = choice.get(self._message_field)
        reason = choice.get("finish_reason")
        if (
            delta
            and choice.get("logprobs") is None
            and (len(delta) == 1 or delta.keys() <= _PLAIN_TEXT)
            and type(content := delta.get("content")) is str
            and (choice.keys() <= CHOICE or not reader.changed_fields(choice))
        ):  # the fast path, for nearly every chunk that fits no frame
            if content:
                block = reader.text_block
                if block is None:
                    block = reader.begin_text(self._batch)
                self._batch.append(TextDelta(block, content))
                streamed = reader.text
                streamed.length += len(content)
                streamed.last = content
                if not reason and self._misses < MAX_MISSES:
                    self._keep_frame(reader, block, chunk, payload)
            else:
                reader.is_empty = True
        else:
            self._read_choice(reader, choice, chunk)
        if reason is not None and reason != "":
            self._finish_choice(index, reason, choice, payload)

    def _keep_frame(self, choice: ChoiceReader, block: int, chunk: JsonObject, payload: bytes) -> None:
        """Keep the frame of a chunk whose only event is a text, if a chunk like it has no other effect."""
        is_all = len(self._batch) == self._chunk_start + 1 and len(chunk["choices"]) == 1 and not chunk.get("usage")
        if is_all and self._json.is_whole and not self.ending.is_object and not self.ending.is_finished:
            self._frame = frame_of(payload, choice, block)

    def _drop_frame(self, frame: TextFrame) -> None:
        """Forget the frame, as another chunk follows."""
        self._misses = 0 if frame.has_fitted else self._misses + 1
        self._frame = None

    def _read_choice(self, reader: ChoiceReader, choice: JsonObject, chunk: JsonObject) -> None:
        """Read a choice that is more than a delta of text."""
        try:
            reader.read(choice, chunk, self._batch)
        except ErrorInside as inside:
            self.error_body = json.dumps({"error": inside.error}).encode()
            raise error_of_payload(self._provider, inside.error) from None

    def _keep_usage(self, chunk: JsonObject) -> None:
        usage = chunk.get("usage") or as_object(chunk.get("x_groq")).get("usage")
        if usage:
            self._usage = as_object(usage)

    def _tell_usage(self, events: Batch) -> None:
        """Append the usage so far, unless it was told: some hosts send it with every chunk. Not all output is counted in it yet."""
        if self._usage is not self._told and self._usage is not None:
            self._told = self._usage
            events.append(replace(read_usage(self._usage), estimated=True))

    def _begin(self, index: object) -> ChoiceReader:
        """Return a new reader for the choice `index`. Raises `TypeError` or `ValueError` for an invalid index."""
        index = index_of(index)
        reader = self._choices[index] = ChoiceReader(
            index, self._tools, self._numbers, self._names, is_object=self.ending.is_object
        )
        self.ending.begin(index)
        return reader

    def _start(self, chunk: JsonObject, has_choices: bool) -> None:
        """Append `Started`, unless the chunk has neither an id nor a choice.

        Some hosts send such chunks first; their fields are kept until then.
        """
        if not chunk.keys() <= _KNOWN_FIELDS:
            changed, _ = changed_fields(_without_usage(chunk), self._reply_fields, _KNOWN_FIELDS)
            self._reply_fields |= changed
        given = chunk.get("id")
        if not given and not has_choices:
            return
        self._started = True
        self._batch.append(
            Started(
                id=str(given or f"chatcmpl-{uuid4().hex}"),
                model=str(chunk.get("model") or self._request.model),
                origin=self._origin(),
                created=seconds(chunk.get("created")) or int(time.time()),
                fields=self._reply_fields,
            )
        )

    def _read_later_fields(self, chunk: JsonObject) -> None:
        """Append fields of the reply that arrive after its start, or are repeated.

        Citations arrive later, for example; a fingerprint is repeated.
        """
        changed, repeated = changed_fields(_without_usage(chunk), self._reply_fields, _KNOWN_FIELDS)
        if changed:
            self._reply_fields = {**self._reply_fields, **changed}
            self._batch.append(ExtraFields(None, changed, Place.REPLY))
        if repeated != self._repeated:
            self._repeated = repeated
            again = {name: self._reply_fields[name] for name in repeated}
            self._batch.append(ExtraFields(None, again, Place.REPLY, repeats=True))

    def _finish_choice(self, index: int, reason: object, choice: JsonObject, payload: bytes) -> None:
        """Record the finish reason of a choice. Raises `ProviderUnavailable` if it means a failure."""
        if isinstance(reason, dict):  # SGLang
            reason = reason.get("type")
        if not isinstance(reason, str):
            raise TypeError("finish_reason")
        self._report_output()
        usage = choice.get("usage")  # Moonshot
        if usage:
            self._usage = as_object(usage)
        if not self.ending.finish(index, reason):
            self.error_body = payload
            raise ProviderUnavailable(f"The provider {self._provider} failed during the reply.", provider=self._provider)

    def _note_output(self) -> None:
        if self._batch and (not self.has_output or self.ending.is_finished):
            self._report_output()
        self._at_finish = 0

    def _report_output(self) -> None:
        """Report output since the last finish reason to `ending`."""
        if any(map(self._is_output, self._batch[self._at_finish :])):
            self.has_output = True
            self.ending.note_output()
        self._at_finish = len(self._batch)


def _cut(data: bytes, events: int) -> tuple[bytes, bytes]:
    """Return the bytes of so many events, and the rest."""
    end = 0
    for _ in range(events):
        end = data.find(b"\n\n", end) + 2
        if end < 2:
            return data, b""
    return data[:end], data[end:]


def _name_of(tool: Tool | NativeTool) -> str:
    """Return the name by which a model calls a tool; empty if it has none."""
    if isinstance(tool, Tool):
        return tool.name
    custom = tool.fields.get("custom")
    name = custom.get("name") if isinstance(custom, Mapping) else tool.fields.get("name")
    return name if isinstance(name, str) else ""


def _without_usage(chunk: JsonObject) -> JsonObject:
    """Return a chunk without the usage in Groq's `x_groq`."""
    groq = chunk.get("x_groq")
    if not isinstance(groq, dict):
        return chunk
    return {**chunk, "x_groq": {name: value for name, value in groq.items() if name != "usage"} or None}
