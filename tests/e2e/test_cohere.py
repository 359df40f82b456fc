"""A caller of the OpenAI API, answered by Cohere's."""

import asyncio
from pathlib import Path

from tests.e2e.conftest import READY, Gateway, configuration
from tests.odd_upstream import LAST, OddUpstream, answer, chunk, head, sse
from tests.unit.providers.cohere.test_response import CALLS, HELLO

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


async def test_a_turn_with_tools(upstream: OddUpstream, llm: object, tmp_path: Path) -> None:
    """Plan and calls arrive as the caller's API has them, and the results go back as Cohere's has them."""
    config = configuration(upstream, llm)  # type: ignore[arg-type]
    config["providers"] = {
        "cohere": {"protocol": "cohere", "base_url": upstream.base_url, "api_key_env": "TEST_PROVIDER_KEY", "models": ["command-*"]}
    }
    config["models"] = {"default": "command-a"}
    upstream.script("command-a", [head(), chunk(sse(*CALLS)), LAST])
    upstream.script("command-b", [head(), chunk(sse(*HELLO)), LAST])
    upstream.script("command-c", [answer({"message": "invalid request: bad"}, "400 Bad Request")])
    gateway = Gateway(tmp_path, config)
    await asyncio.to_thread(gateway.wait_for, READY)
    question = {"role": "user", "content": "look"}
    async with gateway.client() as http:
        body = {"model": "command-a", "messages": [question], "tools": [TOOL]}
        first = (await http.post("/chat/completions", json=body)).json()["choices"][0]
        assert first["finish_reason"] == "tool_calls"
        assert first["message"]["reasoning_content"] == "I look."
        calls = first["message"]["tool_calls"]
        assert [(call["id"], call["function"]["arguments"]) for call in calls] == [("c0", '{"q":1}'), ("c1", "{}")]
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "42"} for call in calls]
        body = {"model": "command-b", "messages": [question, first["message"], *results], "stream": True}
        streamed = (await http.post("/chat/completions", json=body)).text
        refused = await http.post("/chat/completions", json={"model": "command-c", "messages": [question]})
    assert '"Hel"' in streamed
    assert streamed.endswith("data: [DONE]\n\n")
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].endswith("invalid request: bad")
    sent = next(request.json for request in upstream.requests if request.body and request.json.get("model") == "command-b")
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in sent["messages"][1]["tool_calls"]] == ["c0", "c1"]
    assert sent["messages"][1]["tool_plan"] == "I look."
    assert await asyncio.to_thread(gateway.stop) == 0
