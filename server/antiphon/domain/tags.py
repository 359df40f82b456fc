"""Tags: labels of a key or a call, such as team=search. Usage reports can be grouped by tag; metrics cannot."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from antiphon.domain.errors import InvalidRequest, Violation

MAX_TAGS: Final = 8
"""The most tags of a key. A call may have as many of its own."""

_NAME: Final = re.compile(r"[a-z0-9_.-]{1,32}")
_VALUE: Final = re.compile(r"[!-+\--~]{1,64}")

_RULE_NAME: Final = "the name of a tag is 1 to 32 of a-z, 0-9, _, . and -"
_RULE_VALUE: Final = "the value of a tag is 1 to 64 visible characters of ASCII, without commas"


def find_error(tags: Mapping[str, str]) -> str:
    """Return the error in the tags as text; empty if they are valid."""
    if len(tags) > MAX_TAGS:
        return f"must not have more than {MAX_TAGS} tags"
    if not all(_NAME.fullmatch(name) for name in tags):
        return _RULE_NAME
    return "" if all(_VALUE.fullmatch(value) for value in tags.values()) else _RULE_VALUE


def check(tags: Mapping[str, str], *where: str) -> None:
    """Raise `InvalidRequest` if the tags are not valid. `where` is the path of their field."""
    if wrong := find_error(tags):
        raise InvalidRequest(f"{'.'.join(where)}: {wrong}", (Violation(where, wrong),))


def parse(written: str, where: str) -> dict[str, str]:
    """Return the tags of a header such as "team=search, feature=x". Raises `InvalidRequest`; `where` is the header's name."""
    tags: dict[str, str] = {}
    for part in filter(None, map(str.strip, written.split(","))):
        name, equals, value = part.partition("=")
        wrong = "is written as name=value, with commas between several" if not equals else "has the same name twice"
        if not equals or name in tags:
            raise InvalidRequest(f"{where}: {wrong}", (Violation((where,), wrong),))
        tags[name] = value
    check(tags, where)
    return tags


def merged(of_key: Iterable[tuple[str, str]], of_call: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a key and a call. On a conflict the key's win, so that no call can be charged to someone else's tag."""
    found = dict(of_key)
    return found | {name: value for name, value in of_call.items() if name not in found}
