"""Filters a request: everything in it that is text for the model.

That is: the text of messages and the names of their speakers, tool calls and tool results, thoughts and refusals that are sent
back, descriptions and names of tools and of the reply's format, stop sequences, the end user, settings in words such as the effort
and the voice, and all values of fields that only a provider knows, with field names in JSON. Equal names are masked alike
everywhere, so a call still belongs to its tool.

Not filtered are the operator's own messages, names of models, the bytes of an image, recording or document, the contents behind a
URL, and what is not text: ids of calls and files, signatures and URLs, if they are visible ASCII. Providers generate ids at random
from any characters (`call_Ab3`, `functions.f:0`, `call_1|fc_2`, some with base64), so that a guard would now and then find a word
in one. But no id has a space, so an id with one is filtered as text. Each text is filtered separately: no match spans two.
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
from antiphon.guards.chain import filter_text
from antiphon.guards.json_chain import filter_json
from antiphon.guards.json_value import filter_value
from antiphon.guards.opaque import is_opaque

Item = TypeVar("Item")
Id = TypeVar("Id", str, str | None)

_AT_ONCE: Final = 16
"""The number of messages, blocks or tools that are filtered before other calls run."""

_TOKEN: Final = re.compile(r"[0-9]{1,7}")
"""A token id, as in `logit_bias`. The largest vocabularies have a few hundred thousand."""


async def filter_request(guards: Sequence[Guard], request: ChatRequest) -> ChatRequest:
    """Return the request with all matches masked, except in its first `trusted` messages. Raises `Blocked`."""
    messages = await _each(partial(_message, guards), request.messages[request.trusted :])
    return replace(
        request,
        messages=(*request.messages[: request.trusted], *messages),
        sampling=await _sampling(guards, request.sampling),
        tools=await _each(partial(_tool, guards), request.tools),
        tool_choice=await _tool_choice(guards, request.tool_choice),
        response_format=await _format(guards, request.response_format),
        reasoning=await _reasoning(guards, request.reasoning),
        modalities=await _each(partial(filter_text, guards), request.modalities),
        audio_output=await _audio_output(guards, request.audio_output),
        end_user=await _optional(guards, request.end_user),
        extra=await _value(guards, request.extra),
    )


async def _each(filter_one: Callable[[Item], Awaitable[Item]], items: Sequence[Item]) -> tuple[Item, ...]:
    """Return each item as filtered by `filter_one`. Other calls run after every `_AT_ONCE` items, and at the end."""
    done: list[Item] = []
    for number, item in enumerate(items, 1):
        done.append(await filter_one(item))
        if number % _AT_ONCE == 0 or (number == len(items) and number > 1):
            await asyncio.sleep(0)
    return tuple(done)


async def _message(guards: Sequence[Guard], message: Message) -> Message:
    """Return a filtered message."""
    blocks = await _blocks(guards, message.blocks)
    extra, fields = await _value(guards, message.extra), await _value(guards, message.fields)
    return replace(message, blocks=blocks, name=await _optional(guards, message.name), extra=extra, fields=fields)


async def _blocks(guards: Sequence[Guard], blocks: Sequence[Block]) -> tuple[Block, ...]:
    return await _each(partial(_block, guards), blocks)


async def _block(guards: Sequence[Guard], block: Block) -> Block:
    """Return a filtered block. If anything in it was changed, it has no state, as that is valid only for the original."""
    filtered = await _filter_content(guards, block)
    if block.state is not None:
        state = await _state(guards, block.state)
        filtered = replace(filtered, state=state if filtered == block else None)
    return replace(filtered, extra=await _value(guards, block.extra)) if block.extra else filtered


async def _state(guards: Sequence[Guard], state: State) -> State | None:
    """Return the state of a provider that a caller sent back; None if a guard changes anything in it."""
    fields = await _value(guards, state.fields)
    opaque = await _opaque(guards, state.opaque)
    return state if fields is state.fields and opaque == state.opaque else None


async def _filter_content(guards: Sequence[Guard], block: Block) -> Block:  # noqa: C901  # a match over the kinds of block
    """Return a block with its own fields filtered, but not its state and extra fields."""
    match block:
        case Text():
            citations = await _each(partial(_citation, guards), block.citations)
            return replace(block, text=await filter_text(guards, block.text), citations=citations)
        case Refusal():
            return replace(block, text=await filter_text(guards, block.text))
        case Thinking():
            return replace(block, text=await filter_text(guards, block.text), field=await filter_text(guards, block.field))
        case Compaction():
            return replace(block, text=await _optional(guards, block.text))
        case ToolCall():
            name, arguments = await filter_text(guards, block.name), await filter_json(guards, block.arguments)
            kind = await _kind(guards, block.type)
            return replace(block, id=await _opaque(guards, block.id), name=name, arguments=arguments, type=kind)
        case ServerToolCall():
            name, given = await filter_text(guards, block.name), block.input
            given = given if given is None else await filter_json(guards, given)
            kind = await filter_text(guards, block.type)
            return replace(block, id=await _opaque(guards, block.id), name=name, input=given, type=kind)
        case ToolResult():
            blocks, kind = await _blocks(guards, block.blocks), await _kind(guards, block.type)
            return replace(block, tool_call_id=await _opaque(guards, block.tool_call_id), blocks=blocks, type=kind)
        case ServerToolResult():
            return replace(block, call_id=await _opaque(guards, block.call_id), type=await filter_text(guards, block.type))
        case Image():
            media, detail = await _media(guards, block.media), await _optional(guards, block.detail)
            return replace(block, media=media, detail=detail)
        case Audio():
            media, transcript = await _media(guards, block.media), await filter_text(guards, block.transcript)
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
    """Return the type of a tool, filtered unless it is "function"."""
    return kind if kind == FUNCTION else await filter_text(guards, kind)


async def _citation(guards: Sequence[Guard], citation: Citation) -> Citation:
    return replace(
        citation,
        url=await _opaque(guards, citation.url),
        source_id=await _opaque(guards, citation.source_id),
        title=await filter_text(guards, citation.title),
        text=await filter_text(guards, citation.text),
        fields=await _value(guards, citation.fields),
    )


async def _media(guards: Sequence[Guard], media: Media) -> Media:
    """Return media with the URL filtered; of a data URL only the part before the data, as the data may have line breaks."""
    url = media.url
    if url is not None:
        end = url.find(",") if url.startswith("data:") else -1
        head = url if end < 0 else url[:end]
        filtered = await _opaque(guards, head)
        url = url if filtered == head else filtered + url[len(head) :]
    return Media(url, await _opaque(guards, media.file_id))


async def _sampling(guards: Sequence[Guard], sampling: Sampling) -> Sampling:
    stop, bias = sampling.stop, sampling.logit_bias
    if isinstance(stop, str):
        stop = await filter_text(guards, stop)
    elif stop is not None:
        stop = await _each(partial(filter_text, guards), stop)
    return replace(sampling, stop=stop, logit_bias=await _bias(guards, bias))


async def _bias(guards: Sequence[Guard], bias: Mapping[str, float] | None) -> Mapping[str, float] | None:
    if bias is None or all(map(_TOKEN.fullmatch, bias)):
        return bias
    filtered: Mapping[str, float] = await _value(guards, bias)
    return filtered


async def _reasoning(guards: Sequence[Guard], reasoning: Reasoning | None) -> Reasoning | None:
    return None if reasoning is None else replace(reasoning, effort=await _optional(guards, reasoning.effort))


async def _audio_output(guards: Sequence[Guard], audio: AudioOutput | None) -> AudioOutput | None:
    return None if audio is None else AudioOutput(await filter_text(guards, audio.voice), await filter_text(guards, audio.format))


async def _tool(guards: Sequence[Guard], tool: Tool | NativeTool) -> Tool | NativeTool:
    match tool:
        case NativeTool():
            return replace(tool, fields=await _value(guards, tool.fields))
        case Tool():
            return replace(
                tool,
                name=await filter_text(guards, tool.name),
                description=await _optional(guards, tool.description),
                parameters=await _value(guards, tool.parameters),
                extra=await _value(guards, tool.extra),
            )
        case _:
            assert_never(tool)


async def _tool_choice(guards: Sequence[Guard], choice: ToolChoice | None) -> ToolChoice | None:
    if choice is None or (choice.name is None and choice.native is None):
        return choice
    name = await _optional(guards, choice.name)
    return replace(choice, name=name, native=None if choice.native is None else await _value(guards, choice.native))


async def _format(guards: Sequence[Guard], form: ResponseFormat | None) -> ResponseFormat | None:
    match form:
        case JsonSchemaFormat():
            return replace(
                form,
                name=await filter_text(guards, form.name),
                schema=await _value(guards, form.schema),
                description=await _optional(guards, form.description),
                extra=await _value(guards, form.extra),
            )
        case NativeFormat():
            return replace(form, fields=await _value(guards, form.fields))
        case _:
            return form


async def _opaque(guards: Sequence[Guard], text: Id) -> Id:
    """Return an id, signature or URL unfiltered; filter it if it is a text instead."""
    return text if text is None or is_opaque(text) else await filter_text(guards, text)


async def _optional(guards: Sequence[Guard], text: str | None) -> str | None:
    return None if text is None else await filter_text(guards, text)


async def _value(guards: Sequence[Guard], value: Any) -> Any:
    return await filter_value(guards, value, names={})
