"""The callers and the provider of the benchmarks, which are programs in C."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import native
from tests.bench.native import Upstream
from tests.bench.scenarios import Scenario
from tests.waiting import block_until

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with native.upstream() as made:
        yield made


def _load(upstream: Upstream, folder: Path, scenario: Scenario, **more: Any) -> dict[str, Any]:
    options = {"connections": scenario.connections, "seconds": 10, "calls": 20, **more}
    if scenario.stream:
        options["tokens"] = scenario.tokens
    return native.finish(native.start_load(upstream.port, PATH, scenario.write(folder, "{}"), **options))


def test_calls_are_answered(upstream: Upstream, tmp_path: Path) -> None:
    """As many as were wanted, by several callers."""
    found = _load(upstream, tmp_path, Scenario("json", "", 4, 32))
    assert (found["ok"], found["failed"], found["broken"], found["unfinished"]) == (20, 0, 0, 0)
    assert found["bytes"] > 20 * 32 * len(" token")


def test_tokens_tell_their_time(upstream: Upstream, tmp_path: Path) -> None:
    """Every token is found, wherever a read cuts it, and they come as far apart as the model's name says."""
    found = _load(upstream, tmp_path, Scenario("paced", "", 4, 10, "mock-d5-s100", stream=True))
    assert (found["ok"], found["tokens"], found["short"]) == (20, 200, 0)
    assert 0 < found["transit_p50"] < 1000
    assert found["first_p50"] >= 4
    assert found["gap_p50"] >= 1


def test_callers_that_leave_are_noticed(upstream: Upstream, tmp_path: Path) -> None:
    """By the provider, once each."""
    before = upstream.stats()["left"]
    found = _load(upstream, tmp_path, Scenario("leave", "", 4, 100, "mock-d5", stream=True), cancel_after=3)
    assert (found["ok"], found["cancelled"]) == (0, 20)
    block_until(lambda: upstream.stats()["left"] == before + 20)
    assert abs(upstream.stats()["left_at"] / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 20


@pytest.mark.parametrize(
    ("model", "stream", "wanted"),
    [("mock-fail", False, {"failed": 20, "ok": 0}), ("mock-d0-cut", True, {"broken": 20, "ok": 0})],
    ids=["fails", "is cut off"],
)
def test_faults_are_told(upstream: Upstream, tmp_path: Path, model: str, stream: bool, wanted: dict[str, int]) -> None:
    """An error, and a stream that breaks off."""
    found = _load(upstream, tmp_path, Scenario("fault", "", 2, 32, model, stream=stream))
    assert found | wanted == found
    assert ("failed as asked" in found["sample"]) == (model == "mock-fail")


def test_slow_callers_get_everything(upstream: Upstream, tmp_path: Path) -> None:
    """The provider waits for them."""
    found = _load(upstream, tmp_path, Scenario("slow", "", 2, 100, "mock-d0-s500", stream=True), calls=2, slow=True, grace=30)
    assert (found["ok"], found["tokens"], found["short"]) == (2, 200, 0)
    assert found["latency_p50"] > 100
