"""The settings of traces. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from antiphon.config.section import Section

_PATH: Final = "v1/traces"


def _collector(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not value.isprintable():
        raise ValueError('must be the URL of a collector, such as "http://collector:4318"')
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("has a user, a query or a fragment: a key belongs into the variable OTEL_EXPORTER_OTLP_HEADERS")
    return value


class TracesConfig(Section):
    """Traces, sent to a collector with OTLP over HTTP (protobuf). There are none without an endpoint, here or in the environment.

    OpenTelemetry's own variables apply to everything else, such as the collector's key: `OTEL_EXPORTER_OTLP_HEADERS`.
    """

    endpoint: Annotated[str, AfterValidator(_collector)] | None = None
    """The collector; `/v1/traces` is added unless it ends so. Unset: `OTEL_EXPORTER_OTLP_ENDPOINT`, or
    `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, which is used unchanged."""
    sample: float | None = Field(default=None, ge=0, le=1)
    """The share of calls that are traced, unless the caller's `traceparent` decides. Unset: as `OTEL_TRACES_SAMPLER` says, or
    all."""

    def address(self, environment: Mapping[str, str]) -> str | None:
        """Return the URL that spans are posted to; None if there are no traces."""
        if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return None
        base = self.endpoint
        if base is None:
            if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
                return None
            if whole := environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip():
                return whole
            base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or None
        if base is None:
            return None
        base = base.removesuffix("/")
        return base if base.endswith(f"/{_PATH}") else f"{base}/{_PATH}"
