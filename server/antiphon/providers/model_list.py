"""What the lists of models of all protocols have in common. No I/O.

Lists are read leniently: an entry that is no model is left out, and so is a value of another kind than expected. Whoever asks for
models is better served with the rest of the list than with none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from antiphon.domain.errors import ProviderProtocolError
from antiphon.domain.model_names import is_name
from antiphon.domain.models import Modality, ModelInfo
from antiphon.net import json_bounds

MAX_TOKENS: Final = 10**9
"""More than the context of any model. Some hosts write such a number where there is no limit."""

_MODALITIES: Final = {**{kind.value: kind for kind in Modality}, "file": Modality.DOCUMENT, "pdf": Modality.DOCUMENT}

_ORDER: Final = tuple(Modality)


class ModelPage(Struct, frozen=True):
    """One page of a list. `next_query` has the parameters that ask for the next page; it is empty on the last one."""

    models: tuple[ModelInfo, ...]
    next_query: Mapping[str, str] = {}


ReadPage: TypeAlias = Callable[[bytes], ModelPage]
"""Reads the body of one page. Raises `ValueError` if it is not a list of models."""


def decode(body: bytes) -> Any:
    """Return the JSON value of a page. Raises `ValueError` if it is not JSON, or too large or deep."""
    json_bounds.check(body)
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise ValueError("It is nested too deeply.") from None


def fields(value: Any) -> Mapping[str, Any]:
    """Return the fields of an object; none if it is none."""
    return value if isinstance(value, dict) else {}


def entries(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects in a list. Raises `ValueError` if it is not a list."""
    if not isinstance(value, list):
        raise ValueError("It has no list of models.")  # noqa: TRY004  # a value of the provider's, not of the code
    return [entry for entry in value if isinstance(entry, dict)]


def named(models: Iterable[ModelInfo | None]) -> tuple[ModelInfo, ...]:
    """Return the models that can be requested: those with a valid name, each name once."""
    found: dict[str, ModelInfo] = {}
    for model in models:
        if model is not None and model.name and is_name(model.name):
            found.setdefault(model.name, model)
    return tuple(found.values())


def text(value: Any) -> str:
    """Return a text of at most 256 characters without control characters; empty if it is none."""
    return value if isinstance(value, str) and len(value) <= 256 and value.isprintable() else ""


def tokens(*values: Any) -> int | None:
    """Return the first of the values that is a number of tokens."""
    return next((value for value in values if type(value) is int and 0 < value < MAX_TOKENS), None)


def unix_time(value: Any) -> int | None:
    """Return a time, given in Unix seconds or as in RFC 3339, in Unix seconds; None if it is none, or 0, as some hosts write."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        value = moment.timestamp() if moment.tzinfo is not None else 0
    return int(value) if type(value) in (int, float) and 0 < value < 2**40 else None


def modalities(value: Any) -> tuple[Modality, ...]:
    """Return the known modalities in a list of names, in the order of `Modality`."""
    names = {name.lower() for name in value if isinstance(name, str)} if isinstance(value, list) else ()
    found = {_MODALITIES[name] for name in names if name in _MODALITIES}
    return tuple(kind for kind in _ORDER if kind in found)


def unreadable(provider: str) -> ProviderProtocolError:
    """Return the error for an answer that is no list of models."""
    return ProviderProtocolError(f"The provider {provider} sent no list of models.", provider=provider)
