"""The benchmarks run, from their start to their tables. What they find here means nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=280, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_gateways_are_compared(tmp_path: Path) -> None:
    """With tables of costs, needs and features, and plots."""
    only = ("--only", "direct", "antiphon", "skeleton", "--scenarios", "json-64", "grpc-64", "--features")
    told = _run("compare", "--quick", "--seconds", "0.3", "--output", str(tmp_path), *only)
    assert "| JSON, 64 at once |" in told
    assert "| gRPC, 64 at once |" in told
    assert "### Failures" not in told
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json", "bench.md", "bench-json.svg", "bench-memory.svg"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_size_is_measured(tmp_path: Path) -> None:
    """Each size, and its ratio to the smallest one."""
    told = _run("scale", "--only", "conversation", "--rounds", "1", "--seconds", "0.3", "--output", str(tmp_path))
    assert "| 1,000 |" in told
    assert (tmp_path / "scale-conversation.svg").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_features_are_measured() -> None:
    """In pairs."""
    assert "limits: " in _run("features", "--only", "limits", "--pairs", "2", "--seconds", "0.2")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_outages_are_measured(tmp_path: Path) -> None:
    """Over time, with a plot."""
    told = _run("outages", "--only", "outages", "--setups", "two workers", "--faults", "killed", "--output", str(tmp_path))
    assert "| two workers | killed | " in told
    assert {path.name for path in tmp_path.iterdir()} == {"outages.json", "outages.md", "outages-two-workers.svg"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_soak_finds_nothing_that_grew(tmp_path: Path) -> None:
    """No descriptor, thread or task, and the calls end as they should."""
    assert "Nothing grew." in _run("soak", "--minutes", "0.2", "--output", str(tmp_path))
    assert (tmp_path / "soak.svg").exists()
