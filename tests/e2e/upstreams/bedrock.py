"""AWS Bedrock's Converse API, by AWS's own description of it (`tests.converse`)."""

import re
from typing import Any
from urllib.parse import unquote

from tests import converse, eventstream
from tests.e2e.upstreams.anthropic import schema_problems
from tests.e2e.upstreams.reply import USAGE, Called, Failure, Reply, Said, Thought

PATH = re.compile(r"/model/([^/?]+)/(converse|converse-stream)")


def problems(path: str, headers: dict[str, str], body: dict[str, Any]) -> list[str]:
    """Return what is wrong with a request."""
    found = PATH.fullmatch(path)
    if found is None or not headers.get("authorization", "").startswith("Bearer "):
        return [f"path or key: {path}"]
    wrong = converse.problems(unquote(found[1]), body, "ConverseStream" if is_stream(path, body) else "Converse")
    names = [tool["toolSpec"]["name"] for tool in body.get("toolConfig", {}).get("tools", ()) if "toolSpec" in tool]
    more = ["tool names must be unique"] if len(names) > len(set(names)) else []
    for tool in body.get("toolConfig", {}).get("tools", ()):
        schema = tool.get("toolSpec", {}).get("inputSchema", {}).get("json", {"type": "object"})
        if schema.get("type") != "object":
            more.append("toolSpec.inputSchema.json.type must be object")
        if "claude" in path and {"oneOf", "allOf", "anyOf"} & schema.keys():
            more.append("input_schema does not support oneOf, allOf, or anyOf at the top level")
        if tool.get("toolSpec", {}).get("strict"):
            more += schema_problems(schema, schema, "toolSpec")
    return [*wrong.splitlines(), *more]


def is_stream(path: str, body: dict[str, Any]) -> bool:
    """Return whether a request asks for a stream."""
    return path.endswith("-stream")


def _content(reply: Reply) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for block in reply.blocks:
        match block:
            case Said(text):
                found.append({"text": text})
            case Thought(text, signature):
                found.append({"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}})
            case Called(call_id, name, arguments):
                found.append({"toolUse": {"toolUseId": call_id, "name": name, "input": arguments}})
    return found


def _reason(reply: Reply) -> str:
    return "max_tokens" if reply.is_cut else "tool_use" if reply.has_calls else "end_turn"


def _usage() -> dict[str, int]:
    return {"inputTokens": USAGE[0], "outputTokens": USAGE[1], "totalTokens": sum(USAGE)}


def whole(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    """Return a whole reply."""
    message = {"role": "assistant", "content": _content(reply)}
    return {"output": {"message": message}, "stopReason": _reason(reply), "usage": _usage(), "metrics": {"latencyMs": 1}}


def pieces(reply: Reply, body: dict[str, Any]) -> list[bytes]:
    """Return the frames of a stream."""
    events = converse.streamed(_content(reply), _reason(reply))
    events[-1]["metadata"]["usage"] = _usage()
    return [eventstream.stream(one) for one in events]


def error(failure: Failure) -> dict[str, Any]:
    """Return the body of an error."""
    return {"message": failure.message}


def error_piece(failure: Failure) -> bytes:
    """Return an exception within a stream."""
    return eventstream.exception("throttlingException", {"message": failure.message})
