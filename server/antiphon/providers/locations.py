"""The hosts of Google's Vertex AI, by location. No I/O.

https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations
"""

from __future__ import annotations

from typing import Final

GLOBAL: Final = "global"
_MULTI_REGIONS: Final = frozenset({"us", "eu"})


def vertex_url(location: str | None) -> str:
    """Return the base URL of a location; that of `GLOBAL` for None."""
    if location is None or location == GLOBAL:
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"
