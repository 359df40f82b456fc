"""Fields of chat completions in `ChatRequest.extra`, for protocols that do not have them. No I/O.

`extra` is sent unchanged, as only one provider may know a field. But these fields are known to be of chat completions
(https://platform.openai.com/docs/api-reference/chat/create): applications send them to every model, and other APIs refuse them.
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

_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "stream": (False,),
    "verbosity": ("medium",),
}
"""Values that ask for nothing, beside null and empty ones."""

_EMPTY: Final[tuple[Any, ...]] = (None, [], {})


def own_fields(extra: JsonObject, parameters: Parameters, own: frozenset[str] = frozenset()) -> JsonObject:
    """Return the fields without those of chat completions, which are reported. `own` are those that this API has as well."""
    foreign = [name for name in extra if (name in _FIELDS or (name == "tools" and not extra[name])) and name not in own]
    for name in foreign:
        if extra[name] not in (*_EMPTY, *_NEUTRAL.get(name, ())):
            parameters.dropped(("extra", name), "the API has no such field")
    return {name: value for name, value in extra.items() if name not in foreign} if foreign else extra
