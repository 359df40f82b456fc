"""Anthropic's Messages API: thinking between texts and calls, with signatures and redacted blocks."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

from tests.sdk_types import problems as type_problems
from tests.strict.base import StrictApi, call_count, events, halves, has_calls, paired

USAGE = {"input_tokens": 5, "output_tokens": 7}
THINKING = ("thinking", "redacted_thinking")


class StrictAnthropic(StrictApi):
    """https://platform.claude.com/docs/en/build-with-claude/extended-thinking#preserving-thinking-blocks."""

    protocol = "anthropic"
    model = "claude-sonnet-4-5"

    def content(self, number: int) -> list[dict[str, Any]]:
        """Return a turn. Every fourth thought has no text, as with `display: omitted`; every third turn has a redacted one."""
        thought = {"type": "thinking", "thinking": "" if number % 4 == 3 else self.thought(number)}
        blocks: list[dict[str, Any]] = [{**thought, "signature": self.private("thought", number)}]
        if number % 3 == 2:
            blocks.append({"type": "redacted_thinking", "data": self.private("redacted", number)})
        blocks.append({"type": "text", "text": self.step(number)})
        if has_calls(number):
            blocks.append({"type": "thinking", "thinking": "And so.", "signature": self.private("between", number)})
        if has_calls(number) and number % 3 == 1:
            blocks.append({"type": "text", "text": "\nFar \N{EARTH GLOBE AMERICAS} off."})
        for place in range(call_count(number)):
            call = {"type": "tool_use", "id": f"toolu_{number}_{place}", "name": self.names[place], "input": {"n": number}}
            blocks.append(call)
        return blocks

    def tool_names(self, body: dict[str, Any]) -> tuple[str, str]:
        first, second = body["tools"]
        return first["name"], second["name"]

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        return type_problems(body, MessageCreateParamsStreaming if is_stream else MessageCreateParamsNonStreaming)

    def problems(self, body: dict[str, Any]) -> Iterator[str]:
        messages = body["messages"]
        yield from thinking_problems(body.get("thinking", {}), body["max_tokens"], messages)
        roles = [message["role"] for message in messages]
        if roles[0] != "user" or roles[-1] != "user" or any(before == after for before, after in pairwise(roles)):
            yield f"the roles are {roles}"
        for name in self.names:
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", name):
                yield f"{name!r} is no name of a tool"
        number = 0
        for message, following in pairwise([*messages, {"role": "user", "content": []}]):
            if message["role"] != "assistant":
                continue
            content = message["content"]
            content = [{"type": "text", "text": content}] if isinstance(content, str) else content
            yield from self.reply_problems(content, number)
            calls = [block["id"] for block in content if block["type"] == "tool_use"]
            if not all(re.fullmatch(r"[a-zA-Z0-9_-]+", one) for one in calls):
                yield f"{calls} are no ids"
            results = [] if isinstance(following["content"], str) else following["content"]
            found = [(block["tool_use_id"], block["content"]) for block in results if block["type"] == "tool_result"]
            if [block["type"] for block in results[: len(found)]] != ["tool_result"] * len(found):
                yield "results come first"
            yield from paired([(one, number, place) for place, one in enumerate(calls)], found)
            number += 1

    def reply_problems(self, content: list[dict[str, Any]], number: int) -> Iterable[str]:
        """Return what is wrong with a turn that comes back."""
        signatures = [block.get("signature", block.get("data")) for block in content if block["type"] in THINKING]
        yield from self.own_values(signatures)
        if any(block["type"] == "text" and not block["text"].strip() for block in content):
            yield "a text is blank"
        text = "".join(block["text"] for block in content if block["type"] == "text")
        if self.is_own(text, number) and content != self.content(number):
            yield f"turn {number} has changed: {content} instead of {self.content(number)}"

    def turn_number(self, body: dict[str, Any]) -> int:
        return sum(message["role"] == "assistant" for message in body["messages"])

    def whole(self, number: int) -> dict[str, Any]:
        return {**self.message(number), "content": self.content(number), "stop_reason": self.reason(number)}

    def message(self, number: int) -> dict[str, Any]:
        """Return a reply that has not begun."""
        fields = {"type": "message", "role": "assistant", "model": self.model, "content": [], "stop_reason": None}
        return {"id": f"msg_{number}", **fields, "stop_sequence": None, "usage": USAGE}

    def reason(self, number: int) -> str:
        return "tool_use" if has_calls(number) else "end_turn"

    def pieces(self, number: int) -> list[bytes]:
        made: list[dict[str, Any]] = [{"type": "message_start", "message": self.message(number)}]
        for index, block in enumerate(self.content(number)):
            start, deltas = streamed(block)
            made.append({"type": "content_block_start", "index": index, "content_block": start})
            made += [{"type": "content_block_delta", "index": index, "delta": one} for one in deltas]
            made.append({"type": "content_block_stop", "index": index})
        end = {"stop_reason": self.reason(number), "stop_sequence": None}
        return events([*made, {"type": "message_delta", "delta": end, "usage": USAGE}, {"type": "message_stop"}])

    def refusal(self, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


def thinking_problems(thinking: dict[str, Any], limit: int, messages: list[dict[str, Any]]) -> Iterator[str]:
    """Yield why a model that is told how much to think does not accept that. Results of calls continue a turn that has thought."""
    if thinking.get("type") != "enabled":
        return
    if not 1024 <= thinking["budget_tokens"] < limit:
        yield f"{limit} tokens do not suffice for {thinking}"
    has_results = isinstance(messages[-1]["content"], list) and messages[-1]["content"][0].get("type") == "tool_result"
    if has_results and messages[-2]["content"][0]["type"] not in THINKING:
        yield "the last turn has to begin with a thought"


def streamed(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how a block starts, and its deltas."""
    match block:
        case {"type": "text", "text": text}:
            return {"type": "text", "text": ""}, [{"type": "text_delta", "text": one} for one in halves(text)]
        case {"type": "thinking", "thinking": text, "signature": signature}:
            deltas = [{"type": "thinking_delta", "thinking": one} for one in halves(text) if one]
            return {"type": "thinking", "thinking": "", "signature": ""}, [
                *deltas,
                {"type": "signature_delta", "signature": signature},
            ]
        case {"type": "tool_use", "input": value}:
            text = str(value).replace("'", '"')
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": one} for one in ("", *halves(text))]
        case _:
            return block, []
