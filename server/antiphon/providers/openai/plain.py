"""Reads a whole reply that is one plain text and nothing else, as most are: a short way past the reader of every other. No I/O.

The types here name what such a reply may have. Decoding fails for anything else, and `OpenAIReader` reads that.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from antiphon.domain.content import Origin, Text
from antiphon.domain.events import Batch, BlockFinished, BlockStarted, ExtraFields, Finished, Started, TextDelta
from antiphon.net import json_bounds
from antiphon.providers.codec.values import MAX_TIME, service_tier
from antiphon.providers.openai.blocks import PROTOCOL
from antiphon.providers.openai.ending import BY_WORD
from antiphon.providers.openai.usage import read_usage

_NotEmpty: TypeAlias = Annotated[str, Meta(min_length=1)]


class _Message(Struct, forbid_unknown_fields=True):
    content: _NotEmpty
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | UnsetType = UNSET


class _Choice(Struct, forbid_unknown_fields=True):
    message: _Message
    finish_reason: str
    index: Literal[0] = 0
    logprobs: None = None


class _Reply(Struct, forbid_unknown_fields=True):
    id: _NotEmpty
    model: _NotEmpty
    created: Annotated[int, Meta(gt=0, le=MAX_TIME)]
    choices: tuple[_Choice]
    usage: dict[str, Any]
    object: Literal["chat.completion"] = "chat.completion"
    service_tier: str | UnsetType | None = UNSET
    system_fingerprint: str | UnsetType | None = UNSET


_decode: Final = msgspec.json.Decoder(_Reply).decode


def read_plain(body: bytes, provider: str, model: str) -> Batch | None:
    """Return all events of a whole reply that is one plain text; None for any other. `model` is the one that was requested."""
    if len(body) > json_bounds.SMALL:
        return None
    try:
        reply = _decode(body)
    except (ValueError, RecursionError):
        return None
    choice = reply.choices[0]
    reason = BY_WORD.get(choice.finish_reason)
    if reason is None or not reply.usage:
        return None
    fields: dict[str, Any] = {}
    if reply.service_tier is not UNSET:
        fields["service_tier"] = reply.service_tier
    if reply.system_fingerprint is not UNSET:
        fields["system_fingerprint"] = reply.system_fingerprint
    usage = read_usage(reply.usage)
    if reply.service_tier and (tier := service_tier(reply.service_tier)):
        usage = replace(usage, service_tier=tier)
    message = choice.message
    return [
        Started(reply.id, reply.model, Origin(PROTOCOL, provider, model, provider), reply.created, fields),
        BlockStarted(0, 0, Text("")),
        TextDelta(0, message.content),
        *(() if message.annotations is UNSET else (ExtraFields(0, {"annotations": message.annotations}),)),
        BlockFinished(0),
        usage,
        Finished(0, reason, choice.finish_reason),
    ]
