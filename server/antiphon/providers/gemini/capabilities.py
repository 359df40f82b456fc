"""What Gemini's models accept, by name. Data, with its sources.

https://ai.google.dev/gemini-api/docs/thinking, https://ai.google.dev/gemini-api/docs/thought-signatures,
https://ai.google.dev/gemini-api/docs/function-calling and
https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/guides/gemini-3-8-flash ("Supported thinking levels"), and
https://ai.google.dev/gemini-api/docs/image-generation for Gemini 3.1 Flash Image. A model that no row names is taken for one of the
newest.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

SENTINEL: Final = "skip_thought_signature_validator"
"""The documented signature of what another model made."""

_LEVELS: Final = {
    "none": "LOW",  # as little as there is: these models always think
    "minimal": "LOW",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
_FROM_MINIMAL: Final = {**_LEVELS, "none": "MINIMAL", "minimal": "MINIMAL"}  # others refuse MINIMAL, so Gemini 3.7 Flash and later
_IMAGE_LEVELS: Final = {effort: "MINIMAL" if level == "LOW" else "HIGH" for effort, level in _LEVELS.items()}  # it has these two
_FIRST_PRO_LEVELS: Final = {**_LEVELS, "medium": "HIGH"}

# Those of https://ai.google.dev/gemini-api/docs/openai#thinking, within the range of the model.
_BUDGETS: Final = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_PRO_BUDGETS: Final = {**_BUDGETS, "none": 128, "xhigh": 32768, "max": 32768}


class GeminiCapabilities(Struct, frozen=True):
    """What one model accepts."""

    levels: Mapping[str, str]
    """The `thinkingLevel` for each effort; empty if the model has none."""
    budgets: Mapping[str, int] = {}
    """The `thinkingBudget` for each effort; empty if the model has none."""
    signs_calls: bool = True
    """It refuses an earlier step of calls whose first call has no signature."""
    signs_parts: bool = False
    """It refuses an earlier reply if its first part, or an image in it, has no signature."""
    result_media: bool = True
    """It accepts pictures and documents within the result of a tool."""
    formats_beside_tools: bool = True
    """It accepts a format of the reply beside tools."""
    validates: bool = True
    """It can be made to follow the schemas of the tools strictly."""


_NEWEST: Final = GeminiCapabilities(levels=_LEVELS)
_FIRST_FLASH: Final = replace(_NEWEST, levels=_FROM_MINIMAL)
_SECOND: Final = GeminiCapabilities(levels={}, budgets=_BUDGETS, signs_calls=False, result_media=False, formats_beside_tools=False)
_SECOND_PRO: Final = replace(_SECOND, budgets=_PRO_BUDGETS)
_OLD: Final = replace(_SECOND, budgets={}, validates=False)

_ROWS: Final = (
    ("*gemini-1*", _OLD),
    ("*gemini-2.0*", _OLD),
    ("*gemma*", _OLD),
    ("*gemini-2.5*image*", _OLD),
    ("*gemini-2.5*tts*", _OLD),
    ("*gemini-2.5*pro*", _SECOND_PRO),
    ("*gemini-2*", _SECOND),
    ("*gemini-3-pro*image*", GeminiCapabilities(levels={}, validates=False, signs_parts=True)),
    ("*gemini-3-pro*", GeminiCapabilities(levels=_FIRST_PRO_LEVELS)),
    ("*gemini-3.1-flash-image*", replace(_NEWEST, levels=_IMAGE_LEVELS, validates=False, signs_parts=True)),
    ("*gemini-3*image*", replace(_NEWEST, signs_parts=True)),
    ("*gemini-3-flash*", _FIRST_FLASH),
    ("*gemini-3.[1-6]-flash*", _FIRST_FLASH),
    ("*gemini-3*flash-lite*", _FIRST_FLASH),
    ("*gemini-flash-lite-latest*", _FIRST_FLASH),
)


def capabilities_of(model: str) -> GeminiCapabilities:
    """Return what a model accepts."""
    name = model.lower()
    return next((found for pattern, found in _ROWS if fnmatchcase(name, pattern)), _NEWEST)
