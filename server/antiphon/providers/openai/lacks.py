"""Which options hosts of the OpenAI protocol, and their models, do not have. Data with its sources; no I/O.

What no row names is sent, and the host decides. A model without a row of its own counts as the newest of its family.
"""

from __future__ import annotations

from typing import Final

from antiphon.providers.openai_models import HostOptions, ModelRow
from antiphon.providers.support import (
    AUDIO_OUTPUT,
    CHOICES,
    EFFORT,
    END_USER,
    FREQUENCY_PENALTY,
    IMAGE_DETAIL,
    JSON_OBJECT,
    JSON_SCHEMA,
    LOGIT_BIAS,
    LOGPROBS,
    MODALITIES,
    NATIVE_FORMAT,
    PARTICIPANTS,
    PRESENCE_PENALTY,
    SEED,
    STOP,
    STRICT_TOOLS,
    TEMPERATURE,
    TOP_K,
    TOP_LOGPROBS,
    TOP_P,
    Lacks,
    Support,
)

ANY: Final = HostOptions()
"""A host of which nothing is known: everything is sent."""

# https://docs.mistral.ai/api/endpoint/chat, `ChatCompletionRequest` of mistralai 3.7.0: it refuses fields that it does not know.
MISTRAL: Final = HostOptions(
    {
        option: Support("the API has no such field, and refuses unknown ones")
        for option in (LOGIT_BIAS, MODALITIES, AUDIO_OUTPUT, END_USER, PARTICIPANTS)
    },
    {"seed": "random_seed", "max_completion_tokens": "max_tokens"},
)

# https://console.groq.com/docs/openai, "Currently Unsupported OpenAI Features", and the parameters of its SDK (groq 1.7.0); others
# are refused. Which models reason: https://console.groq.com/docs/reasoning
GROQ: Final = HostOptions(
    {
        **{
            option: Support("the host refuses it")
            for option in (TOP_K, LOGPROBS, TOP_LOGPROBS, LOGIT_BIAS, MODALITIES, AUDIO_OUTPUT, PARTICIPANTS)
        },
        CHOICES: Support("the host makes only one choice"),
    },
    models=(
        ModelRow(
            ("*llama*", "*gemma*", "*mixtral*", "allam*", "*kimi-k2-instruct*"), {EFFORT: Support("the model does not reason")}
        ),
    ),
)

# https://inference-docs.cerebras.ai/resources/openai, which once had a list of what is refused; it is in
# https://hexdocs.pm/req_llm/cerebras.html, too.
CEREBRAS: Final = HostOptions(
    {option: Support("the host refuses it") for option in (PRESENCE_PENALTY, FREQUENCY_PENALTY, LOGIT_BIAS)}
)

# https://docs.x.ai/docs/guides/reasoning
_GROK_REASONS: Final[Lacks] = {
    option: Support("the model refuses it, as it reasons") for option in (PRESENCE_PENALTY, FREQUENCY_PENALTY, STOP)
}
_NO_EFFORT: Final = {EFFORT: Support("the model decides itself how much it reasons")}
XAI: Final = HostOptions(
    models=(
        ModelRow(("grok-2*", "*non-reasoning*"), _NO_EFFORT),
        ModelRow(("grok-3-mini*", "grok-4.20-multi-agent*"), _GROK_REASONS),
        ModelRow(("grok-3*",), _NO_EFFORT),
        ModelRow(("grok-4", "grok-4-*", "grok-4.20*", "grok-code-fast*"), {**_GROK_REASONS, **_NO_EFFORT}),
        ModelRow(("grok-*",), _GROK_REASONS),
    )
)

# https://api-docs.deepseek.com/guides/json_mode: "This response_format type is unavailable now" for a schema.
# https://api-docs.deepseek.com/guides/reasoning_model: the first four have no effect, the others are refused. Later models think or
# not, https://api-docs.deepseek.com/guides/thinking_mode: an effort is only for thinking.
DEEPSEEK: Final = HostOptions(
    {
        JSON_SCHEMA: Support("the host has JSON without a schema, which the model is told", to="response_format json_object"),
    },
    models=(
        ModelRow(
            ("*reasoner*",),
            {
                **{
                    option: Support("it has no effect on this model")
                    for option in (TEMPERATURE, TOP_P, PRESENCE_PENALTY, FREQUENCY_PENALTY)
                },
                LOGPROBS: Support("the model refuses it"),
                TOP_LOGPROBS: Support("the model refuses it"),
            },
        ),
        ModelRow(
            ("deepseek-v4*", "deepseek-flash*", "deepseek-pro*"),
            reasoning_lacks={
                option: Support("it has no effect while the model thinks")
                for option in (TEMPERATURE, PRESENCE_PENALTY, FREQUENCY_PENALTY)
            },
        ),
    ),
)

# https://platform.claude.com/docs/en/api/openai-sdk: its API for OpenAI's SDKs ignores these silently. That of the protocol
# `anthropic` has more.
ANTHROPIC: Final = HostOptions(
    {
        **{
            option: Support("the host ignores it")
            for option in (
                PRESENCE_PENALTY,
                FREQUENCY_PENALTY,
                SEED,
                LOGPROBS,
                TOP_LOGPROBS,
                LOGIT_BIAS,
                STRICT_TOOLS,
                JSON_OBJECT,
                JSON_SCHEMA,
                NATIVE_FORMAT,
                EFFORT,
                MODALITIES,
                AUDIO_OUTPUT,
                END_USER,
                PARTICIPANTS,
                IMAGE_DETAIL,
            )
        },
        CHOICES: Support("the host makes only one choice"),
    }
)
