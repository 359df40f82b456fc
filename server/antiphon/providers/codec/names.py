"""Names of tools in the form that an API accepts. No I/O.

Callers of other APIs may use names that an API refuses. These are replaced in the request, and put back in the reply. The
replacement depends on the name alone, so that it is the same in each request of a conversation, as signatures and prompt caches
need it.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec import Struct

from antiphon.domain.content import ToolCall
from antiphon.domain.request import ChatRequest, Tool

_DIGITS: Final = 8
"""Digits of the hash that keeps replaced names unique."""


class NameRule(Struct, frozen=True):
    """Which names an API accepts: those that match `accepted`, and have at most `length` characters."""

    accepted: re.Pattern[str]
    refused: re.Pattern[str]
    """A character that no name may have."""
    length: int

    def accepts(self, name: str) -> bool:
        """Return whether the API accepts a name."""
        return len(name) <= self.length and self.accepted.fullmatch(name) is not None

    def sent(self, name: str) -> str:
        """Return the name that is sent for a tool: its own if the API accepts that."""
        if self.accepts(name):
            return name
        plain = self.refused.sub("_", name)
        if not self.accepts(plain[:1]):
            plain = f"_{plain}"
        return f"{plain[: self.length - _DIGITS - 1]}_{stable_hash(name)[:_DIGITS]}"


class ToolNames:
    """The names of the tools of one request. `names` is read at the first call that a model makes."""

    def __init__(self, rule: NameRule, names: Iterable[str]) -> None:
        self._rule = rule
        self._names = names
        self._original: dict[str, str] | None = None

    def sent(self, name: str) -> str:
        """Return the name that is sent for a tool."""
        return self._rule.sent(name)

    def original(self, name: str) -> str:
        """Return the caller's name for a name in the reply."""
        if self._original is None:
            self._original = {self._rule.sent(one): one for one in self._names}
        return self._original.get(name, name)


class CallIds:
    """The ids of the calls of one request. Each call has one of its own, even if the caller gave two calls the same."""

    def __init__(self, accepted: Callable[[str], str], length: int | None = None) -> None:
        """Take `accepted`, which returns an id in the form that the API accepts: of at most `length` characters."""
        self._accepted = accepted
        self._length = length
        self._taken: set[str] = set()
        self._unanswered: dict[str, deque[str]] = {}
        """The ids that were sent for the calls without a result, by the caller's id."""

    def called(self, call_id: str) -> str:
        """Return the id that is sent for a call."""
        name = sent = self._accepted(call_id)
        number = 2
        while sent in self._taken:
            end = f"_{number}"
            sent = name[: None if self._length is None else self._length - len(end)] + end
            number += 1
        self._taken.add(sent)
        self._unanswered.setdefault(call_id, deque()).append(sent)
        return sent

    def answered(self, call_id: str) -> str | None:
        """Return the id that was sent for the first call of that id without a result; None if there is none."""
        calls = self._unanswered.get(call_id)
        return calls.popleft() if calls else None


def tool_names(request: ChatRequest) -> Iterator[str]:
    """Yield the names of the request's functions, and of the calls in its messages: a model may repeat one."""
    for message in request.messages:
        for block in message.blocks:
            if isinstance(block, ToolCall) and block.name:
                yield block.name
    for tool in request.tools:
        if isinstance(tool, Tool):
            yield tool.name


def stable_hash(text: str) -> str:
    """Return a hash of a text in hexadecimal digits, the same on every machine."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
