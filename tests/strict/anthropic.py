"""Anthropic's Messages API: thinking between texts and calls, with signatures and redacted blocks."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

from tests.odd_upstream import sse
from tests.sdk_types import problems as type_problems
from tests.strict.base import StrictApi, Turn, events, extra, has_calls, nodes
from tests.strict.reply import USAGE, Block, Called, Failure, Redacted, Reply, Said, Thought, halves, words
from tests.strict.schemas import anthropic_problems

THINKING = ("thinking", "redacted_thinking")
KINDS = ("text", "image", "document", "tool_use", "tool_result", *THINKING)
PREFILLED = ("claude-sonnet-4-5", "claude-haiku-4-5", "claude-3")
"""The models that accept a message of the assistant at the end."""
OLDER = ("temperature", "top_p", "top_k")
"""What the SDK has forgotten of older models."""
UNUSED = frozenset({"diagnostics", "inference_geo", "speed", "user_profile_id", "workspace_id"})
UNUSED_OF_TOOLS = frozenset({"allowed_callers", "defer_loading", "input_examples"})
UNUSED_OF_BLOCKS = frozenset({"transformations", "caller", "toolset_name"})


class StrictAnthropic(StrictApi):
    """https://platform.claude.com/docs/en/api/messages, and its refusals.

    What has to come back: https://platform.claude.com/docs/en/build-with-claude/extended-thinking#preserving-thinking-blocks.
    """

    protocol = "anthropic"
    model = "claude-sonnet-4-5"
    paths = "/v1/messages"
    headers = (("x-api-key", ".+"), ("anthropic-version", "2023-06-01"))
    call_ids = "toolu_{}_{}"

    def thinking(self, number: int) -> Iterator[Block]:
        """Yield a turn. Every fourth thought has no text, as with `display: omitted`; every third turn has a redacted one."""
        yield Thought("" if number % 4 == 3 else self.thought(number), self.private("thought", number))
        if number % 3 == 2:
            yield Redacted(self.private("redacted", number))
        yield Said(self.step(number))
        if has_calls(number):
            yield Thought("And so.", self.private("between", number))
        if has_calls(number) and number % 3 == 1:
            yield Said("\nFar \N{EARTH GLOBE AMERICAS} off.")

    def content(self, reply: Reply) -> list[dict[str, Any]]:
        return [block_of(block) for block in reply.blocks]

    def tool_names(self, body: dict[str, Any]) -> list[str]:
        return [tool["name"] for tool in body.get("tools", ())]

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        known = body if self.in_loop else {name: value for name, value in body.items() if name not in OLDER}
        return type_problems(known, MessageCreateParamsStreaming if is_stream else MessageCreateParamsNonStreaming)

    def form_problems(self, body: dict[str, Any]) -> Iterator[str]:
        yield from extra(body.keys() & UNUSED)
        yield from thinking_problems(body)
        if body["max_tokens"] < 0:
            yield "max_tokens: field required"
        if not 0 <= body.get("temperature", 0) <= 1:
            yield "temperature: range 0..1"
        if "temperature" in body and "top_p" in body:
            yield "temperature and top_p cannot both be specified for this model"
        if not all(one.strip() for one in body.get("stop_sequences", ())):
            yield "stop_sequences: each must contain non-whitespace"
        if sum("cache_control" in node for node in nodes(body)) > 4:
            yield "there are more than 4 marks"
        schema = body.get("output_config", {}).get("format", {}).get("schema", True)
        yield from anthropic_problems(schema, "schema")
        yield from tool_problems(body)
        yield from message_problems(body)

    def turns(self, body: dict[str, Any]) -> list[Turn]:
        found = []
        for message, following in pairwise([*body["messages"], {"content": []}]):
            if message["role"] == "assistant":
                content = blocks_of(message)
                signatures = [block.get("signature", block.get("data")) for block in content if block["type"] in THINKING]
                text = "".join(block["text"] for block in content if block["type"] == "text")
                calls = [block["id"] for block in content if block["type"] == "tool_use"]
                results = [block for block in blocks_of(following) if block["type"] == "tool_result"]
                answers = [(block["tool_use_id"], block.get("content")) for block in results]
                found.append(Turn(content, text, signatures, calls, answers))
        return found

    def whole(self, reply: Reply) -> dict[str, Any]:
        usage = {"input_tokens": USAGE[0], "output_tokens": USAGE[1]}
        message = {"id": f"msg_{reply.number}", "type": "message", "role": "assistant", "model": self.asked, "usage": usage}
        reason = "max_tokens" if reply.is_cut else "tool_use" if reply.calls else "end_turn"
        return {**message, "content": self.content(reply), "stop_reason": reason, "stop_sequence": None}

    def pieces(self, reply: Reply) -> list[bytes]:
        whole = self.whole(reply)
        begun = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
        made: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
        for index, block in enumerate(whole["content"]):
            start, deltas = streamed(block)
            made.append({"type": "content_block_start", "index": index, "content_block": start})
            made += [{"type": "content_block_delta", "index": index, "delta": one} for one in deltas]
            made.append({"type": "content_block_stop", "index": index})
        end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        usage = whole["usage"] if reply.number % 2 else {"output_tokens": USAGE[1]}
        return events([*made, {"type": "message_delta", "delta": end, "usage": usage}, {"type": "message_stop"}])

    def error(self, failure: Failure) -> dict[str, Any]:
        kinds = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}
        return {"type": "error", "error": {"type": kinds.get(failure.status, "api_error"), "message": failure.message}}

    def error_piece(self, failure: Failure) -> bytes:
        return b"event: error\n" + sse(self.error(failure))


def blocks_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the content of a message, a text of which may stand alone."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def thinking_problems(body: dict[str, Any]) -> Iterator[str]:
    """Yield why a model that is told how much to think does not accept that. Results of calls continue a turn that has thought."""
    thinking, messages = body.get("thinking", {}), body["messages"]
    if thinking.get("type") != "enabled":
        return
    if not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
        yield f"{body['max_tokens']} tokens do not suffice for {thinking}"
    if body.get("temperature", 1) != 1 or "top_k" in body:
        yield "temperature may only be set to 1 when thinking is enabled"
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        yield "thinking may not be enabled when tool_choice forces tool use"
    if messages[-1]["role"] == "assistant":
        yield "a final assistant message has to begin with a thought"
    is_continued = any(block["type"] == "tool_result" for block in blocks_of(messages[-1]))
    if is_continued and blocks_of(messages[-2])[0]["type"] not in THINKING:
        yield "the last turn has to begin with a thought"


def tool_problems(body: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the tools."""
    tools, choice = body.get("tools", []), body.get("tool_choice", {})
    names = [tool["name"] for tool in tools]
    for tool in tools:
        name, schema = tool["name"], tool.get("input_schema", {})
        yield from extra(tool.keys() & UNUSED_OF_TOOLS)
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", name):
            yield f"{name!r} is no name of a tool"
        if schema.get("type") != "object" or {"oneOf", "allOf", "anyOf"} & schema.keys():
            yield f"{name}: input_schema has to be an object, without oneOf, allOf, or anyOf at the top level"
        for key in schema.get("properties") or {}:
            if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", key):
                yield f"{name}: property keys should match pattern: {key!r}"
        if tool.get("strict"):
            yield from anthropic_problems(schema, name)
    if len(names) > len(set(names)):
        yield "tools: tool names must be unique"
    if sum(bool(tool.get("strict")) for tool in tools) > 20:
        yield "there are too many strict tools"
    if choice and not names:
        yield "tool_choice may only be specified while providing tools"
    if choice.get("type") == "tool" and choice["name"] not in names:
        yield f"tool {choice['name']!r} not found in provided tools"


def message_problems(body: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the order of messages, and with what stands in them."""
    messages = body["messages"]
    roles = [message["role"] for message in messages]
    for some in (roles, [role for role in roles if role != "system"]):
        if not some or some[0] != "user" or any(before == after for before, after in pairwise(some)):
            yield f"the roles are {roles}"
    if roles[-1] == "assistant" and not body["model"].startswith(PREFILLED):
        yield "the model does not support assistant message prefill"
    waiting: list[str] = []
    used: list[str] = []
    for message in messages:
        blocks = blocks_of(message)
        if not blocks:
            yield "all messages must have non-empty content"
        for block in blocks:
            yield from block_problems(block, message["role"])
        kinds = [block["type"] == "tool_result" for block in blocks]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if (message["role"] == "user" or waiting) and sorted(results) != sorted(waiting):
            yield f"the calls {waiting} have the results {results}"
        if kinds != sorted(kinds, reverse=True):
            yield "results come first"
        waiting = [block["id"] for block in blocks if block["type"] == "tool_use"]
        used += waiting
    if waiting:
        yield "the last message has tool_use blocks without results"
    if len(used) > len(set(used)):
        yield "messages: tool_use ids must be unique"


def block_problems(block: dict[str, Any], role: str) -> Iterator[str]:
    """Yield what is wrong with a block of a message."""
    yield from extra(block.keys() & UNUSED_OF_BLOCKS)
    match block:
        case {"type": kind} if kind not in KINDS:
            yield f"input tag {kind!r} is unknown"
        case {"type": "text", "text": text} if not text.strip():
            yield "text content blocks must contain non-whitespace text"
        case {"type": "tool_use"} if not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]) or not isinstance(block["input"], dict):
            yield f"{block} has a bad id or input"
        case {"type": "tool_result"}:
            if block.get("is_error") and not block.get("content"):
                yield f"{block} is empty"
            for inner in block["content"] if isinstance(block.get("content"), list) else ():
                yield from block_problems(inner, role)
        case {"type": "image" | "document", "source": source}:
            if source.get("data", "").startswith("iVBOR") and source["media_type"] != "image/png":
                yield "a picture has another type"
            if not source.get("url", "https://").startswith("https://"):
                yield "only HTTPS URLs are supported"
    if block["type"] in ("image", "document", "tool_result") and role != "user":
        yield f"a {block['type']} of {role}"


def block_of(block: Block) -> dict[str, Any]:
    """Return a block in Anthropic's form."""
    match block:
        case Thought(text, signature):
            return {"type": "thinking", "thinking": text, "signature": signature}
        case Redacted(data):
            return {"type": "redacted_thinking", "data": data}
        case Called(call_id, name, arguments):
            return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}
        case _:
            return {"type": "text", "text": block.text}


def streamed(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how a block starts, and its deltas."""
    match block:
        case {"type": "text", "text": text}:
            return {"type": "text", "text": ""}, [{"type": "text_delta", "text": one} for one in words(text)]
        case {"type": "thinking", "thinking": text, "signature": signature}:
            deltas = [{"type": "thinking_delta", "thinking": one} for one in words(text)]
            deltas.append({"type": "signature_delta", "signature": signature})
            return {"type": "thinking", "thinking": "", "signature": ""}, deltas
        case {"type": "tool_use", "input": value}:
            written = ("", *halves(json.dumps(value) if value else ""))
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": one} for one in written]
        case _:
            return block, []
