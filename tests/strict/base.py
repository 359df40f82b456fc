"""What the scripted upstreams have in common: each speaks one provider's API, and refuses what that provider refuses.

The conversation is a loop of tool calls. Turn `n` of it is the same however often it is asked for, so that every request can be
checked against the turns before it: those of this upstream must come back as they were, and of those of others nothing that is
private to them. Every fifth turn is an answer without calls, after which the user asks again.
"""

import json
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from tests.odd_upstream import LAST, Step, answer, chunk, head, sse

ISSUED: dict[str, set[str]] = {}
"""By name of the API: the signatures, and the ids of items, that must be sent to nobody else."""


def has_calls(number: int) -> bool:
    """Return whether a turn has calls."""
    return number % 5 != 4


def call_count(number: int) -> int:
    """Return the number of calls of a turn: one or two."""
    return 1 + number % 2 if has_calls(number) else 0


def result_text(number: int, place: int) -> str:
    """Return the result of a call of a turn."""
    return f"result {number}.{place}"


def halves(text: str) -> tuple[str, str]:
    """Return a text in two pieces, as it is streamed."""
    return text[: len(text) // 2], text[len(text) // 2 :]


class StrictApi(ABC):
    """One provider's API."""

    protocol: ClassVar[str]
    """The name of the protocol in the configuration, or of the host."""
    model: ClassVar[str]
    binds_to_deployment: ClassVar[bool] = False
    """No deployment accepts the state of another one. Most providers take it wherever it was made."""

    def __init__(self, place: str = "") -> None:
        """`place` tells several deployments of one API apart, if none accepts the state of another."""
        self.name = f"{self.protocol}-{place}" if place and self.binds_to_deployment else self.protocol
        self.by_chat = False
        """The caller's API is chat completions, which has one place for the thoughts of a reply, and one for its text."""
        self.drops = False
        """The caller sends back nothing but texts and calls, so that its turns are as those of another provider."""
        self.names = ("f", "g")
        """The names of the tools, as they were sent."""
        self.maker = self.name
        """Whose signatures those of the next reply are: the provider's, or one model's."""

    @property
    def issued(self) -> set[str]:
        """Return the signatures and ids that were made so far."""
        return ISSUED.setdefault(self.maker, set())

    def private(self, kind: str, number: int) -> str:
        """Return a signature in base64, with all of its characters."""
        value = b64encode(f"{self.maker} {kind} {number} ".encode() + bytes(range(239, 257 - 1))).decode()
        self.issued.add(value)
        return value

    def private_id(self, prefix: str, number: int) -> str:
        """Return an id of an item."""
        value = f"{prefix}_{self.name.replace('-', '')}{number:04}"
        self.issued.add(value)
        return value

    def step(self, number: int) -> str:
        """Return what the model says in a turn."""
        return f"{self.maker} step {number}."

    def whole_text(self, number: int) -> str:
        """Return all that is said in a turn, when there is more."""
        return self.step(number)

    def thought(self, number: int) -> str:
        """Return what the model thinks in a turn."""
        return f"Hm {number}.\n "

    def is_own(self, text: str, number: int) -> bool:
        """Return whether this upstream said a turn, and it has to come back whole."""
        return not self.drops and text.startswith(self.step(number))

    def answer(self, path: str, body: dict[str, Any]) -> tuple[Sequence[Step], list[str]]:
        """Return the answer to a request, and what is wrong with it."""
        is_stream = self.is_stream(path, body)
        self.names = self.tool_names(body)
        found = [*self.foreign(body), *self.type_problems(body, is_stream=is_stream)]
        if not found:
            try:
                found += self.problems(body)
            except (AttributeError, LookupError, TypeError) as error:
                found.append(f"the body has another shape: {error!r}")
        if found:
            return [answer(self.refusal("; ".join(found)), "400 Bad Request")], found
        number = self.turn_number(body)
        if is_stream:
            return [head(content_type=self.content_type), *map(chunk, self.pieces(number)), LAST], found
        return [answer(self.whole(number))], found

    content_type = "text/event-stream"

    def is_stream(self, path: str, body: dict[str, Any]) -> bool:
        """Return whether a stream was asked for."""
        return body.get("stream") is True

    def foreign(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield what is of other providers, or of the gateway."""
        text = json.dumps(body)
        if "ap1." in text:
            yield "an opaque value is still wrapped"
        for maker, values in ISSUED.items():
            if maker != self.maker:
                yield from (f"{value} is of {maker}" for value in values if value in text)

    def own_values(self, values: Iterable[Any]) -> Iterator[str]:
        """Yield which values this upstream has never sent."""
        yield from (f"{value!r} is not a signature" for value in values if value not in self.issued)

    @abstractmethod
    def tool_names(self, body: dict[str, Any]) -> tuple[str, str]:
        """Return the names of the two tools of a request."""

    @abstractmethod
    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        """Return what the provider's SDK does not allow."""

    @abstractmethod
    def problems(self, body: dict[str, Any]) -> Iterable[str]:
        """Return what the provider refuses beside that."""

    @abstractmethod
    def turn_number(self, body: dict[str, Any]) -> int:
        """Return the number of the turn that is asked for: that of the turns before it."""

    @abstractmethod
    def whole(self, number: int) -> dict[str, Any]:
        """Return a turn as a whole reply."""

    @abstractmethod
    def pieces(self, number: int) -> list[bytes]:
        """Return a turn as a stream."""

    @abstractmethod
    def refusal(self, message: str) -> dict[str, Any]:
        """Return the body of a 400."""


def events(found: Iterable[dict[str, Any]]) -> list[bytes]:
    """Return server-sent events, each in a piece of its own, with the name that is its type."""
    return [b"event: %b\n%b" % (str(one.get("type", "x")).encode(), sse(one)) for one in found]


def paired(calls: Sequence[tuple[str, int, int]], results: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield which calls of a turn have another result than theirs. A call is its id with its turn and place."""
    if [one for one, _ in results] != [one for one, _, _ in calls]:
        yield f"the calls {calls} are answered by {results}"
    for (one, number, place), (_, text) in zip(calls, results, strict=False):
        if text != result_text(number, place):
            yield f"the call {one} has the result {text!r}"
