"""The table of metrics: every name, with its labels and buckets. Tests compare everything else that names a metric with it.

The names `gen_ai.*` are those of OpenTelemetry's semantic conventions 1.41, `grpc.*` those of gRPC's proposal A66, both in the form
that Prometheus uses. Labels are bounded: models and providers that the configuration does not name are counted as `other`, and no
label identifies the caller. May import the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """The metric types of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric. `name` is the name in Prometheus, without the suffixes of a histogram (`_bucket`, `_count`, `_sum`)."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    standard: str = ""
    """The name in the convention that defines the metric; empty for a metric of our own."""


OTHER: Final = "other"
"""The label value for a provider or model that the configuration does not name."""

METRICS_SOCKET: Final = "metrics.sock"
"""The unix socket in the run folder at which the supervisor collects the metrics of the workers."""

_OPERATION: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
_MODEL: Final = ("provider", "model")

# The bucket bounds for latency of gRPC proposal A66, in seconds.
_GRPC: Final = (
    *(0.0, 0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.013, 0.016),
    *(0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 2.0, 5.0, 10.0),
    *(20.0, 50.0, 100.0),
)
_DURATION: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = tuple(float(4**power) for power in range(14))
_FIRST_TOKEN: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_OUTPUT_TOKEN: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_OVERHEAD: Final = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 5.0)
_CANCEL: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
_QUEUE: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_LAG: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

CALL_DURATION: Final = Metric(
    "grpc_server_call_duration_seconds",
    Kind.HISTOGRAM,
    "Time from a call's arrival to its end, including REST calls. Health and reflection, which need no key, are not counted.",
    ("grpc_method", "grpc_status"),
    _GRPC,
    "grpc.server.call.duration",
)
OPERATION_DURATION: Final = Metric(
    "gen_ai_client_operation_duration_seconds",
    Kind.HISTOGRAM,
    "Time of one attempt at a provider, from the request to the end of the reply. `error_type` is the class of a failed one.",
    (*_OPERATION, "error_type"),
    _DURATION,
    "gen_ai.client.operation.duration",
)
TOKEN_USAGE: Final = Metric(
    "gen_ai_client_token_usage",
    Kind.HISTOGRAM,
    "Tokens of one call. `gen_ai_token_type` is input or output.",
    (*_OPERATION, "gen_ai_token_type"),
    _TOKENS,
    "gen_ai.client.token.usage",
)
FIRST_TOKEN: Final = Metric(
    "gen_ai_server_time_to_first_token_seconds",
    Kind.HISTOGRAM,
    "Time from the request to the provider until the first delta, for streamed replies.",
    _OPERATION,
    _FIRST_TOKEN,
    "gen_ai.server.time_to_first_token",
)
OUTPUT_TOKEN: Final = Metric(
    "gen_ai_server_time_per_output_token_seconds",
    Kind.HISTOGRAM,
    "Mean time per token after the first one, for streamed replies that ended without an error.",
    _OPERATION,
    _OUTPUT_TOKEN,
    "gen_ai.server.time_per_output_token",
)
IN_FLIGHT: Final = Metric("antiphon_calls_in_flight", Kind.GAUGE, "Calls in progress.")
ATTEMPTS: Final = Metric(
    "antiphon_attempts_total",
    Kind.COUNTER,
    "Attempts at providers that have ended. `class` is ok, or why it failed.",
    ("provider", "class"),
)
CANCELLED: Final = Metric(
    "antiphon_cancelled_upstream_total",
    Kind.COUNTER,
    "Provider calls that were closed because the caller disconnected or the deadline passed.",
    ("provider",),
)
CANCEL: Final = Metric(
    "antiphon_cancel_seconds",
    Kind.HISTOGRAM,
    "Time to close a provider call after its caller disconnected or its deadline passed.",
    ("provider",),
    _CANCEL,
)
QUEUE: Final = Metric(
    "antiphon_queue_seconds",
    Kind.HISTOGRAM,
    "Time for which calls waited before an attempt: in the queue of a deployment, or before another try. Only those that waited.",
    ("deployment",),
    _QUEUE,
)
BREAKERS: Final = Metric(
    "antiphon_breaker_state",
    Kind.GAUGE,
    "How many models of a deployment have a breaker in this `state`: closed, open, half_open or ramp. Summed over the workers.",
    ("deployment", "state"),
)
COST: Final = Metric(
    "antiphon_cost_usd_total", Kind.COUNTER, "Cost of calls, in USD, where the price is known and the gateway pays.", _MODEL
)
TOKENS: Final = Metric(
    "antiphon_tokens_total",
    Kind.COUNTER,
    "Tokens used. `kind` is input or output, or a part of these: cached_input, cache_write, reasoning, audio_input, audio_output.",
    (*_MODEL, "kind"),
)
ESTIMATED: Final = Metric(
    "antiphon_estimated_usage_total",
    Kind.COUNTER,
    "Calls for which the provider sent no token counts, so that they were estimated.",
    _MODEL,
)
STREAM_BUFFER: Final = Metric(
    "antiphon_stream_buffer_bytes",
    Kind.GAUGE,
    "Bytes of replies that wait here because their callers read slowly; at most about half a MiB per reply.",
)
COALESCING: Final = Metric(
    "antiphon_stream_coalescing_seconds",
    Kind.GAUGE,
    "How long busy workers collect tokens of a stream before they send them together, summed over the workers; 0: at once.",
)
OVERHEAD: Final = Metric(
    "antiphon_overhead_seconds",
    Kind.HISTOGRAM,
    "Time of a call outside its attempts at providers: key, limits, guards and history before and after.",
    (),
    _OVERHEAD,
)
LAG: Final = Metric(
    "antiphon_event_loop_lag_seconds",
    Kind.HISTOGRAM,
    "How late a timer of the event loop ran; measured twice a second in each worker.",
    (),
    _LAG,
)
TURNS: Final = Metric(
    "antiphon_turns_recorded_total",
    Kind.COUNTER,
    "Turns of conversations. `outcome` is complete, failed, cancelled, or replayed for a stored turn that was sent again.",
    ("outcome",),
)
REFUSED: Final = Metric(
    "antiphon_limits_refused_total",
    Kind.COUNTER,
    "Calls that a limit refused. `scope` is key, owner, overall, worker or provider.",
    ("limit", "scope"),
)
FAILED: Final = Metric("antiphon_failed_calls_total", Kind.COUNTER, "Calls that ended in an error, by its reason.", ("reason",))
CPU: Final = Metric("antiphon_cpu_seconds_total", Kind.COUNTER, "CPU time of the workers, of user and system.")
MEMORY: Final = Metric("antiphon_resident_memory_bytes", Kind.GAUGE, "Resident memory of the workers.")
WORKERS: Final = Metric("antiphon_workers", Kind.GAUGE, "Running workers.")
EXITS: Final = Metric(
    "antiphon_worker_exits_total", Kind.COUNTER, "Workers that have ended since the gateway started. Reported by `antiphon up`."
)
RELOADED: Final = Metric(
    "antiphon_config_last_reload_successful",
    Kind.GAUGE,
    "1; 0 if the newest configuration was refused and an older one is in force. From `antiphon up` and `antiphon serve --reload`.",
)
BUILD: Final = Metric("antiphon_build_info", Kind.GAUGE, "1, with the version as a label.", ("version", "python"))

TABLE: Final = (
    *(CALL_DURATION, OPERATION_DURATION, TOKEN_USAGE, FIRST_TOKEN, OUTPUT_TOKEN, IN_FLIGHT, ATTEMPTS, CANCELLED, CANCEL),
    *(QUEUE, BREAKERS, STREAM_BUFFER, COALESCING, COST, TOKENS, ESTIMATED, OVERHEAD, LAG, TURNS, REFUSED, FAILED),
    *(CPU, MEMORY, WORKERS, EXITS, RELOADED, BUILD),
)
"""All metrics, in the order of the documentation."""

INFERENCE_DURATION: Final = OPERATION_DURATION._replace(
    name="gen_ai_client_inference_duration_seconds", standard="gen_ai.client.inference.duration"
)
FIRST_CHUNK: Final = FIRST_TOKEN._replace(
    name="gen_ai_client_inference_time_to_first_chunk_seconds",
    buckets=_DURATION,
    standard="gen_ai.client.inference.time_to_first_chunk",
)
INPUT_TOKENS: Final = Metric(
    "gen_ai_client_inference_operation_input_tokens",
    Kind.HISTOGRAM,
    "Input tokens of one call.",
    _OPERATION,
    _TOKENS,
    "gen_ai.client.inference.operation.input_tokens",
)
OUTPUT_TOKENS: Final = Metric(
    "gen_ai_client_inference_operation_output_tokens",
    Kind.HISTOGRAM,
    "Output tokens of one call.",
    _OPERATION,
    _TOKENS,
    "gen_ai.client.inference.operation.output_tokens",
)

LATEST: Final = {
    OPERATION_DURATION: (INFERENCE_DURATION,),
    TOKEN_USAGE: (INPUT_TOKENS, OUTPUT_TOKENS),
    FIRST_TOKEN: (FIRST_CHUNK,),
}
"""The metrics that replace others if `wants_latest` returns True, by the metric that they replace. The names are those of the
separate semantic conventions for generative AI, version 0.1."""


def wants_latest(environment: Mapping[str, str]) -> bool:
    """Return whether the operator wants only the newest `gen_ai` names, by OpenTelemetry's variable for changing over."""
    values = environment.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")
    return "gen_ai_latest_experimental" in (value.strip() for value in values)
