"""The Gemini API: signatures on texts, on the first call of each step, and on an empty last part."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from google.genai import types

from tests.odd_upstream import Step, sse
from tests.sdk_types import problems as type_problems
from tests.strict.base import StrictApi, call_count, has_calls, paired

SENTINEL = "skip_thought_signature_validator"
USAGE = {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12}

FIELDS: dict[str, Any] = {
    "contents": list[types.Content],
    "systemInstruction": types.Content,
    "generationConfig": types.GenerationConfig,
    "tools": list[types.Tool],
    "toolConfig": types.ToolConfig,
}
"""The SDK has no type for the body, but for its fields."""


class StrictGemini(StrictApi):
    """https://ai.google.dev/gemini-api/docs/thought-signatures. A model takes no signatures of another one."""

    protocol = "gemini"
    model = "gemini-3-pro"
    choices = 1
    """The number of candidates that the latest request asks for."""

    def parts(self, number: int) -> list[dict[str, Any]]:
        """Return a turn. Every other turn has ids of calls."""
        parts: list[dict[str, Any]] = [
            {"text": self.thought(number), "thought": True},
            {"text": self.step(number), "thoughtSignature": self.private("text", number)},
        ]
        if number % 3:
            parts.append({"text": " More \N{EARTH GLOBE AMERICAS}."})
        if number % 3 == 1:
            parts.append({"text": " Still more.", "thoughtSignature": self.private("more", number)})
        for place in range(call_count(number)):
            call: dict[str, Any] = {"name": self.names[place], "args": {"n": number}}
            if number % 4 < 2:
                call["id"] = f"id-{number}-{place}"
            signature = {} if place else {"thoughtSignature": self.private("call", number)}
            parts.append({"functionCall": call, **signature})
        if not has_calls(number):
            parts.append({"text": "", "thoughtSignature": self.private("last", number)})
        return parts

    def whole_text(self, number: int) -> str:
        return "".join(part.get("text", "") for part in self.parts(number) if not part.get("thought"))

    def answer(self, path: str, body: dict[str, Any]) -> tuple[Sequence[Step], list[str]]:
        model = path.partition("/models/")[2].partition(":")[0]
        self.maker = self.protocol if model == self.model else model
        self.choices = body.get("generationConfig", {}).get("candidateCount", 1)
        return super().answer(path, body)

    def is_stream(self, path: str, body: dict[str, Any]) -> bool:
        return ":streamGenerateContent" in path

    def tool_names(self, body: dict[str, Any]) -> tuple[str, str]:
        first, second = (one["name"] for tool in body["tools"] for one in tool["functionDeclarations"])
        return first, second

    def type_problems(self, body: dict[str, Any], *, is_stream: bool) -> list[str]:
        found = [f".{name} is unknown" for name in body.keys() - FIELDS.keys()]
        return found + [one for name in body.keys() & FIELDS.keys() for one in type_problems(body[name], FIELDS[name], name)]

    def problems(self, body: dict[str, Any]) -> Iterator[str]:
        contents = body["contents"]
        if contents[0]["role"] != "user" or contents[-1]["role"] != "user":
            yield "the user speaks first and last"
        number = 0
        for content, following in pairwise([*contents, {"role": "user", "parts": []}]):
            parts = content["parts"]
            if not parts:
                yield "a content is empty"
            if content["role"] == "model":
                yield from self.reply_problems(parts, number)
                calls = [part["functionCall"] for part in parts if "functionCall" in part]
                results = [part["functionResponse"] for part in following["parts"] if "functionResponse" in part]
                if len(results) not in (0, len(following["parts"])):
                    yield "results share their content"
                yield from paired(
                    [(f"{one['name']} {one.get('id')}", number, place) for place, one in enumerate(calls)],
                    [(f"{one['name']} {one.get('id')}", one["response"].get("output")) for one in results],
                )
                number += 1

    def reply_problems(self, parts: list[dict[str, Any]], number: int) -> Iterator[str]:
        """Yield what is wrong with a turn that comes back."""
        text = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
        signatures = [part["thoughtSignature"] for part in parts if "thoughtSignature" in part]
        first = next((part for part in parts if "functionCall" in part), None)
        if self.is_own(text, number):
            yield from self.own_values(signatures)
            expected = [part for part in self.parts(number) if not part.get("thought")]
            if parts != expected:
                yield f"turn {number} has changed: {parts} instead of {expected}"
        elif first is not None and first.get("thoughtSignature") != SENTINEL:
            yield f"the first call of turn {number} is not signed"
        elif len(signatures) > (first is not None):
            yield f"there are signatures in turn {number}"
        elif any("id" in part["functionCall"] for part in calls(parts)):
            yield f"turn {number} has ids of others"

    def turn_number(self, body: dict[str, Any]) -> int:
        return sum(content["role"] == "model" for content in body["contents"])

    def whole(self, number: int) -> dict[str, Any]:
        content = {"role": "model", "parts": self.parts(number)}
        candidates = [{"content": content, "finishReason": "STOP", "index": index} for index in range(self.choices)]
        return {"candidates": candidates, "usageMetadata": USAGE, "modelVersion": self.model, "responseId": f"r{number}"}

    def pieces(self, number: int) -> list[bytes]:
        parts = self.parts(number)
        last = {"finishReason": "STOP"}
        candidates = [
            {"content": {"role": "model", "parts": [part]}, "index": index, **(last if part is parts[-1] else {})}
            for index in range(self.choices)
            for part in parts
        ]
        return [sse({"candidates": [one], "responseId": f"r{number}", "usageMetadata": USAGE}) for one in candidates]

    def refusal(self, message: str) -> dict[str, Any]:
        return {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}


def calls(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts with calls."""
    return [part for part in parts if "functionCall" in part]
