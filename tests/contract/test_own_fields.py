"""The fields of a request in the types of the providers' SDKs: what only one API has reaches no other one."""

import inspect
import typing

import pytest
from anthropic.types.beta import message_create_params as anthropic_beta
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from cohere.v2.client import V2Client
from openai.types.chat import completion_create_params as chat
from openai.types.responses import response_create_params as responses

from antiphon.providers.foreign import own_fields
from antiphon.providers.parameters import Parameters
from tests.converse import service

APIS: dict[str, frozenset[str] | None] = {
    "anthropic": frozenset({"metadata", "service_tier"}),
    "bedrock": frozenset(),
    "cohere": frozenset(),
    "gemini": frozenset(),
    "openai": None,
    "responses": None,
}
"""By API: the fields of chat completions that it has as well; None: all of them."""


def hints(kind: type) -> set[str]:
    return set(typing.get_type_hints(kind))


FIELDS = {
    "anthropic": hints(MessageCreateParamsStreaming) | hints(anthropic_beta.MessageCreateParamsStreaming),
    "bedrock": set(service().operation_model("ConverseStream").input_shape.members),
    "cohere": set(inspect.signature(V2Client.chat_stream).parameters) - {"self", "request_options"},
    "openai": hints(chat.CompletionCreateParamsStreaming),
    "responses": hints(responses.ResponseCreateParamsStreaming),
}
"""What each SDK sends. That of Gemini has no type for it."""

OF_THE_DOMAIN = {
    *(
        "input",
        "k",
        "max_output_tokens",
        "max_tokens",
        "messages",
        "model",
        "modelId",
        "p",
        "stop_sequences",
        "system",
        "temperature",
    ),
    *(
        "tool_choice",
        "toolConfig",
        "tools",
        "top_k",
        "top_p",
        "stream",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "logprobs",
    ),
    *("top_logprobs", "user", "reasoning_effort", "n", "stop", "max_completion_tokens", "response_format"),
}
"""Fields that a request of the domain has itself, by this or another name."""


@pytest.mark.parametrize("api", sorted(FIELDS.keys() - {"openai"}))
def test_fields_of_one_api(api: str) -> None:
    """A field of the SDK is sent to its API, and not to one that does not have it."""
    for name in FIELDS[api] - OF_THE_DOMAIN:
        for other, of_chat in APIS.items():
            if name not in FIELDS.get(other, {"serviceTier"}):  # which Gemini has
                assert name not in own_fields({name: "x"}, Parameters("acme"), other, of_chat), f"{name} reaches {other}"
        assert name in own_fields({name: "x"}, Parameters("acme"), api, APIS[api]) or api == "openai", (
            f"{name} does not reach {api}"
        )
