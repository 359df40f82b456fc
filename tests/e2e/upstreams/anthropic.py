"""Anthropic's Messages API, as https://platform.claude.com/docs/en/api/messages and its refusals describe it."""

import json
import re
from itertools import pairwise
from typing import Any

from tests.e2e.upstreams.reply import USAGE, Called, Failure, Reply, Said, Thought, matches_only, words
from tests.odd_upstream import sse

FIELDS = frozenset(
    {
        *("model", "max_tokens", "messages", "stream", "system", "metadata", "stop_sequences", "temperature", "top_p", "top_k"),
        *("tools", "tool_choice", "thinking", "service_tier", "container", "output_config", "cache_control"),
    }
)
PARTS = {
    "text": frozenset({"type", "text", "cache_control", "citations"}),
    "image": frozenset({"type", "source", "cache_control"}),
    "document": frozenset({"type", "source", "title", "context", "citations", "cache_control"}),
    "tool_use": frozenset({"type", "id", "name", "input", "cache_control"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
}
TOOL = frozenset({"name", "description", "input_schema", "strict", "cache_control", "type", "eager_input_streaming"})
SCHEMA = frozenset(
    {
        *("type", "properties", "required", "items", "additionalProperties", "$ref", "$defs", "definitions", "anyOf", "allOf"),
        *("description", "title", "default", "enum", "const", "format", "minItems", "$schema"),
    }
)
NEWER = re.compile(r"claude-(opus-4-[6-8]|sonnet-4-6|opus-5|sonnet-5|fable)")
"""The models that refuse a message of the assistant at the end."""
SIGNED = re.compile(r"^[A-Za-z0-9+/=]+$")


def problems(path: str, headers: dict[str, str], body: dict[str, Any]) -> list[str]:
    """Return what is wrong with a request."""
    found = matches_only(body, FIELDS, "body")
    if path != "/v1/messages":
        found.append(f"no such path {path}")
    if "x-api-key" not in headers or headers.get("anthropic-version") != "2023-06-01":
        found.append("headers")
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 0:
        found.append("max_tokens: field required")
    return [*found, *_sampling(body), *_tools(body), *_format(body), *_messages(body)]


def _sampling(body: dict[str, Any]) -> list[str]:
    found = []
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        if not 1024 <= thinking.get("budget_tokens", 0) < body["max_tokens"]:
            found.append("thinking.budget_tokens is out of range")
        if body.get("temperature", 1) != 1 or "top_k" in body:
            found.append("temperature may only be set to 1 when thinking is enabled")
        if body.get("tool_choice", {}).get("type") in ("any", "tool"):
            found.append("thinking may not be enabled when tool_choice forces tool use")
    if not 0 <= body.get("temperature", 0) <= 1:
        found.append("temperature: range 0..1")
    if "temperature" in body and "top_p" in body:
        found.append("temperature and top_p cannot both be specified for this model")
    if any(not isinstance(one, str) or not one.strip() for one in body.get("stop_sequences", ())):
        found.append("stop_sequences: each must contain non-whitespace")
    return found


def _tools(body: dict[str, Any]) -> list[str]:
    found, names = [], []
    for at, tool in enumerate(body.get("tools", ())):
        found += matches_only(tool, TOOL, f"tools.{at}")
        names.append(tool.get("name", ""))
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", names[-1]):
            found.append(f"tools.{at}.name: {names[-1]!r}")
        schema = tool.get("input_schema", {})
        if schema.get("type") != "object":
            found.append(f"tools.{at}.input_schema.type: must be object")
        if {"oneOf", "allOf", "anyOf"} & schema.keys():
            found.append(f"tools.{at}.input_schema does not support oneOf, allOf, or anyOf at the top level")
        for name in schema.get("properties") or {}:
            if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name):
                found.append(f"tools.{at}.input_schema.properties: property keys should match pattern: {name!r}")
        if tool.get("strict"):
            found += schema_problems(schema, schema, f"tools.{at}.input_schema")
    if len(names) > len(set(names)):
        found.append("tools: tool names must be unique")
    choice = body.get("tool_choice")
    if choice is not None and not names:
        found.append("tool_choice may only be specified while providing tools")
    if choice is not None and choice.get("type") == "tool" and choice.get("name") not in names:
        found.append(f"tool {choice.get('name')!r} not found in provided tools")
    return found


def _format(body: dict[str, Any]) -> list[str]:
    form = body.get("output_config", {}).get("format")
    if form is None:
        return []
    return [
        *matches_only(form, frozenset({"type", "schema"}), "format"),
        *schema_problems(form["schema"], form["schema"], "schema"),
    ]


def schema_problems(schema: Any, root: Any, place: str, open_refs: tuple[str, ...] = ()) -> list[str]:  # noqa: C901  # one check after another
    """Return what structured output does not accept of a schema."""
    if not isinstance(schema, dict):
        return [] if isinstance(schema, bool) else [f"{place}: no schema"]
    found = [f"{place}: {name} is not supported" for name in schema if name not in SCHEMA]
    if schema.get("minItems", 0) not in (0, 1):
        found.append(f"{place}: minItems")
    if "$ref" in schema:
        name = schema["$ref"]
        if name in open_refs:
            return [*found, f"{place}: recursive schemas are not supported"]
        target = root
        for step in name.removeprefix("#/").split("/") if name != "#" else ():
            target = target.get(step) if isinstance(target, dict) else None
        if target is None:
            return [*found, f"{place}: {name} does not resolve"]
        found += schema_problems(target, root, f"{place}>{name}", (*open_refs, name))
    if (schema.get("type") == "object" or "properties" in schema) and schema.get("additionalProperties") is not False:
        found.append(f"{place}: for 'object' type, 'additionalProperties' must be explicitly set to false")
    if any(isinstance(one, dict | list) for one in schema.get("enum", ())):
        found.append(f"{place}: complex enum")
    for name, inner in schema.get("properties", {}).items():
        found += schema_problems(inner, root, f"{place}.{name}", open_refs)
    if "items" in schema:
        found += schema_problems(schema["items"], root, f"{place}[]", open_refs)
    for name in ("anyOf", "allOf"):
        for inner in schema.get(name, ()):
            found += schema_problems(inner, root, f"{place}.{name}", open_refs)
            if name == "allOf" and "$ref" in inner:
                found.append(f"{place}: allOf with $ref is not supported")
    return found


def _messages(body: dict[str, Any]) -> list[str]:
    messages = body.get("messages") or []
    found = [] if messages else ["messages: at least one message is required"]
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if roles and roles[0] != "user":
        found.append("messages: first message must use the user role")
    if any(before == after for before, after in pairwise(roles)):
        found.append("messages: roles must alternate")
    if roles and roles[-1] == "assistant" and NEWER.search(body["model"]):
        found.append("this model does not support assistant message prefill")
    waiting: list[str] = []
    used: list[str] = []
    for at, message in enumerate(messages):
        parts = message["content"]
        parts = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
        place = f"messages.{at}"
        if not parts:
            found.append(f"{place}: all messages must have non-empty content")
        for part in parts:
            found += _part(part, message["role"], place)
        results = [part["tool_use_id"] for part in parts if part.get("type") == "tool_result"]
        if message["role"] == "user" and sorted(results) != sorted(waiting):
            found.append(f"{place}: tool_use ids {waiting} have tool_result blocks {results}")
        kinds = [part.get("type") == "tool_result" for part in parts]
        if kinds != sorted(kinds, reverse=True):
            found.append(f"{place}: tool_result blocks come first")
        waiting = [part["id"] for part in parts if part.get("type") == "tool_use"]
        used += waiting
        thinks = (body.get("thinking") or {}).get("type") == "enabled"
        if waiting and at == len(messages) - 2 and thinks and parts[0].get("type") not in ("thinking", "redacted_thinking"):
            found.append(f"{place}: expected thinking, but found {parts[0].get('type')}")
    if waiting:
        found.append("the last message has tool_use blocks without results")
    if len(used) > len(set(used)):
        found.append("messages: tool_use ids must be unique")
    return found


def _part(part: dict[str, Any], role: str, place: str) -> list[str]:
    kind = part.get("type")
    if kind not in PARTS:
        return [f"{place}: input tag {kind!r} is unknown"]
    found = matches_only(part, PARTS[kind], place)
    match kind:
        case "text" if not part["text"].strip():
            found.append(f"{place}: text content blocks must contain non-whitespace text")
        case "tool_use" if not re.fullmatch(r"[a-zA-Z0-9_-]+", part["id"]) or not isinstance(part["input"], dict):
            found.append(f"{place}: tool_use id or input")
        case "tool_result" if role != "user":
            found.append(f"{place}: tool_result of {role}")
        case "tool_result" if isinstance(part.get("content"), list):
            found += [one for inner in part["content"] for one in _part(inner, role, place)]
        case "image" if part["source"]["type"] == "base64":
            if part["source"]["media_type"] not in ("image/jpeg", "image/png", "image/gif", "image/webp"):
                found.append(f"{place}: media_type")
        case "image" if not part["source"].get("url", "https://").startswith("https://"):
            found.append(f"{place}: only HTTPS URLs are supported")
        case "thinking" if not SIGNED.match(part["signature"]):
            found.append(f"{place}: invalid signature in thinking block")
    if kind in ("image", "document") and role != "user":
        found.append(f"{place}: {kind} of {role}")
    return found


def is_stream(path: str, body: dict[str, Any]) -> bool:
    """Return whether a request asks for a stream."""
    return body.get("stream") is True


def _reason(reply: Reply) -> str:
    return "max_tokens" if reply.is_cut else "tool_use" if reply.has_calls else "end_turn"


def _block(block: Said | Thought | Called) -> dict[str, Any]:
    match block:
        case Said(text):
            return {"type": "text", "text": text}
        case Thought(text, signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
        case Called(call_id, name, arguments):
            return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def _message(body: dict[str, Any], content: list[Any], reason: str | None, output: int) -> dict[str, Any]:
    usage = {"input_tokens": USAGE[0], "output_tokens": output}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": content}
    return {**head, "stop_reason": reason, "stop_sequence": None, "usage": usage}


def whole(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    """Return a whole reply."""
    return _message(body, [_block(block) for block in reply.blocks], _reason(reply), USAGE[1])


def _event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\n".encode() + sse({"type": name, **fields})


def pieces(reply: Reply, body: dict[str, Any]) -> list[bytes]:
    """Return the events of a stream."""
    events = [_event("message_start", message=_message(body, [], None, 1)), _event("ping")]
    for index, block in enumerate(reply.blocks):
        match block:
            case Said(text):
                start: dict[str, Any] = {"type": "text", "text": ""}
                deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": word} for word in words(text)]
            case Thought(text, signature):
                start = {"type": "thinking", "thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": word} for word in words(text)]
                deltas.append({"type": "signature_delta", "signature": signature})
            case Called(call_id, name, arguments):
                start = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
                written = json.dumps(arguments) if arguments else ""
                deltas = [{"type": "input_json_delta", "partial_json": one} for one in ("", written[:5], written[5:])]
        events.append(_event("content_block_start", index=index, content_block=start))
        events += [_event("content_block_delta", index=index, delta=delta) for delta in deltas]
        events.append(_event("content_block_stop", index=index))
    end = {"stop_reason": _reason(reply), "stop_sequence": None}
    return [*events, _event("message_delta", delta=end, usage={"output_tokens": USAGE[1]}), _event("message_stop")]


def error(failure: Failure) -> dict[str, Any]:
    """Return the body of an error."""
    kinds = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}
    return {"type": "error", "error": {"type": kinds.get(failure.status, "api_error"), "message": failure.message}}


def error_piece(failure: Failure) -> bytes:
    """Return an error within a stream."""
    return b"event: error\n" + sse(error(failure))
