"""Antiphon as a peer in the benchmark harness: a harness with a table `PEERS` of gateways runs this file with `exec`.

The harness's mock upstream listens on 127.0.0.1:18080. `ANTIPHON` names the command, if it is not on the PATH.
"""

import os
from pathlib import Path
from typing import Any

_CONFIG = os.environ.get("ANTIPHON_BENCH_CONFIG") or str(Path(__file__).with_name("antiphon.yaml"))

PEERS: dict[str, dict[str, Any]] = {
    **globals().get("PEERS", {}),
    "antiphon": {
        "cmd": [os.environ.get("ANTIPHON", "antiphon"), "up", "--config", _CONFIG],
        "env": {"MOCK_KEY": "sk-mock", "BENCH_KEY": "sk-bench"},
        "port": 18580,
        "path": "/api/v1/chat/completions",
        "headers": ["authorization: Bearer sk-bench"],
    },
}
