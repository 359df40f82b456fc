"""The context of each client's conversations: a text from the configuration, a file, or the response of a URL.

The module knows no dialect.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from antiphon.config import ClientConfig
from antiphon.net.refreshing import Clock

if TYPE_CHECKING:
    from antiphon.chat.client_sources import Sources


class Contexts:
    """The contexts of all clients. An instance belongs to the event loop of its first call."""

    def __init__(self, clients: Mapping[str, ClientConfig], environment: Mapping[str, str], clock: Clock = time.monotonic) -> None:
        """Prepare the configured sources, without reading them. `environment` has the clients' tokens.

        Raises `ConfigError` for a missing file or token, or an invalid URL.
        """
        self._texts = {name: client.context for name, client in clients.items() if client.context is not None}
        self._sources = _sources(clients, environment, clock)

    async def of(self, client: str) -> str:
        """Return the context of a client; empty if none is configured. Raises `ContextUnavailable`."""
        read = None if self._sources is None else await self._sources.text(client)
        return self._texts.get(client, "") if read is None else read

    async def close(self) -> None:
        """Cancel reads in progress, and close the connections."""
        if self._sources is not None:
            await self._sources.close()


def _sources(clients: Mapping[str, ClientConfig], environment: Mapping[str, str], clock: Clock) -> Sources | None:
    """Return the files and URLs of the clients; None if no client has one. Raises `ConfigError`."""
    if all(client.file is None and client.url is None for client in clients.values()):
        return None
    from antiphon.chat.client_sources import Sources

    return Sources(clients, environment, clock)
