"""Streams of tool calls as hosts send them, read by third-party clients.

The OpenAI SDK and LangChain are in the tests' own environment. LlamaIndex and Vercel's `ai` have environments that `make test-all`
makes; if one cannot be installed, its tests are skipped.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.e2e.conftest import KEY, Gateway
from tests.odd_upstream import LAST, OddUpstream, chunk, delta, head, sse

CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"
MODEL = "odd-tools"
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": SCHEMA}}
OSLO, ROME = '{"city":"Oslo"}', '{"city":"Rome"}'
SIGNATURE = {"extra_content": {"google": {"thought_signature": "AbC+/=="}}}


def call(arguments: str, name: str | None = "get_weather", **fields: Any) -> dict[str, Any]:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    return {"index": 0, "function": function, **fields}


def calls(*found: dict[str, Any]) -> dict[str, Any]:
    return delta(tool_calls=list(found))


STREAMS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "a signature with the call": ([calls(call(OSLO, id="c1", type="function", **SIGNATURE))], ["Oslo"]),
    "a signature with its last piece": (
        [calls(call('{"city":', id="c1", type="function")), calls(call('"Oslo"}', None, **SIGNATURE))],
        ["Oslo"],
    ),
    "a signature before and behind": (
        [calls({"index": 0, "id": "c1", "type": "function", **SIGNATURE}), calls(call(OSLO)), calls({"index": 0, "x": 1})],
        ["Oslo"],
    ),
    "a text, a thought and two calls in one delta": (
        [
            delta(
                content="Let me look.",
                reasoning_content="Hm",
                tool_calls=[call(OSLO, id="c1", provider_specific_fields={"x": 1}), {**call(ROME, id="c2"), "index": 1}],
            )
        ],
        ["Oslo", "Rome"],
    ),
    "a name in pieces": ([calls(call('{"ci', "get_", id="c1")), calls(call('ty":"Oslo"}', "weather"))], ["Oslo"]),
    "one index for two calls": ([calls(call(OSLO, id="")), calls(call(ROME, id=""))], ["Oslo", "Rome"]),
    "no index": (
        [calls({"function": call(OSLO)["function"], "id": "a"}, {"function": call(ROME)["function"], "id": "b"})],
        ["Oslo", "Rome"],
    ),
    "a whole message at the end": (
        [
            calls(call(OSLO, id="c1", type="function")),
            {
                **delta(),
                "object": "chat.completion",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "tool_calls",
                        "message": {"role": "assistant", "tool_calls": [call(OSLO, id="c1")]},
                    }
                ],
            },
        ],
        ["Oslo"],
    ),
}


UNREAD = {
    "test_llama_index": {"a text, a thought and two calls in one delta", "no index"},  # it reads only the first call of a delta
    "test_ai": {"a name in pieces"},  # it takes another name for another call
}
"""The streams that a client cannot read from any server."""


@pytest.fixture(params=STREAMS)
def cities(request: pytest.FixtureRequest, upstream: OddUpstream) -> list[str]:
    """Script the upstream, and return the cities in its tool calls."""
    if request.param in UNREAD.get(request.node.originalname, ()):
        pytest.skip("the client cannot read it from any server")
    events, expected = STREAMS[request.param]
    upstream.script(
        MODEL, [head(), *(chunk(sse(event)) for event in events), chunk(sse(delta(finish="tool_calls"), "[DONE]")), LAST]
    )
    return expected


async def test_the_stream_helper_of_openai(gateway: Gateway, cities: list[str]) -> None:
    """The OpenAI SDK's stream helper reads names, arguments and distinct ids of all calls."""
    async with gateway.sdk() as sdk:
        messages: Any = [{"role": "user", "content": "Weather?"}]
        async with sdk.chat.completions.stream(model=MODEL, messages=messages, tools=[TOOL]) as stream:
            reply = await stream.get_final_completion()
    found = reply.choices[0].message.tool_calls or []
    assert [(one.function.name, json.loads(one.function.arguments)) for one in found] == [
        ("get_weather", {"city": city}) for city in cities
    ]
    assert len({one.id for one in found}) == len(cities)


async def test_langchain(gateway: Gateway, cities: list[str]) -> None:
    """LangChain reads all calls as valid."""
    model = ChatOpenAI(base_url=gateway.url, api_key=SecretStr(KEY), model=MODEL, max_retries=0, timeout=20).bind_tools([TOOL])
    together: Any = None
    async for piece in model.astream("Weather?"):
        together = piece if together is None else together + piece
    assert isinstance(together, AIMessageChunk)
    assert [(one["name"], one["args"]) for one in together.tool_calls] == [("get_weather", {"city": city}) for city in cities]
    assert together.invalid_tool_calls == []


LLAMA_INDEX = """
import json, os
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

def get_weather(city: str) -> str:
    "The weather"
    return city

llm = OpenAILike(
    model=os.environ["MODEL"], api_base=os.environ["URL"], api_key=os.environ["KEY"], is_chat_model=True,
    is_function_calling_model=True, max_retries=0,
)
for last in llm.stream_chat_with_tools([FunctionTool.from_defaults(get_weather)], user_msg="Weather?"):
    pass
calls = llm.get_tool_calls_from_response(last, error_on_no_tool_call=False)
print("\\n" + json.dumps([[call.tool_name, call.tool_kwargs] for call in calls]))
"""

AI = """
import { jsonSchema, streamText, tool } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const provider = createOpenAICompatible({ name: "antiphon", baseURL: process.env.URL, apiKey: process.env.KEY });
const inputSchema = jsonSchema(JSON.parse(process.env.SCHEMA));
const tools = { get_weather: tool({ description: "The weather", inputSchema }) };
const errors = [], calls = [];
const onError = ({ error }) => errors.push(String(error));
const model = provider(process.env.MODEL);
const stream = streamText({ model, prompt: "Weather?", tools, maxRetries: 0, onError });
for await (const part of stream.fullStream) if (part.type === "tool-call") calls.push([part.toolName, part.input]);
if (errors.length) throw new Error(errors.join());
console.log("\\n" + JSON.stringify(calls));
"""


async def run(gateway: Gateway, *command: str | Path, cwd: Path) -> Any:
    """Run a program, and return the JSON in the last line of its output."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "URL": gateway.url,
        "KEY": KEY,
        "MODEL": MODEL,
        "SCHEMA": json.dumps(SCHEMA),
    }
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output.splitlines()[-1])


@pytest.mark.timeout(240)
@pytest.mark.slow
async def test_llama_index(gateway: Gateway, cities: list[str], tmp_path: Path) -> None:
    """LlamaIndex reads all calls with their arguments as objects."""
    python = CLIENTS / "llama-index-llms-openai-like-0.8.1" / "bin" / "python"
    if not python.exists():
        pytest.skip("it could not be installed")
    found = await run(gateway, python, "-c", LLAMA_INDEX, cwd=tmp_path)
    assert found == [["get_weather", {"city": city}] for city in cities]


@pytest.mark.timeout(240)
@pytest.mark.slow
async def test_ai(gateway: Gateway, cities: list[str]) -> None:
    """Vercel's `ai` reads all calls with their input as objects, without an error."""
    folder = CLIENTS / "ai"
    if not folder.exists():
        pytest.skip("there is no Node")
    found = await run(gateway, "node", "--input-type=module", "--eval", AI, cwd=folder)
    assert found == [["get_weather", {"city": city}] for city in cities]
