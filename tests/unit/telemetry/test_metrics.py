"""Tests of a worker's metrics."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.call import Attempt, Call
from antiphon.domain.errors import AntiphonError, ProviderUnavailable, RateLimited
from antiphon.domain.events import Usage
from antiphon.telemetry.metrics import CallMetrics
from antiphon.telemetry.names import EXITS, LATEST, RELOADED, TABLE, Kind
from antiphon.up.families import parse


def metrics(*, latest: bool = False) -> CallMetrics:
    return CallMetrics(
        {"openai": ["gpt", "mini"], "open": []}, {"alias"}, "1.2.3", breakers=lambda: {("openai", "closed"): 2}, latest=latest
    )


def series(counted: CallMetrics) -> dict[str, float]:
    families = parse(counted.exposition().decode())
    return {name: value for family in families.values() for name, value in family.series.items()}


def play(
    counted: CallMetrics,
    *,
    provider: str = "openai",
    model: str = "gpt",
    usage: Usage | None = None,
    error: BaseException | None = None,
    end: AntiphonError | None = None,
    streamed: bool = True,
) -> None:
    """Report one call to the metrics, from its start to its end."""
    call = Call(method="ChatService/StreamGenerate")
    counted.started(call)
    attempt = Attempt(provider, model, call.started_at, streamed, provider, waited=0.2)
    call.provider, call.model = provider, model
    if usage is not None:
        call.first_token = 0.001
    if isinstance(error, asyncio.CancelledError):
        counted.cancelled_upstream(call, attempt, 0.002)
    counted.attempt_ended(call, attempt, error)
    call.usage, call.cost_usd = usage, 0.25
    counted.settled(call)
    counted.turn_ended(call, "complete")
    counted.ended(call, "OK" if error is None else "UNAVAILABLE", end)


def test_a_call_is_counted_in_every_metric() -> None:
    """A call is counted in every metric of the table but those of the supervisor, and no other metric exists."""
    counted = metrics()
    counted.lag(0.001)
    play(counted, usage=Usage(10, 5, 15, cached_tokens=4, reasoning_tokens=3, estimated=True))
    limited = RateLimited("", limit="requests_per_minute", scope="key", quota=1, retry_after=1)
    play(counted, error=asyncio.CancelledError(), end=limited)
    families = parse(counted.exposition().decode())
    assert {name: family.kind for name, family in families.items()} == {
        metric.name: metric.kind for metric in TABLE if metric not in (EXITS, RELOADED)
    }
    assert [name for name, family in families.items() if not family.series] == []
    found = series(counted)
    operation = 'gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="gpt"'
    assert {
        name: found[name]
        for name in (
            'antiphon_attempts_total{class="ok",provider="openai"}',
            'antiphon_attempts_total{class="gone",provider="openai"}',
            'antiphon_cancelled_upstream_total{provider="openai"}',
            'antiphon_cancel_seconds_sum{provider="openai"}',
            'antiphon_tokens_total{kind="input",model="gpt",provider="openai"}',
            'antiphon_tokens_total{kind="cached_input",model="gpt",provider="openai"}',
            'antiphon_estimated_usage_total{model="gpt",provider="openai"}',
            'antiphon_cost_usd_total{model="gpt",provider="openai"}',
            'antiphon_limits_refused_total{limit="requests_per_minute",scope="key"}',
            'antiphon_failed_calls_total{reason="RATE_LIMIT_EXCEEDED"}',
            'antiphon_turns_recorded_total{outcome="complete"}',
            'grpc_server_call_duration_seconds_count{grpc_method="ChatService/StreamGenerate",grpc_status="OK"}',
            f'gen_ai_client_token_usage_sum{{{operation},gen_ai_token_type="output"}}',
            f"gen_ai_server_time_to_first_token_seconds_count{{{operation}}}",
            f"gen_ai_server_time_per_output_token_seconds_count{{{operation}}}",
            "antiphon_overhead_seconds_count",
            "antiphon_calls_in_flight",
            "antiphon_workers",
        )
    } == {
        'antiphon_attempts_total{class="ok",provider="openai"}': 1,
        'antiphon_attempts_total{class="gone",provider="openai"}': 1,
        'antiphon_cancelled_upstream_total{provider="openai"}': 1,
        'antiphon_cancel_seconds_sum{provider="openai"}': 0.002,
        'antiphon_tokens_total{kind="input",model="gpt",provider="openai"}': 10,
        'antiphon_tokens_total{kind="cached_input",model="gpt",provider="openai"}': 4,
        'antiphon_estimated_usage_total{model="gpt",provider="openai"}': 1,
        'antiphon_cost_usd_total{model="gpt",provider="openai"}': 0.25,
        'antiphon_limits_refused_total{limit="requests_per_minute",scope="key"}': 1,
        'antiphon_failed_calls_total{reason="RATE_LIMIT_EXCEEDED"}': 1,
        'antiphon_turns_recorded_total{outcome="complete"}': 2,
        'grpc_server_call_duration_seconds_count{grpc_method="ChatService/StreamGenerate",grpc_status="OK"}': 1,
        f'gen_ai_client_token_usage_sum{{{operation},gen_ai_token_type="output"}}': 5,
        f"gen_ai_server_time_to_first_token_seconds_count{{{operation}}}": 1,
        f"gen_ai_server_time_per_output_token_seconds_count{{{operation}}}": 1,
        "antiphon_overhead_seconds_count": 2,
        "antiphon_calls_in_flight": 0,
        "antiphon_workers": 1,
    }


def test_the_latest_names_take_the_place_of_those_before() -> None:
    """With `latest`, the newest names of OpenTelemetry replace the earlier ones, with the same values."""
    counted = metrics(latest=True)
    counted.lag(0.001)
    play(counted, usage=Usage(10, 5, 15))
    play(
        counted,
        error=asyncio.CancelledError(),
        end=RateLimited("", limit="requests_per_minute", scope="key", quota=1, retry_after=1),
    )
    families = parse(counted.exposition().decode())
    replaced = {old.name for old in LATEST}
    expected = {metric.name: metric.kind for metric in TABLE if metric not in (EXITS, RELOADED) and metric.name not in replaced}
    expected |= {metric.name: metric.kind for new in LATEST.values() for metric in new}
    assert {name: family.kind for name, family in families.items()} == expected
    operation = 'gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="gpt"'
    found = series(counted)
    assert found[f"gen_ai_client_inference_operation_input_tokens_sum{{{operation}}}"] == 10
    assert found[f"gen_ai_client_inference_operation_output_tokens_sum{{{operation}}}"] == 5
    assert found[f"gen_ai_client_inference_time_to_first_chunk_seconds_count{{{operation}}}"] == 1
    assert found[f'gen_ai_client_inference_duration_seconds_count{{error_type="",{operation}}}'] == 1


def test_calls_that_go_on_are_in_flight() -> None:
    """Calls are in flight from their start to their end."""
    counted = metrics()
    calls = [Call(), Call()]
    for call in calls:
        counted.started(call)
    assert series(counted)["antiphon_calls_in_flight"] == 2
    counted.ended(calls[0], "OK", None)
    assert series(counted)["antiphon_calls_in_flight"] == 1


def test_a_call_that_asks_no_provider_has_no_overhead() -> None:
    """A call without a provider has no overhead, which would be all of its time."""
    counted = metrics()
    call = Call(method="HistoryService/ListMessages")
    counted.started(call)
    counted.ended(call, "OK", None)
    assert series(counted)["antiphon_overhead_seconds_count"] == 0


def test_a_whole_reply_has_no_time_of_tokens() -> None:
    """A reply that is not streamed has no time to first token or per token."""
    counted = metrics()
    play(counted, usage=Usage(1, 2, 3), streamed=False)
    assert not any("time_to_first" in name or "per_output" in name for name in series(counted) if name.endswith("_count}"))
    assert not any(value for name, value in series(counted).items() if "time_to_first_token" in name)


def test_a_failed_attempt_has_its_class_as_error_type() -> None:
    """A failed attempt has its class as `error_type`; a successful one has an empty label."""
    counted = metrics()
    play(counted, error=ProviderUnavailable("", provider="openai"))
    play(counted)
    counts = [name for name in series(counted) if name.startswith("gen_ai_client_operation_duration_seconds_count")]
    assert [name.partition('"')[2].partition('"')[0] for name in counts] == ["connect", ""]


def test_failures_are_counted_from_zero() -> None:
    """Failure counters start at 0, so that Prometheus sees the first failure as an increase."""
    found = series(metrics())
    assert found['antiphon_attempts_total{class="overloaded",provider="openai"}'] == 0
    assert found['antiphon_failed_calls_total{reason="STORE_UNAVAILABLE"}'] == 0


def test_proxied_calls_are_attempts_alone() -> None:
    """Proxied calls are counted as attempts only, under the alias of the target or `other`."""
    counted = metrics()
    play(counted, provider="alias", model="", usage=Usage(1, 1, 2))
    play(counted, provider="elsewhere.example", model="", usage=Usage(1, 1, 2))
    attempts = {name for name, value in series(counted).items() if name.startswith("antiphon_attempts_total") and value}
    assert attempts == {f'antiphon_attempts_total{{class="ok",provider="{name}"}}' for name in ("alias", "other")}
    assert not any(name.startswith("antiphon_tokens_total") for name in series(counted))


@given(st.lists(st.tuples(st.text(max_size=8), st.text(min_size=1, max_size=8))))
def test_labels_are_bounded_whatever_models_callers_ask_for(pairs: list[tuple[str, str]]) -> None:
    """Models and providers that are not configured are counted as `other`, and take no memory."""
    counted = metrics()
    names = [*pairs, ("openai", "gpt"), ("openai", "invented"), ("open", "gpt"), ("stranger", "gpt")]
    for provider, model in names:
        play(counted, provider=provider, model=model, usage=Usage(1, 1, 2))
    costs = {name for name in series(counted) if name.startswith("antiphon_cost_usd_total")}
    assert costs == {
        f'antiphon_cost_usd_total{{model="{model}",provider="{provider}"}}'
        for provider, model in (("openai", "gpt"), ("openai", "other"), ("open", "other"), ("other", "other"))
    }
    total = sum(value for name, value in series(counted).items() if name.startswith("antiphon_attempts_total"))
    assert total == len(names)
    assert counted._by_labels.cache_info().currsize == 4


def test_every_type_of_the_table_is_made_as_such() -> None:
    """A histogram has every bucket of the table."""
    counted = metrics()
    play(counted, usage=Usage(10, 5, 15))
    found = series(counted)
    for metric in TABLE:
        if metric.kind is Kind.HISTOGRAM and not metric.labels:
            assert sum(name.startswith(f"{metric.name}_bucket") for name in found) == len(metric.buckets) + 1
