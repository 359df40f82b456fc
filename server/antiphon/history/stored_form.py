"""A message as the JSON of its row, and back.

`{"role", "v": 2, "parts": [{"kind", "type", ...}], "name", "extra", "listed", "origin", "fields"}`. This version reads a block by
its `kind`; the version before reads it by its `type`, and passes over what it does not know. What that version has no kind for is
an empty thought to it, which it sends to nobody. So is a picture that a model made: it would send it among the content of a reply,
where hosts refuse it.

A message without blocks, origin and fields is written without `v`, as the version before writes it: both know by it a reply of
which nothing came.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from antiphon.domain.content import CUSTOM, FUNCTION, FUNCTION_CALL, Message, Role
from antiphon.history import old_rows

VERSION: Final = 2

_VERSIONED: Final = re.compile(r'\{"role":"[a-z]+","v":')
_decoder: Final = msgspec.json.Decoder(Message)

_NOTHING: Final = {"type": "thinking", "text": ""}
"""What the version before reads of a block that is nothing to it."""

_SAME: Final = frozenset({"text", "image", "video", "refusal", "thinking", "tool_result"})
"""Kinds that both versions have under one name."""

_KINDS: Final = frozenset(
    {
        *_SAME,
        "audio",
        "document",
        "redacted_thinking",
        "tool_call",
        "server_tool_call",
        "server_tool_result",
        "compaction",
        "opaque",
    }
)


def encode(message: Message) -> bytes:
    """Return the JSON. Raises `UnicodeEncodeError` for half a surrogate pair, `RecursionError` for what is nested without end."""
    return msgspec.json.encode(builtins(message))


def builtins(message: Message) -> dict[str, Any]:
    """Return the same as dictionaries and lists."""
    whole: dict[str, Any] = msgspec.to_builtins(message)
    if not message.blocks and message.origin is None and not message.fields:
        return whole
    role, parts = whole.pop("role"), whole.pop("parts")
    kept = list(map(_tagged, parts))
    if message.role is Role.ASSISTANT and not message.listed:
        kept = [{**part, **_NOTHING} if part["kind"] == "image" else part for part in kept]
    return {"role": role, "v": VERSION, "parts": kept, **whole}


def decode(body: str, provider: str = "", model: str = "") -> Message:
    """Return the message. `provider` and `model` are those of its row. Raises `msgspec.MsgspecError`."""
    if _VERSIONED.match(body) is None:
        return old_rows.read(body, provider, model)
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError:
        return msgspec.convert(_known(msgspec.json.decode(body)), Message)


def _tagged(block: dict[str, Any]) -> dict[str, Any]:
    """Return a block with the tag that the version before knows."""
    kind = block.pop("kind")
    if kind in ("tool_call", "tool_result") and block.get("tool_type") == FUNCTION:  # the default, however it came
        del block["tool_type"]
    match kind:
        case "tool_result":
            return {"kind": kind, "type": kind, **block, "parts": list(map(_tagged, block["parts"]))}
        case "document":
            return {"kind": kind, "type": "file", **block}
        case "audio" if not any(block["media"].values()):  # a model's own, of which the transcript is kept
            return {"kind": kind, "type": "text", "text": block.get("transcript", ""), **block}
        case "audio":
            return {"kind": kind, "type": kind, **block}
        case "tool_call" if block["name"] and block.get("tool_type") not in (CUSTOM, FUNCTION_CALL):
            return {"kind": kind, "type": kind, **block}
        case "opaque" if "fields" in block:
            return {"kind": kind, "type": "other", **block}
        case _ if kind in _SAME:
            return {"kind": kind, "type": kind, **block}
        case _:
            return {"kind": kind, **_NOTHING, **block}


def _known(whole: Any) -> Any:
    """Return a message or a tool's result with what it has of blocks of kinds from the future as blocks that are not known."""
    if isinstance(whole, dict) and isinstance(whole.get("parts"), list):
        return {**whole, "parts": list(map(_known_block, whole["parts"]))}
    return whole


def _known_block(block: Any) -> Any:
    if not isinstance(block, dict) or not isinstance(block.get("kind"), str) or block["kind"] in _KINDS:
        return _known(block)
    return {"kind": "opaque", "state": {"fields": {name: value for name, value in block.items() if name != "kind"}}}
