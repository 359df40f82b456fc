"""Thoughts and provider state of a reply that a client of chat completions sends back. No I/O.

What the gateway wrote is taken out of the fields of the message. What somebody else wrote stays in `extra`.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from antiphon.domain.content import NOTHING, Block, JsonObject, RedactedThinking, State, Text, Thinking
from antiphon.domain.opaque import split
from antiphon.providers.openai.blocks import EXTRA_CONTENT, take_signature
from antiphon.providers.openai.details import DETAILS, ReasoningDetail, read_details
from antiphon.rest.shared.carried import read_carried
from antiphon.rest.shared.places import BlockPlace, place_of

_REPEATED_NAMES: Final = ("id", "format")
"""Names that a provider repeats in each streamed piece of an entry of `reasoning_details`."""

_MIN_NAME: Final = 5
_MAX_NAME: Final = 4096
"""The shortest name that is checked for repetition, and the longest repeated one, in characters."""


class Returned(Struct):
    """What a client sends back of a provider's state."""

    thoughts: list[Block] = field(default_factory=list)
    places: list[BlockPlace | None] = field(default_factory=list)
    """Those of the thoughts."""
    texts: list[tuple[BlockPlace, State]] = field(default_factory=list)
    """The state of pieces of the text."""
    calls: dict[str, State] = field(default_factory=dict)
    """The state of calls, by id."""

    def add_thought(self, block: Block, place: BlockPlace | None = None) -> None:
        """Add a thought."""
        self.thoughts.append(block)
        self.places.append(place)


def take_state(extra: dict[str, Any]) -> Returned:
    """Remove the thinking fields from `extra`, and return what they hold.

    Entries of `reasoning_details` add signatures, encrypted blocks, and the state of texts and calls.
    """
    found = Returned()
    text, name = _take_text(extra)
    details = read_details(extra.get(DETAILS))
    if details is not None:
        del extra[DETAILS]
        details = [detail for detail in map(_named_once, details) if not _is_of_answer(detail, found)]
    if not details:
        if text is not None:
            found.add_thought(Thinking(text, name))
        return found
    others = "".join(detail.text for detail in details[1:])
    if text is not None and others and not details[0].text and details[0].signature and text.endswith(others):
        details[0] = replace(details[0], text=text.removesuffix(others))  # a stream has the text of the first one only there
    elif text is not None and not any(detail.text for detail in details):
        if details[0].signature is None or details[0].data is not None:
            found.add_thought(Thinking(text, name))
        else:
            details[0] = replace(details[0], text=text)
    for detail in details:
        place = place_of(detail.fields[DETAILS])
        if detail.data is not None:
            found.add_thought(RedactedThinking(state=read_carried(detail.data, detail.fields).state), place)
        elif detail.signature is None:
            found.add_thought(Thinking(detail.text, name, state=State(fields=detail.fields)), place)
        else:
            carried = read_carried(detail.signature, detail.fields)
            found.add_thought(Thinking(detail.text, carried.field or name, state=carried.state), place)
    return found


def _take_text(extra: dict[str, Any]) -> tuple[str | None, str]:
    """Return the text of the thoughts, and the name of the provider's own field for it. The same text under both names is one."""
    reasoning_content, reasoning = extra.get("reasoning_content"), extra.get("reasoning")
    if isinstance(reasoning_content, str):
        del extra["reasoning_content"]
        if reasoning != reasoning_content:
            return reasoning_content, ""
    if isinstance(reasoning, str):
        return extra.pop("reasoning"), "reasoning"
    return None, ""


def _is_of_answer(detail: ReasoningDetail, found: Returned) -> bool:
    """Return whether an entry has the state of a text or a call, which is then added to `found`."""
    carried = None if detail.data is None else read_carried(detail.data)
    if carried is not None and carried.text is not None:
        found.texts.append((carried.text, carried.state))
    elif carried is not None and carried.call:
        found.calls[carried.call] = carried.state
    else:
        return False
    return True


def _named_once(detail: ReasoningDetail) -> ReasoningDetail:
    """Return an entry with each of its names once: the OpenAI SDK's stream helper concatenates names that every piece repeats."""
    entry = {
        name: _unit(value) if name in _REPEATED_NAMES and isinstance(value, str) else value
        for name, value in detail.fields[DETAILS].items()
    }
    return replace(detail, fields={DETAILS: entry})


def _unit(value: str) -> str:
    """Return the part that a text repeats, if the text is nothing but repetitions of at least `_MIN_NAME` characters."""
    length = (value + value).find(value, 1) if len(value) <= _MAX_NAME else 0
    return value[:length] if length >= _MIN_NAME else value


def with_signatures(content: tuple[Block, ...], extra: dict[str, Any], found: Returned) -> tuple[Block, ...]:
    """Return the content, with the signature of `extra`, if there is one, as the state of its last text.

    Signatures with a place are added to `found` instead. Of those that a stream repeats, the last one counts.
    """
    if EXTRA_CONTENT not in extra:
        return content
    rest = dict(extra)
    signature = take_signature(rest)
    if signature is None:
        return content
    fields: JsonObject = {EXTRA_CONTENT: rest[EXTRA_CONTENT]} if EXTRA_CONTENT in rest else NOTHING
    pieces = [read_carried(one, fields) for one in split(signature)]
    last = next((at for at in range(len(content) - 1, -1, -1) if isinstance(content[at], Text)), None)
    has_places = all(piece.text is not None for piece in pieces)
    if last is None and not has_places:
        return content
    del extra[EXTRA_CONTENT]
    if last is None or has_places:
        found.texts += {piece.text: (piece.text, piece.state) for piece in pieces if piece.text is not None}.values()
        return content
    return (*content[:last], replace(content[last], state=pieces[-1].state), *content[last + 1 :])
