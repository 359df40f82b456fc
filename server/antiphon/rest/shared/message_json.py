"""A stored message in the JSON of the chat API, for the dialects that use it. The opposite direction is in `content`. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from msgspec.structs import replace

from antiphon import domain
from antiphon.domain.content import FUNCTION_CALL, with_extra
from antiphon.providers.openai.block_json import (
    call_json,
    citation_json,
    detail_json,
    function_call_json,
    image_json,
    is_detailed,
    placed_citation,
    with_signature,
)
from antiphon.providers.openai.blocks import chat_fields, is_chat, take_signature
from antiphon.providers.openai.details import DETAILS
from antiphon.rest.shared.carried import carried, item_entry
from antiphon.rest.shared.content import FUNCTION_ROLE
from antiphon.rest.shared.places import BlockPlace, placed


def message_json(message: domain.Message) -> dict[str, Any]:
    """Return a message as the client sent it. A reply has none of the null fields that it had when it was first sent."""
    body: dict[str, Any] = {"role": message.role.value, "content": None}
    content: list[domain.Block] = []
    place = BlockPlace()
    for block in message.blocks:
        if isinstance(block, domain.Text):
            place = replace(place, end=place.end + len(block.text))
        match block:
            case domain.ToolResult() if len(message.blocks) == 1:
                if block.type == FUNCTION_CALL:
                    body["role"] = FUNCTION_ROLE
                else:
                    body["tool_call_id"] = block.tool_call_id
                content.extend(block.blocks)
            case _ if message.role is not domain.Role.ASSISTANT or not _add_assistant_block(body, block, message, place):
                content.append(block)
        if isinstance(block, domain.Text):
            place = replace(place, texts=place.texts + 1, start=place.end)
        elif isinstance(block, domain.ToolCall):
            place = replace(place, calls=place.calls + 1)
    if not content and "transcript" in body.get("audio", ()):  # for readers that know only text
        content.append(domain.Text(body["audio"]["transcript"]))
    if content or message.listed:
        body["content"] = _content(content, listed=message.listed, join=message.role is domain.Role.ASSISTANT)
    if message.name is not None:
        body["name"] = message.name
    return {**(message.fields if is_chat(message.origin) else {}), **message.extra, **body}


def _add_assistant_block(  # noqa: C901  # as `_part_json`
    body: dict[str, Any], block: domain.Block, message: domain.Message, place: BlockPlace
) -> bool:
    """Add a block of an assistant's message to the field of `body` that it belongs in, such as `tool_calls`.

    `place` is where the block stood.
    Returns False if it belongs in the content instead.
    """
    fields = {**chat_fields(block.state, message.origin), **block.extra}
    has_places = not is_chat(message.origin)
    opaque = carried(block, message.origin, text=place if has_places and isinstance(block, domain.Text) else None)
    match block:
        case domain.Thinking() | domain.RedactedThinking():
            if isinstance(block, domain.Thinking) and (block.text or block.state is None):
                for name in ("reasoning_content", "reasoning") if block.field == "reasoning" else ("reasoning_content",):
                    body[name] = body.get(name, "") + block.text
            if is_detailed(block):
                details = body.setdefault(DETAILS, [])
                entry = detail_json(block, len(details), opaque)
                details.append(placed(entry, place) if has_places else entry)
        case domain.ToolCall(type="function_call"):
            body["function_call"] = function_call_json(block, fields)
        case domain.ToolCall():
            is_signed = block.state is not None and block.state.opaque is not None
            body.setdefault("tool_calls", []).append(call_json(block, fields, opaque if is_signed else None))
            _add_item(body, block, message)
        case domain.Refusal() if not message.listed:
            body["refusal"] = body.get("refusal", "") + block.text
        case domain.Audio(media=domain.Media(url=None, file_id=None)):
            known = {"id": block.id, "transcript": block.transcript, "expires_at": block.expires}
            body["audio"] = {name: value for name, value in known.items() if value} | dict(block.extra)
        case domain.Image() if not message.listed:
            body.setdefault("images", []).append(with_extra(image_json(block, message.origin, opaque), block.extra))
        case domain.Text():
            if opaque is not None and block.state is not None and block.state.opaque is not None:
                known = {name: value for name, value in fields.items() if name not in block.extra}
                before = (take_signature(body) or "") if has_places else ""
                body |= with_signature(known, before + opaque)
            _add_item(body, block, message, place)
            if block.citations:
                annotations = body.setdefault("annotations", [])
                start = place.end - len(block.text)
                annotations += (
                    placed_citation(cited, start, place.end) if has_places else citation_json(cited) for cited in block.citations
                )
            return False
        case domain.ServerToolCall() | domain.ServerToolResult() | domain.Compaction():
            pass  # this API has no form for them
        case domain.Opaque() if has_places:
            pass  # nor for a block of another protocol
        case _:
            return False
    return True


def _add_item(
    body: dict[str, Any], block: domain.Text | domain.ToolCall, message: domain.Message, place: BlockPlace | None = None
) -> None:
    entry = None if message.origin is None else item_entry(block, message.origin, len(body.get(DETAILS, ())), place)
    if entry is not None:
        body.setdefault(DETAILS, []).append(entry)


def _content(blocks: Sequence[domain.Block], *, listed: bool, join: bool = False) -> str | list[domain.JsonObject]:
    """Return the content: a string if it is plain text and was not sent as a list (`listed`), else a list of parts.

    `join`: several texts make one string; otherwise only a single text is a string.
    """
    texts = [block.text for block in blocks if isinstance(block, domain.Text) and not block.extra]
    if not listed and len(texts) == len(blocks) and (join or len(texts) == 1):
        return "".join(texts)
    return [_part_json(block) for block in blocks]


def _part_json(block: domain.Block) -> domain.JsonObject:  # noqa: C901  # a match over the kinds of block
    match block:
        case domain.Text():
            return {"type": "text", "text": block.text, **block.extra}
        case domain.Image():
            image = _media_json(block.media)
            image |= {"detail": block.detail} if block.detail is not None else {}
            return with_extra({"type": "image_url", "image_url": image}, block.extra)
        case domain.Audio():
            head, comma, data = (block.media.url or "").partition(";base64,")
            if comma and head.startswith("data:audio/"):
                audio = {"data": data, "format": head.removeprefix("data:audio/")}
                return with_extra({"type": "input_audio", "input_audio": audio}, block.extra)
            return {"type": "audio_url", "audio_url": _media_json(block.media), **block.extra}
        case domain.Video():
            return with_extra({"type": "video_url", "video_url": _media_json(block.media)}, block.extra)
        case domain.Document():
            file = {"file_data": block.media.url} if block.media.file_id is None else {"file_id": block.media.file_id}
            file |= {"filename": block.filename} if block.filename is not None else {}
            return with_extra({"type": "file", "file": file}, block.extra)
        case domain.Refusal():
            return {"type": "refusal", "refusal": block.text}
        case domain.Opaque():
            return block.form
        case domain.ToolResult():
            return {"type": "tool_result", "tool_call_id": block.tool_call_id, "content": _content(block.blocks, listed=False)}
        case domain.ToolCall():
            return {"type": "tool_call", "id": block.id, "name": block.name, "arguments": block.arguments}
        case domain.Thinking():
            return {"type": "thinking", "thinking": block.text}
        case domain.RedactedThinking() | domain.ServerToolCall() | domain.ServerToolResult() | domain.Compaction():
            return {"type": type(block).__name__}
        case _:
            assert_never(block)


def _media_json(media: domain.Media) -> dict[str, Any]:
    return {"url": media.url} if media.file_id is None else {"file_id": media.file_id}
