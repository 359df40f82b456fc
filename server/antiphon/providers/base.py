"""The interface of providers.

A provider turns a `ChatRequest` into its own protocol, and the answer into events. It depends on no dialect, history or caller.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from antiphon.domain.events import Batch
from antiphon.domain.request import ChatRequest


class Provider(Protocol):
    """One configured upstream, shared by all calls of a process."""

    name: str
    """Its name in the configuration."""

    def stream(self, request: ChatRequest) -> AsyncGenerator[Batch, None]:
        """Send a request upstream, and yield the events of the reply in batches, one batch per read. No batch is empty.

        `request.model` is the upstream's own name of the model. If `request.stream` is false, the whole reply is yielded as one
        batch, and the upstream is asked for it so, unless its protocol advises against that. The first event is `Started`, yielded
        once the upstream has accepted the request. The last events are one `Finished` per choice; a reply that is cut raises
        `ProviderProtocolError` instead of ending without them.

        Closing the generator, or cancelling its task, ends the upstream call at once.

        Raises subclasses of `ProviderError`, and `Unsupported` for content that the protocol cannot express, and for an option that
        it lacks if the reply would differ. Options that are only hints are left out. `request.extra` is sent unchanged.
        """
        ...

    async def probe(self) -> int | None:
        """Send a free request with the gateway's key, and return its HTTP status; None if the protocol has no such request.

        Raises subclasses of `ProviderError` if there is no answer.
        """
        ...

    @property
    def buffered(self) -> int:
        """Return the bytes of replies that were received but not read yet. Safe to call from any thread."""
        ...

    async def close(self) -> None:
        """Close the connections that are kept open."""
        ...
