"""Chat completions of two hosts with reasoning: one signs it in `reasoning_details`, the other demands `reasoning_content`."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming

from tests.odd_upstream import sse
from tests.sdk_types import problems as type_problems
from tests.strict.base import StrictApi, call_count, halves, has_calls, paired

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


class StrictChat(StrictApi):
    """What both have in common."""

    reasoning: tuple[str, ...]
    """The fields of a message that are the host's own."""

    @abstractmethod
    def thoughts(self, number: int) -> dict[str, Any]:
        """Return the host's own fields of a turn, as they come back."""

    @abstractmethod
    def thought_deltas(self, number: int) -> list[dict[str, Any]]:
        """Return the same as deltas of a stream."""

    @abstractmethod
    def foreign_thoughts(self, message: dict[str, Any]) -> bool:
        """Return whether a turn of another provider has what the host refuses."""

    def calls(self, number: int) -> list[dict[str, Any]]:
        """Return the calls of a turn."""
        function = [{"name": self.names[place], "arguments": f'{{"n": {number}}}'} for place in range(call_count(number))]
        return [{"id": f"call_{number}_{place}", "type": "function", "function": one} for place, one in enumerate(function)]

    def message(self, number: int) -> dict[str, Any]:
        """Return a turn."""
        calls = {"tool_calls": self.calls(number)} if has_calls(number) else {}
        return {"role": "assistant", "content": self.step(number), **self.thoughts(number), **calls}

    def tool_names(self, body: dict[str, Any]) -> tuple[str, str]:
        first, second = (tool["function"]["name"] for tool in body["tools"])
        return first, second

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        own = [{name: value for name, value in one.items() if name not in self.reasoning} for one in body["messages"]]
        kind = CompletionCreateParamsStreaming if is_stream else CompletionCreateParamsNonStreaming
        return type_problems({**body, "messages": own}, kind)

    def problems(self, body: dict[str, Any]) -> Iterator[str]:
        messages = body["messages"]
        if messages[-1]["role"] not in ("user", "tool"):
            yield "the user speaks last"
        number = 0
        for at, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if self.is_own(message["content"], number):
                if message != self.message(number):
                    yield f"turn {number} has changed: {message} instead of {self.message(number)}"
            elif self.foreign_thoughts(message):
                yield f"turn {number} has what the host refuses: {message}"
            calls = [call["id"] for call in message.get("tool_calls", ())]
            end = next((end for end in range(at + 1, len(messages)) if messages[end]["role"] != "tool"), len(messages))
            results = [(one["tool_call_id"], one["content"]) for one in messages[at + 1 : end]]
            yield from paired([(one, number, place) for place, one in enumerate(calls)], results)
            number += 1

    def turn_number(self, body: dict[str, Any]) -> int:
        return sum(message["role"] == "assistant" for message in body["messages"])

    def reason(self, number: int) -> str:
        return "tool_calls" if has_calls(number) else "stop"

    def head(self, number: int, kind: str) -> dict[str, Any]:
        """Return the fields of a reply beside its choices."""
        return {"id": f"chatcmpl-{number}", "object": kind, "created": 1_700_000_000, "model": self.model}

    def whole(self, number: int) -> dict[str, Any]:
        choice = {"index": 0, "message": self.message(number), "finish_reason": self.reason(number), "logprobs": None}
        return {**self.head(number, "chat.completion"), "choices": [choice], "usage": USAGE}

    def pieces(self, number: int) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *self.thought_deltas(number)]
        deltas += [{"content": piece} for piece in halves(self.step(number))]
        for index, call in enumerate(self.calls(number)):
            first, rest = halves(call["function"]["arguments"])
            deltas.append({"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": first}}]})
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": rest}}]})
        choices = [{"index": 0, "delta": one, "finish_reason": None} for one in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": self.reason(number)})
        around = self.head(number, "chat.completion.chunk")
        return [*(sse({**around, "choices": [one]}) for one in choices), sse({**around, "choices": [], "usage": USAGE}, "[DONE]")]

    def refusal(self, message: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


class StrictOpenRouter(StrictChat):
    """https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks."""

    protocol = "openrouter"
    model = "anthropic/claude-opus-4.6"
    reasoning = ("reasoning_details", "reasoning")

    def details(self, number: int) -> list[dict[str, Any]]:
        """Return the reasoning of a turn."""
        form = {"format": "anthropic-claude-v1", "id": None}
        thought = {"type": "reasoning.text", "text": self.thought(number), "signature": self.private("thought", number), **form}
        found = [{**thought, "index": 0}]
        if number % 3 == 2:
            found.append({"type": "reasoning.encrypted", "data": self.private("redacted", number), **form, "index": 1})
        return found

    def thoughts(self, number: int) -> dict[str, Any]:
        return {"reasoning_details": self.details(number)}

    def thought_deltas(self, number: int) -> list[dict[str, Any]]:
        thought, *others = self.details(number)
        rest = {name: thought[name] for name in ("type", "format", "index", "id")}
        texts = [{**rest, "text": piece} for piece in halves(thought["text"])]
        pieces = [*texts, {**rest, "signature": thought["signature"]}, *others]
        return [{"reasoning_details": [piece]} for piece in pieces]

    def foreign_thoughts(self, message: dict[str, Any]) -> bool:
        names = self.reasoning[:1] if self.by_chat else self.reasoning  # the text of a thought may be the caller's own
        return any(message.get(name) for name in names)


class StrictDeepSeek(StrictChat):
    """Each reply needs its reasoning, or an empty one: https://api-docs.deepseek.com/guides/thinking_mode#tool-calls."""

    protocol = "deepseek"
    model = "deepseek-reasoner"
    reasoning = ("reasoning_content",)

    def thoughts(self, number: int) -> dict[str, Any]:
        return {"reasoning_content": self.thought(number)}

    def thought_deltas(self, number: int) -> list[dict[str, Any]]:
        return [{"reasoning_content": piece, "content": None} for piece in halves(self.thought(number))]

    def foreign_thoughts(self, message: dict[str, Any]) -> bool:
        return not isinstance(message.get("reasoning_content"), str)
