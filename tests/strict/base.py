"""What the strict upstreams have in common: each speaks one provider's API, and refuses what that provider refuses.

Each request is checked by the SDK's types and by what the API states in words (`form_problems`). In a loop of tool calls, it is
checked against the turns before it as well (`turn_problems`): turn `n` of the loop is the same however often it is asked for, so
those of this upstream must come back as they were, and of those of others nothing that is private to them. Every fifth turn is an
answer without calls, after which the user asks again.
"""

import json
import re
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from tests.odd_upstream import Received, sse
from tests.strict.reply import Block, Called, Failure, Reply

ISSUED: dict[str, set[str]] = {}
"""By name of the API: the signatures, and the ids of items, that must be sent to nobody else."""

NAMES = ("f", "g")
"""The names of the tools in a loop, as callers write them."""


def has_calls(number: int) -> bool:
    """Return whether a turn has calls."""
    return number % 5 != 4


def call_count(number: int) -> int:
    """Return the number of calls of a turn: one or two."""
    return 1 + number % 2 if has_calls(number) else 0


def result_text(number: int, place: int) -> str:
    """Return the result of a call of a turn."""
    return f"result {number}.{place}"


class Turn(NamedTuple):
    """A turn of the model in a request, and the results of its calls."""

    content: Any
    """In the form of `StrictApi.content`."""
    text: str
    signatures: Iterable[Any]
    calls: Sequence[str]
    results: Sequence[tuple[str, Any]]


class StrictApi(ABC):
    """One provider's API."""

    protocol: ClassVar[str]
    """The name of the protocol in the configuration, or of the host."""
    model: ClassVar[str]
    """The model of the loops."""
    base: ClassVar[str] = ""
    """What of the path is in the base URL."""
    paths: ClassVar[str]
    """A pattern of all paths."""
    headers: ClassVar[tuple[tuple[str, str], ...]] = (("authorization", "Bearer .+"),)
    """The headers that a request must have, with patterns."""
    call_ids: ClassVar[str] = "call_{}_{}"
    """The form of the ids of calls, with the numbers of turn and place."""
    content_type: ClassVar[str] = "text/event-stream"
    binds_to_deployment: ClassVar[bool] = False
    """No deployment accepts the state of another one. Most providers take it wherever it was made."""

    def __init__(self, place: str = "", *, in_loop: bool = True) -> None:
        """`place` tells several deployments of one API apart, if none accepts the state of another."""
        self.name = f"{self.protocol}-{place}" if place and self.binds_to_deployment else self.protocol
        self.in_loop = in_loop
        """All requests are of a loop of tool calls."""
        self.by_chat = False
        """The caller's API is chat completions, which has one place for the thoughts of a reply, and one for its text."""
        self.drops = False
        """The caller sends back nothing but texts and calls, so that its turns are as those of another provider."""
        self.names: Sequence[str] = NAMES
        """The names of the tools, as they were sent."""
        self.asked = self.model
        """The model of the latest request."""
        self.maker = self.name
        """Whose signatures those of the next reply are: the provider's, or one model's."""

    @property
    def issued(self) -> set[str]:
        """Return the signatures and ids that were made so far."""
        return ISSUED.setdefault(self.maker, set())

    def private(self, kind: str, number: int) -> str:
        """Return a signature in base64, with all of its characters."""
        return b64encode(f"{self.maker} {kind} {number} ".encode() + bytes(range(239, 256))).decode()

    def step(self, number: int) -> str:
        """Return what the model says in a turn."""
        return f"{self.maker} step {number}."

    def thought(self, number: int) -> str:
        """Return what the model thinks in a turn."""
        return f"Hm {number}.\n "

    def is_own(self, text: str, number: int) -> bool:
        """Return whether this upstream said a turn, and it has to come back whole."""
        return not self.drops and text.startswith(self.step(number))

    def turn(self, number: int) -> Reply:
        """Return a turn of the loop."""
        names = self.names if len(self.names) > 1 else NAMES
        calls = (Called(self.call_ids.format(number, at), names[at], {"n": number}) for at in range(call_count(number)))
        return self.issue(Reply((*self.thinking(number), *calls), number=number))

    def issue(self, reply: Reply) -> Reply:
        """Take note of the signatures of a reply, and return it."""
        self.issued.update(signature for block in reply.blocks if (signature := getattr(block, "signature", "")))
        return reply

    def problems(self, request: Received) -> list[str]:
        """Return what is wrong with a request."""
        path, body = request.path.removeprefix(f"/{self.protocol}"), request.json if request.body else {}
        found = [] if re.fullmatch(self.paths, path) else [f"no such path {path}"]
        found += [name for name, form in self.headers if not re.fullmatch(form, request.headers.get(name, ""))]
        try:
            self.begin(path, body)
            self.names = self.tool_names(body)
            found += [*self.foreign(body), *self.type_problems(body, is_stream=self.is_stream(path, body))]
            found += self.form_problems(body)
            turns = self.turns(body)
            found += (f"{value!r} is no signature" for turn in turns for value in turn.signatures if value not in self.issued)
            if self.in_loop:
                found += self.turn_problems(body, turns)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            found.append(f"the body has another shape: {error!r}")
        return found

    def foreign(self, body: dict[str, Any]) -> Iterator[str]:
        """Yield what is of other providers, or of the gateway."""
        text = json.dumps(body)
        if "ap1." in text:
            yield "an opaque value is still wrapped"
        own = self.issued
        for maker, values in ISSUED.items():
            yield from (f"{value} is of {maker}" for value in values - own if value in text)

    def turn_problems(self, body: dict[str, Any], turns: list[Turn]) -> Iterator[str]:
        """Yield what is wrong with the turns of a loop that come back."""
        if len(self.names) != len(NAMES):
            yield f"the tools are {self.names}"
        for number, turn in enumerate(turns):
            if not self.is_own(turn.text, number):
                yield from self.foreign_problems(turn.content, number)
            elif self.seen(turn.content) != self.seen(expected := self.content(self.turn(number))):
                yield f"turn {number} has changed: {turn.content} instead of {expected}"
            yield from paired([(one, number, place) for place, one in enumerate(turn.calls)], turn.results)

    def seen(self, content: Any) -> Any:
        """Return what is compared of a turn."""
        return content

    def foreign_problems(self, content: Any, number: int) -> Iterable[str]:
        """Return what is wrong with a turn of another provider."""
        return ()

    def is_stream(self, path: str, body: dict[str, Any]) -> bool:
        """Return whether a stream was asked for."""
        return body.get("stream") is True

    def begin(self, path: str, body: dict[str, Any]) -> None:
        """Take note of what is asked."""
        self.asked = str(body["model"])

    @abstractmethod
    def tool_names(self, body: dict[str, Any]) -> list[str]:
        """Return the names of the tools of a request."""

    @abstractmethod
    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        """Return what the provider's SDK does not allow."""

    @abstractmethod
    def form_problems(self, body: dict[str, Any]) -> Iterable[str]:
        """Return what the provider refuses beside that, whatever is asked."""

    @abstractmethod
    def turns(self, body: dict[str, Any]) -> list[Turn]:
        """Return the turns of the model."""

    @abstractmethod
    def thinking(self, number: int) -> Iterable[Block]:
        """Return what is before the calls in a turn of the loop."""

    @abstractmethod
    def content(self, reply: Reply) -> Any:
        """Return what comes back of a reply, in the provider's form."""

    @abstractmethod
    def whole(self, reply: Reply) -> dict[str, Any]:
        """Return a whole reply."""

    @abstractmethod
    def pieces(self, reply: Reply) -> list[bytes]:
        """Return the pieces of a stream."""

    @abstractmethod
    def error(self, failure: Failure) -> dict[str, Any]:
        """Return the body of an error."""

    def error_piece(self, failure: Failure) -> bytes:
        """Return an error within a stream."""
        return sse(self.error(failure))


def events(found: Iterable[dict[str, Any]]) -> list[bytes]:
    """Return server-sent events, each in a piece of its own, with the name that is its type."""
    return [b"event: %b\n%b" % (str(one.get("type", "x")).encode(), sse(one)) for one in found]


def paired(calls: Sequence[tuple[str, int, int]], results: Sequence[tuple[str, Any]]) -> Iterator[str]:
    """Yield which calls of a turn have another result than theirs. A call is its id with its turn and place."""
    if [one for one, _ in results] != [one for one, _, _ in calls]:
        yield f"the calls {calls} are answered by {results}"
    for (one, number, place), (_, text) in zip(calls, results, strict=False):
        if text != result_text(number, place):
            yield f"the call {one} has the result {text!r}"


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects in a value of JSON."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


def extra(names: Iterable[str]) -> Iterator[str]:
    """Yield that no object may have these fields: the SDK may know them, but nobody asks for them here."""
    yield from (f"{name}: extra inputs are not permitted" for name in names)
