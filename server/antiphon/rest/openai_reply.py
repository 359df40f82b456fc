"""A reply in the OpenAI dialect: one `chat.completion` object, or `chat.completion.chunk` events. No I/O.

What a provider answers that is not known here goes to the caller where it stood: in the message or delta, in the choice beside it,
or in the object as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from msgspec.structs import replace

from antiphon import messages as m
from antiphon.reply import Reply, ReplyChoice, call_json
from antiphon.rest.json import COMMENT, DONE, EVENT_STREAM, dumps


def completion(reply: Reply) -> dict[str, Any]:
    """The `chat.completion` object of a whole reply."""
    started = reply.started
    assert started is not None, "a stream that ended well has started"
    whole = {
        "id": started.id,
        "object": "chat.completion",
        "created": started.created,
        "model": started.model,
        "choices": [_choice(choice) for choice in reply.choices],
        "usage": _usage(reply.usage) if reply.usage else None,
        **started.extra,
    }
    return whole | {"session_id": started.conversation_id} if started.conversation_id else whole


def _choice(choice: ReplyChoice) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(choice.text) if choice.text else None,
        "refusal": "".join(choice.refusal) if choice.refusal else None,
    }
    if choice.thinking:
        message |= _thought("".join(choice.thinking), choice.thinking_field)
    if calls := choice.calls():
        message["tool_calls"] = list(map(call_json, calls))
    if choice.audio:
        audio = choice.audio
        message["audio"] = {
            "id": audio.id,
            "data": "".join(audio.data),
            "expires_at": audio.expires,
            "transcript": "".join(audio.transcript),
        }
    extra = choice.extra
    if "content" in extra:  # parts of a kind that is not known here: after the text
        text = [{"type": "text", "text": message["content"]}] if message["content"] else []
        message["content"] = [*text, *extra["content"]]
    return {
        **choice.choice_extra,
        "index": choice.index,
        "message": m.with_extra(message, extra),
        "logprobs": _logprobs(choice.logprobs, choice.choice_extra),
        "finish_reason": finish_reason(choice),
    }


def _thought(text: str, field: str) -> dict[str, str]:
    """Under one name whoever the provider is, and under its own."""
    return {"reasoning_content": text, field: text} if field else {"reasoning_content": text}


def _logprobs(tokens: Sequence[m.JsonObject], extra: m.JsonObject) -> dict[str, Any] | None:
    """The `logprobs` of a choice; `extra` are its fields that are not known here."""
    more = extra.get("logprobs") or {}
    return {"refusal": None, **more, "content": tokens or more.get("content")} if tokens or more else None


def _usage(usage: m.Usage) -> dict[str, Any]:
    prompt = {"cached_tokens": usage.cached_prompt_tokens, "audio_tokens": usage.audio_prompt_tokens}
    completion = {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": usage.audio_completion_tokens}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        **({"estimated": True} if usage.estimated else {}),
        **usage.extra,
        "prompt_tokens_details": prompt | usage.extra.get("prompt_tokens_details", {}),
        "completion_tokens_details": completion | usage.extra.get("completion_tokens_details", {}),
    }


def finish_reason(ended: m.Finished | ReplyChoice) -> str | None:
    """Why a choice ended, in the API's words or the provider's own; None where it gave no reason."""
    return ended.provider_reason or None if ended.reason is m.FinishReason.OTHER else ended.reason.value


class ChunkWriter:
    """Writes the `chat.completion.chunk` events of one stream, and [DONE]."""

    content_type = EVENT_STREAM
    comment = COMMENT

    def __init__(self, *, include_usage: bool) -> None:
        """`include_usage`: the caller asked for the tokens used, which then come in a last chunk of their own."""
        self._include_usage = include_usage
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._head = b""
        self._usage: m.Usage | None = None
        self._spoken: set[int] = set()
        self._started: m.Started | None = None
        self._found: dict[int, dict[str, Any]] = {}

    def write(self, batch: m.Batch) -> bytes:
        """The events of a batch. May be empty: not every event has a chunk."""
        pieces: list[bytes] = []
        for event in batch:
            match event:
                case m.TextDelta(choice, text, ()):
                    if choice not in self._spoken:
                        pieces.append(self._first(choice, b'""'))
                    # The commonest by far: written without building a dictionary.
                    pieces.append(
                        b'%b%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}]%b'
                        % (self._head, choice, dumps(text), self._tail)
                    )
                case m.TextDelta():
                    logprobs = {"logprobs": {"content": event.logprobs, "refusal": None}}
                    pieces.append(self._delta(event.choice, {"content": event.text}, logprobs))
                case m.ThinkingDelta(text=thought):
                    if thought:
                        pieces.append(self._delta(event.choice, _thought(thought, event.field)))
                case m.ToolCallDelta():
                    pieces.append(self._delta(event.choice, {"tool_calls": [tool_call_delta(event)]}))
                case m.RefusalDelta():
                    pieces.append(self._delta(event.choice, {"refusal": event.text}))
                case m.AudioDelta():
                    audio = {"id": event.id, "data": event.data, "transcript": event.transcript, "expires_at": event.expires}
                    pieces.append(self._delta(event.choice, {"audio": {k: v for k, v in audio.items() if v}}))
                case m.ExtraDelta():
                    pieces.append(self._extra(event))
                case m.Finished():
                    if event.choice not in self._spoken:
                        pieces.append(self._first(event.choice, b"null"))
                    pieces.append(self._chunk(event.choice, {}, self._found.get(event.choice, {}), finish_reason(event)))
                case m.Usage():
                    self._usage = event
                case m.Metrics():
                    pass
                case m.Started() | m.ReplyExtra():
                    self._begin(event)
                case _:
                    assert_never(event)
        return b"".join(pieces)

    def end(self) -> bytes:
        """What comes after the last batch: the tokens used, if the caller asked and the provider told, and the end."""
        if not self._include_usage or self._usage is None:
            return DONE
        return b'%b],"usage":%b}\n\n%b' % (self._head.removesuffix(b'{"index":'), dumps(_usage(self._usage)), DONE)

    def _begin(self, event: m.Started | m.ReplyExtra) -> None:
        """What is told of the reply as a whole is in every chunk from now on: some look for it in the first, some in the last."""
        if isinstance(event, m.ReplyExtra):
            assert self._started is not None, "it is the first event"
            event = replace(self._started, extra={**self._started.extra, **event.fields})
        self._started = event
        self._head = _head(event)

    def _first(self, choice: int, content: bytes) -> bytes:
        self._spoken.add(choice)
        return b'%b%d,"delta":{"role":"assistant","content":%b,"refusal":null},"logprobs":null,"finish_reason":null}]%b' % (
            self._head,
            choice,
            content,
            self._tail,
        )

    def _delta(self, choice: int, delta: m.JsonObject, fields: m.JsonObject = m.NOTHING) -> bytes:
        first = b"" if choice in self._spoken else self._first(choice, b'""' if _may_speak(delta) else b"null")
        return first + self._chunk(choice, delta, fields, None)

    def _extra(self, event: m.ExtraDelta) -> bytes:
        """What only the provider knows. What it found about a choice is told again at its end, where it is looked for."""
        if event.choice_fields:
            found = {name: value for name, value in event.choice_fields.items() if name != "logprobs" and type(value) is not list}
            self._found[event.choice] = self._found.get(event.choice, {}) | found
        return self._delta(event.choice, event.fields, event.choice_fields)

    def _chunk(self, choice: int, delta: m.JsonObject, fields: m.JsonObject, reason: str | None) -> bytes:
        """`fields` are those beside the delta."""
        whole = {"delta": delta, "logprobs": None, "finish_reason": reason, **fields}
        return b"%b%d,%b]%b" % (self._head, choice, dumps(whole)[1:], self._tail)


def _may_speak(delta: m.JsonObject) -> bool:
    """Whether text comes with a first delta, or may come after it."""
    return "content" in delta or all(value is None for value in delta.values())


def _head(started: m.Started) -> bytes:
    """A chunk up to the number of its choice."""
    fields = {
        "id": started.id,
        "object": "chat.completion.chunk",
        "created": started.created,
        "model": started.model,
        **started.extra,
    }
    return b"data: " + dumps(fields)[:-1] + b',"choices":[{"index":'


def tool_call_delta(delta: m.ToolCallDelta) -> dict[str, Any]:
    """A piece of a tool call, as it stands in a chunk."""
    function: dict[str, str] = {"arguments": delta.arguments}
    if delta.name:
        function = {"name": delta.name, **function}
    call: dict[str, Any] = {"index": delta.index, "function": function}
    if delta.id:
        call = {"index": delta.index, "id": delta.id, "type": "function", "function": function}
    return call
