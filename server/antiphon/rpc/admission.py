"""Admission of calls: authentication, scope, and the number of calls at once. Decided from metadata, before the message is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from antiphon.auth.base import Authenticator, identify
from antiphon.domain.call import Call
from antiphon.domain.errors import AntiphonError, RateLimited, Unauthenticated
from antiphon.domain.principal import ANONYMOUS, Scope
from antiphon.rpc.context import Context

HttpError: TypeAlias = tuple[int, Mapping[str, str], bytes]
"""HTTP status, headers, and JSON body."""
ErrorRenderer: TypeAlias = Callable[[AntiphonError], HttpError]

CREDENTIALS = frozenset({"authorization", "x-goog-api-key"})
"""Metadata keys that hold credentials: the gateway's, and a provider's for its proxy.

Each may be sent once. With two, an Envoy in front of this server may have checked another one than this server would.
"""


class MethodRules(Struct, frozen=True):
    """What applies to a method: its name, the scope that it needs, and how its errors are written.

    `render` is None for methods that gRPC clients call. `key_in_body` and `edge_by_tcp` are as in `CallHandlers`.
    """

    method: str
    scope: Scope
    render: ErrorRenderer | None
    key_in_body: bool
    edge_by_tcp: bool = False


class CallSlots:
    """Counts the calls that run at once in this process, up to a maximum."""

    def __init__(self, max_calls: int | None) -> None:
        """Allow up to `max_calls` calls at once. None: no maximum."""
        self._max_calls = max_calls
        self.taken = 0

    def take(self) -> None:
        """Count one more call. Raises `RateLimited` if the maximum is reached."""
        if self._max_calls is not None and self.taken >= self._max_calls:
            message = f"This server has as many calls as it takes at once, {self._max_calls}. Try again in a moment."
            raise RateLimited(message, limit="calls_per_worker", scope="worker", quota=self._max_calls, retry_after=1.0)
        self.taken += 1

    def give_back(self) -> None:
        """Count one call less."""
        self.taken -= 1


class Admission:
    """Authenticates calls, and limits how many run at once.

    Calls that are being authenticated, which may take a while for a token, are counted apart from admitted ones. So calls with a
    bad key, however many, cannot use up the slots of authenticated callers.
    """

    def __init__(self, keys: Authenticator, max_calls: int | None) -> None:
        """Allow `max_calls` admitted calls at once, and as many that are being authenticated. None: no maximum."""
        self._keys = keys
        self._authenticating = CallSlots(max_calls)
        self._admitted = CallSlots(max_calls)

    @property
    def calls(self) -> int:
        """The number of calls that are being authenticated, or were admitted and have not ended."""
        return self._authenticating.taken + self._admitted.taken

    async def admit(self, call: Call, rules: MethodRules, authorization: str | None) -> None:
        """Authenticate the caller, set `call.caller`, and take a slot. Call `leave` when the call has ended.

        If `authorization` is None and the method accepts a key in the body, the caller stays `ANONYMOUS`, and the servicer
        authenticates it. Raises `Unauthenticated`, `PermissionDenied`, `RateLimited`, and whatever the `Authenticator` raises.
        """
        if authorization is not None or not rules.key_in_body:
            self._authenticating.take()
            try:
                call.caller = await identify(self._keys, authorization)
            finally:
                self._authenticating.taken -= 1
        if call.caller is not ANONYMOUS:
            call.caller.require(rules.scope)
        self._admitted.take()

    def leave(self) -> None:
        """Give back the slot of a call that has ended."""
        self._admitted.taken -= 1


def refuse_duplicates(names: Sequence[str]) -> None:
    """Raise `Unauthenticated` if `names`, the metadata keys of a call, contain a credential more than once."""
    for name in CREDENTIALS:
        if names.count(name) > 1:
            raise Unauthenticated(f"There is more than one {name}. Send it once.")


def peer_of(context: Context) -> str:
    """Return the caller's address: as the edge reports it, else the address of the connection, without its port.

    `x-forwarded-for` is trusted only on a unix socket or from this machine, where the edge connects from.
    """
    peer = str(context.peer())
    if peer.startswith(("ipv4:", "ipv6:")):
        peer = peer.rpartition(":")[0]
    if peer.startswith(("unix:", "ipv4:127.", "ipv6:%5B::1%5D")):
        forwarded = next((str(value) for key, value in context.invocation_metadata() or () if key == "x-forwarded-for"), "")
        return forwarded.rpartition(",")[2].strip() or peer
    return peer
