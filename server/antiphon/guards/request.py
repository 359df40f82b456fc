"""Guards over a request: everything in it that is text for the model.

That is the text of messages, the names of their speakers, calls of tools and what they answered, thoughts and refusals that are
told again, tools and the form of the reply as they are described, with the names of both, what ends the reply, the end user, and
whatever the fields hold that only a provider knows, names of fields within JSON too. A name that is masked is masked alike
wherever it stands: a call still belongs to its tool.

Not read are the operator's own messages, and what the model is not told as words: names of models, ids of calls and files,
signatures, URLs and what is behind them, the bytes of a picture, recording or document, and settings such as the effort and the
voice. An id is no text: providers make it at random, and a word would be found in one now and then. Each text is read by itself:
a match does not go from one into another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from msgspec.structs import replace

from antiphon.guards.base import Guard
from antiphon.guards.chain import passed
from antiphon.guards.json_text import passed_json, passed_value
from antiphon.messages import (
    Audio,
    ChatRequest,
    File,
    Image,
    JsonSchemaFormat,
    Message,
    NativeFormat,
    NativeTool,
    Other,
    Part,
    Refusal,
    ResponseFormat,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Video,
)


async def passed_request(guards: Sequence[Guard], request: ChatRequest) -> ChatRequest:
    """What of a request may be passed on; what is `trusted` is left as it is. Raises `Blocked`."""
    messages = [await _message(guards, message) for message in request.messages[request.trusted :]]
    return replace(
        request,
        messages=(*request.messages[: request.trusted], *messages),
        sampling=await _sampling(guards, request.sampling),
        tools=tuple([await _tool(guards, tool) for tool in request.tools]),
        tool_choice=await _choice(guards, request.tool_choice),
        response_format=await _format(guards, request.response_format),
        end_user=await _optional(guards, request.end_user),
        extra=await _value(guards, request.extra),
    )


async def _message(guards: Sequence[Guard], message: Message) -> Message:
    parts = await _parts(guards, message.parts)
    extra = await _value(guards, message.extra)
    return replace(message, parts=parts, name=await _optional(guards, message.name), extra=extra)


async def _parts(guards: Sequence[Guard], parts: Sequence[Part]) -> tuple[Part, ...]:
    return tuple([await _part(guards, part) for part in parts])


async def _part(guards: Sequence[Guard], part: Part) -> Part:
    match part:
        case Text():
            return replace(part, text=await passed(guards, part.text), extra=await _value(guards, part.extra))
        case Refusal():
            return replace(part, text=await passed(guards, part.text))
        case Thinking():
            text = await passed(guards, part.text)
            # A signature is good for the text that the provider signed, and for no other.
            return part if text == part.text else replace(part, text=text, signature=None)
        case ToolCall():
            name, arguments = await passed(guards, part.name), await passed_json(guards, part.arguments, names=True)
            return replace(part, name=name, arguments=arguments, extra=await _value(guards, part.extra))
        case ToolResult():
            return replace(part, parts=await _parts(guards, part.parts))
        case Image() | Audio() | Video():
            return replace(part, extra=await _value(guards, part.extra))
        case File():
            filename = await _optional(guards, part.filename)
            return replace(part, filename=filename, extra=await _value(guards, part.extra))
        case Other():
            return replace(part, fields=await _value(guards, part.fields))
        case _:
            assert_never(part)


async def _sampling(guards: Sequence[Guard], sampling: Sampling) -> Sampling:
    match sampling.stop:
        case None:
            return sampling
        case str():
            return replace(sampling, stop=await passed(guards, sampling.stop))
        case _:
            return replace(sampling, stop=tuple([await passed(guards, text) for text in sampling.stop]))


async def _tool(guards: Sequence[Guard], tool: Tool | NativeTool) -> Tool | NativeTool:
    match tool:
        case NativeTool():
            return replace(tool, fields=await _value(guards, tool.fields))
        case Tool():
            return replace(
                tool,
                name=await passed(guards, tool.name),
                description=await _optional(guards, tool.description),
                parameters=await _value(guards, tool.parameters),
                extra=await _value(guards, tool.extra),
            )
        case _:
            assert_never(tool)


async def _choice(guards: Sequence[Guard], choice: ToolChoice | None) -> ToolChoice | None:
    if choice is None or (choice.name is None and choice.native is None):
        return choice
    name = await _optional(guards, choice.name)
    return replace(choice, name=name, native=None if choice.native is None else await _value(guards, choice.native))


async def _format(guards: Sequence[Guard], form: ResponseFormat | None) -> ResponseFormat | None:
    match form:
        case JsonSchemaFormat():
            return replace(
                form,
                name=await passed(guards, form.name),
                schema=await _value(guards, form.schema),
                description=await _optional(guards, form.description),
                extra=await _value(guards, form.extra),
            )
        case NativeFormat():
            return replace(form, fields=await _value(guards, form.fields))
        case _:
            return form


async def _optional(guards: Sequence[Guard], text: str | None) -> str | None:
    return None if text is None else await passed(guards, text)


async def _value(guards: Sequence[Guard], value: Any) -> Any:
    return await passed_value(guards, value, names={})
