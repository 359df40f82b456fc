"""The interface of providers.

A provider turns a `ChatRequest` into its own protocol, and the answer into events. It depends on no dialect, history or caller.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from antiphon.domain.events import Batch
from antiphon.domain.models import ModelInfo
from antiphon.domain.request import ChatRequest
from antiphon.domain.warnings import Warnings, ignore


class Provider(Protocol):
    """One configured upstream, shared by all calls of a process."""

    name: str
    """Its name in the configuration."""

    def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
        """Send a request upstream, and yield the events of the reply in batches, one batch per read. No batch is empty.

        `request.model` is the upstream's own name of the model. If `request.stream` is false, the whole reply is yielded as one
        batch, and the upstream is asked for it so, unless its protocol advises against that. The first event is `Started`, yielded
        once the upstream has accepted the request. The last events are one `Finished` per choice; a reply that is cut raises
        `ProviderProtocolError` instead of ending without them.

        Closing the generator, or cancelling its task, ends the upstream call at once.

        `warn` is called once, before the upstream is, with the parameters that the provider or the model does not have. What
        happens to them is configured (`providers.<name>.unsupported`). `request.extra` is sent unchanged.

        Raises subclasses of `ProviderError`, and `Unsupported` for content that the protocol cannot express, and for a parameter
        that it lacks if such are to be refused.
        """
        ...

    async def probe(self) -> int | None:
        """Send a free request with the gateway's key, and return its HTTP status; None if the protocol has no such request.

        Raises subclasses of `ProviderError` if there is no answer.
        """
        ...

    async def list_models(self) -> tuple[ModelInfo, ...] | None:
        """Return the models that the upstream lists for the gateway's key and that can chat; None if it has no such list.

        Each name is there once. Raises subclasses of `ProviderError`.
        """
        ...

    @property
    def buffered(self) -> int:
        """Return the bytes of replies that were received but not read yet. Safe to call from any thread."""
        ...

    async def close(self) -> None:
        """Close the connections that are kept open."""
        ...
