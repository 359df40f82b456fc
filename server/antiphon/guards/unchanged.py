"""What goes with a text only where no guard changes anything: log probabilities, and fields that only a provider knows. No I/O.

Both could spell out what was masked. So they are told whole or not at all, and nothing here masks or blocks a reply.
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
from antiphon.guards.json_value import passed_value
from antiphon.guards.opaque import is_opaque


async def passed_logprobs(guards: Sequence[Guard], text: str, logprobs: tuple[JsonObject, ...]) -> tuple[JsonObject, ...]:
    """The log probabilities of a text that passed: none if they spell another, or a guard finds something in an alternative."""
    if not logprobs:
        return ()
    if b"".join(map(_spelt, logprobs)) != text.encode(errors="surrogatepass"):
        return ()
    others = [other.get("token") for entry in logprobs for other in entry.get("top_logprobs") or () if isinstance(other, Mapping)]
    return logprobs if await _pass(guards, others) else ()


async def passed_extras(
    guards: Sequence[Guard], extras: Sequence[ExtraFields], blocks: Mapping[int, JsonObject]
) -> Sequence[ExtraFields] | None:
    """All fields of one choice that only its provider knows: None if a guard finds something, together or by name of field.

    `blocks` are those of blocks, by their numbers.
    """
    whole = ReplyChoice(0)
    texts: defaultdict[str, list[str]] = defaultdict(list)
    kept = []
    for event in extras:
        is_beside = event.place is Place.CHOICE
        fields = {name: value for name, value in event.fields.items() if name != "logprobs"} if is_beside else event.fields
        if fields:
            kept.append(replace(event, fields=fields))
            unknown_fields.add(whole.choice_fields if is_beside else whole.fields, fields, joins=not is_beside)
            _collect("", [fields], texts)
    for fields in blocks.values():
        _collect("", [fields], texts)
    values = [whole.fields, whole.choice_fields, *blocks.values()]
    return kept if await _pass(guards, [*values, *("".join(pieces) for pieces in texts.values())]) else None


async def passed_citation(guards: Sequence[Guard], citation: Citation) -> Citation | None:
    """A source, if no guard finds anything in what is said of it."""
    said = [citation.url, citation.title, citation.text, citation.source_id, citation.fields]
    return citation if await _pass(guards, said) else None


async def passed_fields(guards: Sequence[Guard], fields: JsonObject) -> JsonObject:
    """Fields of a reply as a whole that only its provider knows: those in which no guard finds anything."""
    return {name: value for name, value in fields.items() if await _pass(guards, [value])}


async def passed_state(guards: Sequence[Guard], state: State) -> State:
    """A provider's state: those of its fields in which no guard finds anything, and what is opaque as `passed_opaque` tells."""
    fields = await passed_fields(guards, state.fields) if state.fields else state.fields
    opaque = await passed_opaque(guards, state.opaque)
    same = len(fields) == len(state.fields) and opaque == state.opaque
    return state if same else State(opaque, fields, state.item, state.origin)


async def passed_opaque(guards: Sequence[Guard], value: str | None) -> str | None:
    """A signature or what is encrypted; None for a text in that place in which a guard finds something."""
    return value if value is None or is_opaque(value) or await _pass(guards, [value]) else None


async def _pass(guards: Sequence[Guard], value: Sequence[Any]) -> bool:
    try:
        return await passed_value(guards, value) is value
    except Blocked:
        return False


def _spelt(entry: JsonObject) -> bytes:
    """What a token stands for: a part of a character, at times."""
    try:
        return bytes(entry["bytes"])
    except (KeyError, TypeError, ValueError):
        return str(entry.get("token", "")).encode(errors="surrogatepass")


def _collect(name: str, value: Any, texts: defaultdict[str, list[str]]) -> None:
    """Adds the texts in a value, by name of field: what comes in pieces has one name, whatever else there is between them."""
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
