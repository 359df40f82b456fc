"""The first stage: whether a call may be made, and how much of its caller's limits it is expected to take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from antiphon.chat.prices import Prices
from antiphon.domain.call import Call
from antiphon.domain.content import Block, Text, ToolResult
from antiphon.domain.errors import InvalidRequest, PermissionDenied, Violation
from antiphon.domain.events import Usage
from antiphon.domain.request import ChatRequest
from antiphon.domain.tokens import prompt_tokens
from antiphon.limits.base import Estimate
from antiphon.routing.router import Route

COMPLETION: Final = 512
"""Tokens that a reply is expected to have, where the request names no most."""

_LONGEST: Final = 1 << 40
"""Tokens of a reply that are priced at most, whatever a caller names."""


def check(request: ChatRequest) -> None:
    """Refuse what no dialect allows. Raises `InvalidRequest`."""
    if not request.messages:
        raise InvalidRequest("A request needs a message.", (Violation(("messages",), "must hold at least one message"),))
    wrong = tuple(
        Violation(("messages", index), "text must not hold the character NUL")
        for index, message in enumerate(request.messages)
        if _hold_nul(message.blocks)
    )
    if wrong:
        raise InvalidRequest("A message holds the character NUL.", wrong)


def permit(call: Call, route: Route) -> None:
    """Refuse a model that the caller may not use. Raises `PermissionDenied`."""
    if not call.caller.may_use(route.model, route.provider.name):
        raise PermissionDenied(f"This key may not use the model {route.model[:200]!r}.")


def estimate(request: ChatRequest, route: Route, prices: Prices) -> Estimate:
    """Return what a call is expected to use: its prompt, and the most tokens that the reply may have."""
    prompt = prompt_tokens(request)
    sampling = request.sampling
    # Which of the two is followed is the provider's to say.
    most = max(sampling.max_completion_tokens or 0, sampling.max_tokens or 0) or COMPLETION
    completion = min(most * (sampling.choices or 1), _LONGEST)
    cost = prices.cost(route.provider.name, route.model, Usage(prompt, completion, prompt + completion))
    return Estimate(prompt, completion, cost, paid_by_caller=route.is_paid_by_caller(request))


def _hold_nul(blocks: Iterable[Block]) -> bool:
    return any(
        (isinstance(block, Text) and "\0" in block.text) or (isinstance(block, ToolResult) and _hold_nul(block.blocks))
        for block in blocks
    )
