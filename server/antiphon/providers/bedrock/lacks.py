"""Which options the Converse API and the models behind it do not have. Data with its sources; no I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html has the fields of the API; `capabilities` has what
models accept of them.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from antiphon.providers.anthropic.capabilities import ModelCapabilities
from antiphon.providers.anthropic.lacks import lacks_of_model
from antiphon.providers.bedrock.capabilities import ModelFamily
from antiphon.providers.support import (
    ANY_TOOL,
    AUDIO_OUTPUT,
    CHOICES,
    END_USER,
    FREQUENCY_PENALTY,
    IMAGE_DETAIL,
    JSON_OBJECT,
    JSON_SCHEMA,
    LOGIT_BIAS,
    LOGPROBS,
    MODALITIES,
    ONE_CALL,
    ONE_TOOL,
    PARTICIPANTS,
    PRESENCE_PENALTY,
    SEED,
    STRICT_FORMAT,
    STRICT_TOOLS,
    TOP_K,
    TOP_LOGPROBS,
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
    JSON_OBJECT: Support("the API has JSON only by a schema, so that the model is told to write it", to="system"),
    STRICT_FORMAT: Support("every schema is followed strictly", is_implied=True),
    MODALITIES: Support("the API has no choice of the output"),
    AUDIO_OUTPUT: Support("the API has no choice of the output"),
    END_USER: Support("the API has no such field"),
    PARTICIPANTS: Support("messages have no names"),
    IMAGE_DETAIL: Support("the API has no resolution for pictures"),
}
_NO_TOP_K: Final[Lacks] = {TOP_K: Support("the model has no top_k")}
_MANY_CALLS: Final[Lacks] = {ONE_CALL: Support("the model may always call several tools")}
_FREE_CHOICE: Final[Lacks] = {option: Support("the model decides itself whether to call a tool") for option in (ANY_TOOL, ONE_TOOL)}
_ONE_OFFERED: Final[Lacks] = {
    ONE_TOOL: Support("no tool can be named to this model, so that only this one is offered", to="toolChoice any"),
}
_FREE_FORMAT: Final[Lacks] = {
    JSON_SCHEMA: Support("the model cannot be held to a schema, so that it is told to follow it", to="system"),
    STRICT_TOOLS: Support("the model cannot be held to a schema"),
}


@cache
def lacks_of(family: ModelFamily, claude: ModelCapabilities | None) -> Lacks:
    """Return the options that a model does not have. `claude` is what it accepts at Anthropic; None for other makers' models."""
    lacks: dict[Option, Support] = dict(_API)
    if not family.top_k:
        lacks |= _NO_TOP_K
    if not family.one_call:
        lacks |= _MANY_CALLS
    if not family.named_tool:
        lacks |= _ONE_OFFERED
    if not family.any_tool:
        lacks |= _FREE_CHOICE
    if not family.structured_output:
        lacks |= _FREE_FORMAT
    if claude is not None:
        lacks |= lacks_of_model(claude)
    return lacks
