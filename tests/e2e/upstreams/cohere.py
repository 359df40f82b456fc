"""Cohere's chat API, as https://docs.cohere.com/v2/reference/chat and its refusals describe it."""

import json
import re
from typing import Any

from tests.e2e.upstreams.reply import USAGE, Called, Failure, Reply, Said, Thought, matches_only, words
from tests.odd_upstream import sse

FIELDS = frozenset(
    {
        *(
            "stream",
            "model",
            "messages",
            "tools",
            "strict_tools",
            "documents",
            "citation_options",
            "response_format",
            "safety_mode",
        ),
        *("max_tokens", "stop_sequences", "temperature", "seed", "frequency_penalty", "presence_penalty", "k", "p", "logprobs"),
        *("tool_choice", "thinking", "priority", "raw_prompting"),
    }
)
MESSAGE = {
    "user": frozenset({"role", "content"}),
    "system": frozenset({"role", "content"}),
    "assistant": frozenset({"role", "content", "tool_calls", "tool_plan", "citations"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
}
UNSUPPORTED = frozenset(
    {
        *("allOf", "oneOf", "not", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength"),
        *("maxLength", "uniqueItems", "minProperties", "maxProperties", "maxItems", "patternProperties", "prefixItems"),
    }
)
"""Keywords that a schema of structured output may not have: https://docs.cohere.com/docs/structured-outputs."""


def problems(path: str, headers: dict[str, str], body: dict[str, Any]) -> list[str]:  # noqa: C901  # one check after another
    """Return what is wrong with a request."""
    found = matches_only(body, FIELDS, "body")
    if path != "/v2/chat" or not headers.get("authorization", "").startswith("Bearer "):
        found.append(f"path or key: {path}")
    if not 0.01 <= body.get("p", 0.75) <= 0.99:
        found.append("p must be between 0.01 and 0.99")
    if not 0 <= body.get("k", 0) <= 500 or body.get("temperature", 0) < 0 or body.get("seed", 0) < 0:
        found.append("k, temperature or seed is out of range")
    if any(not 0 <= body.get(name, 0) <= 1 for name in ("frequency_penalty", "presence_penalty")):
        found.append("penalties must be between 0 and 1")
    if len(body.get("stop_sequences", ())) > 5:
        found.append("too many stop sequences")
    form = body.get("response_format")
    if form is not None:
        found += matches_only(form, frozenset({"type", "json_schema", "schema"}), "response_format")
        if form.get("type") == "json_object" and (body.get("tools") or body.get("documents")):
            found.append("response_format: json_object is not supported with tools")
        if schema := form.get("json_schema"):
            if schema.get("type") != "object" or not schema.get("required"):
                found.append("json_schema: must be an object with at least one required field")
            found += _schema(schema, "json_schema")
    for tool in body.get("tools", ()):
        function = tool.get("function", {})
        found += matches_only(function, frozenset({"name", "description", "parameters"}), "function")
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_-]*", function.get("name", "")):
            found.append(f"invalid tool name {function.get('name')!r}")
        if body.get("strict_tools") and not function.get("parameters", {}).get("required"):
            found.append("strict_tools: a tool needs at least one required parameter")
        if body.get("strict_tools"):
            found += _schema(function["parameters"], function["name"])
    if body.get("tool_choice", "NONE") not in ("NONE", "REQUIRED") or ("tool_choice" in body and not body.get("tools")):
        found.append("tool_choice")
    return [*found, *_messages(body)]


def _schema(schema: Any, place: str) -> list[str]:
    if isinstance(schema, list):
        return [one for inner in schema for one in _schema(inner, place)]
    if not isinstance(schema, dict):
        return []
    found = [f"{place}: {name} is not supported" for name in schema if name in UNSUPPORTED]
    if schema.get("minItems", 0) not in (0, 1):
        found.append(f"{place}: minItems")
    for name, value in schema.items():
        if name in ("properties", "$defs"):
            found += [one for key, inner in value.items() for one in _schema(inner, f"{place}.{key}")]
        elif name in ("items", "anyOf", "additionalProperties"):
            found += _schema(value, f"{place}.{name}")
    return found


def _messages(body: dict[str, Any]) -> list[str]:  # noqa: C901  # one check after another
    found: list[str] = []
    waiting: list[str] = []
    messages = body.get("messages") or []
    for at, message in enumerate(messages):
        place, role = f"messages[{at}]", message.get("role", "")
        if role not in MESSAGE:
            found.append(f"{place}: role {role!r}")
            continue
        found += matches_only(message, MESSAGE[role], place)
        content = message.get("content")
        if role == "tool":
            if message.get("tool_call_id") not in waiting:
                found.append(f"{place}: tool call id not found in previous tool calls")
            else:
                waiting.remove(message["tool_call_id"])
        elif waiting:
            found.append(f"{place}: calls {waiting} have no results")
            waiting = []
        if role == "assistant":
            if not content and not message.get("tool_calls"):
                found.append(f"{place}: an assistant message needs content or tool calls")
            for call in message.get("tool_calls", ()):
                found += matches_only(call, frozenset({"id", "type", "function"}), place)
                if not _is_object(call["function"]["arguments"]):
                    found.append(f"{place}: arguments are no object")
                waiting.append(call["id"])
        elif role != "tool" and (not content or (isinstance(content, str) and not content.strip())):
            found.append(f"{place}: message must be at least 1 token long")
        for part in content if isinstance(content, list) else ():
            kinds = {"user": ("text", "image_url"), "assistant": ("text", "thinking"), "tool": ("text", "document")}
            if part.get("type") not in kinds.get(role, ("text",)):
                found.append(f"{place}: content type {part.get('type')!r} of {role}")
            if role != "tool" and part.get("type") == "text" and not part.get("text"):
                found.append(f"{place}: empty text")
    if waiting:
        found.append(f"calls {waiting} have no results")
    if not any(message.get("role") in ("user", "tool") for message in messages):
        found.append("a message of the user is needed")
    return found


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def is_stream(path: str, body: dict[str, Any]) -> bool:
    """Return whether a request asks for a stream."""
    return body.get("stream") is True


def _reason(reply: Reply) -> str:
    return "MAX_TOKENS" if reply.is_cut else "TOOL_CALL" if reply.has_calls else "COMPLETE"


def _usage() -> dict[str, Any]:
    counts = {"input_tokens": USAGE[0], "output_tokens": USAGE[1]}
    return {"billed_units": counts, "tokens": counts}


def whole(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    """Return a whole reply."""
    message: dict[str, Any] = {"role": "assistant"}
    for block in reply.blocks:
        match block:
            case Said(text):
                message.setdefault("content", []).append({"type": "text", "text": text})
            case Thought(text):
                message.setdefault("content", []).append({"type": "thinking", "thinking": text})
            case Called(call_id, name, arguments):
                function = {"name": name, "arguments": json.dumps(arguments)}
                message.setdefault("tool_calls", []).append({"id": call_id, "type": "function", "function": function})
    return {"id": "c1", "finish_reason": _reason(reply), "message": message, "usage": _usage()}


def _event(kind: str, delta: dict[str, Any] | None = None, **fields: Any) -> bytes:
    more = {} if delta is None else {"delta": delta}
    return f"event: {kind}\n".encode() + sse({"type": kind, **fields, **more})


def pieces(reply: Reply, body: dict[str, Any]) -> list[bytes]:
    """Return the events of a stream."""
    first = {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}
    events = [_event("message-start", first, id="c1")]
    for index, block in enumerate(reply.blocks):
        match block:
            case Said(text) | Thought(text):
                kind = "text" if isinstance(block, Said) else "thinking"
                begin = {"message": {"content": {"type": kind, kind: ""}}}
                events.append(_event("content-start", begin, index=index))
                events += [_event("content-delta", {"message": {"content": {kind: word}}}, index=index) for word in words(text)]
                events.append(_event("content-end", index=index))
            case Called(call_id, name, arguments):
                call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
                events.append(_event("tool-call-start", {"message": {"tool_calls": call}}, index=index))
                written = json.dumps(arguments)
                for piece in (written[:4], written[4:]):
                    more = {"message": {"tool_calls": {"function": {"arguments": piece}}}}
                    events.append(_event("tool-call-delta", more, index=index))
                events.append(_event("tool-call-end", index=index))
    return [*events, _event("message-end", {"finish_reason": _reason(reply), "usage": _usage()})]


def error(failure: Failure) -> dict[str, Any]:
    """Return the body of an error."""
    return {"id": "e1", "message": failure.message}


def error_piece(failure: Failure) -> bytes:
    """Return an error within a stream."""
    return _event("message-end", {"finish_reason": "ERROR", "error": failure.message, "usage": _usage()})
