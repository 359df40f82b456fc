"""Every way in which a call can fail.

    AntiphonError
    ├── InvalidRequest              the request is at fault; `violations` tell where
    │   └── Unsupported             the provider of the model has no such feature
    ├── Unauthenticated             no key, or not a good one
    ├── IdentityUnavailable         whether a token is good cannot be told now
    ├── PermissionDenied            the key may not do this
    ├── ContentBlocked              a guard does not let the request through
    ├── ModelNotFound
    │   └── ProviderNotFound        no such provider, so none of its models
    ├── ContextUnavailable          what a client's conversations begin with cannot be read
    ├── ConversationNotFound        or not the caller's own
    ├── MessageNotFound
    ├── ConversationChanged         it went on meanwhile
    ├── TurnNotComplete             the turn of that request id broke off
    ├── TurnInProgress              it is still going on
    ├── RequestIdReused             it has other messages
    ├── KeyNotFound                 no API key of that id
    ├── KeyRevoked                  it is revoked, or has expired
    ├── RateLimited                 more than the caller's limit of requests, tokens or calls at once
    ├── BudgetExceeded              what the caller may spend is spent
    ├── LimitsUnavailable           who counts is out of reach
    ├── StoreUnavailable            the database is out of reach; nothing was changed
    ├── DeadlineExceeded            the call's own deadline
    ├── ShuttingDown
    ├── Internal                    our fault
    └── ProviderError               `provider`, and the HTTP `status` it gave, if any
        ├── ProviderRateLimited     429
        ├── ProviderRejected        it refused the request as such: 400, 413, 422
        ├── ProviderCredentials     it refused our key, or does not have the model for it: 401, 403, 404
        ├── ProviderUnavailable     out of reach, overloaded, or broken
        ├── ProviderTimeout
        └── ProviderProtocolError   a cut, or what its protocol does not allow

The message is what the caller reads: our words only. What a provider said may hold keys and inner addresses, and goes to the log;
only of a request that it rejected there is an `explanation`, from which those are taken out.
An error names its reason; whoever answers the caller turns reasons into statuses. They are in one file, as a caller that handles
errors, and a reader of the tree, needs all of them.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Reason(StrEnum):
    """Why a call failed: the names of `antiphon.v1.ErrorReason`."""

    INVALID_REQUEST = "INVALID_REQUEST"
    UNSUPPORTED = "UNSUPPORTED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    INTERNAL = "INTERNAL"
    PROVIDER_RATE_LIMITED = "PROVIDER_RATE_LIMITED"
    PROVIDER_REJECTED = "PROVIDER_REJECTED"
    PROVIDER_CREDENTIALS = "PROVIDER_CREDENTIALS"
    PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
    PROVIDER_TIMEOUT = "PROVIDER_TIMEOUT"
    PROVIDER_PROTOCOL = "PROVIDER_PROTOCOL"
    CONVERSATION_NOT_FOUND = "CONVERSATION_NOT_FOUND"
    MESSAGE_NOT_FOUND = "MESSAGE_NOT_FOUND"
    CONVERSATION_CHANGED = "CONVERSATION_CHANGED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    TURN_NOT_COMPLETE = "TURN_NOT_COMPLETE"
    TURN_IN_PROGRESS = "TURN_IN_PROGRESS"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    CONTEXT_UNAVAILABLE = "CONTEXT_UNAVAILABLE"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    KEY_REVOKED = "KEY_REVOKED"
    IDENTITY_UNAVAILABLE = "IDENTITY_UNAVAILABLE"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    LIMITS_UNAVAILABLE = "LIMITS_UNAVAILABLE"
    CONTENT_BLOCKED = "CONTENT_BLOCKED"


class Violation(Struct, frozen=True):
    """One field at fault: its path in the request, what is wrong with it, and a short name for the kind of wrong."""

    path: tuple[str | int, ...]
    message: str
    kind: str = "value_error"


def field_path(path: tuple[str | int, ...]) -> str:
    """("messages", 0, "role") as "messages[0].role"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


class AntiphonError(Exception):
    """The root. `retryable`: the same call may succeed later. `retry_after` is in seconds."""

    reason: Reason = Reason.INTERNAL
    retryable: bool = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after

    @property
    def metadata(self) -> dict[str, str]:
        """What a program may want to know: the `metadata` of `google.rpc.ErrorInfo`."""
        return {}


class InvalidRequest(AntiphonError):
    """The request is at fault."""

    reason = Reason.INVALID_REQUEST

    def __init__(self, message: str, violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(message)
        self.violations = violations


class Unsupported(InvalidRequest):
    """The request is good, but the provider of its model has no such feature."""

    reason = Reason.UNSUPPORTED

    def __init__(self, message: str, provider: str) -> None:
        super().__init__(message)
        self.provider = provider

    @property
    def metadata(self) -> dict[str, str]:
        return {"provider": self.provider}


class Unauthenticated(AntiphonError):
    """No key, or not a good one."""

    reason = Reason.UNAUTHENTICATED


class IdentityUnavailable(AntiphonError):
    """The issuer of a token is out of reach, and what is known of its keys is not enough to judge the token."""

    reason = Reason.IDENTITY_UNAVAILABLE
    retryable = True

    def __init__(self, issuer: str, *, retry_after: float | None = None) -> None:
        """`issuer` is the name that the configuration has for it."""
        super().__init__("The token cannot be checked at the moment: its issuer is out of reach.", retry_after=retry_after)
        self.issuer = issuer

    @property
    def metadata(self) -> dict[str, str]:
        return {"issuer": self.issuer}


class PermissionDenied(AntiphonError):
    """The key is good, but may not do this."""

    reason = Reason.PERMISSION_DENIED


class ContentBlocked(AntiphonError):
    """A guard found in the request what may not go to a provider. What it found is told to nobody."""

    reason = Reason.CONTENT_BLOCKED

    def __init__(self, guard: str) -> None:
        super().__init__(f"The request was blocked by the guard {guard!r}.")
        self.guard = guard

    @property
    def metadata(self) -> dict[str, str]:
        return {"guard": self.guard}


class ModelNotFound(AntiphonError):
    """No such model."""

    reason = Reason.MODEL_NOT_FOUND

    def __init__(self, model: str) -> None:
        super().__init__(f"The model {model[:200]!r} does not exist. The models that do are listed by the models endpoint.")
        self.model = model

    @property
    def metadata(self) -> dict[str, str]:
        return {"model": self.model}


class ProviderNotFound(ModelNotFound):
    """No such provider, and so none of its models."""

    def __init__(self, provider: str) -> None:
        AntiphonError.__init__(self, f"The provider {provider!r} does not exist.")
        self.provider = provider

    @property
    def metadata(self) -> dict[str, str]:
        return {"provider": self.provider}


class ContextUnavailable(AntiphonError):
    """The source of what a client's conversations begin with is out of reach, and nothing older of it is known."""

    reason = Reason.CONTEXT_UNAVAILABLE
    retryable = True

    def __init__(self, client: str) -> None:
        super().__init__(f"The context of the client {client!r} cannot be read at the moment.")
        self.client = client

    @property
    def metadata(self) -> dict[str, str]:
        return {"client": self.client}


class ConversationNotFound(AntiphonError):
    """No conversation of that id that the caller may see."""

    reason = Reason.CONVERSATION_NOT_FOUND

    def __init__(self, conversation: str) -> None:
        super().__init__("The conversation does not exist.")
        self.conversation = conversation

    @property
    def metadata(self) -> dict[str, str]:
        return {"conversation": self.conversation}


class MessageNotFound(AntiphonError):
    """No message of that id in the conversation."""

    reason = Reason.MESSAGE_NOT_FOUND

    def __init__(self, message_id: str) -> None:
        super().__init__("The message does not exist in the conversation.")
        self.message_id = message_id

    @property
    def metadata(self) -> dict[str, str]:
        return {"message": self.message_id}


class ConversationChanged(AntiphonError):
    """The conversation went on meanwhile."""

    reason = Reason.CONVERSATION_CHANGED
    retryable = True

    def __init__(self, conversation: str) -> None:
        super().__init__("The conversation has changed meanwhile. Read it again, then try again.")
        self.conversation = conversation

    @property
    def metadata(self) -> dict[str, str]:
        return {"conversation": self.conversation}


class TurnNotComplete(AntiphonError):
    """The turn that the request id names was begun before, and broke off. What had come of it is what there is."""

    reason = Reason.TURN_NOT_COMPLETE

    def __init__(self, message_id: str) -> None:
        super().__init__("The turn of this request id broke off. Begin another one, with another request id.")
        self.message_id = message_id

    @property
    def metadata(self) -> dict[str, str]:
        return {"message": self.message_id}


class TurnInProgress(AntiphonError):
    """The turn that the request id names was begun before, and is still going on."""

    reason = Reason.TURN_IN_PROGRESS
    retryable = True

    def __init__(self, request_id: str) -> None:
        super().__init__("The turn of this request id is still going on. Try again when it has ended.", retry_after=1)
        self.request_id = request_id

    @property
    def metadata(self) -> dict[str, str]:
        return {"request_id": self.request_id}


class RequestIdReused(AntiphonError):
    """The turn that the request id names has other messages than the request: it is no retry."""

    reason = Reason.REQUEST_ID_REUSED

    def __init__(self, request_id: str) -> None:
        super().__init__("This request id was used for a turn with other messages. Another turn needs another request id.")
        self.request_id = request_id

    @property
    def metadata(self) -> dict[str, str]:
        return {"request_id": self.request_id}


class KeyNotFound(AntiphonError):
    """No API key of that id."""

    reason = Reason.KEY_NOT_FOUND

    def __init__(self, key: str) -> None:
        super().__init__("The key does not exist.")
        self.key = key

    @property
    def metadata(self) -> dict[str, str]:
        return {"key": self.key}


class KeyRevoked(AntiphonError):
    """The API key is revoked, or has expired: it cannot be changed any more."""

    reason = Reason.KEY_REVOKED

    def __init__(self, key: str) -> None:
        super().__init__("The key is revoked, or has expired.")
        self.key = key

    @property
    def metadata(self) -> dict[str, str]:
        return {"key": self.key}


class RateLimited(AntiphonError):
    """A limit of the gateway's own: `limit` is its name, `scope` whose it is, `quota` how much it is.

    `scope` is "key", "owner", "overall", or "worker" for that of one server process. It is worth a retry after `retry_after`
    seconds, unless the call alone is more than the limit.
    """

    reason = Reason.RATE_LIMIT_EXCEEDED
    retryable = True

    def __init__(self, message: str, *, limit: str, scope: str, quota: float, retry_after: float, retryable: bool = True) -> None:
        super().__init__(message, retry_after=retry_after)
        self.limit = limit
        self.scope = scope
        self.quota = quota
        self.retryable = retryable

    @property
    def metadata(self) -> dict[str, str]:
        return {"limit": self.limit, "scope": self.scope, "quota": str(self.quota)}


class BudgetExceeded(AntiphonError):
    """What may be spent in a day or a month is spent. As `RateLimited`, with `quota` in USD; no retry before its end helps."""

    reason = Reason.BUDGET_EXCEEDED

    def __init__(self, message: str, *, limit: str, scope: str, quota: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.scope = scope
        self.quota = quota

    @property
    def metadata(self) -> dict[str, str]:
        return {"limit": self.limit, "scope": self.scope, "quota": str(self.quota)}


class LimitsUnavailable(AntiphonError):
    """Who counts for all servers is out of reach, and the configuration has calls refused then."""

    reason = Reason.LIMITS_UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__("The limits cannot be checked at the moment.")


class StoreUnavailable(AntiphonError):
    """The database is out of reach, full or too slow.

    Nothing was changed, unless the connection broke in the middle of the commit: nobody can tell then.
    """

    reason = Reason.STORE_UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__("The database cannot be reached at the moment.")


class DeadlineExceeded(AntiphonError):
    """The call's own deadline passed."""

    reason = Reason.DEADLINE_EXCEEDED
    retryable = True

    def __init__(self) -> None:
        super().__init__("The deadline of the call passed before the reply was whole.")


class ShuttingDown(AntiphonError):
    """The server is stopping."""

    reason = Reason.SHUTTING_DOWN
    retryable = True

    def __init__(self) -> None:
        super().__init__("The server is stopping. Try again.")


class Internal(AntiphonError):
    """A fault of this server; the log has the details under the same request id."""

    reason = Reason.INTERNAL
    retryable = True

    def __init__(self) -> None:
        super().__init__("The gateway failed. Its log tells more under the request id.")


class ProviderError(AntiphonError):
    """A provider failed. `status` is its HTTP status, `code` its own error code where that is safe to tell.

    `retryable` None: as is usual for the kind.
    """

    reason = Reason.PROVIDER_UNAVAILABLE

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.provider = provider
        self.status = status
        self.code = code
        if retryable is not None:
            self.retryable = retryable

    @property
    def metadata(self) -> dict[str, str]:
        known = {"provider": self.provider, "status": self.status and str(self.status), "code": self.code}
        return {name: value for name, value in known.items() if value}


class ProviderRateLimited(ProviderError):
    """The provider's own rate limit or quota. A quota that is used up is not worth a retry."""

    reason = Reason.PROVIDER_RATE_LIMITED
    retryable = True


class ProviderRejected(ProviderError):
    """The provider refused the request as such: what the caller sent is at fault."""

    reason = Reason.PROVIDER_REJECTED

    param: str | None = None
    """The field that the provider names, as "messages[0].content"."""
    explanation: str | None = None
    """What the provider says is wrong, fit for the caller to read."""

    @property
    def metadata(self) -> dict[str, str]:
        return {**super().metadata, **({"param": self.param} if self.param else {})}


class ProviderCredentials(ProviderError):
    """The provider refused our key, or does not have for it the model that the configuration names."""

    of_model = False
    """Whether it is the model."""

    reason = Reason.PROVIDER_CREDENTIALS


class ProviderUnavailable(ProviderError):
    """The provider is out of reach, overloaded or broken. What it would answer again, such as a redirect, is not worth a retry."""

    reason = Reason.PROVIDER_UNAVAILABLE
    retryable = True


class ProviderTimeout(ProviderError):
    """The provider took longer than it is given."""

    reason = Reason.PROVIDER_TIMEOUT
    retryable = True


class ProviderProtocolError(ProviderError):
    """The provider's answer was cut, or is not what its protocol allows."""

    reason = Reason.PROVIDER_PROTOCOL
    retryable = True


def told(error: Exception) -> AntiphonError:
    """What a caller is told of an exception: itself if it is one of ours, else only that the server failed."""
    return error if isinstance(error, AntiphonError) else Internal()
