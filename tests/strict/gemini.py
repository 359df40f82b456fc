"""The Gemini API: signatures on texts, on the first call of each step, and on an empty last part."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from google.genai import types

from tests.odd_upstream import sse
from tests.sdk_types import problems as type_problems
from tests.strict.base import StrictApi, Turn, extra, has_calls, nodes
from tests.strict.reply import USAGE, Block, Called, Failure, Reply, Said, Thought, words
from tests.strict.schemas import gemini_problems

SENTINEL = "skip_thought_signature_validator"

FIELDS: dict[str, Any] = {
    "contents": list[types.Content],
    "systemInstruction": types.Content,
    "generationConfig": types.GenerationConfig,
    "tools": list[types.Tool],
    "toolConfig": types.ToolConfig,
}
"""The SDK has no type for the body, but for its fields."""
KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse")
PART = frozenset({*KINDS, "thought", "thoughtSignature"})
UNUSED = frozenset(
    {
        *("audioTimestamp", "audioTranscriptionConfig", "enableAffectiveDialog", "enableEnhancedCivicAnswers"),
        *("modelSelectionConfig", "responseFormat", "routingConfig", "translationConfig"),
    }
)


class StrictGemini(StrictApi):
    """https://ai.google.dev/api/generate-content, and its refusals.

    What has to come back: https://ai.google.dev/gemini-api/docs/thought-signatures. A model takes no signatures of another one.
    """

    protocol = "gemini"
    model = "gemini-3-pro"
    paths = r"/v1beta/models/[^/]+:(generateContent|streamGenerateContent\?alt=sse)"
    headers = (("x-goog-api-key", ".+"),)
    call_ids = "id-{}-{}"
    choices = 1
    """The number of candidates that the latest request asks for."""

    def thinking(self, number: int) -> Iterator[Block]:
        yield Thought(self.thought(number))
        yield Said(self.step(number), self.private("text", number))
        if number % 3:
            yield Said(" More \N{EARTH GLOBE AMERICAS}.")
        if number % 3 == 1:
            yield Said(" Still more.", self.private("more", number))
        if not has_calls(number):
            yield Said("", self.private("last", number))

    def turn(self, number: int) -> Reply:
        """Return a turn. Every other turn has ids of calls."""
        made = super().turn(number)
        calls = [call._replace(id=call.id if number % 4 < 2 else "") for call in made.calls]
        calls[:1] = [call._replace(signature=self.private("call", number)) for call in calls[:1]]
        return self.issue(made._replace(blocks=(*self.thinking(number), *calls)))

    def content(self, reply: Reply) -> list[dict[str, Any]]:
        return [part for block in reply.blocks for part in parts_of(block)]

    def begin(self, path: str, body: dict[str, Any]) -> None:
        self.asked = path.partition("/models/")[2].partition(":")[0]
        self.maker = self.protocol if self.asked == self.model else self.asked
        self.choices = body.get("generationConfig", {}).get("candidateCount", 1)

    def is_stream(self, path: str, body: dict[str, Any]) -> bool:
        return ":streamGenerateContent" in path

    def tool_names(self, body: dict[str, Any]) -> list[str]:
        return [one["name"] for one in declarations(body)]

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        found = [f".{name} is unknown" for name in body.keys() - FIELDS.keys()]
        return found + [one for name in body.keys() & FIELDS.keys() for one in type_problems(body[name], FIELDS[name], name)]

    def form_problems(self, body: dict[str, Any]) -> Iterator[str]:
        config = body.get("generationConfig", {})
        yield from extra(config.keys() & UNUSED)
        stops = config.get("stopSequences", ["x"])
        if not 1 <= len(stops) <= 5 or not all(stops):
            yield f"the stop sequences are {stops}"
        if not all(-2 <= config.get(name, 0) < 2 for name in ("presencePenalty", "frequencyPenalty")):
            yield "the penalty must be in the range [-2.0, 2.0)"
        if "logprobs" in config and not config.get("responseLogprobs"):
            yield "logprobs needs responseLogprobs"
        if config.get("maxOutputTokens", 1) < 1:
            yield "max_output_tokens must be positive"
        if config.get("responseMimeType") == "application/json" and self.names and "gemini-3" not in self.asked:
            yield "Function calling with a response mime type: 'application/json' is unsupported"
        if config.get("thinkingConfig", {}).get("thinkingLevel") == "MINIMAL" and self.asked != "gemini-3-flash":
            yield "the model has no thinkingLevel MINIMAL"
        for node in nodes(config.get("responseJsonSchema")):
            properties = node.get("properties", {})
            if any(inner.get("$ref") == "#" for name in node.get("required", ()) for inner in nodes(properties.get(name))):
                yield "a cyclic reference is within a required property"
        yield from gemini_problems(config.get("responseJsonSchema"), "responseJsonSchema")
        yield from tool_problems(body, self.names)
        yield from content_problems(body["contents"])
        yield from call_problems(body["contents"], is_signed="gemini-3" in self.asked)

    def turn_problems(self, body: dict[str, Any], turns: list[Turn]) -> Iterator[str]:
        yield from super().turn_problems(body, turns)
        if body["contents"][-1]["role"] != "user":
            yield "the user speaks last"

    def seen(self, content: Any) -> Any:
        """Return what is compared of a turn: thoughts do not come back."""
        return [part for part in content if not part.get("thought")]

    def foreign_problems(self, content: Any, number: int) -> Iterator[str]:
        calls = [part for part in content if "functionCall" in part]
        if [part["thoughtSignature"] for part in content if "thoughtSignature" in part] != [SENTINEL] * bool(calls):
            yield f"not the first call alone is signed in turn {number}"
        if calls and calls[0].get("thoughtSignature") != SENTINEL:
            yield f"the first call of turn {number} is not signed"
        if any("id" in part["functionCall"] for part in calls):
            yield f"turn {number} has ids of others"

    def turns(self, body: dict[str, Any]) -> list[Turn]:
        found = []
        for content, following in pairwise([*body["contents"], {"parts": []}]):
            if content["role"] == "model":
                parts = content["parts"]
                text = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
                signatures = {part["thoughtSignature"] for part in parts if "thoughtSignature" in part} - {SENTINEL}
                calls = [f"{one['name']} {one.get('id')}" for one in values(parts, "functionCall")]
                results = values(following["parts"], "functionResponse")
                answers = [(f"{one['name']} {one.get('id')}", one["response"].get("output")) for one in results]
                found.append(Turn(parts, text, signatures, calls, answers))
        return found

    def chunk(self, parts: list[dict[str, Any]], index: int, reply: Reply, *, is_last: bool) -> dict[str, Any]:
        """Return a part of a reply, or all of it."""
        candidate = {"content": {"parts": parts, "role": "model"}, "index": index}
        ending = {"finishReason": "MAX_TOKENS" if reply.is_cut else "STOP"} if is_last else {}
        usage = {"promptTokenCount": USAGE[0], "candidatesTokenCount": USAGE[1], "totalTokenCount": sum(USAGE)}
        about = {"usageMetadata": usage, "modelVersion": self.asked, "responseId": f"r{reply.number}"}
        return {"candidates": [candidate | ending], **about}

    def whole(self, reply: Reply) -> dict[str, Any]:
        made = [self.chunk(self.content(reply), index, reply, is_last=True) for index in range(self.choices)]
        return {**made[0], "candidates": [one for chunk in made for one in chunk["candidates"]]}

    def pieces(self, reply: Reply) -> list[bytes]:
        """Return the events of a stream. The last one has a part if that is signed."""
        parts = [one for part in self.content(reply) for one in in_words(part)]
        groups = [*([part] for part in parts), *([] if parts and "thoughtSignature" in parts[-1] else [[]])]
        return [
            sse(self.chunk(group, index, reply, is_last=group is groups[-1])) for index in range(self.choices) for group in groups
        ]

    def error(self, failure: Failure) -> dict[str, Any]:
        kinds = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
        return {"error": {"code": failure.status, "message": failure.message, "status": kinds.get(failure.status, "INTERNAL")}}


def values(parts: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the calls, or the results, in some parts."""
    return [part[kind] for part in parts if kind in part]


def declarations(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the functions that are offered."""
    return [one for tool in body.get("tools", ()) for one in tool.get("functionDeclarations", ())]


def tool_problems(body: dict[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the tools."""
    for tool in declarations(body):
        if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}", tool["name"]):
            yield f"invalid function name {tool['name']!r}"
        yield from gemini_problems(tool.get("parametersJsonSchema"), tool["name"])
    if len(names) > len(set(names)):
        yield "duplicate function declaration"
    choice = body.get("toolConfig", {}).get("functionCallingConfig", {})
    if choice.get("mode") in ("ANY", "VALIDATED") and not names:
        yield "function calling config is set without function_declarations"
    if not set(choice.get("allowedFunctionNames", ())) <= set(names):
        yield "allowed_function_names is not among the declarations"
    if "allowedFunctionNames" in choice and choice["mode"] not in ("ANY", "VALIDATED"):
        yield "allowed_function_names should only be set when the mode is ANY"


def content_problems(contents: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what is wrong with what stands in contents."""
    if any("$ref" in node for node in nodes(contents)):
        yield "a result has a reference"
    for content in contents:
        parts, role = content.get("parts", []), content["role"]
        if role not in ("user", "model"):
            yield "please use a valid role: user, model"
        if not parts:
            yield "parts must not be empty"
        for part in parts:
            yield from extra(part.keys() - PART)
            is_empty = part.get("text") == "" and "thoughtSignature" not in part  # a signature may come in an empty text of its own
            if is_empty or not part.keys() & set(KINDS):
                yield "required oneof field 'data' must have one initialized field"


def call_problems(contents: list[dict[str, Any]], *, is_signed: bool) -> Iterator[str]:
    """Yield what is wrong with the order of contents, and with calls and their results."""
    if not contents or contents[0]["role"] != "user":
        yield "the user speaks first"
    waiting: list[str] = []
    for before, content in pairwise([{}, *contents, {"role": "user", "parts": []}]):
        results = values(content["parts"], "functionResponse")
        calls = [part for part in content["parts"] if "functionCall" in part]
        if [one["name"] for one in results] != waiting:
            yield "the number of function response parts must be equal to that of the function call parts"
        if len(results) not in (0, len(content["parts"])):
            yield "function responses stand alone"
        if not all(isinstance(one.get("response"), dict) for one in results):
            yield "function_response.response is no object"
        if calls and (content["role"] != "model" or before.get("role") != "user"):
            yield "function call turn comes immediately after a user turn or a function response turn"
        if calls and is_signed and "thoughtSignature" not in calls[0]:
            yield "function call is missing a thought_signature"
        waiting = [part["functionCall"]["name"] for part in calls]


def parts_of(block: Block) -> Iterator[dict[str, Any]]:
    """Yield the parts of a block. A thought is signed in a part of its own."""
    signed = {"thoughtSignature": signature} if (signature := getattr(block, "signature", "")) else {}
    match block:
        case Said(text):
            yield {"text": text, **signed}
        case Thought(text):
            yield {"text": text, "thought": True}
            if signed:
                yield {"text": "", **signed}
        case Called(call_id, name, arguments):
            yield {"functionCall": {**({"id": call_id} if call_id else {}), "name": name, "args": arguments}, **signed}


def in_words(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a part as it is streamed: a text word by word, with its signature at the end."""
    if "text" not in part or "thoughtSignature" in part:
        return [part]
    return [{**part, "text": word} for word in words(part["text"])]
