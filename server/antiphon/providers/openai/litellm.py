"""Finds the pieces of thinking that belong together in replies which LiteLLM passes on. No I/O.

LiteLLM streams blocks of thinking as lists of objects without an index: all pieces up to a signature are one block.
https://docs.litellm.ai/docs/reasoning_content
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from antiphon.domain.content import JsonObject


class UnsignedThinking(Struct):
    """The fields of one choice in which a block of thinking is still open."""

    _open: set[str] = set()

    def read(self, fields: JsonObject) -> frozenset[str]:
        """Read the unknown fields of a delta, and return the names of those whose first item goes on with the last one before."""
        continued: set[str] = set()
        for name, value in fields.items():
            if not isinstance(value, list) or not value:
                continue
            if name in self._open and _is_thinking(value[0]):
                continued.add(name)
            if _is_thinking(value[-1]) and not value[-1]["signature"]:
                self._open.add(name)
            else:
                self._open.discard(name)
        return frozenset(continued)


def _is_thinking(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "thinking" and "signature" in item and "index" not in item
