"""What a host of the OpenAI protocol accepts in a request: parts of earlier replies, and options. Data only; no I/O.

A host is a row in `hosts`; one that differs from `NO_PARTS` has a row here, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from antiphon.domain import model_names
from antiphon.providers import hosts, openai_models
from antiphon.providers.codec.names import NameRule
from antiphon.providers.openai import lacks
from antiphon.providers.openai.lacks import ANY
from antiphon.providers.openai.turns import Turns
from antiphon.providers.openai_models import HostOptions


class Thoughts(Enum):
    """The form in which a host accepts the reasoning of its earlier replies."""

    NONE = auto()
    AS_RECEIVED = auto()
    """In the host's own field, in messages with tool calls only: some hosts refuse their own calls without the reasoning."""
    REASONING_CONTENT = auto()
    REASONING = auto()
    DETAILS = auto()
    """In `reasoning_details`, with signatures."""
    PARTS = auto()
    """As parts of the content."""


class HostCapabilities(Struct, frozen=True, kw_only=True):
    """What one host accepts. The defaults are for unknown hosts."""

    name: str = ""
    """The name of its row in `hosts`; empty: every field that a caller sends may be one of its own."""
    thoughts: Thoughts = Thoughts.AS_RECEIVED
    thought_parts: bool = True
    """With `AS_RECEIVED`: whether reasoning may also be a content part."""
    empty_thought: str | None = None
    """The `reasoning_content` to send for a reply without reasoning, if the host requires the field in every reply; else None."""
    thinking_models: tuple[str, ...] = ("*",)
    """Patterns of the models that accept reasoning. Any other model accepts only its own."""
    refusals: bool = True
    """Whether the host accepts a refusal in a field of its own, without content. If not, a refusal is sent as text."""
    reply_fields: frozenset[str] | None = None
    """The fields that the host accepts in an assistant message. None: it ignores unknown fields."""
    call_fields: frozenset[str] = frozenset()
    """The fields beyond the API's that the host accepts in a tool call, if it has `reply_fields`."""
    nulls: bool = True
    """Whether the host accepts null in a reply, and an empty content beside tool calls."""
    unsigned_call: str | None = None
    """The signature to send for a call without one, if the host's models refuse unsigned calls; else None."""
    unsigned_models: tuple[str, ...] = ()
    """Patterns of the models that accept unsigned calls all the same."""
    short_call_ids: bool = False
    """Whether the host accepts only call ids of exactly nine letters and digits."""
    call_id_length: int | None = None
    """The most characters of a call id that the host accepts; None: any number."""
    developer: bool = True
    """Whether the host knows the role "developer"; if not, its messages are sent as those of "system"."""
    turns: Turns = Turns.ANY
    document_urls: bool = False
    """Whether documents and recordings are sent in Mistral's form: their URL, or their data alone."""
    videos: bool = True
    """Whether the host may take videos, as `video_url`, which is not OpenAI's: https://openrouter.ai/docs/features/multimodal/videos."""
    own_fields: frozenset[str] | None = None
    """The fields of chat completions without a place in the domain that the host accepts; None: it ignores unknown ones."""
    result_media: bool = True
    """Whether the results of tools may hold more than text; if not, the rest is in a message of the user after the results."""
    cache_marks: bool = True
    """Whether the host may take `cache_control`, which is not OpenAI's: https://openrouter.ai/docs/features/prompt-caching."""
    names: NameRule | None = None
    """The names of functions and schemas that the host accepts; None: all, as far as is known."""
    options: HostOptions = ANY
    """The options that the host or its models do not have."""

    def accepts_thoughts(self, model: str) -> bool:
        """Return whether a model accepts the reasoning of any model."""
        return _matches(model, self.thinking_models)

    def signature_for(self, model: str) -> str | None:
        """Return the signature to send for an unsigned call; None if the model accepts it unsigned."""
        return None if _matches(model, self.unsigned_models) else self.unsigned_call


# https://platform.openai.com/docs/api-reference/chat/create, `function.name`, which other hosts repeat:
# https://api-docs.deepseek.com/api/create-chat-completion, https://docs.mistral.ai/capabilities/function_calling
_NAMES: Final = NameRule(re.compile(r"[a-zA-Z0-9_-]+"), re.compile(r"[^a-zA-Z0-9_-]"), 64)
_LONG_NAMES: Final = NameRule(_NAMES.accepted, _NAMES.refused, 128)
# https://platform.moonshot.ai/docs/guide/use-kimi-api-to-complete-tool-calls
_LETTER_FIRST: Final = NameRule(re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]*"), _NAMES.refused, 64)
# https://ai.google.dev/api/caching#FunctionDeclaration
_GOOGLE_NAMES: Final = NameRule(re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]*"), re.compile(r"[^a-zA-Z0-9_.:-]"), 64)

_OPENAI_CALL_ID: Final = 40
"""The most characters of a call id: a longer one is refused as `string_above_max_length`."""

UNKNOWN: Final = HostCapabilities()

NO_PARTS: Final = HostCapabilities(thought_parts=False, refusals=False)
"""A host that has reasoning only in fields of the message, if at all, and ignores unknown fields."""

NO_THOUGHTS: Final = HostCapabilities(thoughts=Thoughts.NONE, refusals=False, cache_marks=False)
"""A host that accepts no reasoning, and ignores unknown fields."""

OPENAI: Final = HostCapabilities(
    thoughts=Thoughts.NONE,
    options=openai_models.OPENAI,
    names=_NAMES,
    call_id_length=_OPENAI_CALL_ID,
    videos=False,
    result_media=False,
    cache_marks=False,
)
"""OpenAI's own API: the same, except that it has refusals. In results it has only text:
https://platform.openai.com/docs/api-reference/chat/create, `ChatCompletionToolMessageParam` of its SDK."""

_ROWS: Final[Mapping[str, HostCapabilities]] = {
    "openai": OPENAI,
    "azure": OPENAI,
    "anthropic": replace(NO_PARTS, options=lacks.ANTHROPIC, names=_LONG_NAMES),
    # https://ai.google.dev/gemini-api/docs/openai and, for the signature, https://ai.google.dev/gemini-api/docs/thought-signatures.
    # Models of before version 3 take calls without one.
    "gemini": HostCapabilities(
        thoughts=Thoughts.NONE,
        reply_fields=frozenset({"role", "content", "name", "tool_calls", "extra_content"}),
        call_fields=frozenset({"extra_content"}),
        nulls=False,
        names=_GOOGLE_NAMES,
        unsigned_call="skip_thought_signature_validator",
        unsigned_models=("*gemini-1*", "*gemini-2*", "*gemma*"),
        cache_marks=False,
    ),
    # https://docs.mistral.ai/api/endpoint/chat and `ChatCompletionRequest` of its SDK (mistralai 3.7.0). It refuses fields and
    # roles that it does not know, and a user after a tool ("Unexpected role 'user' after role 'tool'").
    "mistral": HostCapabilities(
        thoughts=Thoughts.PARTS,
        thinking_models=("magistral*",),
        reply_fields=frozenset({"role", "content", "tool_calls", "prefix"}),
        short_call_ids=True,
        developer=False,
        turns=Turns.REPLY_AFTER_RESULTS,
        document_urls=True,
        own_fields=frozenset(
            {"metadata", "parallel_tool_calls", "prediction", "prompt_cache_key", "response_format", "service_tier", "stream"}
        ),
        names=_NAMES,
        cache_marks=False,
        options=lacks.MISTRAL,
    ),
    "deepseek": HostCapabilities(
        thoughts=Thoughts.REASONING_CONTENT,
        empty_thought="",
        refusals=False,
        developer=False,
        names=_NAMES,
        cache_marks=False,
        options=lacks.DEEPSEEK,
    ),
    # Kimi refuses an empty `reasoning_content` as well as a missing one.
    "moonshot": HostCapabilities(
        thoughts=Thoughts.REASONING_CONTENT,
        empty_thought=" ",
        refusals=False,
        developer=False,
        names=_LETTER_FIRST,
        cache_marks=False,
    ),
    # It answers that after the system messages, "user or tool message(s) should alternate with assistant message(s)".
    "perplexity": replace(NO_THOUGHTS, developer=False, turns=Turns.ALTERNATING),
    "xai": replace(NO_THOUGHTS, options=lacks.XAI, names=_NAMES),
    # Its other models refuse reasoning: https://console.groq.com/docs/reasoning. It refuses fields that it does not know ("property
    # 'prompt_cache_key' is unsupported"): https://console.groq.com/docs/api-reference#chat-create
    "groq": HostCapabilities(
        thoughts=Thoughts.REASONING,
        thinking_models=("*gpt-oss*", "*qwen3*", "*qwq*", "*r1*"),
        reply_fields=frozenset({"role", "content", "tool_calls", "function_call", "reasoning"}),
        own_fields=frozenset(
            {"function_call", "functions", "metadata", "parallel_tool_calls", "response_format", "service_tier", "store", "stream"}
        ),
        names=_NAMES,
        cache_marks=False,
        options=lacks.GROQ,
    ),
    "cerebras": HostCapabilities(
        thoughts=Thoughts.REASONING,
        reply_fields=frozenset({"role", "content", "name", "tool_calls", "reasoning"}),
        names=_NAMES,
        cache_marks=False,
        options=lacks.CEREBRAS,
    ),
    "openrouter": HostCapabilities(thoughts=Thoughts.DETAILS, names=_NAMES, call_id_length=_OPENAI_CALL_ID),
    "fireworks": NO_PARTS,
    "nvidia": NO_PARTS,
    "together": NO_PARTS,
}

_BY_HOST: Final = {name: replace(row, name=name) for name, row in _ROWS.items()}


def capabilities_of(name: str, base_url: str | None) -> HostCapabilities:
    """Return the capabilities of a provider: those of the host with its address, else of the host with its name, else `UNKNOWN`."""
    host = hosts.find(name, base_url)
    if host is None or (host.protocol != "openai" and host.openai_url is None):
        return UNKNOWN
    return _BY_HOST.get(host.name, NO_PARTS)


def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    return any(model_names.matches(model.lower(), pattern) for pattern in patterns)
