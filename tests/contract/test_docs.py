"""The documentation is consistent with the code and with itself."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from antiphon.auth.audit import KEPT_DAYS
from antiphon.config import Config
from antiphon.config.file import load
from docs import features, generate

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "gateway" / "README.md", *ROOT.glob("tests/*/README.md")])

REFERENCE = {**generate.pages(), features.PAGE: features.page()}

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
            if "://" not in target:
                yield page, target


@pytest.mark.parametrize(("page", "target"), list(links()), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_every_link_leads_somewhere(page: Path, target: str) -> None:
    """Every link points to a file of this repository and to an existing heading."""
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    assert found.exists()
    assert not anchor or anchor in anchors(found)


@pytest.mark.parametrize("path", list(REFERENCE), ids=lambda path: path.name)
def test_the_reference_is_up_to_date(path: Path) -> None:
    """The generated reference is up to date; otherwise run `python docs/generate.py` or `features.py`."""
    assert path.read_text(encoding="utf-8") == REFERENCE[path]


def test_every_setting_is_explained() -> None:
    """Every setting has a description below its field, from which the reference is made."""
    rows = [row for name, section in generate.sections() for row in generate.settings(section, name)]
    assert [row.path for row in rows if not row.about] == []


def json_examples() -> Iterator[tuple[str, str]]:
    """Yield each example in JSON, with its page and number."""
    for page in PAGES:
        found = re.findall(r"^```json\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        yield from ((f"{page.relative_to(ROOT)}:{number}", text) for number, text in enumerate(found))


@pytest.mark.parametrize(("name", "text"), list(json_examples()), ids=lambda value: value if value.count("\n") == 0 else "")
def test_every_example_in_json_is_whole(name: str, text: str) -> None:
    """Every example in JSON is one value, as it is on its page."""
    json.loads(text)


def examples() -> Iterator[tuple[str, str]]:
    """Yield each example of a configuration, with its page and number."""
    for page in PAGES:
        found = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        for number, text in enumerate(found):
            parsed = yaml.safe_load(text)
            if isinstance(parsed, dict) and parsed.keys() <= Config.model_fields.keys():
                yield f"{page.relative_to(ROOT)}:{number}", text


@pytest.mark.parametrize(("name", "text"), list(examples()), ids=lambda value: value if value.count("\n") == 0 else "")
def test_every_example_of_a_configuration_is_good(name: str, text: str, tmp_path: Path) -> None:
    """Every example of a configuration is valid as it is on its page."""
    (tmp_path / "antiphon.yaml").write_text(text)
    load(tmp_path / "antiphon.yaml", {})


@pytest.mark.parametrize("name", ["CHANGELOG.md", "docs/guide/data.md", "docs/guide/secure.md"])
def test_the_time_that_audit_events_are_kept_is_as_documented(name: str) -> None:
    """Every page that says how long the audit log is kept has the figure of the code."""
    lines = re.findall(r"^.*(?:audit|entries).*$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.IGNORECASE)
    assert {int(days) for line in lines for days in re.findall(r"(\d+) days", line)} == {KEPT_DAYS}
