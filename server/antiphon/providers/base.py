"""What a provider is: one method.

A provider turns a `ChatRequest` into its own protocol and its answer into events. It knows no dialect, no history and no caller.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from antiphon.domain.events import Batch
from antiphon.domain.request import ChatRequest


class Provider(Protocol):
    """One configured upstream. Shared by all calls of a process."""

    name: str
    """As it is configured."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[Batch, None]:
        """Asks the upstream, and yields its events in batches: all that one read brought. No batch is empty.

        `request.model` is the upstream's own name of the model. With `request.stream` false the upstream is asked for a whole
        reply, which comes as one batch. The first event is `Started`; the upstream was asked, and had not refused, before it
        comes. After all else comes one `Finished` for each choice; an end without them does not happen: a reply that is cut
        raises `ProviderProtocolError`.

        Closing the generator, or cancelling its task, ends the upstream call at once.

        Raises the tree under `ProviderError`, and `Unsupported` for what the protocol cannot express.
        """
        ...

    async def probe(self) -> int | None:
        """Ask the upstream for something that costs nothing, with the key, and return the status; None where there is none to ask.

        Raises the tree under `ProviderError` for one that does not answer.
        """
        ...

    @property
    def buffered(self) -> int:
        """Bytes of replies that have come, and were not read yet. May be asked by any thread."""
        ...

    async def close(self) -> None:
        """Ends the connections that are kept open."""
        ...
