"""Export of a row as a line of JSON. Digests of secrets are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from antiphon.database import clock
from antiphon.history.tree import Found
from antiphon.limits.base import NANOS

_ENCODER: Final = msgspec.json.Encoder()
_TIMES: Final = ("created", "updated", "time", "expires", "revoked", "last_used")
_JSON: Final = {"body": "message", "usage": "usage", "grants": "grants"}
"""Columns that hold JSON, and their names in the export."""


def line(kind: str, row: Found) -> bytes:
    """Return a row as a line of JSON: `kind`, then its columns; times as in RFC 3339."""
    return _ENCODER.encode({"kind": kind, **dict(_fields(row._asdict()))}) + b"\n"


def _fields(columns: Mapping[str, Any]) -> list[tuple[str, Any]]:
    fields: list[tuple[str, Any]] = []
    for name, value in columns.items():
        if name in _TIMES:
            fields.append((name if name == "time" else f"{name}_time", None if value is None else clock.read(value)))
        elif name in _JSON:
            fields.append((_JSON[name], None if value is None else msgspec.Raw(value.encode())))
        elif name == "cost_nanos":
            fields.append(("cost_usd", value / NANOS))
        else:
            fields.append((name, value))
    return fields
