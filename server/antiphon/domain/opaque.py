"""The form of a provider's opaque values when they are sent to a client. No I/O.

`ap1.<provider>:<protocol>:<model>:<deployment>:<more>.<original>`: the value is sent back only to where it came from, and no store
has to remember that. Names are percent-encoded. Empty fields at the end are left out, and so is a deployment with the name of its
provider. `more` is a JSON object in base64 (URL-safe, unpadded): what else the reader of the client's API has to know.

Values of the earlier form `ap1.<deployment>.<original>` are read as well: an origin with one name. A reader of that form alone
takes the present one for a deployment that it does not have, and leaves the value out.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from itertools import pairwise
from typing import Final
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from antiphon.domain.content import NOTHING, JsonObject, Origin

_MARK: Final = "ap1."

_HEAD: Final = re.compile(r"ap1\.([A-Za-z0-9_~%-]+(?::[A-Za-z0-9_~%-]*){0,4})\.")
"""What precedes the original value."""

_ORIGIN_FIELDS: Final = 4

_NOWHERE: Final = Origin(provider=_MARK, deployment=_MARK)
"""The origin of a wrapped value that was damaged. It matches no provider."""


class Unwrapped(Struct, frozen=True):
    """An opaque value that a client sent."""

    original: str
    origin: Origin | None
    """None: the value was not wrapped, and is the client's own."""
    more: JsonObject = NOTHING


def wrap(value: str, origin: Origin | None, more: JsonObject = NOTHING) -> str:
    """Return the value in the form for clients; unchanged if its origin is unknown."""
    provider = "" if origin is None else origin.provider or origin.deployment
    if origin is None or not provider:
        return value
    deployment = "" if origin.deployment == provider else origin.deployment
    names = [_quoted(name) for name in (provider, origin.protocol, origin.model, deployment)]
    encoded = urlsafe_b64encode(msgspec.json.encode(more)).decode().rstrip("=") if more else ""
    return f"{_MARK}{':'.join([*names, encoded]).rstrip(':')}.{value}"


def unwrap(value: str) -> Unwrapped:
    """Return the original value and its origin. A value that is not in the wrapped form is the client's own: its origin is None.

    A damaged value gets an origin that matches no provider.
    """
    if not value.startswith(_MARK):
        return Unwrapped(value, None)
    head = _HEAD.match(value)
    if head is None:
        return Unwrapped(value, _NOWHERE)
    provider, protocol, model, deployment, encoded = _fields(head)
    try:
        more = msgspec.json.decode(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))) if encoded else NOTHING
    except (ValueError, RecursionError):
        more = None
    if not isinstance(more, dict):
        return Unwrapped(value, _NOWHERE)
    name = unquote(provider)
    return Unwrapped(value[head.end() :], Origin(unquote(protocol), name, unquote(model), unquote(deployment) or name), more)


def split(value: str) -> list[str]:
    """Return the wrapped values of one origin in one text: clients may join the values that a stream has for one field.

    A value that was wrapped twice, by two gateways of the same names, is one value.
    """
    starts: list[int] = []
    first: list[str] = []
    nested = -1
    for head in _HEAD.finditer(value):
        fields = _fields(head)[:_ORIGIN_FIELDS]
        if not starts and head.start() > 0:
            break
        first = first or fields
        if fields == first:
            if head.start() != nested:
                starts.append(head.start())
            nested = head.end()
    return [value[start:end] for start, end in pairwise([*starts, len(value)])] or [value]


def _fields(head: re.Match[str]) -> list[str]:
    fields = head[1].split(":")
    return fields + [""] * (_ORIGIN_FIELDS + 1 - len(fields))


def _quoted(name: str) -> str:
    return quote(name, safe="").replace(".", "%2E")
