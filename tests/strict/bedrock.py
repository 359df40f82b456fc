"""Bedrock's Converse API, with a Claude model: what AWS's own description allows, and what the API states in words."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from tests import converse, eventstream
from tests.strict.base import StrictApi, Turn, has_calls
from tests.strict.reply import USAGE, Block, Called, Failure, Redacted, Reply, Said, Thought
from tests.strict.schemas import anthropic_problems


class StrictBedrock(StrictApi):
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, described by AWS (`tests.converse`).

    What has to come back: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-extended-thinking.html.
    """

    protocol = "bedrock"
    model = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    paths = r"/model/[^/?]+/(converse|converse-stream)"
    call_ids = "tooluse_{}_{}"
    content_type = converse.CONTENT_TYPE

    def thinking(self, number: int) -> Iterator[Block]:
        yield Thought(self.thought(number), self.private("thought", number))
        if number % 3 == 2:
            yield Redacted(self.private("redacted", number))
        yield Said(self.step(number))
        if has_calls(number):
            yield Thought("And so.", self.private("between", number))

    def content(self, reply: Reply) -> list[dict[str, Any]]:
        return [block_of(block) for block in reply.blocks]

    def begin(self, path: str, body: dict[str, Any]) -> None:
        self.asked = unquote(path.split("/")[2])

    def is_stream(self, path: str, body: dict[str, Any]) -> bool:
        return path.endswith("/converse-stream")

    def tool_names(self, body: dict[str, Any]) -> list[str]:
        return [tool["toolSpec"]["name"] for tool in body.get("toolConfig", {}).get("tools", ()) if "toolSpec" in tool]

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        return converse.problems(self.asked, body, "ConverseStream" if is_stream else "Converse").splitlines()

    def form_problems(self, body: dict[str, Any]) -> Iterator[str]:
        tools = [tool.get("toolSpec", {}) for tool in body.get("toolConfig", {}).get("tools", ())]
        if len(self.names) > len(set(self.names)):
            yield "tool names must be unique"
        if sum(bool(tool.get("strict")) for tool in tools) > 20:
            yield "there are too many strict tools"
        for tool in tools:
            schema = tool.get("inputSchema", {}).get("json", {"type": "object"})
            if schema.get("type") != "object":
                yield "toolSpec.inputSchema.json.type must be object"
            if "claude" in self.asked and {"oneOf", "allOf", "anyOf"} & schema.keys():
                yield "input_schema does not support oneOf, allOf, or anyOf at the top level"
            if tool.get("strict"):
                yield from anthropic_problems(schema, "toolSpec")

    def turn_problems(self, body: dict[str, Any], turns: list[Turn]) -> Iterator[str]:
        yield from super().turn_problems(body, turns)
        messages = body["messages"]
        if messages[-1]["role"] != "user":
            yield "the user speaks last"
        thinking = body.get("additionalModelRequestFields", {}).get("thinking", {})
        if thinking.get("type") == "enabled":
            if not 1024 <= thinking["budget_tokens"] < body.get("inferenceConfig", {}).get("maxTokens", 4096):
                yield f"the tokens do not suffice for {thinking}"
            if "toolResult" in messages[-1]["content"][0] and "reasoningContent" not in messages[-2]["content"][0]:
                yield "the last turn has to begin with a thought"
        for message in messages:
            if len({"toolResult" in block for block in message["content"]}) > 1:
                yield "results share their turn"

    def turns(self, body: dict[str, Any]) -> list[Turn]:
        found = []
        for at, message in enumerate(body["messages"]):
            if message["role"] == "assistant":
                content = message["content"]
                thoughts = [block["reasoningContent"] for block in content if "reasoningContent" in block]
                signatures = [one.get("redactedContent") or one["reasoningText"].get("signature") for one in thoughts]
                text = "".join(block["text"] for block in content if "text" in block)
                calls = [block["toolUse"]["toolUseId"] for block in content if "toolUse" in block]
                following = body["messages"][at + 1]["content"] if at + 1 < len(body["messages"]) else []
                results = [block["toolResult"] for block in following if "toolResult" in block]
                answers = [(one["toolUseId"], "".join(part.get("text", "") for part in one["content"])) for one in results]
                found.append(Turn(content, text, signatures, calls, answers))
        return found

    def reason(self, reply: Reply) -> str:
        return "max_tokens" if reply.is_cut else "tool_use" if reply.calls else "end_turn"

    def whole(self, reply: Reply) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.content(reply)}
        usage = {"inputTokens": USAGE[0], "outputTokens": USAGE[1], "totalTokens": sum(USAGE)}
        return {"output": {"message": message}, "stopReason": self.reason(reply), "usage": usage, "metrics": {"latencyMs": 1}}

    def pieces(self, reply: Reply) -> list[bytes]:
        made = converse.streamed(self.content(reply), self.reason(reply))
        made[-1]["metadata"]["usage"] = self.whole(reply)["usage"]
        return [eventstream.stream(one) for one in made]

    def error(self, failure: Failure) -> dict[str, Any]:
        return {"message": failure.message}

    def error_piece(self, failure: Failure) -> bytes:
        return eventstream.exception("throttlingException", self.error(failure))


def block_of(block: Block) -> dict[str, Any]:
    """Return a block in the form of Converse."""
    match block:
        case Thought(text, signature):
            return {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}}
        case Redacted(data):
            return {"reasoningContent": {"redactedContent": data}}
        case Called(call_id, name, arguments):
            return {"toolUse": {"toolUseId": call_id, "name": name, "input": arguments}}
        case _:
            return {"text": block.text}
