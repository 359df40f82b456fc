"""Fields in `ChatRequest.extra` that are known to be those of another API. No I/O.

`extra` is sent unchanged, as only one provider may know a field. But some fields are known to be of chat completions
(https://platform.openai.com/docs/api-reference/chat/create): applications send them to every model, and other APIs refuse them.
Others are known to be those of one API, or of a few, and reach nobody else: a request may go on to another provider.
"""

from __future__ import annotations

from typing import Any, Final

from antiphon.domain.content import JsonObject
from antiphon.providers.parameters import Parameters

_FIELDS: Final = frozenset(
    {
        "audio",
        "function_call",
        "functions",
        "logit_bias",
        "metadata",
        "modalities",
        "moderation",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "response_format",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "verbosity",
        "web_search_options",
    }
)

_BY_OWNERS: Final[dict[str, str]] = {
    "anthropic": (
        "betas billing_policy compaction container diagnostics fallback_credit_token fallbacks inference_geo mcp_servers"
        " output_config output_format speed thread user_profile_id workspace_id"
    ),
    "anthropic cohere deepseek fireworks moonshot openrouter": "thinking",
    "anthropic openrouter": "cache_control",
    "anthropic responses": "context_management",
    "bedrock": (
        "additionalModelRequestFields additionalModelResponseFieldPaths guardrailConfig inferenceConfig outputConfig"
        " performanceConfig projectIdentifier promptVariables requestMetadata"
    ),
    "bedrock gemini": "serviceTier",
    "cohere": "priority raw_prompting safety_mode strict_tools",
    "cohere groq": "citation_options documents",
    "gemini": (
        "cachedContent cached_content generationConfig labels modelArmorConfig safetySettings safety_settings systemInstruction"
        " toolConfig"
    ),
    "groq": "compound_custom disable_tool_validation exclude_domains include_domains search_settings",
    "groq cerebras": "reasoning_format",
    "groq cerebras openrouter": "include_reasoning",
    "mistral": "guardrails prompt_mode safe_prompt",
    "openrouter": "models plugins provider route transforms usage",
    "openrouter responses together": "reasoning",
    "perplexity": (
        "last_updated_after_filter last_updated_before_filter return_images return_related_questions search_after_date_filter"
        " search_before_date_filter search_domain_filter search_mode search_recency_filter"
    ),
    "responses": (
        "access_programs background background_options conversation image include instructions max_tool_calls previous_response_id"
        " prompt text truncation"
    ),
    "xai": "deferred search_parameters",
}
"""The fields of a few APIs, by the protocols and hosts that have them: from the types of their SDKs and their references."""

_OWNERS: Final = {name: frozenset(owners.split()) for owners, names in _BY_OWNERS.items() for name in names.split()}

_TIER: Final = "service_tier"
"""The field of chat completions for the service that a call gets."""

_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "response_format": ({"type": "text"},),
    _TIER: ("auto", "default"),
    "store": (False,),
    "stream": (False,),
    "verbosity": ("medium",),
}
"""Values that ask for nothing, beside null and empty ones."""

_EMPTY: Final[tuple[Any, ...]] = (None, [], {})


def with_own_tier(extra: JsonObject, name: str, tiers: JsonObject) -> JsonObject:
    """Return the fields with `service_tier` as the API's own field, if `tiers` has the API's value for it."""
    tier = extra.get(_TIER)
    if name in extra or not isinstance(tier, str) or tier not in tiers:
        return extra
    return {**{key: value for key, value in extra.items() if key != _TIER}, name: tiers[tier]}


def own_fields(extra: JsonObject, parameters: Parameters, owner: str, chat: frozenset[str] | None = frozenset()) -> JsonObject:
    """Return the fields without those of other APIs, which are reported.

    `owner` is the protocol, or the host of the OpenAI protocol; empty for a host of which nothing is known, which gets all. `chat`
    are the fields of chat completions that it has as well; None: all of them.
    """
    if not extra:
        return extra
    foreign = [name for name in extra if _is_foreign(name, extra[name], owner, chat)]
    for name in foreign:
        if extra[name] not in (*_EMPTY, *_NEUTRAL.get(name, ())):
            parameters.dropped(("extra", name), "the API has no such field")
    return {name: value for name, value in extra.items() if name not in foreign} if foreign else extra


def _is_foreign(name: str, value: object, owner: str, chat: frozenset[str] | None) -> bool:
    owners = _OWNERS.get(name)
    if owners is not None:
        return bool(owner) and owner not in owners
    return chat is not None and (name in _FIELDS or (name == "tools" and not value)) and name not in chat
