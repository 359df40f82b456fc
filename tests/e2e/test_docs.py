"""The snippets of the documentation, run unchanged against a real gateway."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import KEY, Gateway

ROOT = Path(__file__).parents[2]


def snippets(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


async def run(gateway: Gateway, *command: str) -> str:
    """Run a program with this gateway's addresses instead of the documented ones, and return its output. It must succeed."""
    here = [part.replace("127.0.0.1:8080", gateway.rest).replace("127.0.0.1:50051", gateway.grpc) for part in command]
    process = await asyncio.create_subprocess_exec(
        *here, env={"PATH": "/usr/bin:/bin", "ANTIPHON_KEY": KEY}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode() + out.decode()
    return out.decode()


@pytest.mark.parametrize("page", ["README.md", "docs/guide/clients.md", "docs/guide/grpc.md"])
async def test_python_snippets_get_an_answer(gateway: Gateway, page: str) -> None:
    """The Python snippets for the OpenAI SDK and for the generated stubs get an answer."""
    found = snippets(page, "python")
    assert found
    for snippet in found:
        assert "Hello" in "".join((await run(gateway, sys.executable, "-c", snippet)).split())


async def test_the_first_answer_is_the_one_of_the_readme(gateway: Gateway) -> None:
    """The curl command in the README gets a stream that ends with [DONE]."""
    line = re.search(r"^\$ (curl .*?\n.*?)\n", snippets("README.md", "console")[0], re.MULTILINE)
    assert line
    output = await run(gateway, "bash", "-c", line[1])
    assert '"object":"chat.completion.chunk"' in output
    assert output.endswith("data: [DONE]\n\n")


async def test_every_rest_path_answers_by_curl(admin_gateway: Gateway) -> None:
    """Every curl command of the REST reference works with an admin key, except for the proxies, which need real providers."""
    first, *others = snippets("docs/reference/rest.md", "sh")
    strict = first.replace("export ANTIPHON_KEY=sk-...", "").replace("curl -sS", "curl -sS --fail-with-body")
    script = "\n".join(["set -euo pipefail", strict, *(text for text in others if "/api/v1/proxy/" not in text)])
    output = await run(admin_gateway, "bash", "-c", script)
    assert output.count("You said: Hello!") >= 3
