"""The proxy paths: a request goes to the provider that its path names, with the provider key that the caller sends.

The specification is the gateway's own document, and for what is passed on the OpenAI and Gemini API references. Bodies are checked,
so that an invalid request is not sent, but they are passed on byte for byte. Responses are passed back the same way, as they
arrive.

There are two keys. The gateway's is in `Authorization`, and is not passed on. The provider's is in the path (OpenAI), or in
`x-goog-api-key` or the query (Gemini), and is sent only to the provider. No headers are passed on but those that are named here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

import orjson
from google.api import httpbody_pb2

from antiphon.auth.base import Authenticator
from antiphon.config import CUT_TRAILERS
from antiphon.domain.call import current
from antiphon.domain.errors import (
    AntiphonError,
    InvalidRequest,
    ProviderCredentials,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
    Unauthenticated,
    Violation,
    to_public_error,
)
from antiphon.net.egress import Target
from antiphon.proxying.passthrough import Answer, Passthrough
from antiphon.rest.proxy.errors import gemini_error, openai_error
from antiphon.rest.proxy.proxied import check_gemini, check_openai, check_size, invalid
from antiphon.rest.shared.dialect import Context, Pieces
from antiphon.rest.shared.json import EVENT_STREAM
from antiphon.rest.v1 import proxy_pb2, proxy_pb2_grpc

QUERY: Final = "x-antiphon-query"
"""The metadata key of the query, which has no question mark. `gateway/status.lua` sets it."""

_OPENAI_HEADERS: Final = (
    "accept",
    "http-referer",  # with the next one, how OpenRouter learns the application's name
    "x-title",
    "idempotency-key",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "user-agent",
)
_GEMINI_HEADERS: Final = (
    "accept",
    "user-agent",
    "x-goog-api-client",
    "x-goog-api-key",
    "x-goog-user-project",
    "x-server-timeout",
)
_ANSWER_HEADERS: Final = re.compile(
    r"content-encoding|retry-after(-ms)?|x-should-retry|server-timing|openai-[a-z-]+|(x|anthropic)-ratelimit-[a-z-]+"
)

_RATE_LIMITS: Final = "x-ratelimit-"

_NAME: Final = re.compile(r"[A-Za-z0-9_.$-]{1,64}")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_GEMINI_TASK: Final = re.compile(r"[A-Za-z0-9._-]+:(generateContent|streamGenerateContent|countTokens)")
_GEMINI_VERSIONS: Final = frozenset({"v1", "v1alpha", "v1beta"})
_EVENT_ENDS: Final = (b"\n\n", b"\r\r", b"\r\n\r\n")


class ProxyServicer(proxy_pb2_grpc.ProxyServiceServicer):
    """Serves both proxies."""

    def __init__(self, passthrough: Passthrough, keys: Authenticator | None = None) -> None:
        """Take the authenticator of the gateway's own keys, which must not be passed on. None: there are no such keys."""
        self._passthrough = passthrough
        self._keys = keys

    async def ProxyChatCompletion(self, request: proxy_pb2.ProxyChatCompletionRequest, context: Context) -> Pieces:
        """Pass on a request of the OpenAI protocol, and yield the provider's response."""
        if not _VISIBLE.fullmatch(request.api_key):
            raise invalid("api_key", "must be a key of printable characters")
        await self._refuse_gateway_key(request.api_key, "api_key")
        target = self._target(request.proxy_url, "proxy_url", default_path="/v1")
        body = request.body.data
        await check_size(body)
        check_openai(body)
        metadata = _metadata(context)
        headers = _headers(metadata, _OPENAI_HEADERS, request.body)
        headers["authorization"] = f"Bearer {request.api_key}"
        answer = self._forward(target, "/chat/completions", metadata, headers, body, context, openai_error)
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                yield piece

    async def ProxyGemini(self, request: proxy_pb2.ProxyGeminiRequest, context: Context) -> Pieces:
        """Pass on a request of the Gemini protocol, and yield the provider's response."""
        target = self._target(request.gemini_url, "gemini_url")
        task = _GEMINI_TASK.fullmatch(request.model_name_and_task)
        if task is None:
            message = "must be a model, a colon, and generateContent, streamGenerateContent or countTokens"
            raise invalid("model_name_and_task", message)
        version = request.api_version or "v1beta"
        if version not in _GEMINI_VERSIONS:
            raise invalid("api_version", "must be v1, v1beta or v1alpha")
        body = request.body.data
        await check_size(body)
        check_gemini(body, count=task[1] == "countTokens")
        metadata = _metadata(context)
        headers = _headers(metadata, _GEMINI_HEADERS, request.body)
        path = f"/{version}/models/{request.model_name_and_task}"
        answer = self._forward(target, path, metadata, headers, body, context, gemini_error)
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                yield piece

    def _target(self, url: str, field: str, *, default_path: str = "") -> Target:
        """Return the target that a URL, host or alias names. Raises `InvalidRequest` (naming `field`), `PermissionDenied`."""
        try:
            return self._passthrough.policy.target(url, default_path=default_path)
        except InvalidRequest as error:
            violation = Violation((field,), error.message.removesuffix("."), "invalid_value")
            raise InvalidRequest(f"{field}: {error.message}", (violation,)) from None

    async def _refuse_gateway_key(self, key: str, field: str) -> None:
        """Raise `InvalidRequest` if a text sent as a provider key is a key of this gateway, valid or revoked."""
        key = key.strip()
        if key[:7].lower() == "bearer ":
            key = key[7:].strip()
        if self._keys is None or not key:
            return
        try:
            ours = await self._keys.authenticate(key) is not None
        except Unauthenticated:
            ours = True
        if ours:
            raise invalid(
                field, "must be a provider key; the gateway's key belongs in the header Authorization, and is not passed on"
            )

    async def _forward(
        self,
        target: Target,
        path: str,
        metadata: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        context: Context,
        error_object: Callable[[AntiphonError], dict[str, Any]],
    ) -> Pieces:
        """Send a checked request to the provider, and yield its response as it arrives; `headers` has the provider key.

        `error_object` makes the JSON of an error that occurs within a stream of events. Any other response is broken off then.
        Raises `InvalidRequest` for a gateway key among the headers or in the query, and what `Passthrough.post` raises. A response
        with an error status is passed back whole, and then raised as an error for the log.
        """
        query = metadata.get(QUERY, "")
        if query and (not _VISIBLE.fullmatch(query) or "#" in query):
            raise invalid("query", "must be printable ASCII, and percent-encoded where it is not")
        passing = ((name, value) for name, value in headers.items() if name != "authorization")  # made here from the checked key
        for name, value in (*_query_texts(query), *passing):
            await self._refuse_gateway_key(value, name)
        call = current()
        async with self._passthrough.post(call, target, path, query, headers, body) as answer:
            # An error before the first byte still becomes an HTTP status.
            first = await anext(answer, b"")
            content_type = _content_type(answer)
            answer_headers = answer_metadata(answer, headers)
            if any(
                name.startswith(_RATE_LIMITS) for name in answer_headers
            ):  # not a mixture of the gateway's limits and the provider's
                for name in [name for name in call.headers if name.startswith(_RATE_LIMITS)]:
                    del call.headers[name]
            call.headers.update(answer_headers)
            yield httpbody_pb2.HttpBody(content_type=content_type, data=first)
            tail = first[-4:]
            try:
                async for piece in answer:
                    yield httpbody_pb2.HttpBody(data=piece)
                    tail = (tail + piece)[-4:]
            except Exception as error:
                if content_type.lower().startswith(EVENT_STREAM):
                    event = b"data: " + orjson.dumps({"error": error_object(to_public_error(error))}) + b"\n\n"
                    yield httpbody_pb2.HttpBody(data=event if tail.endswith(_EVENT_ENDS) else b"\n\n" + event)
                else:
                    context.set_trailing_metadata(CUT_TRAILERS)
                raise
            if answer.status >= 400:
                raise upstream_error(answer, target)


def _query_texts(query: str) -> Iterator[tuple[str, str]]:
    """Yield a name for errors and a decoded text, for every text of a query.

    The names of the query's fields are texts as well: in `?<key>` the key is a name.
    """
    for field in query.split("&"):
        name, _, value = field.partition("=")
        name = unquote_plus(name)
        yield "query", name
        label = name if _NAME.fullmatch(name) else "query"
        yield label, unquote_plus(value)
        if "+" in value:
            yield label, unquote(value)


def _metadata(context: Context) -> dict[str, str]:
    return {str(name): str(value) for name, value in context.invocation_metadata() or ()}


def _headers(metadata: Mapping[str, str], passing: tuple[str, ...], body: httpbody_pb2.HttpBody) -> dict[str, str]:
    """Return the headers of the request to the provider. No compression is accepted, because it delays a stream."""
    headers = {name: metadata[name] for name in passing if name in metadata}
    content_type = body.content_type if _HEADER_VALUE.fullmatch(body.content_type) else ""
    return {**headers, "accept-encoding": "identity", "content-type": content_type or "application/json"}


def answer_metadata(answer: Answer, sent: Mapping[str, str]) -> dict[str, str]:
    """Return the status and headers to pass back, as metadata; `sent` are the headers of the request.

    Only headers about limits, times and format are passed back, and none that contains a key.
    """
    keys = [sent[name].removeprefix("Bearer ") for name in ("authorization", "x-goog-api-key") if sent.get(name)]
    passing: dict[str, str] = {}
    for written, value in answer.headers.items():
        name = written.lower()
        if name == "x-request-id":
            name = "x-upstream-request-id"  # the gateway's own is in `x-request-id`
        elif not _ANSWER_HEADERS.fullmatch(name) or name.endswith("-bin"):  # gRPC reads -bin as bytes
            continue
        if _HEADER_VALUE.fullmatch(value) and not any(key in value for key in keys):
            passing.setdefault(name, value)
    if answer.status == 429:
        passing.setdefault("retry-after", "1")
    return {"x-http-status": str(answer.status), **passing}


def _content_type(answer: Answer) -> str:
    written = answer.headers.get("content-type", "")
    # Envoy would take a gRPC content type for this server's own.
    fit = written and _HEADER_VALUE.fullmatch(written) and not written.lower().startswith("application/grpc")
    return written if fit else "application/octet-stream"


def upstream_error(answer: Answer, target: Target) -> ProviderError:
    """Return the error for the log and for a gRPC caller if the provider failed. Its body has been passed back already."""
    kind: type[ProviderError]
    match answer.status:
        case 401 | 403:
            kind = ProviderCredentials
        case 429:
            kind = ProviderRateLimited
        case status if status < 500:
            kind = ProviderRejected
        case _:
            kind = ProviderUnavailable
    return kind(f"The provider {target.name} answered with an error.", provider=target.name, status=answer.status)
