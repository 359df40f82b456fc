"""The form of a provider's opaque values when they are sent to a client. No I/O.

`ap1.<deployment>.<original>`: the value is sent back only to the deployment it came from. A deployment has the name of its
provider, because each provider has one deployment.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from antiphon.domain.content import Origin

_MARK: Final = "ap1."

_NOWHERE: Final = Origin(provider=_MARK, deployment=_MARK)
"""The origin of a wrapped value that was damaged. It matches no provider."""


def wrap(value: str, origin: Origin | None) -> str:
    """Return the value in the form for clients; unchanged if its origin is unknown."""
    name = "" if origin is None else origin.deployment or origin.provider
    return f"{_MARK}{quote(name, safe='').replace('.', '%2E')}.{value}" if name else value


def unwrap(value: str) -> tuple[str, Origin | None]:
    """Return the original value and its origin. A value that is not in the wrapped form is the client's own: its origin is None.

    A damaged value gets an origin that matches no provider.
    """
    if not value.startswith(_MARK):
        return value, None
    name, point, original = value.removeprefix(_MARK).partition(".")
    if not name or not point:
        return value, _NOWHERE
    deployment = unquote(name)
    return original, Origin(provider=deployment, deployment=deployment)


def last_wrapped(value: str) -> str:
    """Return the last of several wrapped values in one text: clients may join the values that a stream has for one field."""
    head = value[: value.find(".", len(_MARK)) + 1] if value.startswith(_MARK) else ""
    at = value.rfind(head) if head else 0
    while at > 0 and value[:at].endswith(head):  # wrapped twice, by two gateways
        at -= len(head)
    return value[at:]
