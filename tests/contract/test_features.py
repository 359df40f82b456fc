"""Every cell of the table of features says the truth about the body that is sent."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from antiphon.domain.errors import Unsupported
from antiphon.domain.warnings import Treatment
from antiphon.providers import support
from antiphon.providers.parameters import Parameters
from antiphon.providers.registry import PROTOCOLS
from docs.features import COLUMNS, CONTENT, EFFORTS, MODELS, OPTIONS, Column, Feature, cell

ALL = (*COLUMNS, *MODELS)
ALWAYS = {support.STRICT_FORMAT.title}
"""What some APIs do without being asked."""

NOT_ALONE = {support.ONE_TOOL.title, support.STRICT_FORMAT.title}
"""Options that need another one: two tools, and a schema."""

NEUTRAL_EFFORT = "reasoning effort `none`"


def named(value: Any) -> str | None:
    return f"{value.title}-{value.model}" if isinstance(value, Column) else value.title if isinstance(value, Feature) else None


def bodies(column: Column, feature: Feature, policy: Any) -> tuple[Any, Any, Parameters]:
    """Return the body with and without a feature, and the parameters of the first."""
    parameters = Parameters("acme", policy)
    asked, bare = (replace(request, model=column.model) for request in (feature.asked, feature.bare))
    return json.loads(column.encode(asked, parameters)), json.loads(column.encode(bare, Parameters("acme"))), parameters


@pytest.mark.parametrize("column", ALL, ids=named)
@pytest.mark.parametrize("feature", [*OPTIONS, *EFFORTS], ids=named)
def test_options(column: Column, feature: Feature) -> None:
    """What is sent or mapped changes the body; what is left out does not, has a warning, and can be refused."""
    found = cell(column, feature)
    asked, bare, parameters = bodies(column, feature, "map")
    if found.level == "yes":
        assert parameters.warnings == ()
        assert (asked != bare) == (found.reason == "")
        assert not found.reason or feature.title in (*ALWAYS, NEUTRAL_EFFORT)
        assert bodies(column, feature, "refuse")[0] == asked
        return
    (warning,) = parameters.warnings
    assert warning.reason in found.reason
    assert warning.reason.isascii()
    assert not warning.reason.endswith(".")
    assert (found.level == "mapped") == (warning.treatment is Treatment.MAPPED)
    assert (found.level == "mapped") == (asked != bare) or feature.title == support.STRICT_FORMAT.title  # a schema is mapped, too
    dropped, bare, parameters = bodies(column, feature, "drop")
    assert [one.treatment for one in parameters.warnings] == [Treatment.DROPPED]
    assert dropped == bare or feature.title in NOT_ALONE
    with pytest.raises(Unsupported) as caught:
        bodies(column, feature, "refuse")
    assert [violation.path for violation in caught.value.violations] == [warning.path]


@pytest.mark.parametrize("column", COLUMNS, ids=named)
@pytest.mark.parametrize("feature", CONTENT, ids=named)
@pytest.mark.parametrize("policy", ["map", "drop", "refuse"])
def test_content(column: Column, feature: Feature, policy: str) -> None:
    """Content that cannot be said is refused whatever the policy; the rest is in the body."""
    found = cell(column, feature)
    if found.level == "no" and "not sent" not in found.reason:
        with pytest.raises(Unsupported):
            bodies(column, feature, policy)
        return
    asked, bare, parameters = bodies(column, feature, policy)
    assert (asked != bare) == (found.level == "yes")
    assert parameters.warnings == ()


def test_every_protocol_has_a_column() -> None:
    """A new protocol has to be added to the table; `echo` has no model that could lack anything."""
    assert {column.title.strip("`") for column in COLUMNS} == PROTOCOLS.keys() - {"echo", "openai-by-model"}
