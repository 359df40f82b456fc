"""Converts a message to the JSON of its row, and back.

`{"role", "v": 2, "parts": [{"kind", "type", ...}], "name", "extra", "listed", "origin", "fields"}`. This version reads a block by
its `kind`. The previous version reads it by its `type`, and ignores fields that it does not know; a block of a kind that it does
not have is an empty thought to it, which it sends to no provider. A picture that a model made is one too: that version would send
it within a reply, where hosts refuse it.

A message without blocks, origin and fields is written without `v`, as the previous version writes it: both versions recognise a
reply without output by it.
"""

from __future__ import annotations

import re
from typing import Any, Final, get_args

import msgspec

from antiphon.domain.content import CUSTOM, FUNCTION, FUNCTION_CALL, Block, Message, Role
from antiphon.history import old_rows

VERSION: Final = 2

_VERSIONED: Final = re.compile(r'\{"role":"[a-z]+","v":')
_decoder: Final = msgspec.json.Decoder(Message)

_NOTHING: Final = {"type": "thinking", "text": ""}
"""The form in which the previous version reads a block that it cannot use: an empty thought."""

_SAME: Final = frozenset({"text", "image", "video", "refusal", "thinking", "tool_result"})
"""Kinds of blocks that have the same name in both versions."""

_KINDS: Final = frozenset(kind.__struct_config__.tag for kind in get_args(Block))
"""All kinds of blocks, by their tags."""


def encode(message: Message) -> bytes:
    """Return the JSON of a message.

    Raises `UnicodeEncodeError` for half a surrogate pair, `RecursionError` for fields nested too deep.
    """
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
    """Return the message in `body`; `provider` and `model` are those of its row. Raises `msgspec.MsgspecError`."""
    if _VERSIONED.match(body) is None:
        return old_rows.read(body, provider, model)
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError:
        return msgspec.convert(_known(msgspec.json.decode(body)), Message)


def _tagged(block: dict[str, Any]) -> dict[str, Any]:
    """Return a block with the `type` by which the previous version reads it."""
    kind = block.pop("kind")
    if kind in ("tool_call", "tool_result") and block.get("tool_type") == FUNCTION:  # the default value
        del block["tool_type"]
    match kind:
        case "tool_result":
            return {"kind": kind, "type": kind, **block, "parts": list(map(_tagged, block["parts"]))}
        case "document":
            return {"kind": kind, "type": "file", **block}
        case "audio" if not any(block["media"].values()):  # a model's recording, of which only the transcript is stored
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
    """Return a message or tool result in which blocks of kinds from newer versions are opaque blocks."""
    if isinstance(whole, dict) and isinstance(whole.get("parts"), list):
        return {**whole, "parts": list(map(_known_block, whole["parts"]))}
    return whole


def _known_block(block: Any) -> Any:
    """Return a block as it is if its kind is known, else as an opaque block."""
    if not isinstance(block, dict) or not isinstance(block.get("kind"), str) or block["kind"] in _KINDS:
        return _known(block)
    return {"kind": "opaque", "state": {"fields": {name: value for name, value in block.items() if name != "kind"}}}
