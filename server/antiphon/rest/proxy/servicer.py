"""The proxy paths: a caller's request goes to the provider that its path names, with the provider key that the caller brings.

Its source is the gateway's own document, and for what is passed on the OpenAI and Gemini API references. The bodies are looked at,
so that what cannot be right never leaves, but what leaves is what came, byte for byte; and so is what comes back, as it comes.

The two keys: the gateway's stands in `Authorization` and stays here; the provider's stands in the path (OpenAI), or in
`x-goog-api-key` or the query (Gemini), and leaves only for the provider. No header passes but those that are named here.
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
from antiphon.rest.shared.http import break_off
from antiphon.rest.shared.json import EVENT_STREAM
from antiphon.rest.v1 import proxy_pb2, proxy_pb2_grpc

QUERY: Final = "x-antiphon-query"
"""The metadata that holds the query, without the question mark. `gateway/status.lua` sets it."""

_OPENAI_HEADERS: Final = (
    "accept",
    "http-referer",  # OpenRouter's way to name the application, with the next
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
        """`keys` knows the gateway's own, which are kept from leaving; None: there are none."""
        self._passthrough = passthrough
        self._keys = keys

    async def ProxyChatCompletion(self, request: proxy_pb2.ProxyChatCompletionRequest, context: Context) -> Pieces:
        """The OpenAI protocol."""
        if not _VISIBLE.fullmatch(request.api_key):
            raise invalid("api_key", "must be a key of printable characters")
        await self._keep(request.api_key, "api_key")
        target = self._target(request.proxy_url, "proxy_url", default_path="/v1")
        body = request.body.data
        await check_size(body)
        check_openai(body)
        metadata = _metadata(context)
        headers = _headers(metadata, _OPENAI_HEADERS, request.body)
        headers["authorization"] = f"Bearer {request.api_key}"
        answer = self._pass(target, "/chat/completions", metadata, headers, body, context, openai_error)
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                yield piece

    async def ProxyGemini(self, request: proxy_pb2.ProxyGeminiRequest, context: Context) -> Pieces:
        """The Gemini protocol."""
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
        answer = self._pass(target, path, metadata, headers, body, context, gemini_error)
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                yield piece

    def _target(self, url: str, field: str, *, default_path: str = "") -> Target:
        try:
            return self._passthrough.policy.target(url, default_path=default_path)
        except InvalidRequest as error:
            violation = Violation((field,), error.message.removesuffix("."), "invalid_value")
            raise InvalidRequest(f"{field}: {error.message}", (violation,)) from None

    async def _keep(self, key: str, field: str) -> None:
        """Raises `InvalidRequest` for a key of this gateway, good or revoked, where the provider's belongs."""
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
                field, "must be a key of the provider's; the gateway's belongs in the header Authorization, and stays here"
            )

    async def _pass(
        self,
        target: Target,
        path: str,
        metadata: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        context: Context,
        error_object: Callable[[AntiphonError], dict[str, Any]],
    ) -> Pieces:
        query = metadata.get(QUERY, "")
        if query and (not _VISIBLE.fullmatch(query) or "#" in query):
            raise invalid("query", "must be printable ASCII, and percent-encoded where it is not")
        passing = ((name, value) for name, value in headers.items() if name != "authorization")  # that one was made here
        for name, value in (*_query_texts(query), *passing):
            await self._keep(value, name)
        call = current()
        async with self._passthrough.post(call, target, path, query, headers, body) as answer:
            # What fails before the first byte can still be told as a status.
            first = await anext(answer, b"")
            content_type = _content_type(answer)
            told_back = answer_metadata(answer, headers)
            if any(name.startswith(_RATE_LIMITS) for name in told_back):  # two accounts of limits in one would be read as one
                for name in [name for name in call.headers if name.startswith(_RATE_LIMITS)]:
                    del call.headers[name]
            call.headers.update(told_back)
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
                    break_off(context)
                raise
            if answer.status >= 400:
                raise failure(answer, target)


def _query_texts(query: str) -> Iterator[tuple[str, str]]:
    """Every text in a query, decoded, and by what name to tell of it; names too, as who writes `?<key>` sends a name."""
    for field in query.split("&"):
        name, _, value = field.partition("=")
        name = unquote_plus(name)
        yield "query", name
        told_as = name if _NAME.fullmatch(name) else "query"
        yield told_as, unquote_plus(value)
        if "+" in value:
            yield told_as, unquote(value)


def _metadata(context: Context) -> dict[str, str]:
    return {str(name): str(value) for name, value in context.invocation_metadata() or ()}


def _headers(metadata: Mapping[str, str], passing: tuple[str, ...], body: httpbody_pb2.HttpBody) -> dict[str, str]:
    """The headers of the request that leaves. No encoding is asked for: what is compressed comes late."""
    headers = {name: metadata[name] for name in passing if name in metadata}
    content_type = body.content_type if _HEADER_VALUE.fullmatch(body.content_type) else ""
    return {**headers, "accept-encoding": "identity", "content-type": content_type or "application/json"}


def answer_metadata(answer: Answer, sent: Mapping[str, str]) -> dict[str, str]:
    """The status and the headers that come back: those that say something of limits, time and form, and none with a key in it."""
    keys = [sent[name].removeprefix("Bearer ") for name in ("authorization", "x-goog-api-key") if sent.get(name)]
    passing: dict[str, str] = {}
    for written, value in answer.headers.items():
        name = written.lower()
        if name == "x-request-id":
            name = "x-upstream-request-id"  # the gateway's own is in `x-request-id`
        elif not _ANSWER_HEADERS.fullmatch(name) or name.endswith("-bin"):  # which gRPC would take for bytes
            continue
        if _HEADER_VALUE.fullmatch(value) and not any(key in value for key in keys):
            passing.setdefault(name, value)
    if answer.status == 429:
        passing.setdefault("retry-after", "1")
    return {"x-http-status": str(answer.status), **passing}


def _content_type(answer: Answer) -> str:
    written = answer.headers.get("content-type", "")
    # One that says gRPC would be taken for ours on the way.
    fit = written and _HEADER_VALUE.fullmatch(written) and not written.lower().startswith("application/grpc")
    return written if fit else "application/octet-stream"


def failure(answer: Answer, target: Target) -> ProviderError:
    """What the log and a gRPC caller are told of a provider's error, the words of which have been passed on already."""
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
