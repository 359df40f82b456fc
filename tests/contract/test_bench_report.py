"""The tables of the benchmark beside other gateways."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.bench import report
from tests.bench.features import Feature
from tests.bench.report import Cancel, Held, Results, Sample, Start, Summary
from tests.bench.scenarios import BY_NAME

SCENARIO = BY_NAME["json-64"]


def _sample(gateway: str, number: int, cpu: float, **more: Any) -> Sample:
    whole = {"ok": 1000, "failed": 0, "broken": 0, "unfinished": 0, "short": 0, "tokens": 0, "seconds": 1.0}
    rates = {"calls_per_second": 1000.0, "tokens_per_second": 0.0, "latency_p50": 2.0, "latency_p99": 9.0}
    tokens = {"first_p50": 0.0, "first_p99": 0.0, "transit_p50": 0.0, "transit_p99": 0.0}
    others = {"callers_cpu": 0.1, "foreign": 0.0, "steal": 0.0}
    return Sample(
        **{"round": number, "scenario": "json-64", "gateway": gateway, "cpu": cpu, **whole, **rates, **tokens, **others, **more}
    )


def _results() -> Results:
    results = Results("2026-01-02", "two cores", "abc", 3, 1.0, versions={"litellm": "1"}, left_out={"mlflow": "did not start: no"})
    for number, factor in enumerate((1.0, 2.0, 10.0)):  # a machine that gets slower affects both alike
        results.samples += [_sample("antiphon", number, factor), _sample("litellm", number, 12 * factor)]
    results.starts.append(Start("antiphon", 0.5, 1.5, 180.0, 3, 0.01))
    results.held.append(Held("antiphon", 500, 180.0, 230.0))
    results.cancels += [Cancel("antiphon", 2.0), Cancel("litellm", None)]
    results.features.append(Feature("limits", 1.0, 1.1, 1.1, (1.05, 1.2)))
    return results


def test_ratios_are_those_of_the_rounds() -> None:
    """A cost is a median of the rounds; a ratio is the median of the ratios within them."""
    summary = Summary(_results())
    assert summary.median(SCENARIO, "antiphon", lambda sample: sample.cost) == 2.0
    assert summary.ratio(SCENARIO, "litellm", lambda sample: sample.cost) == 12.0


def test_disturbed_samples_are_left_out() -> None:
    """Unless there are no others."""
    results = _results()
    loud = [_sample("antiphon", 3, 99.0, foreign=0.2, steal=0.2), _sample("smg", 3, 7.0, foreign=1.5)]
    results.samples += loud
    summary = Summary(results)
    assert loud[0] not in summary.samples(SCENARIO, "antiphon")
    assert summary.samples(SCENARIO, "smg") == [loud[1]]
    assert "25% of the samples were disturbed" in report.markdown(results)


def test_the_page_has_every_part() -> None:
    """Costs with ratios, rates, latencies, needs, features, failures, and what was left out."""
    results = _results()
    results.samples.append(_sample("litellm", 3, 1.0, ok=0, failed=7, sample="500 no | way"))
    text = report.markdown(results, "images/")
    for part in (
        "Measured on 2026-01-02 at `abc`: two cores.",
        "Left out: mlflow, which did not start: no.",
        "| JSON, 64 at once | 2 ms | 24 ms (12x) |",
        "| JSON, 64 at once | 1,000 | 1,000 |",
        "| JSON, 64 at once | 2 / 9 | 2 / 9 |",
        "| antiphon | 1.5 s | 180 MB | - | 100 kB | 1.0% | 2.0 / 2.0 ms |",
        "| limits | 1.00 ms | 1.10 ms | +10% | +5% to +20% |",
        "| litellm | JSON, 64 at once | 7 failed, 0 broken, 0 unfinished, 0 without all tokens. 500 no   way |",
        "![bench json](images/bench-json.svg)",
    ):
        assert part in text
    assert set(report.pictures(results)) == {"bench-json", "bench-memory"}


def test_a_readme_has_a_short_table() -> None:
    """Of the costs that matter most."""
    text = report.brief(_results())
    assert "| CPU of a call: JSON, 64 at once | 2 ms | 24 ms (12x) |" in text
    assert "| memory when idle | 180 MB | - |" in text


def test_results_are_written_and_published(tmp_path: Path) -> None:
    """As JSON that can be read again, a page and plots; in a page of the documentation between its marks."""
    results = _results()
    text, plots = report.markdown(results), report.pictures(results)
    report.write("bench", results, text, plots, tmp_path / "new")
    assert msgspec.json.decode((tmp_path / "new" / "bench.json").read_bytes(), type=Results) == results
    assert (tmp_path / "new" / "bench.md").read_text() == text
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n")
    report.publish("bench", text, plots, page, tmp_path)
    assert page.read_text() == f"before\n<!-- bench: begin -->\n{text}<!-- bench: end -->\nafter\n"
    assert (tmp_path / "bench-json.svg").exists()
    with pytest.raises(ValueError, match="has no"):
        report.replace("nothing", "bench", text)


@pytest.mark.parametrize("name", ["bench", "soak", "scale"])
def test_the_documentation_has_a_place_for_each(name: str) -> None:
    """The page of benchmarks."""
    assert "found" in report.replace(report.PAGE.read_text(), name, "found\n")
