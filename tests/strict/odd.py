"""APIs that check the form of one request, whatever is asked: by the SDK's types, and by what the API states in words."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from tests.odd_upstream import OddUpstream, Step
from tests.strict.anthropic import StrictAnthropic
from tests.strict.base import StrictApi
from tests.strict.bedrock import StrictBedrock
from tests.strict.gemini import StrictGemini

ANSWER = 4
"""The number of a turn without calls (see `base`)."""


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects in a value of JSON."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


class AnyAnthropic(StrictAnthropic):
    """https://platform.claude.com/docs/en/api/messages."""

    def tool_names(self, body: dict[str, Any]) -> tuple[str, str]:
        return ("f", "g")

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        """Return what the SDK does not allow, but for what it has forgotten of older models."""
        known = {name: value for name, value in body.items() if name not in ("temperature", "top_p", "top_k")}
        return super().type_problems(known, is_stream=is_stream)

    def problems(self, body: dict[str, Any]) -> Iterator[str]:
        roles = [message["role"] for message in body["messages"]]
        if roles[-1] == "assistant":
            if not body["model"].startswith(("claude-sonnet-4-5", "claude-haiku-4-5", "claude-3")):
                yield "the model does not support assistant message prefill"
            if body.get("thinking", {}).get("type") == "enabled":
                yield "a final assistant message has to begin with a thought"
        if roles[0] != "user" or any(before == after for before, after in pairwise(roles)):
            yield f"the roles are {roles}"
        if sum("cache_control" in node for node in nodes(body)) > 4:
            yield "there are more than 4 marks"
        if sum(bool(tool.get("strict")) for tool in body.get("tools", ())) > 20:
            yield "there are too many strict tools"
        for before, after in pairwise([*body["messages"], {"content": []}]):
            parts = before["content"] if isinstance(before["content"], list) else []
            following = after["content"] if isinstance(after["content"], list) else []
            calls = {part["id"] for part in parts if part["type"] == "tool_use"}
            if calls != {part["tool_use_id"] for part in following if part["type"] == "tool_result"}:
                yield f"the calls {calls} have other results"
            yield from (f"{part} says nothing" for part in parts if part["type"] == "text" and not part["text"].strip())
            yield from (f"{part} is empty" for part in parts if part.get("is_error") and not part.get("content"))
        for node in nodes(body["messages"]):
            if node.get("type") == "base64" and node["data"].startswith("iVBOR") and node["media_type"] != "image/png":
                yield "a picture has another type"

    def turn_number(self, body: dict[str, Any]) -> int:
        return ANSWER


class AnyBedrock(StrictBedrock):
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html: all rules are in its description."""

    def tool_names(self, body: dict[str, Any]) -> tuple[str, str]:
        return ("f", "g")

    def problems(self, body: dict[str, Any]) -> Iterator[str]:
        tools = body.get("toolConfig", {}).get("tools", ())
        if sum(bool(tool.get("toolSpec", {}).get("strict")) for tool in tools) > 20:
            yield "there are too many strict tools"

    def turn_number(self, body: dict[str, Any]) -> int:
        return ANSWER


class AnyGemini(StrictGemini):
    """https://ai.google.dev/api/generate-content."""

    def answer(self, path: str, body: dict[str, Any]) -> tuple[Sequence[Step], list[str]]:
        self.model = path.partition("/models/")[2].partition(":")[0]
        return super().answer(path, body)

    def tool_names(self, body: dict[str, Any]) -> tuple[str, str]:
        return ("f", "g")

    def problems(self, body: dict[str, Any]) -> Iterable[str]:
        config = body.get("generationConfig", {})
        stops = config.get("stopSequences", ["x"])
        if not 1 <= len(stops) <= 5 or not all(stops):
            yield f"the stop sequences are {stops}"
        if config.get("maxOutputTokens", 1) < 1:
            yield "the limit is no limit"
        level = config.get("thinkingConfig", {}).get("thinkingLevel")
        if level == "MINIMAL" and self.model != "gemini-3-flash":
            yield "the model has no thinkingLevel MINIMAL"
        for node in nodes(config.get("responseJsonSchema")):
            properties = node.get("properties", {})
            if any(inner.get("$ref") == "#" for name in node.get("required", ()) for inner in nodes(properties.get(name))):
                yield "a cyclic reference is within a required property"
        schemas = [tool.get("functionDeclarations", []) for tool in body.get("tools", ())] + [config.get("responseJsonSchema")]
        for node in nodes(schemas):
            if "$ref" in node and any(not name.startswith("$") for name in node):
                yield f"{node} has more than a reference"
        if any("$ref" in node for node in nodes(body["contents"])):
            yield "a result has a reference"
        if body["contents"][0]["role"] != "user":
            yield "the user speaks first"

    def turn_number(self, body: dict[str, Any]) -> int:
        return ANSWER


def odd_apis() -> dict[str, StrictApi]:
    """Return these APIs by their protocols."""
    apis: tuple[StrictApi, ...] = (AnyAnthropic(), AnyBedrock(), AnyGemini())
    return {api.protocol: api for api in apis}


def answered_text(protocol: str) -> str:
    """Return what an API says to each request."""
    return odd_apis()[protocol].whole_text(ANSWER)


class AnyUpstream(OddUpstream):
    """The server of these APIs, each under a path of its own, as an async context manager."""

    def __init__(self) -> None:
        super().__init__()
        self.apis = odd_apis()

    def steps(self, body: bytes) -> Sequence[Step]:
        """Answer a request; one with a fault gets a 400 that names it."""
        path = self.requests[-1].path
        return self.apis[path.split("/")[1]].answer(path, json.loads(body))[0]
