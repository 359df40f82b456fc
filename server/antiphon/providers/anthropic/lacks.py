"""Which options the Messages API and its models do not have. Data with its sources; no I/O.

https://platform.claude.com/docs/en/api/messages has the fields of the API; `capabilities` has what models accept of them.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from antiphon.providers.anthropic.capabilities import ModelCapabilities
from antiphon.providers.support import (
    ANY_TOOL,
    AUDIO_OUTPUT,
    CHOICES,
    FREQUENCY_PENALTY,
    IMAGE_DETAIL,
    JSON_OBJECT,
    JSON_SCHEMA,
    LOGIT_BIAS,
    LOGPROBS,
    MODALITIES,
    ONE_TOOL,
    PARTICIPANTS,
    PRESENCE_PENALTY,
    SEED,
    STRICT_FORMAT,
    STRICT_TOOLS,
    TEMPERATURE,
    TOP_K,
    TOP_LOGPROBS,
    TOP_P,
    Lacks,
    Option,
    Support,
)

_API: Final[Lacks] = {
    PRESENCE_PENALTY: Support("the API has no penalties"),
    FREQUENCY_PENALTY: Support("the API has no penalties"),
    SEED: Support("the API has no seed"),
    CHOICES: Support("the API makes only one choice"),
    LOGPROBS: Support("the API returns no log probabilities"),
    TOP_LOGPROBS: Support("the API returns no log probabilities"),
    LOGIT_BIAS: Support("the API has no bias for tokens"),
    MODALITIES: Support("the models write text only"),
    AUDIO_OUTPUT: Support("the models write text only"),
    JSON_OBJECT: Support("the API has JSON only by a schema, so that the model is told to write it", to="system"),
    STRICT_FORMAT: Support("every schema is followed strictly", is_implied=True),
    PARTICIPANTS: Support("messages have no names"),
    IMAGE_DETAIL: Support("pictures are always read at the resolution that they have"),
}
_FIXED_SAMPLING: Final[Lacks] = {option: Support("the model does not accept it") for option in (TEMPERATURE, TOP_P, TOP_K)}
# https://platform.claude.com/docs/en/build-with-claude/extended-thinking#feature-compatibility
_THINKING: Final[Lacks] = {
    option: Support("the model does not accept it while it thinks") for option in (TEMPERATURE, TOP_P, TOP_K)
}
_FREE_CHOICE: Final[Lacks] = {option: Support("the model decides itself whether to call a tool") for option in (ANY_TOOL, ONE_TOOL)}
_FREE_FORMAT: Final[Lacks] = {
    JSON_SCHEMA: Support("the model cannot be held to a schema, so that it is told to follow it", to="system"),
    STRICT_TOOLS: Support("the model cannot be held to a schema"),
}


@cache
def lacks_of(model: ModelCapabilities, *, thinks: bool) -> Lacks:
    """Return the options that the API or a model does not have. `thinks`: it is asked to think."""
    return {**_API, **lacks_of_model(model), **(lacks_while_thinking(model) if thinks else {})}


@cache
def lacks_of_model(model: ModelCapabilities) -> Lacks:
    """Return the options that a model does not have, whatever the API around it."""
    lacks: dict[Option, Support] = {}
    if not model.sampling:
        lacks |= _FIXED_SAMPLING
    if not model.forced_tools:
        lacks |= _FREE_CHOICE
    if not model.structured_output:
        lacks |= _FREE_FORMAT
    return lacks


def lacks_while_thinking(model: ModelCapabilities) -> Lacks:
    """Return the options that a model loses while it thinks."""
    return _THINKING if model.sampling else {}
