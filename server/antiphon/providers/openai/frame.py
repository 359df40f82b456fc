"""The bytes around the text of a chunk, which most chunks of a stream have in common: only the text has to be decoded then. No I/O.

A chunk that begins and ends as one before it, with a JSON text in between, says the same but for that text. And as a JSON text has
no line breaks, all chunks of a read can be split at what is between two texts, and all texts be decoded in one step.
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
_texts: Final = msgspec.json.Decoder(str)

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
            return _texts.decode(payload[len(before) : len(payload) - len(behind)])
        except ValueError:
            return ""

    def texts_of(self, data: bytes) -> tuple[list[str], bytes]:
        """Return the texts of the server-sent events at the start of `data`, and the rest; no texts if those do not all fit."""
        before, behind = self.before, self.behind
        end = data.rfind(behind + b"\n\n")
        if end < 0 or not data.startswith(b"data: "):
            return [], data
        payloads = data[6 : end + len(behind)].split(b"\n\ndata: ")
        first, last = len(before), -len(behind)
        lines = [payload[first:last] for payload in payloads]
        # One comparison of all costs less than one of each.
        if (behind + b"\n\ndata: " + before).join(lines) != data[6 + first : end]:
            return [], data
        try:
            texts = _texts.decode_lines(b"\n".join(lines))
        except ValueError:
            return [], data
        if len(texts) != len(lines) or "" in texts:
            return [], data
        return texts, data[end + len(behind) + 2 :]


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
