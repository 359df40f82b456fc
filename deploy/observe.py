"""Makes Grafana's dashboards and the reference page from the table of metrics.

    python deploy/observe.py            # writes deploy/dashboards/*.json and docs/reference/metrics.md

A test compares the committed files with what this writes, and every query, also of the alert rules, with the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

from antiphon.telemetry.names import LATEST, TABLE, Kind

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "deploy" / "dashboards"
REFERENCE: Final = ROOT / "docs" / "reference" / "metrics.md"

WIDTH: Final = 24  # columns of Grafana's grid

SELECTED: Final = 'job=~"$job", instance=~"$instance"'
"""The label selectors for the gateways that are chosen in the dashboard."""


class Panel(NamedTuple):
    """A panel: its queries by name of their line, and Grafana's name of the unit."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    wide: int = 12
    about: str = ""


class Dashboard(NamedTuple):
    """A dashboard; `uid` is also the name of its file."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, *by: str, where: str = "") -> str:
    """Return a query for the growth of a counter per second, in total or by the labels `by`."""
    group = f" by ({', '.join(by)})" if by else ""
    selected = f"{SELECTED}, {where}" if where else SELECTED
    return f"sum{group} (rate({metric}{{{selected}}}[$__rate_interval]))"


def quantile(share: float, metric: str, *by: str, where: str = "") -> str:
    """Return a query for a quantile (0 to 1) of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', 'le', *by, where=where)})"


def gauge(metric: str) -> str:
    """Return a query for the sum of a gauge."""
    return f"sum({metric}{{{SELECTED}}})"


def per(above: str, below: str) -> str:
    """Return a query for a ratio; it has no value where the divisor is 0."""
    return f"{above} / ({below} > 0)"


def quantiles(metric: str, *by: str) -> dict[str, str]:
    """Return queries for the median and for the 95th and 99th percentile, by name of the line."""
    name = "".join(f" {{{{{label}}}}}" for label in by)
    return {f"p{share * 100:g}{name}": quantile(share, metric, *by) for share in (0.5, 0.95, 0.99)}


CALLS: Final = "grpc_server_call_duration_seconds"
SERVER_FAULTS: Final = 'grpc_status=~"INTERNAL|UNKNOWN|UNAVAILABLE|DEADLINE_EXCEEDED|DATA_LOSS"'
"""The statuses of calls that failed through no fault of the caller."""
STORED: Final = 'grpc_method=~"HistoryService/.*"'
PROVIDER: Final = "gen_ai_provider_name"
MODEL: Final = "gen_ai_request_model"

OVERVIEW: Final = Dashboard(
    "antiphon-overview",
    "Antiphon: overview",
    (
        Panel("Calls a second", {"calls": rate(f"{CALLS}_count")}, "reqps", "stat", 4),
        Panel("In flight", {"calls": gauge("antiphon_calls_in_flight")}, "short", "stat", 4),
        Panel(
            "Failed calls",
            {"share": per(rate(f"{CALLS}_count", where=SERVER_FAULTS), rate(f"{CALLS}_count"))},
            "percentunit",
            "stat",
            4,
            about="By our fault or a provider's.",
        ),
        Panel("Overhead, p99", {"p99": quantile(0.99, "antiphon_overhead_seconds")}, "s", "stat", 4),
        Panel("Workers", {"workers": gauge("antiphon_workers")}, "short", "stat", 4),
        Panel("USD an hour", {"cost": f"{rate('antiphon_cost_usd_total')} * 3600"}, "currencyUSD", "stat", 4),
        Panel("Calls by method", {"{{grpc_method}}": rate(f"{CALLS}_count", "grpc_method")}, "reqps"),
        Panel("Ends of calls", {"{{grpc_status}}": rate(f"{CALLS}_count", "grpc_status")}, "reqps"),
        Panel("Time of calls", quantiles(CALLS), "s", about="From arrival to end: of a stream, all of it."),
        Panel(
            "Overhead",
            quantiles("antiphon_overhead_seconds"),
            "s",
            about="What a call took outside its attempts at providers: key, limits, guards, history.",
        ),
        Panel("Failed calls by reason", {"{{reason}}": rate("antiphon_failed_calls_total", "reason")}, "reqps"),
        Panel("Refused by a limit", {"{{limit}} of {{scope}}": rate("antiphon_limits_refused_total", "limit", "scope")}, "reqps"),
        Panel("Waiting for slow readers", {"workers": gauge("antiphon_stream_buffer_bytes")}, "bytes"),
        Panel(
            "Tokens sent together",
            {"mean of the workers": f"{gauge('antiphon_stream_coalescing_seconds')} / {gauge('antiphon_workers')}"},
            "s",
            about="How long busy workers collect tokens before they send them; 0: not at all.",
        ),
        Panel("Lag of the event loops", quantiles("antiphon_event_loop_lag_seconds"), "s", about="A worker that is full is late."),
        Panel("CPU, in cores", {"workers": rate("antiphon_cpu_seconds_total")}, "short", wide=6),
        Panel("Resident memory", {"workers": gauge("antiphon_resident_memory_bytes")}, "bytes", wide=6),
        Panel(
            "Workers and their exits",
            {"workers": gauge("antiphon_workers"), "exits": f"sum(increase(antiphon_worker_exits_total{{{SELECTED}}}[10m]))"},
        ),
        Panel("Versions", {"{{version}}": f"count by (version) (antiphon_build_info{{{SELECTED}}})"}),
    ),
)

TOKENS: Final = Dashboard(
    "antiphon-tokens",
    "Antiphon: tokens and cost",
    (
        Panel("Tokens a second", {"{{kind}}": rate("antiphon_tokens_total", "kind", where='kind=~"input|output"')}),
        Panel(
            "USD an hour, by model",
            {"{{provider}}/{{model}}": f"{rate('antiphon_cost_usd_total', 'provider', 'model')} * 3600"},
            "currencyUSD",
        ),
        Panel(
            "Input tokens, by model",
            {"{{provider}}/{{model}}": rate("antiphon_tokens_total", "provider", "model", where='kind="input"')},
        ),
        Panel(
            "Output tokens, by model",
            {"{{provider}}/{{model}}": rate("antiphon_tokens_total", "provider", "model", where='kind="output"')},
        ),
        Panel(
            "Cached share of the input",
            {
                "{{provider}}/{{model}}": per(
                    rate("antiphon_tokens_total", "provider", "model", where='kind="cached_input"'),
                    rate("antiphon_tokens_total", "provider", "model", where='kind="input"'),
                )
            },
            "percentunit",
        ),
        Panel(
            "Reasoning tokens",
            {"{{provider}}/{{model}}": rate("antiphon_tokens_total", "provider", "model", where='kind="reasoning"')},
        ),
        Panel("Tokens of a call", quantiles("gen_ai_client_token_usage", "gen_ai_token_type")),
        Panel(
            "Tokens of a call, mean",
            {
                "{{gen_ai_token_type}}": per(
                    rate("gen_ai_client_token_usage_sum", "gen_ai_token_type"),
                    rate("gen_ai_client_token_usage_count", "gen_ai_token_type"),
                )
            },
        ),
        Panel(
            "USD of the last day, by model",
            {"{{provider}}/{{model}}": f"sum by (provider, model) (increase(antiphon_cost_usd_total{{{SELECTED}}}[1d]))"},
            "currencyUSD",
        ),
        Panel(
            "Calls whose tokens are estimated",
            {"{{provider}}/{{model}}": rate("antiphon_estimated_usage_total", "provider", "model")},
            "reqps",
        ),
    ),
)

PROVIDERS: Final = Dashboard(
    "antiphon-providers",
    "Antiphon: providers",
    (
        Panel("Attempts", {"{{provider}}": rate("antiphon_attempts_total", "provider")}, "reqps"),
        Panel(
            "Attempts that failed",
            {
                "{{provider}} {{class}}": rate(
                    "antiphon_attempts_total", "provider", "class", where='class!~"ok|gone|deadline|stopping"'
                )
            },
            "reqps",
        ),
        Panel(
            "Share that failed",
            {
                "{{provider}}": per(
                    rate(
                        "antiphon_attempts_total", "provider", where='class!~"ok|gone|deadline|stopping|invalid|too_long|blocked"'
                    ),
                    rate("antiphon_attempts_total", "provider"),
                )
            },
            "percentunit",
        ),
        Panel(
            "Rate limits of providers",
            {"{{provider}}": rate("antiphon_attempts_total", "provider", where='class="rate_limited"')},
            "reqps",
        ),
        Panel(
            "Time of attempts, p95",
            {f"{{{{{PROVIDER}}}}}": quantile(0.95, "gen_ai_client_operation_duration_seconds", PROVIDER)},
            "s",
        ),
        Panel(
            "Time to the first token, p95",
            {f"{{{{{PROVIDER}}}}}": quantile(0.95, "gen_ai_server_time_to_first_token_seconds", PROVIDER)},
            "s",
        ),
        Panel(
            "Closed because the caller was gone", {"{{provider}}": rate("antiphon_cancelled_upstream_total", "provider")}, "reqps"
        ),
        Panel(
            "Time to close it, p99",
            {"{{provider}}": quantile(0.99, "antiphon_cancel_seconds", "provider")},
            "s",
            about="Of a provider's call whose caller is gone or out of time. It goes on to cost until then.",
        ),
        Panel(
            "Breakers that are not closed",
            {"{{deployment}} {{state}}": f'sum by (deployment, state) (antiphon_breaker_state{{{SELECTED}, state!="closed"}})'},
            about="Models of a deployment that is left alone, or returns slowly, because it failed.",
        ),
        Panel("Waits before an attempt, p95", {"{{deployment}}": quantile(0.95, "antiphon_queue_seconds", "deployment")}, "s"),
        Panel(
            "Attempts by model",
            {f"{{{{{PROVIDER}}}}}/{{{{{MODEL}}}}}": rate("gen_ai_client_operation_duration_seconds_count", PROVIDER, MODEL)},
            "reqps",
        ),
    ),
)

STREAMS: Final = Dashboard(
    "antiphon-streams",
    "Antiphon: streams",
    (
        Panel("Time to the first token", quantiles("gen_ai_server_time_to_first_token_seconds"), "s"),
        Panel("Time of a token", quantiles("gen_ai_server_time_per_output_token_seconds"), "s"),
        Panel(
            "Time to the first token, p95 by model",
            {f"{{{{{MODEL}}}}}": quantile(0.95, "gen_ai_server_time_to_first_token_seconds", MODEL)},
            "s",
        ),
        Panel(
            "Tokens a second of a stream, by model",
            {
                f"{{{{{MODEL}}}}}": per(
                    rate("gen_ai_server_time_per_output_token_seconds_count", MODEL),
                    rate("gen_ai_server_time_per_output_token_seconds_sum", MODEL),
                )
            },
        ),
        Panel("Streams", {f"{{{{{PROVIDER}}}}}": rate("gen_ai_server_time_to_first_token_seconds_count", PROVIDER)}, "reqps"),
        Panel("Cut off", {"{{provider}}": rate("antiphon_attempts_total", "provider", where='class="cut"')}, "reqps"),
        Panel(
            "Left by their callers", {"{{provider}}": rate("antiphon_attempts_total", "provider", where='class="gone"')}, "reqps"
        ),
    ),
)

HISTORY: Final = Dashboard(
    "antiphon-history",
    "Antiphon: history",
    (
        Panel("Turns", {"{{outcome}}": rate("antiphon_turns_recorded_total", "outcome")}, "reqps"),
        Panel(
            "Turns that were not complete",
            {
                "share": per(
                    rate("antiphon_turns_recorded_total", where='outcome=~"failed|cancelled"'),
                    rate("antiphon_turns_recorded_total"),
                )
            },
            "percentunit",
        ),
        Panel("Calls to the history", {"{{grpc_method}}": rate(f"{CALLS}_count", "grpc_method", where=STORED)}, "reqps"),
        Panel(
            "Time of calls to the history, p95",
            {"{{grpc_method}}": quantile(0.95, CALLS, "grpc_method", where=STORED)},
            "s",
        ),
        Panel("Database out of reach", {"calls": rate("antiphon_failed_calls_total", where='reason="STORE_UNAVAILABLE"')}, "reqps"),
    ),
)

DASHBOARDS: Final = (OVERVIEW, TOKENS, PROVIDERS, STREAMS, HISTORY)


def grafana(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana's classic JSON, for any Prometheus that is chosen."""
    numbers = count(1)
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["antiphon"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "tags": ["antiphon"],
                "title": "Antiphon",
                "asDropdown": True,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                _variable("job", "antiphon_workers"),
                _variable("instance", 'antiphon_workers{job=~"$job"}'),
            ]
        },
        "panels": [{"id": next(numbers), **panel} for panel in _placed(dashboard.panels)],
    }


def _placed(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    x = y = 0
    tall = 0
    for panel in panels:
        if x + panel.wide > WIDTH:
            x, y = 0, y + tall
        tall = 4 if panel.kind == "stat" else 8
        yield {
            "type": panel.kind,
            "title": panel.title,
            "description": panel.about,
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "gridPos": {"x": x, "y": y, "w": panel.wide, "h": tall},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": {"reduceOptions": {"calcs": ["lastNotNull"]}}
            if panel.kind == "stat"
            else {
                "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "max"]},
                "tooltip": {"mode": "multi", "sort": "desc"},
            },
            "targets": [
                {"refId": chr(ord("A") + at), "expr": query, "legendFormat": name}
                for at, (name, query) in enumerate(panel.queries.items())
            ],
        }
        x += panel.wide


def _variable(label: str, series: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": f"label_values({series}, {label})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def reference() -> str:
    """Return the reference page."""
    lines = [
        "# Metrics",
        "",
        "Made by `deploy/observe.py` from `server/antiphon/telemetry/names.py`.",
        "How to scrape them, and what to do when they are bad: [Operate](../guide/operate.md).",
        "",
        "Labels are bounded: a provider or a model that the configuration does not name is `other`, also one that fits a",
        "pattern; a model has a label of its own if it stands in `providers.<name>.models`. Callers are in no label.",
        "",
        "| metric | type | labels | what it is |",
        "|---|---|---|---|",
    ]
    for metric in TABLE:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        standard = f" `{metric.standard}` of OpenTelemetry or gRPC." if metric.standard else ""
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help}{standard} |")
    lines += [
        "",
        "With the variable `OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental` the names of OpenTelemetry's conventions for",
        "generative AI 0.1 take the place of those of 1.41. The dashboards and alert rules of `deploy/` ask for the names above.",
        "",
        "| instead of | metric | labels |",
        "|---|---|---|",
    ]
    for old, latest in LATEST.items():
        for metric in latest:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            lines.append(f"| `{old.name}` | `{metric.name}` | {labels} |")
    lines += ["", "Buckets of histograms, by their upper bounds:", "", "| metric | buckets |", "|---|---|"]
    lines += [
        f"| `{metric.name}` | {', '.join(f'{bound:.15g}' for bound in metric.buckets)} |"
        for metric in (*TABLE, *(metric for latest in LATEST.values() for metric in latest))
        if metric.kind is Kind.HISTOGRAM
    ]
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """Return the texts by the files they belong in."""
    made = {FOLDER / f"{each.uid}.json": json.dumps(grafana(each), indent=1) + "\n" for each in DASHBOARDS}
    return {**made, REFERENCE: reference()}


def main() -> None:
    """Write all files."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
