"""The Gemini API, as https://ai.google.dev/api/generate-content and its refusals describe it."""

import re
from typing import Any

from tests.e2e.upstreams.reply import USAGE, Called, Failure, Reply, Said, Thought, matches_only, words
from tests.odd_upstream import sse

FIELDS = frozenset({"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "safetySettings", "cachedContent"})
CONFIG = frozenset(
    {
        *("stopSequences", "responseMimeType", "responseSchema", "responseJsonSchema", "responseModalities", "candidateCount"),
        *("maxOutputTokens", "temperature", "topP", "topK", "seed", "presencePenalty", "frequencyPenalty", "responseLogprobs"),
        *("logprobs", "thinkingConfig", "speechConfig", "mediaResolution"),
    }
)
PART = frozenset({"text", "inlineData", "fileData", "functionCall", "functionResponse", "thought", "thoughtSignature"})
DECLARATION = frozenset({"name", "description", "parameters", "parametersJsonSchema", "response", "responseJsonSchema", "behavior"})
NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
SCHEMA = frozenset(
    {
        *("$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items", "prefixItems", "minItems"),
        *("maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties", "additionalProperties", "required", "default", "allOf"),
        *(
            "propertyOrdering",
            "minLength",
            "maxLength",
            "pattern",
            "exclusiveMinimum",
            "exclusiveMaximum",
            "examples",
            "multipleOf",
        ),
        *("uniqueItems", "not", "minProperties", "maxProperties", "definitions", "discriminator", "if", "then", "else"),
        *("patternProperties", "$comment"),
    }
)


def problems(path: str, headers: dict[str, str], body: dict[str, Any]) -> list[str]:
    """Return what is wrong with a request."""
    found = matches_only(body, FIELDS, "body")
    if not re.fullmatch(r"/v1beta/models/[^/]+:(generateContent|streamGenerateContent\?alt=sse)", path):
        found.append(f"no such path {path}")
    if "x-goog-api-key" not in headers:
        found.append("no key")
    config = body.get("generationConfig", {})
    found += matches_only(config, CONFIG, "generationConfig")
    if len(config.get("stopSequences", ())) > 5 or any(not one for one in config.get("stopSequences", ())):
        found.append("stopSequences")
    if not -2 <= config.get("presencePenalty", 0) < 2 or not -2 <= config.get("frequencyPenalty", 0) < 2:
        found.append("the penalty must be in the range [-2.0, 2.0)")
    if "logprobs" in config and not config.get("responseLogprobs"):
        found.append("logprobs needs responseLogprobs")
    if config.get("maxOutputTokens", 1) < 1:
        found.append("max_output_tokens must be positive")
    if config.get("responseMimeType") == "application/json" and _functions(body) and "gemini-3" not in path:
        found.append("Function calling with a response mime type: 'application/json' is unsupported")
    if "responseJsonSchema" in config:
        found += _schema(config["responseJsonSchema"], "responseJsonSchema")
    return [*found, *_tools(body), *_contents(body, path)]


def _functions(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for tool in body.get("tools", ()) for one in tool.get("functionDeclarations", ())]


def _tools(body: dict[str, Any]) -> list[str]:
    found, names = [], []
    for tool in _functions(body):
        found += matches_only(tool, DECLARATION, "functionDeclarations")
        names.append(tool["name"])
        if not NAME.fullmatch(tool["name"]):
            found.append(f"invalid function name {tool['name']!r}")
        if "parametersJsonSchema" in tool:
            found += _schema(tool["parametersJsonSchema"], tool["name"])
    if len(names) > len(set(names)):
        found.append("duplicate function declaration")
    choice = body.get("toolConfig", {}).get("functionCallingConfig", {})
    if choice.get("mode") in ("ANY", "VALIDATED") and not names:
        found.append("function calling config is set without function_declarations")
    if not set(choice.get("allowedFunctionNames", ())) <= set(names):
        found.append("allowed_function_names is not among the declarations")
    if "allowedFunctionNames" in choice and choice["mode"] not in ("ANY", "VALIDATED"):
        found.append("allowed_function_names should only be set when the mode is ANY")
    return found


def _schema(schema: Any, place: str) -> list[str]:
    if not isinstance(schema, dict):
        return []
    found = [f"{place}: {name} is not supported" for name in schema if name not in SCHEMA]
    for name, inner in {**(schema.get("properties") or {}), **schema.get("$defs", {})}.items():
        found += _schema(inner, f"{place}.{name}")
    for name in ("items", "additionalProperties"):
        found += _schema(schema.get(name), f"{place}.{name}")
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        found += [one for inner in schema.get(name, ()) for one in _schema(inner, f"{place}.{name}")]
    return found


def _contents(body: dict[str, Any], path: str) -> list[str]:
    contents = body.get("contents") or []
    found = [] if contents else ["contents is not specified"]
    waiting: list[str] = []
    before = ""
    for at, content in enumerate(contents):
        place = f"contents[{at}]"
        parts = content.get("parts") or []
        if content.get("role") not in ("user", "model"):
            found.append(f"{place}: please use a valid role: user, model")
        if not parts:
            found.append(f"{place}.parts must not be empty")
        for part in parts:
            found += matches_only(part, PART, place)
            is_empty = part.get("text") == "" and "thoughtSignature" not in part  # a signature may come in an empty text of its own
            if is_empty or not part.keys() & {"text", "inlineData", "fileData", "functionCall", "functionResponse"}:
                found.append(f"{place}: required oneof field 'data' must have one initialized field")
        results = [part["functionResponse"] for part in parts if "functionResponse" in part]
        if len(results) != len(waiting) or [one["name"] for one in results] != waiting:
            found.append(f"{place}: the number of function response parts must be equal to that of the function call parts")
        if results and len(results) < len(parts):
            found.append(f"{place}: function responses stand alone")
        if any(not isinstance(one.get("response"), dict) for one in results):
            found.append(f"{place}: function_response.response is no object")
        calls = [part for part in parts if "functionCall" in part]
        if calls and (content["role"] != "model" or before != "user"):
            found.append(f"{place}: function call turn comes immediately after a user turn or a function response turn")
        if calls and "gemini-3" in path and "thoughtSignature" not in calls[0]:
            found.append(f"{place}: function call is missing a thought_signature")
        waiting = [part["functionCall"]["name"] for part in calls]
        before = content.get("role", "")
    if waiting:
        found.append("a function call turn has no response")
    return found


def is_stream(path: str, body: dict[str, Any]) -> bool:
    """Return whether a request asks for a stream."""
    return "streamGenerateContent" in path


def _parts(block: Said | Thought | Called, *, in_words: bool) -> list[dict[str, Any]]:
    match block:
        case Said(text):
            return [{"text": word} for word in (words(text) if in_words else [text])]
        case Thought(text, signature):
            return [{"text": text, "thought": True}, {"text": "", "thoughtSignature": signature}]
        case Called(call_id, name, arguments):
            return [{"functionCall": {"id": call_id, "name": name, "args": arguments}}]


def _chunk(parts: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    usage = {"promptTokenCount": USAGE[0], "candidatesTokenCount": USAGE[1], "totalTokenCount": sum(USAGE)}
    ending = {} if reason is None else {"finishReason": reason}
    return {"candidates": [candidate | ending], "usageMetadata": usage, "modelVersion": "gemini-3-pro", "responseId": "r1"}


def _reason(reply: Reply) -> str:
    return "MAX_TOKENS" if reply.is_cut else "STOP"


def whole(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    """Return a whole reply."""
    return _chunk([part for block in reply.blocks for part in _parts(block, in_words=False)], _reason(reply))


def pieces(reply: Reply, body: dict[str, Any]) -> list[bytes]:
    """Return the events of a stream."""
    parts = [part for block in reply.blocks for part in _parts(block, in_words=True)]
    return [*(sse(_chunk([part], None)) for part in parts), sse(_chunk([], _reason(reply)))]


def error(failure: Failure) -> dict[str, Any]:
    """Return the body of an error."""
    words_of = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
    return {"error": {"code": failure.status, "message": failure.message, "status": words_of.get(failure.status, "INTERNAL")}}


def error_piece(failure: Failure) -> bytes:
    """Return an error within a stream."""
    return sse(error(failure))
