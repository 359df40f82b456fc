"""Cohere's chat API, v2: a plan before calls in some turns, a thought in the content of others."""

from collections.abc import Iterator
from typing import Any

from cohere.v2.client import V2Client

from tests.sdk_types import body_problems
from tests.strict.base import StrictApi, call_count, events, halves, has_calls, paired

USAGE = {"billed_units": {"input_tokens": 5, "output_tokens": 7}, "tokens": {"input_tokens": 6, "output_tokens": 8}}


class StrictCohere(StrictApi):
    """https://docs.cohere.com/v2/docs/tool-use-overview."""

    protocol = "cohere"
    model = "command-a-reasoning-08-2025"

    def message(self, number: int) -> dict[str, Any]:
        """Return a turn."""
        text = {"type": "text", "text": self.step(number)}
        if not has_calls(number) or number % 2:
            thought = {"type": "thinking", "thinking": self.thought(number)}
            made: dict[str, Any] = {"role": "assistant", "content": [thought, text]}
        else:
            made = {"role": "assistant", "content": [text], "tool_plan": self.thought(number)}
        for place in range(call_count(number)):
            function = {"name": self.names[place], "arguments": f'{{"n": {number}}}'}
            made.setdefault("tool_calls", []).append({"id": f"c{number}:{place}", "type": "function", "function": function})
        return made

    def tool_names(self, body: dict[str, Any]) -> tuple[str, str]:
        first, second = (tool["function"]["name"] for tool in body["tools"])
        return first, second

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        method = V2Client.chat_stream if is_stream else V2Client.chat
        return body_problems({name: value for name, value in body.items() if name != "stream"}, method)

    def problems(self, body: dict[str, Any]) -> Iterator[str]:
        messages = body["messages"]
        if messages[-1]["role"] not in ("user", "tool"):
            yield "the user speaks last"
        number = 0
        for at, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            if not message.get("content") and not message.get("tool_calls"):
                yield "a message is empty"
            content = message.get("content", ())
            text = "".join(part["text"] for part in content if part["type"] == "text")
            thoughts = [message.get("tool_plan"), *(part.get("thinking") for part in content)]
            if self.is_own(text, number):
                if seen(message, by_chat=self.by_chat) != seen(self.message(number), by_chat=self.by_chat):
                    yield f"turn {number} has changed: {message} instead of {self.message(number)}"
            elif any(thoughts) and not self.by_chat:  # where the text of a thought may be the caller's own
                yield f"turn {number} has a thought of another: {message}"
            calls = [call["id"] for call in message.get("tool_calls", ())]
            end = next((end for end in range(at + 1, len(messages)) if messages[end]["role"] != "tool"), len(messages))
            results = [(one["tool_call_id"], one["content"]) for one in messages[at + 1 : end]]
            yield from paired([(one, number, place) for place, one in enumerate(calls)], results)
            number += 1
        if len([message for message in messages if message["role"] == "tool"]) != sum(
            len(message.get("tool_calls", ())) for message in messages
        ):
            yield "there are results without calls"

    def turn_number(self, body: dict[str, Any]) -> int:
        return sum(message["role"] == "assistant" for message in body["messages"])

    def reason(self, number: int) -> str:
        return "TOOL_CALL" if has_calls(number) else "COMPLETE"

    def whole(self, number: int) -> dict[str, Any]:
        return {"id": f"r{number}", "message": self.message(number), "finish_reason": self.reason(number), "usage": USAGE}

    def pieces(self, number: int) -> list[bytes]:
        message = self.message(number)
        made: list[dict[str, Any]] = [
            {"type": "message-start", "id": f"r{number}", "delta": {"message": {"role": "assistant", "content": []}}}
        ]

        def add(kind: str, index: int, **inner: Any) -> None:
            made.append({"type": kind, "index": index, "delta": {"message": inner}})

        for piece in halves(message.get("tool_plan", "")):
            if piece:
                add("tool-plan-delta", 0, tool_plan=piece)
        for index, part in enumerate(message["content"]):
            kind = part["type"]
            add("content-start", index, content={"type": kind, kind: ""})
            for piece in halves(part[kind]):
                add("content-delta", index, content={kind: piece})
            made.append({"type": "content-end", "index": index})
        for index, call in enumerate(message.get("tool_calls", ())):
            add("tool-call-start", index, tool_calls={**call, "function": {**call["function"], "arguments": ""}})
            for piece in halves(call["function"]["arguments"]):
                add("tool-call-delta", index, tool_calls={"function": {"arguments": piece}})
            made.append({"type": "tool-call-end", "index": index})
        return events([*made, {"type": "message-end", "delta": {"finish_reason": self.reason(number), "usage": USAGE}}])

    def refusal(self, message: str) -> dict[str, Any]:
        return {"id": "e", "message": message}


def seen(message: dict[str, Any], *, by_chat: bool) -> dict[str, Any]:
    """Return what is compared of a turn. Chat completions have one word for a plan and a thought."""
    if not by_chat:
        return message
    parts = [part for part in message["content"] if part["type"] == "text"]
    thought = message.get("tool_plan") or "".join(part.get("thinking", "") for part in message["content"])
    return {"content": parts, "tool_calls": message.get("tool_calls"), "thought": thought}
