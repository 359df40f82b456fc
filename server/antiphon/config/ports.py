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

CUT_TRAILERS = (("x-antiphon-cut", "1"),) * 101
"""The trailers of a response that has to break off: more than Envoy accepts (`max_headers_count` in `gateway/clusters.yaml`).

Envoy's transcoder ends the response of a call that failed normally, so a client could tell half a JSON array from a whole one only
by its text. These make it reset that one stream: an HTTP/1.1 client gets no last chunk and loses the connection, an HTTP/2 client
gets a reset.
"""


def split_address(address: str) -> tuple[str, int]:
    """("127.0.0.1", 8080) of "127.0.0.1:8080"; the brackets of an IPv6 host are dropped."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class TlsConfig(Section):
    """TLS of a port. The files are in PEM, and are read again when they change."""

    certificate: Path
    """The certificate, followed by the intermediate certificates."""
    key: Path
    """The private key of the certificate."""
    client_ca: Path | None = None
    """Authorities. With them every client has to show a certificate that one of them signed (mTLS). It only lets the client
    connect: each call still needs a key or a token."""


class GrpcConfig(Section):
    """The port of the gRPC server, for callers inside the cluster."""

    listen: Address = "127.0.0.1:50051"
    """Address and port."""
    tls: TlsConfig | None = None
    """Unset: plain text, which is meant for 127.0.0.1."""


class MetricsConfig(Section):
    """The port for Prometheus and probes: `/metrics`, `/healthz` and `/readyz`. It asks for no key and has no TLS."""

    listen: Address | None = None
    """Address and port. Unset: no port is opened and nothing is counted."""


class UpstreamTlsConfig(Section):
    """TLS from the edge to a server on another machine."""

    ca: Path
    """Authorities, one of which has to have signed the server's certificate."""
    server_name: str = Field(min_length=1)
    """The DNS name that the server's certificate must have."""
    certificate: Path | None = None
    """The certificate that the edge shows to a server that asks for one."""
    key: Path | None = None
    """The private key of that certificate."""

    @model_validator(mode="after")
    def _pair(self) -> UpstreamTlsConfig:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("needs both certificate and key, or neither")
        return self


class UpstreamConfig(Section):
    """The server, where the edge runs on another machine."""

    address: Address
    """Host and port. A host name stands for all its addresses."""
    tls: UpstreamTlsConfig | None = None
    """Unset: plain text."""


class RestConfig(Section):
    """The edge: Envoy, which serves REST, and gRPC as well."""

    listen: Address = "127.0.0.1:8080"
    """Address and port."""
    tls: TlsConfig | None = None
    """Unset: plain text, which is meant for 127.0.0.1."""
    upstream: UpstreamConfig | None = None
    """The server, for `antiphon edge`. `antiphon up` starts its own workers and ignores it."""
    jwt_authn: bool = False
    """Whether Envoy refuses bad tokens before they reach the server. Every issuer in `auth.tokens` needs a `jwks_url` then."""
