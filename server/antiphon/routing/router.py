"""The router: which models at which deployments may answer a request, in which order, and with whose key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from antiphon.config import ConfigError, RoutingConfig
from antiphon.config.routing import AliasConfig
from antiphon.domain.attempt_class import AttemptClass
from antiphon.domain.errors import InvalidRequest, ModelNotFound, ProviderNotFound, Violation
from antiphon.domain.model_names import is_name, matches
from antiphon.domain.principal import Principal
from antiphon.domain.request import ChatRequest
from antiphon.providers.base import Provider
from antiphon.routing.breaker import BreakerState
from antiphon.routing.candidate import Candidate
from antiphon.routing.deployment import Deployment, Pool

_WHEN = {"context_too_long": AttemptClass.TOO_LONG, "refused": AttemptClass.REFUSED}


class WeightedCandidate(Struct, frozen=True, eq=False):
    """A candidate of a tier, with its weight in it."""

    candidate: Candidate
    weight: float


Tier = tuple[WeightedCandidate, ...]
"""Candidates that share the calls; not empty."""


class Route(Struct, frozen=True, eq=False):
    """Where a request may be sent: tiers of candidates, which are tried in order.

    `wants_key`: the provider is called with the key that the caller brings, or else with the gateway's key, if any.
    """

    provider: Pool
    """The provider of the first candidate, and in `model` its own name of the model: limits and prices are estimated by them."""
    model: str
    tiers: tuple[Tier, ...]
    wants_key: bool = False
    alias: str = ""
    """The name for several models that the request used; empty if it named a model itself."""
    when: Mapping[AttemptClass, tuple[Tier, ...]] = {}
    """The tiers that are tried instead, after a failure of such a class."""
    only: Candidate | None = None
    """The candidate, if there is only one. Found out in advance, as it is looked at for every call."""

    @property
    def deployment(self) -> str:
        """Return the name of the first candidate's deployment."""
        return self.tiers[0][0].candidate.deployment.name

    def is_paid_by_caller(self, request: ChatRequest) -> bool:
        """Return whether the caller pays: it brings a key, and the provider uses that key."""
        return self.wants_key and request.api_key is not None

    def allowed(self, caller: Principal, request: ChatRequest) -> Route | None:
        """Return the route without candidates that the caller may not use; None if none is left.

        Whoever may use the name of an alias may use what it stands for. A caller's own key is sent to no provider but the first.
        """
        if request.api_key is not None and self.alias:
            return self._only(caller, self.provider.name)
        if caller.models is None or (self.alias and caller.may_use(self.alias, "")):
            return self
        return self._only(caller)

    def _only(self, caller: Principal, pool: str = "") -> Route | None:
        def fits(choice: WeightedCandidate) -> bool:
            deployment, model = choice.candidate.deployment, choice.candidate.model
            own = caller.may_use(model, deployment.pool) or bool(self.alias and caller.may_use(self.alias, ""))
            return own and pool in ("", deployment.pool)

        def kept(tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
            return tuple(filter(None, (tuple(choice for choice in tier if fits(choice)) for tier in tiers)))

        tiers = kept(self.tiers)
        if not tiers:
            return None
        first = tiers[0][0].candidate
        provider = self.provider
        if first.deployment.pool != provider.name:
            provider = Pool(first.deployment.pool, (first.deployment,))
        when = {found: rest for found, other in self.when.items() if (rest := kept(other))}
        return Route(provider, first.model, tiers, self.wants_key, self.alias, when, _only(tiers))


class ModelEntry(Struct, frozen=True):
    """A model that can be requested by name."""

    name: str
    provider: str
    is_default: bool


class Router:
    """Resolves model names.

    A name is looked up in this order: as a name for several models (an alias); as one that a provider lists; as `provider/model`,
    if the provider lists that model, has a pattern that matches it, or lists nothing at all; as one that matches a provider's
    pattern, `*` alone last. If several providers list a name, the first one has it. A name that begins with a provider's name never
    goes to another provider.
    """

    def __init__(
        self,
        providers: Sequence[tuple[Provider | Pool, Sequence[str]]],
        default: str | None = None,
        wants_key: Collection[str] = frozenset(),
        *,
        aliases: Mapping[str, AliasConfig] | None = None,
        rules: RoutingConfig | None = None,
    ) -> None:
        """Index the providers, each with its models: names, and patterns with `*`.

        `wants_key` names the providers that are called with a key: the gateway's, or one that a caller brings. At any other
        provider a caller's key has no effect: whatever admits the gateway there admits the caller as well.

        Raises `ConfigError` if no model can be the default, or if no provider has `default` or a model of an alias.
        """
        self.rules = rules or RoutingConfig()
        self._wants_key = frozenset(wants_key)
        pools = [(each if isinstance(each, Pool) else Pool.of(each, self.rules), models) for each, models in providers]
        self._providers = {pool.name: (pool, tuple(models)) for pool, models in pools}
        self._named: dict[str, Pool] = {}
        self._patterns: list[tuple[str, Pool]] = []
        for pool, models in pools:
            for model in models:
                if "*" in model:
                    self._patterns.append((model, pool))
                else:
                    self._named.setdefault(model, pool)
        self._patterns.sort(key=lambda entry: entry[0] == "*")
        self._routes = {model: self._route(pool, model) for model, pool in self._named.items()}
        self._aliases = {name: self._alias(name, config) for name, config in (aliases or {}).items()}
        self._routes.update(self._aliases)
        self._listed = {name: route for name, route in self._routes.items() if is_name(route.model)}
        for deployment in self.deployments():
            deployment.keep()
        self.default = default or next(iter(self._named), "") or next(iter(self._aliases), "")
        if not self.default:
            raise ConfigError("models.default: is not set, and no provider lists a model by name")
        try:
            route = self._resolve(self.default)
        except ModelNotFound:
            raise ConfigError(f"models.default: no provider has the model {self.default!r}") from None
        if not route.alias and self._named.get(route.model) is route.provider:
            self.default = route.model  # the name as listed

    def resolve(self, model: str, provider: str = "") -> Route:
        """Return the route of a model, or of the default for an empty name; with `provider`, the route at that provider.

        Raises `ModelNotFound`, and `InvalidRequest` for an invalid name.
        """
        if not provider and (listed := self._listed.get(model or self.default)) is not None:
            return listed
        route = self._resolve_at(provider, model) if provider else self._resolve(model or self.default)
        if not is_name(route.model):
            rule = "must have at most 256 characters, none of them non-printable, and no white space at its ends"
            wrong = Violation(("model",), rule)
            raise InvalidRequest("The model's name is not valid.", (wrong,))
        return route

    def providers(self) -> list[str]:
        """Return the names of the providers, in the order of the configuration."""
        return list(self._providers)

    def deployments(self) -> list[Deployment]:
        """Return the deployments of all providers, in the order of the configuration."""
        return [deployment for pool, _ in self._providers.values() for deployment in pool.deployments]

    def breakers(self) -> dict[tuple[str, str], int]:
        """Return the number of breakers by the name of their deployment and their state. May be called by any thread."""
        found = {(deployment.name, state.value): 0 for deployment in self.deployments() for state in BreakerState}
        for deployment in self.deployments():
            for candidate in deployment.candidates():
                found[deployment.name, candidate.breaker.state.value] += 1
        return found

    def models_at(self, provider: str) -> list[str]:
        """Return the models that a provider lists by name, in its order. Raises `ProviderNotFound`."""
        if provider not in self._providers:
            raise ProviderNotFound(provider)
        return [model for model in self._providers[provider][1] if "*" not in model]

    def name_of(self, provider: str, model: str) -> str | None:
        """Return the shortest name by which `model` of a provider can be requested; None if the configuration does not allow it.

        It is the model's own name, unless that leads to another provider.
        """
        for name in (model, f"{provider}/{model}"):
            try:
                route = self._resolve(name)
            except (ModelNotFound, ProviderNotFound):
                continue
            if route.provider.name == provider and route.model == model:
                return name
        return None

    def aliases(self, caller: Principal) -> list[ModelEntry]:
        """Return the names for several models that `caller` may use."""
        return [self._entry(name, route) for name, route in self._aliases.items() if route.allowed(caller, _ANY) is not None]

    def models(self) -> list[ModelEntry]:
        """Return the models that are listed by name, and the aliases, sorted by name."""
        entries = (self._entry(name, route) for name, route in self._routes.items())
        return sorted(entries, key=lambda entry: entry.name)

    def model(self, name: str, caller: Principal | None = None) -> ModelEntry:
        """Return the entry of a model, listed or not, if `caller` (if given) may use it. Raises `ModelNotFound` otherwise."""
        route = self._resolve(name)
        if not is_name(route.model) or (caller is not None and route.allowed(caller, _ANY) is None):
            raise ModelNotFound(name)
        return self._entry(name, route)

    def _entry(self, name: str, route: Route) -> ModelEntry:
        return ModelEntry(name, route.provider.name, is_default=name == self.default)

    def _resolve(self, model: str) -> Route:
        route = self._routes.get(model)
        if route is not None:
            return route
        prefix, slash, rest = model.partition("/")
        if slash and rest and prefix in self._providers:
            try:
                return self._resolve_at(prefix, rest)
            except ModelNotFound:
                raise ModelNotFound(model) from None
        for pattern, pool in self._patterns:
            if matches(model, pattern):
                return self._route(pool, model)
        raise ModelNotFound(model)

    def _resolve_at(self, name: str, model: str) -> Route:
        if name not in self._providers:
            raise ProviderNotFound(name)
        pool, models = self._providers[name]
        if not model or (models and not any(matches(model, pattern) for pattern in models)):
            raise ModelNotFound(model)
        return self._route(pool, model)

    def _route(self, pool: Pool, model: str) -> Route:
        tiers = (_tier(pool, model),)
        return Route(pool, model, tiers, pool.name in self._wants_key, only=_only(tiers))

    def _alias(self, name: str, config: AliasConfig) -> Route:
        """Return the route of an alias. Raises `ConfigError` if no provider has one of its models."""
        tiers = tuple(
            tuple(
                WeightedCandidate(choice.candidate, choice.weight * weight)
                for model, weight in models.items()
                for choice in self._known(f"models.{name}.try.{at}", model).tiers[0]
            )
            for at, models in enumerate(config.tiers)
        )
        when = {_WHEN[reason]: self._known(f"models.{name}.when.{reason}", model).tiers for reason, model in config.when.items()}
        first = self._known(name, next(iter(config.tiers[0])))
        return Route(first.provider, first.model, tiers, first.wants_key, name, when, _only(tiers))

    def _known(self, setting: str, model: str) -> Route:
        try:
            return self._resolve(model)
        except ModelNotFound:
            raise ConfigError(f"{setting}: no provider has the model {model!r}") from None


_ANY = ChatRequest("", (), stream=False)
"""A request without a key of the caller."""


def _tier(pool: Pool, model: str) -> Tier:
    return tuple(WeightedCandidate(deployment.candidate(model), deployment.weight) for deployment in pool.deployments)


def _only(tiers: tuple[Tier, ...]) -> Candidate | None:
    return tiers[0][0].candidate if len(tiers) == 1 and len(tiers[0]) == 1 else None
