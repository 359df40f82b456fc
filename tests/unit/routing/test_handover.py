"""Tests of the handover of what is known of deployments."""

import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from antiphon.config import ProviderConfig, RoutingConfig, TimeoutsConfig
from antiphon.config.routing import BreakerConfig, DeploymentConfig
from antiphon.routing import handover
from antiphon.routing.breaker import BreakerState
from antiphon.routing.deployment import Deployment
from antiphon.routing.pools import build_pool

KEYS = {"A": "one", "B": "two"}
RULES = RoutingConfig()


def deployments(rules: RoutingConfig = RULES, environment: dict[str, str] = KEYS, **east: Any) -> tuple[Deployment, ...]:
    own = {"east": DeploymentConfig(**{"api_key_env": "A", **east}), "west": DeploymentConfig(api_key_env="B")}
    config = ProviderConfig(base_url="http://127.0.0.1:1/v1", deployments=own)
    return build_pool("acme", config, rules, environment).deployments


def learn(deployment: Deployment) -> None:
    """Make a breaker open for a minute, another model limit its rate, and a third one be measured."""
    now = time.monotonic()
    deployment.candidate("broken").breaker.trip(now, 60)
    deployment.candidate("busy").cool(now + 30)
    deployment.candidate("fast").first_token.add(0.25)
    deployment.candidate("shaky").failures.add(now, failed=True)
    deployment.candidate("new")


def test_a_successor_goes_on_with_what_was_known(tmp_path: Path) -> None:
    """Breakers, cool-downs, averages and failures are those of the process before; the file is private, and used once."""
    path = tmp_path / "routing-0.json"
    old, new = deployments(), deployments()
    learn(old[0])
    handover.write(path, old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(key in path.read_text() for key in KEYS.values())
    with capture_logs() as logs:
        handover.read(path, new)
    assert [(line["event"], line["deployments"], line["changed"]) for line in logs] == [("routing_taken_over", 2, 0)]
    now, east = time.monotonic(), new[0]
    assert east.candidate("broken").breaker.state is BreakerState.OPEN
    assert 58 < east.candidate("broken").wait(now) <= 60
    assert 28 < east.candidate("busy").wait(now) <= 30
    assert east.candidate("fast").first_token.value == 0.25
    assert 0.15 < east.candidate("shaky").failures.at(now) <= 0.2
    assert {each.model for each in east.candidates()} == {"broken", "busy", "fast", "shaky"}
    assert not new[1].candidates()
    assert not path.exists()
    handover.read(path, deployments())


def test_a_successor_knows_of_a_trip(tmp_path: Path) -> None:
    """It goes on for models that only the successor has, it does not begin anew when it is read again, and it can be ended."""
    path = tmp_path / "routing-0.json"
    old, new = deployments(), deployments()
    old[0].candidate("tripped")
    until = datetime.now(UTC) + timedelta(seconds=60)
    old[0].trip(until)
    handover.write(path, old)
    new[0].candidate("more")
    handover.read(path, new)
    breakers = [new[0].candidate(name).breaker for name in ("tripped", "more")]
    before = [(breaker.state, breaker.epoch) for breaker in breakers]
    assert [state for state, _ in before] == [BreakerState.OPEN] * 2
    new[0].trip(until)
    assert [(breaker.state, breaker.epoch) for breaker in breakers] == before
    new[0].trip(None)
    assert [breaker.state for breaker in breakers] == [BreakerState.CLOSED] * 2
    assert new[1].tripped is None


@pytest.mark.parametrize(
    "changed",
    [
        {"base_url": "http://127.0.0.1:2/v1"},
        {"api_key_env": "B"},
        {"environment": {**KEYS, "A": "another"}},
        {"headers": {"x-a": "b"}},
        {"query": {"a": "b"}},
        {"timeouts": {"first_token": 3}},
        {"rules": RoutingConfig(breaker=BreakerConfig(open=1))},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_deployment_that_changed_begins_anew(changed: dict[str, Any], tmp_path: Path) -> None:
    """Another address, key, header or rule may have been the cure; the deployment beside it keeps its state."""
    path = tmp_path / "routing-0.json"
    old, new = deployments(), deployments(**changed)
    for each in old:
        learn(each)
    handover.write(path, old)
    handover.read(path, new)
    assert not new[0].candidates()
    assert bool(new[1].candidates()) is ("rules" not in changed)


def test_other_settings_change_nothing(tmp_path: Path) -> None:
    """Weights, prices, models and grants say nothing about whether a deployment works."""
    path = tmp_path / "routing-0.json"
    old = deployments()
    learn(old[0])
    handover.write(path, old)
    new = deployments(weight=3, concurrent=7, requests_per_minute=10, prices={"m": {"input": 1, "output": 1}})
    handover.read(path, new)
    assert new[0].candidate("broken").breaker.state is BreakerState.OPEN


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"at": 0, "deployments": {}}', '{"at": "x", "deployments": 3}'])
def test_a_file_of_another_time_or_version_is_ignored(text: str, tmp_path: Path) -> None:
    """What is old, or cannot be read, changes nothing."""
    path = tmp_path / "routing-0.json"
    path.write_text(text)
    new = deployments()
    handover.read(path, new)
    assert not any(each.candidates() for each in new)


def test_a_file_that_cannot_be_written_is_logged(tmp_path: Path) -> None:
    """The successor then begins anew, and nothing fails."""
    with capture_logs() as logs:
        handover.write(tmp_path / "gone" / "routing-0.json", deployments())
    assert [(line["event"], line["error"]) for line in logs] == [("routing_not_handed_over", "No such file or directory")]


def test_times_of_a_deployment_are_merged() -> None:
    """A deployment has the times of its provider but for those that it sets itself."""
    timeouts = TimeoutsConfig(connect=3, stall=40)
    own = {"east": DeploymentConfig(timeouts={"first_token": 2, "stall": 50})}  # type: ignore[arg-type]  # as in a file
    (east,) = build_pool(
        "acme", ProviderConfig(base_url="http://127.0.0.1:1/v1", timeouts=timeouts, deployments=own), RULES, {}
    ).deployments
    assert east.timeouts == TimeoutsConfig(connect=3, first_token=2, stall=50)
