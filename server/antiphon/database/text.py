"""Text that a database can hold, and what is told of text that it cannot."""

from __future__ import annotations

from antiphon.domain.errors import InvalidRequest, Violation


def check(text: str, field: str, longest: int) -> None:
    """Raises `InvalidRequest` for text of more than `longest` characters, and for what a database cannot hold."""
    if len(text) > longest:
        raise bad((field,), f"has more than {longest} characters")
    if "\0" in text:
        raise bad((field,), "has a NUL character, which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad((field,), "has half a surrogate pair, which is no character") from None


def check_name(text: str, field: str, longest: int) -> None:
    """As `check`, of what operators read in lists and logs.

    Raises `InvalidRequest` also for what does not show, or makes other text show as something else: line breaks, escapes, marks
    that turn the direction of writing. Empty is no name at all, and not refused.
    """
    check(text, field, longest)
    if text and not text.strip():
        raise bad((field,), "is blank")
    if not text.isprintable():
        raise bad((field,), "has a character that does not show, such as a line break")


def clean(text: str) -> str:
    """Text of somebody else's making, without what cannot be stored."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def bad(path: tuple[str | int, ...], message: str) -> InvalidRequest:
    """The error for a field that cannot be stored."""
    where = ".".join(map(str, path))
    return InvalidRequest(f"{where}: {message}", (Violation(path, message),))
