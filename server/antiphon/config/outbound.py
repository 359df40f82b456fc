"""The settings of the way to a host: an outbound proxy, and the trusted certificate authorities. No I/O but secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from antiphon.config.section import Section, read_secret


class OutboundConfig(Section):
    """Settings shared by all sections that name hosts. Proxies in the environment (`HTTPS_PROXY`) are not used."""

    proxy: str | None = Field(default=None, repr=False, exclude=True)  # it may hold a password by mistake
    """An HTTP proxy through which the host is reached, such as `http://proxy.internal:3128`; https is tunnelled. Without a user
    and password. Unset: no proxy."""
    proxy_env: str | None = None
    """The environment variable that holds the proxy's URL, for one with a password, such as `http://user:password@proxy:3128`."""
    proxy_file: Path | None = None
    """The file that holds the proxy's URL."""
    ca: Path | None = None
    """A PEM file of certificate authorities, used instead of those that the system trusts, also for an https proxy. Read again
    when it changes."""

    @model_validator(mode="after")
    def _one_proxy(self) -> OutboundConfig:
        if sum(source is not None for source in (self.proxy, self.proxy_env, self.proxy_file)) > 1:
            raise ValueError("takes only one of proxy, proxy_env and proxy_file")
        return self

    def proxy_url(self, section: str, environment: Mapping[str, str]) -> SecretStr | None:
        """Return the proxy's URL from the settings at `section`; None if there is none.

        Raises `ConfigError` if the variable or file does not exist.
        """
        held = read_secret(f"{section}.proxy", self.proxy_env, self.proxy_file, environment)
        return SecretStr(self.proxy) if held is None and self.proxy is not None else held
