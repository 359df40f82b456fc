"""Tests of how a client's command connects to a gateway."""

import os
import subprocess
import sys
from pathlib import Path


def test_half_a_client_certificate_is_reported_by_its_variable(tmp_path: Path) -> None:
    """A certificate without its key, a key without its certificate, and a missing file are an error that names the variable."""
    file = tmp_path / "me.crt"
    file.touch()
    for variables, expected in (
        ({"ANTIPHON_CLIENT_CERTIFICATE": str(file)}, "ANTIPHON_CLIENT_KEY is not set"),
        ({"ANTIPHON_CLIENT_KEY": str(file)}, "ANTIPHON_CLIENT_CERTIFICATE is not set"),
        ({"ANTIPHON_CA": str(tmp_path / "none")}, f"ANTIPHON_CA: {tmp_path}/none: No such file or directory"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "antiphon", "chat", "hi"],
            env={"PATH": os.environ["PATH"], "ANTIPHON_ADDRESS": "https://127.0.0.1:1", **variables},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert expected in done.stderr
