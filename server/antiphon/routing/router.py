"""The router: which provider answers for which model, and with whose key."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from antiphon.config import ConfigError
from antiphon.domain.errors import InvalidRequest, ModelNotFound, ProviderNotFound, Violation
from antiphon.domain.model_names import is_name, matches
from antiphon.domain.principal import Principal
from antiphon.domain.request import ChatRequest
from antiphon.providers.base import Provider


class Route(Struct, frozen=True):
    """The provider of a request, and the provider's own name of the model.

    `wants_key`: the provider is called with the key that the caller brings, or else with the gateway's key, if any.
    """

    provider: Provider
    model: str
    wants_key: bool = False

    def is_paid_by_caller(self, request: ChatRequest) -> bool:
        """Return whether the caller pays: it brings a key, and the provider uses that key."""
        return self.wants_key and request.api_key is not None


class ModelEntry(Struct, frozen=True):
    """A model that can be requested by name."""

    name: str
    provider: str
    is_default: bool


class Router:
    """Resolves model names.

    A name is looked up in this order: as one that a provider lists; as `provider/model`, if the provider lists that model, has a
    pattern that matches it, or lists nothing at all; as one that matches a provider's pattern, `*` alone last. If several providers
    list a name, the first one has it. A name that begins with a provider's name never goes to another provider.
    """

    def __init__(
        self,
        providers: Sequence[tuple[Provider, Sequence[str]]],
        default: str | None = None,
        wants_key: Collection[str] = frozenset(),
    ) -> None:
        """Index the providers, each with its models: names, and patterns with `*`.

        `wants_key` names the providers that are called with a key: the gateway's, or one that a caller brings. At any other
        provider a caller's key has no effect: whatever admits the gateway there admits the caller as well.

        Raises `ConfigError` if no model can be the default, or if no provider has `default`.
        """
        self._wants_key = frozenset(wants_key)
        self._providers = {provider.name: (provider, tuple(models)) for provider, models in providers}
        self._named: dict[str, Provider] = {}
        self._patterns: list[tuple[str, Provider]] = []
        for provider, models in providers:
            for model in models:
                if "*" in model:
                    self._patterns.append((model, provider))
                else:
                    self._named.setdefault(model, provider)
        self._patterns.sort(key=lambda entry: entry[0] == "*")
        self.default = default or next(iter(self._named), "")
        if not self.default:
            raise ConfigError("models.default: is not set, and no provider lists a model by name")
        try:
            route = self._resolve(self.default)
        except ModelNotFound:
            raise ConfigError(f"models.default: no provider has the model {self.default!r}") from None
        if self._named.get(route.model) is route.provider:
            self.default = route.model  # the name as listed

    def resolve(self, model: str, provider: str = "") -> Route:
        """Return the route of a model, or of the default for an empty name; with `provider`, the route at that provider.

        Raises `ModelNotFound`, and `InvalidRequest` for an invalid name.
        """
        route = self._resolve_at(provider, model) if provider else self._resolve(model or self.default)
        if not is_name(route.model):
            rule = "must have at most 256 characters, none of them non-printable, and no white space at its ends"
            wrong = Violation(("model",), rule)
            raise InvalidRequest("The model's name is not valid.", (wrong,))
        return route

    def providers(self) -> list[str]:
        """Return the names of the providers, in the order of the configuration."""
        return list(self._providers)

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

    def models(self) -> list[ModelEntry]:
        """Return the models that are listed by name, sorted by name."""
        return [ModelEntry(name, provider.name, is_default=name == self.default) for name, provider in sorted(self._named.items())]

    def model(self, name: str, caller: Principal | None = None) -> ModelEntry:
        """Return the entry of a model, listed or not, if `caller` (if given) may use it. Raises `ModelNotFound` otherwise."""
        route = self._resolve(name)
        if not is_name(route.model) or (caller is not None and not caller.may_use(route.model, route.provider.name)):
            raise ModelNotFound(name)
        return ModelEntry(name, route.provider.name, is_default=name == self.default)

    def _resolve(self, model: str) -> Route:
        provider = self._named.get(model)
        if provider is not None:
            return self._route(provider, model)
        prefix, slash, rest = model.partition("/")
        if slash and rest and prefix in self._providers:
            try:
                return self._resolve_at(prefix, rest)
            except ModelNotFound:
                raise ModelNotFound(model) from None
        for pattern, provider in self._patterns:
            if matches(model, pattern):
                return self._route(provider, model)
        raise ModelNotFound(model)

    def _resolve_at(self, name: str, model: str) -> Route:
        if name not in self._providers:
            raise ProviderNotFound(name)
        provider, models = self._providers[name]
        if not model or (models and not any(matches(model, pattern) for pattern in models)):
            raise ModelNotFound(model)
        return self._route(provider, model)

    def _route(self, provider: Provider, model: str) -> Route:
        return Route(provider, model, provider.name in self._wants_key)
