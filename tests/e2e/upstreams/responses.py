"""OpenAI's Responses API, as https://platform.openai.com/docs/api-reference/responses and its refusals describe it."""

import json
import re
from typing import Any

from tests.e2e.upstreams.reply import USAGE, Called, Failure, Reply, Said, Thought, matches_only, words
from tests.odd_upstream import sse

FIELDS = frozenset(
    {
        *("background", "conversation", "include", "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata"),
        *("model", "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_retention"),
        *("reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options", "temperature", "text"),
        *("tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"),
    }
)
PARTS = {
    "input_text": frozenset({"type", "text"}),
    "input_image": frozenset({"type", "image_url", "file_id", "detail"}),
    "input_file": frozenset({"type", "file_id", "filename", "file_data", "file_url"}),
    "output_text": frozenset({"type", "text", "annotations", "logprobs"}),
    "refusal": frozenset({"type", "refusal"}),
}
PREFIXES = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_"}
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def problems(path: str, headers: dict[str, str], body: dict[str, Any]) -> list[str]:  # noqa: C901  # one check after another
    """Return what is wrong with a request."""
    found = [one.replace("extra inputs are not permitted", "unknown parameter") for one in matches_only(body, FIELDS, "body")]
    if path != "/v1/responses" or not headers.get("authorization", "").startswith("Bearer "):
        found.append(f"path or key: {path}")
    if body.get("max_output_tokens", 16) < 16:
        found.append("Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16")
    if body["model"].startswith(("o", "gpt-5")) and {"temperature", "top_p"} & body.keys():
        found.append("Unsupported parameter: 'temperature' is not supported with this model.")
    if body["model"].startswith("gpt-4") and ("reasoning" in body or "reasoning.encrypted_content" in body.get("include", ())):
        found.append("Encrypted content is not supported with this model.")
    if "top_logprobs" in body and "message.output_text.logprobs" not in body.get("include", ()):
        found.append("top_logprobs without logprobs")
    names = []
    for tool in body.get("tools", ()):
        if tool.get("type") != "function":
            continue
        found += matches_only(tool, frozenset({"type", "name", "description", "parameters", "strict"}), "tools")
        names.append(tool["name"])
        if not NAME.fullmatch(tool["name"]):
            found.append(f"Invalid 'tools[].name': {tool['name']!r}")
        if tool["strict"]:
            found += strict_problems(tool["parameters"], tool["name"])
        if tool["parameters"].get("type") != "object":
            found.append("schema must be a JSON Schema of 'type: \"object\"'")
    choice = body.get("tool_choice")
    allowed = choice.get("tools", [choice]) if isinstance(choice, dict) else []
    found += [f"Tool choice {one.get('name')!r} not found in 'tools' parameter." for one in allowed if one.get("name") not in names]
    if choice == "required" and not names:
        found.append("Tool choice 'required' must be specified with 'tools' parameter.")
    form = body.get("text", {}).get("format", {"type": "text"})
    if form["type"] == "json_schema" and not NAME.fullmatch(form.get("name", "")):
        found.append("text.format.name")
    if form["type"] == "json_schema" and form.get("strict"):
        found += strict_problems(form["schema"], "text.format.schema")
    if form["type"] == "json_object" and "json" not in json.dumps(body["input"]).lower():
        found.append(
            "Response input messages must contain the word 'json' in some form to use 'text.format' of type 'json_object'."
        )
    return [*found, *_input(body)]


def strict_problems(schema: Any, place: str) -> list[str]:
    """Return what a strict schema may not be."""
    if not isinstance(schema, dict):
        return []
    found = []
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            found.append(f"{place}: 'additionalProperties' is required to be supplied and to be false.")
        if sorted(schema.get("required", ())) != sorted(schema.get("properties", ())):
            found.append(f"{place}: 'required' must include every key in properties.")
    for name, inner in {**schema.get("properties", {}), **schema.get("$defs", {})}.items():
        found += strict_problems(inner, f"{place}.{name}")
    return [*found, *strict_problems(schema.get("items"), f"{place}[]")]


def _input(body: dict[str, Any]) -> list[str]:  # noqa: C901  # one check after another
    items = body.get("input")
    if not items:
        return ["input: missing"]
    items = [{"role": "user", "content": items}] if isinstance(items, str) else items
    found: list[str] = []
    waiting: list[str] = []
    ids = [item["id"] for item in items if "id" in item]
    if len(ids) > len(set(ids)):
        found.append("duplicate item found")
    for at, item in enumerate(items):
        kind, place = item.get("type", "message"), f"input[{at}]"
        prefix = PREFIXES.get(kind)
        if prefix is not None and not item.get("id", prefix).startswith(prefix):
            found.append(f"Invalid '{place}.id': expected an ID that begins with '{prefix}'")
        match kind:
            case "message":
                found += _message(item, place)
            case "function_call":
                found += matches_only(item, frozenset({"type", "id", "call_id", "name", "arguments", "status"}), place)
                waiting.append(item["call_id"])
                if len(item["call_id"]) > 64 or not NAME.fullmatch(item["name"]):
                    found.append(f"{place}: name or call_id is too long")
            case "function_call_output":
                if item["call_id"] not in waiting:
                    found.append(f"No tool call found for function call output with call_id {item['call_id']}.")
                else:
                    waiting.remove(item["call_id"])
                if isinstance(item["output"], list):
                    found += [one for part in item["output"] for one in _part(part, "user", place)]
            case "reasoning":
                found += matches_only(item, frozenset({"type", "id", "summary", "encrypted_content", "status", "content"}), place)
                following = items[at + 1] if at + 1 < len(items) else {}
                own = following.get("type", "message") in ("function_call", "reasoning") or following.get("role") == "assistant"
                if not own:
                    found.append(f"{place}: item 'reasoning' was provided without its required following item.")
                if "id" in item and "id" not in following:
                    found.append(f"{place}: the next item has no id")
                if not item.get("encrypted_content", "").startswith("gAAA"):
                    found.append(f"{place}: the encrypted content could not be verified")
            case _:
                found.append(f"{place}: Invalid value: {kind!r}")
    return [*found, *(f"No tool output found for function call {one}." for one in waiting)]


def _message(item: dict[str, Any], place: str) -> list[str]:
    found = matches_only(item, frozenset({"type", "id", "role", "content", "status", "phase"}), place)
    if item.get("role") not in ("user", "assistant", "system", "developer"):
        found.append(f"{place}.role: Invalid value {item.get('role')!r}")
    content = item.get("content")
    if not isinstance(content, str | list) or content == []:
        return [*found, f"{place}.content: missing"]
    return [*found, *(one for part in content if isinstance(content, list) for one in _part(part, item["role"], place))]


def _part(part: Any, role: str, place: str) -> list[str]:
    kind = part.get("type") if isinstance(part, dict) else None
    allowed = ("output_text", "refusal") if role == "assistant" else ("input_text", "input_image", "input_file")
    if kind not in allowed:
        return [f"{place}.content: Invalid value: {kind!r}. Supported values are: {allowed}"]
    found = matches_only(part, PARTS[kind], place)
    if kind == "input_file" and "file_data" in part and "filename" not in part:
        found.append(f"{place}: missing required parameter 'filename'")
    return found


def is_stream(path: str, body: dict[str, Any]) -> bool:
    """Return whether a request asks for a stream."""
    return body.get("stream") is True


def _item(block: Said | Thought | Called, at: int) -> dict[str, Any]:
    match block:
        case Said(text):
            content = [{"type": "output_text", "text": text, "annotations": []}]
            return {"id": f"msg_{at}", "type": "message", "role": "assistant", "status": "completed", "content": content}
        case Thought(text, signature):
            summary = [{"type": "summary_text", "text": text}]
            return {"id": f"rs_{at}", "type": "reasoning", "summary": summary, "encrypted_content": f"gAAA{signature}"}
        case Called(call_id, name, arguments):
            call = {"id": f"fc_{call_id}", "type": "function_call", "call_id": call_id, "name": name, "status": "completed"}
            return {**call, "arguments": json.dumps(arguments)}


def whole(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    """Return a whole reply."""
    usage = {"input_tokens": USAGE[0], "output_tokens": USAGE[1], "total_tokens": sum(USAGE)}
    ending = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    output = [_item(block, at) for at, block in enumerate(reply.blocks)]
    made = {"id": "resp_1", "object": "response", "created_at": 1_800_000_000, "model": body["model"], "output": output}
    return {**made, "status": "completed", "error": None, "usage": usage, **(ending if reply.is_cut else {})}


def pieces(reply: Reply, body: dict[str, Any]) -> list[bytes]:
    """Return the events of a stream."""
    response = whole(reply, body)
    begun = {**response, "output": [], "status": "in_progress", "usage": None, "incomplete_details": None}
    events: list[tuple[str, dict[str, Any]]] = [("created", {"response": begun}), ("in_progress", {"response": begun})]
    for index, block in enumerate(reply.blocks):
        item = _item(block, index)
        place = {"output_index": index, "item_id": item["id"]}
        empty = {
            **item,
            **{name: "" if name == "arguments" else [] for name in ("content", "summary", "arguments") if name in item},
        }
        events.append(("output_item.added", {"output_index": index, "item": empty}))
        match block:
            case Said(text):
                at = {**place, "content_index": 0}
                part = {"type": "output_text", "text": "", "annotations": []}
                events.append(("content_part.added", {**at, "part": part}))
                events += [("output_text.delta", {**at, "delta": word}) for word in words(text)]
                events += [
                    ("output_text.done", {**at, "text": text}),
                    ("content_part.done", {**at, "part": {**part, "text": text}}),
                ]
            case Thought(text):
                at = {**place, "summary_index": 0}
                events.append(("reasoning_summary_part.added", {**at, "part": {"type": "summary_text", "text": ""}}))
                events += [("reasoning_summary_text.delta", {**at, "delta": word}) for word in words(text)]
                events.append(("reasoning_summary_text.done", {**at, "text": text}))
            case Called():
                written = item["arguments"]
                events += [("function_call_arguments.delta", {**place, "delta": one}) for one in (written[:4], written[4:])]
                events.append(("function_call_arguments.done", {**place, "arguments": written}))
        events.append(("output_item.done", {"output_index": index, "item": item}))
    events.append(("incomplete" if reply.is_cut else "completed", {"response": response}))
    return [_event(kind, number, fields) for number, (kind, fields) in enumerate(events)]


def _event(kind: str, number: int, fields: dict[str, Any]) -> bytes:
    return f"event: response.{kind}\n".encode() + sse({"type": f"response.{kind}", "sequence_number": number, **fields})


def error(failure: Failure) -> dict[str, Any]:
    """Return the body of an error."""
    kind = "invalid_request_error" if failure.status == 400 else "server_error"
    return {"error": {"message": failure.message, "type": kind, "param": None, "code": None}}


def error_piece(failure: Failure) -> bytes:
    """Return an error within a stream."""
    return b"event: error\n" + sse({"type": "error", "code": "server_error", "message": failure.message, "param": None})
