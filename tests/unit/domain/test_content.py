"""Tests of the content of messages."""

from collections.abc import Iterator
from typing import get_args

import msgspec
import pytest
from msgspec import Struct

from antiphon.domain.content import Block, Citation, Message, Origin, State
from tests.unit.blocks import EVERY


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (Origin("openai-chat", "a", "m1"), Origin("openai-chat", "a", "m2"), True),
        (Origin("openai-chat", "a"), Origin("openai-chat", "b"), False),
        (Origin("anthropic", "a"), Origin("openai-chat", "a"), False),
        (Origin(provider="a"), Origin("openai-chat", "a"), True),
        (Origin("openai-chat"), Origin("openai-chat", "a"), True),
        (Origin(), Origin("openai-chat", "a"), True),
        (Origin(provider="b"), Origin("openai-chat", "a"), False),
        (Origin("anthropic", "a/east"), Origin("anthropic", "a/west"), True),
        (Origin("anthropic", "a/east"), Origin("anthropic", "b/east"), False),
    ],
)
def test_a_reply_is_from_where_protocol_and_provider_are_the_same(ours: Origin, theirs: Origin, same: bool) -> None:
    """Two origins are the same if protocol and provider are equal, as far as both are set."""
    assert (ours.is_from(theirs), theirs.is_from(ours)) == (same, same)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (Origin("responses", "a/east", "m", "a/east"), Origin("responses", "a/east", "n", "a/east"), True),
        (Origin("responses", "a/east", "m", "a/east"), Origin("responses", "a/west", "m", "a/west"), False),
        (Origin("responses", "a", "m", "east"), Origin("responses", "a", "m", "west"), False),
        (Origin("responses"), Origin("responses", "a/east"), True),
        (Origin("anthropic", "a"), Origin("responses", "a"), False),
    ],
)
def test_a_reply_is_of_a_deployment(ours: Origin, theirs: Origin, same: bool) -> None:
    """Two origins are of one deployment if that is equal as well, as far as both name one."""
    assert (ours.is_at(theirs), theirs.is_at(ours)) == (same, same)


def within(value: object) -> Iterator[Struct]:
    """All values in one, itself as well."""
    match value:
        case Struct():
            yield value
            for name in value.__struct_fields__:
                yield from within(getattr(value, name))
        case tuple():
            for one in value:
                yield from within(one)
        case _:
            pass


@pytest.mark.parametrize("kind", [Message, *get_args(Block), State, Origin, Citation])
def test_the_example_of_the_tests_has_every_field(kind: type[Struct]) -> None:
    """With another value than it has by itself: what is lost on a way through the gateway is then seen."""
    found = [value for value in within(EVERY) if type(value) is kind]
    for field in msgspec.structs.fields(kind):
        assert any(getattr(value, field.name) != field.default for value in found), field.name
