"""A caller of the OpenAI API, answered by Bedrock's, with requests that are signed by AWS credentials."""

import asyncio
import json
from pathlib import Path
from typing import Any

from antiphon.providers.bedrock.names import NAMES
from tests.converse import ConverseUpstream
from tests.e2e.conftest import READY, Gateway, configuration
from tests.odd_upstream import OddUpstream

MODEL = "eu.anthropic.claude-opus-4-6-v1:0"
TOOL = {"type": "function", "function": {"name": "find it", "parameters": {"type": "object", "properties": {}}}}
THOUGHT = {"reasoningContent": {"reasoningText": {"text": "I look.", "signature": "c2ln+/8="}}}
CALL = {"toolUse": {"toolUseId": "tooluse_1", "name": NAMES.sent("find it"), "input": {"q": 1}}}


def reply(request: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Think and call a tool; answer after its result, if the turn came back unchanged."""
    if len(request["messages"]) == 1:
        return [THOUGHT, CALL], "tool_use"
    is_same = request["messages"][1]["content"] == [THOUGHT, CALL]
    return [{"text": "It is there." if is_same else "You changed it."}], "end_turn"


async def test_a_turn_with_tools(upstream: OddUpstream, llm: object, tmp_path: Path) -> None:
    """Calls arrive under their own names, and the signed reasoning comes back to Bedrock byte for byte."""
    async with ConverseUpstream() as bedrock:
        bedrock.reply = reply
        config = configuration(upstream, llm)  # type: ignore[arg-type]
        config["providers"] = {"bedrock": {"protocol": "bedrock", "base_url": bedrock.url, "region": "eu-west-1"}}
        config["providers"]["bedrock"]["models"] = ["eu.*"]
        config["models"] = {"default": MODEL}
        keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "very-secret"}
        gateway = Gateway(tmp_path, config, **keys)
        await asyncio.to_thread(gateway.wait_for, READY)
        question = {"role": "user", "content": "look"}
        async with gateway.client() as http:
            body: dict[str, Any] = {"model": MODEL, "messages": [question], "tools": [TOOL]}
            first = (await http.post("/chat/completions", json=body)).json()["choices"][0]
            assert first["finish_reason"] == "tool_calls"
            assert first["message"]["reasoning_content"] == "I look."
            (call,) = first["message"]["tool_calls"]
            assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("find it", {"q": 1})
            result = {"role": "tool", "tool_call_id": call["id"], "content": "42"}
            body = {"model": MODEL, "messages": [question, first["message"], result], "tools": [TOOL], "stream": True}
            streamed = (await http.post("/chat/completions", json=body)).text
            refused = await http.post("/chat/completions", json={"model": MODEL, "messages": [question], "noSuchField": 1})
        assert '"It "' in streamed
        assert streamed.endswith("data: [DONE]\n\n")
        assert refused.status_code == 400
        assert "noSuchField" in refused.json()["error"]["message"]
        assert {request.headers["authorization"].split("/20")[0] for request in bedrock.requests} == {
            "AWS4-HMAC-SHA256 Credential=AKID"
        }
        assert len(bedrock.refused) == 1
        assert await asyncio.to_thread(gateway.stop) == 0
