"""OpenAI's Responses API without storage: encrypted reasoning between messages and calls, each item with an id."""

import re
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import Any

from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming, ResponseCreateParamsStreaming

from tests.sdk_types import problems as type_problems
from tests.strict.base import StrictApi, call_count, events, halves, has_calls, paired

DETAILS = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 3}}
USAGE = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12, **DETAILS}


class StrictResponses(StrictApi):
    """https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items."""

    protocol = "openai-responses"
    model = "gpt-5.2"
    binds_to_deployment = True  # the key that encrypts belongs to an organisation and a region

    def items(self, number: int) -> list[dict[str, Any]]:
        """Return a turn."""
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": self.step(number)}
        fields = {"status": "completed", "phase": "commentary" if has_calls(number) else "final_answer"}
        items = [
            self.reasoning("thought", number, [{"type": "summary_text", "text": self.thought(number)}] if number % 2 else []),
            {"id": self.private_id("msg", number), "type": "message", "role": "assistant", **fields, "content": [part]},
        ]
        if has_calls(number):
            items.append(self.reasoning("between", number, [{"type": "summary_text", "text": "And so."}]))
        for place in range(call_count(number)):
            call = {"call_id": f"call_{number}_{place}", "name": self.names[place], "arguments": f'{{"n": {number}}}'}
            given = self.private_id(f"fc{place}", number)
            items.append({"id": given, "type": "function_call", "status": "completed", **call})
        return items

    def reasoning(self, kind: str, number: int, summary: list[dict[str, str]]) -> dict[str, Any]:
        """Return an item of reasoning."""
        given = self.private_id(f"rs{kind}", number)
        return {"id": given, "type": "reasoning", "summary": summary, "encrypted_content": self.private(kind, number)}

    def tool_names(self, body: dict[str, Any]) -> tuple[str, str]:
        first, second = (tool["name"] for tool in body["tools"])
        return first, second

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        return type_problems(body, ResponseCreateParamsStreaming if is_stream else ResponseCreateParamsNonStreaming)

    def problems(self, body: dict[str, Any]) -> Iterator[str]:
        items = body["input"]
        if body["store"] is not False or "reasoning.encrypted_content" not in body["include"]:
            yield "it is to store nothing, and to send encrypted reasoning"
        if not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in self.names):
            yield f"{self.names} are no names of tools"
        ids = [item["id"] for item in items if "id" in item]
        if len(ids) > len(set(ids)):
            yield "two items have one id"
        for item, following in pairwise([*items, {}]):
            if item.get("type") == "reasoning":
                yield from self.own_values([item["encrypted_content"]])
                if not is_output(following) or following.get("type") == "reasoning":
                    yield "reasoning is without its following item"
                if ("id" in item) != ("id" in following):
                    yield "reasoning has an id, and its item none, or the other way round"
        turns = [(output, list(group)) for output, group in groupby(items, is_output)]
        number = 0
        for (output, turn), (_, following_items) in pairwise([*turns, (False, [])]):
            if output:
                yield from self.turn_problems(turn, following_items, number)
                number += 1
        if is_output(items[-1]):
            yield "the model does not speak last"

    def turn_problems(self, turn: list[dict[str, Any]], following: list[dict[str, Any]], number: int) -> Iterator[str]:
        """Yield what is wrong with a turn that comes back, and with its results."""
        is_own = any(self.is_own(said(item), number) for item in turn)
        expected = self.items(number)
        if is_own and turn != expected:
            yield f"turn {number} has changed: {turn} instead of {expected}"
        if not is_own and any("id" in item for item in turn):
            yield f"turn {number} has ids of others"
        calls = [item["call_id"] for item in turn if item.get("type") == "function_call"]
        results = [(item["call_id"], item["output"]) for item in following if item.get("type") == "function_call_output"]
        if any(len(call) > 64 for call in calls):
            yield "an id of a call is too long"
        yield from paired([(one, number, place) for place, one in enumerate(calls)], results)

    def turn_number(self, body: dict[str, Any]) -> int:
        return sum(output for output, _ in groupby(body["input"], is_output))

    def whole(self, number: int) -> dict[str, Any]:
        return {**self.response(number), "status": "completed", "output": self.items(number), "usage": USAGE}

    def response(self, number: int) -> dict[str, Any]:
        """Return a response that has not begun."""
        about = {"id": f"resp_{number}", "object": "response", "created_at": 1_700_000_000, "model": self.model}
        return {**about, "status": "in_progress", "output": [], "error": None, "incomplete_details": None, "usage": None}

    def pieces(self, number: int) -> list[bytes]:
        made: list[dict[str, Any]] = [{"type": "response.created", "response": self.response(number)}]
        for index, item in enumerate(self.items(number)):
            place = {"output_index": index, "item_id": item["id"]}
            # The encrypted content at the start is another one, which is not complete.
            start = (
                {**item, "encrypted_content": "incomplete"} if item["type"] == "reasoning" else {**item, "status": "in_progress"}
            )
            empty = {"reasoning": {"summary": []}, "message": {"content": []}, "function_call": {"arguments": ""}}[item["type"]]
            made.append({"type": "response.output_item.added", "output_index": index, "item": {**start, **empty}})
            made += inner_events(item, place)
            made.append({"type": "response.output_item.done", "output_index": index, "item": item})
        made.append({"type": "response.completed", "response": self.whole(number)})
        return events([{**one, "sequence_number": at} for at, one in enumerate(made)])

    def refusal(self, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def inner_events(item: dict[str, Any], place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events between the start and the end of an item."""
    match item:
        case {"type": "reasoning", "summary": [part]}:
            inner = {**place, "summary_index": 0}
            yield {"type": "response.reasoning_summary_part.added", **inner, "part": {**part, "text": ""}}
            for piece in halves(part["text"]):
                yield {"type": "response.reasoning_summary_text.delta", **inner, "delta": piece}
            yield {"type": "response.reasoning_summary_text.done", **inner, "text": part["text"]}
            yield {"type": "response.reasoning_summary_part.done", **inner, "part": part}
        case {"type": "message", "content": [part]}:
            inner = {**place, "content_index": 0}
            yield {"type": "response.content_part.added", **inner, "part": {**part, "text": ""}}
            for piece in halves(part["text"]):
                yield {"type": "response.output_text.delta", **inner, "delta": piece, "logprobs": []}
            yield {"type": "response.output_text.done", **inner, "text": part["text"], "logprobs": []}
            yield {"type": "response.content_part.done", **inner, "part": part}
        case {"type": "function_call", "arguments": text}:
            for piece in halves(text):
                yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
            yield {"type": "response.function_call_arguments.done", **place, "arguments": text}
        case _:
            pass


def is_output(item: dict[str, Any]) -> bool:
    """Return whether an item is of the model."""
    return item.get("role") == "assistant" or item.get("type") in ("reasoning", "function_call")


def said(item: dict[str, Any]) -> str:
    """Return the text of a message."""
    content = item.get("content")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())
