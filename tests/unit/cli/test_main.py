"""Tests of the command `antiphon`: its imports, and the commands that have no test file of their own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.edge import files

_PROGRAM = "from antiphon.up.program import start_lean; start_lean()"


@pytest.mark.parametrize(
    ("imports", "left_out"),
    [
        ("import antiphon.cli.main", {"antiphon.app", "antiphon.rest", "sqlalchemy", "aiohttp"}),
        (
            f"{_PROGRAM}; import antiphon.serve, antiphon.telemetry.metrics, antiphon.telemetry.otlp",
            {
                "aiohttp",
                "alembic",
                "antiphon.up.launch",
                "cryptography",
                "genai_prices.data",
                "httpx2",
                "phonenumbers",
                "prometheus_client",
                "requests",
                "rich.console",
                "sqlalchemy.dialects.postgresql",
                "sqlalchemy.orm",
                "typer",
            },
        ),
        (f"{_PROGRAM}; import antiphon.start", {"antiphon.database.postgres", "pygments.lexers", "rich.console", "typer"}),
        ("import antiphon.up.supervisor", {"asyncio", "shutil", "ssl", "typer", "yaml"}),
    ],
    ids=["a client's command", "a worker", "a preparation", "a supervisor"],
)
def test_a_program_imports_only_what_it_needs(imports: str, left_out: set[str]) -> None:
    """No program loads what only another one needs: megabytes in each process, and tenths of a second of its start."""
    done = subprocess.run([sys.executable, "-c", f"{imports}; import sys; print(*sys.modules)"], check=True, capture_output=True)
    assert not left_out & set(done.stdout.decode().split())


def test_grpc_is_quiet_from_its_import_on() -> None:
    """GRPC_VERBOSITY is set before gRPC is imported, because its core reads the variable only once."""
    check = "import antiphon.cli.client, os; print(os.environ['GRPC_VERBOSITY'])"
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True, env={})
    assert done.stdout == "ERROR\n"


def test_an_edge_is_made_of_a_folder_with_the_gateways_files(tmp_path: Path) -> None:
    """`antiphon edge` copies Envoy's files from `--gateway` and writes the server's socket from `--socket`."""
    gateway, folder = tmp_path / "gateway", tmp_path / "run"
    shutil.copytree(str(files.gateway_files()), gateway)
    (gateway / "status.lua").write_text("-- another")
    command = [sys.executable, "-m", "antiphon", "edge", str(folder), "--gateway", str(gateway), "--socket", "server.sock"]
    subprocess.run(command, check=True, capture_output=True, env={})
    assert (folder / "status.lua").read_text() == "-- another"
    assert "./server.sock" in (folder / "endpoints.yaml").read_text()


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({}, "info, to standard error"),
        ({"ANTIPHON_LOG__STREAM": "stdout", "ANTIPHON_LOG__LEVEL": "debug"}, "debug, to standard output"),
        ({"ANTIPHON_LOG__STREAM": "stdout", "ANTIPHON_LOG__FILE": "lines.log"}, "info, to lines.log"),
    ],
    ids=["default", "stdout", "file"],
)
def test_a_check_shows_where_the_log_goes(variables: dict[str, str], shown: str, tmp_path: Path) -> None:
    """`check-config` names the file of the log, or else the stream that is configured."""
    command = [sys.executable, "-m", "antiphon", "check-config", "--json"]
    env = {"ANTIPHON_KEY": "sk-test", "HOME": str(tmp_path), **variables}
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert json.loads(done.stdout)["settings"]["log"] == shown


def test_an_edge_has_one_server(tmp_path: Path) -> None:
    """`--socket` together with `rest.upstream` is refused with exit code 2."""
    command = [sys.executable, "-m", "antiphon", "edge", str(tmp_path), "--socket", "server.sock"]
    variables = {"ANTIPHON_REST__UPSTREAM": '{"address": "server:50051"}'}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
    assert done.returncode == 2
    assert "rest.upstream" in done.stderr


def test_a_server_that_reloads_is_given_a_socket() -> None:
    """`serve --reload` needs `--socket`, because Envoy has to be told about the next server process."""
    command = [sys.executable, "-m", "antiphon", "serve", "--reload"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"ANTIPHON_KEY": "sk-test"})
    assert done.returncode == 2
    assert "--reload: needs --socket" in done.stderr


def test_a_refusal_is_printed_as_json_on_standard_output(tmp_path: Path) -> None:
    """`check-reload --json` prints a refusal as JSON on standard output and nothing else."""
    (tmp_path / "antiphon.yaml").write_text("providers: {")
    command = [
        sys.executable,
        "-m",
        "antiphon",
        "check-reload",
        "--json",
        "--config",
        str(tmp_path / "antiphon.yaml"),
        str(tmp_path),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"ANTIPHON_KEY": "sk-test"})
    assert done.returncode == 2
    assert "not YAML" in json.loads(done.stdout)["reason"]
    assert not done.stderr
