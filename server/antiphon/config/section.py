"""What the sections of the configuration have in common.

Secrets are not in it: it names the environment variable, or the file, that holds each. No I/O but reading them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, SecretStr

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")


class ConfigError(Exception):
    """The configuration is not usable. The message tells where and why, a line each, and holds no secret.

    `located`: its lines begin with the file, or the environment variable, and not with the setting.
    """

    def __init__(self, message: str, *, located: bool = False) -> None:
        super().__init__(message)
        self.located = located


class Section(BaseModel):
    """The base of all: nothing that is not known, nothing that changes, and no value in an error, as it may be a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


def read_secret(setting: str, variable: str | None, file: Path | None, environment: Mapping[str, str]) -> SecretStr | None:
    """What the variable or the file holds that `<setting>_env` or `<setting>_file` names; None where neither is set."""
    if variable is not None:
        value = environment.get(variable, "")
        # A key that was put there by mistake is not to be told: names are in capitals, as hardly any key is.
        named = f" {variable}" if _VARIABLE.fullmatch(variable) else ""
        where, missing = f"{setting}_env: the environment variable{named}", "is not set" if named else "that it names is not set"
    elif file is not None:
        where, missing = f"{setting}_file: {file}", "is empty"
        try:
            value = file.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{where}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise ConfigError(f"{where} is not UTF-8") from None
    else:
        return None
    if not value.strip():
        raise ConfigError(f"{where} {missing}")
    if not value.strip().isprintable():
        raise ConfigError(f"{where} holds a line break, or another character that no header may have")
    return SecretStr(value.strip())
