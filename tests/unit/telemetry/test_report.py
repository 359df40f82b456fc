"""Tests of a worker's connection to its supervisor for metrics. Both ends are tested in `tests/unit/up/test_counts.py`."""

from pathlib import Path

from antiphon.telemetry.report import Reporter


def test_a_worker_without_anybody_to_report_to_goes_on(tmp_path: Path) -> None:
    """A worker without a supervisor goes on, and the reporter has the reason for not reporting."""
    with Reporter(tmp_path / "none.sock", lambda: b"") as reporter:
        assert reporter.failure == "No such file or directory"
