"""An answer of the OpenAI chat-completions API as events: server-sent chunks, or one JSON object. No I/O.

https://platform.openai.com/docs/api-reference/chat/streaming, and what the hosts that follow it make of it. The rules:

- A reply is whole when every choice has its `finish_reason`, and there are at least as many choices as were asked for. `[DONE]`, or
  the end of the body, before that is a cut. Without `[DONE]`, a reply whose choices are all finished is whole.
- A `finish_reason` may come in any chunk, and more content after it: what ends a reply is held back until its end.
- Hosts that send no `[DONE]` and leave the connection open: once every choice is finished after something was said, and nothing
  more is said, the reply is `settled`; a moment later the caller may take it for whole.
- The usage that counts is the last one, wherever it stands.
- What came before a failure in the same read is still given; the failure is raised after it.
- A field that is not known here is handed on, so that nothing is lost: of a delta as `ExtraDelta`, of the first chunk as
  `Started.extra`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain
from typing import Any, Final
from uuid import uuid4

import orjson
from msgspec import Struct

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.errors import ProviderError, ProviderProtocolError, ProviderUnavailable
from antiphon.messages import (
    AudioDelta,
    Batch,
    ChatRequest,
    ExtraDelta,
    Finished,
    FinishReason,
    JsonObject,
    RefusalDelta,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from antiphon.providers.failure import of_payload
from antiphon.providers.openai_values import MAX_INDEX, Sound, as_object, is_shallow, read_logprobs, read_usage, seconds, text
from antiphon.providers.sse import EventTooLarge, SseReader

_TOP: Final = frozenset({"id", "object", "created", "model", "choices", "usage", "error", "obfuscation"})
"""Fields of a chunk that have a place in the events; `obfuscation` is padding against eavesdroppers, made anew on every hop."""

_PLAIN: Final = frozenset({"role", "content"})

_DELTA: Final = frozenset({"role", "content", "reasoning_content", "reasoning", "refusal", "audio", "tool_calls"})

_REASONS: Final = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
"""`eos` is Together's word, `model_length` Mistral's."""

_SAYING: Final = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal", "audio", "function_call")
"""Fields of a delta that say something."""

_FAILED: Final = frozenset({"error", "insufficient_system_resource"})
"""Reasons that tell of a failure: OpenRouter's and Mistral's, and DeepSeek's."""


class _Call(Struct):
    """A tool call that has begun: what the host calls it."""

    key: object
    id: str
    named: bool = False
    handed_on: bool = False
    """It is of a kind that is not known here."""


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
        self._batch: Batch = []
        self._started = False
        self._head: dict[str, Any] = {}
        self._reasons: dict[int, str | None] = {}
        self._usage: JsonObject | None = None
        self._calls: dict[int, list[_Call]] = {}
        self._sounds: dict[int, Sound] = {}
        self._said = False
        self._early = False  # the host tells the end before it has said all
        self._at_finish = 0  # how much was in the batch when the last choice finished

    def feed(self, data: bytes) -> Batch:
        """The events of the server-sent chunks that these bytes complete; may be empty. Raises the tree under `ProviderError`."""
        self._guard(self._feed, data)
        if self.failure is not None and (not self._batch or isinstance(self._batch[-1], Started)):
            # Nothing was said yet: the failure is the answer.
            raise self.failure
        batch, self._batch = self._batch, []
        if batch:
            if self.settled and len(batch) > self._at_finish:
                self.settled, self._early = False, True
            self._said = self._said or not isinstance(batch[-1], Started)
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
        if not reasons or len(reasons) < asked or None in reasons.values():
            raise self._protocol_error("ended before the reply was whole")
        self._guard(self._complete, b"")
        if self.failure is not None:
            raise self.failure
        batch, self._batch = self._batch, []
        if self._usage is not None:
            batch.append(read_usage(self._usage))
        batch.extend(
            Finished(choice, _REASONS.get(reason, FinishReason.OTHER), reason)
            for choice, reason in sorted(reasons.items())
            if reason is not None
        )
        return batch

    def whole(self, body: bytes) -> Batch:
        """All events of an answer that is one JSON object. Raises the tree under `ProviderError`."""
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
        except orjson.JSONDecodeError:
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
        """Raises if something that began is not whole although the reply is."""
        for sound in self._sounds.values():
            sound.end()
        for call in chain.from_iterable(self._calls.values()):
            if not call.named and not call.handed_on:
                raise ValueError("a tool call without a name")

    def _event(self, name: bytes, payload: bytes) -> None:
        if payload[:6] == b"[DONE]":
            self.done = True
        elif name == b"error":
            self.blame = payload
            raise of_payload(self._provider, orjson.loads(payload))
        elif payload:
            self._take(orjson.loads(payload), payload, "delta", "message")

    def _whole(self, body: bytes) -> None:
        chunk = orjson.loads(body)
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
        usage = chunk.get("usage") or ("x_groq" in chunk and as_object(chunk["x_groq"]).get("usage"))
        if usage:
            self._usage = as_object(usage)
        for choice in choices or ():
            index = choice.get("index") or 0
            if type(index) is not int:
                raise TypeError("index")
            if index not in self._reasons:
                if not 0 <= index <= MAX_INDEX:
                    raise ValueError("index")
                self._reasons[index] = None
            delta = choice.get(place)
            if delta is None:
                delta = self._other_delta(choice, other_place, whole=place == "message")
            logprobs = choice.get("logprobs")
            if delta:
                content = delta.get("content")
                if type(content) is str and logprobs is None and (len(delta) == 1 or delta.keys() <= _PLAIN):
                    if content:  # nearly every chunk comes here
                        self._batch.append(TextDelta(index, content))
                else:
                    self._delta(index, delta, logprobs or {})
            elif delta is not None and type(delta) is not dict:
                raise TypeError("delta")
            elif logprobs:
                self._delta(index, {}, logprobs)
            reason = choice.get("finish_reason")
            if reason is not None and reason != "":
                self._finish(index, reason, choice, payload)

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
        self._head |= {name: value for name, value in chunk.items() if name not in _TOP and value is not None}
        if "x_groq" in self._head:
            self._head["x_groq"] = {key: value for key, value in as_object(self._head["x_groq"]).items() if key != "usage"}
        if not is_shallow(self._head):
            raise ValueError("depth")
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
        extra = {name: value for name, value in delta.items() if name not in _DELTA and value is not None}
        other_logprobs = {name: value for name, value in logprobs.items() if name != "content" and value is not None}
        if other_logprobs:
            extra["logprobs"] = other_logprobs

        reasoning = delta.get("reasoning")
        thought = text(delta.get("reasoning_content")) or reasoning  # the same text, where a host sends both
        if isinstance(thought, str) and thought:
            batch.append(ThinkingDelta(index, thought))
        if reasoning and not isinstance(reasoning, str):
            extra["reasoning"] = reasoning

        tokens = read_logprobs(logprobs.get("content"))
        content = delta.get("content")
        if isinstance(content, list):
            self._parts(index, content)
            content = ""
        content = text(content)
        if content or tokens:
            batch.append(TextDelta(index, content, tokens))
        refusal = delta.get("refusal")
        if refusal:
            batch.append(RefusalDelta(index, text(refusal)))
        audio = delta.get("audio")
        if audio:
            self._audio(index, audio)
        for call in delta.get("tool_calls") or ():
            self._tool_call(index, call, extra)
        if extra:
            self._hand_on(index, extra)

    def _hand_on(self, index: int, extra: JsonObject) -> None:
        if not is_shallow(extra):
            raise ValueError("depth")
        self._batch.append(ExtraDelta(index, extra))

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

    def _tool_call(self, choice: int, delta: JsonObject, extra: dict[str, Any]) -> None:
        """More of a tool call.

        Hosts differ in what tells one call from the next: an index, an id, both, or neither but that each delta is a whole call;
        and in whether id and name come once or every time.
        """
        function = delta.get("function")
        calls = self._calls.setdefault(choice, [])
        position = self._find(calls, delta, (function or {}).get("name"))
        unknown = {k: v for k, v in delta.items() if k not in ("index", "id", "type", "function") and v is not None}
        if function is None and delta.get("type"):
            unknown["type"] = delta["type"]
        call_id = name = None
        if position is None:
            position = len(calls)
            call_id = text(delta.get("id"))
            if function is not None and not call_id:
                call_id = f"call_{uuid4().hex[:24]}"
            calls.append(_Call(delta.get("index"), call_id))
        if unknown:
            extra.setdefault("tool_calls", []).append(
                {"index": position, **({"id": delta["id"]} if delta.get("id") else {}), **unknown}
            )
        call = calls[position]
        if function is None:
            call.handed_on |= bool(unknown)
            return
        if not call.named and function.get("name"):
            name = text(function["name"])
            call.named = True
        arguments = function.get("arguments")
        if isinstance(arguments, dict | list):
            arguments = orjson.dumps(arguments).decode()
        if call_id or name or arguments:
            self._batch.append(ToolCallDelta(choice, position, id=call_id, name=name, arguments=text(arguments)))

    @staticmethod
    def _find(calls: list[_Call], delta: JsonObject, name: object) -> int | None:
        """Which of `calls` this is more of; None: a new one."""
        key, given = delta.get("index"), delta.get("id")
        for position in range(len(calls) - 1, -1, -1):
            call = calls[position]
            if given and call.id == given:
                return position
            if key is not None and call.key == key:
                # One index for all calls is known of some hosts: another id with a name is another call.
                return None if given and name and call.named else position
        return len(calls) - 1 if calls and key is None and not given and not name else None

    def _protocol_error(self, what: str) -> ProviderProtocolError:
        return ProviderProtocolError(f"The provider {self._provider} {what}.", provider=self._provider)
