"""Maps the kinds of guards in the configuration to the functions that build them.

A new kind is one file, and a function and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from antiphon.config import ConfigError, GuardConfig
from antiphon.guards.base import Guard
from antiphon.guards.service import Guards


def _blocklist(config: GuardConfig) -> Guard:
    from antiphon.guards import blocklist  # imported here, as the other: their libraries take 4 MB

    return blocklist.build(config)


def _personal_data(config: GuardConfig) -> Guard:
    from antiphon.guards import personal_data

    return personal_data.build(config)


KINDS: Final[Mapping[str, Callable[[GuardConfig], Guard]]] = {
    "blocklist": _blocklist,
    "personal_data": _personal_data,
}


def build_guards(configs: Sequence[GuardConfig]) -> Guards | None:
    """Return the configured guards; None if there are none. Raises `ConfigError`."""
    built = [(config.on, _build(config)) for config in configs]
    if not built:
        return None
    return Guards([guard for on, guard in built if "request" in on], [guard for on, guard in built if "reply" in on])


def _build(config: GuardConfig) -> Guard:
    build = KINDS.get(config.kind)
    if build is None:
        known = ", ".join(sorted(KINDS))
        raise ConfigError(f"guards.{config.name}.kind: {config.kind!r} is not known; known are {known}")
    return build(config)
