"""The servicer of AdminService. It does not check who may call: `CallHandlers` does that, by scope."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, date, datetime, timedelta
from typing import Final

from google.protobuf import timestamp_pb2

from antiphon.auth.api_keys.static import CONFIGURED
from antiphon.auth.api_keys.store import LONGEST_OVERLAP, Grants, KeyStore, StoredKey
from antiphon.auth.audit import AuditLog, CallOrigin, StoredEvent
from antiphon.domain.call import current
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.domain.principal import MAX_MODELS, Quota, Scope, scopes_or_default
from antiphon.domain.tags import find_error
from antiphon.limits.report import BY_OWNER, DailyUse, Dimension, UsageReport
from antiphon.owners.data import Owners
from antiphon.routing.candidate import TRIP
from antiphon.routing.drains import Drains
from antiphon.routing.router import Router
from antiphon.rpc.context import Context
from antiphon.rpc.convert.deployment import deployment_to_proto
from antiphon.rpc.convert.reply import time_to_proto
from antiphon.rpc.page import fit_page
from antiphon.rpc.request import INVALID, page_size_violations, raise_if_invalid, required_violations
from antiphon.v1 import admin_pb2, admin_pb2_grpc

DEFAULT_PAGE_SIZE: Final = 50


_SCOPES: Final = {
    admin_pb2.SCOPE_CHAT: Scope.CHAT,
    admin_pb2.SCOPE_HISTORY: Scope.HISTORY,
    admin_pb2.SCOPE_PROXY: Scope.PROXY,
    admin_pb2.SCOPE_ENGINE: Scope.ENGINE,
    admin_pb2.SCOPE_ADMIN: Scope.ADMIN,
}
_PROTOS: Final = {scope: proto for proto, scope in _SCOPES.items()}
_DIMENSIONS: Final = {
    admin_pb2.USAGE_DIMENSION_DAY: Dimension.DAY,
    admin_pb2.USAGE_DIMENSION_DEPLOYMENT: Dimension.DEPLOYMENT,
    admin_pb2.USAGE_DIMENSION_OWNER: Dimension.OWNER,
    admin_pb2.USAGE_DIMENSION_KEY: Dimension.KEY,
    admin_pb2.USAGE_DIMENSION_PROVIDER: Dimension.PROVIDER,
    admin_pb2.USAGE_DIMENSION_MODEL: Dimension.MODEL,
    admin_pb2.USAGE_DIMENSION_TAG: Dimension.TAG,
}
_LONGEST: Final = 366 * 86400
"""The most seconds for which a deployment is tripped or taken out of use, unless it is for good."""

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_QUOTA: Final = ("requests_per_minute", "tokens_per_minute", "concurrent_streams", "daily_usd", "monthly_usd")


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Implements AdminService: API keys, the audit log, usage, an owner's data, and the deployments of providers."""

    def __init__(
        self, keys: KeyStore, audit: AuditLog, report: UsageReport, owners: Owners, router: Router, drains: Drains
    ) -> None:
        self._keys = keys
        self._router = router
        self._drains = drains
        self._audit = audit
        self._report = report
        self._owners = owners

    async def CreateKey(self, request: admin_pb2.CreateKeyRequest, context: Context) -> admin_pb2.CreateKeyResponse:
        """Create a key; return it with its secret."""
        wanted = request.key
        expires = _expires(wanted)
        raise_if_invalid(_key_violations(wanted, expires))
        # Protobuf cannot tell an empty list from an unset one: both mean the default, as `admin.proto` documents.
        scopes = scopes_or_default([_SCOPES[scope] for scope in wanted.scopes] or None)
        grants = Grants(scopes, tuple(wanted.models) or None, _quota(wanted.quota), dict(wanted.tags))
        key, secret = await self._keys.create(
            name=wanted.name, owner=wanted.owner, grants=grants, expires=expires, origin=_origin()
        )
        return admin_pb2.CreateKeyResponse(key=_key(key), secret=secret.get_secret_value())

    async def GetKey(self, request: admin_pb2.GetKeyRequest, context: Context) -> admin_pb2.GetKeyResponse:
        """Return one key."""
        return admin_pb2.GetKeyResponse(key=_key(await self._keys.get(request.id)))

    async def ListKeys(self, request: admin_pb2.ListKeysRequest, context: Context) -> admin_pb2.ListKeysResponse:
        """Return one page of keys."""
        raise_if_invalid(page_size_violations(request.page_size))

        async def read(size: int) -> tuple[Sequence[StoredKey], admin_pb2.ListKeysResponse]:
            page = await self._keys.list(
                size=size, token=request.page_token, owner=request.owner, revoked=request.show_revoked, name=request.name
            )
            return page.keys, admin_pb2.ListKeysResponse(keys=map(_key, page.keys), next_page_token=page.next_token)

        return await fit_page(request.page_size or DEFAULT_PAGE_SIZE, read)

    async def RevokeKey(self, request: admin_pb2.RevokeKeyRequest, context: Context) -> admin_pb2.RevokeKeyResponse:
        """Revoke a key and return it."""
        key = await self._keys.revoke(request.id, origin=_origin())
        return admin_pb2.RevokeKeyResponse(key=_key(key))

    async def RotateKey(self, request: admin_pb2.RotateKeyRequest, context: Context) -> admin_pb2.RotateKeyResponse:
        """Give a key a new secret; return the key with the new secret."""
        overlap = _overlap(request)
        if overlap is None or not timedelta() <= overlap <= LONGEST_OVERLAP:
            raise InvalidRequest(INVALID, (Violation(("overlap",), f"must be between 0 and {LONGEST_OVERLAP.days} days"),))
        key, secret = await self._keys.rotate(request.id, overlap=overlap, origin=_origin())
        return admin_pb2.RotateKeyResponse(key=_key(key), secret=secret.get_secret_value())

    async def ListAuditEvents(
        self, request: admin_pb2.ListAuditEventsRequest, context: Context
    ) -> admin_pb2.ListAuditEventsResponse:
        """Return one page of the audit log. Refusals that this process has not written yet are written first."""
        raise_if_invalid(page_size_violations(request.page_size))
        await self._audit.write()

        async def read(size: int) -> tuple[Sequence[StoredEvent], admin_pb2.ListAuditEventsResponse]:
            page = await self._audit.list(size=size, token=request.page_token, actor=request.actor, action=request.action)
            return page.events, admin_pb2.ListAuditEventsResponse(events=map(_event, page.events), next_page_token=page.next_token)

        return await fit_page(request.page_size or DEFAULT_PAGE_SIZE, read)

    async def GetUsage(self, request: admin_pb2.GetUsageRequest, context: Context) -> admin_pb2.GetUsageResponse:
        """Return one page of usage."""
        raise_if_invalid(page_size_violations(request.page_size))
        first, last = _days(request)
        by = _dimensions(request)

        async def read(size: int) -> tuple[Sequence[DailyUse], admin_pb2.GetUsageResponse]:
            page = await self._report.page(first, last, size=size, token=request.page_token, owner=request.owner, by=by)
            return page.uses, admin_pb2.GetUsageResponse(days=map(_use, page.uses), next_page_token=page.next_token)

        return await fit_page(request.page_size or DEFAULT_PAGE_SIZE, read)

    async def ListDeployments(
        self, request: admin_pb2.ListDeploymentsRequest, context: Context
    ) -> admin_pb2.ListDeploymentsResponse:
        """Return the deployments as this worker sees them."""
        now, until = time.monotonic(), self._drains.until
        found = [deployment_to_proto(each, until.get(each.name), now) for each in self._router.deployments()]
        return admin_pb2.ListDeploymentsResponse(deployments=found)

    async def DrainDeployment(
        self, request: admin_pb2.DrainDeploymentRequest, context: Context
    ) -> admin_pb2.DrainDeploymentResponse:
        """Take a deployment out of use."""
        duration = _duration(request) if request.HasField("duration") else None
        await self._drains.drain(request.name, duration, _origin())
        return admin_pb2.DrainDeploymentResponse()

    async def TripDeployment(self, request: admin_pb2.TripDeploymentRequest, context: Context) -> admin_pb2.TripDeploymentResponse:
        """Open the breakers of a deployment."""
        duration = _duration(request) if request.HasField("duration") else timedelta(seconds=TRIP)
        await self._drains.trip(request.name, duration, _origin())
        return admin_pb2.TripDeploymentResponse()

    async def RestoreDeployment(
        self, request: admin_pb2.RestoreDeploymentRequest, context: Context
    ) -> admin_pb2.RestoreDeploymentResponse:
        """Take a deployment into use again, and end a trip."""
        await self._drains.restore(request.name, _origin())
        return admin_pb2.RestoreDeploymentResponse()

    async def ExportOwner(
        self, request: admin_pb2.ExportOwnerRequest, context: Context
    ) -> AsyncGenerator[admin_pb2.ExportOwnerResponse, None]:
        """Stream all stored data of the owner, as JSON Lines cut into parts."""
        async with aclosing(self._owners.export(request.owner, _origin())) as parts:
            async for part in parts:
                yield admin_pb2.ExportOwnerResponse(lines=part)

    async def EraseOwner(self, request: admin_pb2.EraseOwnerRequest, context: Context) -> admin_pb2.EraseOwnerResponse:
        """Erase all stored data of the owner; return how much was removed."""
        erased = await self._owners.erase(request.owner, _origin())
        return admin_pb2.EraseOwnerResponse(
            conversations=erased.conversations,
            messages=erased.messages,
            keys=erased.keys,
            usage_rows=erased.usage_rows,
            audit_events=erased.audit_events,
        )


def _days(request: admin_pb2.GetUsageRequest) -> tuple[date, date]:
    """Return the first and the last day of the request, with their defaults. Raises `InvalidRequest`."""
    last = _day("last_day", request.last_day) if request.last_day else datetime.now(UTC).date()
    first = _day("first_day", request.first_day) if request.first_day else last.replace(day=1)
    if first > last:
        raise InvalidRequest(INVALID, (Violation(("last_day",), "must not be before first_day"),))
    return first, last


def _duration(request: admin_pb2.DrainDeploymentRequest | admin_pb2.TripDeploymentRequest) -> timedelta:
    """Return how long a deployment is taken out of use or tripped. Raises `InvalidRequest`."""
    seconds = request.duration.seconds + request.duration.nanos / 1e9
    if not 1 <= seconds <= _LONGEST:
        raise InvalidRequest(INVALID, (Violation(("duration",), "must be between a second and a year"),))
    return timedelta(seconds=seconds)


def _dimensions(request: admin_pb2.GetUsageRequest) -> frozenset[Dimension]:
    """Return what the request groups usage by; by day and owner if it names nothing. Raises `InvalidRequest` for unknown values."""
    unknown = [each for each in request.group_by if each not in _DIMENSIONS]
    raise_if_invalid([Violation(("group_by",), "has an unknown dimension")] if unknown else [])
    return frozenset(_DIMENSIONS[each] for each in request.group_by) or BY_OWNER


def _day(field: str, written: str) -> date:
    try:
        if _DAY.fullmatch(written):
            return date.fromisoformat(written)
    except ValueError:
        pass  # a day that does not exist, such as 31 February
    raise InvalidRequest(INVALID, (Violation((field,), "must be a day, as in 2026-11-25"),))


def _use(use: DailyUse) -> admin_pb2.DailyUsage:
    return admin_pb2.DailyUsage(
        day=use.day.isoformat() if use.day else "",
        owner=use.owner,
        requests=use.requests,
        prompt_tokens=use.prompt_tokens,
        completion_tokens=use.completion_tokens,
        cost_usd=use.cost_usd,
        unpriced_requests=use.unpriced,
        key=use.key,
        key_name=use.key_name or (use.key.removeprefix(CONFIGURED) if use.key.startswith(CONFIGURED) else ""),
        provider=use.provider,
        model=use.model,
        tag=use.tag,
        deployment=use.deployment,
    )


def _expires(key: admin_pb2.Key) -> datetime | None:
    """Return the key's expiry, or None if it has none. Raises `InvalidRequest` if the value is outside the calendar."""
    if not key.HasField("expire_time"):
        return None
    try:
        return key.expire_time.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest(INVALID, (Violation(("key", "expire_time"), "is not a time"),)) from None


def _overlap(request: admin_pb2.RotateKeyRequest) -> timedelta | None:
    """Return how long the old secret stays valid, or None if the duration is malformed or too long for a timedelta."""
    try:
        return request.overlap.ToTimedelta()
    except (ValueError, OverflowError):
        return None


def _key_violations(key: admin_pb2.Key, expires: datetime | None) -> list[Violation]:
    """Return the violations of a key that is to be created. `expires` is its expiry."""
    wrong = required_violations("key.name", key.name.strip())
    wrong += [
        Violation(("key", "scopes", index), "is not a scope") for index, scope in enumerate(key.scopes) if scope not in _SCOPES
    ]
    if len(key.models) > MAX_MODELS:
        wrong.append(Violation(("key", "models"), f"must not have more than {MAX_MODELS} entries"))
    wrong += [Violation(("key", "models", index), "must not be empty") for index, model in enumerate(key.models) if not model]
    wrong += [
        Violation(("key", "quota", name), "must not be negative, nor infinite")
        for name in _QUOTA
        if key.quota.HasField(name) and not 0 <= getattr(key.quota, name) < float("inf")
    ]
    if expires is not None and expires <= datetime.now(UTC):
        wrong.append(Violation(("key", "expire_time"), "must be in the future"))
    if bad := find_error(key.tags):
        wrong.append(Violation(("key", "tags"), bad))
    return wrong


def _quota(quota: admin_pb2.Quota) -> Quota:
    return Quota(**{name: getattr(quota, name) for name in _QUOTA if quota.HasField(name)})


def _key(key: StoredKey) -> admin_pb2.Key:
    return admin_pb2.Key(
        id=key.id,
        name=key.name,
        owner=key.owner,
        scopes=[_PROTOS[scope] for scope in key.grants.scopes],
        models=key.grants.models or (),
        tags=key.grants.tags,
        quota=admin_pb2.Quota(**{name: getattr(key.grants.quota, name) for name in _QUOTA}),
        hint=key.hint,
        create_time=time_to_proto(key.created),
        expire_time=_time(key.expires),
        revoke_time=_time(key.revoked),
        last_use_time=_time(key.last_used),
    )


def _event(stored: StoredEvent) -> admin_pb2.AuditEvent:
    event = stored.event
    return admin_pb2.AuditEvent(
        id=stored.id,
        time=time_to_proto(stored.time),
        actor=event.actor,
        action=event.action,
        target=event.target,
        reason=event.reason,
        count=event.count,
        request_id=event.request_id,
        peer=event.peer,
    )


def _time(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    return None if moment is None else time_to_proto(moment)


def _origin() -> CallOrigin:
    """Return the origin of the current call, for the audit log: credential id, request id, peer address."""
    call = current()
    return CallOrigin(call.caller.id, call.request_id, call.peer)
