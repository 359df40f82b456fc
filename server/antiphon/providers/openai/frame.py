"""The bytes around the text of a chunk, which most chunks of a stream have in common: only the text has to be decoded then. No I/O.

A chunk that begins and ends as one before it, with a JSON text in between, says the same but for that text.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Struct

from antiphon.domain.content import JsonObject
from antiphon.providers.openai.choice import ChoiceReader

MAX_MISSES: Final = 3
"""The frames that fit no later chunk, after which no further ones are tried: OpenAI pads its chunks to different lengths."""

_decode: Final = msgspec.json.Decoder().decode
_decode_text: Final = msgspec.json.Decoder(str).decode

_CONTENT: Final = re.compile(rb'"content"\s*:\s*("(?:[^"\\]|\\.)*")')
_PROBE: Final = "antiphon"


class TextFrame(Struct):
    """What a chunk with a text has before and behind it."""

    before: bytes
    behind: bytes
    choice: ChoiceReader
    block: int
    """The number of the block that the text belongs to."""
    has_fitted: bool = False
    """Whether a later chunk was read with it."""

    def text_of(self, payload: bytes) -> str:
        """Return the text of a chunk; empty if the chunk does not fit."""
        before, behind = self.before, self.behind
        if not (payload.startswith(before) and payload.endswith(behind)):
            return ""
        try:
            return _decode_text(payload[len(before) : len(payload) - len(behind)])
        except ValueError:
            return ""


def frame_of(payload: bytes, choice: ChoiceReader, block: int) -> TextFrame | None:
    """Return the frame of a chunk that has one choice, with a delta of a text; None if the place of the text is not certain."""
    found = _CONTENT.search(payload)
    if found is None:
        return None
    before, behind = payload[: found.start(1)], payload[found.end(1) :]
    # Another field may be called "content" too: try where a text ends up.
    probe: JsonObject = _decode(b'%b"%b"%b' % (before, _PROBE.encode(), behind))
    if probe["choices"][0]["delta"].get("content") != _PROBE:
        return None
    return TextFrame(before, behind, choice, block)
