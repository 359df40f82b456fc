"""The container in which the provider's tools run code, which a conversation uses again. No I/O.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool#container-reuse
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from antiphon.domain.content import NOTHING, Origin
from antiphon.domain.request import ChatRequest
from antiphon.providers.anthropic.messages import PROTOCOL
from antiphon.providers.codec.values import as_object

CONTAINER: Final = "container"
"""The field of a reply for the container that its code ran in, and of a request for the one to use again."""


def container_of(request: ChatRequest, provider: str) -> str | None:
    """Return the id of the container that the latest reply of this deployment used; None if it has expired, or there is none.

    A call that was made from within the provider's code is answered in the container that waits for the result.
    """
    own = Origin(PROTOCOL, provider)
    replies = (one for one in reversed(request.messages) if one.origin is not None and one.origin.is_at(own))
    latest = next((as_object(reply.fields.get(CONTAINER)) for reply in replies if reply.fields.get(CONTAINER)), NOTHING)
    identifier = latest.get("id")
    return None if not isinstance(identifier, str) or _has_passed(latest.get("expires_at")) else identifier


def _has_passed(time: object) -> bool:
    """Return whether a time of RFC 3339 has passed; no if it is none."""
    try:
        return datetime.fromisoformat(str(time)) <= datetime.now(UTC)
    except (ValueError, TypeError):  # a time without a zone cannot be compared
        return False
