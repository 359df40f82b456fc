"""A worker's line to its supervisor. `tests/unit/up/test_counts.py` has both ends."""

from pathlib import Path

from antiphon.telemetry.report import Reporter


def test_a_worker_without_anybody_to_report_to_goes_on(tmp_path: Path) -> None:
    """And can say why it reports nothing."""
    with Reporter(tmp_path / "none.sock", lambda: b"") as reporter:
        assert reporter.failure == "No such file or directory"
