"""Turns an answer of the Gemini API into events: server-sent events, one JSON object, or an array of them. No I/O.

https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse. `blocks` reads the content, `ending` decides when it is
complete. The rules here:

- A blocked prompt is a reply without content, filtered.
- A finish reason that means a failure, and `STOP` without any content, is a failure.
- Each chunk counts the tokens used so far, so that a reply that breaks off has a usage, too. Finish reasons are sent at the end.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from msgspec.structs import replace

from antiphon.domain.content import NOTHING, JsonObject, Text, Thinking
from antiphon.domain.errors import ProviderUnavailable
from antiphon.domain.events import (
    BlockFinished,
    BlockStarted,
    Event,
    ExtraFields,
    Finished,
    FinishReason,
    Place,
    Started,
    Usage,
)
from antiphon.domain.request import ChatRequest
from antiphon.providers.codec import json
from antiphon.providers.codec.blocks import BlockNumbers
from antiphon.providers.codec.names import ToolNames, tool_names
from antiphon.providers.codec.reader import StreamReader
from antiphon.providers.codec.values import MAX_INDEX, as_object, changed_fields, is_shallow, read_logprobs, text
from antiphon.providers.failure import error_of_payload
from antiphon.providers.gemini import usage
from antiphon.providers.gemini.blocks import CONTINUATION, PROTOCOL, CandidateReader
from antiphon.providers.gemini.ending import FAILURES, REASONS, UNSPECIFIED, GeminiEnding, is_failure
from antiphon.providers.gemini.names import NAMES, made_id

_REPLY_FIELDS: Final = frozenset({"candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "createTime"})
_CHOICE_FIELDS: Final = frozenset({"content", "finishReason", "index", "logprobsResult", "citationMetadata", CONTINUATION})
_CONTENT_FIELDS: Final = frozenset({"role", "parts"})
"""The fields that have a place in the events."""

_FEEDBACK: Final = "promptFeedback"
_LOGPROBS: Final = frozenset({"chosenCandidates", "topCandidates"})


class GeminiReader(StreamReader):
    """Reads the answer to one request."""

    protocol = PROTOCOL

    def __init__(self, request: ChatRequest, provider: str) -> None:
        super().__init__(request, provider)
        self.ending = GeminiEnding(request.sampling.choices)
        self._names = ToolNames(NAMES, tool_names(request))
        self._id: str | None = None  # None before the start
        self._calls = 0
        self._numbers = BlockNumbers()
        self._choices: dict[int, CandidateReader] = {}
        self._fields: dict[str, Any] = {}  # the unknown fields of the reply
        self._feedback: JsonObject = NOTHING
        self._usage: dict[str, Any] = {}

    def _feed(self, data: bytes) -> None:
        for _, payload in self._sse.feed(data):
            self._read_payload(payload)

    def _read_rest(self) -> None:
        event = self._sse.end()
        if event is not None:
            self._read_payload(event[1])

    def _read_whole(self, body: bytes) -> None:
        """Read an answer that is one JSON object, or an array."""
        self.ending.is_object = True
        self._read_payload(body)

    def _used(self) -> Usage | None:
        return usage.read(self._usage)

    def _is_complete(self, *, silent: bool) -> bool:
        return self.ending.is_complete(silent=silent)

    @staticmethod
    def _is_output(event: Event) -> bool:
        match event:
            case BlockStarted():
                return not isinstance(event.value, Text | Thinking)
            case Started() | BlockFinished() | ExtraFields() | Usage():
                return False
            case _:
                return True

    def _read_payload(self, payload: bytes) -> None:
        """Read a chunk, or an array of them, which is what the API sends without `alt=sse`."""
        if payload.strip() in (b"", b"[DONE]"):
            return
        value = json.read(payload)
        for chunk in value if isinstance(value, list) else (value,):
            if "error" in chunk or not chunk.keys() & _REPLY_FIELDS:
                self.error_body = payload
                self._read_usage(chunk)
                raise error_of_payload(self._provider, chunk)
            self._read_chunk(chunk, payload)

    def _read_chunk(self, chunk: JsonObject, payload: bytes) -> None:
        """Read one `GenerateContentResponse`."""
        self._read_reply_fields(chunk)
        self._read_usage(chunk)
        feedback = chunk.get(_FEEDBACK)
        if feedback:
            self._feedback = {**self._feedback, **feedback}
            if text(feedback.get("blockReason")):
                self.ending.block()
        for candidate in chunk.get("candidates") or ():
            self._read_candidate(candidate, payload)

    def _read_usage(self, chunk: JsonObject) -> None:
        """Read the tokens used: each chunk of a stream counts all until then."""
        counts = chunk.get("usageMetadata")
        if counts:
            self._usage |= {name: value for name, value in counts.items() if value is not None}
            used = self._used()
            if used is not None and not self.ending.is_object:
                self._batch.append(used)

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
                origin=self._origin(),
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
            choice = self._choices[index] = CandidateReader(index, self._numbers, self._make_id, self._names)
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
        elif self.ending.reasons[index] and any(map(self._is_output, self._batch[at:])):
            self.ending.set(index, "")  # it goes on after all

    def _read_choice_fields(self, choice: CandidateReader, index: int, candidate: JsonObject, at: int) -> None:
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
        used = self._used()
        if used is not None:
            batch.append(replace(used, server_tools=dict(sum((choice.tools for choice in self._choices.values()), Counter()))))
        if not reasons:
            batch.append(Finished(0, FinishReason.CONTENT_FILTER, text(self._feedback.get("blockReason")), details))
        for index in sorted(reasons):
            word = reasons[index]
            reason = REASONS.get(word, FinishReason.OTHER)
            if self._choices[index].has_call and (reason is FinishReason.STOP or word not in REASONS):
                reason = FinishReason.TOOL_CALLS
            batch.append(Finished(index, reason, word, details))

    def _make_id(self) -> str:
        self._calls += 1
        return made_id(self._id or "", self._calls)


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
