"""What is shown of a reply where a dialect has room for one text: of a whole reply, and piece by piece. No I/O.

Both have the same text, in the order in which the model says it: what a stream has sent cannot be taken back, so that a whole reply
is what its pieces add up to.

The text and the refusal; what is said in sound that comes before either, or alone. Where a dialect has no place for a tool call
either, the arguments of the first one that comes before all of them, or alone. Nothing that a model says becomes an empty answer.
"""

from __future__ import annotations

from antiphon import domain
from antiphon.domain.reply import ReplyChoice


def shown(choice: ReplyChoice) -> str:
    """Return the text of a whole choice."""
    pieces: list[str] = []
    for block in choice.blocks:
        match block.value:
            case domain.Text() | domain.Refusal():
                pieces.append(block.text)
            case domain.Audio():
                pieces.append(block.early_text)
            case _:
                pass
    return "".join(pieces)


def shown_or_called(choice: ReplyChoice) -> str:
    """Return the same, or with it the arguments of the tool that the model asks for."""
    heard = any(isinstance(block.value, domain.Audio) and block.early_text for block in choice.blocks)
    call = next((block for block in choice.blocks if isinstance(block.value, domain.ToolCall)), None)
    return ("" if call is None or heard else call.early_text) + shown(choice)


class Shown:
    """The same texts in pieces, of one choice."""

    def __init__(self) -> None:
        self._speaks = False
        self._heard = False
        self._call: int | None = None

    def text(self, event: domain.Event) -> str:
        """Return what an event of the choice adds. May be empty."""
        match event:
            case domain.TextDelta(text=text) | domain.RefusalDelta(text=text):
                return text
            case domain.BlockStarted(value=domain.Text() | domain.Refusal()):
                self._speaks = True
                return ""
            case domain.MediaDelta(transcript=text) if not self._speaks:
                self._heard = self._heard or bool(text)
                return text
            case _:
                return ""

    def text_or_arguments(self, event: domain.Event) -> str:
        """Return the same, or more of the arguments."""
        text = self.text(event)
        if text or self._speaks or self._heard:
            return text
        match event:
            case domain.BlockStarted(block=block, value=domain.ToolCall()):
                self._call = block if self._call is None else self._call
                return ""
            case domain.InputDelta(block=block, text=text):
                return text if block == self._call else ""
            case _:
                return ""
