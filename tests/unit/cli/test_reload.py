"""Tests of `accept`, which checks a configuration that a running gateway should take over."""

import json
from pathlib import Path
from typing import Any

import pytest

from antiphon.cli.reload import accept
from antiphon.config import ConfigError
from antiphon.config.file import load
from antiphon.up.launch import keep_copy
from antiphon.up.reload import CONFIG, NEXT, WATCHED

ENVIRONMENT = {"ANTIPHON_KEY": "sk-test"}


def config(folder: Path, **more: Any) -> dict[str, Any]:
    """Return a usable configuration, with `more` added."""
    return {
        "database": {"url": f"sqlite:///{folder}/a.db"},
        "providers": {"echo": {"protocol": "echo", "models": ["echo"]}},
        **more,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the configuration file of a gateway that runs in the folder `run` beside it."""
    file, run = tmp_path / "antiphon.yaml", tmp_path / "run"
    run.mkdir()
    file.write_text(json.dumps(config(tmp_path)))
    keep_copy(run, CONFIG, load(file, ENVIRONMENT), file)
    return file


def test_a_usable_configuration_is_copied(path: Path, tmp_path: Path) -> None:
    """A usable configuration is copied for the workers with mode 0600, and the list of files to watch is written."""
    (tmp_path / "key").write_text("sk-filed")
    text = json.dumps(config(tmp_path, auth={"keys": [{"name": "filed", "key_file": str(tmp_path / "key")}]}))
    path.write_text(text)
    accept(tmp_path / "run", path, ENVIRONMENT)
    copy = tmp_path / "run" / NEXT
    assert copy.read_text() == text
    assert copy.stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "run" / WATCHED).read_text()) == [str(path), str(tmp_path / "key")]


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"grpc": {"listen": "127.0.0.1:1"}}, "grpc"),
        ({"rest": {"listen": "127.0.0.1:1"}}, "rest"),
        ({"workers": 2}, "workers"),
        ({"log": {"file": "log"}}, "log.file"),
        ({"log": {"stream": "stdout"}}, "log.stream"),
        ({"metrics": {"listen": "127.0.0.1:1"}}, "metrics"),
        ({"limits": {"drain": 1}}, "limits.drain"),
        ({"limits": {"drain_delay": 1}}, "limits.drain_delay"),
    ],
)
def test_a_setting_that_cannot_change_is_reported_by_name(path: Path, tmp_path: Path, change: dict[str, Any], setting: str) -> None:
    """A change of a setting that needs a restart is refused by the setting's name, and nothing of the file is used."""
    path.write_text(json.dumps(config(tmp_path, **change)))
    with pytest.raises(ConfigError, match=f"^{setting}: cannot change while the gateway runs"):
        accept(tmp_path / "run", path, ENVIRONMENT)
    assert not (tmp_path / "run" / NEXT).exists()


@pytest.mark.parametrize("text", ["providers: {", "providers: {p: {api_key_env: NOT_THERE, models: [m], base_url: 'http://h/v1'}}"])
def test_what_is_not_usable_is_refused(path: Path, tmp_path: Path, text: str) -> None:
    """A configuration that could not start a gateway is refused, and not copied."""
    path.write_text(text)
    with pytest.raises(ConfigError):
        accept(tmp_path / "run", path, ENVIRONMENT)
    assert not (tmp_path / "run" / NEXT).exists()


def test_without_a_file_the_environment_is_checked(tmp_path: Path) -> None:
    """Without a configuration file the environment is checked, and the files that it names are watched."""
    (tmp_path / "key").write_text("sk-filed")
    environment = {
        "ANTIPHON_AUTH__KEYS": json.dumps([{"name": "filed", "key_file": str(tmp_path / "key")}]),
        "ANTIPHON_DATABASE__URL": f"sqlite:///{tmp_path}/a.db",
    }
    accept(tmp_path, None, environment)
    assert json.loads((tmp_path / WATCHED).read_text()) == [str(tmp_path / "key")]


def test_another_database_is_refused_where_nobody_migrates_it(path: Path, tmp_path: Path) -> None:
    """A new database is refused with `same_database`; otherwise it is migrated."""
    path.write_text(json.dumps(config(tmp_path, database={"url": f"sqlite:///{tmp_path}/b.db"})))
    with pytest.raises(ConfigError, match="^database: cannot change while the gateway runs"):
        accept(tmp_path / "run", path, ENVIRONMENT, same_database=True)
    assert not (tmp_path / "b.db").exists()
    accept(tmp_path / "run", path, ENVIRONMENT)
    assert (tmp_path / "b.db").exists()


def test_the_copy_is_what_was_checked(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is the text that was checked, even if the file changes during the check."""
    text = json.dumps(config(tmp_path, log={"level": "debug"}))
    path.write_text(text)

    def checked(*_: Any) -> None:
        path.write_text("grpc: {listen: '127.0.0.1:1'}")

    monkeypatch.setattr("antiphon.start.build", checked)
    accept(tmp_path / "run", path, ENVIRONMENT)
    assert (tmp_path / "run" / NEXT).read_text() == text
