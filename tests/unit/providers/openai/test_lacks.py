"""Tests of what hosts of the OpenAI protocol and their models do not have."""

from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from antiphon.domain.errors import Unsupported
from antiphon.domain.request import JsonSchemaFormat, Reasoning, Sampling
from antiphon.domain.warnings import Treatment
from antiphon.providers.hosts import HOSTS
from antiphon.providers.openai.capabilities import capabilities_of
from antiphon.providers.openai.request import encode
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import OPTIONS, PARTICIPANTS
from docs.features import BASE, asking

CAPABILITIES = {host.name: capabilities_of(host.name, None) for host in HOSTS}
ASKED = Sampling(temperature=0.5, max_tokens=9, stop="x", seed=4)


def sent(host: str, model: str, effort: str | None = None, **fields: Any) -> tuple[Any, list[str]]:
    """Return the body for a host, and the names of the parameters that were dropped."""
    parameters = Parameters(host)
    request = replace(BASE, model=model, reasoning=Reasoning(effort), **fields)
    body = orjson.loads(encode(request, host, parameters, stream_usage=False, host=CAPABILITIES[host]))
    assert all(warning.treatment is Treatment.DROPPED for warning in parameters.warnings)
    return body, [warning.path[-1] for warning in parameters.warnings]


@pytest.mark.parametrize(
    ("model", "effort", "dropped"),
    [
        ("gpt-4o", None, []),
        ("ft:gpt-4o-mini:org::1", None, []),
        ("gpt-5-chat-latest", None, []),
        ("o1", None, ["temperature"]),
        ("o3-mini", None, ["temperature", "stop"]),
        ("gpt-5", None, ["temperature", "stop"]),
        ("gpt-5-nano", "low", ["temperature", "stop"]),
        ("gpt-5.1", None, []),
        ("gpt-5.1", "none", []),
        ("gpt-5.2", "high", ["temperature"]),
        ("gpt-9-unheard-of", "high", ["temperature"]),
        ("my-deployment", "high", []),
    ],
)
def test_the_models_of_openai(model: str, effort: str | None, dropped: list[str]) -> None:
    """Reasoning models get no sampling; an unknown GPT counts as the newest; of any other name nothing is known."""
    body, names = sent("openai", model, effort, sampling=ASKED)
    assert names == dropped
    assert not body.keys() & set(dropped)
    assert body["seed"] == 4


@pytest.mark.parametrize(("model", "name"), [("gpt-4o", "max_tokens"), ("gpt-5", "max_completion_tokens")])
def test_the_limit_has_the_name_that_the_model_knows(model: str, name: str) -> None:
    """Models that refuse the old name get the new one, which is no reason to warn."""
    body, names = sent("openai", model, sampling=Sampling(max_tokens=9))
    assert {key for key in body if key.startswith("max")} == {name}
    assert (body[name], names) == (9, [])


def test_a_limit_in_the_new_name_is_kept() -> None:
    """If the caller sends both names, the one that the model knows counts."""
    body, _ = sent("openai", "gpt-5", sampling=Sampling(max_tokens=9, max_completion_tokens=7))
    assert body["max_completion_tokens"] == 7
    assert "max_tokens" not in body


def test_mistral_gets_only_what_it_knows() -> None:
    """It has other names for two parameters, and refuses those that it does not know."""
    sampling = Sampling(seed=4, max_completion_tokens=9, logit_bias={"1": 2}, top_k=3)
    body, names = sent("mistral", "mistral-small-latest", sampling=sampling, end_user="u", modalities=("text",))
    assert (body["random_seed"], body["max_tokens"]) == (4, 9)
    assert not body.keys() & {"seed", "max_completion_tokens", "logit_bias", "user", "modalities"}
    assert body["top_k"] == 3
    assert names == ["logit_bias", "end_user"]


@pytest.mark.parametrize(
    ("host", "model", "dropped"),
    [
        ("groq", "llama-3.3-70b", ["logprobs", "choices", "effort"]),
        ("groq", "openai/gpt-oss-120b", ["logprobs", "choices"]),
        ("cerebras", "gpt-oss-120b", ["presence_penalty"]),
        ("xai", "grok-4", ["presence_penalty", "stop", "effort"]),
        ("xai", "grok-9", ["presence_penalty", "stop"]),
        ("xai", "grok-4-fast-non-reasoning", ["effort"]),
        ("deepseek", "deepseek-reasoner", ["presence_penalty", "logprobs"]),
        ("deepseek", "deepseek-chat", []),
        ("deepseek", "deepseek-v4-flash", ["presence_penalty"]),
        ("anthropic", "claude-opus-4-8", ["presence_penalty", "logprobs", "effort", "choices"]),
        ("vllm", "any", []),
    ],
)
def test_other_hosts(host: str, model: str, dropped: list[str]) -> None:
    """Each host gets what its documentation says that it accepts."""
    sampling = Sampling(presence_penalty=0.5, stop="x", logprobs=True, choices=2)
    assert sent(host, model, "low", sampling=sampling)[1] == dropped


@pytest.mark.parametrize("host", list(CAPABILITIES))
@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.title)
def test_nothing_is_left_out_silently(host: str, option: Any) -> None:
    """For every host and option, the body differs from that of a request without the option, or there is a warning."""
    capabilities = CAPABILITIES[host]
    for model in ("gpt-4o", "gpt-5", "grok-4", "deepseek-reasoner", "m"):
        parameters = Parameters(host)
        body = encode(asking(option, model), host, parameters, stream_usage=False, host=capabilities)
        bare = encode(replace(asking(option, model), **_bare(option)), host, stream_usage=False, host=capabilities)
        treatments = {warning.treatment for warning in parameters.warnings}
        assert treatments if body == bare else treatments <= {Treatment.MAPPED}, (host, model)


def _bare(option: Any) -> dict[str, Any]:
    """Return the fields of the request that make it one without the option."""
    without = option.without(asking(option))
    return {"sampling": without.sampling} | {
        name: getattr(without, name) for name in BASE.__struct_fields__ if name not in ("sampling", "model")
    }


def test_names_are_known_to_be_refused() -> None:
    """A host that accepts no names in replies is listed as lacking them, as the encoder leaves them out everywhere."""
    for name, capabilities in CAPABILITIES.items():
        fields, lacks = capabilities.reply_fields, capabilities.options.lacks
        assert PARTICIPANTS in lacks or fields is None or "name" in fields, name


CHAT_FIELDS = {
    "store": True,
    "safety_identifier": "s",
    "verbosity": "low",
    "prompt_cache_key": "k",
    "metadata": {"a": "b"},
    "my_own": 1,
}


@pytest.mark.parametrize(
    ("host", "dropped"),
    [
        ("groq", ["safety_identifier", "verbosity", "prompt_cache_key"]),
        ("mistral", ["store", "safety_identifier", "verbosity"]),
        ("openai", []),
        ("together", []),
    ],
)
def test_fields_of_chat_completions_that_a_host_refuses(host: str, dropped: list[str]) -> None:
    """They are left out with a warning; a field that only this host may know is sent."""
    body, names = sent(host, "m", extra=CHAT_FIELDS)
    assert names == dropped
    assert {name for name in CHAT_FIELDS if name in body} == CHAT_FIELDS.keys() - set(dropped)


def test_a_schema_where_there_is_json_alone() -> None:
    """DeepSeek's model is told the schema, and held to JSON; without mapping, there is no format."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    request = replace(BASE, model="deepseek-chat", response_format=JsonSchemaFormat("place", schema))
    for policy, expected in (("map", Treatment.MAPPED), ("drop", Treatment.DROPPED)):
        parameters = Parameters("deepseek", policy)
        body = orjson.loads(encode(request, "deepseek", parameters, stream_usage=False, host=CAPABILITIES["deepseek"]))
        assert [one.treatment for one in parameters.warnings] == [expected]
        assert body.get("response_format") == ({"type": "json_object"} if policy == "map" else None)
        assert ("city" in orjson.dumps(body["messages"]).decode()) == (policy == "map")
    with pytest.raises(Unsupported):
        encode(request, "deepseek", Parameters("deepseek", "refuse"), stream_usage=False, host=CAPABILITIES["deepseek"])
