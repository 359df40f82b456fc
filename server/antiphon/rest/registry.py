"""The REST dialects, one row each: its servicer, what its methods need and return, and the shape of its errors.

The server, the OpenAPI document and Envoy's files are generated from these rows and from the protos that they name. To add a
dialect, add a proto, a folder beside this file, and a row; `make proto` then writes the parts of Envoy's configuration that depend
on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from msgspec import Struct

from antiphon.auth.base import Authenticator
from antiphon.chat.catalog import Catalog
from antiphon.chat.client_context import Contexts
from antiphon.chat.service import ChatService
from antiphon.config import Config
from antiphon.domain.principal import Scope
from antiphon.history.base import Conversations
from antiphon.proxying.passthrough import Passthrough
from antiphon.rest.analytics import errors as analytics_errors
from antiphon.rest.analytics import methods as analytics_methods
from antiphon.rest.analytics.servicer import AnalyticsServicer
from antiphon.rest.assistant import errors as assistant_errors
from antiphon.rest.assistant import methods as assistant_methods
from antiphon.rest.assistant.servicer import AssistantServicer
from antiphon.rest.engine import errors as engine_errors
from antiphon.rest.engine import methods as engine_methods
from antiphon.rest.engine.servicer import EngineServicer
from antiphon.rest.openai import errors as openai_errors
from antiphon.rest.openai import methods as openai_methods
from antiphon.rest.openai.servicer import OpenAIServicer
from antiphon.rest.proxy import errors as proxy_errors
from antiphon.rest.proxy import methods as proxy_methods
from antiphon.rest.proxy.servicer import ProxyServicer
from antiphon.rest.shared.dialect import ErrorRenderer, ErrorShape, Method
from antiphon.rest.v1 import (
    analytics_pb2,
    analytics_pb2_grpc,
    assistant_pb2,
    assistant_pb2_grpc,
    engine_pb2,
    engine_pb2_grpc,
    openai_pb2,
    openai_pb2_grpc,
    proxy_pb2,
    proxy_pb2_grpc,
)
from antiphon.routing.router import Router


class Parts(Struct, frozen=True):
    """The collaborators from which servicers are built. Each servicer gets only those that it needs."""

    config: Config
    chat: ChatService
    router: Router
    catalog: Catalog
    conversations: Conversations
    passthrough: Passthrough
    contexts: Contexts
    callers: Authenticator


class Dialect(Struct, frozen=True):
    """One REST dialect: a row of `DIALECTS`."""

    name: str
    """Its name in Envoy's files and in the access log."""
    service: ServiceDescriptor
    contract: type
    """The generated class of the service. Its docstrings are the comments of the proto."""
    add: Callable[[Any, grpc.aio.Server], None]
    """The generated function that adds a servicer to a server."""
    servicer: Callable[[Parts], Any]
    """Builds the servicer."""
    methods: Mapping[str, Method]
    """Every method of the service, by name."""
    errors: ErrorShape

    def register(self, parts: Parts, server: grpc.aio.Server) -> None:
        """Build the dialect's servicer from `parts`, and add it to a gRPC server."""
        self.add(self.servicer(parts), server)

    def errors_of(self, method: str) -> ErrorShape:
        """Return the shape of a method's errors: its own if it has one, else the dialect's."""
        return self.methods[method].errors or self.errors


DIALECTS: Final = (
    Dialect(
        "openai",
        openai_pb2.DESCRIPTOR.services_by_name["OpenAIService"],
        openai_pb2_grpc.OpenAIServiceServicer,
        openai_pb2_grpc.add_OpenAIServiceServicer_to_server,
        lambda parts: OpenAIServicer(
            parts.chat,
            parts.catalog,
            int(time.time()),
            automatic_sessions=parts.config.sessions.automatic,
            sole=_sole_provider(parts.router),
        ),
        openai_methods.METHODS,
        openai_errors.ERRORS,
    ),
    Dialect(
        "assistant",
        assistant_pb2.DESCRIPTOR.services_by_name["AssistantService"],
        assistant_pb2_grpc.AssistantServiceServicer,
        assistant_pb2_grpc.add_AssistantServiceServicer_to_server,
        lambda parts: AssistantServicer(parts.chat, parts.conversations, parts.config.personas),
        assistant_methods.METHODS,
        assistant_errors.ERRORS,
    ),
    Dialect(
        "analytics",
        analytics_pb2.DESCRIPTOR.services_by_name["AnalyticsService"],
        analytics_pb2_grpc.AnalyticsServiceServicer,
        analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server,
        lambda parts: AnalyticsServicer(parts.chat, parts.contexts),
        analytics_methods.METHODS,
        analytics_errors.ERRORS,
    ),
    Dialect(
        "engine",
        engine_pb2.DESCRIPTOR.services_by_name["EngineService"],
        engine_pb2_grpc.EngineServiceServicer,
        engine_pb2_grpc.add_EngineServiceServicer_to_server,
        lambda parts: EngineServicer(parts.chat, parts.router, parts.catalog, parts.callers, parts.config.engine.own_key_providers),
        engine_methods.METHODS,
        engine_errors.ERRORS,
    ),
    Dialect(
        "proxy",
        proxy_pb2.DESCRIPTOR.services_by_name["ProxyService"],
        proxy_pb2_grpc.ProxyServiceServicer,
        proxy_pb2_grpc.add_ProxyServiceServicer_to_server,
        lambda parts: ProxyServicer(parts.passthrough, parts.callers),
        proxy_methods.METHODS,
        proxy_errors.OPENAI,
    ),
)
"""Envoy finds the dialect of a request that it refuses by the path, in this order: the first pattern that fits decides."""


def _sole_provider(router: Router) -> str:
    """Return the only provider, if there is one, with one deployment, that speaks OpenAI's chat completions; else nothing."""
    match router.deployments():
        case [deployment] if deployment.config.protocol == "openai":
            return deployment.name
        case _:
            return ""


def scopes() -> dict[str, Scope | None]:
    """Return the scope that the caller's key needs, by full method name. None: no key is needed."""
    return {full_name(dialect, name): method.scope for dialect in DIALECTS for name, method in dialect.methods.items()}


def renderers() -> dict[str, ErrorRenderer]:
    """Return the functions that turn an error into an HTTP response, by full method name."""
    return {full_name(dialect, name): dialect.errors_of(name).render for dialect in DIALECTS for name in dialect.methods}


def keys_in_body() -> frozenset[str]:
    """Return the full names of the methods that accept an API key in the body."""
    return frozenset(
        full_name(dialect, name) for dialect in DIALECTS for name, method in dialect.methods.items() if method.key_in_body
    )


def full_name(dialect: Dialect, method: str) -> str:
    """Return the full name of a method, such as "antiphon.rest.v1.OpenAIService/ListModels"."""
    return f"{dialect.service.full_name}/{method}"
