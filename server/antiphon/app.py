"""The composition root of a server process: the only module that knows all parts, and passes each its collaborators.

Parts that only some configurations need, and that take megabytes in every worker, are imported where they are used: the Redis
client (6.3 MB), the metrics, the traces (3 MB), and the cryptography of tokens (10 MB) and certificates (9 MB).
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from antiphon.auth.api_keys.static import credentials_of, load_keys
from antiphon.auth.api_keys.store import KeyStore
from antiphon.auth.api_keys.stored import StoredKeys
from antiphon.auth.audit import AuditLog
from antiphon.auth.base import Authenticator, Authenticators
from antiphon.chat.catalog import Catalog
from antiphon.chat.client_context import Contexts
from antiphon.chat.prices import Prices
from antiphon.chat.service import ChatService
from antiphon.config import AuthConfig, Config, ConfigError, ProviderConfig, database_url
from antiphon.database.base import Database
from antiphon.database.contact import first_contact
from antiphon.database.open import open_database
from antiphon.domain.errors import StoreUnavailable
from antiphon.guards.registry import build_guards
from antiphon.history.base import Conversations
from antiphon.history.guarded_store import GuardedStore
from antiphon.history.recorder import Recorder
from antiphon.history.retention import Retention
from antiphon.history.sql import SqlStore
from antiphon.limits.counting import Counting
from antiphon.limits.ledger import Ledger
from antiphon.limits.limiter import Limiter
from antiphon.limits.quotas import Quotas
from antiphon.limits.report import UsageReport
from antiphon.net import outbound
from antiphon.net.coalescing import Coalescer
from antiphon.owners.data import Owners
from antiphon.providers import hosts
from antiphon.providers.base import Provider
from antiphon.proxying.passthrough import Passthrough
from antiphon.rest import registry as rest
from antiphon.routing.drains import Drains
from antiphon.routing.handover import read, write
from antiphon.routing.pools import build_pool
from antiphon.routing.router import Router
from antiphon.rpc.handlers import CallHandlers
from antiphon.rpc.housekeeping import Housekeeper
from antiphon.rpc.registry import services
from antiphon.rpc.server import UNIX_PREFIX, Server
from antiphon.telemetry.call_log import CallLog
from antiphon.telemetry.lag import watch_lag
from antiphon.telemetry.names import wants_latest
from antiphon.telemetry.observer import Observers

if TYPE_CHECKING:
    from antiphon.auth.tokens.authenticator import Tokens
    from antiphon.net.certificates import Certificates
    from antiphon.routing.shared import SharedCooldowns
    from antiphon.telemetry.metrics import CallMetrics
    from antiphon.telemetry.tracing import Tracing

OPENING = 2.0
"""Seconds that a server waits for the database before it opens its ports. After that, probes are answered with what it waits for.

During a reload, old and new process share an address, and new connections go to the new one as soon as it listens. If all is well
it is ready by then.
"""

YOUNG = 5000
"""How many more objects are made than freed until Python looks for cycles among them. With its default of 700 most of those it
looks at belong to calls in flight: at 64 calls at once this takes 7 % of the CPU time of a call, and more of a recorded one."""

SETTLING = 10.0
"""Seconds that a stop waits for turns to be stored."""

log = structlog.get_logger(__name__)


class App:
    """One server process: its providers, its routes and its services. Creating it checks the whole configuration."""

    def __init__(self, config: Config, environment: Mapping[str, str]) -> None:
        """Build all parts. Opens no port, file or connection. Raises `ConfigError`."""
        configs = hosts.configured(config.providers, environment)
        coalescer = Coalescer(config.streams.coalesce)
        counting = _counting(config, environment)
        pools = [
            (build_pool(name, provider, config.routing, environment, counting, coalescer), provider.models)
            for name, provider in configs.items()
        ]
        self.providers: list[Provider] = [deployment.provider for pool, _ in pools for deployment in pool.deployments]
        keyed = {name for name, provider in configs.items() if provider.has_key} | {*config.engine.own_key_providers}
        self.router = Router(pools, config.models.default, keyed, aliases=config.models.aliases, rules=config.routing)
        self._config = config
        self.missing: list[str] = ["a server that has started"]
        """The reasons, for people, why this process does not accept calls yet; empty once it does."""
        self.leaving = False
        """True once a stop has started."""
        self.replaced = False
        """True if the stop is because another process replaces this one."""
        self._database = open_database(
            database_url(config, environment),
            config.database.timeout,
            connections=config.database.connections,
            pooler=config.database.pooler,
            statement_cache=config.database.keeps_statements,
        )
        self._drains = Drains(self._database, self.router)
        self._cooldowns = _cooldowns(config, environment, self.router)
        guards = build_guards(config.guards)
        self._store = SqlStore(self._database)
        self._conversations: Conversations = self._store if guards is None else GuardedStore(self._store, guards)
        self._audit = AuditLog(self._database)
        self._key_store = KeyStore(self._database, config.auth.reserved)
        self._stored_keys = StoredKeys(self._key_store)
        self._tokens = _tokens(config.auth, environment)
        authenticators: list[Authenticator] = [load_keys(config.auth, environment), self._stored_keys]
        self._callers = Authenticators(*authenticators, *([] if self._tokens is None else [self._tokens]))
        by_deployment = {
            f"{name}/{label}": deployment.prices
            for name, provider in configs.items()
            for label, deployment in provider.deployments.items()
            if deployment.prices
        }
        prices = Prices(config.prices, {name: provider.base_url for name, provider in configs.items()}, by_deployment)
        self._catalog = Catalog(
            self.router,
            self.providers,
            prices,
            list_providers=config.models.list_providers,
            refresh=config.models.refresh,
        )
        self._ledger = Ledger(self._database)
        self.metrics = _metrics(config, environment, self.router, lambda: self.buffered, lambda: coalescer.pause)
        self._tracing = _tracing(config, environment, configs)
        optional = (self.metrics, self._tracing)
        self._observer = Observers([CallLog(), self._ledger, *(listener for listener in optional if listener is not None)])
        closed = config.limits.on_failure == "closed"
        self._limiter = Limiter(Quotas(config.limits), self._ledger, counting=counting, closed=closed)
        timeout = config.limits.request_timeout
        self._recorder = Recorder(self._store)
        self._chat = ChatService(self.router, self._recorder, prices, timeout=timeout, limiter=self._limiter, guards=guards)
        self._passthrough = Passthrough(
            config.proxy, timeout=timeout, limiter=self._limiter, outbound=outbound.build("proxy", config.proxy, environment)
        )
        self._contexts = Contexts(config.clients, environment)
        for name in config.engine.own_key_providers:
            if name not in configs:
                raise ConfigError(f"engine.own_key_providers: there is no provider {name!r}")

    @property
    def in_flight(self) -> int:
        """Return the number of calls in progress."""
        return self._chat.in_flight + self._passthrough.in_flight

    @property
    def buffered(self) -> int:
        """Return the bytes of replies that wait for callers to read them. May be called by any thread."""
        return sum(provider.buffered for provider in self.providers) + self._passthrough.buffered

    async def serve(self, addresses: Sequence[str], stop: asyncio.Event, retire: asyncio.Event | None = None) -> None:
        """Serve gRPC on `addresses` until `stop` is set, then stop gracefully. Raises `OSError` if an address is in use.

        The server becomes ready after its first contact with the database. From then on it stays ready, even if the database or a
        provider fails: otherwise all servers would become unready at once.

        `retire` stops it as well, but gives calls in flight the full time that a call may take, unless `stop` is set meanwhile.
        """
        edge_here = any(address.startswith(UNIX_PREFIX) for address in addresses)
        server = self._server(edge_here=edge_here)
        certificates = _certificates(self._config, edge_here=edge_here)
        grpc_tls = certificates.get("grpc.tls")
        credentials = None if grpc_tls is None else grpc_tls.credentials()
        contact = asyncio.create_task(first_contact(self._database))
        stopping = asyncio.create_task(_first(stop, retire or stop))
        await asyncio.wait([contact, stopping], return_when=asyncio.FIRST_COMPLETED, timeout=OPENING)
        await self._limiter.start()
        if self._tracing is not None:
            self._tracing.start()
        housekeeper = Housekeeper(
            self._store, self._stored_keys, self._audit, list(certificates.values()), _prunings(self._config, self._database)
        )
        background = self._background(housekeeper)
        if not contact.done():
            server.start_unready()
        _begin_collections()
        # The event loop would register each asynchronous generator, to close it at the end. Here who uses one closes it.
        sys.set_asyncgen_hooks(firstiter=None)
        for address in addresses:
            server.listen(address, None if address.startswith(UNIX_PREFIX) else credentials)
        await server.start()
        self.missing = ["the first contact with the database"]
        await asyncio.wait([contact, stopping], return_when=asyncio.FIRST_COMPLETED)
        if contact.done():
            contact.result()
            self.missing = []
            server.turn_ready()
            log.info("serving", addresses=list(addresses), models=len(self.router.models()), default=self.router.default)
        await stopping
        contact.cancel()
        self.leaving, self.replaced = True, not stop.is_set()
        await self._drain(server, stop)
        await self._chat.settled(SETTLING)
        for task in background:
            task.cancel()
        await asyncio.wait(background)
        with suppress(StoreUnavailable):
            await self._audit.write()
        await self._limiter.close()
        if self._cooldowns is not None:
            await self._cooldowns.close()
        await self._database.close()
        await self._catalog.close()
        for provider in self.providers:
            await provider.close()
        await self._passthrough.close()
        await self._contexts.close()
        if self._tokens is not None:
            await self._tokens.close()
        self._observer.stopped()
        log.info("stopped")

    def _background(self, housekeeper: Housekeeper) -> list[asyncio.Task[None]]:
        """Start everything that runs as long as the server does."""
        work = [housekeeper.run(), self._drains.run(), self._recorder.checkpoint_every(self._config.database.keep_interval)]
        if self._cooldowns is not None:
            work.append(self._cooldowns.run())
        if self.metrics is not None:
            work.append(watch_lag(self.metrics.lag))
        return [asyncio.create_task(each) for each in work]

    async def _drain(self, server: Server, stop: asyncio.Event) -> None:
        """Accept no more calls, and wait for those in flight, at most for `limits.drain` seconds.

        After `stop`, callers first get `limits.drain_delay` to find another server. A process that is replaced skips that, as its
        successor serves the same addresses, and waits for as long as a call may take, unless `stop` is set meanwhile.
        """
        limits = self._config.limits
        longest = max(limits.drain, limits.request_timeout) if self.replaced else limits.drain
        delay = 0.0 if self.replaced else limits.drain_delay
        log.info("draining", calls=self.in_flight, delay=delay, seconds=longest)
        if not self.replaced:
            server.turn_unready()
            await asyncio.sleep(delay)
        stopping = asyncio.create_task(server.stop(longest, self._interrupt, replaced=self.replaced))
        if longest > limits.drain:
            stop_set = asyncio.create_task(stop.wait())
            await asyncio.wait([stopping, stop_set], return_when=asyncio.FIRST_COMPLETED)
            stop_set.cancel()
            await asyncio.wait([stopping], timeout=limits.drain)
            self._interrupt()
        await stopping

    def _interrupt(self) -> None:
        self._chat.interrupt()
        self._passthrough.interrupt()

    def _server(self, *, edge_here: bool) -> Server:
        """Return the server with all its services. `edge_here` says that Envoy connects by a unix socket."""
        config, usage = self._config, UsageReport(self._database)
        owners = Owners(self._database, credentials_of(config.auth))
        catalog, drains = self._catalog, self._drains
        typed = services(self._chat, catalog, self.router, self._conversations, self._key_store, self._audit, usage, owners, drains)
        parts = rest.Parts(
            config=config,
            chat=self._chat,
            router=self.router,
            catalog=self._catalog,
            conversations=self._conversations,
            passthrough=self._passthrough,
            contexts=self._contexts,
            callers=self._callers,
        )
        handlers = CallHandlers(
            self._callers,
            {**{service.name: service.scope for service in typed}, **rest.scopes()},
            rest.renderers(),
            self._audit,
            self._observer,
            max_calls=config.limits.calls_per_worker,
            max_request_bytes=config.limits.request_bytes_per_worker,
            heartbeat=config.streams.heartbeat,
            keys_in_body=rest.keys_in_body(),
            edge_by_tcp=not edge_here,
        )
        registrations = [(service.name, service.register) for service in typed]
        registrations += [(dialect.service.full_name, partial(dialect.register, parts)) for dialect in rest.DIALECTS]
        return Server(handlers, registrations, longest=config.limits.request_timeout)


async def serve_until_signalled(app: App, addresses: Sequence[str], handover: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT; SIGUSR1 also stops it, but gives calls their full time. Raises as `App.serve` does.

    `handover` is the file in which a process that this one replaces has left what it knows of its deployments. SIGUSR2 writes it
    anew, for the process that will replace this one.
    """
    stop, retire = asyncio.Event(), asyncio.Event()
    if handover is not None:
        read(handover, app.router.deployments())
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, write, handover, app.router.deployments())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, retire.set)
    await app.serve(addresses, stop, retire)


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _begin_collections() -> None:
    """Begin to collect garbage. What is imported by now is frozen: to look through it would stop the event loop for 30 ms."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


def _metrics(
    config: Config, environment: Mapping[str, str], router: Router, buffered: Callable[[], float], coalescing: Callable[[], float]
) -> CallMetrics | None:
    """Return the metrics, or None if `metrics.listen` is not set. Only names from the configuration may be labels."""
    if config.metrics.listen is None:
        return None
    from antiphon.telemetry.metrics import CallMetrics

    targets = {urlsplit(url).hostname or "" for url in (*config.proxy.allow, *config.proxy.aliases.values())}
    models = {provider: router.models_at(provider) for provider in router.providers()}
    proxies = {*config.proxy.aliases, *targets}
    latest = wants_latest(environment)
    return CallMetrics(models, proxies, version("antiphon"), buffered, coalescing, router.breakers, latest=latest)


def _tracing(config: Config, environment: Mapping[str, str], providers: Mapping[str, ProviderConfig]) -> Tracing | None:
    """Return the tracing, or None if there is no collector. Of a provider's URL, spans contain only host and port."""
    url = config.traces.address(environment)
    if url is None:
        return None
    from antiphon.telemetry.otlp import make_provider
    from antiphon.telemetry.tracing import Tracing

    urls = {name: urlsplit(provider.base_url or "") for name, provider in providers.items()}
    servers = {name: (at.hostname, at.port or (443 if at.scheme == "https" else 80)) for name, at in urls.items() if at.hostname}
    own_version = version("antiphon")
    return Tracing(make_provider(config.traces.sample, own_version), url, servers, own_version, latest=wants_latest(environment))


def _tokens(auth: AuthConfig, environment: Mapping[str, str]) -> Tokens | None:
    if not auth.tokens:
        return None
    from antiphon.auth.tokens.authenticator import load_tokens

    return load_tokens(auth, environment)


def _certificates(config: Config, *, edge_here: bool) -> dict[str, Certificates]:
    """Return the certificates by setting.

    Those of Envoy are included only if it runs here, and only so that the log warns of one that expires or of a broken file.
    """
    named = {"grpc.tls": config.grpc.tls, "rest.tls": config.rest.tls if edge_here else None}
    if not any(named.values()):
        return {}
    from antiphon.net.certificates import Certificates

    return {setting: Certificates(setting, tls) for setting, tls in named.items() if tls is not None}


def _prunings(config: Config, database: Database) -> dict[str, Callable[[], Awaitable[int]]]:
    """Return the functions that delete expired data, by the name of the data. Each returns how many entries it deleted."""
    prunings: dict[str, Callable[[], Awaitable[int]]] = {}
    if config.history.retention is not None:
        prunings["conversations"] = Retention(database, config.history.retention).prune
    if config.history.usage_retention is not None:
        prunings["usage"] = partial(UsageReport(database).prune, config.history.usage_retention)
    return prunings


def _cooldowns(config: Config, environment: Mapping[str, str], router: Router) -> SharedCooldowns | None:
    """Return what shares the cool-downs of providers between all servers; None without Redis."""
    url = config.limits.redis(environment)
    if url is None:
        return None
    from antiphon.routing.shared import SharedCooldowns

    return SharedCooldowns(url, config.limits.redis_timeout, router)


def _counting(config: Config, environment: Mapping[str, str]) -> Counting:
    redis = config.limits.redis(environment)
    shared = None
    if redis is not None:
        from antiphon.limits.redis import RedisCounters

        shared = RedisCounters(redis, config.limits.redis_timeout)
    return Counting(workers=config.workers, shared=shared)
