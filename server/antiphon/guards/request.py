"""Guards over a request: everything in it that is text for the model.

That is the text of messages, the names of their speakers, the results and the arguments of tools, thoughts and refusals that are
told again, tools and the form of the reply as they are described, the end user, and every string among the fields that only a
provider knows. Names of tools, fields and models are not read, nor what is behind a URL, nor the bytes of a picture, recording or
document. Each is a text of its own: a match does not go from one into another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

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
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Video,
)


async def passed_request(guards: Sequence[Guard], request: ChatRequest, trusted: int) -> ChatRequest:
    """What of a request may be passed on; its first `trusted` messages are left as they are. Raises `Blocked`."""
    messages = [await _message(guards, message) for message in request.messages[trusted:]]
    return replace(
        request,
        messages=(*request.messages[:trusted], *messages),
        tools=tuple([await _tool(guards, tool) for tool in request.tools]),
        tool_choice=await _choice(guards, request.tool_choice),
        response_format=await _format(guards, request.response_format),
        end_user=await _optional(guards, request.end_user),
        extra=await passed_value(guards, request.extra),
    )


async def _message(guards: Sequence[Guard], message: Message) -> Message:
    parts = await _parts(guards, message.parts)
    extra = await passed_value(guards, message.extra)
    return replace(message, parts=parts, name=await _optional(guards, message.name), extra=extra)


async def _parts(guards: Sequence[Guard], parts: Sequence[Part]) -> tuple[Part, ...]:
    return tuple([await _part(guards, part) for part in parts])


async def _part(guards: Sequence[Guard], part: Part) -> Part:
    match part:
        case Text():
            return replace(part, text=await passed(guards, part.text), extra=await passed_value(guards, part.extra))
        case Refusal():
            return replace(part, text=await passed(guards, part.text))
        case Thinking():
            text = await passed(guards, part.text)
            # A signature is good for the text that the provider signed, and for no other.
            return part if text == part.text else replace(part, text=text, signature=None)
        case ToolCall():
            arguments = await passed_json(guards, part.arguments)
            return replace(part, arguments=arguments, extra=await passed_value(guards, part.extra))
        case ToolResult():
            return replace(part, parts=await _parts(guards, part.parts))
        case Image() | Audio() | Video():
            return replace(part, extra=await passed_value(guards, part.extra))
        case File():
            name = await _optional(guards, part.filename)
            return replace(part, filename=name, extra=await passed_value(guards, part.extra))
        case Other():
            return replace(part, fields=await passed_value(guards, part.fields))
        case _:
            assert_never(part)


async def _tool(guards: Sequence[Guard], tool: Tool | NativeTool) -> Tool | NativeTool:
    match tool:
        case NativeTool():
            return replace(tool, fields=await passed_value(guards, tool.fields))
        case Tool():
            return replace(
                tool,
                description=await _optional(guards, tool.description),
                parameters=await passed_value(guards, tool.parameters),
                extra=await passed_value(guards, tool.extra),
            )
        case _:
            assert_never(tool)


async def _choice(guards: Sequence[Guard], choice: ToolChoice | None) -> ToolChoice | None:
    if choice is None or choice.native is None:
        return choice
    return replace(choice, native=await passed_value(guards, choice.native))


async def _format(guards: Sequence[Guard], form: ResponseFormat | None) -> ResponseFormat | None:
    match form:
        case JsonSchemaFormat():
            schema = await passed_value(guards, form.schema)
            extra = await passed_value(guards, form.extra)
            return replace(form, schema=schema, description=await _optional(guards, form.description), extra=extra)
        case NativeFormat():
            return replace(form, fields=await passed_value(guards, form.fields))
        case _:
            return form


async def _optional(guards: Sequence[Guard], text: str | None) -> str | None:
    return None if text is None else await passed(guards, text)
