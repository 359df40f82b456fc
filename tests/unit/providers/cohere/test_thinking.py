"""How much a model of Cohere thinks."""

import pytest

from antiphon.domain.content import JsonObject
from antiphon.domain.request import ChatRequest, Reasoning
from antiphon.domain.warnings import Treatment
from antiphon.providers.cohere.thinking import thinking
from antiphon.providers.parameters import Parameters

MODEL = "command-a-reasoning-08-2025"


def ask(effort: str | None, model: str = MODEL, **extra: object) -> ChatRequest:
    return ChatRequest(model, (), stream=True, reasoning=None if effort is None else Reasoning(effort), extra=extra)


@pytest.mark.parametrize(
    ("effort", "limit", "expected", "treatment"),
    [
        (None, None, None, None),
        ("none", None, {"type": "disabled"}, None),
        ("high", None, {"type": "enabled"}, None),
        ("max", 100, {"type": "enabled"}, None),
        ("low", None, {"type": "enabled", "token_budget": 2048}, Treatment.MAPPED),
        ("medium", 4000, {"type": "enabled", "token_budget": 3000}, Treatment.MAPPED),
        ("minimal", 1, {"type": "enabled", "token_budget": 1}, Treatment.MAPPED),
        ("extreme", None, None, Treatment.DROPPED),
    ],
)
def test_efforts(effort: str | None, limit: int | None, expected: JsonObject | None, treatment: Treatment | None) -> None:
    """A lower effort is a number of tokens, a quarter of the output at least is left for the answer; a high one has no limit."""
    parameters = Parameters("acme")
    assert thinking(ask(effort), limit, parameters) == expected
    assert [warning.treatment for warning in parameters.warnings] == ([] if treatment is None else [treatment])


def test_what_cannot_be_told() -> None:
    """A model that cannot think is not told to, nor one that the caller tells; a policy to drop leaves the effort out."""
    for request in (ask("high", "command-a-03-2025"), ask("low", thinking={"type": "enabled"})):
        parameters = Parameters("acme")
        assert thinking(request, None, parameters) is None
        assert [warning.treatment for warning in parameters.warnings] == [Treatment.DROPPED]
    assert thinking(ask("low"), None, Parameters("acme", "drop")) is None
