"""A provider's opaque values as clients hold them: with the deployment that they are from, to which alone they go back. No I/O.

`ap1.<deployment>.<original>`. A deployment has the name of its provider, as each provider has one.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from antiphon.domain.content import Origin

_MARK: Final = "ap1."

_NOWHERE: Final = Origin(provider=_MARK, deployment=_MARK)
"""The origin of a value that the gateway has made, and of which a client has lost a part. No provider has such a name."""


def wrap(value: str, origin: Origin | None) -> str:
    """Return the value as it goes to a client; one whose origin is not known stays as it is."""
    name = "" if origin is None else origin.deployment or origin.provider
    return f"{_MARK}{quote(name, safe='').replace('.', '%2E')}.{value}" if name else value


def unwrap(value: str) -> tuple[str, Origin | None]:
    """Return the original, and where it is from; None for a value that is a client's own. What is damaged is from nowhere."""
    if not value.startswith(_MARK):
        return value, None
    name, point, original = value.removeprefix(_MARK).partition(".")
    if not name or not point:
        return value, _NOWHERE
    deployment = unquote(name)
    return original, Origin(provider=deployment, deployment=deployment)
