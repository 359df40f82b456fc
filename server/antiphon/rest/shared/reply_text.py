"""What is shown of a reply where a dialect has room for one text: of a whole reply, and piece by piece. No I/O.

Both have the same text, in the order in which the model says it: what a stream has sent cannot be taken back, so that a whole reply
is what its pieces add up to.

The text and the refusal; what is said in sound that comes before either, or alone. Where a dialect has no place for a tool call
either, the arguments of the first one that comes before all of them, or alone. Nothing that a model says becomes an empty answer.
"""

from __future__ import annotations

from antiphon import domain
from antiphon.domain.reply import ReplyChoice


def reply_text(choice: ReplyChoice) -> str:
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


def reply_text_or_arguments(choice: ReplyChoice) -> str:
    """Return the same, or with it the arguments of the tool that the model asks for."""
    has_transcript = any(isinstance(block.value, domain.Audio) and block.early_text for block in choice.blocks)
    call = next((block for block in choice.blocks if isinstance(block.value, domain.ToolCall)), None)
    return ("" if call is None or has_transcript else call.early_text) + reply_text(choice)


class ReplyTextStream:
    """The same texts in pieces, of one choice."""

    def __init__(self) -> None:
        self._has_text = False
        self._has_transcript = False
        self._call: int | None = None

    def text(self, event: domain.Event) -> str:
        """Return what an event of the choice adds. May be empty."""
        match event:
            case domain.TextDelta(text=text) | domain.RefusalDelta(text=text):
                return text
            case domain.BlockStarted(value=domain.Text() | domain.Refusal()):
                self._has_text = True
                return ""
            case domain.MediaDelta(transcript=text) if not self._has_text:
                self._has_transcript = self._has_transcript or bool(text)
                return text
            case _:
                return ""

    def text_or_arguments(self, event: domain.Event) -> str:
        """Return the same, or more of the arguments."""
        text = self.text(event)
        if text or self._has_text or self._has_transcript:
            return text
        match event:
            case domain.BlockStarted(block=block, value=domain.ToolCall()):
                self._call = block if self._call is None else self._call
                return ""
            case domain.InputDelta(block=block, text=text):
                return text if block == self._call else ""
            case _:
                return ""
