"""Tests of the settings for traces."""

import pytest
from pydantic import ValidationError

from antiphon.config.traces import TracesConfig

URL = "http://collector:4318"
USER = "user:key"


@pytest.mark.parametrize(
    ("endpoint", "environment", "address"),
    [
        (None, {}, None),
        (URL, {}, f"{URL}/v1/traces"),
        (f"{URL}/", {}, f"{URL}/v1/traces"),
        (f"{URL}/v1/traces", {}, f"{URL}/v1/traces"),
        (f"{URL}/otlp", {}, f"{URL}/otlp/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, f"{URL}/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{URL}/here"}, f"{URL}/here"),
        (URL, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://elsewhere"}, f"{URL}/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "none"}, None),
        (URL, {"OTEL_SDK_DISABLED": "true"}, None),
    ],
)
def test_the_endpoint_comes_from_the_configuration_or_the_environment(
    endpoint: str | None, environment: dict[str, str], address: str | None
) -> None:
    """The endpoint is that of the configuration, else that of OpenTelemetry's variables, else None."""
    assert TracesConfig(endpoint=endpoint).address(environment) == address


@pytest.mark.parametrize("endpoint", ["collector:4317", "grpc://collector", "http://", f"{URL}?key=x", f"http://{USER}@collector"])
def test_an_invalid_endpoint_is_refused(endpoint: str) -> None:
    """An endpoint that is not an HTTP URL, or that has a password or query, is refused."""
    with pytest.raises(ValidationError):
        TracesConfig(endpoint=endpoint)
