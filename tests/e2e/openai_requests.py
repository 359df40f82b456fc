"""Requests that the OpenAI API accepts, and that other APIs accept only in another form."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

HELLO: Any = [{"role": "user", "content": "Hello, json please."}]


def tool(name: str = "get_weather", parameters: Any = None, **more: Any) -> Any:
    schema = parameters or {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": "It looks.", "parameters": schema, **more}}


ASSISTANT = {"role": "assistant", "content": "x"}
PDF = "data:application/pdf;base64,JVBERi0xLjQ="
PNG = "data:image/png;base64,iVBORw0KGgo="


def called(*ids: str, arguments: str = '{"city": "x"}', **more: Any) -> Any:
    function = {"name": "get_weather", "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": i, "type": "function", "function": function} for i in ids],
        **more,
    }


def result(call_id: str, content: Any = "sunny") -> Any:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


CONVERSATIONS: dict[str, list[Any]] = {
    "instructions": [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, *HELLO],
    "instructions later": [*HELLO, ASSISTANT, {"role": "system", "content": [{"type": "text", "text": "b"}]}, *HELLO],
    "instructions alone": [{"role": "system", "content": "Tell a joke."}],
    "blank instructions": [{"role": "system", "content": ""}, *HELLO],
    "nothing": [{"role": "user", "content": ""}],
    "two of the user": [*HELLO, {"role": "user", "content": [{"type": "text", "text": "b"}], "name": "ann"}],
    "two of the assistant": [*HELLO, ASSISTANT, ASSISTANT, *HELLO],
    "the assistant first": [ASSISTANT, *HELLO],
    "an empty reply": [*HELLO, {"role": "assistant", "content": ""}, *HELLO],
    "a refusal": [*HELLO, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, *HELLO],
    "a picture": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}]}],
    "results in another order": [*HELLO, called("1", "2"), result("2"), result("1")],
    "the user between results": [*HELLO, called("1", "2"), result("1"), *HELLO, result("2")],
    "one id in two turns": [*HELLO, called("1"), result("1"), called("1"), result("1"), *HELLO],
    "odd ids": [*HELLO, called("a.b:c/d é", "x" * 100), result("a.b:c/d é"), result("x" * 100)],
    "broken arguments": [*HELLO, called("1", arguments="{oops"), result("1")],
    "a list of arguments": [*HELLO, called("1", arguments="[1]", content="Look."), result("1")],
    "parts in a result": [*HELLO, called("1"), result("1", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])],
    "a picture in a result": [*HELLO, called("1"), result("1", [{"type": "image_url", "image_url": {"url": PNG}}])],
    "a foreign thought": [*HELLO, called("1", reasoning_content="Hm."), result("1")],
}


ALLOWED = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "get_weather"}}]},
}
OPTIONS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 2, "top_p": 1, "seed": 3, "user": "u", "n": 2},
    {"top_p": 1, "presence_penalty": 2, "frequency_penalty": -2, "logit_bias": {"1": 2}},
    {"max_tokens": 1, "stop": ["\n", "END"]},
    {"max_completion_tokens": 5, "stop": "\n\n"},
    {"store": False, "metadata": {"a": "b"}, "service_tier": "auto", "verbosity": "low", "response_format": {"type": "text"}},
    {"tools": [tool()], "parallel_tool_calls": False, "tool_choice": "none"},
    {"tools": [tool(), {"type": "custom", "custom": {"name": "c"}}], "tool_choice": ALLOWED},
    {"tool_choice": "auto", "parallel_tool_calls": True},
    {"reasoning_effort": "low", "temperature": 0.5, "max_tokens": 3000},
    {"reasoning_effort": "high", "top_p": 0.9},
    {"reasoning_effort": "none"},
)


class Step(BaseModel):
    """A part of an answer, with limits that few APIs enforce."""

    text: str = Field(min_length=1, pattern="^[A-Z]")
    number: int = Field(ge=0, le=10)


class Answer(BaseModel):
    """An answer."""

    steps: list[Step] = Field(max_length=5)
    kind: Literal["a", "b"]
    maybe: int | None


class Node(BaseModel):
    """A tree."""

    children: list["Node"]


class Cat(BaseModel):
    """One kind of pet."""

    kind: Literal["cat"]


class Dog(BaseModel):
    """Another."""

    kind: Literal["dog"]
    age: int


class Pet(BaseModel):
    """A union."""

    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Counts(BaseModel):
    """An object with keys of any name."""

    counts: dict[str, int]


ANSWER = '{"steps": [{"text": "A", "number": 1}], "kind": "a", "maybe": null}'


TOOLS: dict[str, Any] = {
    "a union of objects": {"oneOf": [Cat.model_json_schema(), Dog.model_json_schema()]},
    "one of two is needed": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "no type": {"properties": {"a": {"const": "x"}}, "$schema": "http://json-schema.org/draft-07/schema#"},
    "perhaps nothing": {"type": ["object", "null"], "properties": {"a": {"type": ["string", "null"]}}},
    "a tree": Node.model_json_schema(),
}
