"""Which calls are let in: judged by their metadata alone, before anything of the request message is asked for."""

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
"""An HTTP status, headers, and a JSON body."""
ErrorRenderer: TypeAlias = Callable[[AntiphonError], HttpError]

CREDENTIALS = frozenset({"authorization", "x-goog-api-key"})
"""Metadata that hold keys: ours, and a provider's for its proxy. Each may come
once: of two, an Envoy before us may have judged the other."""


class Rules(Struct, frozen=True):
    """What holds for a method. `render` None: its callers speak gRPC."""

    method: str
    scope: Scope
    render: ErrorRenderer | None
    key_in_body: bool
    edge_by_tcp: bool = False


class Places:
    """Places for the calls that may go on at once in this process."""

    def __init__(self, most: int | None) -> None:
        """`most` None: there is no bound."""
        self._most = most
        self.taken = 0

    def take(self) -> None:
        """Take a place. Raises `RateLimited` if none is left."""
        if self._most is not None and self.taken >= self._most:
            message = f"This server has as many calls as it takes at once, {self._most}. Try again in a moment."
            raise RateLimited(message, limit="calls_per_worker", scope="worker", quota=self._most, retry_after=1.0)
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1


class Admission:
    """Judges the key of a call, and counts it.

    Calls whose key is being judged, which may take a while for a token, are counted apart from those that were let in: however many
    strangers call, they never take the places of others.
    """

    def __init__(self, keys: Authenticator, most: int | None) -> None:
        """`most`: calls that may go on at once, and calls that may be judged at once."""
        self._keys = keys
        self._judged = Places(most)
        self._admitted = Places(most)

    @property
    def calls(self) -> int:
        """Calls that are judged, or were let in and have not ended."""
        return self._judged.taken + self._admitted.taken

    async def admit(self, call: Call, rules: Rules, authorization: str | None) -> None:
        """Judge who makes a call, tell it the call, and take a place; call `leave` when the call has ended.

        Without `authorization` it is `ANONYMOUS` where the body may hold the key: the servicer lets that caller in or not. Raises
        `Unauthenticated`, `PermissionDenied`, `RateLimited`, and as `Authenticator`.
        """
        if authorization is not None or not rules.key_in_body:
            self._judged.take()
            try:
                call.caller = await identify(self._keys, authorization)
            finally:
                self._judged.give_back()
        if call.caller is not ANONYMOUS:
            call.caller.require(rules.scope)
        self._admitted.take()

    def leave(self) -> None:
        """Give back the place of a call that has ended."""
        self._admitted.give_back()


def refuse_doubles(names: Sequence[str]) -> None:
    """Raises `Unauthenticated` if a credential is there more than once."""
    for name in CREDENTIALS:
        if names.count(name) > 1:
            raise Unauthenticated(f"There is more than one {name}. Send it once.")


def peer_of(context: Context) -> str:
    """Where a call comes from: the caller's address as the edge saw it, or else the address that is connected, without its port.

    Only what comes through a unix socket or from this machine, as the edge does, is believed about others.
    """
    peer = str(context.peer())
    if peer.startswith(("ipv4:", "ipv6:")):
        peer = peer.rpartition(":")[0]
    if peer.startswith(("unix:", "ipv4:127.", "ipv6:%5B::1%5D")):
        forwarded = next((str(value) for key, value in context.invocation_metadata() or () if key == "x-forwarded-for"), "")
        return forwarded.rpartition(",")[2].strip() or peer
    return peer
