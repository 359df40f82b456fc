"""Builds the deployments of a provider from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from antiphon.config import ProviderConfig, RoutingConfig
from antiphon.config.routing import DeploymentConfig
from antiphon.limits.counting import Counting
from antiphon.net.coalescing import Coalescer
from antiphon.providers import registry
from antiphon.routing.deployment import Deployment, Pool
from antiphon.routing.handover import fingerprint

_OVERRIDABLE: Final = ("base_url", "headers", "query", "concurrent", "requests_per_minute", "tokens_per_minute")
"""The settings of a provider that a deployment may replace; its key and its times are separate."""


def build_pool(
    name: str,
    config: ProviderConfig,
    rules: RoutingConfig,
    environment: Mapping[str, str],
    counting: Counting | None = None,
    coalescer: Coalescer | None = None,
) -> Pool:
    """Return the deployments of the provider `name`: those that are configured, else one with the provider's own settings.

    Its configuration must be complete (`hosts.complete`). `counting` counts what providers grant, and
    `coalescer` is passed to `registry.build`. Raises `ConfigError`.
    """

    def deployment(own_name: str, own: ProviderConfig, weight: float = 1.0) -> Deployment:
        provider = registry.build(own_name, own, environment, coalescer)
        same = fingerprint(own_name, own, rules, environment)
        return Deployment(provider, name, own, rules, weight=weight, counting=counting, fingerprint=same)

    if not config.deployments:
        return Pool(name, [deployment(name, config)])
    merged = {label: _merged(name, label, config, own, environment) for label, own in config.deployments.items()}
    return Pool(name, [deployment(f"{name}/{label}", merged[label], own.weight) for label, own in config.deployments.items()])


def _merged(name: str, label: str, config: ProviderConfig, own: DeploymentConfig, environment: Mapping[str, str]) -> ProviderConfig:
    """Return the settings of a deployment. Raises `ConfigError` if its own key does not exist."""
    changes: dict[str, object] = {field: value for field in _OVERRIDABLE if (value := getattr(own, field)) is not None}
    changes["timeouts"] = config.timeouts.overridden(own.timeouts)
    if own.api_key_env is not None or own.api_key_file is not None:
        own.api_key(f"providers.{name}.deployments.{label}", environment)
        changes |= {"api_key_env": own.api_key_env, "api_key_file": own.api_key_file}
    return config.model_copy(update=changes)
