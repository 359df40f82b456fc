"""Tests of the checks of a body that all dialects share."""

import json
from typing import Any

import pytest

from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.net.json_bounds import MAX_VALUES, SMALL
from antiphon.rest.shared import body as json_body
from antiphon.rest.shared.body import MAX_DEPTH, Fields, parse, parse_in_turns
from tests.unit.other_calls import other_call


class Inner(Fields):
    """An object within the body."""

    kind: str


class Thing(Fields):
    """An example of a body."""

    name: str = ""
    size: float | None = None
    count: int | None = None
    content: str | list[dict[str, Any]] | None = None
    inner: list[Inner] | None = None


def wrong(data: bytes, schema: Any = Thing) -> tuple[Violation, ...]:
    """Return the violations of a body that is refused."""
    with pytest.raises(InvalidRequest) as caught:
        parse(data, schema)
    return caught.value.violations


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[1, {"a": 2, "b": ', "}]")])
def test_depth_is_bounded(opening: str, closing: str) -> None:
    """Arrays and objects may be nested MAX_DEPTH deep. A deeper body is refused with the field's name."""

    def body(levels: int) -> bytes:
        each = 2 if len(closing) == 2 else 1
        nested = opening * (levels // each) + "1" + closing * (levels // each)
        return f'{{"name": "n", "x": {nested}, "y": []}}'.encode()

    parse(body(MAX_DEPTH), Thing)
    for levels in (MAX_DEPTH + 2, 250, 900):
        assert wrong(body(levels)) == (Violation(("x",), "must not be nested deeper than 100 levels", "too_deep"),)


def test_many_brackets_are_not_deep() -> None:
    """Many brackets side by side, or in a text, do not count as depth."""
    parse(json.dumps({"name": "[{" * 500, "x": [[{}]] * 500}).encode(), Thing)


def test_a_whole_number_is_a_number() -> None:
    """Types are strict, but an integer is a valid number, and null is the same as unset."""
    body = parse(b'{"size": 1, "count": null}', Thing)
    assert (body.size, body.count) == (1.0, None)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"5", [((), "Input should be an object")]),
        (b'{"inner": [5]}', [(("inner", 0), "Input should be an object")]),
        (b'{"inner": [{}]}', [(("inner", 0, "kind"), "Field required")]),
        (b'{"inner": [{"kind": 1}]}', [(("inner", 0, "kind"), "Input should be a valid string")]),
        (b'{"count": true}', [(("count",), "Input should be a valid integer")]),
        (b'{"size": "1"}', [(("size",), "Input should be a valid number")]),
        (
            b'{"content": 5}',
            [(("content",), "Input should be a valid string"), (("content",), "Input should be a valid list")],
        ),
        (
            b'{"content": [{}, 5]}',
            [(("content",), "Input should be a valid string"), (("content", 1), "Input should be a valid dictionary")],
        ),
    ],
)
def test_a_violation_has_the_path_in_the_body(data: bytes, found: list[Any]) -> None:
    """A violation has the path in the body, without the names of classes or of a field's alternatives."""
    assert [(violation.path, violation.message) for violation in wrong(data)] == found


async def in_turns(data: bytes, schema: Any) -> Any:
    """Return what `parse_in_turns` makes of a body that white space makes large."""
    return await parse_in_turns(data + b" " * SMALL, schema)


@pytest.mark.parametrize("entry", [b"[]", b"0", b'{"a":0}', b'"a"'])
async def test_what_holds_too_much_is_not_parsed(entry: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body with more than MAX_VALUES values is refused before it is parsed, by both functions."""
    monkeypatch.setattr(json_body, "_loads", None)
    data = b'{"x":[' + b",".join([entry] * 2 * MAX_VALUES) + b"]}"
    expected = (Violation((), "The body must not hold more than 65536 values.", "too_large"),)
    assert wrong(data) == expected
    with pytest.raises(InvalidRequest) as caught:
        await in_turns(data, Thing)
    assert caught.value.violations == expected


async def test_a_large_body_is_as_a_small_one() -> None:
    """A large body gives the same result and violations as a small one, and yields to other calls."""
    async with other_call() as other:
        data = json.dumps({"name": "a", "inner": [{"kind": "b"}]}).encode()
        assert await in_turns(data, Thing) == parse(data, Thing)
        assert other.turns >= 4
        for fault in (b'{"count": true}', b'{"inner": [{}]}'):
            with pytest.raises(InvalidRequest) as caught:
                await in_turns(fault, Thing)
            assert caught.value.violations == wrong(fault)


@pytest.mark.parametrize("data", [b'{"name":', b'{"name": "a"}}', b"{'name': 1}", b'{"x":' + b"[" * 5000, b'{"name": "\\ud800"}'])
async def test_a_large_body_that_is_not_json_is_refused(data: bytes) -> None:
    """A large body that is not JSON is refused by one parser, because a second one would take as long again."""
    with pytest.raises(InvalidRequest) as caught:
        await in_turns(data, Thing)
    (violation,) = caught.value.violations
    assert violation.kind == "json_invalid"
    assert violation.message.startswith("JSON decode error: ")


def test_of_very_many_faults_the_first_are_reported() -> None:
    """Of very many faults, those in the first entries of each list are reported, because describing all takes long.

    If those are valid, the number of faults is reported.
    """
    bad: list[Any] = [{}, *[{"kind": "a"}] * 9, *[5] * 9_000]
    found = wrong(json.dumps({"inner": bad}).encode())
    assert found[0] == Violation(("inner", 0, "kind"), "Field required", "missing")
    assert [violation.path for violation in found[1:]] == [("inner", index) for index in range(10, 20)]
    good = [{"kind": "a"}] * 50
    violations = wrong(json.dumps({"inner": good + [5] * 9_000}).encode())
    assert violations == (Violation((), "The body has 9000 errors, too many to list.", "too_many_faults"),)
