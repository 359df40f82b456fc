"""What an operator decides of the way out to a host: an outbound proxy, and the authorities whose certificates are good there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from antiphon.config.section import Section, read_secret


class OutboundConfig(Section):
    """The settings of each section that names hosts. What the environment says of proxies (`HTTPS_PROXY`) is not followed."""

    proxy: str | None = Field(default=None, repr=False, exclude=True)  # it may hold a password by mistake
    """An HTTP proxy, such as http://proxy.internal:3128, by which the host is reached; https is tunnelled. Unset: directly."""
    proxy_env: str | None = None
    """The environment variable, or the file, that holds it: for a URL with a password, such as http://user:password@proxy:3128."""
    proxy_file: Path | None = None
    ca: Path | None = None
    """The authorities, in PEM, of which one must have signed the host's certificate, in place of those that the system trusts.
    Read again when it changes. An https proxy's certificate is checked alike."""

    @model_validator(mode="after")
    def _one_proxy(self) -> OutboundConfig:
        if sum(source is not None for source in (self.proxy, self.proxy_env, self.proxy_file)) > 1:
            raise ValueError("takes only one of proxy, proxy_env and proxy_file")
        return self

    def proxy_url(self, section: str, environment: Mapping[str, str]) -> SecretStr | None:
        """The URL of the proxy, of the settings at `section`. Raises `ConfigError` if the variable or file is not there."""
        held = read_secret(f"{section}.proxy", self.proxy_env, self.proxy_file, environment)
        return SecretStr(self.proxy) if held is None and self.proxy is not None else held
