"""The first stage: checks whether a call is allowed, and estimates how much of its caller's limits it will use."""

from __future__ import annotations

from antiphon.chat.prices import Prices
from antiphon.domain.call import Call
from antiphon.domain.content import Block, Text, ToolResult
from antiphon.domain.errors import InvalidRequest, PermissionDenied, Violation
from antiphon.domain.events import Usage
from antiphon.domain.request import ChatRequest
from antiphon.limits.base import Estimate
from antiphon.limits.estimate import estimated_tokens
from antiphon.routing.router import Route


def check(request: ChatRequest) -> None:
    """Reject a request that no dialect allows. Raises `InvalidRequest`."""
    if not request.messages:
        raise InvalidRequest("A request needs a message.", (Violation(("messages",), "must hold at least one message"),))
    wrong: list[Violation] = []
    for index, message in enumerate(request.messages):
        for block in message.blocks:
            if ("\0" in block.text) if isinstance(block, Text) else _contains_nul(block):
                wrong.append(Violation(("messages", index), "text must not hold the character NUL"))
                break
    if wrong:
        raise InvalidRequest("A message holds the character NUL.", tuple(wrong))


def permitted(call: Call, route: Route, request: ChatRequest) -> Route:
    """Return the route without the models that the caller may not use. Raises `PermissionDenied` if none is left."""
    if call.caller.models is None and request.api_key is None:
        return route
    found = route.allowed(call.caller, request)
    if found is None:
        raise PermissionDenied(f"This key may not use the model {(route.alias or route.model)[:200]!r}.")
    return found


def estimate(request: ChatRequest, route: Route, prices: Prices) -> Estimate:
    """Return the estimated use of a call: the tokens of its prompt, and the most tokens that the reply may have."""
    prompt, completion = estimated_tokens(request)
    cost = prices.cost(route.provider.name, route.model, Usage(prompt, completion, prompt + completion), route.deployment)
    return Estimate(prompt, completion, cost, paid_by_caller=route.is_paid_by_caller(request))


def _contains_nul(block: Block) -> bool:
    if isinstance(block, Text):
        return "\0" in block.text
    return isinstance(block, ToolResult) and any(map(_contains_nul, block.blocks))
