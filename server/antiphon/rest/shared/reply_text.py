"""A reply as one text, for dialects that have room for only one: of a whole reply, and piece by piece. No I/O.

Both ways give the same text, in the order in which the model produced it: a stream cannot take back what it has sent, so the text
of a whole reply is what its pieces add up to.

The text consists of all text and refusals, and of the transcripts of audio that came before any of these, or without them. For a
dialect that has no field for tool calls either, the arguments of the first tool call are included if it came before all of these,
or without them. So no output of a model becomes an empty answer.
"""

from __future__ import annotations

from antiphon import domain
from antiphon.domain.reply import ReplyChoice


def reply_text(choice: ReplyChoice) -> str:
    """Return the text of a whole choice, without tool calls."""
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
    """Return the text of a whole choice, with the arguments of its first tool call if they came before the text."""
    has_transcript = any(isinstance(block.value, domain.Audio) and block.early_text for block in choice.blocks)
    call = next((block for block in choice.blocks if isinstance(block.value, domain.ToolCall)), None)
    return ("" if call is None or has_transcript else call.early_text) + reply_text(choice)


class ReplyTextStream:
    """The same text of one choice, piece by piece. Call only one of its methods, for every event of the choice in order."""

    def __init__(self) -> None:
        self._has_text = False
        self._has_transcript = False
        self._call: int | None = None

    def text(self, event: domain.Event) -> str:
        """Return the text that an event adds, without tool calls. May be empty."""
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
        """Return the text that an event adds, or its piece of the first tool call's arguments. May be empty."""
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
