"""The command `antiphon`, before any of its commands runs."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("imported", "left_out"),
    [
        ("antiphon.cli.main", {"antiphon.app", "antiphon.rest", "sqlalchemy", "aiohttp"}),
        ("antiphon.cli.main, antiphon.app", {"alembic", "antiphon.cli.check"}),
    ],
    ids=["a client's command", "a worker"],
)
def test_a_command_imports_only_what_it_needs(imported: str, left_out: set[str]) -> None:
    """A client does not wait for the server's modules, and a worker does not hold those of migrations."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {imported}, sys; print(*sys.modules)"], check=True, capture_output=True, text=True
    )
    assert not left_out & set(done.stdout.split())


def test_grpc_is_quiet_from_its_import_on() -> None:
    """Its core reads its verbosity once: it is set before any module of the command line can import it."""
    check = "import antiphon.cli.client, os; print(os.environ['GRPC_VERBOSITY'])"
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True, env={})
    assert done.stdout == "ERROR\n"
