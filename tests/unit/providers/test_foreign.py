"""Tests of fields of chat completions at other APIs."""

import pytest

from antiphon.domain.errors import Unsupported
from antiphon.providers.foreign import own_fields
from antiphon.providers.parameters import Parameters


def test_known_fields_are_left_out_and_others_stay() -> None:
    """Fields of chat completions are reported unless the API has them, too; what nobody knows is sent as it came."""
    parameters = Parameters("acme")
    extra = {"store": True, "metadata": {"a": "b"}, "prediction": {"type": "content"}, "own": 1, "tools": []}
    assert own_fields(extra, parameters, frozenset({"metadata"})) == {"metadata": {"a": "b"}, "own": 1}
    assert [warning.path for warning in parameters.warnings] == [("extra", "store"), ("extra", "prediction")]
    with pytest.raises(Unsupported, match="prediction"):
        own_fields({"prediction": {}, **extra, "store": None}, Parameters("acme", "refuse"))


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
    assert own_fields(extra, Parameters("acme", "refuse")) == {}


def test_other_fields_are_the_same_object() -> None:
    """Nothing is copied if there is nothing to leave out."""
    extra = {"safetySettings": []}
    assert own_fields(extra, Parameters("acme")) is extra


@pytest.mark.parametrize(
    ("protocol", "kept"),
    [("anthropic", "thinking"), ("bedrock", "guardrailConfig"), ("gemini", "safetySettings")],
)
def test_fields_of_one_protocol_reach_it_alone(protocol: str, kept: str) -> None:
    """The others of a route do not get them, and the caller is told."""
    extra = {"thinking": {"type": "adaptive"}, "guardrailConfig": {"a": 1}, "safetySettings": [1], "of_nobody": 1}
    parameters = Parameters("acme")
    assert own_fields(extra, parameters, protocol=protocol) == {kept: extra[kept], "of_nobody": 1}
    assert {warning.path[1] for warning in parameters.warnings} == extra.keys() - {kept, "of_nobody"}
    assert own_fields(extra, Parameters("acme"), protocol="") == {"of_nobody": 1}
