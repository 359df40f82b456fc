"""What is shown of a reply where a dialect has room for one text: of a whole reply, and piece by piece. No I/O.

Both have the same text, in the order in which the model says it: what a stream has sent cannot be taken back, so that a whole reply
is what its pieces add up to.

The text and the refusal; what is said in sound that comes before either, or alone. Where a dialect has no place for a tool call
either, the arguments of the first one that comes before all of them, or alone. Nothing that a model says becomes an empty answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from antiphon import domain
from antiphon.domain.reply import ReplyChoice


def shown(choice: ReplyChoice) -> str:
    """The text of a whole choice."""
    return _whole(choice, Shown().text)


def shown_or_called(choice: ReplyChoice) -> str:
    """The same, or the arguments of the tool that the model asks for."""
    return _whole(choice, Shown().text_or_arguments)


def _whole(choice: ReplyChoice, piece: Callable[[domain.Event], str]) -> str:
    """All pieces of a choice, those of text between two others at once."""
    pieces: list[str] = []
    start = 0
    for end, event in choice.beside:
        if end > start:
            pieces.append(piece(domain.TextDelta(choice.index, "".join(choice.text[start:end]))))
            start = end
        pieces.append(piece(event))
    pieces += choice.text[start:]
    return "".join(pieces)


class Shown:
    """The same texts in pieces, of one choice."""

    def __init__(self) -> None:
        self._spoken = False
        self._heard = False
        self._call: int | None = None

    def text(self, event: domain.Event) -> str:
        """What an event of the choice adds. May be empty."""
        match event:
            case domain.TextDelta(text=text) | domain.RefusalDelta(text=text):
                self._spoken = self._spoken or bool(text)
                return text
            case domain.AudioDelta(transcript=text) if not self._spoken:
                self._heard = self._heard or bool(text)
                return text
            case _:
                return ""

    def text_or_arguments(self, event: domain.Event) -> str:
        """The same, or more of the arguments."""
        text = self.text(event)
        if text or self._spoken or self._heard:
            return text
        match event:
            case domain.ToolCallDelta():
                if self._call is None:
                    self._call = event.index
                return event.arguments if event.index == self._call else ""
            case domain.ExtraDelta():
                return self._of_extra(event.fields)
            case _:
                return ""

    def _of_extra(self, fields: domain.JsonObject) -> str:
        """The function of 2023, or a call of a kind that only the provider knows."""
        for place, call in enumerate(fields.get("tool_calls", ())):
            index = call.get("index", place)
            if self._call is None:
                self._call = index
            if index == self._call:
                return _arguments(call)
        return _arguments(fields)


def _arguments(call: Mapping[str, Any]) -> str:
    """What a tool is told: of a function's call, of one of 2023, or of a tool that takes plain text."""
    match call:
        case (
            {"function": {"arguments": str(text)}} | {"function_call": {"arguments": str(text)}} | {"custom": {"input": str(text)}}
        ):
            return text
        case _:
            return ""
