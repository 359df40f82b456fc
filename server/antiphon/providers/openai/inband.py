"""Finds errors and heartbeats in chunks that have no output: hosts of the OpenAI protocol write them in different forms. No I/O.

The API itself has them in `error`, which `response` reads. The others here are those of vLLM, of proxies, and MiniMax's.
"""

from __future__ import annotations

from typing import Final

from antiphon.domain.content import JsonObject
from antiphon.providers.error_fields import error_status

HEARTBEATS: Final = frozenset({b"ping", b"pong", b"keepalive", b"keep-alive", b"keep_alive", b"heartbeat", b"processing"})
"""Names or data of events that only keep the connection alive."""

_MINIMAX: Final = {
    1001: "timeout",
    1002: "rate_limit_exceeded",
    1004: "invalid_api_key",
    1008: "billing_not_active",
    1026: "content_policy_violation",
    1027: "content_policy_violation",
    1039: "rate_limit_exceeded",
    1041: "rate_limit_exceeded",
    1042: "invalid_request_error",
    2013: "invalid_request_error",
    2045: "rate_limit_exceeded",
    2049: "invalid_api_key",
    2056: "insufficient_quota",
}
"""Codes of `base_resp`, in OpenAI's words; others are failures of the host. https://platform.minimax.io/docs/api-reference/errorcode"""


def is_heartbeat(chunk: JsonObject) -> bool:
    """Return whether a JSON object without choices only keeps the connection alive."""
    kind = chunk.get("type") or chunk.get("event") or chunk.get("object")
    return isinstance(kind, str) and kind.lower().encode() in HEARTBEATS


def error_in(chunk: JsonObject) -> JsonObject | None:
    """Return the error object of a chunk without choices; None if it is no error."""
    if chunk.get("object") == "error" or chunk.get("type") == "error":
        return chunk
    minimax = chunk.get("base_resp")
    if isinstance(minimax, dict) and minimax.get("status_code"):
        return {"type": _MINIMAX.get(minimax["status_code"]), "message": minimax.get("status_msg")}
    if chunk.get("id") or "choices" in chunk or "usage" in chunk:
        return None
    return chunk if isinstance(chunk.get("message"), str) and _is_failure(chunk) else None


def _is_failure(chunk: JsonObject) -> bool:
    """Return whether a chunk with a message says that this is the one of a failure, by a code or its type."""
    kind, code = chunk.get("type"), chunk.get("code")
    if isinstance(kind, str) and kind.lower().endswith("error"):
        return True
    if any(error_status(chunk.get(name)) for name in ("code", "status", "status_code")):
        return True
    return isinstance(code, str) and bool(code) and not code.isdecimal()
