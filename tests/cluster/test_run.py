"""The short form of the cluster test."""

from pathlib import Path

import orjson
import pytest

from tests.cluster import sandbox
from tests.cluster.__main__ import MODULE, missing


@pytest.mark.slow
@pytest.mark.timeout(1500)  # three minutes on a machine that has nothing else to do
def test_the_replicas_keep_their_promises_while_things_go_wrong(tmp_path: Path) -> None:
    """Under kills, a partition, store outages and a rolling update, no turn is lost or stored twice, and no limit is exceeded."""
    if reason := missing():
        pytest.skip(f"no cluster can run: {reason}")
    code = sandbox.run(MODULE, ["--minutes", "0", "--folder", str(tmp_path / "found")])
    figures = orjson.loads((tmp_path / "found" / "report.json").read_bytes())
    assert [verdict for verdict in figures["verdicts"] if not verdict["ok"]] == []
    assert code == 0
    assert all(
        figures["kinds"][kind]["done"] for kind in ("http", "sdk", "sdk-stream", "grpc", "grpc-edge", "grpc-stream", "history")
    )
    assert figures["kinds"]["rate-a"]["refused"]
    assert figures["kinds"]["at-once"]["refused"]
