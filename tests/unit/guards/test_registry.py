"""Tests of building guards from the configuration."""

import re
from typing import Any

import pytest

from antiphon.config import Config, ConfigError, GuardConfig, GuardOptions
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.request import ChatRequest
from antiphon.guards import registry
from antiphon.guards.base import Guard
from antiphon.guards.registry import build_guards


def guard(**options: Any) -> GuardConfig:
    return GuardConfig(**{"name": "words", "kind": "blocklist", "patterns": ["a+"], **options})


def test_without_configured_guards_there_are_none() -> None:
    """Without configured guards `build_guards` returns None."""
    assert build_guards(()) is None
    assert Config().guards == ()


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"kind": "odd"}, f"guards.words.kind: 'odd' is not known; known are {', '.join(sorted(registry.KINDS))}"),
        ({"patterns": []}, "guards.words.patterns"),
        ({"patterns": ["b", "(a"]}, "guards.words.patterns.1: missing"),
        ({"patterns": ["a*"]}, "guards.words.patterns.0: it matches the empty text"),
        ({"patterns": ["b", "(?:[a-z]{64} ){4}"]}, "guards.words.patterns.1: it only matches more than 255 characters"),
        ({"action": "laugh"}, "guards.words.action"),
        ({"entities": ["email"]}, "guards.words.entities"),
    ],
)
def test_a_wrong_option_is_reported_with_its_place(options: dict[str, Any], where: str) -> None:
    """A wrong or misspelt option is a `ConfigError` that names it."""
    with pytest.raises(ConfigError, match=re.escape(where)):
        build_guards([guard(**options)])


class Calm:
    """The example guard of the guide: it turns text into lower case."""

    def feed(self, piece: str, *, final: bool) -> str:
        return piece.lower()


async def test_a_new_kind_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new kind of guard needs one line in the registry. It gets its own options and a new filter for each text."""

    def build(config: GuardConfig) -> Guard:
        config.options(GuardOptions)
        return Calm

    monkeypatch.setitem(registry.KINDS, "calm", build)  # type: ignore[arg-type]
    made = build_guards([GuardConfig(name="calm", kind="calm"), guard(action="mask")])
    assert made is not None
    request = ChatRequest("one", (Message(Role.USER, (Text("BAAD Dog"),)),), stream=True)
    assert (await made.request(request)).messages[0].blocks == (Text("b[REMOVED]d dog"),)


def test_each_guard_has_a_name_of_its_own() -> None:
    """Two guards of one name are refused, because callers are given the guard's name."""
    with pytest.raises(ValueError, match="a name of its own"):
        Config(guards=(guard(), guard()))
