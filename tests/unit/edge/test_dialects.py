"""Tests of the sections of Envoy's files that are generated from the table of dialects."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.edge import dialects
from antiphon.edge.files import gateway_files


@pytest.mark.parametrize("name", dialects.FILES)
def test_the_files_are_what_the_dialects_make(name: str) -> None:
    """The files in `gateway/` are what the table of dialects generates."""
    text = (gateway_files() / name).read_text(encoding="utf-8")
    assert dialects.regenerate(text) == text, f"gateway/{name} is not what rest/registry.py and the protos make: run `make proto`"


def test_every_section_has_its_place() -> None:
    """Each section occurs once in the files."""
    text = "".join((gateway_files() / name).read_text(encoding="utf-8") for name in dialects.FILES)
    assert {name: text.count(f">>> {name} ") for name in dialects.SECTIONS} == dict.fromkeys(dialects.SECTIONS, 1)


def test_only_sections_are_written(tmp_path: Path) -> None:
    """Generating replaces only the sections, with their indent, and keeps the rest of the file."""
    text = "before\n  # >>> services of the dialects\n  - old\n  # <<<\nafter\n"
    made = "".join(f"  {line}\n" for line in dialects.services())
    assert dialects.regenerate(text) == f"before\n  # >>> services of the dialects\n{made}  # <<<\nafter\n"
    assert "- antiphon.rest.v1.OpenAIService" in made


def test_the_files_are_written_to_another_folder(tmp_path: Path) -> None:
    """The files can be written to another folder, to be compared with the existing ones."""
    source = Path(str(gateway_files()))
    dialects.write(source, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: dialects.regenerate((source / name).read_text()) for name in dialects.FILES
    }


def test_a_name_is_not_taken_for_a_variable() -> None:
    """DELETE of `/api/v1/chat/history` is listed as missing, so that `history` is not taken for the id of a chat."""
    lines = list(dialects.paths_without_method())
    deleted = lines[lines.index("DELETE = {") : lines.index("},")]
    assert '  ["/api/v1/chat/history"] = true,' in deleted
    assert not any("GET" in line for line in lines)


def test_every_media_type_of_a_stream_is_known() -> None:
    """The media types of all streams are listed, so that Envoy does not buffer them."""
    assert {'["text/event-stream"] = true,', '["text/plain"] = true,'} <= set(dialects.streams())


def test_only_paths_without_variables_keep_their_query() -> None:
    """Only paths with query parameters of their own keep their query."""
    assert '["/api/v1/chat/history"] = true,' in list(dialects.queries())
    assert not any("{" in line or "/api/v1/models" in line for line in dialects.queries())
