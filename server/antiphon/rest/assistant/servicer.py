"""The assistant dialect: POST /api/v1/chat, /api/v1/chat/generate and /api/v1/chat/generate/stream; the rest is in `rest.chats`.

Its source is the gateway's own document. A persona says how the model is to answer: what it is told comes before the chat and is
never stored with it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, TypeAlias

from google.api import httpbody_pb2
from msgspec import Struct
from msgspec.structs import replace
from pydantic import AliasChoices, Field

from antiphon import domain
from antiphon.auth.caller import caller
from antiphon.chat.service import ChatService
from antiphon.config import PersonaConfig
from antiphon.domain import headers
from antiphon.domain.deadline import time_left
from antiphon.domain.errors import AntiphonError, InvalidRequest, Violation
from antiphon.domain.reply import Reply, ReplyChoice, call_json, collect
from antiphon.history.base import MAX_SOURCE, MAX_TITLE, Conversations
from antiphon.history.recorder import Record
from antiphon.rest.assistant.chats import STORED, Answer, ChatsServicer, Context, created
from antiphon.rest.shared.body import Fields, invalid, messages_as, parse_in_turns, renaming
from antiphon.rest.shared.content import MessageBody, message_of, tool_of
from antiphon.rest.shared.http import headers_of, status_of
from antiphon.rest.shared.json import COMMENT, DONE, EVENT_STREAM, JSON, dumps, event
from antiphon.rest.shared.shown import Shown, shown
from antiphon.rest.shared.stream import transfer
from antiphon.rest.v1 import assistant_pb2

DEFAULT_PERSONA = "maya"
MAYA = PersonaConfig(system="You are Maya, a helpful assistant.")

PLANNING = "Planning response"
"""The first event of a stream."""

Asking: TypeAlias = assistant_pb2.GenerateRequest | assistant_pb2.GenerateStreamRequest


class ChatBody(Fields):
    """A chat to answer."""

    chat_history: list[MessageBody] = Field(min_length=1)
    persona: str | None = None


class GenerateBody(ChatBody):
    """A chat to answer and keep. `scope` and `voice` are taken and change nothing."""

    tools: dict[str, Any] | list[dict[str, Any]] | None = None
    scope: str | None = None
    stream: bool | None = None
    voice: bool | None = None
    fast_context: list[Any] | None = Field(default=None, validation_alias=AliasChoices("fastContext", "fast_context"))
    chat_id: str | None = Field(default=None, validation_alias=AliasChoices("chatId", "chat_id"))


class Turn(Struct, frozen=True):
    """What to ask, as whom, and where to keep it."""

    persona: str
    request: domain.ChatRequest
    record: Record | None = None


class AssistantServicer(ChatsServicer):
    """Serves the whole dialect."""

    def __init__(self, chat: ChatService, store: Conversations, personas: Mapping[str, PersonaConfig]) -> None:
        super().__init__(store)
        self._chat = chat
        self._personas = {DEFAULT_PERSONA: MAYA, **personas}

    async def Generate(self, request: assistant_pb2.GenerateRequest, context: Context) -> Answer:
        """One JSON object, or events."""
        body = await parse_in_turns(request.body.data, GenerateBody)
        turn = self._turn(request, body, stream=bool(body.stream))
        answer = self._events(turn, context) if body.stream else self._whole(turn, context)
        with renaming(messages_as("chat_history")):
            async with aclosing(answer) as pieces:
                async for piece in pieces:
                    yield piece

    async def GenerateStream(self, request: assistant_pb2.GenerateStreamRequest, context: Context) -> Answer:
        """Events."""
        turn = self._turn(request, await parse_in_turns(request.body.data, GenerateBody), stream=True)
        with renaming(messages_as("chat_history")):
            async with aclosing(self._events(turn, context)) as pieces:
                async for piece in pieces:
                    yield piece

    async def Chat(self, request: assistant_pb2.ChatRequest, context: Context) -> Answer:
        """One JSON object; nothing is kept."""
        body = await parse_in_turns(request.body.data, ChatBody)
        name, persona = self._persona(body)
        before = _system(persona.system)
        asked = replace(_request(persona, (*before, *_messages(body)), stream=False), trusted=len(before))
        with renaming(messages_as("chat_history", len(before))):
            async with self._batches(Turn(name, asked), context) as batches:
                reply = await collect(batches)
        metadata = {"timeTaken": _milliseconds(reply)}
        yield _json({"result": {"message": shown(reply.choices[0]), "persona": name}, "metadata": metadata})

    def _batches(self, turn: Turn, context: Context) -> aclosing[AsyncGenerator[domain.Batch, None]]:
        return aclosing(self._chat.stream(turn.request, timeout=time_left(context.time_remaining()), record=turn.record))

    async def _whole(self, turn: Turn, context: Context) -> Answer:
        async with self._batches(turn, context) as batches:
            reply = await collect(batches)
        created()
        yield _json(generated(reply, turn.persona))

    async def _events(self, turn: Turn, context: Context) -> Answer:
        async with (
            self._batches(turn, context) as batches,
            aclosing(transfer(batches, EventWriter(turn.persona), _late)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    def _turn(self, asking: Asking, body: GenerateBody, *, stream: bool) -> Turn:
        """Raises `InvalidRequest`."""
        for field, most in (("title", MAX_TITLE), ("source", MAX_SOURCE)):
            if len(getattr(asking, field)) > most:
                raise invalid(Violation((field,), f"must not be longer than {most} characters"))
        name, persona = self._persona(body)
        record = Record(
            caller().owner,
            conversation=asking.chat_id or body.chat_id or None,
            title=asking.title,
            source=asking.source,
            instructions=_system(persona.system),
            preamble=_system(_context(body.fast_context or [])),
            resent=True,
            began=_tell_chat,
        )
        return Turn(name, _request(persona, _messages(body), _tools(body.tools), stream=stream), record)

    def _persona(self, body: ChatBody) -> tuple[str, PersonaConfig]:
        name = body.persona or DEFAULT_PERSONA
        persona = self._personas.get(name)
        if persona is None:
            raise invalid(Violation(("persona",), f"must be one of {', '.join(sorted(self._personas))}"))
        return name, persona


def _tell_chat(chat_id: str) -> None:
    """A header of the response, of an error too: what was said before it is stored there."""
    headers.add("x-chat-id", chat_id)


# Requests.


def _messages(body: ChatBody) -> tuple[domain.Message, ...]:
    return tuple(message_of(message, ("chat_history", index), without=STORED) for index, message in enumerate(body.chat_history))


def _request(
    persona: PersonaConfig,
    messages: tuple[domain.Message, ...],
    tools: tuple[domain.Tool | domain.NativeTool, ...] = (),
    *,
    stream: bool,
) -> domain.ChatRequest:
    sampling = domain.Sampling(temperature=persona.temperature, top_p=persona.top_p, max_tokens=persona.max_tokens)
    return domain.ChatRequest(persona.model or "", messages, stream, sampling=sampling, tools=tools, known_fields=True)


def _system(text: str) -> tuple[domain.Message, ...]:
    return (domain.Message(domain.Role.SYSTEM, (domain.Text(text),)),) if text else ()


def _context(items: list[Any]) -> str:
    """What the model is told of `fastContext`: texts as they are, objects by their `content` or `text`, all else as JSON."""
    texts = []
    for index, item in enumerate(items):
        match item:
            case str(text) | {"content": str(text)} | {"text": str(text)}:
                if "\0" in text:
                    raise invalid(Violation(("fastContext", index), "must not hold the character NUL"))
                texts.append(text)
            case _:
                texts.append(dumps(item).decode())
    return "\n\n".join(("Context for this chat:", *texts)) if texts else ""


def _tools(tools: dict[str, Any] | list[dict[str, Any]] | None) -> tuple[domain.Tool | domain.NativeTool, ...]:
    """A list as the OpenAI API has it, one tool of it, or functions by name. What else an object holds is an option of no tool."""
    match tools:
        case None:
            return ()
        case list():
            return tuple(tool_of(tool, ("tools", index)) for index, tool in enumerate(tools))
        case {"type": str()}:
            return (tool_of(tools, ("tools",)),)
        case dict():
            functions = ((name, body) for name, body in tools.items() if isinstance(body, dict))
            return tuple(
                tool_of({"type": "function", "function": {**body, "name": name}}, ("tools", name))
                for name, body in functions
                if "parameters" in body or "description" in body
            )


# Replies.


def generated(reply: Reply, persona: str) -> dict[str, Any]:
    """The object of a whole reply."""
    started = reply.started
    assert started is not None, "a stream that ended well has started"
    said = shown(reply.choices[0])
    response: dict[str, Any] = {"role": "assistant", "content": said}
    choice = reply.choices[0]
    if calls := choice.calls():
        response["tool_calls"] = list(map(call_json, calls))
    if called := choice.extra.get("function_call"):  # null is told by some hosts
        response["function_call"] = called
    return {
        "result": {"response": response, "message": said, "persona": persona},
        "chatId": started.conversation_id,
        "title": started.conversation_title,
        "researchMode": False,
        "stream": False,
        "messageId": started.message_id,
        "metadata": {"timeTaken": _milliseconds(reply), "model": started.model, "usage": _usage(reply.usage)},
    }


class EventWriter:
    """Writes the events of one stream, and [DONE]."""

    content_type = EVENT_STREAM
    comment = COMMENT

    def __init__(self, persona: str) -> None:
        self._persona = persona
        self._reply = Reply()  # of all but the text: that is gone when it is written
        self._shown = Shown()

    def write(self, batch: domain.Batch) -> bytes:
        """The events of a batch. May be empty."""
        pieces: list[bytes] = []
        for happened in batch:
            match happened:
                case domain.TextDelta() | domain.RefusalDelta() | domain.AudioDelta():
                    text = self._shown.text(happened)
                    if text or not isinstance(happened, domain.AudioDelta):
                        pieces.append(b'data: {"type":"final_response","content":%b}\n\n' % dumps(text))
                case domain.ThinkingDelta(text=text):
                    if text:
                        pieces.append(event({"type": "thinking_update", "content": text}))
                case domain.Started():
                    self._reply.add(happened)
                    pieces.append(event({"type": "thinking_update", "content": PLANNING}))
                case _:
                    self._reply.add(happened)
        return b"".join(pieces)

    def end(self) -> bytes:
        """What comes after the last batch."""
        reply, started = self._reply, self._reply.started
        assert started is not None, "a stream that ended well has started"
        calls = [event({"type": "tool_call", "content": call}) for choice in reply.choices[:1] for call in _calls(choice)]
        metadata = {
            "chatId": started.conversation_id,
            "title": started.conversation_title,
            "messageId": started.message_id,
            "persona": self._persona,
            "model": started.model,
            "usage": _usage(reply.usage),
            "timeTaken": _milliseconds(reply),
        }
        return b"".join(calls) + event({"type": "metadata", "content": metadata}) + DONE


def _calls(choice: ReplyChoice) -> Iterator[dict[str, Any]]:
    """The calls of tools as a stream tells them: of functions, of tools that take plain text, and the one function of 2023."""
    for call in choice.calls():
        match call:
            case domain.ToolCall():
                yield {"id": call.id, "name": call.name, "arguments": call.arguments}
            case {"custom": {"name": name, "input": text}}:
                yield {"id": call.get("id"), "name": name, "arguments": text}
            case _:
                yield dict(call)
    match choice.extra:
        case {"function_call": {"name": name, "arguments": text}}:
            yield {"id": None, "name": name, "arguments": text}


def _usage(usage: domain.Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        **({"estimated": True} if usage.estimated else {}),
    }


def _milliseconds(reply: Reply) -> int:
    return round(reply.metrics.latency * 1000) if reply.metrics else 0


def _json(value: dict[str, Any]) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=JSON, data=dumps(value))


# Errors.


def render_error(error: AntiphonError) -> tuple[int, Mapping[str, str], bytes]:
    """The HTTP status, headers and body of an error before the first byte."""
    return status_of(error), headers_of(error), dumps({"message": message_of_error(error)})


def _late(error: AntiphonError) -> bytes:
    return event({"type": "error", "content": None, "error": {"message": message_of_error(error)}})


def message_of_error(error: AntiphonError) -> str:
    """The message; of a request at fault every field, as the body has no other place for them."""
    if isinstance(error, InvalidRequest) and error.violations:
        return "; ".join(map(_violation, error.violations))
    return error.message


def _violation(violation: Violation) -> str:
    if not violation.path or violation.kind == "json_invalid":
        return violation.message
    return f"{'.'.join(map(str, violation.path))}: {violation.message}"
