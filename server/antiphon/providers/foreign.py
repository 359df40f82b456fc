"""Fields of other APIs in `ChatRequest.extra`, for protocols that do not have them. No I/O.

`extra` is sent unchanged, as only one provider may know a field. But some fields are known to be of chat completions
(https://platform.openai.com/docs/api-reference/chat/create), or of one protocol: applications send them to every model, routes have
models of several providers, and other APIs refuse them.
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

_OF_PROTOCOLS: Final[dict[str, frozenset[str]]] = {
    # https://platform.claude.com/docs/en/api/messages
    "anthropic": frozenset(
        {
            "betas",
            "cache_control",
            "container",
            "context_management",
            "diagnostics",
            "inference_geo",
            "mcp_servers",
            "output_config",
            "speed",
            "thinking",
        }
    ),
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    "bedrock": frozenset(
        {
            "additionalModelRequestFields",
            "additionalModelResponseFieldPaths",
            "guardrailConfig",
            "inferenceConfig",
            "outputConfig",
            "performanceConfig",
            "promptVariables",
            "requestMetadata",
        }
    ),
    # https://ai.google.dev/api/generate-content#request-body
    "gemini": frozenset({"cachedContent", "generationConfig", "safetySettings", "systemInstruction", "toolConfig"}),
}
"""By protocol: fields that only it has, so that no other one of these gets them."""

_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "stream": (False,),
    "verbosity": ("medium",),
}
"""Values that ask for nothing, beside null and empty ones."""

_EMPTY: Final[tuple[Any, ...]] = (None, [], {})


def own_fields(
    extra: JsonObject, parameters: Parameters, own: frozenset[str] = frozenset(), *, protocol: str | None = None
) -> JsonObject:
    """Return the fields without those of chat completions, and of protocols that are known. What is left out is reported.

    `own` are those of chat completions that this API has as well. `protocol` is its name; None: it gets the fields of all others.
    """
    known: frozenset[str] = frozenset()
    if protocol is not None:
        known = known.union(*(fields for name, fields in _OF_PROTOCOLS.items() if name != protocol))
    known |= _FIELDS - own
    foreign = [name for name in extra if name in known or (name == "tools" and not extra[name])]
    for name in foreign:
        if extra[name] not in (*_EMPTY, *_NEUTRAL.get(name, ())):
            parameters.dropped(("extra", name), "the API has no such field")
    return {name: value for name, value in extra.items() if name not in foreign} if foreign else extra
