"""The real llmstudio clients, 0.3.11 and 1.0.6. Each pins its own dependencies, so each has its own environment.

`make test-all` makes the environments. If a client cannot be installed, its test is skipped; `test_engine.py` sends what the
clients send.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import KEY, Gateway

CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"

OLD = """
import json, os
from llmstudio import LLM
llm = LLM("echo/echo", api_key=os.environ["KEY"])
whole = llm.chat("Hello there")
pieces = list(llm.chat("one two three é 🎼", is_stream=True))
print("\\n" + json.dumps({"whole": whole.chat_output, "metrics": dict(whole.metrics), "pieces": pieces}))
"""

NEW = """
import json, os
from llmstudio.providers import LLM, ProxyConfig
llm = LLM("echo", proxy_config=ProxyConfig(url=os.environ["URL"]))
whole = llm.chat("Hello there", model="echo", api_key=os.environ["KEY"])
stream = llm.chat("one two three é 🎼", model="echo", is_stream=True, api_key=os.environ["KEY"])
pieces = [piece.chat_output_stream for piece in stream]
print("\\n" + json.dumps({"whole": whole.chat_output, "metrics": dict(whole.metrics), "pieces": pieces}))
"""


@pytest.mark.timeout(240)
@pytest.mark.slow
@pytest.mark.parametrize(("version", "program"), [("0.3.11", OLD), ("1.0.6", NEW)])
def test_the_client_works_as_it_is(version: str, program: str, gateway: Gateway, tmp_path: Path) -> None:
    """With only an address and a key, the client gets whole replies with metrics, and streams piece by piece."""
    python = CLIENTS / f"llmstudio-{version}" / "bin" / "python"
    if not python.exists():
        pytest.skip("it could not be installed")
    host, port = gateway.rest.split(":")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "KEY": KEY,
        "URL": f"http://{gateway.rest}",
        "LLMSTUDIO_ENGINE_HOST": host,
        "LLMSTUDIO_ENGINE_PORT": port,
        "LLMSTUDIO_TRACKING_HOST": host,
        "LLMSTUDIO_TRACKING_PORT": port,
    }
    ended = subprocess.run(
        [python, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert found["whole"] == "You said: Hello there"
    assert found["metrics"]["output_tokens"] > 0
    assert found["metrics"]["time_to_first_token_s"] > 0
    assert len(found["pieces"]) > 3
    assert "".join(piece or "" for piece in found["pieces"]) == "You said: one two three é 🎼"
