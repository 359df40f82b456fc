"""Tags: what is one, and whose stands."""

import pytest

from antiphon.domain import tags
from antiphon.domain.errors import InvalidRequest


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("", {}),
        ("team=search", {"team": "search"}),
        (" team=search , feature=x=y ,", {"team": "search", "feature": "x=y"}),
        (f"{'a' * 32}={'~' * 64}", {"a" * 32: "~" * 64}),
        (",".join(f"t{number}=v" for number in range(8)), {f"t{number}": "v" for number in range(8)}),
    ],
)
def test_a_header_is_read(written: str, found: dict[str, str]) -> None:
    """Names and values in order; a value may hold an equals sign."""
    assert tags.parse(written, "x-antiphon-tags") == found


@pytest.mark.parametrize(
    "written",
    [
        "team",
        "=search",
        "team=",
        "Team=search",
        "té=am",
        "team=sé",
        "team=a b",
        f"{'a' * 33}=v",
        f"a={'v' * 65}",
        "a=1,a=2",
        ",".join(f"t{number}=v" for number in range(9)),
    ],
)
def test_what_is_none_is_refused(written: str) -> None:
    """With the header at fault, and nothing of what stood in it."""
    with pytest.raises(InvalidRequest, match=r"^x-antiphon-tags: ") as raised:
        tags.parse(written, "x-antiphon-tags")
    assert raised.value.violations[0].path == ("x-antiphon-tags",)


def test_a_tag_of_a_key_is_not_changed_by_a_call() -> None:
    """So that no call is put down to another team."""
    assert tags.merged([("team", "search")], {"team": "ads", "feature": "x"}) == {"team": "search", "feature": "x"}
