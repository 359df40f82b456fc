"""Dashboards, alert rules and the reference page are consistent with the table of metrics and with each other."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from antiphon.domain.attempt_class import AttemptClass
from antiphon.domain.errors import Reason
from antiphon.limits.base import Limit
from antiphon.routing.breaker import BreakerState
from antiphon.telemetry.names import TABLE, Kind
from deploy import observe
from tests.prometheus import PROMTOOL

ALERTS = Path(__file__).parents[2] / "deploy" / "alerts" / "antiphon.yaml"
CASES = Path(__file__).with_name("alerts.yaml")
OPERATE = ALERTS.parents[2] / "docs" / "guide" / "operate.md"

IMAGES = OPERATE.parents[1] / "images"

_SELECTOR = re.compile(r"(\w+)\{([^}]*)\}")
_NO_METRIC = re.compile(r"\{[^}]*\}|\b(?:by|on|group_left) \([^)]*\)")
_METRIC = re.compile(r"\b(?:antiphon|gen_ai|grpc)_\w+")
_GROUP = re.compile(r"\bby \(([^)]*)\)")
_MATCH = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')
_OF_A_SCRAPE = {"job", "instance"}

LABELS: dict[str, set[str]] = {
    metric.name + suffix: {*metric.labels, *(("le",) if suffix == "_bucket" else ())}
    for metric in TABLE
    for suffix in (("_bucket", "_count", "_sum") if metric.kind is Kind.HISTOGRAM else ("",))
}
"""The labels of each series."""

VALUES = {
    "class": {each.value for each in AttemptClass},
    "reason": {each.value for each in Reason},
    "state": {each.value for each in BreakerState},
    "limit": {each.value for each in Limit} | {"calls_per_worker", "queue"},
    "kind": {"input", "output", "cached_input", "cache_write", "reasoning", "audio_input", "audio_output"},
    "outcome": {"complete", "failed", "cancelled", "replayed"},
}
"""The possible values of labels that do not come from the configuration."""


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    panels = [panel for dashboard in observe.DASHBOARDS for panel in observe.grafana(dashboard)["panels"]]
    return [target["expr"] for panel in panels for target in panel["targets"]] + [rule["expr"] for rule in rules()]


@pytest.mark.parametrize("query", queries())
def test_every_query_is_of_metrics_and_labels_that_exist(query: str) -> None:
    """Every query uses existing metrics and labels, and compares labels only with possible values."""
    named = _METRIC.findall(_NO_METRIC.sub("", query))
    assert named
    assert [series for series in named if series not in LABELS] == []
    for series, selected in _SELECTOR.findall(query):
        for label, _, value in _MATCH.findall(selected):
            assert label in LABELS[series] or label in _OF_A_SCRAPE, f"{series} has no {label}"
            if label in VALUES:
                assert set(value.split("|")) <= VALUES[label]
    known = _OF_A_SCRAPE.union(*(LABELS[series] for series in named))
    for group in _GROUP.findall(query):
        assert {label.strip() for label in group.split(",")} <= known


def test_every_metric_is_on_a_dashboard() -> None:
    """Every metric is used by a dashboard or an alert."""
    used = " ".join(queries())
    assert [metric.name for metric in TABLE if metric.name not in used] == []


@pytest.mark.parametrize("path", observe.files(), ids=lambda path: path.name)
def test_the_generated_files_are_up_to_date(path: Path) -> None:
    """The generated files are up to date; otherwise run `python deploy/observe.py`."""
    assert path.read_text(encoding="utf-8") == observe.files()[path]


def test_panels_do_not_lie_upon_each_other() -> None:
    """Panels do not overlap, and ids are unique in each dashboard."""
    assert len({dashboard.uid for dashboard in observe.DASHBOARDS}) == len(list(observe.FOLDER.glob("*.json")))
    for file in observe.FOLDER.glob("*.json"):
        taken: set[tuple[int, int]] = set()
        panels = json.loads(file.read_text())["panels"]
        for panel in panels:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            assert not cells & taken
            assert max(x for x, _ in cells) < observe.WIDTH
            taken |= cells
        assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_alert_has_a_page_of_what_to_do() -> None:
    """Every alert has a section in docs/guide/operate.md with its name as heading."""
    headings = {line.lstrip("# ").strip().lower() for line in OPERATE.read_text().splitlines() if line.startswith("#")}
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/guide/operate.md"
        assert anchor == rule["alert"].lower()
        assert anchor in headings
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}


@pytest.mark.skipif(PROMTOOL is None, reason="wants Prometheus' own promtool")
@pytest.mark.parametrize("command", [("check", "rules", ALERTS), ("test", "rules", CASES)], ids=["good", "right"])
def test_prometheus_takes_the_alert_rules(command: tuple[str, str, Path]) -> None:
    """Prometheus accepts the alert rules, and they fire, with the right text, only when they should."""
    done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_of_both_kinds() -> None:
    """Every alert has a test case in which it fires, and one in which it does not."""
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in rules()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


@pytest.mark.parametrize("board", observe.DASHBOARDS, ids=lambda board: board.uid)
def test_every_panel_is_in_a_picture(board: observe.Dashboard) -> None:
    """Every panel is in a picture of the guide; otherwise run `make pictures`."""
    name = board.uid.replace("antiphon-", "dashboard-") + ".svg"
    picture = ET.parse(IMAGES / name)  # noqa: S314  # our own file
    texts = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {board.title, *(panel.title for panel in board.panels)} <= texts
    assert not [text for text in texts if text and text.startswith("no data")]
    assert f"../images/{name}" in OPERATE.read_text()
