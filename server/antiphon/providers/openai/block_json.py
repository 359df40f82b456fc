"""Writes blocks as JSON of the chat-completions API, for requests to providers and for the dialects of that API. No I/O.

https://platform.openai.com/docs/api-reference/chat/create. The caller passes opaque values in the right form: the original for a
provider, the wrapped one for a client.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec.structs import replace

from antiphon.domain.content import (
    CUSTOM,
    FUNCTION,
    NOTHING,
    Citation,
    Image,
    JsonObject,
    Origin,
    RedactedThinking,
    Thinking,
    ToolCall,
    with_extra,
)
from antiphon.providers.openai.blocks import EXTRA_CONTENT, GOOGLE, SIGNATURE, chat_fields
from antiphon.providers.openai.details import CONTENT_FIELDS, DETAILS, ENCRYPTED, SUMMARY, TEXT

_SUMMARY_FIELD: Final = "summary_text"


def call_json(call: ToolCall, fields: JsonObject = NOTHING, opaque: str | None = None) -> dict[str, Any]:
    """Return an entry of `tool_calls`. `fields` are unknown fields to add, and `opaque` is Google's signature."""
    made: dict[str, Any] = {"id": call.id, "type": call.type} if call.type else {"id": call.id}
    action = None if call.name or call.type == FUNCTION else _decoded(call.arguments)
    if isinstance(action, dict):
        made[call.type] = action
    elif call.type == CUSTOM:
        made[CUSTOM] = {"name": call.name, "input": call.arguments}
    elif call.name or call.type == FUNCTION:
        made["function"] = {"name": call.name, "arguments": call.arguments}
    return with_signature(with_extra(made, fields) if fields else made, opaque)


def function_call_json(call: ToolCall, fields: JsonObject = NOTHING) -> dict[str, Any]:
    """Return the value of `function_call`, the single call of the API of 2023."""
    return with_extra({"name": call.name, "arguments": call.arguments}, fields)


def with_signature(fields: dict[str, Any], opaque: str | None) -> dict[str, Any]:
    """Return the fields with Google's signature added; unchanged if `opaque` is None."""
    return (
        fields
        if opaque is None
        else with_extra({EXTRA_CONTENT: {GOOGLE: {SIGNATURE: opaque}}} | _without_extra_content(fields), fields)
    )


def _without_extra_content(fields: JsonObject) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != EXTRA_CONTENT}


def detail_json(block: Thinking | RedactedThinking, index: int, opaque: str | None, text: str | None = None) -> dict[str, Any]:
    """Return an entry of `reasoning_details`. `index` is used unless the provider numbered the entry itself.

    `text` is one piece of the reasoning; None: all of it. `opaque` None: the entry has no signature.
    """
    known = {} if block.state is None else block.state.fields.get(DETAILS) or {}
    if isinstance(block, RedactedThinking):
        return {"type": ENCRYPTED, "index": index, **known, "data": opaque or ""}
    kind = known.get("type") or (SUMMARY if block.field == _SUMMARY_FIELD else TEXT)
    made: dict[str, Any] = {"type": kind, "index": index, **known}
    content = block.text if text is None else text
    if content or opaque is None:
        made[CONTENT_FIELDS.get(kind, "text")] = content
    if opaque is not None:
        made["signature"] = opaque
    return made


def is_detailed(block: object) -> bool:
    """Return whether a block of reasoning is written as an entry of `reasoning_details`."""
    if isinstance(block, RedactedThinking):
        return block.state is not None and block.state.opaque is not None
    return isinstance(block, Thinking) and block.state is not None


def citation_json(citation: Citation) -> dict[str, Any]:
    """Return an entry of `annotations`."""
    known = {"url": citation.url, "title": citation.title, "start_index": citation.start, "end_index": citation.end}
    cited = {name: value for name, value in known.items() if value not in (None, "") or name == "url"}
    return with_extra({"type": "url_citation", "url_citation": cited}, citation.fields)


def placed_citation(citation: Citation, start: int, end: int) -> dict[str, Any]:
    """Return an entry of `annotations` with all the fields that OpenAI's have, which clients require.

    `start` and `end` are those of the cited text in the content. The offsets of a citation count from the beginning of its text;
    one without any is of all of it.
    """
    first = start if citation.start is None else start + citation.start
    last = end if citation.end is None else start + citation.end
    made = citation_json(replace(citation, start=first, end=last))
    return {**made, "url_citation": {"title": "", **made["url_citation"]}}


def image_json(image: Image, origin: Origin | None, opaque: str | None = None) -> dict[str, Any]:
    """Return an entry of `images`, the field for images of a reply by `origin`. `opaque` is Google's signature."""
    made = with_extra({"type": "image_url", "image_url": {"url": image.media.url or ""}}, chat_fields(image.state, origin))
    return with_signature(made, opaque)


def _decoded(arguments: str) -> Any:
    """Return the decoded arguments of a call of an unknown kind; None if they are not JSON."""
    try:
        return msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None
