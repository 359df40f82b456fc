"""The engine dialect: POST /api/engine/chat/{provider}, GET /api/engine/providers, models and parameters, and GET /health.

Its specification is the gateway's own document, and where that leaves something open, LLMstudio 0.3 and 1.0, whose clients use the
dialect. The provider is always asked for a stream, so that the measured times are those of its tokens, also if the caller wants one
object. `retries`, `api_endpoint`, `api_version` and `base_url` are accepted and ignored: the operator decides where providers are,
and how often they are tried.
"""

from __future__ import annotations

import asyncio
from functools import partial

import orjson
from google.api import httpbody_pb2
from msgspec.structs import replace
from pydantic import SecretStr

from antiphon.auth.base import Authenticator
from antiphon.chat.catalog import Catalog
from antiphon.chat.service import ChatService
from antiphon.config import CUT_TRAILERS, MAX_KEYLESS_BYTES
from antiphon.domain.call import Call, current
from antiphon.domain.errors import (
    AntiphonError,
    Unauthenticated,
    Violation,
)
from antiphon.domain.principal import ANONYMOUS, Scope
from antiphon.rest.engine.answer import EngineChunkWriter, TextWriter, completion
from antiphon.rest.engine.request import PARAMETERS, EngineChat, EngineChatBody, key_from_json, request_from_body
from antiphon.rest.shared.answer import PreparedCall, Writer, answer
from antiphon.rest.shared.body import invalid, parse_in_turns
from antiphon.rest.shared.dialect import Context, Pieces
from antiphon.rest.shared.json import JSON
from antiphon.rest.v1 import engine_pb2, engine_pb2_grpc
from antiphon.routing.router import Router


class EngineServicer(engine_pb2_grpc.EngineServiceServicer):
    """Serves the dialect."""

    def __init__(
        self, chat: ChatService, router: Router, catalog: Catalog, keys: Authenticator, own_key_providers: tuple[str, ...]
    ) -> None:
        """Take the authenticator of the gateway's keys, and the providers that may be called with only a provider key."""
        self._chat = chat
        self._router = router
        self._catalog = catalog
        self._keys = keys
        self._own_key_providers = own_key_providers

    def CreateEngineChat(self, request: engine_pb2.CreateEngineChatRequest, context: Context) -> Pieces:
        """Answer a chat with one JSON object, with text, or with chunks.

        It is the only method here that may be called without a key in `authorization`.
        """
        call = current()
        return answer(self._chat, call, partial(self._prepare, call, request, context))

    async def _prepare(self, call: Call, request: engine_pb2.CreateEngineChatRequest, context: Context) -> PreparedCall:
        data = request.body.data
        if call.caller is ANONYMOUS:
            await self._authenticate_by_body(call, request.provider, data)
        self._router.models_at(request.provider)
        body = await parse_in_turns(data, EngineChatBody)
        chat = EngineChat(body, request.provider)
        chat_request = replace(request_from_body(body, chat), api_key=await self._provider_key(body))
        if not body.is_stream:
            return PreparedCall(chat_request, lambda reply: orjson.dumps(completion(reply, chat)), body_path=chat.path)
        writer: Writer = EngineChunkWriter(chat) if body.is_1x else TextWriter(end_token=bool(body.has_end_token))

        def error_event(_: AntiphonError) -> bytes:
            context.set_trailing_metadata(CUT_TRAILERS)  # plain text has no form for an error
            return b""

        return PreparedCall(chat_request, writer, error_event, body_path=chat.path)

    async def ListEngineProviders(self, request: engine_pb2.ListEngineProvidersRequest, context: Context) -> Pieces:
        """Yield the names of the providers."""
        yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps(self._router.providers()))

    async def ListEngineModels(self, request: engine_pb2.ListEngineModelsRequest, context: Context) -> Pieces:
        """Yield the models that the caller may use, by provider, or of the one provider that the query names."""
        names = [request.provider] if request.provider else self._router.providers()
        self._router.models_at(names[0])
        call = current()
        listed = await asyncio.gather(*(self._catalog.models_at(name, call.caller, call.time_left) for name in names))
        found = {
            name: {"name": name, "models": [entry.info.name for entry in entries]}
            for name, entries in zip(names, listed, strict=True)
        }
        data = found[request.provider] if request.provider else found
        yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps(data))

    async def ListEngineParameters(self, request: engine_pb2.ListEngineParametersRequest, context: Context) -> Pieces:
        """Yield the parameters that a chat may have, which are the same for every model."""
        if not request.provider:
            raise invalid(Violation(("query", "provider"), "Field required", "missing"))
        self._router.models_at(request.provider)
        yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps(PARAMETERS))

    async def GetHealth(self, request: engine_pb2.GetHealthRequest, context: Context) -> Pieces:
        """Yield a fixed object. A response means that the server accepts calls."""
        data = {"status": "healthy", "message": "Antiphon is up and running"}
        yield httpbody_pb2.HttpBody(content_type=JSON, data=orjson.dumps(data))

    async def _authenticate_by_body(self, call: Call, provider: str, data: bytes) -> None:
        """Authenticate a caller that sent no key in `authorization`. Raises `Unauthenticated`, before any other error.

        The caller may send a gateway key as `api_key`, the only place that these clients have for one, or a provider key if the
        provider is one of `own_key_providers`. Nothing else of the body is read before that, and no body longer than
        `MAX_KEYLESS_BYTES`. Raises `PermissionDenied` if the gateway key lacks the scope.
        """
        if len(data) > MAX_KEYLESS_BYTES:
            raise Unauthenticated(
                f'A body of more than {MAX_KEYLESS_BYTES // 1024} KiB needs its key as "Authorization: Bearer <key>".'
            )
        key = key_from_json(data)
        if key is not None:
            principal = await self._keys.authenticate(key)
            if principal is not None:
                call.caller = principal
                principal.require(Scope.ENGINE)
                call.log_fields.update(key=principal.name)
                return
            if provider in self._own_key_providers:
                return
        raise Unauthenticated('No API key. Send it as "Authorization: Bearer <key>", or as api_key in the body.')

    async def _provider_key(self, body: EngineChatBody) -> SecretStr | None:
        """Return the caller's provider key, if it sent one. A key of this gateway is not one, and is never passed on."""
        if body.api_key is None or await self._keys.authenticate(body.api_key.get_secret_value()) is not None:
            return None
        return body.api_key
