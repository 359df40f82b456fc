"""An answer of the OpenAI chat-completions API as events: server-sent chunks, or one JSON object. No I/O.

https://platform.openai.com/docs/api-reference/chat/streaming, and what the hosts that follow it make of it. When a reply has ended,
and whether it is whole, is `ending`'s matter; what a delta holds is `choice`'s. The rules here:

- A `finish_reason` may come in any chunk, and more content after it: what ends a reply is held back until its end.
- The usage that counts is the last one, wherever it stands, behind `[DONE]` too.
- What came before a failure in the same read is still given; the failure is raised after it.
- What only keeps the connection alive is skipped, also where it comes as data.
- A field that is not known here is handed on, so that nothing is lost: as `ExtraFields` of the message, the choice or the reply,
  and of the first chunk as `Started.fields`. So is null, where it is the first that is told of a field.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, Final
from uuid import uuid4

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.domain.content import JsonObject, Origin
from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderUnavailable
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
)
from antiphon.domain.request import ChatRequest, NativeTool, Tool
from antiphon.net.sse import EventTooLarge, SseEvent, SseReader
from antiphon.providers.failure import error_of_payload
from antiphon.providers.openai.blocks import PROTOCOL, BlockNumbers
from antiphon.providers.openai.choice import CHOICE, ChoiceReader
from antiphon.providers.openai.ending import Ending, meaning_of
from antiphon.providers.openai.json import JsonReader
from antiphon.providers.openai.values import MAX_INDEX, ErrorInside, as_object, changed_fields, read_usage, seconds

_KNOWN_FIELDS: Final = frozenset({"id", "object", "created", "model", "choices", "usage", "error", "obfuscation"})
"""Fields of a chunk that have a place in the events; `obfuscation` is padding against eavesdroppers, made anew on every hop."""

_PLAIN_TEXT: Final = frozenset({"role", "content"})

_HEARTBEATS: Final = frozenset({b"ping", b"pong", b"keepalive", b"keep-alive", b"keep_alive", b"heartbeat", b"processing"})
"""What hosts call an event that only keeps the connection alive, or send as its data."""

_NO_OUTPUT: Final = (Started, BlockFinished, DeltaGroup)

_EXPECTED_ERRORS: Final = (
    ProviderError,
    EventTooLarge,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a step may raise; `ValueError` has the errors of JSON and UTF-8 below it."""


class ReplyReader:
    """Reads the answer to one request."""

    def __init__(self, request: ChatRequest, provider: str) -> None:
        self.ending = Ending(request.sampling.choices)
        self.failure: ProviderError | None = None
        """To be raised after the batch that `feed` gave."""
        self.error_body = b""
        """The provider's own words about the failure, for the log."""
        self._request = request
        self._provider = provider
        self._sse = SseReader(MAX_MESSAGE_BYTES)
        self._json = JsonReader()
        self._batch: Batch = []
        self._message_field = "delta"  # of a choice's text
        self._started = False
        self._reply_fields: dict[str, Any] = {}
        self._repeated: list[str] = []  # fields of the head that the last chunk had again
        self._choices: dict[int, ChoiceReader] = {}
        self._numbers = BlockNumbers()
        self._tools = frozenset(map(_name_of, request.tools))
        self._usage: JsonObject | None = None
        self._has_output = False
        self._at_finish = 0  # how much was in the batch when the last choice finished

    @property
    def has_usage(self) -> bool:
        """The provider has sent the tokens used."""
        return self._usage is not None

    def feed(self, data: bytes) -> Batch:
        """The events of the server-sent chunks that these bytes complete; may be empty. Raises the tree under `ProviderError`."""
        try:
            self._feed(data)
        except _EXPECTED_ERRORS as error:
            self.failure = self._failure(error)
        if self.failure is not None and not any(map(_is_output, self._batch)):
            # Nothing was said yet: the failure is the answer.
            raise self.failure
        if not self._has_output or self.ending.is_finished:
            self._note_output()
        batch, self._batch = self._batch, []
        self._at_finish = 0
        return batch

    def feed_after_done(self, data: bytes) -> None:
        """Read the usage in what follows `[DONE]`, if there is any. Ignores all else, and raises nothing."""
        try:
            events = self._sse.feed(data)
        except EventTooLarge:
            return
        unclosed = self._sse.end()
        self._read_late_usage(events if unclosed is None else [*events, unclosed])

    def end(self, *, silent: bool = False) -> Batch:
        """The last batch: what was held back. Raises `ProviderProtocolError` if the reply is not whole.

        `silent`: the host did not end it, but sent nothing for the time of `Ending.wait`.
        """
        if self.failure is not None:
            raise self.failure
        if not self.ending.done:
            self._run(self._read_rest)
        if not self.ending.is_complete(silent=silent):
            raise self._protocol_error("ended before the reply was whole")
        self._run(self._close_all)
        batch, self._batch = self._batch, []
        if self._usage is not None:
            batch.append(read_usage(self._usage))
        batch.extend(
            Finished(choice, meaning_of(reason or "") or FinishReason.OTHER, reason or "")
            for choice, reason in sorted(self.ending.reasons.items(), key=itemgetter(0))
        )
        return batch

    def read_object(self, body: bytes) -> Batch:
        """All events of an answer that is one JSON object. Raises the tree under `ProviderError`."""
        self.ending.is_object = True
        self._message_field = "message"
        self._run(partial(self._read_json, body))
        self.ending.done = True
        return self.end()

    def _run(self, step: Callable[[], None]) -> None:
        """Runs a step, and raises its failure as one of our tree."""
        try:
            step()
        except _EXPECTED_ERRORS as error:
            self.failure = self._failure(error)
            raise self.failure from None

    def _failure(self, error: Exception) -> ProviderError:
        """What a fault of a step means.

        The steps take the shape of the JSON for granted where using it shows that it is another one: it shows here.
        """
        match error:
            case ProviderError():
                return error
            case EventTooLarge():
                return self._protocol_error("sent an event that is too large")
            case json.JSONDecodeError() | UnicodeDecodeError():
                return self._protocol_error("sent what is not JSON")
            case _:
                return self._protocol_error("sent JSON of an unknown shape")

    def _feed(self, data: bytes) -> None:
        ending = self.ending
        events = iter(self._sse.feed(data))
        for name, payload in events:
            self._read_event(name, payload)
            if ending.done:
                self._read_late_usage(events)

    def _read_rest(self) -> None:
        event = self._sse.end()
        if event is not None:
            self._read_event(*event)

    def _close_all(self) -> None:
        """What was left open is closed. Raises if something that began is not whole although the reply is."""
        rest = self._json.end()
        if rest is not None:
            self._read_chunk(rest, b"")
        for index in sorted(self._choices):
            self._choices[index].end(self._batch)

    def _read_event(self, name: bytes, payload: bytes) -> None:
        if payload[:1] != b"{":
            payload = payload.strip()
            if payload[:6] == b"[DONE]":
                self.ending.done = True
                return
            if payload in (b"", b"null") or payload[:1] == b":" or payload.strip(b'[]" ').lower() in _HEARTBEATS:
                return
            if payload[:1] == b"[" and not name:
                self._read_json(payload)
                return
        if name:
            if name == b"error":
                self.error_body = payload
                raise error_of_payload(self._provider, self._json.read(payload))
            if name.lower() in _HEARTBEATS:
                return
        self._read_chunk(self._json.read(payload), payload)

    def _read_late_usage(self, events: Iterable[SseEvent]) -> None:
        for _, payload in events:
            if b'"usage"' in payload:
                try:
                    chunk = self._json.read(payload)
                except (ValueError, RecursionError):
                    continue
                self._keep_usage(as_object(chunk))

    def _read_json(self, body: bytes) -> None:
        chunk = self._json.read(body)
        if isinstance(chunk, list) and chunk:  # Google's hosts put an error in an array
            chunk = chunk[0]
        choices = chunk.get("choices") or ()
        if len({choice.get("index") or 0 for choice in choices}) < len(choices):  # there are hosts that do not number them
            for index, choice in enumerate(choices):
                choice["index"] = index
        self._read_chunk(chunk, body)

    def _read_chunk(self, chunk: dict[str, Any], payload: bytes) -> None:
        """One chunk, or one whole reply."""
        choices = chunk.get("choices")
        if not choices and _is_heartbeat(chunk):
            return
        if chunk.get("error") or (not choices and chunk.get("object") == "error"):
            self.error_body = payload
            raise error_of_payload(self._provider, chunk.get("error") or chunk)
        if not self._started:
            self._start(chunk, bool(choices))
        elif self._repeated or not chunk.keys() <= _KNOWN_FIELDS:
            self._read_later_fields(chunk)
        if chunk.get("usage") or "x_groq" in chunk:
            self._keep_usage(chunk)
        for choice in choices or ():
            index = choice.get("index") or 0
            try:
                reader = self._choices[index]
            except KeyError:
                reader = self._begin(index)
            delta = choice.get(self._message_field)
            if (
                delta
                and choice.get("logprobs") is None
                and (len(delta) == 1 or delta.keys() <= _PLAIN_TEXT)
                and type(content := delta.get("content")) is str
                and (choice.keys() <= CHOICE or not reader.changed_fields(choice))
            ):  # nearly every chunk comes here
                if content:
                    block = reader.text_block
                    if block is None:
                        block = reader.begin_text(self._batch)
                    self._batch.append(TextDelta(block, content))
                    streamed = reader.text
                    streamed.length += len(content)
                    streamed.last = content
                else:
                    reader.is_empty = True
            else:
                self._read_choice(reader, choice, chunk)
            reason = choice.get("finish_reason")
            if reason is not None and reason != "":
                self._finish(index, reason, choice, payload)

    def _read_choice(self, reader: ChoiceReader, choice: JsonObject, chunk: JsonObject) -> None:
        """A choice that is more than a delta of text."""
        try:
            reader.read(choice, chunk, self._batch)
        except ErrorInside as inside:
            self.error_body = json.dumps({"error": inside.error}).encode()
            raise error_of_payload(self._provider, inside.error) from None

    def _keep_usage(self, chunk: JsonObject) -> None:
        usage = chunk.get("usage") or as_object(chunk.get("x_groq")).get("usage")
        if usage:
            self._usage = as_object(usage)

    def _begin(self, index: object) -> ChoiceReader:
        if type(index) is not int:
            raise TypeError("index")
        if not 0 <= index <= MAX_INDEX:
            raise ValueError("index")
        reader = self._choices[index] = ChoiceReader(index, self._tools, self._numbers, is_object=self.ending.is_object)
        self.ending.begin(index)
        return reader

    def _start(self, chunk: JsonObject, has_choices: bool) -> None:
        """Some hosts send chunks without an id or a choice first: what they tell is kept until there is one."""
        changed, _ = changed_fields(chunk, self._reply_fields, _KNOWN_FIELDS)
        self._reply_fields |= changed
        given = chunk.get("id")
        if not given and not has_choices:
            return
        self._started = True
        self._batch.append(
            Started(
                id=str(given or f"chatcmpl-{uuid4().hex}"),
                model=str(chunk.get("model") or self._request.model),
                origin=Origin(PROTOCOL, self._provider, self._request.model, self._provider),
                created=seconds(chunk.get("created")) or int(time.time()),
                fields=self._reply_fields,
            )
        )

    def _read_later_fields(self, chunk: JsonObject) -> None:
        """Fields of the reply that come after its start, such as citations, or again, such as a fingerprint."""
        changed, repeated = changed_fields(chunk, self._reply_fields, _KNOWN_FIELDS)
        if changed:
            self._reply_fields = {**self._reply_fields, **changed}
            self._batch.append(ExtraFields(None, changed, Place.REPLY))
        if repeated != self._repeated:
            self._repeated = repeated
            again = {name: self._reply_fields[name] for name in repeated}
            self._batch.append(ExtraFields(None, again, Place.REPLY, repeats=True))

    def _finish(self, index: int, reason: object, choice: JsonObject, payload: bytes) -> None:
        if isinstance(reason, dict):  # SGLang's form of it
            reason = reason.get("type")
        if not isinstance(reason, str):
            raise TypeError("finish_reason")
        self._note_output()
        if not self.ending.finish(index, reason):
            self.error_body = payload
            raise ProviderUnavailable(f"The provider {self._provider} failed on the way.", provider=self._provider)
        usage = choice.get("usage")  # Moonshot's place for it
        if usage:
            self._usage = as_object(usage)

    def _note_output(self) -> None:
        """Tell the ending whether output came since the last finish reason."""
        if any(map(_is_output, self._batch[self._at_finish :])):
            self._has_output = True
            self.ending.note_output()
        self._at_finish = len(self._batch)

    def _protocol_error(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(f"The provider {self._provider} {what}.", provider=self._provider)


def _name_of(tool: Tool | NativeTool) -> str:
    """Return the name by which a model calls a tool; empty for one that has none."""
    if isinstance(tool, Tool):
        return tool.name
    custom = tool.fields.get("custom")
    name = custom.get("name") if isinstance(custom, Mapping) else tool.fields.get("name")
    return name if isinstance(name, str) else ""


def _is_heartbeat(chunk: JsonObject) -> bool:
    """Whether a JSON object without choices only keeps the connection alive."""
    kind = chunk.get("type") or chunk.get("event") or chunk.get("object")
    return isinstance(kind, str) and kind.lower().encode() in _HEARTBEATS


def _is_output(event: Event) -> bool:
    """Whether an event is output of the model: fields of the reply or of a choice are not."""
    if isinstance(event, ExtraFields):
        return event.place is Place.MESSAGE and any(value is not None for value in event.fields.values())
    return not isinstance(event, _NO_OUTPUT)
