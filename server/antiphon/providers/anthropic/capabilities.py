"""What each Claude model accepts, as rows of data. No I/O.

https://platform.claude.com/docs/en/about-claude/models/overview, https://platform.claude.com/docs/en/build-with-claude/effort and
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages. A Claude model without a row counts as the
newest of its family. A model of another company, on a host that has this API too, accepts what the API had at first.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from msgspec import Struct
from msgspec.structs import replace


class ThinkingControl(Enum):
    """How thinking is asked for."""

    NONE = auto()
    """The model cannot think."""
    BUDGET = auto()
    """By a number of tokens."""
    ADAPTIVE = auto()
    """By an effort; the model decides how much it needs."""


class ThinkingOff(Enum):
    """What comes closest to no thinking at all."""

    DISABLED = auto()
    BETWEEN_TOOLS = auto()
    """The model thinks only after the results of tools."""
    LOW_EFFORT = auto()
    """The model always thinks."""


class ModelCapabilities(Struct, frozen=True, kw_only=True):
    """What one family of models accepts."""

    max_output: int
    """The highest `max_tokens`."""
    thinking: ThinkingControl
    off: ThinkingOff = ThinkingOff.DISABLED
    efforts: frozenset[str] = frozenset()
    """The values of `output_config.effort`; empty if there is no effort."""
    sampling: bool = True
    """Whether temperature, top_p and top_k may be set."""
    top_p_beside_temperature: bool = True
    """Whether top_p may be set beside a temperature."""
    forced_tools: bool = True
    """Whether a tool call can be demanded."""
    structured_output: bool = True
    prefill: bool = True
    """Whether it continues a reply that comes last."""
    system_turns: bool = False
    """Whether instructions may follow a user message."""


_EFFORTS: Final = frozenset({"low", "medium", "high"})
_UP_TO_MAX: Final = _EFFORTS | {"max"}
_ALL: Final = _UP_TO_MAX | {"xhigh"}

_FIRST: Final = ModelCapabilities(max_output=4096, thinking=ThinkingControl.NONE, structured_output=False)
_BUDGET: Final = ModelCapabilities(max_output=64_000, thinking=ThinkingControl.BUDGET, top_p_beside_temperature=False)
_BUDGET_ONLY: Final = ModelCapabilities(max_output=64_000, thinking=ThinkingControl.BUDGET, structured_output=False)
_OPUS_4: Final = ModelCapabilities(max_output=32_000, thinking=ThinkingControl.BUDGET, structured_output=False)
_OPUS_4_1: Final = replace(_BUDGET, max_output=32_000)
_OPUS_4_5: Final = replace(_BUDGET, efforts=_EFFORTS)
_4_6: Final = replace(_BUDGET, max_output=128_000, thinking=ThinkingControl.ADAPTIVE, efforts=_UP_TO_MAX, prefill=False)
_FIXED_SAMPLING: Final = replace(_4_6, efforts=_ALL, sampling=False, top_p_beside_temperature=True)
_NEWEST: Final = replace(_FIXED_SAMPLING, system_turns=True)
_ALWAYS_THINKS: Final = replace(_NEWEST, off=ThinkingOff.LOW_EFFORT)
_NO_FORCED_TOOLS: Final = replace(_ALWAYS_THINKS, forced_tools=False)
_SONNET_5_5: Final = replace(_NEWEST, off=ThinkingOff.BETWEEN_TOOLS, forced_tools=False)
_OTHER: Final = ModelCapabilities(max_output=8192, thinking=ThinkingControl.BUDGET)

_ROWS: Final = (
    ("claude-fable-5", _ALWAYS_THINKS),
    ("claude-mythos-5", _ALWAYS_THINKS),
    ("claude-mythos-preview", _ALWAYS_THINKS),
    ("claude-haiku-5-5", _NEWEST),
    ("claude-opus-5", _NEWEST),
    ("claude-sonnet-5", _FIXED_SAMPLING),
    ("claude-opus-4-8", _NEWEST),
    ("claude-opus-4-7", _FIXED_SAMPLING),
    ("claude-opus-4-6", _4_6),
    ("claude-sonnet-4-6", _4_6),
    ("claude-opus-4-5", _OPUS_4_5),
    ("claude-sonnet-4-5", _BUDGET),
    ("claude-haiku-4-5", _BUDGET),
    ("claude-opus-4-1", _OPUS_4_1),
    ("claude-opus-4-0", _OPUS_4),
    ("claude-opus-4", _OPUS_4),
    ("claude-4-opus", _OPUS_4),
    ("claude-sonnet-4-0", _BUDGET_ONLY),
    ("claude-sonnet-4", _BUDGET_ONLY),
    ("claude-4-sonnet", _BUDGET_ONLY),
    ("claude-3-7", _BUDGET_ONLY),
    ("claude-3-5", ModelCapabilities(max_output=8192, thinking=ThinkingControl.NONE, structured_output=False)),
    ("claude-3", _FIRST),
    ("claude-2", _FIRST),
    ("claude-2-0", _FIRST),
    ("claude-2-1", _FIRST),
    ("claude-v2", _FIRST),
    ("claude-instant", _FIRST),
    ("claude-instant-1", _FIRST),
    ("claude-instant-1-2", _FIRST),
)
"""By the beginning of a name. What follows may not be another number of the version: "claude-opus-4-9" has no row."""

_FAMILIES: Final = (
    ("claude-opus", _NO_FORCED_TOOLS),
    ("claude-sonnet", _SONNET_5_5),
    ("claude-fable", _NO_FORCED_TOOLS),
    ("claude-mythos", _NO_FORCED_TOOLS),
)
"""The newest model of each family, for all that have no row; that of the others is `_NEWEST`."""

_MORE_OF_THE_VERSION: Final = re.compile(r"\d|-\d{1,2}(?![0-9a-z])")

_DATE_DIGITS: Final = 8


def capabilities(model: str) -> ModelCapabilities:
    """Return what a model accepts. Prefixes such as "anthropic/" and "us.anthropic." are ignored."""
    at = model.lower().find("claude")
    if at < 0:
        return _OTHER
    name = _without_date(model[at:].lower().replace(".", "-").replace("@", "-"))
    known = (row for start, row in _ROWS if name.startswith(start) and not _MORE_OF_THE_VERSION.match(name, len(start)))
    newest = (row for start, row in _FAMILIES if name.startswith(start))
    return next(known, None) or next(newest, _NEWEST)


def _without_date(name: str) -> str:
    """Return a name without its date: "claude-fable-5-20260901" is not a version 5.20260901."""
    return "-".join(part for part in name.split("-") if not (part.isdecimal() and len(part) == _DATE_DIGITS))
