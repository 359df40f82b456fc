"""Tests of the assistant dialect, called without a socket, with a store in memory."""

import json
from typing import Any

import pytest
from google.api import httpbody_pb2
from msgspec.structs import replace

from antiphon import domain
from antiphon.chat.service import ChatService
from antiphon.config import GuardConfig, PersonaConfig
from antiphon.domain.errors import (
    InvalidRequest,
    ProviderProtocolError,
    ProviderRateLimited,
)
from antiphon.domain.principal import Principal
from antiphon.guards.registry import build_guards
from antiphon.guards.service import Guards
from antiphon.history.recorder import Recorder
from antiphon.rest.assistant import servicer as assistant
from antiphon.rest.assistant.errors import render_error
from antiphon.rest.shared.errors import message_of_error
from antiphon.rest.v1 import assistant_pb2
from antiphon.routing.router import Router
from tests.unit.memory_store import MemoryStore
from tests.unit.rest.caller import as_caller
from tests.unit.scripted import NO_PRICES, ORIGIN, START, STOP, USAGE, ScriptedProvider

HI = [{"role": "user", "content": "Hi"}]
MAYA = domain.Message(domain.Role.SYSTEM, (domain.Text(assistant.MAYA.system),))


class Context:
    """The part of a gRPC context that the servicer uses."""

    def time_remaining(self) -> None:
        return None


class Dialect:
    """A servicer with its provider and store."""

    def __init__(self, *batches: domain.Batch | Exception | None, guards: Guards | None = None, **personas: PersonaConfig) -> None:
        self.provider = ScriptedProvider(*batches)
        self.store = MemoryStore()
        chat = ChatService(Router([(self.provider, ["one", "two"])]), Recorder(self.store), NO_PRICES, timeout=60, guards=guards)
        self.servicer: Any = assistant.AssistantServicer(chat, self.store, personas)
        self.status = "200"
        self.content_type = ""

    async def call(self, method: str, request: Any) -> Any:
        """Call a method. Return its JSON, or the text of a stream."""
        call = as_caller(Principal("me", owner="me"))
        pieces = [piece async for piece in getattr(self.servicer, method)(request, Context())]
        self.status = call.headers.get("x-http-status", "200")
        self.content_type = pieces[0].content_type
        data = b"".join(piece.data for piece in pieces)
        return json.loads(data) if self.content_type == "application/json" else data.decode()

    async def generate(self, history: Any = HI, chat_id: str = "", title: str = "", **body: Any) -> Any:
        request = assistant_pb2.GenerateRequest(chat_id=chat_id, title=title, body=sent(chat_history=history, **body))
        return await self.call("Generate", request)


def sent(**body: Any) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(data=json.dumps(body).encode())


async def test_context_is_guarded_and_the_personas_prompt_is_not() -> None:
    """Context from the caller is guarded and not stored. The persona's system prompt is sent unchanged."""
    guards = build_guards([GuardConfig(name="words", kind="blocklist", patterns=["bad"], action="mask", replacement="#")])  # type: ignore[call-arg]
    dialect = Dialect(guards=guards, stern=PersonaConfig(system="Be bad"))
    made = await dialect.generate(persona="stern", fastContext=["It is bad", {"bad": 1}])
    await dialect.call("Chat", assistant_pb2.ChatRequest(body=sent(chat_history=HI, persona="stern")))
    system, user = (
        domain.Message(domain.Role.SYSTEM, (domain.Text("Be bad"),)),
        domain.Message(domain.Role.USER, (domain.Text("Hi"),)),
    )
    context = domain.Message(domain.Role.SYSTEM, (domain.Text('Context for this chat:\n\nIt is #\n\n{"#":1}'),))
    assert [request.messages for request in dialect.provider.requests] == [(system, context, user), (system, user)]
    kept = (await dialect.store.messages("me", made["chatId"])).messages
    assert [stored.message.role for stored in kept] == [domain.Role.USER, domain.Role.ASSISTANT]


async def test_tokens_that_were_estimated_are_marked() -> None:
    """Estimated usage is marked as `estimated`, whole and streamed."""
    dialect = Dialect([START, domain.TextDelta(0, "Hello")], [STOP])
    assert (await dialect.generate())["metadata"]["usage"]["estimated"] is True
    events = (await dialect.generate(stream=True)).strip().split("\n\n")
    assert json.loads(events[-2].removeprefix("data: "))["content"]["usage"]["estimated"] is True


async def test_fields_of_a_message_are_kept_but_for_those_that_a_fetch_added() -> None:
    """Fields of a message are stored, unknown ones too, but not those that a fetch has added. Hosts do not get unknown ones."""
    dialect = Dialect()
    before = {"role": "assistant", "content": None, "refusal": "No", "audio": {"id": "a"}, "weight": 0, "reasoning_content": "Hm"}
    ours = {"messageId": "x", "createdAt": "x", "status": "complete", "model": "x"}
    history = [*HI, {**before, **ours}, *HI]
    made = await dialect.generate(history)
    kept = await dialect.call("FetchChat", assistant_pb2.FetchChatRequest(chat_id=made["chatId"]))
    assert {name: value for name, value in kept["messages"][1].items() if name not in ours} == before
    chat = await dialect.call("CreateChat", assistant_pb2.CreateChatRequest(body=sent(messages=history)))
    kept = await dialect.call("FetchChat", assistant_pb2.FetchChatRequest(chat_id=chat["chatId"]))
    assert {name: value for name, value in kept["messages"][1].items() if name not in ours} == before
    (request,) = dialect.provider.requests
    assert request.known_fields
    blocks = (domain.Thinking("Hm"), domain.Refusal("No"), domain.Audio(domain.Media(), "a"))
    assert (request.messages[2].blocks, request.messages[2].extra) == (blocks, {"weight": 0})


async def test_a_chat_is_made_and_goes_on() -> None:
    """A chat is created and continued. The persona's system prompt is sent each time and not stored."""
    dialect = Dialect()
    made = await dialect.generate()
    assert (dialect.status, made["title"], made["result"]["message"]) == ("201", "Hi", "Hello")
    assert made["metadata"]["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    await dialect.generate([*HI, {"role": "assistant", "content": "Hello", "status": "complete"}, *HI], made["chatId"])
    user, reply = (
        domain.Message(domain.Role.USER, (domain.Text("Hi"),)),
        domain.Message(domain.Role.ASSISTANT, (domain.Text("Hello"),), origin=ORIGIN),
    )
    assert dialect.provider.requests[1].messages == (MAYA, user, reply, user)
    path = (await dialect.store.messages("me", made["chatId"])).messages
    assert [stored.message for stored in path] == [user, reply, user, reply]


async def test_a_persona_has_model_and_sampling() -> None:
    """A persona sets model and sampling. The built-in persona `maya` can be configured; without `system` it has no prompt."""
    maya = PersonaConfig(model="two", temperature=0, top_p=0.5, max_tokens=9)
    dialect = Dialect(maya=maya)
    await dialect.generate()
    (request,) = dialect.provider.requests
    assert (request.model, request.sampling) == ("two", domain.Sampling(temperature=0, top_p=0.5, max_tokens=9))
    assert [message.role for message in request.messages] == [domain.Role.USER]
    with pytest.raises(InvalidRequest) as caught:
        await dialect.generate(persona="nobody")
    assert json.loads(render_error(caught.value)[2]) == {"message": "persona: must be one of maya"}


@pytest.mark.parametrize(
    ("tools", "names"),
    [
        (None, []),
        ([], []),
        ({}, []),
        ([{"type": "function", "function": {"name": "f"}}], ["f"]),
        ({"type": "function", "function": {"name": "f"}}, ["f"]),
        ({"f": {"parameters": {"type": "object"}}, "g": {"description": "G"}, "depth": 3, "web": True}, ["f", "g"]),
    ],
)
async def test_tools(tools: Any, names: list[str]) -> None:
    """`tools` may be a list, one tool, or functions by name; other entries are options and no tools."""
    dialect = Dialect()
    await dialect.generate(tools=tools)
    found = dialect.provider.requests[0].tools
    assert [tool.name for tool in found if isinstance(tool, domain.Tool)] == names


async def test_a_stream_has_thoughts_text_calls_and_metadata() -> None:
    """A stream has thoughts, text, tool calls and metadata in this order. Line ends within text do not split an event."""
    call = [domain.BlockStarted(2, 0, domain.ToolCall("c1", "f", "")), domain.InputDelta(2, "{}")]
    dialect = Dialect([START], [domain.ThinkingDelta(0, "Hm"), domain.TextDelta(1, "a\u2028b\n")], [*call, USAGE, STOP])
    text = await dialect.generate(stream=True)
    assert (dialect.status, dialect.content_type) == ("200", "text/event-stream")
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert [(event["type"], event["content"]) for event in map(json.loads, events[:-2])] == [
        ("thinking_update", "Planning response"),
        ("thinking_update", "Hm"),
        ("final_response", "a\u2028b\n"),
        ("tool_call", {"id": "c1", "name": "f", "arguments": "{}"}),
    ]
    assert set(json.loads(events[-2])["content"]) >= {"chatId", "title", "messageId", "usage", "timeTaken"}
    assert events[-1] == "[DONE]"


CUSTOM = {"id": "c2", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}


@pytest.mark.parametrize(
    ("call", "response", "content"),
    [
        (
            domain.ToolCall("c2", "sql", "SELECT 1", "custom"),
            {"tool_calls": [CUSTOM]},
            {"id": "c2", "name": "sql", "arguments": "SELECT 1"},
        ),
        (
            domain.ToolCall("", "f", "{}", "function_call"),
            {"function_call": {"name": "f", "arguments": "{}"}},
            {"id": None, "name": "f", "arguments": "{}"},
        ),
        (
            domain.ToolCall("c3", "", "", "", state=domain.State(fields={"odd": 1})),
            {"tool_calls": [{"id": "c3", "odd": 1}]},
            {"id": "c3", "odd": 1},
        ),
    ],
)
async def test_every_kind_of_call_is_in_the_reply(call: domain.ToolCall, response: dict[str, Any], content: dict[str, Any]) -> None:
    """Every kind of tool call is in the whole reply and in an event: custom, function call of 2023, unknown."""
    begun = domain.BlockStarted(0, 0, replace(call, arguments=""))
    dialect = Dialect([START], [begun, *([domain.InputDelta(0, call.arguments)] if call.arguments else []), USAGE, STOP])
    whole = await dialect.generate()
    assert whole["result"]["response"] == {"role": "assistant", "content": "", **response}
    text = await dialect.generate(stream=True)
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line and "[DONE]" not in line]
    assert [event["content"] for event in events if event["type"] == "tool_call"] == [content]


async def test_a_failure_before_the_first_byte_is_raised() -> None:
    """A failure before the first byte is raised. A later one is an error event."""
    dialect = Dialect(ProviderRateLimited("Busy.", provider="scripted"))
    with pytest.raises(ProviderRateLimited):
        await dialect.generate(stream=True)
    dialect = Dialect([START, domain.TextDelta(0, "Hel")], ProviderProtocolError("Cut.", provider="scripted"))
    request = assistant_pb2.GenerateStreamRequest(body=sent(chat_history=HI))
    pieces = []
    with pytest.raises(ProviderProtocolError):
        async for piece in dialect.servicer.GenerateStream(request, Context()):
            pieces.append(piece.data)  # noqa: PERF401  # the pieces before the error count
    assert json.loads(pieces[-1].removeprefix(b"data: ")) == {"type": "error", "content": None, "error": {"message": "Cut."}}


async def test_a_direct_chat_asks_the_store_nothing() -> None:
    """A direct chat does not use the store."""
    dialect = Dialect()
    answer = await dialect.call("Chat", assistant_pb2.ChatRequest(body=sent(chat_history=HI)))
    assert answer["result"] == {"message": "Hello", "persona": "maya"}
    assert dialect.provider.requests[0].messages[0] == MAYA
    assert dialect.store.calls == 0


async def test_a_chat_is_forked_at_a_message_index() -> None:
    """A chat can be forked at a message index. A wrong index, and an index together with an id, are refused."""
    dialect = Dialect()
    chat = (await dialect.generate())["chatId"]
    fork = await dialect.call("ForkChat", assistant_pb2.ForkChatRequest(body=sent(chatId=chat, messageIndex=0, title="F")))
    assert (dialect.status, fork["title"], fork["messageCount"]) == ("201", "F", 1)
    for body in ({"messageIndex": 2}, {"messageIndex": 0, "messageId": "m1"}):
        with pytest.raises(InvalidRequest):
            await dialect.call("ForkChat", assistant_pb2.ForkChatRequest(body=sent(chatId=chat, **body)))


async def test_a_message_cannot_name_itself() -> None:
    """Unknown fields of a message do not replace the gateway's own, such as `messageId`."""
    dialect = Dialect()
    extra = {"messageId": "x", "createdAt": "x", "status": "x", "model": "x", "mine": "y"}
    chat = await dialect.store.create(
        "me", title="", source="", pinned=False, messages=[domain.Message(domain.Role.USER, (), None, extra)]
    )
    (found,) = (await dialect.call("FetchChat", assistant_pb2.FetchChatRequest(chat_id=chat.id)))["messages"]
    assert (found["messageId"], found["status"], found["model"], found["mine"]) == (chat.head_id, "complete", None, "y")
    assert found["createdAt"] != "x"


@pytest.mark.parametrize(
    "body", [{"stream": "true"}, {"stream": 1}, {"voice": 0}, {"scope": 1}, {"tools": 5}, {"fast_context": {}}]
)
async def test_a_wrong_type_is_reported_by_the_callers_field_name(body: dict[str, Any]) -> None:
    """Types are strict, and an error has the field name that the caller used."""
    with pytest.raises(InvalidRequest) as caught:
        await Dialect().generate(**body)
    assert {violation.path for violation in caught.value.violations} == {tuple(body)}


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("Generate", assistant_pb2.GenerateRequest),
        ("GenerateStream", assistant_pb2.GenerateStreamRequest),
        ("Chat", assistant_pb2.ChatRequest),
    ],
)
async def test_a_wrong_message_is_reported_by_its_index(method: str, request_type: Any) -> None:
    """A wrong message is named by its index in the body, without the persona's prompt before it."""
    history = [*HI, {"role": "user", "content": "a\0"}]
    with pytest.raises(InvalidRequest) as caught:
        await Dialect().call(method, request_type(body=sent(chat_history=history)))
    assert message_of_error(caught.value) == "chat_history.1: text must not hold the character NUL"


@pytest.mark.parametrize("title", [None, " "])
async def test_a_derived_title_is_never_reported_as_wrong(title: str | None) -> None:
    """A NUL is left out of a derived title, so that the error names the message and not the title."""
    body = sent(messages=[{"role": "user", "content": "a\0b"}], title=title)
    made = await Dialect().call("CreateChat", assistant_pb2.CreateChatRequest(body=body))
    assert made["title"] == "ab"


@pytest.mark.parametrize(("body", "field"), [({"chatId": 1}, "chatId"), ({"chatId": "c", "messageIndex": True}, "messageIndex")])
async def test_a_forks_types_are_strict(body: dict[str, Any], field: str) -> None:
    """Types in a fork's body are strict: `true` is not the index 1."""
    with pytest.raises(InvalidRequest) as caught:
        await Dialect().call("ForkChat", assistant_pb2.ForkChatRequest(body=sent(**body)))
    assert [violation.path for violation in caught.value.violations] == [(field,)]


async def test_pins() -> None:
    """No body and an empty object pin a chat; `pinned: false` unpins it."""
    dialect = Dialect()
    chat = (await dialect.generate())["chatId"]
    bodies = ((b"", True), (b'{"pinned": false}', False), (b"{}", True))
    for data, pinned in bodies:
        request = assistant_pb2.PinChatRequest(chat_id=chat, body=httpbody_pb2.HttpBody(data=data))
        assert (await dialect.call("PinChat", request))["pinned"] is pinned
