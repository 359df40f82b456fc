"""The handover of what a process knows of its deployments to the one that replaces it at a reload of the configuration.

The old worker writes a file when its supervisor asks for it, right before its successor is started; the successor reads the file
before it serves. Breakers, cool-downs and averages go on, but those of a deployment whose address, key or other settings have
changed, as that may have been the cure. Times are written as seconds from the moment of writing.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import structlog

from antiphon.config import ProviderConfig, RoutingConfig
from antiphon.routing.balance import Average
from antiphon.routing.breaker import SavedBreaker
from antiphon.routing.candidate import Candidate
from antiphon.routing.deployment import Deployment

MAX_AGE: Final = 120.0
"""Seconds after which a file is too old to be used: its writer was not replaced then."""

_CAPACITY: Final = frozenset(
    {"models", "deployments", "concurrent", "queue", "requests_per_minute", "tokens_per_minute", "keep_alive", "unsupported"}
)
"""Settings that say nothing about whether a deployment works."""

log = structlog.get_logger(__name__)


class SavedModel(msgspec.Struct, frozen=True):
    """The state of one model at a deployment: its breaker, and the part of recent calls that failed.

    `first_token` is its average, and `cool` the time for which it is still left alone, in seconds.
    """

    breaker: SavedBreaker
    failures: float
    first_token: float | None = None
    cool: float = 0.0


class SavedDeployment(msgspec.Struct, frozen=True):
    """The state of one deployment, and the fingerprint of its settings. `tripped` is `Deployment.tripped`."""

    fingerprint: str
    models: Mapping[str, SavedModel]
    tripped: datetime | None = None


class SavedRouting(msgspec.Struct, frozen=True):
    """The state of all deployments of a process. `at` is Unix time."""

    at: float
    deployments: Mapping[str, SavedDeployment]


def fingerprint(name: str, config: ProviderConfig, rules: RoutingConfig, environment: Mapping[str, str]) -> str:
    """Return a text that is the same as long as a deployment is asked in the same way, and judged by the same rules.

    `config` are the settings of the deployment `name`, merged. Raises `ConfigError` if its key does not exist.
    """
    key = config.api_key(name, environment)
    parts = (
        config.model_dump(mode="json", exclude=set(_CAPACITY)),
        [config.base_url, dict(config.headers), dict(config.query), config.proxy],  # a dump leaves them out
        None if key is None else key.get_secret_value(),
        rules.breaker.model_dump(mode="json"),
    )
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


def write(path: Path, deployments: Iterable[Deployment]) -> None:
    """Write the state of the deployments for a successor.

    A file that cannot be written is logged: the successor then begins anew.
    """
    now = time.monotonic()
    found = {each.name: SavedDeployment(each.fingerprint, _models(each, now), each.tripped) for each in deployments}
    saved = SavedRouting(time.time(), found)
    new = path.with_suffix(".new")
    try:
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(saved))
        new.replace(path)
    except OSError as error:
        log.warning("routing_not_handed_over", error=os.strerror(error.errno or 0))


def read(path: Path, deployments: Iterable[Deployment]) -> None:
    """Take up the state that a predecessor wrote, if there is one, of deployments that have not changed; then remove the file."""
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=SavedRouting)
    except (OSError, msgspec.DecodeError):  # none, or of another version
        return
    with suppress(OSError):
        path.unlink()
    age, now = max(0.0, time.time() - saved.at), time.monotonic()
    if age > MAX_AGE:
        return
    kept = [each for each in deployments if (found := saved.deployments.get(each.name)) and found.fingerprint == each.fingerprint]
    for deployment in kept:
        deployment.trip(saved.deployments[deployment.name].tripped)
        for model, state in saved.deployments[deployment.name].models.items():
            _restore(deployment.candidate(model), state, now - age)
    log.info("routing_taken_over", deployments=len(kept), changed=len(saved.deployments) - len(kept))


def _models(deployment: Deployment, now: float) -> dict[str, SavedModel]:
    return {each.model: _save(each, now) for each in deployment.candidates() if _is_known(each)}


def _is_known(candidate: Candidate) -> bool:
    """Return whether anything was learnt of a model."""
    return candidate.first_token.value is not None or bool(candidate.failures.value) or not candidate.is_idle


def _save(candidate: Candidate, now: float) -> SavedModel:
    return SavedModel(
        candidate.breaker.save(now),
        candidate.failures.at(now),
        candidate.first_token.value,
        max(0.0, candidate.cool_until - now),
    )


def _restore(candidate: Candidate, saved: SavedModel, at: float) -> None:
    """Take up the state of one model, as it was at that time of the monotonic clock."""
    candidate.breaker.restore(saved.breaker, at)
    candidate.failures.set(at, saved.failures)
    candidate.first_token = Average(saved.first_token)
    candidate.cool(at + saved.cool)
