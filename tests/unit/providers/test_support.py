"""Tests of the policy for options that a provider does not have, and of its application to a request."""

import pytest
from msgspec.structs import replace

from antiphon.domain.content import Message, Role, Text, ToolResult
from antiphon.domain.errors import Unsupported
from antiphon.domain.request import (
    AudioOutput,
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NativeFormat,
    Reasoning,
    Sampling,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from antiphon.domain.warnings import ParameterWarning, Treatment
from antiphon.providers.parameters import Parameters
from antiphon.providers.support import EFFORT, OPTIONS, SEED, STOP, STRICT_FORMAT, Support, adapted
from docs.features import BASE, asking

LACKS = {SEED: Support("there is none"), STOP: Support("it has ends", to="ends")}
ASKED = replace(BASE, sampling=Sampling(seed=1, stop="x", top_p=0.5))
DROPPED_SEED = ParameterWarning(("sampling", "seed"), Treatment.DROPPED, "there is none")


def test_what_is_lacking_is_mapped_or_dropped_with_a_warning() -> None:
    """By default an option with an equivalent stays, one without is removed, and both are reported in order."""
    parameters = Parameters("acme")
    assert adapted(ASKED, LACKS, parameters).sampling == Sampling(stop="x", top_p=0.5)
    assert parameters.warnings == (DROPPED_SEED, ParameterWarning(("sampling", "stop"), Treatment.MAPPED, "it has ends", "ends"))


def test_nothing_is_mapped_under_drop() -> None:
    """With the policy `drop`, an option with an equivalent is removed as well."""
    parameters = Parameters("acme", "drop")
    assert adapted(ASKED, LACKS, parameters).sampling == Sampling(top_p=0.5)
    assert parameters.warnings == (DROPPED_SEED, ParameterWarning(("sampling", "stop"), Treatment.DROPPED, "it has ends"))


@pytest.mark.parametrize("option", [SEED, STOP])
def test_refuse_names_the_parameter(option: object) -> None:
    """With the policy `refuse`, the request is refused, whether or not there is an equivalent."""
    with pytest.raises(Unsupported) as caught:
        adapted(ASKED, {option: LACKS[option]}, Parameters("acme", "refuse"))  # type: ignore[index, dict-item]
    (violation,) = caught.value.violations
    assert violation.path == option.path  # type: ignore[attr-defined]
    assert "acme" in violation.message
    assert caught.value.provider == "acme"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.title)
@pytest.mark.parametrize("policy", ["map", "drop"])
def test_every_option_can_be_asked_and_removed(option: object, policy: str) -> None:
    """A request that asks for one option has it, and has it no more when it is dropped; one that does not ask is left alone."""
    request = asking(option)  # type: ignore[arg-type]
    assert option.is_asked(request)  # type: ignore[attr-defined]
    assert not option.is_asked(BASE)  # type: ignore[attr-defined]
    parameters = Parameters("acme", policy)  # type: ignore[arg-type]
    left = adapted(request, {option: Support("none")}, parameters)  # type: ignore[dict-item]
    assert not option.is_asked(left)  # type: ignore[attr-defined]
    assert len(parameters.warnings) == 1
    assert adapted(BASE, {option: Support("none")}, parameters) is BASE  # type: ignore[dict-item]


def test_values_that_change_nothing_are_no_reason_to_warn() -> None:
    """An API without an option does by itself what these values ask for."""
    neutral = replace(
        BASE,
        sampling=Sampling(
            temperature=1,
            top_p=1.0,
            stop=(),
            presence_penalty=0,
            frequency_penalty=0.0,
            choices=1,
            logprobs=False,
            top_logprobs=0,
            logit_bias={},
        ),
        modalities=("text",),
        parallel_tool_calls=True,
        tool_choice=ToolChoice(ToolChoiceMode.AUTO),
        tools=(Tool("f", strict=False),),
        response_format=NativeFormat({"type": "text"}),
        reasoning=Reasoning(),
    )
    parameters = Parameters("acme", "refuse")
    assert adapted(neutral, dict.fromkeys(OPTIONS, Support("none")), parameters) == replace(
        neutral, sampling=Sampling(), modalities=()
    )
    assert parameters.warnings == ()


def test_a_choice_without_tools_is_no_reason_to_warn() -> None:
    """Without tools there is nothing to choose."""
    request = replace(BASE, tools=(), tool_choice=ToolChoice(ToolChoiceMode.REQUIRED), parallel_tool_calls=False)
    assert adapted(request, dict.fromkeys(OPTIONS, Support("none")), Parameters("acme", "refuse")) is request


def test_the_rest_of_an_option_stays() -> None:
    """Without its strictness a schema is still sent; the name of a tool in its result is not that of a participant."""
    schema = JsonSchemaFormat("n", {"type": "object"}, strict=True)
    request = replace(BASE, response_format=schema, reasoning=Reasoning("low"), audio_output=AudioOutput("v", "wav"))
    lacks = {STRICT_FORMAT: Support("none"), EFFORT: Support("none")}
    left = adapted(request, lacks, Parameters("acme"))
    assert left.response_format == replace(schema, strict=None)
    assert left.reasoning is None
    assert left.audio_output == request.audio_output
    result = ChatRequest("m", (Message(Role.USER, (ToolResult("1", (Text("x"),)),), name="f"),), stream=False)
    assert adapted(result, dict.fromkeys(OPTIONS, Support("none")), Parameters("acme", "refuse")) is result
    assert not isinstance(left.response_format, JsonObjectFormat)
