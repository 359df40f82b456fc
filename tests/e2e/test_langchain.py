"""LangChain's OpenAI client, configured with only another base URL and key."""

from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from llmock.scenarios import Reply, ToolCall
from llmock.testing import LLMockServer
from pydantic import BaseModel, SecretStr

from tests.e2e.conftest import KEY, Gateway


def model(gateway: Gateway) -> ChatOpenAI:
    return ChatOpenAI(base_url=gateway.url, api_key=SecretStr(KEY), model="gpt-4o", max_retries=0, timeout=20)


async def test_invoke_and_stream(gateway: Gateway, llm: LLMockServer) -> None:
    """Whole and streamed replies have the same text, and usage."""
    llm.state.scenarios.add(Reply(text="One two three four", times=2))
    whole = await model(gateway).ainvoke([HumanMessage("Count")])
    assert whole.content == "One two three four"
    assert whole.usage_metadata is not None
    pieces = [piece async for piece in model(gateway).astream([HumanMessage("Count")])]
    assert len(pieces) > 3
    together = pieces[0]
    for piece in pieces[1:]:
        together += piece
    assert isinstance(together, AIMessageChunk)
    assert together.content == "One two three four"


async def test_tools_and_structured_output(gateway: Gateway, llm: LLMockServer) -> None:
    """Tool calls and structured output work."""

    @tool
    def get_weather(city: str) -> str:
        """Return the weather of a city."""
        return city

    class Invoice(BaseModel):
        """An invoice."""

        number: str

    llm.state.scenarios.add(Reply(tool_calls=(ToolCall("get_weather", {"city": "Paris"}),)))
    reply = await model(gateway).bind_tools([get_weather]).ainvoke([HumanMessage("Weather?")])
    (call,) = reply.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    assert isinstance(await model(gateway).with_structured_output(Invoice).ainvoke([HumanMessage("Bill")]), Invoice)
