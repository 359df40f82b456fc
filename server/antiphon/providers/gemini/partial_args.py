"""Assembles the arguments of a function call that arrive in pieces, each with the JSON path of its value. No I/O.

https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc. A text goes on in the next
piece of the same path if `willContinue` is set. Objects and lists are made as the paths name them.
"""

from __future__ import annotations

import re
from typing import Any, Final

from antiphon.domain.content import JsonObject
from antiphon.providers.codec.values import MAX_DEPTH

_STEP: Final = re.compile(r"""\.([^.\[\]'"]+)|\[(\d{1,9})\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""")
_ESCAPED: Final = re.compile(r"\\(.)")

_VALUES: Final = ("stringValue", "numberValue", "boolValue", "nullValue")


class PartialArgs:
    """The arguments of one call."""

    def __init__(self, args: JsonObject) -> None:
        """`args` are those that arrived whole."""
        self.value: dict[str, Any] = dict(args)
        self._open: str | None = None  # the path of the text that goes on
        self._pieces: list[str] = []

    def add(self, piece: JsonObject) -> None:
        """Add one entry of `partialArgs`. Raises built-in errors for JSON of another shape."""
        path = piece["jsonPath"]
        kind = next((name for name in _VALUES if name in piece), None)
        if kind is None:
            return
        value = None if kind == "nullValue" else piece[kind]
        if kind == "stringValue":
            if not isinstance(value, str):
                raise TypeError("text")
            if self._open != path:
                self.close()
                self._open = path
            self._pieces.append(value)
            if not piece.get("willContinue"):
                self.close()
            return
        self.close()
        self._set(path, value)

    def close(self) -> None:
        """Write the text that may have gone on."""
        if self._open is not None:
            self._set(self._open, "".join(self._pieces))
            self._open = None
            self._pieces = []

    def _set(self, path: str, value: Any) -> None:
        """Set the value at a path. Raises `ValueError` for a path that does not fit."""
        steps = _steps(path)
        place: Any = self.value
        for step, following in zip(steps, (*steps[1:], None), strict=True):
            made = value if following is None else [] if isinstance(following, int) else {}
            if isinstance(step, int) and isinstance(place, list) and step <= len(place):
                if step == len(place):
                    place.append(made)
                elif following is None:
                    place[step] = value
                place = place[step]
            elif isinstance(step, str) and isinstance(place, dict):
                if following is None:
                    place[step] = value
                place = place.setdefault(step, made)
            else:
                raise ValueError("path")


def _steps(path: str) -> list[str | int]:
    """Return the names and indexes of a path. Raises `ValueError` if it is none, or too deep."""
    steps: list[str | int] = []
    at = 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or len(steps) == MAX_DEPTH:
            raise ValueError("path")
        name, index, *quoted = found.groups()
        text = next((one for one in quoted if one is not None), None)
        steps.append(int(index) if index else name if text is None else _ESCAPED.sub(r"\1", text))
        at = found.end()
    if path[:1] != "$" or not steps:
        raise ValueError("path")
    return steps
