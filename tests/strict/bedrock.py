"""Bedrock's Converse API, with a Claude model: what AWS's own description allows, and what the API states in words."""

import json
from collections.abc import Iterator
from typing import Any

from tests.converse import CONTENT_TYPE, USAGE, streamed
from tests.converse import problems as converse_problems
from tests.eventstream import stream
from tests.strict.base import StrictApi, call_count, has_calls, paired


class StrictBedrock(StrictApi):
    """https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html."""

    protocol = "bedrock"
    model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    content_type = CONTENT_TYPE

    def content(self, number: int) -> list[dict[str, Any]]:
        """Return a turn."""
        blocks = [thinking(self.thought(number), self.private("thought", number))]
        if number % 3 == 2:
            blocks.append({"reasoningContent": {"redactedContent": self.private("redacted", number)}})
        blocks.append({"text": self.step(number)})
        if has_calls(number):
            blocks.append(thinking("And so.", self.private("between", number)))
        for place in range(call_count(number)):
            call = {"toolUseId": f"tooluse_{number}_{place}", "name": self.names[place], "input": {"n": number}}
            blocks.append({"toolUse": call})
        return blocks

    def is_stream(self, path: str, body: dict[str, Any]) -> bool:
        return path.endswith("/converse-stream")

    def tool_names(self, body: dict[str, Any]) -> tuple[str, str]:
        first, second = (tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"])
        return first, second

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        found = converse_problems(self.model, body, "ConverseStream" if is_stream else "Converse")
        return [found] if found else []

    def problems(self, body: dict[str, Any]) -> Iterator[str]:
        messages = body["messages"]
        if messages[-1]["role"] != "user":
            yield "the user speaks last"
        thinking = body.get("additionalModelRequestFields", {}).get("thinking", {})
        if thinking.get("type") == "enabled":
            if not 1024 <= thinking["budget_tokens"] < body.get("inferenceConfig", {}).get("maxTokens", 4096):
                yield f"the tokens do not suffice for {thinking}"
            if "toolResult" in messages[-1]["content"][0] and "reasoningContent" not in messages[-2]["content"][0]:
                yield "the last turn has to begin with a thought"
        number = 0
        for at, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            content = message["content"]
            thoughts = [block["reasoningContent"] for block in content if "reasoningContent" in block]
            yield from self.own_values(one.get("redactedContent") or one["reasoningText"].get("signature") for one in thoughts)
            text = "".join(block["text"] for block in content if "text" in block)
            if self.is_own(text, number) and content != self.content(number):
                yield f"turn {number} has changed: {content} instead of {self.content(number)}"
            calls = [block["toolUse"]["toolUseId"] for block in content if "toolUse" in block]
            following = messages[at + 1]["content"] if at + 1 < len(messages) else []
            results = [block["toolResult"] for block in following if "toolResult" in block]
            if len(results) not in (0, len(following)):
                yield "results share their turn"
            yield from paired(
                [(one, number, place) for place, one in enumerate(calls)],
                [(one["toolUseId"], one["content"][0].get("text")) for one in results],
            )
            number += 1

    def turn_number(self, body: dict[str, Any]) -> int:
        return sum(message["role"] == "assistant" for message in body["messages"])

    def reason(self, number: int) -> str:
        return "tool_use" if has_calls(number) else "end_turn"

    def whole(self, number: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.content(number)}
        return {"output": {"message": message}, "stopReason": self.reason(number), "usage": USAGE, "metrics": {"latencyMs": 1}}

    def pieces(self, number: int) -> list[bytes]:
        return [stream(one) for one in streamed(json.loads(json.dumps(self.content(number))), self.reason(number))]

    def refusal(self, message: str) -> dict[str, Any]:
        return {"message": message}


def thinking(text: str, signature: str) -> dict[str, Any]:
    """Return a block of reasoning."""
    return {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}
