"""The events of a reply, converted to fields of deltas of the OpenAI dialect. No I/O.

Opaque values are wrapped (`antiphon.domain.opaque`).
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from antiphon import domain
from antiphon.domain import unknown_fields
from antiphon.domain.content import CUSTOM, FUNCTION_CALL
from antiphon.providers.openai.block_json import (
    call_json,
    citation_json,
    detail_json,
    function_call_json,
    placed_citation,
    with_signature,
)
from antiphon.providers.openai.blocks import is_chat
from antiphon.providers.openai.details import DETAILS
from antiphon.rest.openai.reply import image_entry, signature_of, state_fields, text_part, thinking_fields
from antiphon.rest.shared.carried import carried, item_entry
from antiphon.rest.shared.places import BlockPlace, placed


class OpenBlock:
    """A block that has started and is not finished."""

    __slots__ = ("arguments", "choice", "citations", "index", "is_kept", "place", "value")

    def __init__(self, choice: int, value: domain.Block, index: int) -> None:
        self.choice = choice
        self.value = value
        self.index = index
        """Its number among the tool calls, or the thinking blocks, of its choice."""
        self.arguments = ""
        """The arguments of a tool call of an unknown kind, or a thought that is kept: both are written when it is finished."""
        self.citations: list[domain.Citation] = []
        """What is cited in a text of a provider with another protocol."""
        self.is_kept = False
        """Whether it is a thought after another one. If it is signed, its text is written again, so that each has its own."""
        self.place = BlockPlace()
        """Where it stands, if it is a text or a thought of a provider with another protocol."""


class DeltaFields:
    """Makes the fields of deltas. It must be given every event of a reply once, in order."""

    def __init__(self) -> None:
        self.function_call_choices: set[int] = set()
        """The choices that have the single function call of 2023."""
        self.blocks: dict[int, OpenBlock] = {}
        """The open blocks, by number."""
        self.citations: dict[int, list[domain.JsonObject]] = {}
        """What is cited in each choice, which is one delta at its end, as OpenAI has it: its SDK takes no second one."""
        self._origin = domain.Origin()
        self._counts: dict[tuple[int, str], int] = {}
        self._signatures: dict[int, str] = {}
        """The signatures of the texts of each choice, which are sent again with the next one: clients may keep only the last."""
        self.has_places = False
        """The provider has another protocol, so that clients get the places of blocks. `count` must be given each batch first."""
        self._choices: dict[int, int] = {}
        self._lengths: dict[int, int] = {}
        """The choice of each block, and the length of the text of each choice."""
        self._spans: dict[int, list[int]] = {}
        """Where the text of a block begins and ends, for texts and thoughts that are open."""

    def set_origin(self, origin: domain.Origin) -> None:
        """Set the origin of the reply, which wrapped values name."""
        self._origin = origin
        self.has_places = not is_chat(origin)

    def count(self, batch: domain.Batch) -> None:
        """Find where in the text of its choice each block of a batch begins and ends."""
        for event in batch:
            if type(event) is domain.TextDelta:
                choice = self._choices[event.block]
                self._lengths[choice] = end = self._lengths[choice] + len(event.text)
                self._spans[event.block][1] = end
            elif type(event) is domain.BlockStarted:
                length = self._lengths.setdefault(event.choice, 0)
                self._choices[event.block] = event.choice
                self._spans[event.block] = [length, length]

    def fields_of(self, event: domain.Event) -> domain.JsonObject | None:
        """Return the fields of an event in a delta; None if it has no chunk."""
        match event:
            case domain.BlockStarted():
                return self._start(event)
            case domain.BlockFinished():
                return self._end(event)
            case domain.TextDelta() | domain.ThinkingDelta() | domain.InputDelta() | domain.RefusalDelta():
                return self._text(self.blocks[event.block], event.text)
            case domain.MediaDelta():
                audio = {"id": event.id, "data": event.data, "transcript": event.transcript, "expires_at": event.expires}
                known = self.blocks[event.block].value
                if isinstance(known, domain.Audio) and known.id:
                    audio["id"] = event.id or known.id
                    self.blocks[event.block].value = replace(known, id="")
                return {"audio": {name: value for name, value in audio.items() if value}}
            case domain.CitationDelta():
                return self._cite(event)
            case domain.ExtraFields(place=domain.Place.MESSAGE):
                return event.fields if is_chat(self._origin) else None
            case domain.ExtraFields():
                return domain.NOTHING
            case _:
                return None

    def _cite(self, event: domain.CitationDelta) -> domain.JsonObject | None:
        """Return the citation as the provider's own delta, or keep it until the end of the choice."""
        if not self.has_places:
            return {"annotations": [citation_json(event.citation)]}
        self.blocks[event.block].citations.append(event.citation)
        return None

    def _start(self, event: domain.BlockStarted) -> domain.JsonObject | None:
        value = event.value
        kind = "call" if isinstance(value, domain.ToolCall) else "thought"
        index = self._counts.get((event.choice, kind), 0)
        opened = self.blocks[event.block] = OpenBlock(event.choice, value, index)
        texts = self._counts.get((event.choice, "text"), 0)
        if self.has_places and isinstance(value, domain.Text | domain.Thinking | domain.RedactedThinking):
            opened.place = BlockPlace(texts, self._counts.get((event.choice, "call"), 0), self._spans[event.block][0])
        if self.has_places and isinstance(value, domain.Thinking | domain.RedactedThinking):
            thoughts = self._counts.get((event.choice, "any thought"), 0)
            self._counts[event.choice, "any thought"] = thoughts + 1
            opened.is_kept = thoughts > 0 and value.state is None
        elif isinstance(value, domain.Text):
            self._counts[event.choice, "text"] = texts + 1
        match value:
            case domain.ToolCall(type="function_call"):
                self.function_call_choices.add(event.choice)
                return {"function_call": function_call_json(value, state_fields(value, self._origin))}
            case domain.ToolCall():
                self._counts[event.choice, kind] = index + 1
                if not value.name:
                    return None
                return {"tool_calls": [_first_call_entry(value, index, self._origin)]}
            case domain.RedactedThinking():
                self._counts[event.choice, kind] = index + 1
                return {DETAILS: [placed(detail_json(value, index, carried(value, self._origin)), opened.place)]}
            case domain.Thinking() if value.state is not None:
                self._counts[event.choice, kind] = index + 1
                return None
            case domain.Image():
                number = self._counts.get((event.choice, "image"), 0)
                self._counts[event.choice, "image"] = number + 1
                return {"images": [image_entry(value, number, self._origin)]}
            case domain.Opaque() if not self.has_places:
                return {"content": [value.form]}
            case _:
                return None

    def _text(self, open_: OpenBlock, text: str) -> domain.JsonObject | None:
        """Return the fields for more text of a block."""
        match open_.value:
            case domain.Text():
                return {"content": text}
            case domain.Refusal():
                return {"refusal": text}
            case domain.Thinking() as thought:
                if not text:
                    return None
                if open_.is_kept:
                    open_.arguments += text
                fields: dict[str, Any] = dict.fromkeys(thinking_fields(thought), text)
                if thought.state is not None:
                    fields[DETAILS] = [detail_json(thought, open_.index, None, text)]
                return fields
            case domain.ToolCall(type="function_call"):
                return {"function_call": {"arguments": text}}
            case domain.ToolCall(type="custom"):
                return {"tool_calls": [{"index": open_.index, "custom": {"input": text}}]}
            case domain.ToolCall(name=""):
                open_.arguments += text
                return None
            case domain.ToolCall():
                return {"tool_calls": [{"index": open_.index, "function": {"arguments": text}}]}
            case _:
                return None

    def end_plain(self, event: domain.BlockFinished) -> bool:
        """End a block, and return True, if it is a text of which nothing is left to be written; else do nothing."""
        open_ = self.blocks[event.block]
        if self.has_places or event.state is not None or type(open_.value) is not domain.Text or open_.value.state is not None:
            return False
        del self.blocks[event.block]
        return True

    def _end(self, event: domain.BlockFinished) -> domain.JsonObject | None:
        """Return the fields that are known only when a block is finished; None if there are none."""
        open_ = self.blocks.pop(event.block)
        before = open_.value.state
        value = open_.value if event.state is None else replace(open_.value, state=event.state)
        start, end = self._spans.pop(event.block, (0, 0))
        if open_.citations:
            made = (placed_citation(one, start, end) for one in open_.citations)
            self.citations.setdefault(open_.choice, []).extend(made)
        match value:
            case domain.ToolCall():
                return self._end_call(open_, value, event)
            case domain.Thinking() if (opaque := carried(value, self._origin)) is not None:
                if before is None:
                    open_.index = self._next_entry(open_.choice)
                return {DETAILS: [placed(detail_json(value, open_.index, opaque, open_.arguments), open_.place)]}
            case domain.Text():
                place = replace(open_.place, end=end) if self.has_places else None
                signature = signature_of(value, self._origin, place)
                if signature is None:
                    return self._item(open_.choice, value, place)
                if place is not None:
                    self._signatures[open_.choice] = signature = self._signatures.get(open_.choice, "") + signature
                return with_signature(dict(state_fields(value, self._origin)), signature)
            case _:
                return None

    def _end_call(self, open_: OpenBlock, value: domain.ToolCall, event: domain.BlockFinished) -> domain.JsonObject | None:
        """Return what is known of a call only at its end."""
        before = open_.value.state
        opaque = signature_of(value, self._origin)
        if not value.name and value.type != FUNCTION_CALL:
            call = replace(value, arguments=open_.arguments)
            entry = {"index": open_.index, **call_json(call, state_fields(call, self._origin), opaque)}
            return {"tool_calls": [entry], **(self._item(open_.choice, value) or {})}
        if event.state is None:
            return None
        known = domain.NOTHING if before is None else before.fields
        fields = {name: one for name, one in state_fields(value, self._origin).items() if known.get(name) != one}
        already_sent = before is not None and before.opaque == event.state.opaque
        entry = {"index": open_.index}
        if value.type != CUSTOM:
            entry["function"] = {"arguments": ""}
        made = {"tool_calls": [with_signature(domain.with_extra(entry, fields), None if already_sent else opaque)]}
        return {**made, **(self._item(open_.choice, value) or {})}

    def _item(self, choice: int, value: domain.Text | domain.ToolCall, place: BlockPlace | None = None) -> domain.JsonObject | None:
        """Return the entry with the item of a text or call; None if it is not part of one."""
        entry = item_entry(value, self._origin, self._counts.get((choice, "thought"), 0), place)
        if entry is None:
            return None
        self._next_entry(choice)
        return {DETAILS: [entry]}

    def _next_entry(self, choice: int) -> int:
        """Return the index of a new entry of `reasoning_details`."""
        index = self._counts.get((choice, "thought"), 0)
        self._counts[choice, "thought"] = index + 1
        return index


def _first_call_entry(call: domain.ToolCall, index: int, origin: domain.Origin) -> dict[str, Any]:
    """Return the first entry of a tool call in a stream.

    It has a `function`, which clients read without checking for it, unless the tool takes plain text.
    """
    return {"index": index, **call_json(call, state_fields(call, origin), signature_of(call, origin))}


def merged(old: domain.JsonObject, new: domain.JsonObject) -> domain.JsonObject:
    """Return the fields of both deltas. A field that both have is combined."""
    if not old or not new:
        return old or new
    return {**old, **{name: _joined(name, old[name], value) if name in old else value for name, value in new.items()}}


def _joined(name: str, old: Any, new: Any) -> Any:
    """Return the combined value of a field that two events of one delta have."""
    match old, new:
        case (dict(), dict()):
            return merged(old, new) if name == "function_call" else {**old, **new}
        case (list(), list()) if name == "tool_calls":
            calls: dict[str, Any] = {name: old}
            unknown_fields.add(calls, {name: new}, joins=True)
            return calls[name]
        case (str(), str()) | (list(), list()):
            return old + new
        case (str(), list()) if name == "content":
            return [text_part(old), *new]
        case (list(), str()) if name == "content":
            return [*old, text_part(new)]
        case _:
            return new
