"""Cohere's chat API, v2: a plan before calls in some turns, a thought in the content of others."""

import json
import re
from collections.abc import Iterator
from typing import Any

from cohere.v2.client import V2Client

from tests.sdk_types import body_problems
from tests.strict.base import StrictApi, Turn, events, has_calls
from tests.strict.chat import call_of, message_turns
from tests.strict.reply import USAGE, Block, Called, Failure, Plan, Reply, Said, Thought, halves, words
from tests.strict.schemas import cohere_problems

COUNTS = {
    "billed_units": {"input_tokens": USAGE[0], "output_tokens": USAGE[1]},
    "tokens": {"input_tokens": USAGE[0] + 1, "output_tokens": USAGE[1] + 1},
}
KINDS = {"user": ("text", "image_url"), "assistant": ("text", "thinking"), "tool": ("text", "document")}


class StrictCohere(StrictApi):
    """https://docs.cohere.com/v2/reference/chat and https://docs.cohere.com/v2/docs/tool-use-overview."""

    protocol = "cohere"
    model = "command-a-reasoning-08-2025"
    paths = "/v2/chat"
    call_ids = "c{}:{}"

    def thinking(self, number: int) -> Iterator[Block]:
        yield Thought(self.thought(number)) if not has_calls(number) or number % 2 else Plan(self.thought(number))
        yield Said(self.step(number))

    def content(self, reply: Reply) -> dict[str, Any]:
        made: dict[str, Any] = {"role": "assistant"}
        for block in reply.blocks:
            match block:
                case Said(text):
                    made.setdefault("content", []).append({"type": "text", "text": text})
                case Thought(text):
                    made.setdefault("content", []).append({"type": "thinking", "thinking": text})
                case Plan(text):
                    made["tool_plan"] = text
                case Called():
                    made.setdefault("tool_calls", []).append(call_of(block))
        return made

    def tool_names(self, body: dict[str, Any]) -> list[str]:
        return [tool["function"]["name"] for tool in body.get("tools", ())]

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        method = V2Client.chat_stream if is_stream else V2Client.chat
        return body_problems({name: value for name, value in body.items() if name != "stream"}, method)

    def form_problems(self, body: dict[str, Any]) -> Iterator[str]:
        if not 0.01 <= body.get("p", 0.75) <= 0.99:
            yield "p must be between 0.01 and 0.99"
        if not 0 <= body.get("k", 0) <= 500 or body.get("temperature", 0) < 0 or body.get("seed", 0) < 0:
            yield "k, temperature or seed is out of range"
        if any(not 0 <= body.get(name, 0) <= 1 for name in ("frequency_penalty", "presence_penalty")):
            yield "penalties must be between 0 and 1"
        if len(body.get("stop_sequences", ())) > 5:
            yield "too many stop sequences"
        if body.get("tool_choice", "NONE") not in ("NONE", "REQUIRED") or ("tool_choice" in body and not body.get("tools")):
            yield "tool_choice"
        yield from schema_problems(body)
        yield from message_problems(body["messages"])
        yield from call_problems(body["messages"])

    def turn_problems(self, body: dict[str, Any], turns: list[Turn]) -> Iterator[str]:
        yield from super().turn_problems(body, turns)
        if body["messages"][-1]["role"] not in ("user", "tool"):
            yield "the user speaks last"

    def turns(self, body: dict[str, Any]) -> list[Turn]:
        return message_turns(body["messages"], said)

    def seen(self, content: Any) -> Any:
        """Return what is compared of a turn. Chat completions have one word for a plan and a thought."""
        if not self.by_chat:
            return content
        parts = [part for part in content["content"] if part["type"] == "text"]
        thought = content.get("tool_plan") or "".join(part.get("thinking", "") for part in content["content"])
        return {"content": parts, "tool_calls": content.get("tool_calls"), "thought": thought}

    def foreign_problems(self, content: Any, number: int) -> Iterator[str]:
        thoughts = [content.get("tool_plan"), *(part.get("thinking") for part in content.get("content", ()))]
        if any(thoughts) and not self.by_chat:  # where the text of a thought may be the caller's own
            yield f"turn {number} has a thought of another: {content}"

    def ending(self, reply: Reply) -> dict[str, Any]:
        """Return the fields at the end of a reply."""
        reason = "MAX_TOKENS" if reply.is_cut else "TOOL_CALL" if reply.calls else "COMPLETE"
        return {"finish_reason": reason, "usage": COUNTS}

    def whole(self, reply: Reply) -> dict[str, Any]:
        return {"id": f"r{reply.number}", "message": self.content(reply), **self.ending(reply)}

    def pieces(self, reply: Reply) -> list[bytes]:
        message = self.content(reply)
        empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        made: list[dict[str, Any]] = [{"type": "message-start", "id": f"r{reply.number}", "delta": {"message": empty}}]

        def add(kind: str, index: int, **inner: Any) -> None:
            made.append({"type": kind, "index": index, "delta": {"message": inner}})

        for piece in words(message.get("tool_plan", "")):
            add("tool-plan-delta", 0, tool_plan=piece)
        for index, part in enumerate(message.get("content", ())):
            kind = part["type"]
            add("content-start", index, content={"type": kind, kind: ""})
            for piece in words(part[kind]):
                add("content-delta", index, content={kind: piece})
            made.append({"type": "content-end", "index": index})
        first = 0 if reply.number % 2 else len(message.get("content", ()))  # calls are counted on their own, or with the parts
        for index, call in enumerate(message.get("tool_calls", ()), first):
            add("tool-call-start", index, tool_calls={**call, "function": {**call["function"], "arguments": ""}})
            for piece in halves(call["function"]["arguments"]):
                add("tool-call-delta", index, tool_calls={"function": {"arguments": piece}})
            made.append({"type": "tool-call-end", "index": index})
        return events([*made, {"type": "message-end", "delta": self.ending(reply)}])

    def error(self, failure: Failure) -> dict[str, Any]:
        return {"id": "e1", "message": failure.message}

    def error_piece(self, failure: Failure) -> bytes:
        delta = {**self.ending(Reply(())), "finish_reason": "ERROR", "error": failure.message}
        return b"".join(events([{"type": "message-end", "delta": delta}]))


def said(message: dict[str, Any]) -> str:
    """Return the text of a message."""
    return "".join(part["text"] for part in message.get("content", ()) if part["type"] == "text")


def schema_problems(body: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the tools, and with the form of the answer."""
    form = body.get("response_format", {})
    if form.get("type") == "json_object" and (body.get("tools") or body.get("documents")):
        yield "response_format: json_object is not supported with tools"
    if schema := form.get("json_schema"):
        if schema.get("type") != "object" or not schema.get("required"):
            yield "json_schema: must be an object with at least one required field"
        yield from cohere_problems(schema, "json_schema")
    for tool in body.get("tools", ()):
        name, schema = tool["function"]["name"], tool["function"].get("parameters", {})
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_-]*", name):
            yield f"invalid tool name {name!r}"
        if body.get("strict_tools") and not schema.get("required"):
            yield "strict_tools: a tool needs at least one required parameter"
        if body.get("strict_tools"):
            yield from cohere_problems(schema, name)


def message_problems(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with what stands in messages."""
    for message in messages:
        role, content = message["role"], message.get("content")
        if role == "assistant" and not content and not message.get("tool_calls"):
            yield "an assistant message needs content or tool calls"
        if role in ("user", "system") and not (content.strip() if isinstance(content, str) else content):
            yield "message must be at least 1 token long"
        for part in content if isinstance(content, list) else ():
            if part["type"] not in KINDS.get(role, ("text",)):
                yield f"content type {part['type']!r} of {role}"
            if role != "tool" and part.get("text") == "":
                yield "empty text"
    if not any(message["role"] in ("user", "tool") for message in messages):
        yield "a message of the user is needed"


def call_problems(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Yield which calls have no results right behind them, and which results no calls."""
    waiting: list[str] = []
    for message in [*messages, {"role": "user"}]:
        if message["role"] == "tool" and message["tool_call_id"] in waiting:
            waiting.remove(message["tool_call_id"])
        elif message["role"] == "tool":
            yield f"{message['tool_call_id']}: tool call id not found in previous tool calls"
        elif waiting:
            yield f"calls {waiting} have no results"
            waiting = []
        for call in message.get("tool_calls", ()):
            if not is_object(call["function"]["arguments"]):
                yield f"the arguments of {call} are no object"
            waiting.append(call["id"])


def is_object(text: str) -> bool:
    """Return whether a text is an object of JSON."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
