"""What an operator decides of the two ports, and of a server that stands apart from its edge. No I/O."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from antiphon.config.section import Section
from antiphon.config.values import Address

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""The largest request and the largest single reply, at every layer: 32 MiB. `gateway/listeners.yaml` has the same figure."""

MAX_KEYLESS_BYTES = 256 * 1024
"""The largest request without a key in its headers: 256 KiB. Larger ones are 401. `WITH_KEY` in `gateway/status.lua`, and the
listener's buffer limit in `gateway/listeners.yaml`, have the same figure."""


def split_address(address: str) -> tuple[str, int]:
    """("127.0.0.1", 8080) of "127.0.0.1:8080"; the brackets of an IPv6 host are dropped."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class TlsConfig(Section):
    """TLS of a port: files in PEM, which are read again when they change."""

    certificate: Path
    """The certificate, and after it those that lead to its authority."""
    key: Path
    client_ca: Path | None = None
    """The authorities one of which has to have signed the certificate of every caller. Unset: callers are asked for none. It only
    lets connect: each call needs a key or a token besides."""


class GrpcConfig(Section):
    """The gRPC server."""

    listen: Address = "127.0.0.1:50051"
    tls: TlsConfig | None = None


class MetricsConfig(Section):
    """The port for Prometheus and probes: `/metrics`, `/healthz`, `/readyz`. It asks for no key."""

    listen: Address | None = None
    """Unset: there is none, and nothing is counted."""


class UpstreamTlsConfig(Section):
    """How the edge knows the server, and is known there."""

    ca: Path
    """The authorities one of which has to have signed the server's certificate."""
    server_name: str = Field(min_length=1)
    """The DNS name that has to stand in the server's certificate, to the letter."""
    certificate: Path | None = None
    """What the edge shows a server that asks for a certificate."""
    key: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> UpstreamTlsConfig:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("needs both certificate and key, or neither")
        return self


class UpstreamConfig(Section):
    """The server, where the edge is not on its machine."""

    address: Address
    """A name stands for all its addresses."""
    tls: UpstreamTlsConfig | None = None


class RestConfig(Section):
    """The edge: Envoy."""

    listen: Address = "127.0.0.1:8080"
    tls: TlsConfig | None = None
    upstream: UpstreamConfig | None = None
    """For `antiphon edge`. `antiphon up` has workers of its own."""
    jwt_authn: bool = False
    """Whether Envoy refuses tokens that are not good, before the server looks at them."""
