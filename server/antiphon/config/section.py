"""The base of the configuration's sections, and the reading of secrets.

The configuration contains no secrets: it names the environment variable, or the file, that holds each. No other I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from pydantic import BaseModel, ConfigDict, SecretStr

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")


class ConfigError(Exception):
    """The configuration cannot be used. The message says where and why, in a line for each error, and contains no secret.

    `located`: its lines begin with the file or the environment variable, and not with the setting.
    """

    def __init__(self, message: str, *, located: bool = False) -> None:
        super().__init__(message)
        self.located = located

    def lines(self, file: Path | None) -> list[str]:
        """Return a line for each error, which names where it is; `file` is the file that was read, if any."""
        where = "" if self.located or file is None else f"{file}: "
        return [where + line for line in str(self).splitlines()]


class Section(BaseModel):
    """The base of all sections: immutable, without unknown settings, and without values in errors, as they may be secrets."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Former names of settings, each with the path of the setting in this section that has its place."""


def read_secret(setting: str, variable: str | None, file: Path | None, environment: Mapping[str, str]) -> SecretStr | None:
    """Return the secret in the variable or file that `<setting>_env` or `<setting>_file` names; None if neither is set.

    Raises `ConfigError` if the variable is not set, or the file cannot be read, is empty, or is not one line of text.
    """
    if variable is not None:
        value = environment.get(variable, "")
        # The name is shown only if it is in capitals: by mistake it may be the key itself, and keys hardly ever are.
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
        raise ConfigError(f"{where} has a line break or another character that is not allowed in a header")
    return SecretStr(value.strip())
