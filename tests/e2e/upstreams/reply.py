"""What a strict upstream answers, independent of its protocol, and the interface of a protocol."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class Said(NamedTuple):
    """A text of the model."""

    text: str


class Thought(NamedTuple):
    """A thought of the model, with its signature in base64."""

    text: str
    signature: str


class Called(NamedTuple):
    """A call of a tool."""

    id: str
    name: str
    arguments: dict[str, Any]


class Reply(NamedTuple):
    """A whole reply of a model. `is_cut`: the limit of the output ended it."""

    blocks: tuple[Said | Thought | Called, ...]
    is_cut: bool = False

    @property
    def has_calls(self) -> bool:
        return any(isinstance(block, Called) for block in self.blocks)


class Failure(NamedTuple):
    """An error, before the reply or, if `after` is set, in the stream after that number of its pieces."""

    status: int
    message: str = "the model is busy"
    headers: tuple[str, ...] = ()
    after: int | None = None


class Wire(Protocol):
    """One protocol: a module with these functions."""

    def problems(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Sequence[str]:
        """Return what is wrong with a request; empty if nothing is."""
        ...

    def is_stream(self, path: str, body: dict[str, Any]) -> bool:
        """Return whether a request asks for a stream."""
        ...

    def whole(self, reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
        """Return a whole reply."""
        ...

    def pieces(self, reply: Reply, body: dict[str, Any]) -> list[bytes]:
        """Return the pieces of a stream."""
        ...

    def error(self, failure: Failure) -> dict[str, Any]:
        """Return the body of an error."""
        ...

    def error_piece(self, failure: Failure) -> bytes:
        """Return an error within a stream."""
        ...


USAGE = (11, 7)
"""The tokens of every prompt and every reply."""


def words(text: str) -> list[str]:
    """Return a text in pieces: each word with the white space before it."""
    found: list[str] = []
    for character in text:
        if found and not (character.isspace() and not found[-1].isspace()):
            found[-1] += character
        else:
            found.append(character)
    return found


def matches_only(value: dict[str, Any], allowed: frozenset[str], place: str) -> list[str]:
    """Return the fields that an object may not have."""
    return [f"{place}.{name}: extra inputs are not permitted" for name in value if name not in allowed]
