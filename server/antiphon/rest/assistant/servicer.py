"""The assistant dialect: POST /api/v1/chat, /api/v1/chat/generate and /api/v1/chat/generate/stream.

The other paths are in `rest.assistant.chats`. The specification is the gateway's own document. A persona defines how the model
answers: its system prompt is put before the chat, and is never stored with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

from msgspec.structs import replace
from pydantic import AliasChoices, Field

from antiphon import domain
from antiphon.chat.service import ChatService
from antiphon.config import PersonaConfig
from antiphon.domain.call import Call, current
from antiphon.domain.content import FUNCTION_CALL
from antiphon.domain.errors import Violation
from antiphon.domain.reply import Reply, ReplyChoice
from antiphon.history.base import MAX_SOURCE, MAX_TITLE, Conversations
from antiphon.history.recorder import Record
from antiphon.providers.openai.block_json import call_json, function_call_json
from antiphon.providers.openai.blocks import chat_fields
from antiphon.rest.assistant.chats import STORED_FIELDS, ChatsServicer
from antiphon.rest.assistant.errors import error_event
from antiphon.rest.shared.answer import PreparedCall, answer
from antiphon.rest.shared.body import Fields, invalid, message_paths, parse_in_turns
from antiphon.rest.shared.content import MessageBody, message_of, tool_of
from antiphon.rest.shared.dialect import Context, Pieces
from antiphon.rest.shared.json import COMMENT, DONE, EVENT_STREAM, dumps, event
from antiphon.rest.shared.reply_text import ReplyTextStream, reply_text
from antiphon.rest.v1 import assistant_pb2

DEFAULT_PERSONA = "maya"
MAYA = PersonaConfig(system="You are Maya, a helpful assistant.")

PLANNING = "Planning response"
"""The content of the first event of a stream."""

GenerateRpcRequest: TypeAlias = assistant_pb2.GenerateRequest | assistant_pb2.GenerateStreamRequest


class ChatBody(Fields):
    """A chat to answer."""

    chat_history: list[MessageBody] = Field(min_length=1)
    persona: str | None = None


class GenerateBody(ChatBody):
    """A chat to answer and store. `scope` and `voice` are accepted and ignored."""

    tools: dict[str, Any] | list[dict[str, Any]] | None = None
    scope: str | None = None
    stream: bool | None = None
    voice: bool | None = None
    fast_context: list[Any] | None = Field(default=None, validation_alias=AliasChoices("fastContext", "fast_context"))
    chat_id: str | None = Field(default=None, validation_alias=AliasChoices("chatId", "chat_id"))


class AssistantServicer(ChatsServicer):
    """Serves the whole dialect."""

    def __init__(self, chat: ChatService, store: Conversations, personas: Mapping[str, PersonaConfig]) -> None:
        super().__init__(store)
        self._chat = chat
        self._personas = {DEFAULT_PERSONA: MAYA, **personas}

    def Generate(self, request: assistant_pb2.GenerateRequest, context: Context) -> Pieces:
        """Answer a chat with one JSON object, or with server-sent events, and store it."""
        call = current()
        return answer(self._chat, call, partial(self._prepare_generate, call, request, stream=False))

    def GenerateStream(self, request: assistant_pb2.GenerateStreamRequest, context: Context) -> Pieces:
        """Answer a chat with server-sent events, and store it."""
        call = current()
        return answer(self._chat, call, partial(self._prepare_generate, call, request, stream=True))

    def Chat(self, request: assistant_pb2.ChatRequest, context: Context) -> Pieces:
        """Answer a chat with one JSON object, and store nothing."""
        return answer(self._chat, current(), partial(self._prepare_chat, request.body.data))

    async def _prepare_chat(self, data: bytes) -> PreparedCall:
        body = await parse_in_turns(data, ChatBody)
        name, persona = self._persona(body)
        before = _system(persona.system)
        chat_request = replace(_request(persona, (*before, *_messages(body)), stream=False), trusted=len(before))

        def write_object(reply: Reply) -> bytes:
            metadata = {"timeTaken": _milliseconds(reply)}
            return dumps({"result": {"message": reply_text(reply.choices[0]), "persona": name}, "metadata": metadata})

        return PreparedCall(chat_request, write_object, body_path=message_paths("chat_history", len(before)))

    async def _prepare_generate(self, call: Call, rpc_request: GenerateRpcRequest, *, stream: bool) -> PreparedCall:
        body = await parse_in_turns(rpc_request.body.data, GenerateBody)
        stream = stream or bool(body.stream)
        for field, most in (("title", MAX_TITLE), ("source", MAX_SOURCE)):
            if len(getattr(rpc_request, field)) > most:
                raise invalid(Violation((field,), f"must not be longer than {most} characters"))
        name, persona = self._persona(body)
        record = Record(
            call.caller.owner,
            conversation=rpc_request.chat_id or body.chat_id or None,
            title=rpc_request.title,
            source=rpc_request.source,
            instructions=_system(persona.system),
            preamble=_system(_context(body.fast_context or [])),
            resent=True,
            # The header is also set in an error response, because what came before the error is stored in this chat.
            on_recorded=partial(call.headers.__setitem__, "x-chat-id"),
        )
        chat_request = _request(persona, _messages(body), _tools(body.tools), stream=stream)
        writer = EventWriter(name) if stream else lambda reply: dumps(reply_object(reply, name))
        return PreparedCall(chat_request, writer, error_event, record, message_paths("chat_history"), status=201)

    def _persona(self, body: ChatBody) -> tuple[str, PersonaConfig]:
        name = body.persona or DEFAULT_PERSONA
        persona = self._personas.get(name)
        if persona is None:
            raise invalid(Violation(("persona",), f"must be one of {', '.join(sorted(self._personas))}"))
        return name, persona


# Requests.


def _messages(body: ChatBody) -> tuple[domain.Message, ...]:
    return tuple(
        message_of(message, ("chat_history", index), without=STORED_FIELDS) for index, message in enumerate(body.chat_history)
    )


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
    """Return the text that tells the model the items of `fastContext`; empty without items. Raises `InvalidRequest`.

    Strings are used as they are, objects by their `content` or `text`, and anything else as JSON.
    """
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
    """Return the domain tools for `tools`: a list as in the OpenAI API, a single tool, or an object of functions by name.

    In such an object, an entry without `parameters` and `description` is not a function, and is ignored. Raises `InvalidRequest`.
    """
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


def reply_object(reply: Reply, persona: str) -> dict[str, Any]:
    """Return the JSON object of a whole reply."""
    started = reply.started
    assert started is not None, "a stream that ended well has started"
    choice = reply.choices[0]
    text = reply_text(choice)
    response: dict[str, Any] = {"role": "assistant", "content": text}
    for call in choice.calls():
        fields = chat_fields(call.state, started.origin)
        if call.type == FUNCTION_CALL:
            response["function_call"] = function_call_json(call, fields)
        else:
            response.setdefault("tool_calls", []).append(call_json(call, fields))
    return {
        "result": {"response": response, "message": text, "persona": persona},
        "chatId": started.conversation_id,
        "title": started.conversation_title,
        "researchMode": False,
        "stream": False,
        "messageId": started.message_id,
        "metadata": {"timeTaken": _milliseconds(reply), "model": started.model, "usage": _usage(reply.usage)},
    }


class EventWriter:
    """Writes the events of one stream, with [DONE] at the end."""

    content_type = EVENT_STREAM
    comment = COMMENT

    def __init__(self, persona: str) -> None:
        self._persona = persona
        self._reply = Reply()  # without the text, which is not kept after it is written
        self._text_stream = ReplyTextStream()

    def write(self, batch: domain.Batch) -> bytes:
        """Return the events for a batch. May be empty."""
        pieces: list[bytes] = []
        for reply_event in batch:
            match reply_event:
                case domain.TextDelta() | domain.RefusalDelta() | domain.MediaDelta():
                    text = self._text_stream.text(reply_event)
                    if text or not isinstance(reply_event, domain.MediaDelta):
                        pieces.append(b'data: {"type":"final_response","content":%b}\n\n' % dumps(text))
                case domain.ThinkingDelta(text=text):
                    if text:
                        pieces.append(event({"type": "thinking_update", "content": text}))
                case domain.Started():
                    self._reply.add(reply_event)
                    pieces.append(event({"type": "thinking_update", "content": PLANNING}))
                case domain.BlockStarted():
                    self._text_stream.text(reply_event)
                    self._reply.add(reply_event)
                    if isinstance(reply_event.value, domain.ServerToolCall):
                        name = reply_event.value.name or reply_event.value.type
                        pieces.append(event({"type": "thinking_update", "content": name}))
                case _:
                    self._reply.add(reply_event)
        return b"".join(pieces)

    def end(self) -> bytes:
        """Return the last events: tool calls, metadata and [DONE]."""
        reply, started = self._reply, self._reply.started
        assert started is not None, "a stream that ended well has started"
        calls = [
            event({"type": "tool_call", "content": _call_json(call, started.origin)})
            for choice in reply.choices[:1]
            for call in choice.calls()
        ]
        sources = [source for choice in reply.choices[:1] for source in _sources(choice)]
        metadata = {
            "chatId": started.conversation_id,
            "title": started.conversation_title,
            "messageId": started.message_id,
            "persona": self._persona,
            "model": started.model,
            "usage": _usage(reply.usage),
            "timeTaken": _milliseconds(reply),
            **({"sources": sources} if sources else {}),
        }
        return b"".join(calls) + event({"type": "metadata", "content": metadata}) + DONE


def _call_json(call: domain.ToolCall, origin: domain.Origin) -> dict[str, Any]:
    """Return a tool call, as it is in an event."""
    if call.name:
        return {"id": call.id or None, "name": call.name, "arguments": call.arguments}
    return call_json(call, chat_fields(call.state, origin))


def _sources(choice: ReplyChoice) -> Iterator[dict[str, Any]]:
    """Yield the sources that the text cites, with their URLs and titles."""
    for one in choice.blocks:
        if isinstance(one.value, domain.Text):
            yield from ({"url": each.url, "title": each.title} for each in one.citations if each.url)


def _usage(usage: domain.Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        **({"estimated": True} if usage.estimated else {}),
    }


def _milliseconds(reply: Reply) -> int:
    return round(reply.metrics.latency * 1000) if reply.metrics else 0
