"""Chat completions of two hosts with reasoning: one signs it in `reasoning_details`, the other demands `reasoning_content`."""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any

from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming

from tests.odd_upstream import sse
from tests.sdk_types import problems as type_problems
from tests.strict.base import StrictApi, Turn
from tests.strict.reply import USAGE, Block, Called, Failure, Redacted, Reply, Said, Thought, halves, words

COUNTS = {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}


class StrictChat(StrictApi):
    """What both have in common."""

    base = "/v1"
    paths = "/v1/chat/completions"
    reasoning: tuple[str, ...]
    """The fields of a message that are the host's own."""

    @abstractmethod
    def thoughts(self, reply: Reply) -> dict[str, Any]:
        """Return the host's own fields of a reply, as they come back."""

    @abstractmethod
    def thought_deltas(self, reply: Reply) -> list[dict[str, Any]]:
        """Return the same as deltas of a stream."""

    @abstractmethod
    def has_foreign_thoughts(self, message: dict[str, Any]) -> bool:
        """Return whether a turn of another provider has what the host refuses."""

    def content(self, reply: Reply) -> dict[str, Any]:
        calls = [call_of(block) for block in reply.calls]
        return {"role": "assistant", "content": reply.text, **self.thoughts(reply), **({"tool_calls": calls} if calls else {})}

    def tool_names(self, body: dict[str, Any]) -> list[str]:
        return [tool["function"]["name"] for tool in body.get("tools", ())]

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        own = [{name: value for name, value in one.items() if name not in self.reasoning} for one in body["messages"]]
        kind = CompletionCreateParamsStreaming if is_stream else CompletionCreateParamsNonStreaming
        return type_problems({**body, "messages": own}, kind)

    def form_problems(self, body: dict[str, Any]) -> Iterator[str]:
        if body["messages"][-1]["role"] not in ("user", "tool"):
            yield "the user speaks last"

    def foreign_problems(self, content: Any, number: int) -> Iterator[str]:
        if self.has_foreign_thoughts(content):
            yield f"turn {number} has what the host refuses: {content}"

    def turns(self, body: dict[str, Any]) -> list[Turn]:
        return message_turns(body["messages"], lambda message: message["content"])

    def reason(self, reply: Reply) -> str:
        return "tool_calls" if reply.calls else "stop"

    def head(self, reply: Reply, kind: str) -> dict[str, Any]:
        """Return the fields of a reply beside its choices."""
        return {"id": f"chatcmpl-{reply.number}", "object": kind, "created": 1_700_000_000, "model": self.asked}

    def whole(self, reply: Reply) -> dict[str, Any]:
        choice = {"index": 0, "message": self.content(reply), "finish_reason": self.reason(reply), "logprobs": None}
        return {**self.head(reply, "chat.completion"), "choices": [choice], "usage": COUNTS}

    def pieces(self, reply: Reply) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *self.thought_deltas(reply)]
        deltas += [{"content": piece} for piece in words(reply.text)]
        for index, call in enumerate(map(call_of, reply.calls)):
            first, rest = halves(call["function"]["arguments"])
            deltas.append({"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": first}}]})
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": rest}}]})
        choices: list[dict[str, Any]] = [{"index": 0, "delta": one, "finish_reason": None} for one in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": self.reason(reply)})
        head = self.head(reply, "chat.completion.chunk")
        return [*(sse({**head, "choices": [one]}) for one in choices), sse({**head, "choices": [], "usage": COUNTS}, "[DONE]")]

    def error(self, failure: Failure) -> dict[str, Any]:
        return {"error": {"message": failure.message, "type": "invalid_request_error", "param": None, "code": None}}


class StrictOpenRouter(StrictChat):
    """https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks."""

    protocol = "openrouter"
    model = "anthropic/claude-opus-4.6"
    reasoning = ("reasoning_details", "reasoning")

    def thinking(self, number: int) -> Iterator[Block]:
        yield Thought(self.thought(number), self.private("thought", number))
        if number % 3 == 2:
            yield Redacted(self.private("redacted", number))
        yield Said(self.step(number))

    def thoughts(self, reply: Reply) -> dict[str, Any]:
        form = {"format": "anthropic-claude-v1", "id": None}
        found: list[dict[str, Any]] = []
        for block in reply.blocks:
            if isinstance(block, Thought):
                found.append({"type": "reasoning.text", "text": block.text, "signature": block.signature, **form})
            elif isinstance(block, Redacted):
                found.append({"type": "reasoning.encrypted", "data": block.signature, **form})
        return {"reasoning_details": [{**one, "index": index} for index, one in enumerate(found)]}

    def thought_deltas(self, reply: Reply) -> list[dict[str, Any]]:
        thought, *others = self.thoughts(reply)["reasoning_details"]
        rest = {name: thought[name] for name in ("type", "format", "index", "id")}
        texts = [{**rest, "text": piece} for piece in words(thought["text"])]
        return [{"reasoning_details": [one]} for one in (*texts, {**rest, "signature": thought["signature"]}, *others)]

    def has_foreign_thoughts(self, message: dict[str, Any]) -> bool:
        names = self.reasoning[:1] if self.by_chat else self.reasoning  # the text of a thought may be the caller's own
        return any(message.get(name) for name in names)


class StrictDeepSeek(StrictChat):
    """Each reply needs its reasoning, or an empty one: https://api-docs.deepseek.com/guides/thinking_mode#tool-calls."""

    protocol = "deepseek"
    model = "deepseek-reasoner"
    reasoning = ("reasoning_content",)

    def thinking(self, number: int) -> Iterator[Block]:
        yield Thought(self.thought(number))
        yield Said(self.step(number))

    def thoughts(self, reply: Reply) -> dict[str, Any]:
        return {"reasoning_content": "".join(block.text for block in reply.blocks if isinstance(block, Thought))}

    def thought_deltas(self, reply: Reply) -> list[dict[str, Any]]:
        return [{"reasoning_content": piece, "content": None} for piece in words(self.thoughts(reply)["reasoning_content"])]

    def has_foreign_thoughts(self, message: dict[str, Any]) -> bool:
        return not isinstance(message.get("reasoning_content"), str)


def call_of(call: Called) -> dict[str, Any]:
    """Return a call in the form of chat completions, which is Cohere's as well."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}


def message_turns(messages: list[dict[str, Any]], text: Callable[[dict[str, Any]], str]) -> list[Turn]:
    """Return the turns of the model, the results of which are the messages of tools behind it."""
    found = []
    for at, message in enumerate(messages):
        if message["role"] == "assistant":
            results = [(one["tool_call_id"], one["content"]) for one in takewhile(is_result, messages[at + 1 :])]
            found.append(Turn(message, text(message), (), [call["id"] for call in message.get("tool_calls", ())], results))
    return found


def is_result(message: dict[str, Any]) -> bool:
    """Return whether a message is the result of a call."""
    return bool(message["role"] == "tool")
