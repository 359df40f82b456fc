"""Turns an answer of the Gemini API into events: server-sent events, one JSON object, or an array of them. No I/O.

https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse. `blocks` reads the content, `ending` decides when it is
complete. The rules here:

- A blocked prompt is a reply without content, filtered.
- A finish reason that means a failure, and `STOP` without any content, is a failure.
- Usage and finish reasons are sent at the end. If the reply breaks off, the usage so far is still sent.
- Events that arrived before a failure in the same read are still returned; the failure is raised after them.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import uuid4

from msgspec.structs import replace

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.domain.content import NOTHING, JsonObject, Origin, Text, Thinking
from antiphon.domain.errors import ProviderError, ProviderProtocolError, ProviderUnavailable
from antiphon.domain.events import (
    Batch,
    BlockFinished,
    BlockStarted,
    Event,
    ExtraFields,
    Finished,
    FinishReason,
    Place,
    Started,
)
from antiphon.domain.request import ChatRequest
from antiphon.net.sse import EventTooLarge, SseReader
from antiphon.providers.failure import error_of_payload
from antiphon.providers.gemini import usage
from antiphon.providers.gemini.blocks import CONTINUATION, PROTOCOL, ChoiceReader
from antiphon.providers.gemini.ending import FAILURES, REASONS, UNSPECIFIED, Ending, is_failure
from antiphon.providers.gemini.names import made_id, original_names
from antiphon.providers.openai.blocks import BlockNumbers
from antiphon.providers.openai.json import JsonReader
from antiphon.providers.openai.values import MAX_INDEX, as_object, changed_fields, is_shallow, read_logprobs, text

_REPLY_FIELDS: Final = frozenset({"candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "createTime"})
_CHOICE_FIELDS: Final = frozenset({"content", "finishReason", "index", "logprobsResult", "citationMetadata", CONTINUATION})
_CONTENT_FIELDS: Final = frozenset({"role", "parts"})
"""The fields that have a place in the events."""

_FEEDBACK: Final = "promptFeedback"
_LOGPROBS: Final = frozenset({"chosenCandidates", "topCandidates"})

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
"""The exceptions that reading a chunk may raise. `ValueError` includes the errors of JSON, base64 and UTF-8."""


class ReplyReader:
    """Reads the answer to one request."""

    def __init__(self, request: ChatRequest, provider: str) -> None:
        self.ending = Ending(request.sampling.choices)
        self.failure: ProviderError | None = None
        """The error to raise after the batch that `feed` returned."""
        self.error_body = b""
        """The provider's own text about the failure, for the log."""
        self.has_output = False
        """Whether the model has produced anything."""
        self._request = request
        self._provider = provider
        self._names = original_names(request.tools)
        self._sse = SseReader(MAX_MESSAGE_BYTES)
        self._json = JsonReader()
        self._batch: Batch = []
        self._id: str | None = None  # None before the start
        self._has_begun = False  # the caller has the first event
        self._calls = 0
        self._numbers = BlockNumbers()
        self._choices: dict[int, ChoiceReader] = {}
        self._fields: dict[str, Any] = {}  # the unknown fields of the reply
        self._feedback: JsonObject = NOTHING
        self._usage: dict[str, Any] = {}

    @property
    def has_usage(self) -> bool:
        """Return whether the provider has reported the tokens used."""
        return usage.read(self._usage) is not None

    def feed(self, data: bytes) -> Batch:
        """Return the events that these bytes complete; may be empty.

        Raises subclasses of `ProviderError`. A failure after some output in the same read is not raised but kept in `failure`, so
        that the caller first gets that output.
        """
        try:
            for _, payload in self._sse.feed(data):
                self._read_payload(payload)
        except _EXPECTED_ERRORS as error:
            self.failure = self._failure(error)
        if self.failure is not None and not any(map(_is_output, self._batch)):
            # There is no output to return first.
            raise self.failure
        batch, self._batch = self._batch, []
        self._has_begun = self._has_begun or bool(batch)
        self.has_output = self.has_output or any(map(_is_output, batch))
        return batch

    def break_off(self) -> Batch:
        """Return the tokens used so far, which the API counts in each chunk, if the reply has begun."""
        used = usage.read(self._usage)
        return [] if used is None or not self._has_begun else [used]

    def feed_after_done(self, data: bytes) -> None:
        """Ignore data that follows the end of the reply: the API has no marker that it could follow."""

    def end(self, *, silent: bool = False) -> Batch:
        """Return the last batch: usage and ends. Raises `ProviderProtocolError` if the reply is incomplete."""
        if self.failure is not None:
            raise self.failure
        self._run(self._read_rest)
        if not self.ending.is_complete:
            raise self._protocol_error("ended before the reply was whole")
        self._run(self._finish)
        batch, self._batch = self._batch, []
        return batch

    def read_object(self, body: bytes) -> Batch:
        """Return all events of an answer that is one JSON object, or an array. Raises subclasses of `ProviderError`."""
        self.ending.is_object = True
        self._run(partial(self._read_payload, body))
        return self.end()

    def _run(self, step: Callable[[], None]) -> None:
        """Run a step, and raise its failure as a `ProviderError`."""
        try:
            step()
        except _EXPECTED_ERRORS as error:
            self.failure = self._failure(error)
            raise self.failure from None

    def _failure(self, error: Exception) -> ProviderError:
        """Return the `ProviderError` for an exception of a step.

        The steps do not check the shape of the JSON before they use it. JSON of another shape therefore raises one of the built-in
        errors.
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

    def _read_rest(self) -> None:
        event = self._sse.end()
        if event is not None:
            self._read_payload(event[1])

    def _read_payload(self, payload: bytes) -> None:
        """Read a chunk, or an array of them, which is what the API sends without `alt=sse`."""
        if payload.strip() in (b"", b"[DONE]"):
            return
        value = self._json.read(payload)
        for chunk in value if isinstance(value, list) else (value,):
            if "error" in chunk or not chunk.keys() & _REPLY_FIELDS:
                self.error_body = payload
                raise error_of_payload(self._provider, chunk)
            self._read_chunk(chunk, payload)

    def _read_chunk(self, chunk: JsonObject, payload: bytes) -> None:
        """Read one `GenerateContentResponse`."""
        self._read_reply_fields(chunk)
        counts = chunk.get("usageMetadata")
        if counts:
            self._usage |= {name: value for name, value in counts.items() if value is not None}
        feedback = chunk.get(_FEEDBACK)
        if feedback:
            self._feedback = {**self._feedback, **feedback}
            if text(feedback.get("blockReason")):
                self.ending.block()
        for candidate in chunk.get("candidates") or ():
            self._read_candidate(candidate, payload)

    def _read_reply_fields(self, chunk: JsonObject) -> None:
        """Append `Started` for the first chunk, and for later ones what is new of the reply as a whole."""
        if self._id is not None:
            if chunk.keys() <= _REPLY_FIELDS:
                return
            changed, _ = changed_fields(chunk, self._fields, _REPLY_FIELDS)
            if changed:
                self._fields |= changed
                self._batch.append(ExtraFields(None, changed, Place.REPLY))
            return
        self._fields, _ = changed_fields(chunk, self._fields, _REPLY_FIELDS)
        self._id = text(chunk.get("responseId")) or uuid4().hex
        model = self._request.model
        self._batch.append(
            Started(
                id=self._id,
                model=text(chunk.get("modelVersion")) or model,
                origin=Origin(PROTOCOL, self._provider, model, self._provider),
                created=_seconds(chunk.get("createTime")),
                fields=dict(self._fields),
            )
        )

    def _read_candidate(self, candidate: JsonObject, payload: bytes) -> None:
        """Read what a chunk has of one choice."""
        index = candidate.get("index", 0)
        if type(index) is not int or not 0 <= index <= MAX_INDEX:
            raise ValueError("index")
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = ChoiceReader(index, self._numbers, self._make_id, self._names)
            self.ending.set(index, "")
        content = candidate.get("content") or NOTHING
        parts = content.get("parts") or ()
        at = len(self._batch)
        for part in parts:
            choice.add_part(part, self._batch)
        if content.keys() - _CONTENT_FIELDS or candidate.keys() - {"content", "finishReason", "index"}:
            self._read_choice_fields(choice, index, candidate, at)
        reason = text(candidate.get("finishReason"))
        if reason and reason != UNSPECIFIED:
            if is_failure(reason):
                self.error_body = payload
                raise ProviderUnavailable(
                    f"The provider {self._provider} failed during the reply.",
                    provider=self._provider,
                    retryable=FAILURES.get(reason, True),
                )
            self.ending.set(index, reason)
        elif self.ending.reasons[index] and any(map(_is_output, self._batch[at:])):
            self.ending.set(index, "")  # it goes on after all

    def _read_choice_fields(self, choice: ChoiceReader, index: int, candidate: JsonObject, at: int) -> None:
        """Read the fields of a choice beside its parts. `at`: where its events begin in the batch."""
        content = as_object(candidate.get("content"))
        others = {name: value for name, value in content.items() if name not in _CONTENT_FIELDS}
        choice.token = text(candidate.get(CONTINUATION)) or choice.token
        if others:
            if not is_shallow(others):
                raise ValueError("depth")
            self._batch.append(ExtraFields(index, others))
        for name, value in candidate.items():
            if name not in _CHOICE_FIELDS:
                known = choice.fields.get(name)
                choice.fields[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
        cited = as_object(candidate.get("citationMetadata"))
        choice.add_recited(cited.get("citations") or cited.get("citationSources") or [])
        logprobs = as_object(candidate.get("logprobsResult"))
        if logprobs and not choice.add_logprobs(_logprobs(logprobs), at, self._batch):
            choice.fields["logprobsResult"] = logprobs
        elif rest := {name: value for name, value in logprobs.items() if name not in _LOGPROBS}:
            choice.fields["logprobsResult"] = rest

    def _finish(self) -> None:
        """Append the ends of all choices, and the tokens used. Raises `ProviderError` if nothing was said."""
        reasons, batch = self.ending.reasons, self._batch
        has_stopped = bool(reasons) and all(reason == "STOP" for reason in reasons.values())
        if has_stopped and not any(choice.has_content for choice in self._choices.values()) and not self._request.sampling.stop:
            raise ProviderUnavailable(f"The provider {self._provider} sent an empty reply.", provider=self._provider)
        for index, choice in self._choices.items():
            choice.end(batch, is_cut=reasons[index] != "STOP")
        details: JsonObject = {_FEEDBACK: self._feedback} if self._feedback else NOTHING
        if not is_shallow(details):
            raise ValueError("depth")
        used = usage.read(self._usage)
        if used is not None:
            batch.append(replace(used, server_tools=dict(sum((choice.tools for choice in self._choices.values()), Counter()))))
        if not reasons:
            batch.append(Finished(0, FinishReason.CONTENT_FILTER, text(self._feedback.get("blockReason")), details))
        for index in sorted(reasons):
            word = reasons[index]
            reason = REASONS.get(word, FinishReason.OTHER)
            if reason is FinishReason.STOP and self._choices[index].has_call:
                reason = FinishReason.TOOL_CALLS
            batch.append(Finished(index, reason, word, details))

    def _make_id(self) -> str:
        self._calls += 1
        return made_id(self._id or "", self._calls)

    def _protocol_error(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(f"The provider {self._provider} {what}.", provider=self._provider)


def _logprobs(raw: JsonObject) -> tuple[JsonObject, ...]:
    """Return log probabilities in the form of the OpenAI API. Raises built-in errors for JSON of another shape."""
    chosen, top = raw.get("chosenCandidates") or [], raw.get("topCandidates") or []
    entries: list[dict[str, Any]] = []
    for position, candidate in enumerate(chosen):
        others = (top[position].get("candidates") or []) if position < len(top) else []
        entries.append({**_logprob(candidate), "top_logprobs": [_logprob(other) for other in others]})
    return read_logprobs(entries)


def _logprob(candidate: JsonObject) -> dict[str, Any]:
    return {"token": candidate.get("token", ""), "logprob": candidate.get("logProbability", 0.0), "bytes": None}


def _seconds(time_text: object) -> int:
    """Return a time of RFC 3339 in Unix seconds; the present if it is none."""
    try:
        return int(datetime.fromisoformat(str(time_text)).timestamp())
    except (ValueError, OverflowError):
        return int(time.time())


def _is_output(event: Event) -> bool:
    """Return whether an event is output of the model."""
    match event:
        case BlockStarted():
            return not isinstance(event.value, Text | Thinking)
        case Started() | BlockFinished() | ExtraFields():
            return False
        case _:
            return True
