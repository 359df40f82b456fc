"""The token of a workload in a file, such as a projected token of Kubernetes; its platform replaces it before it expires."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import orjson

from antiphon.providers.credentials.token import TokenFailed

MAX_BYTES: Final = 64 * 1024
"""The largest file that is read, in bytes."""


class SubjectToken:
    """Reads the token: the whole file, or one field of the JSON object in it."""

    def __init__(self, path: Path, field: str | None = None) -> None:
        self._path = path
        self._field = field

    def read(self) -> str:
        """Return the token as it is now. Raises `TokenFailed`; blocks for the time of the read."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise TokenFailed(f"the token file cannot be read: {error.strerror}", refused=True) from None
        found = self._text(data).strip()
        if not found or not found.isascii() or not found.isprintable() or len(data) > MAX_BYTES:
            raise TokenFailed("the token file has no token", refused=True)
        return found

    def _text(self, data: bytes) -> str:
        if self._field is None:
            return data.decode("utf-8", "replace")
        try:
            found = orjson.loads(data)
        except orjson.JSONDecodeError:
            found = None
        value = found.get(self._field) if isinstance(found, dict) else None
        return value if isinstance(value, str) else ""
