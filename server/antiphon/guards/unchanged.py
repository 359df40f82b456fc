"""Checks parts of a reply that are sent only unchanged: log probabilities, citations, and a provider's fields. No I/O.

They could reveal masked text. So each is sent as it is or not at all, and nothing here masks or blocks a reply.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from antiphon.domain import unknown_fields
from antiphon.domain.content import Citation, JsonObject, State
from antiphon.domain.events import ExtraFields, Place
from antiphon.domain.reply import ReplyChoice
from antiphon.guards.base import Blocked, Guard
from antiphon.guards.json_value import filter_value
from antiphon.guards.opaque import is_opaque


async def allowed_logprobs(guards: Sequence[Guard], text: str, logprobs: tuple[JsonObject, ...]) -> tuple[JsonObject, ...]:
    """Return the log probabilities of a text that passed the guards.

    Empty if their tokens do not spell the text, or if a guard finds something in an alternative token.
    """
    if not logprobs:
        return ()
    if b"".join(map(_token_bytes, logprobs)) != text.encode(errors="surrogatepass"):
        return ()
    others = [other.get("token") for entry in logprobs for other in entry.get("top_logprobs") or () if isinstance(other, Mapping)]
    return logprobs if await _is_unchanged(guards, others) else ()


async def allowed_extras(
    guards: Sequence[Guard], extras: Sequence[ExtraFields], blocks: Mapping[int, JsonObject]
) -> Sequence[ExtraFields] | None:
    """Return the unknown fields of one choice unchanged; None if a guard finds anything in them or in those of its blocks.

    They are checked as a whole, and joined by field name, as values may come in pieces. `blocks` has the fields of blocks, by block
    number.
    """
    whole = ReplyChoice(0)
    texts: defaultdict[str, list[str]] = defaultdict(list)
    kept = []
    for event in extras:
        is_beside = event.place is Place.CHOICE
        fields = {name: value for name, value in event.fields.items() if name != "logprobs"} if is_beside else event.fields
        if fields:
            kept.append(replace(event, fields=fields))
            known = whole.choice_fields if is_beside else whole.fields
            unknown_fields.add(known, fields, joins=not is_beside, continued=event.continued)
            _collect("", [fields], texts)
    for fields in blocks.values():
        _collect("", [fields], texts)
    values = [whole.fields, whole.choice_fields, *blocks.values()]
    return kept if await _is_unchanged(guards, [*values, *("".join(pieces) for pieces in texts.values())]) else None


async def allowed_citation(guards: Sequence[Guard], citation: Citation) -> Citation | None:
    """Return the citation; None if a guard finds anything in it."""
    texts = [citation.url, citation.title, citation.text, citation.source_id, citation.fields]
    return citation if await _is_unchanged(guards, texts) else None


async def allowed_fields(guards: Sequence[Guard], fields: JsonObject) -> JsonObject:
    """Return those fields of a reply in which no guard finds anything."""
    return {name: value for name, value in fields.items() if await _is_unchanged(guards, [value])}


async def allowed_state(guards: Sequence[Guard], state: State) -> State:
    """Return a provider's state with the fields in which no guard finds anything; `allowed_opaque` decides on its opaque value."""
    fields = await allowed_fields(guards, state.fields) if state.fields else state.fields
    opaque = await allowed_opaque(guards, state.opaque)
    same = len(fields) == len(state.fields) and opaque == state.opaque
    return state if same else State(opaque, fields, state.item, state.origin)


async def allowed_opaque(guards: Sequence[Guard], value: str | None) -> str | None:
    """Return a signature or encrypted value; None if it is a text instead, and a guard finds something in it."""
    return value if value is None or is_opaque(value) or await _is_unchanged(guards, [value]) else None


async def _is_unchanged(guards: Sequence[Guard], value: Sequence[Any]) -> bool:
    """Return whether the guards leave all texts of a value unchanged."""
    try:
        return await filter_value(guards, value) is value
    except Blocked:
        return False


def _token_bytes(entry: JsonObject) -> bytes:
    """Return the bytes of a token, which may be part of a character."""
    try:
        return bytes(entry["bytes"])
    except (KeyError, TypeError, ValueError):
        return str(entry.get("token", "")).encode(errors="surrogatepass")


def _collect(name: str, value: Any, texts: defaultdict[str, list[str]]) -> None:
    """Add all texts in a value to `texts` by field name: a text that comes in pieces has one name, whatever is between them."""
    match value:
        case str():
            texts[name].append(value)
        case Mapping():
            for field, inner in value.items():
                _collect(field, inner, texts)
        case list() | tuple():
            for inner in value:
                _collect(name, inner, texts)
        case _:
            pass
