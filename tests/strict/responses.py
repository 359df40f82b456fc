"""OpenAI's Responses API without storage: encrypted reasoning between messages and calls, each item with an id."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming, ResponseCreateParamsStreaming

from tests.odd_upstream import sse
from tests.sdk_types import problems as type_problems
from tests.strict.base import StrictApi, Turn, events, extra, has_calls
from tests.strict.reply import USAGE, Block, Called, Failure, Reply, Said, Thought, halves, words
from tests.strict.schemas import openai_problems

DETAILS = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 3}}
EMPTY: dict[str, dict[str, Any]] = {
    "reasoning": {"summary": []},
    "message": {"content": []},
    "function_call": {"arguments": ""},
}
"""By type: how an item starts in a stream."""
NAME = r"[a-zA-Z0-9_-]{1,64}"
PREFIXES = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_"}
KINDS = (*PREFIXES, "function_call_output")
PARTS = {"assistant": ("output_text", "refusal")}
PARTS_OF_OTHERS = ("input_text", "input_image", "input_file")
UNUSED = frozenset({"access_programs", "background_options", "context_management", "image", "moderation", "prompt_cache_options"})
UNUSED_OF_TOOLS = frozenset({"allowed_callers", "async", "defer_loading", "output_schema"})
UNUSED_OF_ITEMS = frozenset({"async", "caller", "namespace"})


class StrictResponses(StrictApi):
    """https://platform.openai.com/docs/api-reference/responses, and its refusals.

    What has to come back: https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items.
    """

    protocol = "openai-responses"
    model = "gpt-5.2"
    base = "/v1"
    paths = "/v1/responses"
    binds_to_deployment = True  # the key that encrypts belongs to an organisation and a region

    def thinking(self, number: int) -> Iterator[Block]:
        yield Thought(self.thought(number) if number % 2 else "", self.private("thought", number))
        yield Said(self.step(number))
        if has_calls(number):
            yield Thought("And so.", self.private("between", number))

    @property
    def is_newer(self) -> bool:
        """Return whether the model has phases, and fields that older ones lack."""
        return self.asked.startswith("gpt-5")

    def content(self, reply: Reply) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        phase = {"phase": "commentary" if reply.calls else "final_answer"} if self.is_newer else {}
        logprobs: dict[str, Any] = {"logprobs": []} if self.is_newer else {}
        for at, block in enumerate(reply.blocks):
            item: dict[str, Any] = {"status": "completed", "id": f"{self.name.replace('-', '')}{reply.number:04}{at}"}
            match block:
                case Said(text):
                    part = {"type": "output_text", "annotations": [], **logprobs, "text": text}
                    item |= {"type": "message", "role": "assistant", **phase, "content": [part]}
                case Thought(text, signature):
                    summary = [{"type": "summary_text", "text": text}] if text else []
                    item = {"id": item["id"], "type": "reasoning", "summary": summary, "encrypted_content": signature}
                case Called(call_id, name, arguments):
                    item |= {"type": "function_call", "call_id": call_id, "name": name, "arguments": json.dumps(arguments)}
            item["id"] = PREFIXES[item["type"]] + item["id"]
            self.issued.add(item["id"])
            found.append(item)
        return found

    def tool_names(self, body: dict[str, Any]) -> list[str]:
        return [tool["name"] for tool in body.get("tools", ()) if tool["type"] == "function"]

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        return type_problems(body, ResponseCreateParamsStreaming if is_stream else ResponseCreateParamsNonStreaming)

    def form_problems(self, body: dict[str, Any]) -> Iterator[str]:
        yield from extra(body.keys() & UNUSED)
        included = body.get("include", ())
        if body.get("max_output_tokens", 16) < 16:
            yield "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16"
        if self.asked.startswith(("o", "gpt-5")) and {"temperature", "top_p"} & body.keys():
            yield "Unsupported parameter: 'temperature' is not supported with this model."
        if self.asked.startswith("gpt-4") and ("reasoning" in body or "reasoning.encrypted_content" in included):
            yield "Encrypted content is not supported with this model."
        if "top_logprobs" in body and "message.output_text.logprobs" not in included:
            yield "top_logprobs without logprobs"
        yield from tool_problems(body, self.names)
        form = body.get("text", {}).get("format", {"type": "text"})
        if form["type"] == "json_schema" and not re.fullmatch(NAME, form["name"]):
            yield "text.format.name"
        if form["type"] == "json_schema" and form.get("strict"):
            yield from openai_problems(form["schema"], "text.format.schema")
        if form["type"] == "json_object" and "json" not in json.dumps(body["input"]).lower():
            yield "the input must contain the word 'json' to use 'text.format' of type 'json_object'"
        yield from input_problems(items_of(body))

    def turn_problems(self, body: dict[str, Any], turns: list[Turn]) -> Iterator[str]:
        if body["store"] is not False or "reasoning.encrypted_content" not in body["include"]:
            yield "it is to store nothing, and to send encrypted reasoning"
        yield from super().turn_problems(body, turns)
        for item, following in pairwise([*body["input"], {}]):
            if item.get("type") == following.get("type") == "reasoning":
                yield "reasoning is without its following item"
        if is_output(body["input"][-1]):
            yield "the model does not speak last"

    def foreign_problems(self, content: Any, number: int) -> Iterator[str]:
        if any("id" in item for item in content):
            yield f"turn {number} has ids of others"

    def turns(self, body: dict[str, Any]) -> list[Turn]:
        found = []
        groups = [(output, list(group)) for output, group in groupby(items_of(body), is_output)]
        for (output, items), (_, following) in pairwise([*groups, (False, [])]):
            if output:
                signatures = [item.get("encrypted_content") for item in items if item.get("type") == "reasoning"]
                calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
                results = [(item["call_id"], item["output"]) for item in following if item.get("type") == "function_call_output"]
                found.append(Turn(items, "".join(map(said, items)), signatures, calls, results))
        return found

    def whole(self, reply: Reply) -> dict[str, Any]:
        details: dict[str, Any] = DETAILS if self.is_newer else {}
        usage = {"input_tokens": USAGE[0], "output_tokens": USAGE[1], "total_tokens": sum(USAGE), **details}
        about = {"id": f"resp_{reply.number}", "object": "response", "created_at": 1_700_000_000, "model": self.asked}
        reason = {"reason": "max_output_tokens"} if reply.is_cut else None
        ended = {"status": "incomplete" if reply.is_cut else "completed", "error": None, "incomplete_details": reason}
        return {**about, **ended, "output": self.content(reply), "usage": usage}

    def pieces(self, reply: Reply) -> list[bytes]:
        whole = self.whole(reply)
        none = {**whole, "status": "in_progress", "output": [], "incomplete_details": None, "usage": None}
        made: list[dict[str, Any]] = [{"type": f"response.{kind}", "response": none} for kind in ("created", "in_progress")]
        for index, item in enumerate(whole["output"]):
            # The encrypted content at the start is another one, which is not complete.
            start = {"encrypted_content": "incomplete"} if item["type"] == "reasoning" else {"status": "in_progress"}
            begun = {**item, **start, **EMPTY[item["type"]]}
            made.append({"type": "response.output_item.added", "output_index": index, "item": begun})
            made += inner_events(item, {"output_index": index, "item_id": item["id"]})
            made.append({"type": "response.output_item.done", "output_index": index, "item": item})
        made.append({"type": f"response.{whole['status']}", "response": whole})
        return events([{**one, "sequence_number": at} for at, one in enumerate(made)])

    def error(self, failure: Failure) -> dict[str, Any]:
        kind = "invalid_request_error" if failure.status == 400 else "server_error"
        return {"error": {"message": failure.message, "type": kind, "param": None, "code": None}}

    def error_piece(self, failure: Failure) -> bytes:
        return b"event: error\n" + sse({"type": "error", "code": "server_error", "message": failure.message, "param": None})


def inner_events(item: dict[str, Any], place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events between the start and the end of an item."""
    match item:
        case {"type": "reasoning", "summary": [part]}:
            inner = {**place, "summary_index": 0}
            yield {"type": "response.reasoning_summary_part.added", **inner, "part": {**part, "text": ""}}
            for piece in words(part["text"]):
                yield {"type": "response.reasoning_summary_text.delta", **inner, "delta": piece}
            yield {"type": "response.reasoning_summary_text.done", **inner, "text": part["text"]}
            yield {"type": "response.reasoning_summary_part.done", **inner, "part": part}
        case {"type": "message", "content": [part]}:
            inner = {**place, "content_index": 0}
            yield {"type": "response.content_part.added", **inner, "part": {**part, "text": ""}}
            for piece in words(part["text"]):
                yield {"type": "response.output_text.delta", **inner, "delta": piece, "logprobs": []}
            yield {"type": "response.output_text.done", **inner, "text": part["text"], "logprobs": []}
            yield {"type": "response.content_part.done", **inner, "part": part}
        case {"type": "function_call", "arguments": text}:
            for piece in halves(text):
                yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
            yield {"type": "response.function_call_arguments.done", **place, "arguments": text}
        case _:
            pass


def tool_problems(body: dict[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the tools."""
    for tool in body.get("tools", ()):
        if tool["type"] == "function":
            yield from extra(tool.keys() & UNUSED_OF_TOOLS)
            if not re.fullmatch(NAME, tool["name"]):
                yield f"Invalid 'tools[].name': {tool['name']!r}"
            if tool["strict"]:
                yield from openai_problems(tool["parameters"], tool["name"])
            if tool["parameters"].get("type") != "object":
                yield "schema must be a JSON Schema of 'type: \"object\"'"
    choice = body.get("tool_choice")
    for one in choice.get("tools", [choice]) if isinstance(choice, dict) else []:
        if one.get("name") not in names:
            yield f"Tool choice {one.get('name')!r} not found in 'tools' parameter."
    if choice == "required" and not names:
        yield "Tool choice 'required' must be specified with 'tools' parameter."


def input_problems(items: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with the order of items, and with what stands in them."""
    waiting: list[str] = []
    ids = [item["id"] for item in items if "id" in item]
    if not items:
        yield "input: missing"
    if len(ids) > len(set(ids)):
        yield "duplicate item found"
    for item, following in pairwise([*items, {"role": "user"}]):
        yield from item_problems(item)
        match item:
            case {"type": "function_call", "call_id": one}:
                waiting.append(one)
            case {"type": "function_call_output", "call_id": one} if one in waiting:
                waiting.remove(one)
            case {"type": "function_call_output", "call_id": one}:
                yield f"No tool call found for function call output with call_id {one}."
            case {"type": "reasoning"}:
                if not is_output(following):
                    yield "item 'reasoning' was provided without its required following item."
                if ("id" in item) != ("id" in following):
                    yield "reasoning has an id, and its item none, or the other way round"
    yield from (f"No tool output found for function call {one}." for one in waiting)


def item_problems(item: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with an item, wherever it stands."""
    kind = item.get("type", "message")
    yield from extra(item.keys() & UNUSED_OF_ITEMS)
    if kind not in KINDS:
        yield f"Invalid value: {kind!r}"
    if not item.get("id", PREFIXES.get(kind, "")).startswith(PREFIXES.get(kind, "")):
        yield f"Invalid 'id': {item['id']}"
    if kind == "function_call" and (len(item["call_id"]) > 64 or not re.fullmatch(NAME, item["name"])):
        yield "name or call_id is too long"
    if kind == "message" and item["content"] == []:
        yield "content: missing"
    content = item.get("output" if kind == "function_call_output" else "content")
    allowed = PARTS.get(item.get("role", "user"), PARTS_OF_OTHERS)
    for part in content if isinstance(content, list) else ():
        if part["type"] not in allowed:
            yield f"Invalid value: {part['type']!r}. Supported values are: {allowed}"
        yield from extra(part.keys() & {"prompt_cache_breakpoint"})
        if part["type"] == "input_file":
            yield from extra(part.keys() & {"detail"})
            if "file_data" in part and "filename" not in part:
                yield "missing required parameter 'filename'"


def items_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the input, which may be a text alone."""
    return [{"role": "user", "content": body["input"]}] if isinstance(body["input"], str) else body["input"]


def is_output(item: dict[str, Any]) -> bool:
    """Return whether an item is of the model."""
    return item.get("role") == "assistant" or item.get("type") in ("reasoning", "function_call")


def said(item: dict[str, Any]) -> str:
    """Return the text of a message."""
    content = item.get("content")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())
