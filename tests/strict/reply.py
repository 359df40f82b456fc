"""What a strict upstream answers, independent of its protocol."""

from typing import Any, NamedTuple


class Said(NamedTuple):
    """A text of the model. Gemini signs some of them."""

    text: str
    signature: str = ""


class Thought(NamedTuple):
    """A thought of the model, with its signature in base64. It has no text where the provider does not show it."""

    text: str
    signature: str = ""


class Redacted(NamedTuple):
    """A thought that nobody but the provider can read."""

    signature: str


class Plan(NamedTuple):
    """What Cohere says of the calls that follow."""

    text: str


class Called(NamedTuple):
    """A call of a tool. Gemini gives some of them no id, and signs the first one."""

    id: str
    name: str
    arguments: dict[str, Any]
    signature: str = ""


Block = Said | Thought | Redacted | Plan | Called


class Reply(NamedTuple):
    """A whole reply of a model. `is_cut`: the limit of the output ended it. `number` is in its ids."""

    blocks: tuple[Block, ...]
    is_cut: bool = False
    number: int = 0

    @property
    def calls(self) -> list[Called]:
        return [block for block in self.blocks if isinstance(block, Called)]

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.blocks if isinstance(block, Said))


class Failure(NamedTuple):
    """An error, before the reply or, if `after` is set, in the stream after that number of its pieces."""

    status: int
    message: str = "the model is busy"
    headers: tuple[str, ...] = ()
    after: int | None = None


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


def halves(text: str) -> tuple[str, str]:
    """Return a text in two pieces, as arguments are streamed."""
    return text[: len(text) // 2], text[len(text) // 2 :]
