"""What Claude models accept of the sampling."""

import pytest

from antiphon.domain.request import Sampling
from antiphon.providers.anthropic.capabilities import capabilities
from antiphon.providers.anthropic.sampling import may_have_top_p, stop_sequences
from antiphon.providers.parameters import Parameters


def test_stop_sequences() -> None:
    """Those of white space alone are left out with one warning; an empty one asks for nothing."""
    parameters = Parameters("acme")
    assert stop_sequences(Sampling(stop=("\n", "END", " \t")), parameters) == ["END"]
    assert [(warning.path, warning.treatment.value) for warning in parameters.warnings] == [(("sampling", "stop"), "dropped")]
    strict = Parameters("acme", "refuse")
    assert stop_sequences(Sampling(stop=("", "END")), strict) == ["END"]
    assert stop_sequences(Sampling(stop="a b"), strict) == ["a b"]
    assert stop_sequences(Sampling(), strict) == []


@pytest.mark.parametrize("model", ["claude-opus-4-1", "claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-6"])
def test_top_p_beside_a_temperature(model: str) -> None:
    """Models since Opus 4.1 refuse it, so that it is left out with a warning; 1 is left out silently."""
    parameters, row = Parameters("acme"), capabilities(model)
    assert may_have_top_p(0.9, None, row, parameters)
    assert not may_have_top_p(1, 0.7, row, parameters)
    assert parameters.warnings == ()
    assert not may_have_top_p(0.9, 0.7, row, parameters)
    assert [(warning.path, warning.treatment.value) for warning in parameters.warnings] == [(("sampling", "top_p"), "dropped")]


@pytest.mark.parametrize("model", ["claude-sonnet-4", "claude-3-5-haiku", None])
def test_both(model: str | None) -> None:
    """Older models and those of other makers accept both."""
    row = None if model is None else capabilities(model)
    assert may_have_top_p(0.9, 0.7, row, Parameters("acme", "refuse"))
