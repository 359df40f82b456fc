"""Tests of tags: their syntax, and which one wins."""

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
    """A header of tags gives names and values in order; a value may have an equals sign."""
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
def test_a_malformed_tag_is_refused(written: str) -> None:
    """A malformed tag raises `InvalidRequest`, which names the header and does not repeat its value."""
    with pytest.raises(InvalidRequest, match=r"^x-antiphon-tags: ") as raised:
        tags.parse(written, "x-antiphon-tags")
    assert raised.value.violations[0].path == ("x-antiphon-tags",)


def test_a_tag_of_a_key_is_not_changed_by_a_call() -> None:
    """A tag of the key wins over the same tag of a call, so that no call is charged to another team."""
    assert tags.merged([("team", "search")], {"team": "ads", "feature": "x"}) == {"team": "search", "feature": "x"}
