"""Checks of text before it is stored, and the errors for text that cannot be stored."""

from __future__ import annotations

from antiphon.domain.errors import InvalidRequest, Violation


def check(text: str, field: str, limit: int) -> None:
    """Raise `InvalidRequest` for text longer than `longest` characters, or with characters that a database cannot store."""
    if len(text) > limit:
        raise bad((field,), f"has more than {limit} characters")
    if "\0" in text:
        raise bad((field,), "has a NUL character, which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad((field,), "has half a surrogate pair, which is no character") from None


def check_name(text: str, field: str, limit: int) -> None:
    """Check text as `check` does, and that it is fit for operators' lists and logs.

    Raises `InvalidRequest` also for blank text and for characters that are invisible or change how other text is shown: line
    breaks, escapes, marks of writing direction. Empty text means no name, and is accepted.
    """
    check(text, field, limit)
    if text and not text.strip():
        raise bad((field,), "is blank")
    if not text.isprintable():
        raise bad((field,), "has a non-printable character, such as a line break")


def clean(text: str) -> str:
    """Return text of unknown origin without what cannot be stored."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def bad(path: tuple[str | int, ...], message: str) -> InvalidRequest:
    """Return the error for a field that cannot be stored."""
    where = ".".join(map(str, path))
    return InvalidRequest(f"{where}: {message}", (Violation(path, message),))
