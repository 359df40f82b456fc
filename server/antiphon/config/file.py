"""Reads the configuration from the YAML file and from environment variables, which override it.

A variable's name is `ANTIPHON_` and the path of a setting joined by `__`: `ANTIPHON_REST__LISTEN=127.0.0.1:9000`. A list, a mapping
or a whole section is JSON there, and replaces that of the file. A misspelt name is refused, in the file and in the environment
alike.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from antiphon.config import Config, ConfigError
from antiphon.config.words import dotted, find, is_text, mistakes, suggestion

PREFIX: Final = "ANTIPHON_"

OTHER_VARIABLES: Final = frozenset(
    {"ANTIPHON_KEY", "ANTIPHON_CONFIG", "ANTIPHON_ADDRESS", "ANTIPHON_CA", "ANTIPHON_CLIENT_CERTIFICATE", "ANTIPHON_CLIENT_KEY"}
)
"""The other variables that the commands read: the only key, and their options."""

# Kubernetes sets variables for every service, and one may be called antiphon; the tests and the benchmarks have their own.
_UNRELATED: Final = re.compile(
    r"ANTIPHON_((TEST|BENCH)_.+|(.+_)?SERVICE_(HOST|PORT(_.+)?)|(.+_)?PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)

_MERGE: Final = "tag:yaml.org,2002:merge"
_STRING: Final = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """A YAML loader in which names are always texts, though YAML 1.1 reads `on` as true, and may occur only once in a section."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="the name of a setting must be a text", problem_mark=key.start_mark)
            if key.tag == _MERGE:
                continue
            if key.value in lines:
                problem = f"{key.value} is set twice, first in line {lines[key.value]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            key.tag = _STRING
            lines[key.value] = line
        return node


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Config:
    """Read and check the configuration; with `path` None, the defaults and the environment.

    Raises `ConfigError`, whose lines begin with the file, or the variable, at fault.
    """
    raw = {} if path is None else _read(path)
    variables = {name: value for name, value in environment.items() if name.startswith(PREFIX) and not _is_other(name)}
    unknown = []
    for name, value in sorted(variables.items()):  # a section comes before its settings
        steps = _steps(name)
        if steps[0] in Config.model_fields:
            _override(raw, name, steps, value)
        else:
            unknown.append(name)
    try:
        config = Config(**raw)
    except ValidationError as error:
        lines = []
        for setting, expected in mistakes(error, Config):
            source = _variable(variables, setting) or path or "environment"
            lines.append(": ".join(filter(None, (str(source), dotted(setting), expected))))
        raise ConfigError("\n".join(lines), located=True) from None
    named = set(_secret_variables(config.model_dump()))
    refused = [f"{name}: there is no such setting{_suggestion(name)}" for name in unknown if name not in named]
    if refused:
        raise ConfigError("\n".join(refused), located=True)
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}  # noqa: S506  # a subclass of the safe loader
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", located=True) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise ConfigError(f"{path}: {where}not YAML: {error.problem or error.context}", located=True) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {error}", located=True) from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping of settings", located=True)
    return raw


def _is_other(name: str) -> bool:
    return name in OTHER_VARIABLES or _UNRELATED.fullmatch(name) is not None


def _steps(variable: str) -> list[str]:
    return variable.removeprefix(PREFIX).lower().split("__")


def _override(raw: dict[str, Any], name: str, steps: list[str], value: str) -> None:
    """Set the value of the variable `name`. Raises `ConfigError` for a list or a mapping that is not JSON."""
    section: Any = raw
    path = []
    for step in steps:
        # Variables are in capitals; the file has the case of a name that the operator chose.
        known = next((key for key in section if key.lower() == step), step)
        path.append(known)
        if len(path) < len(steps):
            inner = section.get(known)
            # A copy: a YAML alias may use the same section in several places, and only one is changed.
            section[known] = dict(inner) if isinstance(inner, dict) else {}
            section = section[known]
    found, kind = find(Config, path)
    if len(found) == len(path) and not is_text(kind):
        try:
            section[path[-1]] = json.loads(value)
        except ValueError:
            raise ConfigError(f"{name}: a list, a mapping or a section must be JSON here", located=True) from None
    else:
        section[path[-1]] = value


def _variable(variables: Mapping[str, str], setting: tuple[str | int, ...]) -> str | None:
    """Return the variable that sets a setting or the section around it, or else one that treats it as a section."""
    names = [PREFIX + "__".join(map(str, setting[:end])).upper() for end in range(len(setting), 0, -1)]
    found = next((name for name in names if name in variables), None)
    return found or next((name for name in variables if names and name.startswith(f"{names[0]}__")), None)


def _secret_variables(settings: Any) -> Iterator[str]:
    """Yield the variables that the configuration names as holding its secrets."""
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            if str(name).endswith("_env") and isinstance(value, str):
                yield value
            yield from _secret_variables(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _secret_variables(value)


def _suggestion(variable: str) -> str:
    """Return a suggestion: the underscores between a section and its setting may be too few, or a name misspelt."""
    known = [PREFIX + name.upper() for name in Config.model_fields]
    for name, field in Config.model_fields.items():
        known += [f"{PREFIX}{name}__{inner}".upper() for inner in getattr(field.annotation, "model_fields", ())]
    return suggestion(variable, known)
