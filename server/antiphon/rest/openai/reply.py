"""A reply in the OpenAI dialect: one `chat.completion` object, or `chat.completion.chunk` events. No I/O.

What a provider answers that is not known here goes to the caller where it stood: in the message or delta, in the choice beside it,
or in the object as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, assert_never

from antiphon import domain
from antiphon.domain.reply import Reply, ReplyChoice, call_json
from antiphon.rest.shared.json import COMMENT, DONE, EVENT_STREAM, dumps


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
    if "content" in extra:  # parts of a kind that is not known here
        message["content"] = [_text_part(part) if isinstance(part, str) else part for part in choice.content()]
    return {
        **choice.choice_extra,
        "index": choice.index,
        "message": domain.with_extra(message, extra),
        "logprobs": _logprobs(choice.logprobs, choice.choice_extra),
        "finish_reason": finish_reason(choice),
    }


def _thought(text: str, field: str) -> dict[str, str]:
    """Under one name whoever the provider is, and under its own."""
    return {"reasoning_content": text, field: text} if field else {"reasoning_content": text}


def _logprobs(tokens: Sequence[domain.JsonObject], extra: domain.JsonObject) -> dict[str, Any] | None:
    """The `logprobs` of a choice; `extra` are its fields that are not known here."""
    more = extra.get("logprobs") or {}
    return {"refusal": None, **more, "content": tokens or more.get("content")} if tokens or more else None


def _usage(usage: domain.Usage) -> dict[str, Any]:
    prompt = {"cached_tokens": usage.cached_prompt_tokens, "audio_tokens": usage.audio_prompt_tokens}
    if usage.cache_write_tokens:
        prompt["cache_write_tokens"] = usage.cache_write_tokens
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


def finish_reason(ended: domain.Finished | ReplyChoice) -> str | None:
    """Why a choice ended, in the API's words or the provider's own; None where it gave no reason."""
    return ended.provider_reason or None if ended.reason is domain.FinishReason.OTHER else ended.reason.value


class ChunkWriter:
    """Writes the `chat.completion.chunk` events of one stream, and [DONE]."""

    content_type = EVENT_STREAM
    comment = COMMENT

    def __init__(self, *, include_usage: bool) -> None:
        """`include_usage`: the caller asked for the tokens used, which then come in a last chunk of their own."""
        self._include_usage = include_usage
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._usage: domain.Usage | None = None
        self._spoken: set[int] = set()
        self._found: dict[int, dict[str, Any]] = {}
        self._named: dict[str, Any] = {}  # fields of every chunk
        self._repeated: domain.JsonObject = domain.NOTHING  # fields of every chunk for now, as the provider repeats them
        self._once: dict[str, Any] = {}  # fields of the next chunk alone
        self._plain = b""  # a chunk up to the number of its choice
        self._head = b""  # the same, of the next chunk

    def write(self, batch: domain.Batch) -> bytes:
        """The events of a batch. May be empty: not every event has a chunk."""
        pieces: list[bytes] = []
        plain, head = self._plain, self._head
        events = iter(batch)
        for event in events:
            match event:
                case domain.TextDelta(choice, text, ()):
                    if choice not in self._spoken:
                        pieces.append(self._first(head, choice, b'""'))
                        head = plain
                    # The commonest by far: written without building a dictionary.
                    pieces.append(
                        b'%b%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null}]%b'
                        % (head, choice, dumps(text), self._tail)
                    )
                    head = plain
                case domain.ThinkingDelta(text=""):
                    pass
                case domain.DeltaGroup(choice, count):
                    pieces.append(self._delta(head, choice, islice(events, count)))
                    head = plain
                case (
                    domain.ToolCallDelta()
                    | domain.TextDelta()
                    | domain.ThinkingDelta()
                    | domain.RefusalDelta()
                    | domain.AudioDelta()
                    | domain.ExtraDelta()
                ):
                    pieces.append(self._delta(head, event.choice, (event,)))
                    head = plain
                case domain.Finished(choice):
                    if choice not in self._spoken:
                        pieces.append(self._first(head, choice, b"null"))
                        head = plain
                    pieces.append(self._chunk(head, choice, {}, self._found.get(choice, {}), finish_reason(event)))
                    head = plain
                case domain.Usage():
                    self._usage = event
                case domain.Metrics():
                    pass
                case domain.Started() | domain.ReplyExtra():
                    self._begin(event, is_pending=head is not plain)
                    plain, head = self._plain, self._head
                case _:
                    assert_never(event)
        self._head = head
        return b"".join(pieces)

    def end(self) -> bytes:
        """What comes after the last batch: the tokens used, if the caller asked and the provider told, and the end."""
        if not self._include_usage or self._usage is None:
            return DONE
        return b'%b],"usage":%b}\n\n%b' % (self._head.removesuffix(b'{"index":'), dumps(_usage(self._usage)), DONE)

    def _begin(self, event: domain.Started | domain.ReplyExtra, *, is_pending: bool) -> None:
        """Put fields of the reply as a whole into the next chunk; those that the provider repeats, into every chunk.

        `is_pending`: the next chunk already has such fields.
        """
        if isinstance(event, domain.Started):
            self._named = {"id": event.id, "object": "chat.completion.chunk", "created": event.created, "model": event.model}
            self._once = dict(event.extra)
            if event.conversation_id:  # as in a whole reply: the header x-session-id is too late behind a heartbeat
                self._once["session_id"] = event.conversation_id
        else:
            self._once = self._once if is_pending else {}
            if event.repeats:
                self._repeated = event.fields
            else:
                self._once |= event.fields
        self._plain = _head({**self._named, **self._repeated})
        self._head = _head({**self._named, **self._repeated, **self._once}) if self._once else self._plain

    def _first(self, head: bytes, choice: int, content: bytes) -> bytes:
        self._spoken.add(choice)
        return b'%b%d,"delta":{"role":"assistant","content":%b,"refusal":null},"logprobs":null,"finish_reason":null}]%b' % (
            head,
            choice,
            content,
            self._tail,
        )

    def _delta(self, head: bytes, choice: int, events: Iterable[domain.Event]) -> bytes:
        """One chunk of events that came together."""
        delta = fields = domain.NOTHING
        for event in events:
            added, beside = _fields_of(event)
            delta, fields = _merged(delta, added), _merged(fields, beside)
            if isinstance(event, domain.ExtraDelta) and event.choice_fields:
                # What the provider found about a choice is told again at its end, where it is looked for.
                found = {
                    name: value for name, value in event.choice_fields.items() if name != "logprobs" and type(value) is not list
                }
                self._found[choice] = self._found.get(choice, {}) | found
        first = b""
        if choice not in self._spoken:
            first = self._first(head, choice, b'""' if _may_speak(delta) else b"null")
            head = self._plain
        return first + self._chunk(head, choice, delta, fields, None)

    def _chunk(self, head: bytes, choice: int, delta: domain.JsonObject, fields: domain.JsonObject, reason: str | None) -> bytes:
        """`fields` are those beside the delta."""
        whole = {"delta": delta, "logprobs": None, "finish_reason": reason, **fields}
        return b"%b%d,%b]%b" % (head, choice, dumps(whole)[1:], self._tail)


def _fields_of(event: domain.Event) -> tuple[domain.JsonObject, domain.JsonObject]:
    """Return the fields of an event in a delta, and those beside the delta."""
    match event:
        case domain.ToolCallDelta():
            return {"tool_calls": [tool_call_delta(event)]}, domain.NOTHING
        case domain.TextDelta(logprobs=logprobs):
            return {"content": event.text}, {"logprobs": {"content": logprobs, "refusal": None}} if logprobs else domain.NOTHING
        case domain.ThinkingDelta():
            return _thought(event.text, event.field) if event.text else domain.NOTHING, domain.NOTHING
        case domain.RefusalDelta():
            return {"refusal": event.text}, domain.NOTHING
        case domain.AudioDelta():
            audio = {"id": event.id, "data": event.data, "transcript": event.transcript, "expires_at": event.expires}
            return {"audio": {k: v for k, v in audio.items() if v}}, domain.NOTHING
        case domain.ExtraDelta():
            return event.fields, event.choice_fields
        case _:
            raise TypeError(type(event))


def _merged(old: domain.JsonObject, new: domain.JsonObject) -> domain.JsonObject:
    """Return the fields of both; where both have one, what the two make of it."""
    if not old or not new:
        return old or new
    return {**old, **{name: _joined(name, old[name], value) if name in old else value for name, value in new.items()}}


def _joined(name: str, old: Any, new: Any) -> Any:
    """What two events of one delta make of a field that both have."""
    match old, new:
        case (dict(), dict()):
            return {**old, **new}
        case (str(), str()) | (list(), list()):
            return old + new
        case (str(), list()) if name == "content":
            return [_text_part(old), *new]
        case (list(), str()) if name == "content":
            return [*old, _text_part(new)]
        case _:
            return new


def _text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _may_speak(delta: domain.JsonObject) -> bool:
    """Whether text comes with a first delta, or may come after it."""
    return "content" in delta or all(value is None for value in delta.values())


def _head(fields: domain.JsonObject) -> bytes:
    """A chunk up to the number of its choice."""
    return b"data: " + dumps(fields)[:-1] + b',"choices":[{"index":'


def tool_call_delta(delta: domain.ToolCallDelta) -> dict[str, Any]:
    """A piece of a tool call, as it stands in a chunk. It always has a `function`: clients read it without asking."""
    function: dict[str, str] = {"arguments": delta.arguments}
    if delta.name:
        function = {"name": delta.name, **function}
    call: dict[str, Any] = {"index": delta.index, "function": function}
    if delta.id:
        call = {"index": delta.index, "id": delta.id, "type": delta.extra.get("type", "function"), "function": function}
    return domain.with_extra(call, delta.extra) if delta.extra else call
