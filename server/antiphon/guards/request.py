"""Guards over a request: everything in it that is text for the model.

That is the text of messages, the names of their speakers, calls of tools and what they answered, thoughts and refusals that are
told again, tools and the form of the reply as they are described, with the names of both, what ends the reply, the end user,
settings in words, such as the effort and the voice, and whatever the fields hold that only a provider knows, names of fields within
JSON too. A name that is masked is masked alike wherever it stands: a call still belongs to its tool.

Not read are the operator's own messages, names of models, the bytes of a picture, recording or document, what is behind a URL, and
what is no text: ids of calls and files, signatures, and URLs, as long as they are visible ASCII. Providers make ids at random, of
whatever characters (`call_Ab3`, `functions.f:0`, `call_1|fc_2`, some with base64 in them), and a word would be found in one now and
then; but none has a space, so what does is a text, and read. Each text is read by itself: no match goes from one into the next.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar, assert_never

from msgspec.structs import replace

from antiphon.domain.content import (
    FUNCTION,
    Audio,
    Block,
    Citation,
    Compaction,
    Document,
    Image,
    Media,
    Message,
    Opaque,
    RedactedThinking,
    Refusal,
    ServerToolCall,
    ServerToolResult,
    State,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Video,
)
from antiphon.domain.request import (
    AudioOutput,
    ChatRequest,
    JsonSchemaFormat,
    NativeFormat,
    NativeTool,
    Reasoning,
    ResponseFormat,
    Sampling,
    Tool,
    ToolChoice,
)
from antiphon.guards.base import Guard
from antiphon.guards.chain import passed
from antiphon.guards.json_chain import passed_json
from antiphon.guards.json_value import passed_value
from antiphon.guards.opaque import is_opaque

Item = TypeVar("Item")
Id = TypeVar("Id", str, str | None)

_TURN: Final = 16
"""Messages, blocks or tools that are read at one go."""

_TOKEN: Final = re.compile(r"[0-9]{1,7}")
"""A token as `logit_bias` has it: a number. The largest vocabularies have some hundred thousand."""


async def passed_request(guards: Sequence[Guard], request: ChatRequest) -> ChatRequest:
    """What of a request may be passed on; what is `trusted` is left as it is. Raises `Blocked`."""
    messages = await _each(partial(_message, guards), request.messages[request.trusted :])
    return replace(
        request,
        messages=(*request.messages[: request.trusted], *messages),
        sampling=await _sampling(guards, request.sampling),
        tools=await _each(partial(_tool, guards), request.tools),
        tool_choice=await _choice(guards, request.tool_choice),
        response_format=await _format(guards, request.response_format),
        reasoning=await _reasoning(guards, request.reasoning),
        modalities=await _each(partial(passed, guards), request.modalities),
        audio_output=await _audio_output(guards, request.audio_output),
        end_user=await _optional(guards, request.end_user),
        extra=await _value(guards, request.extra),
    )


async def _each(read: Callable[[Item], Awaitable[Item]], items: Sequence[Item]) -> tuple[Item, ...]:
    """What may be passed on of each. Opaque calls have their turn after every `_TURN` of them, and at the end."""
    done: list[Item] = []
    for number, item in enumerate(items, 1):
        done.append(await read(item))
        if number % _TURN == 0 or (number == len(items) and number > 1):
            await asyncio.sleep(0)
    return tuple(done)


async def _message(guards: Sequence[Guard], message: Message) -> Message:
    blocks = await _blocks(guards, message.blocks)
    extra, fields = await _value(guards, message.extra), await _value(guards, message.fields)
    return replace(message, blocks=blocks, name=await _optional(guards, message.name), extra=extra, fields=fields)


async def _blocks(guards: Sequence[Guard], blocks: Sequence[Block]) -> tuple[Block, ...]:
    return await _each(partial(_block, guards), blocks)


async def _block(guards: Sequence[Guard], block: Block) -> Block:
    """A block as it may be passed on. One in which something was changed has no state any more: that was good for it alone."""
    read = await _said(guards, block)
    if block.state is not None:
        state = await _state(guards, block.state)
        read = replace(read, state=state if read == block else None)
    return replace(read, extra=await _value(guards, block.extra)) if block.extra else read


async def _state(guards: Sequence[Guard], state: State) -> State | None:
    """What a caller has of a provider's state; None if a guard changes anything of it."""
    fields = await _value(guards, state.fields)
    opaque = await _opaque(guards, state.opaque)
    return state if fields is state.fields and opaque == state.opaque else None


async def _said(guards: Sequence[Guard], block: Block) -> Block:  # noqa: C901  # a match over the kinds of block
    """A block with what of its own fields may be passed on."""
    match block:
        case Text():
            citations = await _each(partial(_citation, guards), block.citations)
            return replace(block, text=await passed(guards, block.text), citations=citations)
        case Refusal():
            return replace(block, text=await passed(guards, block.text))
        case Thinking():
            return replace(block, text=await passed(guards, block.text), field=await passed(guards, block.field))
        case Compaction():
            return replace(block, text=await _optional(guards, block.text))
        case ToolCall():
            name, arguments = await passed(guards, block.name), await passed_json(guards, block.arguments)
            kind = await _kind(guards, block.type)
            return replace(block, id=await _opaque(guards, block.id), name=name, arguments=arguments, type=kind)
        case ServerToolCall():
            name, given = await passed(guards, block.name), block.input
            given = given if given is None else await passed_json(guards, given)
            kind = await passed(guards, block.type)
            return replace(block, id=await _opaque(guards, block.id), name=name, input=given, type=kind)
        case ToolResult():
            blocks, kind = await _blocks(guards, block.blocks), await _kind(guards, block.type)
            return replace(block, tool_call_id=await _opaque(guards, block.tool_call_id), blocks=blocks, type=kind)
        case ServerToolResult():
            return replace(block, call_id=await _opaque(guards, block.call_id), type=await passed(guards, block.type))
        case Image():
            media, detail = await _media(guards, block.media), await _optional(guards, block.detail)
            return replace(block, media=media, detail=detail)
        case Audio():
            media, transcript = await _media(guards, block.media), await passed(guards, block.transcript)
            return replace(block, media=media, id=await _opaque(guards, block.id), transcript=transcript)
        case Video():
            return replace(block, media=await _media(guards, block.media))
        case Document():
            media, filename = await _media(guards, block.media), await _optional(guards, block.filename)
            return replace(block, media=media, filename=filename, title=await _optional(guards, block.title))
        case Opaque():
            return replace(block, fields=await _value(guards, block.fields))
        case RedactedThinking():
            return block
        case _:
            assert_never(block)


async def _kind(guards: Sequence[Guard], kind: str) -> str:
    """The type of a tool: nearly all are functions."""
    return kind if kind == FUNCTION else await passed(guards, kind)


async def _citation(guards: Sequence[Guard], citation: Citation) -> Citation:
    return replace(
        citation,
        url=await _opaque(guards, citation.url),
        source_id=await _opaque(guards, citation.source_id),
        title=await passed(guards, citation.title),
        text=await passed(guards, citation.text),
        fields=await _value(guards, citation.fields),
    )


async def _media(guards: Sequence[Guard], media: Media) -> Media:
    """Of bytes that are there themselves, what is said of them, such as their form: the bytes may have line breaks."""
    url = media.url
    if url is not None:
        end = url.find(",") if url.startswith("data:") else -1
        head = url if end < 0 else url[:end]
        said = await _opaque(guards, head)
        url = url if said == head else said + url[len(head) :]
    return Media(url, await _opaque(guards, media.file_id))


async def _sampling(guards: Sequence[Guard], sampling: Sampling) -> Sampling:
    stop, bias = sampling.stop, sampling.logit_bias
    if isinstance(stop, str):
        stop = await passed(guards, stop)
    elif stop is not None:
        stop = await _each(partial(passed, guards), stop)
    return replace(sampling, stop=stop, logit_bias=await _bias(guards, bias))


async def _bias(guards: Sequence[Guard], bias: Mapping[str, float] | None) -> Mapping[str, float] | None:
    if bias is None or all(map(_TOKEN.fullmatch, bias)):
        return bias
    read: Mapping[str, float] = await _value(guards, bias)
    return read


async def _reasoning(guards: Sequence[Guard], reasoning: Reasoning | None) -> Reasoning | None:
    return None if reasoning is None else replace(reasoning, effort=await _optional(guards, reasoning.effort))


async def _audio_output(guards: Sequence[Guard], audio: AudioOutput | None) -> AudioOutput | None:
    return None if audio is None else AudioOutput(await passed(guards, audio.voice), await passed(guards, audio.format))


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


async def _opaque(guards: Sequence[Guard], text: Id) -> Id:
    """What the provider knows and the model is not told, unless it is a text in such a place."""
    return text if text is None or is_opaque(text) else await passed(guards, text)


async def _optional(guards: Sequence[Guard], text: str | None) -> str | None:
    return None if text is None else await passed(guards, text)


async def _value(guards: Sequence[Guard], value: Any) -> Any:
    return await passed_value(guards, value, names={})
