"""Tests of masking JSON that comes in pieces."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.config import GuardConfig
from antiphon.guards.base import LONGEST, Blocked, Guard
from antiphon.guards.blocklist import build
from antiphon.guards.chain import PIECE
from antiphon.guards.json_chain import JsonChain, filter_json
from antiphon.guards.json_value import filter_value

GUARD: Guard = build(GuardConfig(name="words", kind="blocklist", patterns=["bad+|4{4}"], action="mask", replacement='"#'))  # type: ignore[call-arg]

STRINGS = st.text(alphabet='bad 4"\\\n\u00e9\U0001f600', max_size=12)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.sampled_from([4, -44444, 0.4444, 4e30]), STRINGS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=12,
)


async def masked(*pieces: str, guard: Guard = GUARD) -> str:
    chain = JsonChain([guard])
    return "".join([await chain.feed(piece) for piece in pieces]) + await chain.feed("", final=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, max_size=4), st.booleans(), st.data())
async def test_it_stays_json_however_it_is_split(value: list[Any], ascii_only: bool, data: st.DataObject) -> None:
    """Masked JSON is JSON with the same values as when masked as a whole, wherever it is split."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert json.loads(await masked(*pieces)) == json.loads(json.dumps(await filter_value([GUARD], value)))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='bad4 {}[]",:\\u-tru', max_size=30), st.data())
async def test_text_that_is_not_json_does_not_depend_on_the_split(text: str, data: st.DataObject) -> None:
    """Text that is not JSON gives the same result wherever it is split, with nothing held back at its end."""
    cut = data.draw(st.integers(0, len(text)))
    assert await masked(text[:cut], text[cut:]) == await masked(text)


@pytest.mark.parametrize(
    "text", ["so bad", "44, bad", "44} bad", '{"x": 4 4444 bad}', '{"x": 1} bad', '{"x": "\\q bad"}', '"bad"', "{bad"]
)
async def test_what_is_no_json_is_masked_as_text(text: str) -> None:
    """Text is masked as plain text from the place where it stops being JSON."""
    assert "bad" not in await masked(text)
    assert '"#' in await masked(text)


SPACE = st.sampled_from(["", " ", "\n"])
SECRETS = ["bad", r"\u0062ad", r"b\u0061d", r"\u0062\u0061\u0064"]


def texts(strings: st.SearchStrategy[str], numbers: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw JSON with spaces at any place, repeated names and numbers that no float can hold."""
    quoted = strings.map(lambda text: f'"{text}"')
    return st.recursive(
        quoted | numbers | st.sampled_from(["true", "null", "NaN", "-Infinity"]),
        lambda inner: (
            st.builds(lambda items, space: "[" + f",{space}".join(items) + "]", st.lists(inner, max_size=3), SPACE)
            | st.builds(
                lambda items, space: "{" + f",{space}".join(f"{name}{space}:{item}" for name, item in items) + "}",
                st.lists(st.tuples(quoted, inner), max_size=3),
                SPACE,
            )
        ),
        max_leaves=8,
    )


GOOD = st.lists(
    st.sampled_from(["a", "b", "ba", "\u00e9", "\t", r"\n", r"\u0064", r"\ud83d\ude00", r"\ud800", r"\/", r"\q"]), max_size=5
)
PLAIN = GOOD.map("|".join)
HIDDEN = st.builds(lambda before, secret, after: f"{before}|{secret}|{after}", PLAIN, st.sampled_from(SECRETS), PLAIN)
DIGITS = st.sampled_from(["0", "1.10", "1e999", "-123456789012345678901"])


@settings(max_examples=200, deadline=None)
@given(texts(PLAIN, DIGITS | st.just("9" * 5000)), st.sampled_from(["", ",", "x", "/*", "}"]), st.integers(0, 40), st.data())
async def test_text_without_a_match_is_unchanged(text: str, sloppy: str, at: int, data: st.DataObject) -> None:
    """A text without a match is passed on unchanged, valid JSON or not, wherever it is split."""
    text = text[:at] + sloppy + text[at:]
    cut = data.draw(st.integers(0, len(text)))
    assert await masked(text[:cut], text[cut:]) == await filter_json([GUARD], text) == text


@settings(max_examples=200, deadline=None)
@given(texts(PLAIN | HIDDEN, DIGITS | st.sampled_from(["44444", "12344445678901234567890.5", "-0.4444e7"])), st.data())
async def test_a_match_is_found_however_it_is_written(text: str, data: st.DataObject) -> None:
    """A match is found in names, strings and numbers, escaped or not, and JSON stays JSON."""
    cut = data.draw(st.integers(0, len(text)))
    masked_text = await masked(text[:cut], text[cut:])
    assert masked_text == await filter_json([GUARD], text)
    assert "bad" not in masked_text
    assert "4444" not in masked_text
    try:
        json.loads(text, strict=False, parse_int=str)
    except ValueError:
        return
    read = repr(json.loads(masked_text, strict=False, parse_int=str, object_pairs_hook=list))
    assert "bad" not in read
    assert "4444" not in read


@pytest.mark.parametrize(
    "before",
    [
        '"n":NaN,',
        '"n":-Infinity,',
        '"n":1e999,',
        r'"n":"\ud800",',
        '"a":1,',
        f'"n":{"[" * 5000}{"]" * 5000},',
        "/* ' */",
        '"n":+1,',
        "'b':1,",
    ],
)
@pytest.mark.parametrize("secret", SECRETS)
async def test_a_match_is_found_behind_invalid_json(before: str, secret: str) -> None:
    """A match is also found behind what a strict JSON parser refuses, because a lenient parser or a model may accept it."""
    assert await filter_json([GUARD], f'{{{before}"a":"{secret}"}}') == f'{{{before}"a":"\\"#"}}'
    assert await filter_json([GUARD], f'"{secret}"') == await masked(*f'"{secret}"') == '"\\"#"'


async def test_numbers_in_what_is_no_json_are_text() -> None:
    """In text that is not JSON, masked numbers get no quotes, and a match may span several."""
    assert await filter_json([GUARD], "4444, 4444 and 4444") == '"#, "# and "#'
    assert (
        await filter_json([build(GuardConfig(name="w", kind="blocklist", patterns=["1, 2"], action="mask"))], "1, 2") == "[REMOVED]"
    )  # type: ignore[call-arg]


async def test_fields_that_are_masked_alike_stay_as_many() -> None:
    """Names that become equal by masking get suffixes, so that no field is lost. A name that occurred twice still does."""
    text = '{"bad":1,"badd":2,"baddd":[{"bad":3}],"bad":4}'
    assert await filter_json([GUARD], text) == r'{"\"#":1,"\"#_":2,"\"#_2":[{"\"#":3}],"\"#":4}'
    assert await filter_json([GUARD], r'{"bad":1,"b\u0061dd":2}') == r'{"\"#":1,"\"#_":2}'
    many = {"ba" + "d" * (1 + number): number for number in range(200)}
    assert len(json.loads(await filter_json([GUARD], json.dumps(many)))) == len(many)


@pytest.mark.parametrize("text", ['{"a":"bad","b":"badd"}', '{"a":[{}],"b":["bad","badd"]}', '{a:"bad",b:"badd"}'])
async def test_only_names_get_suffixes(text: str) -> None:
    """Values that become equal by masking get no suffix, in lenient JSON too."""
    assert await masked(text) == text.replace("badd", r"\"#").replace("bad", r"\"#")


@pytest.mark.parametrize("text", ["[-44444]", "[true,44444]", "[NaN,-Infinity,44444]"])
async def test_a_number_is_held_back_until_it_is_complete(text: str) -> None:
    """A number is held back until it is complete, so that its mask is a JSON string wherever the text is split."""
    assert await masked(*text) == await masked(text)
    assert json.loads(await masked(*text))[-1] == text.strip("[]").split(",")[-1].replace("4444", '"#')


async def test_a_string_without_an_end_is_passed_on() -> None:
    """A string without its closing quote is passed on to the end, though a match might have begun there."""
    assert await masked('["so ba') == '["so ba'


async def test_words_for_numbers_are_read() -> None:
    """NaN and Infinity are masked, because lenient parsers read them as numbers. JSON's own null and true are not."""
    guard = build(GuardConfig(name="words", kind="blocklist", patterns=["Infinity|NaN|null|true"], action="mask", replacement="#"))  # type: ignore[call-arg]
    assert await masked("[NaN,-Infinity,null,true]", guard=guard) == '["#","-#",null,true]'


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [("\U0001f600", r'"so \ud83d\ude00"', '"so #"'), ("\tbad", '"\t\tbad"', '"\t#"')],
    ids=["a character of two escapes", "raw control characters"],
)
async def test_how_a_character_is_written_does_not_matter(pattern: str, text: str, expected: str) -> None:
    """A match is found whether its characters are escaped or not, with the same result wherever the text is split."""
    guard = build(GuardConfig(name="words", kind="blocklist", patterns=[pattern], action="mask", replacement="#"))  # type: ignore[call-arg]
    assert await masked(text, guard=guard) == await masked(*text, guard=guard) == expected


async def test_what_was_json_is_not_read_again_as_text() -> None:
    """Values that were read as JSON are not matched again as text, so that the result does not depend on the split."""
    guard = build(GuardConfig(name="words", kind="blocklist", patterns=["1, 2"], action="mask"))  # type: ignore[call-arg]
    text = "[1, 2, x"
    assert await masked(text, guard=guard) == await masked(*text, guard=guard) == text


async def test_no_more_is_held_back_than_a_match_may_have() -> None:
    """At most LONGEST characters of a number are held back."""
    chain = JsonChain([GUARD])
    assert len(await chain.feed("[" + "1" * 1000)) >= 1000 - LONGEST


@pytest.mark.parametrize("text", [r'"\n' + r"\n" * 20_000, "[" + "1," * 20_000], ids=["escapes", "numbers"])
async def test_other_calls_have_their_turn(text: str) -> None:
    """Masking a long text yields to other calls after each PIECE of characters."""
    reading = asyncio.create_task(JsonChain([GUARD]).feed(text))
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= len(text) // PIECE


async def test_a_string_is_written_anew_only_from_where_it_was_changed() -> None:
    """A string keeps its escapes up to the first match; strings without a match keep all."""
    assert await filter_json([GUARD], r'["\u0061\/", "\u0061 bad \u0061\/", 1.10]') == r'["\u0061\/", "\u0061 \"# a/", 1.10]'


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ('{"x": "a\\n bad"}', '{"x": "a\\n '),
        ('{"x": "a bad"}', '{"x": "a '),
        ('{"x": 1} y bad.', '{"x": 1} y '),
        ('y bad "bad"', "y "),
    ],
    ids=["a string with escapes", "a plain string", "text after JSON", "text before a string"],
)
async def test_the_text_before_a_match_is_kept(text: str, before: str) -> None:
    """`Blocked` has the text before the match in valid JSON form."""
    guard = build(GuardConfig(name="words", kind="blocklist", patterns=["bad"], action="block"))  # type: ignore[call-arg]
    with pytest.raises(Blocked) as caught:
        await masked(text, guard=guard)
    assert caught.value.before == before
