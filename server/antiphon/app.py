"""Puts the parts together: the only place that knows them all. Everything else is handed its collaborators.

What only some configurations need, and what takes megabytes of every worker, is imported where it is used: the Redis client, the
cryptography of tokens and certificates, and what guards look for things with.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
import structlog

from antiphon.auth.api_keys.static import load_keys
from antiphon.auth.api_keys.store import KeyStore
from antiphon.auth.api_keys.stored import StoredKeys
from antiphon.auth.audit import AuditLog
from antiphon.auth.base import Authenticator, Authenticators
from antiphon.chat.client_context import Contexts
from antiphon.chat.prices import Prices
from antiphon.chat.service import ChatService
from antiphon.config import AuthConfig, Config, ConfigError, GuardConfig, ProviderConfig, database_url
from antiphon.database.open import open_database
from antiphon.domain.errors import StoreUnavailable
from antiphon.domain.principal import Scope
from antiphon.guards.service import Guards
from antiphon.history.base import Conversations
from antiphon.history.guarded_store import GuardedStore
from antiphon.history.recorder import Recorder
from antiphon.history.sql import SqlStore
from antiphon.limits.ledger import Ledger
from antiphon.limits.limiter import Limiter
from antiphon.limits.quotas import Quotas
from antiphon.limits.report import UsageReport
from antiphon.providers import hosts, registry
from antiphon.providers.base import Provider
from antiphon.proxying.passthrough import Passthrough
from antiphon.rest.analytics import servicer as analytics
from antiphon.rest.assistant import servicer as assistant
from antiphon.rest.engine import servicer as engine
from antiphon.rest.openai import servicer as openai
from antiphon.rest.proxy import servicer as proxy
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
from antiphon.rpc.admin import AdminServicer
from antiphon.rpc.admission import ErrorRenderer
from antiphon.rpc.chat import ChatServicer
from antiphon.rpc.history import HistoryServicer
from antiphon.rpc.interceptor import CallInterceptor
from antiphon.rpc.models import ModelServicer
from antiphon.rpc.server import UNIX, Server
from antiphon.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    chat_pb2,
    chat_pb2_grpc,
    history_pb2,
    history_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)

if TYPE_CHECKING:
    from antiphon.auth.tokens.authenticator import Tokens
    from antiphon.net.certificates import Certificates

HEARTBEAT = 5.0
"""Seconds between two signs of life."""

PRUNING = 3600.0
"""Seconds between two prunings of the audit log."""

SETTLING = 10.0
"""Seconds that a stop waits for turns to be stored."""

ECHO = ProviderConfig(protocol="echo", models=("echo",))

log = structlog.get_logger(__name__)


def provider_configs(config: Config, environment: Mapping[str, str]) -> dict[str, ProviderConfig]:
    """The providers: those configured; else those whose environment variable is set, and `echo`. Raises `ConfigError`."""
    if config.providers:
        return {name: hosts.complete(name, provider, environment) for name, provider in config.providers.items()}
    return {**hosts.from_environment(environment), "echo": ECHO}


class App:
    """One server process: its providers, its routes, its services. Building it checks the whole configuration."""

    def __init__(self, config: Config, environment: Mapping[str, str]) -> None:
        """Raises `ConfigError`. Opens nothing yet."""
        configs = provider_configs(config, environment)
        self.providers: list[tuple[Provider, Sequence[str]]] = [
            (registry.build(name, provider, environment), provider.models) for name, provider in configs.items()
        ]
        keyed = {name for name, provider in configs.items() if provider.has_key} | {*config.engine.own_key_providers}
        self.router = Router(self.providers, config.models.default, keyed)
        self._config = config
        self._database = open_database(database_url(config), config.database.timeout)
        guards = _guards(config.guards)
        self._store = SqlStore(self._database)
        self._conversations: Conversations = self._store if guards is None else GuardedStore(self._store, guards)
        self._audit = AuditLog(self._database)
        self._key_store = KeyStore(self._database, config.auth.reserved)
        self._stored_keys = StoredKeys(self._key_store)
        self._tokens = _tokens(config.auth, environment)
        kinds: list[Authenticator] = [load_keys(config.auth, environment), self._stored_keys]
        self._callers = Authenticators(*kinds, *([] if self._tokens is None else [self._tokens]))
        prices = Prices(config.prices, {name: provider.base_url for name, provider in configs.items()})
        self._ledger = Ledger(self._database)
        self._limiter = _limiter(config, environment, self._ledger)
        timeout = config.limits.request_timeout
        self._recorder = Recorder(self._store)
        self._chat = ChatService(self.router, self._recorder, prices, timeout=timeout, limiter=self._limiter, guards=guards)
        self._passthrough = Passthrough(config.proxy, timeout=timeout, limiter=self._limiter)
        self._contexts = Contexts(config.clients, environment)
        for name in config.engine.own_key_providers:
            if name not in configs:
                raise ConfigError(f"engine.own_key_providers: there is no provider {name!r}")

    @property
    def in_flight(self) -> int:
        """Calls that are going on."""
        return self._chat.in_flight + self._passthrough.in_flight

    async def serve(self, addresses: Sequence[str], stop: asyncio.Event) -> None:
        """Serves gRPC on `addresses` until `stop` is set, then stops gracefully. Raises `OSError` for one that is taken."""
        limits = self._config.limits
        interceptor = CallInterceptor(
            self._callers,
            _scopes(),
            _renderers(),
            self._audit,
            limits.calls_per_worker,
            limits.request_bytes_per_worker,
            self._config.streams.heartbeat,
            edge_by_tcp=not any(address.startswith(UNIX) for address in addresses),
        )
        server = Server(interceptor, self._services())
        certificates = _certificates(self._config)
        grpc_tls = certificates.get("grpc.tls")
        for address in addresses:
            server.listen(address, None if grpc_tls is None or address.startswith(UNIX) else grpc_tls.credentials())
        if not any(address.startswith(UNIX) for address in addresses):
            certificates.pop("rest.tls", None)  # of an edge elsewhere
        await self._limiter.start()
        keeping = [
            asyncio.create_task(self._keep_house(list(certificates.values()))),
            asyncio.create_task(self._recorder.keep(self._config.database.keep_interval)),
        ]
        await server.start()
        # A full collection looks at all that was imported, for 30 ms in which nobody is served. None of that ever becomes garbage.
        gc.collect()
        gc.freeze()
        log.info("serving", addresses=list(addresses), models=len(self.router.models()), default=self.router.default)
        await stop.wait()
        log.info("draining", calls=self.in_flight, seconds=self._config.limits.drain)
        await server.stop(self._config.limits.drain, self._interrupt)
        await self._chat.settled(SETTLING)
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)
        with suppress(StoreUnavailable):
            await self._audit.write()
        await self._limiter.close()
        await self._database.close()
        for provider, _ in self.providers:
            await provider.close()
        await self._passthrough.close()
        await self._contexts.close()
        if self._tokens is not None:
            await self._tokens.close()
        log.info("stopped")

    async def _keep_house(self, certificates: Sequence[Certificates]) -> None:
        """Says that this process lives, settles the turns of those that do not, and writes what need not be written at once."""
        pruned = -PRUNING
        while True:
            for held in certificates:
                held.refresh()
            try:
                if time.monotonic() - pruned > PRUNING:
                    await self._audit.prune()
                    pruned = time.monotonic()
                await self._store.heartbeat()
                settled = await self._store.settle()
                if settled:
                    log.warning("turns of a process that is gone were settled", count=settled)
                await self._stored_keys.write_uses()
                await self._audit.keep()
            except StoreUnavailable:
                pass  # the store has told why
            except Exception:  # a fault of ours; what lives by this loop, lives on
                log.exception("house not kept")
            await asyncio.sleep(HEARTBEAT)

    def _interrupt(self) -> None:
        self._chat.interrupt()
        self._passthrough.interrupt()

    def _services(self) -> list[tuple[str, Callable[[grpc.aio.Server], None]]]:
        chat = ChatServicer(self._chat)
        models = ModelServicer(self.router)
        history = HistoryServicer(self._conversations)
        sessions = self._config.sessions.automatic
        dialect = openai.OpenAIServicer(self._chat, self.router, int(time.time()), automatic_sessions=sessions)
        chats = assistant.AssistantServicer(self._chat, self._conversations, self._config.personas)
        proxies = proxy.ProxyServicer(self._passthrough, self._callers)
        clients = analytics.AnalyticsServicer(self._chat, self._contexts)
        admin = AdminServicer(self._key_store, self._audit, UsageReport(self._database))
        measured = engine.EngineServicer(self._chat, self.router, self._callers, self._config.engine.own_key_providers)
        return [
            (_name(chat_pb2, "ChatService"), lambda s: chat_pb2_grpc.add_ChatServiceServicer_to_server(chat, s)),
            (_name(models_pb2, "ModelService"), lambda s: models_pb2_grpc.add_ModelServiceServicer_to_server(models, s)),
            (_name(history_pb2, "HistoryService"), lambda s: history_pb2_grpc.add_HistoryServiceServicer_to_server(history, s)),
            (_name(admin_pb2, "AdminService"), lambda s: admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, s)),
            (_name(openai_pb2, "OpenAIService"), lambda s: openai_pb2_grpc.add_OpenAIServiceServicer_to_server(dialect, s)),
            (
                _name(assistant_pb2, "AssistantService"),
                lambda s: assistant_pb2_grpc.add_AssistantServiceServicer_to_server(chats, s),
            ),
            (
                _name(analytics_pb2, "AnalyticsService"),
                lambda s: analytics_pb2_grpc.add_AnalyticsServiceServicer_to_server(clients, s),
            ),
            (_name(engine_pb2, "EngineService"), lambda s: engine_pb2_grpc.add_EngineServiceServicer_to_server(measured, s)),
            (_name(proxy_pb2, "ProxyService"), lambda s: proxy_pb2_grpc.add_ProxyServiceServicer_to_server(proxies, s)),
        ]


async def until_told(app: App, addresses: Sequence[str]) -> None:
    """Serves until SIGTERM or SIGINT. Raises as `App.serve`."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await app.serve(addresses, stop)


def _scopes() -> dict[str, Scope]:
    """What a caller of each service needs, and of the methods that differ."""
    chats = _name(assistant_pb2, "AssistantService")
    return {
        _name(chat_pb2, "ChatService"): Scope.CHAT,
        _name(models_pb2, "ModelService"): Scope.CHAT,
        _name(history_pb2, "HistoryService"): Scope.HISTORY,
        _name(admin_pb2, "AdminService"): Scope.ADMIN,
        _name(openai_pb2, "OpenAIService"): Scope.CHAT,
        _name(analytics_pb2, "AnalyticsService"): Scope.ADMIN,
        _name(engine_pb2, "EngineService"): Scope.ENGINE,
        _name(proxy_pb2, "ProxyService"): Scope.PROXY,
        chats: Scope.HISTORY,
        **{f"{chats}/{talk}": Scope.CHAT for talk in ("Generate", "GenerateStream", "Chat")},
    }


def _tokens(auth: AuthConfig, environment: Mapping[str, str]) -> Tokens | None:
    if not auth.tokens:
        return None
    from antiphon.auth.tokens.authenticator import load_tokens

    return load_tokens(auth, environment)


def _certificates(config: Config) -> dict[str, Certificates]:
    """By the setting. What Envoy shows is only told of here: a certificate that ends, or a file that is broken."""
    named = {"grpc.tls": config.grpc.tls, "rest.tls": config.rest.tls}
    if not any(named.values()):
        return {}
    from antiphon.net.certificates import Certificates

    return {setting: Certificates(setting, tls) for setting, tls in named.items() if tls is not None}


def _guards(configs: Sequence[GuardConfig]) -> Guards | None:
    if not configs:
        return None
    from antiphon.guards.registry import build_guards

    return build_guards(configs)


def _limiter(config: Config, environment: Mapping[str, str], ledger: Ledger) -> Limiter:
    limits = config.limits
    redis = limits.redis(environment)
    shared = None
    if redis is not None:
        from antiphon.limits.redis import RedisCounters

        shared = RedisCounters(redis, limits.redis_timeout)
    return Limiter(
        Quotas(limits),
        ledger,
        workers=config.workers,
        shared=shared,
        closed=limits.on_failure == "closed",
    )


def _renderers() -> dict[str, ErrorRenderer]:
    """How each dialect tells an error, by service; the proxies answer as the API does that is behind them."""
    proxies = _name(proxy_pb2, "ProxyService")
    return {
        _name(analytics_pb2, "AnalyticsService"): analytics.render_error,
        _name(engine_pb2, "EngineService"): engine.render_error,
        _name(openai_pb2, "OpenAIService"): openai.render_error,
        _name(assistant_pb2, "AssistantService"): assistant.render_error,
        proxies: proxy.render_openai_error,
        f"{proxies}/ProxyGemini": proxy.render_gemini_error,
    }


def _name(module: object, service: str) -> str:
    full: str = module.DESCRIPTOR.services_by_name[service].full_name  # type: ignore[attr-defined]  # every generated module has it
    return full
