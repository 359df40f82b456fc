"""A streamed reply in the OpenAI dialect: `chat.completion.chunk` events. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final, assert_never

from antiphon import domain
from antiphon.domain.content import CUSTOM, FUNCTION_CALL
from antiphon.rest.openai.delta import DeltaFields, OpenBlock, merged
from antiphon.rest.openai.reply import finish_reason, usage_json, written_origin
from antiphon.rest.shared.json import COMMENT, DONE, EVENT_STREAM, dump_texts, dumps

_TEXT_DELTAS: Final = frozenset({domain.TextDelta, domain.ThinkingDelta, domain.InputDelta, domain.RefusalDelta})


class ChunkWriter:
    """Writes the `chat.completion.chunk` events of one stream, with [DONE] at the end."""

    content_type = EVENT_STREAM
    comment = COMMENT

    def __init__(self, *, include_usage: bool, sole: str = "") -> None:
        """Take `include_usage`: whether the caller asked for the token usage, which is sent in a last chunk of its own.

        `sole` is explained at `written_origin`.
        """
        self._sole = sole
        self._include_usage = include_usage
        self._tail = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._usage: domain.Usage | None = None
        self._deltas = DeltaFields()
        self._started_choices: set[int] = set()
        self._choice_fields: dict[int, dict[str, Any]] = {}
        self._prepared: dict[int, tuple[bytes, bytes]] = {}
        """The bytes of a chunk before and after the text of a delta, by block. Empty while the next chunk has fields of its own."""
        self._reply_fields: dict[str, Any] = {}  # fields of every chunk
        self._repeated_fields: domain.JsonObject = domain.NOTHING  # fields of every chunk until the provider sends others
        self._next_fields: dict[str, Any] = {}  # fields of the next chunk only
        self._usual_head = b""  # the bytes of a chunk up to the index of its choice
        self._next_head = b""  # the same for the next chunk, with `_next_fields`

    def write(self, batch: domain.Batch) -> bytes:  # noqa: C901  # a match over the kinds of event; it runs for each token
        """Return the events for a batch. May be empty: not every event has a chunk."""
        pieces: list[bytes] = []
        texts: list[str] = []  # of deltas that follow each other, of block number `run`
        run = -1
        if self._deltas.has_places:
            self._deltas.count(batch)
        events = iter(batch)
        for event in events:
            # By far the most common case, so it builds no dictionary, and all texts of a run become JSON at once.
            kind = type(event)
            is_text = kind in _TEXT_DELTAS and not (kind is domain.TextDelta and event.logprobs)  # type: ignore[union-attr]
            if is_text and event.block == run:  # type: ignore[union-attr]
                texts.append(event.text)  # type: ignore[union-attr]
                continue
            if texts:
                pieces.append(dump_texts(texts, *self._prepared[run]))
                texts, run = [], -1
            if is_text and (event.block in self._prepared or (event.text and self._prepare(event.block))):  # type: ignore[union-attr]
                texts.append(event.text)  # type: ignore[union-attr]
                run = event.block  # type: ignore[union-attr]
                continue
            match event:
                case domain.DeltaGroup(choice, count):
                    self._write_delta(choice, islice(events, count), pieces)
                case domain.ExtraFields(choice=choice):
                    if choice is None:
                        self._set_reply_fields(event)
                    else:
                        self._write_delta(choice, (event,), pieces)
                case domain.Started():
                    self._deltas.set_origin(written_origin(event.origin, self._sole))
                    if self._deltas.has_places:
                        self._deltas.count(batch)
                    self._set_reply_fields(event)
                case domain.BlockStarted():
                    self._write_delta(event.choice, (event,), pieces)
                case domain.BlockFinished() if self._deltas.end_plain(event):
                    self._prepared.pop(event.block, None)
                case domain.BlockFinished() | domain.BlockProgress() | domain.CitationDelta() | domain.MediaDelta():
                    self._write_delta(self._deltas.blocks[event.block].choice, (event,), pieces)
                case domain.TextDelta() | domain.ThinkingDelta() | domain.InputDelta() | domain.RefusalDelta():
                    self._write_delta(self._deltas.blocks[event.block].choice, (event,), pieces)
                case domain.Finished():
                    self._finish(event, pieces)
                case domain.Usage():
                    self._usage = event
                case domain.Metrics():
                    pass
                case _:
                    assert_never(event)
        if texts:
            pieces.append(dump_texts(texts, *self._prepared[run]))
        return b"".join(pieces)

    def end(self) -> bytes:
        """Return what follows the last batch: the token usage, if it is known and the caller asked for it, and [DONE]."""
        if not self._include_usage or self._usage is None:
            return DONE
        return b'%b],"usage":%b}\n\n%b' % (self._next_head.removesuffix(b'{"index":'), dumps(usage_json(self._usage)), DONE)

    def _set_reply_fields(self, event: domain.Started | domain.ExtraFields) -> None:
        """Put fields of the whole reply into the next chunk; fields that the provider repeats, into every chunk."""
        is_pending = self._next_head is not self._usual_head
        if isinstance(event, domain.Started):
            self._reply_fields = {"id": event.id, "object": "chat.completion.chunk", "created": event.created, "model": event.model}
            self._next_fields = dict(event.fields)
            if event.conversation_id:  # as in a whole reply; after a heartbeat, it is too late for the header x-session-id
                self._next_fields["session_id"] = event.conversation_id
        else:
            self._next_fields = self._next_fields if is_pending else {}
            if event.repeats:
                self._repeated_fields = event.fields
            else:
                self._next_fields |= event.fields
        self._prepared.clear()
        self._usual_head = _head({**self._reply_fields, **self._repeated_fields})
        self._next_head = (
            _head({**self._reply_fields, **self._repeated_fields, **self._next_fields}) if self._next_fields else self._usual_head
        )

    def _prepare(self, number: int) -> bool:
        """Store the bytes around the deltas of a block whose deltas have its text and no other field.

        Returns False if its deltas have others, or the next chunk has fields of its own, or is the first one of its choice.
        """
        open_ = self._deltas.blocks[number]
        around = self._frame(open_)
        if around is None or self._next_head is not self._usual_head or open_.choice not in self._started_choices:
            return False
        before, behind = around
        after = b'%b},"logprobs":null,"finish_reason":null}]%b' % (behind, self._tail)
        self._prepared[number] = (b'%b%d,"delta":{%b' % (self._usual_head, open_.choice, before), after)
        return True

    def _frame(self, open_: OpenBlock) -> tuple[bytes, bytes] | None:
        """Return the bytes of a delta before and after the text of a block; None if the delta has other fields as well."""
        match open_.value:
            case domain.Text():
                return b'"content":', b""
            case domain.Thinking(state=None, field=field) if field != "reasoning" and not open_.is_kept:
                return b'"reasoning_content":', b""
            case domain.Refusal():
                return b'"refusal":', b""
            case domain.ToolCall(type=kind, name=name) if name and kind not in (CUSTOM, FUNCTION_CALL):
                return b'"tool_calls":[{"index":%d,"function":{"arguments":' % open_.index, b"}}]"
            case _:
                return None

    def _finish(self, event: domain.Finished, pieces: list[bytes]) -> None:
        choice = event.choice
        if choice not in self._started_choices:
            pieces.append(self._first_chunk(choice, b"null"))
        if (citations := self._deltas.citations.pop(choice, None)) is not None:
            pieces.append(self._chunk(choice, {"annotations": citations}, domain.NOTHING, None))
        reason = finish_reason(event.reason, event.provider_reason, function_call=choice in self._deltas.function_call_choices)
        pieces.append(self._chunk(choice, {}, self._choice_fields.get(choice, {}), reason))

    def _first_chunk(self, choice: int, content: bytes) -> bytes:
        self._started_choices.add(choice)
        return b'%b%d,"delta":{"role":"assistant","content":%b,"refusal":null},"logprobs":null,"finish_reason":null}]%b' % (
            self._take_head(),
            choice,
            content,
            self._tail,
        )

    def _take_head(self) -> bytes:
        head, self._next_head = self._next_head, self._usual_head
        return head

    def _write_delta(self, choice: int, events: Iterable[domain.Event], pieces: list[bytes]) -> None:
        """Append one chunk for events that arrived together; none if they have nothing to write."""
        delta: domain.JsonObject | None = None
        fields = domain.NOTHING
        is_text = False
        for event in events:
            is_text = is_text or (isinstance(event, domain.BlockStarted) and isinstance(event.value, domain.Text))
            added = self._fields_of(event)
            if added is not None:
                delta = added if delta is None else merged(delta, added)
            if isinstance(event, domain.TextDelta) and event.logprobs:
                fields = merged(fields, {"logprobs": {"content": event.logprobs, "refusal": None}})
            elif isinstance(event, domain.ExtraFields) and event.place is domain.Place.CHOICE:
                fields = merged(fields, event.fields)
                # The provider's findings about a choice are repeated in its last chunk, where clients look for them.
                found = {name: value for name, value in event.fields.items() if name != "logprobs" and type(value) is not list}
                self._choice_fields[choice] = self._choice_fields.get(choice, {}) | found
        if choice not in self._started_choices and (delta is not None or is_text):
            pieces.append(self._first_chunk(choice, b'""' if is_text or _may_have_text(delta or {}) else b"null"))
        if delta is not None:
            pieces.append(self._chunk(choice, delta, fields, None))

    def _fields_of(self, event: domain.Event) -> domain.JsonObject | None:
        """Return the fields of an event in a delta; None if it has no chunk."""
        if isinstance(event, domain.BlockFinished):
            self._prepared.pop(event.block, None)
        return self._deltas.fields_of(event)

    def _chunk(self, choice: int, delta: domain.JsonObject, fields: domain.JsonObject, reason: str | None) -> bytes:
        """Return a chunk. `fields` are those of the choice beside the delta."""
        whole = {"delta": delta, "logprobs": None, "finish_reason": reason, **fields}
        return b"%b%d,%b]%b" % (self._take_head(), choice, dumps(whole)[1:], self._tail)


def _may_have_text(delta: domain.JsonObject) -> bool:
    """Return whether a first delta has text, or text may follow it."""
    return "content" in delta or all(value is None for value in delta.values())


def _head(fields: domain.JsonObject) -> bytes:
    """Return the bytes of a chunk up to the index of its choice."""
    return b"data: " + dumps(fields)[:-1] + b',"choices":[{"index":'
