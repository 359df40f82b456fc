"""Callers that run a loop of tool calls through a gateway: by gRPC or by chat completions, with or without a stored conversation.

Each keeps what a client of its API keeps, and sends that back.
"""

import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc
import httpx2
import openai
from google.protobuf.json_format import ParseDict

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY
from tests.strict.base import result_text

METADATA = (("authorization", f"Bearer {KEY}"),)
NAMES = ("find", "look.up")
QUESTION, MORE = "Go.", "Go on."
EFFORT = "high"


class Caller(Protocol):
    """A client of one API in one conversation."""

    async def turn(self, model: str, number: int, *, stream: bool) -> None:
        """Make one turn: send what is new, and keep the reply. `number` is that of the turn."""
        ...


class GrpcCaller:
    """A client of the typed API. With `stored` the gateway keeps the conversation, and only new messages are sent."""

    def __init__(self, channel: grpc.aio.Channel, *, stored: bool) -> None:
        self._stub = chat_pb2_grpc.ChatServiceStub(channel)
        self._stored = stored
        self._conversation = ""
        self.messages: list[message_pb2.Message] = []
        self._new = [_text(QUESTION)]
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
        self._tools = [ParseDict({"name": name, "parameters": schema}, chat_pb2.Tool()) for name in NAMES]

    async def turn(self, model: str, number: int, *, stream: bool) -> None:
        self.messages += self._new
        request = chat_pb2.GenerateRequest(model=model, messages=self.messages, tools=self._tools)
        request.reasoning.effort = EFFORT
        if self._stored:
            del request.messages[: -len(self._new)]
            request.recording.conversation_id = self._conversation
        if stream:
            answers = self._stub.StreamGenerate(request, metadata=METADATA)
            message = await self._folded(event async for answer in answers for event in answer.events)
        else:
            reply = await self._stub.Generate(request, metadata=METADATA)
            self._conversation = reply.conversation_id
            message = reply.choices[0].message
        assert message.origin.provider.partition("/")[0] == model.partition("/")[0]
        self.messages.append(message)
        calls = [block.tool_call for block in message.blocks if block.WhichOneof("kind") == "tool_call"]
        self._new = [_result(call.id, result_text(number, place)) for place, call in enumerate(calls)] or [_text(MORE)]

    async def _folded(self, events: AsyncIterator[chat_pb2.StreamEvent]) -> message_pb2.Message:
        """Add the events of a reply up, as the proto says it."""
        message = message_pb2.Message(role="ROLE_ASSISTANT")
        has_finished = False
        async for event in events:
            match event.WhichOneof("event"):
                case "started":
                    message.origin.CopyFrom(event.started.origin)
                    self._conversation = event.started.conversation_id
                case "block_started":
                    assert event.block_started.block == len(message.blocks)
                    message.blocks.append(event.block_started.value)
                case "text":
                    message.blocks[event.text.block].text.text += event.text.text
                case "thinking":
                    message.blocks[event.thinking.block].thinking.text += event.thinking.text
                case "input":
                    message.blocks[event.input.block].tool_call.arguments += event.input.text
                case "block_finished":
                    if event.block_finished.HasField("state"):
                        message.blocks[event.block_finished.block].state.CopyFrom(event.block_finished.state)
                case "finished":
                    has_finished = True
                case "extra" if event.extra.place == chat_pb2.ExtraFields.PLACE_MESSAGE:
                    known = json.loads(message.fields or "{}")
                    message.fields = json.dumps(known | json.loads(event.extra.fields)).encode()
                case _:
                    pass
        assert has_finished
        return message


def _text(text: str) -> message_pb2.Message:
    return message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=text))])


def _result(call_id: str, text: str) -> message_pb2.Message:
    inner = message_pb2.Block(text=message_pb2.Text(text=text))
    result = message_pb2.ToolResult(tool_call_id=call_id, blocks=[inner])
    return message_pb2.Message(role="ROLE_TOOL", blocks=[message_pb2.Block(tool_result=result)])


class ChatCaller:
    """A client of chat completions. With `stored` the gateway keeps the session, and only new messages are sent."""

    def __init__(self, http: httpx2.AsyncClient, *, stored: bool) -> None:
        self._http = http
        self._stored = stored
        self._session: str | None = None
        self.messages: list[dict[str, Any]] = []
        self._new: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
        self._tools = [{"type": "function", "function": {"name": name, "parameters": schema}} for name in NAMES]

    async def turn(self, model: str, number: int, *, stream: bool) -> None:
        self.messages += self._new
        body: dict[str, Any] = {"model": model, "messages": self.messages, "tools": self._tools, "reasoning_effort": EFFORT}
        body["stream"] = stream
        if self._stored and self._session is not None:
            body |= {"messages": self._new, "session_id": self._session}
        response = await self._http.post("/chat/completions", json=body)
        assert response.status_code == 200, response.text
        self._session = response.headers.get("x-session-id")
        self._keep(folded(response.text) if stream else response.json()["choices"][0]["message"], number)

    def _keep(self, message: dict[str, Any], number: int) -> None:
        """Add a reply to the conversation, and prepare the results of its calls."""
        self.messages.append(message)
        calls = message.get("tool_calls") or ()
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": result_text(number, place)} for place, call in enumerate(calls)
        ]
        self._new = results or [{"role": "user", "content": MORE}]


class PlainCaller(ChatCaller):
    """A client that knows nothing but texts and calls."""

    def _keep(self, message: dict[str, Any], number: int) -> None:
        calls = [{name: call[name] for name in ("id", "type", "function")} for call in message.get("tool_calls") or ()]
        plain = {"role": "assistant", "content": message["content"]}
        super()._keep({**plain, "tool_calls": calls} if calls else plain, number)


class SdkCaller(ChatCaller):
    """A client of OpenAI's SDK, whose helper adds the streams up."""

    def __init__(self, sdk: openai.AsyncOpenAI) -> None:
        super().__init__(httpx2.AsyncClient(), stored=False)
        self._sdk = sdk

    async def turn(self, model: str, number: int, *, stream: bool) -> None:
        self.messages += self._new
        asked: Any = {"model": model, "messages": self.messages, "tools": self._tools, "reasoning_effort": EFFORT}
        if stream:
            async with self._sdk.chat.completions.stream(**asked) as events:
                reply = await events.get_final_completion()
        else:
            reply = await self._sdk.chat.completions.create(**asked)
        message = reply.choices[0].message.model_dump(exclude_none=True)
        self._keep(message, number)


def folded(text: str) -> dict[str, Any]:
    """Add the chunks of a reply up, as clients do: texts are joined, entries of lists by their index."""
    *lines, last = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert last == "[DONE]"
    message: dict[str, Any] = {}
    for line in lines:
        for choice in json.loads(line)["choices"]:
            _add(message, choice["delta"])
    return message


def _add(known: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        match known.get(name), value:
            case _, list():
                entries: list[dict[str, Any]] = known.setdefault(name, [])
                for entry in value:
                    own = next((one for one in entries if one.get("index") == entry.get("index")), None)
                    if own is None:
                        entries.append(dict(entry))
                    else:
                        _add(own, entry)
            case str(before), str() if name in ("content", "reasoning_content", "reasoning", "text", "summary", "arguments"):
                known[name] = before + value
            case dict(before), dict():
                _add(before, value)
            case before, None if before is not None:
                pass
            case _:
                known[name] = dict(value) if isinstance(value, dict) else value
