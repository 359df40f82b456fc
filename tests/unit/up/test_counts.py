"""Tests of adding up the metrics of all workers, with workers in this process."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from antiphon.telemetry.names import EXITS, RELOADED
from antiphon.telemetry.report import Reporter
from antiphon.up import counts
from antiphon.up.counts import Counts
from antiphon.up.families import parse
from tests.waiting import block_until


class Worker:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.calls = Counter("calls_total", "Calls", registry=self._registry)
        self.open = Gauge("open", "Open ones", registry=self._registry)
        self.reports = 0

    def exposition(self) -> bytes:
        self.reports += 1
        return generate_latest(self._registry)


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's paths are too long for sockets
        yield Path(folder, "metrics.sock")


def read(of: Counts) -> dict[str, float]:
    families = parse(of.exposition().decode())
    del families[RELOADED.name]
    return {name: value for family in families.values() for name, value in family.series.items() if not name.endswith("_created")}


def test_whether_the_newest_configuration_is_in_force(path: Path) -> None:
    """A gauge reports whether the newest configuration is in use."""
    newest = [True]
    with closing(Counts(path, interval=600, is_newest=lambda: newest[0])) as of:
        assert parse(of.exposition().decode())[RELOADED.name].series == {RELOADED.name: 1}
        newest[0] = False
        assert parse(of.exposition().decode())[RELOADED.name].series == {RELOADED.name: 0}


def test_metrics_of_all_workers_are_added_up(path: Path) -> None:
    """The metrics of all workers are added up as of the moment of the request."""
    first, second = Worker(), Worker()
    with closing(Counts(path, interval=600)) as of, Reporter(path, first.exposition), Reporter(path, second.exposition):
        block_until(lambda: "calls_total" in read(of) and len(of._workers) == 2)
        first.calls.inc(3)
        second.calls.inc(4)
        first.open.set(1)
        second.open.set(1)
        assert read(of) == {"calls_total": 7, "open": 2, EXITS.name: 0}


def test_counters_of_a_worker_that_ended_stay_in_the_sum(path: Path) -> None:
    """The counters of an ended worker stay in the sum, with its last report; its gauges do not."""
    first, second = Worker(), Worker()
    with closing(Counts(path, interval=600)) as of:
        with Reporter(path, first.exposition):
            first.open.set(1)
            first.calls.inc(3)
        block_until(lambda: read(of) == {"calls_total": 3, EXITS.name: 1})
        with Reporter(path, second.exposition):
            block_until(lambda: "open" in read(of))  # its first report has been read, and is not taken for the next one
            second.calls.inc(1)
            block_until(lambda: read(of) == {"calls_total": 4, "open": 0, EXITS.name: 1})


def test_a_replaced_worker_is_not_counted_as_an_exit(path: Path) -> None:
    """A replaced worker is not counted as an exit, but its counters stay in the sum."""
    worker = Worker()
    with closing(Counts(path, interval=600)) as of:
        with Reporter(path, worker.exposition) as reporter:
            worker.calls.inc(3)
            reporter.replaced = True
        block_until(lambda: read(of) == {"calls_total": 3, EXITS.name: 0} and not of._workers)


def test_a_worker_that_does_not_answer_counts_with_its_last_report(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that does not answer within ANSWER_TIMEOUT is counted with its last report."""
    monkeypatch.setattr(counts, "ANSWER_TIMEOUT", 0.05)
    worker = Worker()
    worker.calls.inc()
    with closing(Counts(path, interval=600)) as of, ExitStack() as stack:
        reporter = stack.enter_context(Reporter(path, worker.exposition))
        block_until(lambda: read(of).get("calls_total") == 1)
        with reporter._send_lock:  # the reporter hangs
            worker.calls.inc()
            assert read(of)["calls_total"] == 1
        block_until(lambda: read(of)["calls_total"] == 2)


def test_workers_are_asked_regularly(path: Path) -> None:
    """Workers are asked regularly, so that little is lost if one is killed."""
    worker = Worker()
    with closing(Counts(path, interval=0.01)), Reporter(path, worker.exposition):
        block_until(lambda: worker.reports > 3)
