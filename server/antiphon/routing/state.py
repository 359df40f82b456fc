"""State in a request: which deployments made the opaque values in it, and the request without them. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from antiphon.domain.content import Block, RedactedThinking, Thinking
from antiphon.domain.request import ChatRequest


def state_owners(request: ChatRequest) -> Iterator[str]:
    """Yield the names of the deployments that made opaque values of the request, those of the latest messages first.

    A name may occur several times. It comes from the caller, so it may be that of a deployment that does not exist.
    """
    for message in reversed(request.messages):
        for block in message.blocks:
            if block.state is not None and block.state.opaque is not None:
                origin = block.state.origin or message.origin
                if origin is not None and (name := origin.deployment or origin.provider):
                    yield name


def without_state(request: ChatRequest) -> ChatRequest:
    """Return the request without opaque values, and without the thoughts that they belong to."""
    messages = tuple(
        replace(message, blocks=tuple(kept for block in message.blocks if (kept := _stateless(block)) is not None))
        if any(block.state is not None and block.state.opaque is not None for block in message.blocks)
        else message
        for message in request.messages
    )
    return replace(request, messages=messages)


def _stateless(block: Block) -> Block | None:
    if isinstance(block, RedactedThinking):
        return None
    if block.state is None or block.state.opaque is None:
        return block
    return None if isinstance(block, Thinking) else replace(block, state=None)
