"""A helper that admits a call with a limiter."""

from antiphon.chat.admit import estimate
from antiphon.chat.prices import Prices
from antiphon.domain.call import NO_OBSERVER, Call
from antiphon.domain.principal import Principal
from antiphon.domain.request import ChatRequest
from antiphon.limits.limiter import Grant, Limiter
from antiphon.routing.router import Router
from tests.unit.scripted import NO_PRICES, ScriptedProvider

CALLER = Principal("ann", owner="acme", id="key:1")


async def admit(
    limits: Limiter,
    request: ChatRequest | None = None,
    *,
    principal: Principal = CALLER,
    headers: dict[str, str] | None = None,
    prices: Prices = NO_PRICES,
    wants_key: bool = False,
) -> Grant:
    """Return the grant of a call. `headers` receives the rate-limit headers; without a request no tokens are reserved."""
    call = Call(caller=principal, observer=limits._ledger or NO_OBSERVER, headers={} if headers is None else headers)
    if request is None:
        return await limits.admit(call)
    router = Router([(ScriptedProvider(), ["*"])], "any", {ScriptedProvider.name} if wants_key else ())
    route = router.resolve(request.model)
    return await limits.admit(call, lambda: estimate(request, route, prices))
