"""Every way in which a call can fail.

    AntiphonError
    ├── InvalidRequest              the request is invalid; `violations` names the fields
    │   └── Unsupported             the provider of the model lacks the feature
    ├── Unauthenticated             no credential, or an invalid one
    ├── IdentityUnavailable         the token cannot be checked now
    ├── PermissionDenied            the credential does not allow this
    ├── ContentBlocked              a guard blocked the request
    ├── ModelNotFound
    │   └── ProviderNotFound
    ├── ContextUnavailable          the context of a client cannot be read
    ├── ConversationNotFound        or it belongs to another owner
    ├── MessageNotFound
    ├── ConversationChanged         another call changed it meanwhile
    ├── TurnNotComplete             the turn of that request id broke off
    ├── TurnInProgress              the turn of that request id is still running
    ├── RequestIdReused             the turn of that request id has other messages
    ├── KeyNotFound
    ├── KeyRevoked                  or it has expired
    ├── RateLimited                 a limit of requests, tokens or concurrent calls
    ├── BudgetExceeded              a limit of USD per day or month
    ├── LimitsUnavailable           the shared counters cannot be reached
    ├── StoreUnavailable            the database cannot be reached; nothing was changed
    ├── DeadlineExceeded            the call's own deadline passed
    ├── ShuttingDown
    ├── Internal                    a bug in the gateway
    └── ProviderError               with `provider`, and its HTTP `status` if there was one
        ├── ProviderRateLimited     429
        ├── ProviderRejected        the request was rejected: 400, 413, 422
        ├── ProviderCredentials     the gateway's key was refused, or it lacks the model: 401 to 404
        ├── ProviderUnavailable     unreachable, overloaded or broken
        ├── RouteUnavailable        all deployments are left alone for a while; nothing was sent
        ├── ProviderTimeout
        └── ProviderProtocolError   a cut reply, or one that violates the protocol

The caller reads `message`, which is the gateway's own text only. A provider's text may contain keys and internal addresses, so it
goes to the log. The one exception is a rejected request: its `explanation` is the provider's text without keys and addresses. An
error has a reason; the code that answers the caller turns reasons into statuses. All errors are in one file, because code that
handles errors, and a reader of the tree, needs all of them.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto

from msgspec import Struct


class Reason(StrEnum):
    """The reason of a failed call. The values are the names of `antiphon.v1.ErrorReason`."""

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
    ROUTE_UNAVAILABLE = "ROUTE_UNAVAILABLE"
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
    """One invalid field: its path in the request, what is wrong with it, and a short name for the kind of error."""

    path: tuple[str | int, ...]
    message: str
    kind: str = "value_error"


def field_path(path: tuple[str | int, ...]) -> str:
    """Return a path as text: ("messages", 0, "role") becomes "messages[0].role"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


class AntiphonError(Exception):
    """The base class. `retryable`: the same call may succeed later. `retry_after` is the seconds to wait, or None if unknown."""

    reason: Reason = Reason.INTERNAL
    retryable: bool = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after

    @property
    def metadata(self) -> dict[str, str]:
        """Return the details for programs: the `metadata` of `google.rpc.ErrorInfo`."""
        return {}


class InvalidRequest(AntiphonError):
    """The request is invalid."""

    reason = Reason.INVALID_REQUEST

    def __init__(self, message: str, violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(message)
        self.violations = violations


class Unsupported(InvalidRequest):
    """The request is valid, but the provider of its model does not support the feature. `violations` names it if it is a field."""

    reason = Reason.UNSUPPORTED

    def __init__(self, message: str, provider: str, violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(message, violations)
        self.provider = provider

    @property
    def metadata(self) -> dict[str, str]:
        return {"provider": self.provider}


class Unauthenticated(AntiphonError):
    """The call has no credential, or an invalid one."""

    reason = Reason.UNAUTHENTICATED


class IdentityUnavailable(AntiphonError):
    """The issuer of a token cannot be reached, and its known keys are not enough to check the token."""

    reason = Reason.IDENTITY_UNAVAILABLE
    retryable = True

    def __init__(self, issuer: str, *, retry_after: float | None = None) -> None:
        """`issuer` is its name in the configuration."""
        super().__init__("The token cannot be checked at the moment: its issuer is out of reach.", retry_after=retry_after)
        self.issuer = issuer

    @property
    def metadata(self) -> dict[str, str]:
        return {"issuer": self.issuer}


class PermissionDenied(AntiphonError):
    """The credential is valid, but does not allow this."""

    reason = Reason.PERMISSION_DENIED


class ContentBlocked(AntiphonError):
    """A guard blocked the request. What it found is not disclosed."""

    reason = Reason.CONTENT_BLOCKED

    def __init__(self, guard: str) -> None:
        super().__init__(f"The request was blocked by the guard {guard!r}.")
        self.guard = guard

    @property
    def metadata(self) -> dict[str, str]:
        return {"guard": self.guard}


class ModelNotFound(AntiphonError):
    """The model does not exist."""

    reason = Reason.MODEL_NOT_FOUND

    def __init__(self, model: str) -> None:
        super().__init__(f"The model {model[:200]!r} does not exist. The models that do are listed by the models endpoint.")
        self.model = model

    @property
    def metadata(self) -> dict[str, str]:
        return {"model": self.model}


class ProviderNotFound(ModelNotFound):
    """The provider does not exist, so none of its models do."""

    def __init__(self, provider: str) -> None:
        AntiphonError.__init__(self, f"The provider {provider!r} does not exist.")
        self.provider = provider

    @property
    def metadata(self) -> dict[str, str]:
        return {"provider": self.provider}


class ContextUnavailable(AntiphonError):
    """The context that a client's conversations start with cannot be read, and no older copy of it is known."""

    reason = Reason.CONTEXT_UNAVAILABLE
    retryable = True

    def __init__(self, client: str) -> None:
        super().__init__(f"The context of the client {client!r} cannot be read at the moment.")
        self.client = client

    @property
    def metadata(self) -> dict[str, str]:
        return {"client": self.client}


class ConversationNotFound(AntiphonError):
    """No conversation of that id is visible to the caller."""

    reason = Reason.CONVERSATION_NOT_FOUND

    def __init__(self, conversation: str) -> None:
        super().__init__("The conversation does not exist.")
        self.conversation = conversation

    @property
    def metadata(self) -> dict[str, str]:
        return {"conversation": self.conversation}


class MessageNotFound(AntiphonError):
    """The conversation has no message of that id."""

    reason = Reason.MESSAGE_NOT_FOUND

    def __init__(self, message_id: str) -> None:
        super().__init__("The message does not exist in the conversation.")
        self.message_id = message_id

    @property
    def metadata(self) -> dict[str, str]:
        return {"message": self.message_id}


class ConversationChanged(AntiphonError):
    """Another call changed the conversation meanwhile."""

    reason = Reason.CONVERSATION_CHANGED
    retryable = True

    def __init__(self, conversation: str) -> None:
        super().__init__("The conversation has changed meanwhile. Read it again, then try again.")
        self.conversation = conversation

    @property
    def metadata(self) -> dict[str, str]:
        return {"conversation": self.conversation}


class TurnNotComplete(AntiphonError):
    """The turn of the request id was started earlier and broke off. The partial reply that was stored is final."""

    reason = Reason.TURN_NOT_COMPLETE

    def __init__(self, message_id: str) -> None:
        super().__init__("The turn of this request id broke off. Begin another one, with another request id.")
        self.message_id = message_id

    @property
    def metadata(self) -> dict[str, str]:
        return {"message": self.message_id}


class TurnInProgress(AntiphonError):
    """The turn of the request id was started earlier and is still running."""

    reason = Reason.TURN_IN_PROGRESS
    retryable = True

    def __init__(self, request_id: str) -> None:
        super().__init__("The turn of this request id is still going on. Try again when it has ended.", retry_after=1)
        self.request_id = request_id

    @property
    def metadata(self) -> dict[str, str]:
        return {"request_id": self.request_id}


class RequestIdReused(AntiphonError):
    """The request id belongs to a turn with other messages, so the request is not a retry of it."""

    reason = Reason.REQUEST_ID_REUSED

    def __init__(self, request_id: str) -> None:
        super().__init__("This request id was used for a turn with other messages. Another turn needs another request id.")
        self.request_id = request_id

    @property
    def metadata(self) -> dict[str, str]:
        return {"request_id": self.request_id}


class KeyNotFound(AntiphonError):
    """No API key has that id."""

    reason = Reason.KEY_NOT_FOUND

    def __init__(self, key: str) -> None:
        super().__init__("The key does not exist.")
        self.key = key

    @property
    def metadata(self) -> dict[str, str]:
        return {"key": self.key}


class KeyRevoked(AntiphonError):
    """The API key is revoked or expired, so it cannot be changed."""

    reason = Reason.KEY_REVOKED

    def __init__(self, key: str) -> None:
        super().__init__("The key is revoked, or has expired.")
        self.key = key

    @property
    def metadata(self) -> dict[str, str]:
        return {"key": self.key}


class RateLimited(AntiphonError):
    """A limit of the gateway was reached: `limit` is its name, `scope` what it applies to, and `quota` its size.

    `scope` is "key", "owner", "overall", or "worker" for the limit of one server process. A retry helps after `retry_after`
    seconds, unless the call alone exceeds the limit; then `retryable` is false.
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
    """The budget of the day or month is spent.

    The fields are those of `RateLimited`, with `quota` in USD. A retry before the end of the period fails again.
    """

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
    """The shared counters cannot be reached, and the configuration says to refuse calls then."""

    reason = Reason.LIMITS_UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__("The limits cannot be checked at the moment.")


class StoreUnavailable(AntiphonError):
    """The database is unreachable, full or too slow.

    Nothing was changed, unless the connection broke during the commit; then the outcome is unknown.
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
    """A bug in the gateway. The log has the details under the same request id."""

    reason = Reason.INTERNAL
    retryable = True

    def __init__(self) -> None:
        super().__init__("The gateway failed. Its log tells more under the request id.")


class ProviderError(AntiphonError):
    """A provider failed. `status` is its HTTP status, and `code` its own error code if that is safe to show to callers.

    `retryable` None: the default of the class applies.
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
    """The provider's own rate limit or quota was reached. A used-up quota is not worth a retry."""

    reason = Reason.PROVIDER_RATE_LIMITED
    retryable = True


class Rejection(Enum):
    """What a provider rejected a request for."""

    INVALID = auto()
    """A field of it, or anything that is not listed here."""
    TOO_LONG = auto()
    """It is longer than the model's context window."""
    REFUSED = auto()
    """A content filter of the provider."""
    STATE = auto()
    """A signature or encrypted content in it, which the provider cannot verify."""
    UNSUPPORTED = auto()
    """The provider's model lacks something that the request needs."""


class ProviderRejected(ProviderError):
    """The provider rejected the request because of its content."""

    reason = Reason.PROVIDER_REJECTED

    rejection: Rejection = Rejection.INVALID
    param: str | None = None
    """The field that the provider named, such as "messages[0].content"."""
    explanation: str | None = None
    """The provider's explanation, without keys and addresses, so that the caller may read it."""

    @property
    def metadata(self) -> dict[str, str]:
        return {**super().metadata, **({"param": self.param} if self.param else {})}


class ProviderCredentials(ProviderError):
    """The provider refused the gateway's key, or does not offer the configured model with it."""

    is_about_model = False
    """Whether the model is missing; otherwise the key was refused."""

    reason = Reason.PROVIDER_CREDENTIALS


class ProviderUnavailable(ProviderError):
    """The provider is unreachable, overloaded or broken.

    `retryable` is false if the provider would answer the same again, for example with a redirect.
    """

    reason = Reason.PROVIDER_UNAVAILABLE
    retryable = True

    was_reached = False
    """Whether it sent this error inside an answer with a good status. If not, and without a status, it was out of reach."""


class RouteUnavailable(ProviderError):
    """Every deployment that could answer failed so often that it is left alone for a while, or was taken out of use."""

    reason = Reason.ROUTE_UNAVAILABLE
    retryable = True

    def __init__(self, provider: str, retry_after: float | None = None) -> None:
        message = "Everything that could answer this model is failing, or out of use. It is tried again soon."
        super().__init__(message, provider=provider, retry_after=retry_after)


class ProviderTimeout(ProviderError):
    """The provider exceeded its timeout."""

    reason = Reason.PROVIDER_TIMEOUT
    retryable = True


class ProviderProtocolError(ProviderError):
    """The provider's reply was cut, or violated its protocol."""

    reason = Reason.PROVIDER_PROTOCOL
    retryable = True


def copy_of(error: ProviderError) -> ProviderError:
    """Return a copy of an error that was raised, without its traceback, which would keep the whole call in memory."""
    copied: ProviderError = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    return copied


def to_public_error(error: Exception) -> AntiphonError:
    """Return an `AntiphonError` unchanged, and any other exception as `Internal`, which discloses no details."""
    return error if isinstance(error, AntiphonError) else Internal()
