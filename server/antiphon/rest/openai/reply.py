"""A whole reply in the OpenAI dialect: one `chat.completion` object. No I/O.

Unknown fields of a provider's reply stay in their place: in the message or delta, in the choice beside it, or in the object as a
whole. Opaque values are wrapped (`antiphon.domain.opaque`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from antiphon import domain
from antiphon.domain import unknown_fields
from antiphon.domain.content import FUNCTION_CALL
from antiphon.domain.reply import Reply, ReplyChoice
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
from antiphon.providers.openai.blocks import chat_fields, is_chat
from antiphon.providers.openai.details import DETAILS
from antiphon.rest.shared.carried import carried, item_entry
from antiphon.rest.shared.places import BlockPlace, placed

_REASONS: Final = {
    **{reason: reason.value for reason in domain.FinishReason},
    domain.FinishReason.REFUSAL: domain.FinishReason.CONTENT_FILTER.value,
    domain.FinishReason.PAUSE: domain.FinishReason.LENGTH.value,
    domain.FinishReason.CONTEXT_WINDOW: domain.FinishReason.LENGTH.value,
}
"""The word of this API for each finish reason but `OTHER`."""


def completion(reply: Reply, sole: str = "") -> dict[str, Any]:
    """Return the `chat.completion` object of a whole reply. `sole` is explained at `written_origin`."""
    started = reply.started
    assert started is not None, "a stream that ended well has started"
    origin = written_origin(started.origin, sole)
    whole = {
        "id": started.id,
        "object": "chat.completion",
        "created": started.created,
        "model": started.model,
        "choices": [_plain_choice(choice, origin) or _choice(choice, origin) for choice in reply.choices],
        "usage": usage_json(reply.usage) if reply.usage else None,
        **started.fields,
    }
    if started.conversation_id:
        whole["session_id"] = started.conversation_id
    return whole


def _plain_choice(choice: ReplyChoice, origin: domain.Origin) -> dict[str, Any] | None:
    """Return a choice that is one plain text, as most are: the short way. None for any other."""
    if len(choice.blocks) != 1 or choice.choice_fields or choice.logprobs:
        return None
    block = choice.blocks[0]
    value = block.value
    if not isinstance(value, domain.Text) or value.state is not None or value.citations or block.citations:
        return None
    message = {"role": "assistant", "content": block.text, "refusal": None}
    return {
        "index": choice.index,
        "message": domain.with_extra(message, choice.fields) if choice.fields and is_chat(origin) else message,
        "logprobs": None,
        "finish_reason": finish_reason(choice.reason, choice.provider_reason, function_call=False),
    }


def written_origin(origin: domain.Origin, sole: str) -> domain.Origin:
    """Return the origin that opaque values of a reply get.

    `sole` is the provider that makes all replies of the gateway, if it speaks this API and has one deployment. Its values need no
    wrapper, as they can go nowhere else, and clients that know them find them as they are without a gateway.
    """
    return domain.Origin(origin.protocol) if sole and origin.provider == sole and is_chat(origin) else origin


def _choice(choice: ReplyChoice, origin: domain.Origin) -> dict[str, Any]:
    function_call = choice.reason is domain.FinishReason.TOOL_CALLS and has_function_call(choice)
    return {
        **choice.choice_fields,
        "index": choice.index,
        "message": _message(choice, origin),
        "logprobs": _logprobs(choice.logprobs, choice.choice_fields),
        "finish_reason": finish_reason(choice.reason, choice.provider_reason, function_call=function_call),
    }


def _message(choice: ReplyChoice, origin: domain.Origin) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    signature: dict[str, Any] = {}
    signatures = ""
    place = BlockPlace()
    for one in choice.blocks:
        block = one.block()
        match block:
            case domain.Text():
                _add_content(message, one.text)
                end = place.end + len(one.text)
                piece = None if is_chat(origin) else replace(place, end=end)
                place = replace(place, texts=place.texts + 1, start=end, end=end)
                if (opaque := signature_of(block, origin, piece)) is not None:
                    signatures = opaque if piece is None else signatures + opaque
                    signature = with_signature(dict(state_fields(block, origin)), signatures)
                _add_item(message, block, origin, piece)
                if block.citations:
                    annotations = message.setdefault("annotations", [])
                    start = end - len(one.text)
                    annotations += (
                        citation_json(cited) if piece is None else placed_citation(cited, start, end) for cited in block.citations
                    )
            case domain.Thinking() | domain.RedactedThinking():
                _add_thinking(message, block, origin, place)
            case domain.Refusal():
                message["refusal"] = (message["refusal"] or "") + block.text
            case domain.ToolCall(type="function_call"):
                message["function_call"] = function_call_json(block, state_fields(block, origin))
            case domain.ToolCall():
                call = call_json(block, state_fields(block, origin), signature_of(block, origin))
                message.setdefault("tool_calls", []).append(call)
                place = replace(place, calls=place.calls + 1)
                _add_item(message, block, origin)
            case domain.Audio():
                audio = {"id": block.id, "data": "".join(one.data), "expires_at": block.expires, "transcript": block.transcript}
                message["audio"] = audio
            case domain.Image():
                images = message.setdefault("images", [])
                images.append(image_entry(block, len(images), origin))
            case domain.Opaque() if is_chat(origin):
                _add_content(message, block.form)
            case _:
                pass  # this dialect has no form for it
    message |= signature
    return domain.with_extra(message, choice.fields) if choice.fields and is_chat(origin) else message


def _add_content(message: dict[str, Any], added: str | domain.JsonObject) -> None:
    """Add a text or another part to the content. With a part that is not text, the content becomes a list."""
    content = message["content"]
    match content, added:
        case None, str():
            message["content"] = added
        case str(), str():
            message["content"] = content + added
        case list(), str():
            if content[-1].get("type") == "text" and content[-1].keys() == {"type", "text"}:
                content[-1] = text_part(content[-1]["text"] + added)
            else:
                content.append(text_part(added))
        case list(), _:
            content.append(added)
        case _:
            message["content"] = [*([text_part(content)] if content else []), added]


def _add_thinking(
    message: dict[str, Any], block: domain.Thinking | domain.RedactedThinking, origin: domain.Origin, place: BlockPlace
) -> None:
    """Add a thinking block to the message. `place` is where it stood.

    Its text is in `reasoning_content` for every provider, and also in the provider's own field; its opaque value in
    `reasoning_details`.
    """
    if isinstance(block, domain.Thinking) and block.text:
        for name in thinking_fields(block):
            message[name] = message.get(name, "") + block.text
    if is_detailed(block):
        entry = detail_json(block, len(message.get(DETAILS, ())), carried(block, origin))
        if not is_chat(origin):
            entry = placed(entry, place)
        unknown_fields.add(message, {DETAILS: [entry]}, joins=True)


def thinking_fields(block: domain.Thinking) -> tuple[str, ...]:
    """Return the names of the fields that have the text of a thinking block."""
    return ("reasoning_content", "reasoning") if block.field == "reasoning" else ("reasoning_content",)


def _add_item(
    message: dict[str, Any], block: domain.Text | domain.ToolCall, origin: domain.Origin, place: BlockPlace | None = None
) -> None:
    entry = item_entry(block, origin, len(message.get(DETAILS, ())), place)
    if entry is not None:
        message.setdefault(DETAILS, []).append(entry)


def signature_of(block: domain.Block, origin: domain.Origin, place: BlockPlace | None = None) -> str | None:
    """Return the signature of a text, a call or an image, with its state, as a client gets it; None without a signature."""
    return None if block.state is None or block.state.opaque is None else carried(block, origin, text=place)


def image_entry(image: domain.Image, index: int, origin: domain.Origin) -> dict[str, Any]:
    """Return an entry of `images`. It has an index if the provider has another protocol: OpenAI's SDK adds deltas up by that."""
    made = image_json(image, origin, signature_of(image, origin))
    return made if is_chat(origin) else {"index": index, **made}


def state_fields(block: domain.Block, origin: domain.Origin) -> domain.JsonObject:
    """Return the unknown fields of a block that its provider sent in this API."""
    return chat_fields(block.state, origin)


def _logprobs(tokens: Sequence[domain.JsonObject], fields: domain.JsonObject) -> dict[str, Any] | None:
    """Return the `logprobs` of a choice; `fields` are its unknown fields."""
    more = fields.get("logprobs") or {}
    return {"refusal": None, **more, "content": tokens or more.get("content")} if tokens or more else None


def usage_json(usage: domain.Usage) -> dict[str, Any]:
    """Return the `usage` object."""
    prompt = {"cached_tokens": usage.cached_tokens or 0, "audio_tokens": usage.audio_input_tokens or 0}
    if usage.cache_write_tokens is not None:
        prompt["cache_write_tokens"] = usage.cache_write_tokens
    completion = {"reasoning_tokens": usage.reasoning_tokens or 0, "audio_tokens": usage.audio_output_tokens or 0}
    whole: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.estimated:
        whole["estimated"] = True
    if usage.extra:
        whole |= usage.extra
        prompt |= usage.extra.get("prompt_tokens_details", {})
        completion |= usage.extra.get("completion_tokens_details", {})
    whole["prompt_tokens_details"], whole["completion_tokens_details"] = prompt, completion
    return whole


def finish_reason(reason: domain.FinishReason, provider_reason: str, *, function_call: bool) -> str | None:
    """Return why a choice ended, in the API's words or the provider's own; None if the provider gave no reason.

    `function_call`: the choice has the single function call of 2023.
    """
    if reason is domain.FinishReason.OTHER:
        return provider_reason or None
    if reason is domain.FinishReason.TOOL_CALLS and (
        provider_reason == FUNCTION_CALL or (function_call and provider_reason != reason)
    ):
        return FUNCTION_CALL
    return _REASONS[reason]


def has_function_call(choice: ReplyChoice) -> bool:
    """Return whether a choice has the single function call of 2023, which `tool_calls` replaced."""
    return any(isinstance(block.value, domain.ToolCall) and block.value.type == FUNCTION_CALL for block in choice.blocks)


def text_part(text: str) -> dict[str, str]:
    """Return a text as a part of a list content."""
    return {"type": "text", "text": text}
