"""Tests of fields of chat completions at other APIs."""

import pytest

from antiphon.domain.errors import Unsupported
from antiphon.providers.foreign import own_fields
from antiphon.providers.parameters import Parameters


def test_known_fields_are_left_out_and_others_stay() -> None:
    """Fields of chat completions are reported unless the API has them, too; what nobody knows is sent as it came."""
    parameters = Parameters("acme")
    extra = {"store": True, "metadata": {"a": "b"}, "prediction": {"type": "content"}, "own": 1, "tools": []}
    assert own_fields(extra, parameters, "cohere", frozenset({"metadata"})) == {"metadata": {"a": "b"}, "own": 1}
    assert [warning.path for warning in parameters.warnings] == [("extra", "store"), ("extra", "prediction")]
    with pytest.raises(Unsupported, match="prediction"):
        own_fields({"prediction": {}, **extra, "store": None}, Parameters("acme", "refuse"), "cohere")


def test_what_asks_for_nothing_is_left_out_silently() -> None:
    """Defaults that SDKs send are no reason to warn or to refuse."""
    extra = {
        "stream": False,
        "store": False,
        "response_format": {"type": "text"},
        "service_tier": "auto",
        "verbosity": "medium",
        "modalities": [],
        "logit_bias": {},
        "tools": [],
        "prediction": None,
    }
    assert own_fields(extra, Parameters("acme", "refuse"), "cohere") == {}


def test_other_fields_are_the_same_object() -> None:
    """Nothing is copied if there is nothing to leave out."""
    extra = {"safetySettings": []}
    assert own_fields(extra, Parameters("acme"), "gemini") is extra


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ("anthropic", {"thinking", "betas"}),
        ("cohere", {"thinking", "documents"}),
        ("groq", {"documents"}),
        ("gemini", {"safetySettings"}),
        ("bedrock", {"guardrailConfig"}),
        ("responses", {"reasoning", "include"}),
        ("openrouter", {"thinking", "reasoning", "provider"}),
        ("openai", set()),
        ("", None),
    ],
)
def test_fields_of_one_api_reach_that_one_only(owner: str, expected: set[str] | None) -> None:
    """A host of which nothing is known gets all of them, and every API those that nobody is known to have."""
    names = ("thinking", "betas", "documents", "safetySettings", "guardrailConfig", "reasoning", "include", "provider")
    extra = {**dict.fromkeys(names, "x"), "mine": 1}
    parameters = Parameters("acme")
    found = own_fields(extra, parameters, owner, None)
    assert found.keys() == (set(names) if expected is None else expected) | {"mine"}
    assert {warning.path[-1] for warning in parameters.warnings} == extra.keys() - found.keys()
