"""An answer of the OpenAI chat-completions API as events: server-sent chunks, or one JSON object. No I/O.

Longer than other files: nearly every rule needs the state of the others.

https://platform.openai.com/docs/api-reference/chat/streaming, and what the hosts that follow it make of it. The rules:

- A reply is whole when every choice has its `finish_reason`, and there are at least as many choices as were asked for. `[DONE]`, or
  the end of the body, before that is a cut. Without `[DONE]`, a reply whose choices are all finished is whole.
- A `finish_reason` may come in any chunk, and more content after it: what ends a reply is held back until its end.
- Hosts that send no `[DONE]` and leave the connection open: once every choice is finished after something was said, and nothing
  more is said, the reply is `settled`; a moment later the caller may take it for whole.
- The usage that counts is the last one, wherever it stands.
- What came before a failure in the same read is still given; the failure is raised after it.
- One JSON object is a reply, whether its choices have a `finish_reason` or not: it cannot have been cut.
- A field that is not known here is handed on, so that nothing is lost: of a delta or a choice as `ExtraDelta`, of the first chunk
  as `Started.extra`, of a later one as `ReplyExtra`. So is null, where it is the first that is told of a field.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final
from uuid import uuid4

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.errors import ProviderError, ProviderProtocolError, ProviderUnavailable
from antiphon.messages import (
    NOTHING,
    AudioDelta,
    Batch,
    ChatRequest,
    Event,
    ExtraDelta,
    Finished,
    FinishReason,
    JsonObject,
    RefusalDelta,
    ReplyExtra,
    Started,
    TextDelta,
    ThinkingDelta,
)
from antiphon.providers.failure import of_payload
from antiphon.providers.openai_calls import ToolCalls
from antiphon.providers.openai_json import JsonReader
from antiphon.providers.openai_values import MAX_INDEX, Sound, as_object, is_shallow, news, read_logprobs, read_usage, seconds, text
from antiphon.providers.sse import EventTooLarge, SseReader

_TOP: Final = frozenset({"id", "object", "created", "model", "choices", "usage", "error", "obfuscation"})
"""Fields of a chunk that have a place in the events; `obfuscation` is padding against eavesdroppers, made anew on every hop."""

_CHOICE: Final = frozenset({"index", "delta", "message", "text", "logprobs", "finish_reason", "usage"})
"""Fields of a choice that have a place in the events."""

_PLAIN: Final = frozenset({"role", "content"})

_DELTA: Final = frozenset({"role", "content", "reasoning_content", "reasoning", "refusal", "audio", "tool_calls"})

_AUDIO: Final = frozenset({"id", "data", "transcript", "expires_at"})

_NULLS: Final = frozenset({"role", "content", "refusal", "tool_calls"})
"""Fields of a delta whose null is the same as nothing."""

_REASONING: Final = "reasoning"
"""What OpenRouter, Groq and vLLM call the thoughts; some hosts have the same text under both names."""

_INSTEAD: Final = ("tool_calls", "function_call", "refusal", "audio")
"""Fields of a delta in place of which the content is null: while it streams, some hosts write "" there."""

_REASONS: Final = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.FUNCTION_CALL,
    "content_filter": FinishReason.CONTENT_FILTER,
}
"""`eos` is Together's word, `model_length` Mistral's."""

_SAYING: Final = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal", "audio", "function_call")
"""Fields of a delta that say something."""

_FAILED: Final = frozenset({"error", "insufficient_system_resource"})
"""Reasons that tell of a failure: OpenRouter's and Mistral's, and DeepSeek's."""


class ReplyReader:
    """Reads the answer to one request."""

    def __init__(self, request: ChatRequest, provider: str) -> None:
        self.done = False
        """The provider said that nothing follows."""
        self.failure: ProviderError | None = None
        """To be raised after the batch that `feed` gave."""
        self.settled = False
        """Every choice is finished, after it had said something, and nothing was said since: what is left is usage and `[DONE]`."""
        self.speaking = False
        """The chunk that finished the reply said something too: there are hosts that put a reason in every chunk."""
        self.blame = b""
        """The provider's own words about the failure, for the log."""
        self._request = request
        self._provider = provider
        self._sse = SseReader(MAX_MESSAGE_BYTES)
        self._json = JsonReader()
        self._batch: Batch = []
        self._started = False
        self._head: dict[str, Any] = {}
        self._reasons: dict[int, str | None] = {}
        self._spoke: set[int] = set()  # choices that said something, in place of which there is no ""
        self._empty: set[int] = set()  # choices that said "", which is not nothing
        self._told: set[tuple[int, str]] = set()  # fields of messages that were told of, so that a null tells nothing
        self._found: dict[tuple[int, str], Any] = {}  # what was told last of a choice
        self._is_whole = False
        self._usage: JsonObject | None = None
        self._calls: dict[int, ToolCalls] = {}
        self._sounds: dict[int, Sound] = {}
        self._said = False
        self._early = False  # the host tells the end before it has said all
        self._at_finish = 0  # how much was in the batch when the last choice finished

    def feed(self, data: bytes) -> Batch:
        """The events of the server-sent chunks that these bytes complete; may be empty. Raises the tree under `ProviderError`."""
        self._guard(self._feed, data)
        if self.failure is not None and not any(map(_says, self._batch)):
            # Nothing was said yet: the failure is the answer.
            raise self.failure
        batch, self._batch = self._batch, []
        if batch:
            if self.settled and any(map(_says, batch[self._at_finish :])):
                self.settled, self._early = False, True
            self._said = self._said or any(map(_says, batch))
        self._at_finish = 0
        return batch

    def end(self) -> Batch:
        """The last batch: what was held back. Raises `ProviderProtocolError` if the reply is not whole."""
        if not self.done:
            self._guard(self._leftover, b"")
        if self.failure is not None:
            raise self.failure
        reasons = self._reasons
        # A host that knows no `n` answers with one choice, and says that it is done; without that word, others may have been cut.
        asked = 1 if self.done and reasons.keys() == {0} else self._request.sampling.choices or 1
        if not reasons or len(reasons) < asked or (None in reasons.values() and not self._is_whole):
            raise self._protocol_error("ended before the reply was whole")
        self._guard(self._complete, b"")
        if self.failure is not None:
            raise self.failure
        batch, self._batch = self._batch, []
        if self._usage is not None:
            batch.append(read_usage(self._usage))
        batch.extend(
            Finished(choice, _REASONS.get(reason or "", FinishReason.OTHER), reason or "")
            for choice, reason in sorted(reasons.items(), key=itemgetter(0))
        )
        return batch

    def whole(self, body: bytes) -> Batch:
        """All events of an answer that is one JSON object. Raises the tree under `ProviderError`."""
        self._is_whole = True
        self._guard(self._whole, body)
        self.done = True
        return self.end()

    def _guard(self, step: Callable[[bytes], None], data: bytes) -> None:
        """Runs a step; what goes wrong becomes `failure`.

        The steps take the shape of the JSON for granted where using it shows that it is another one: it shows here.
        """
        try:
            step(data)
        except ProviderError as error:
            self.failure = error
        except EventTooLarge:
            self.failure = self._protocol_error("sent an event that is too large")
        except (json.JSONDecodeError, UnicodeDecodeError):
            self.failure = self._protocol_error("sent what is not JSON")
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
            self.failure = self._protocol_error("sent JSON of an unknown shape")

    def _feed(self, data: bytes) -> None:
        for name, payload in self._sse.feed(data):
            self._event(name, payload)
            if self.done:
                return

    def _leftover(self, _: bytes) -> None:
        event = self._sse.end()
        if event is not None:
            self._event(*event)

    def _complete(self, _: bytes) -> None:
        """What was left open is closed. Raises if something that began is not whole although the reply is."""
        rest = self._json.end()
        if rest is not None:
            self._take(rest, b"", "delta", "message")
        self._batch.extend(TextDelta(index, "") for index in sorted(self._empty - self._spoke))
        for sound in self._sounds.values():
            sound.end()
        for calls in self._calls.values():
            calls.end()

    def _event(self, name: bytes, payload: bytes) -> None:
        if payload[:1] != b"{":
            payload = payload.strip()
            if payload[:6] == b"[DONE]":
                self.done = True
                return
            if payload in (b"", b"null"):
                return
        if name == b"error":
            self.blame = payload
            raise of_payload(self._provider, self._json.read(payload))
        chunk = self._json.read(payload)
        if (name or not self._started) and chunk.get("type") == "ping" and "choices" not in chunk:
            return  # to keep the connection alive, as Anthropic does
        self._take(chunk, payload, "delta", "message")

    def _whole(self, body: bytes) -> None:
        chunk = self._json.read(body)
        if isinstance(chunk, list) and chunk:  # Google's hosts put an error in an array
            chunk = chunk[0]
        self._take(chunk, body, "message", "delta")

    def _take(self, chunk: dict[str, Any], payload: bytes, place: str, other_place: str) -> None:
        """One chunk, or one whole reply. `place` is where its choices have their delta; some have one at `other_place` too."""
        choices = chunk.get("choices")
        if chunk.get("error") or (not choices and chunk.get("object") == "error"):
            self.blame = payload
            raise of_payload(self._provider, chunk.get("error") or chunk)
        if not self._started:
            self._start(chunk, bool(choices))
        elif not chunk.keys() <= _TOP:
            self._go_on(chunk)
        usage = chunk.get("usage") or ("x_groq" in chunk and as_object(chunk["x_groq"]).get("usage"))
        if usage:
            self._usage = as_object(usage)
        for choice in choices or ():
            index = choice.get("index") or 0
            if type(index) is not int:
                raise TypeError("index")
            if index not in self._reasons:
                self._begin(index)
            delta = choice.get(place)
            if delta is None:
                delta = self._other_delta(choice, other_place, whole=place == "message")
            if not choice.keys() <= _CHOICE:
                self._beside(index, choice)
            logprobs = choice.get("logprobs")
            if delta:
                content = delta.get("content")
                if type(content) is str and logprobs is None and (len(delta) == 1 or delta.keys() <= _PLAIN):
                    if content:  # nearly every chunk comes here
                        self._batch.append(TextDelta(index, content))
                        self._spoke.add(index)
                    else:
                        self._empty.add(index)
                else:
                    self._delta(index, delta, logprobs or {})
            elif delta is not None and type(delta) is not dict:
                raise TypeError("delta")
            elif logprobs:
                self._delta(index, {}, logprobs)
            reason = choice.get("finish_reason")
            if reason is not None and reason != "":
                self._finish(index, reason, choice, payload)

    def _begin(self, index: int) -> None:
        if not 0 <= index <= MAX_INDEX:
            raise ValueError("index")
        self._reasons[index] = None

    @staticmethod
    def _other_delta(choice: JsonObject, place: str, *, whole: bool) -> JsonObject | None:
        """A delta where it does not belong: at the other place, or in the `text` of the older completions API."""
        delta: JsonObject | None = choice.get(place)
        if delta is None and choice.get("text") is not None:
            return {"content": choice["text"]}
        if delta is None and whole:
            raise KeyError("message")
        return delta

    def _start(self, chunk: JsonObject, has_choices: bool) -> None:
        """Some hosts send chunks without an id or a choice first: what they tell is kept until there is one."""
        self._head |= news(chunk, self._head, _TOP)
        given = chunk.get("id")
        if not given and not has_choices:
            return
        self._started = True
        self._batch.append(
            Started(
                id=str(given or f"chatcmpl-{uuid4().hex}"),
                model=str(chunk.get("model") or self._request.model),
                provider=self._provider,
                created=seconds(chunk.get("created")) or int(time.time()),
                extra=self._head,
            )
        )

    def _go_on(self, chunk: JsonObject) -> None:
        """Fields of the reply that come after its start, such as citations."""
        fresh = news(chunk, self._head, _TOP)
        if fresh:
            self._head = {**self._head, **fresh}
            self._batch.append(ReplyExtra(fresh))

    def _beside(self, index: int, choice: JsonObject) -> None:
        """Fields beside the delta, such as what a filter found: once, as long as they stay the same."""
        fields: dict[str, Any] = {}
        for name, value in choice.items():
            if name in _CHOICE:
                continue
            key = (index, name)
            if key not in self._found or isinstance(value, list) or (value is not None and value != self._found[key]):
                fields[name] = self._found[key] = value
        if fields:
            self._hand_on(index, {}, fields)

    def _finish(self, index: int, reason: object, choice: JsonObject, payload: bytes) -> None:
        if not isinstance(reason, str):
            raise TypeError("finish_reason")
        if reason in _FAILED:
            self.blame = payload
            raise ProviderUnavailable(f"The provider {self._provider} failed on the way.", provider=self._provider)
        reasons = self._reasons
        reasons[index] = reason
        if not self._early and None not in reasons.values() and len(reasons) >= (self._request.sampling.choices or 1):
            self.settled = self._said or any(not isinstance(event, Started) for event in self._batch)
            self._at_finish = len(self._batch)
            delta = choice.get("delta")
            self.speaking = isinstance(delta, dict) and any(delta.get(name) for name in _SAYING)
        usage = choice.get("usage")  # Moonshot's place for it
        if usage:
            self._usage = as_object(usage)

    def _delta(self, index: int, delta: JsonObject, logprobs: JsonObject) -> None:
        """A delta that is more than text."""
        batch = self._batch
        extra = self._unknown(index, delta)
        thought, reasoning = text(delta.get("reasoning_content")), delta.get("reasoning")
        if thought:
            batch.append(ThinkingDelta(index, thought, field=_REASONING if reasoning == thought else ""))
        elif reasoning and isinstance(reasoning, str):
            batch.append(ThinkingDelta(index, reasoning, field=_REASONING))
            reasoning = None
        if reasoning and reasoning != thought:
            extra[_REASONING] = reasoning

        tokens = read_logprobs(logprobs.get("content"))
        content = delta.get("content")
        if isinstance(content, list):
            self._parts(index, content)
            content = None
        if content or tokens:
            batch.append(TextDelta(index, text(content), tokens))
            self._spoke.add(index)
        elif text(content) == content:
            self._empty.add(index)
        refusal = delta.get("refusal")
        if refusal:
            batch.append(RefusalDelta(index, text(refusal)))
        audio = delta.get("audio")
        if audio:
            self._audio(index, audio)
            if more := {name: value for name, value in audio.items() if name not in _AUDIO and value is not None}:
                extra["audio"] = more
        for call in delta.get("tool_calls") or ():
            known, unknown = self._calls.setdefault(index, ToolCalls(index, whole=self._is_whole)).read(call)
            if known:
                batch.append(known)
            if unknown:
                extra.setdefault("tool_calls", []).append(unknown)
        if not self._is_whole and any(delta.get(name) for name in _INSTEAD):
            self._spoke.add(index)
        beside = self._unknown_logprobs(logprobs, tokens)
        if extra or beside:
            self._hand_on(index, extra, beside)

    def _unknown(self, index: int, delta: JsonObject) -> dict[str, Any]:
        """Fields of a delta that have no place in the events."""
        extra: dict[str, Any] = {}
        for name, value in delta.items():
            if value is None:
                if name not in _NULLS and (self._is_whole or (name not in _DELTA and (index, name) not in self._told)):
                    extra[name] = None
                    self._told.add((index, name))
            elif name not in _DELTA:
                extra[name] = value
                self._told.add((index, name))
        return extra

    def _unknown_logprobs(self, logprobs: JsonObject, tokens: tuple[JsonObject, ...]) -> JsonObject:
        unknown = {name: value for name, value in logprobs.items() if name != "content" and value is not None}
        if self._is_whole and logprobs and not tokens:
            unknown["content"] = logprobs.get("content")
        return {"logprobs": unknown} if unknown else NOTHING

    def _hand_on(self, index: int, extra: JsonObject, beside: JsonObject = NOTHING) -> None:
        if not is_shallow(extra) or not is_shallow(beside):
            raise ValueError("depth")
        self._batch.append(ExtraDelta(index, extra, beside))

    def _audio(self, index: int, audio: JsonObject) -> None:
        sound = self._sounds.setdefault(index, Sound())
        delta = AudioDelta(
            index,
            id=text(audio.get("id")) or None,
            data=sound.feed(text(audio.get("data"))),
            transcript=text(audio.get("transcript")),
            expires=seconds(audio.get("expires_at")),
        )
        if delta.id or delta.data or delta.transcript or delta.expires:
            self._batch.append(delta)

    def _parts(self, index: int, parts: list[Any]) -> None:
        """Content in parts, as Mistral's thinking models answer."""
        for part in parts:
            kind = part.get("type")
            if kind == "text":
                self._batch.append(TextDelta(index, text(part.get("text"))))
            elif kind == "thinking":
                thought = part.get("thinking")
                pieces = (thought,) if isinstance(thought, str) else (piece.get("text") for piece in thought or ())
                self._batch.append(ThinkingDelta(index, "".join(map(text, pieces))))
            else:
                self._hand_on(index, {"content": [part]})

    def _protocol_error(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(f"The provider {self._provider} {what}.", provider=self._provider)


def _says(event: Event) -> bool:
    """Whether the model says something by it: what is told of a reply or a choice is not said."""
    if isinstance(event, ExtraDelta):
        return any(value is not None for value in event.fields.values())
    return not isinstance(event, Started | ReplyExtra)
