"""Tests of the engine dialect, called without a socket."""

import json
from typing import Any

import pytest
from google.api import httpbody_pb2
from pydantic import SecretStr

from antiphon import domain
from antiphon.auth.api_keys.static import KeyRing
from antiphon.chat.catalog import Catalog
from antiphon.chat.prices import Prices
from antiphon.chat.service import ChatService
from antiphon.config import MAX_KEYLESS_BYTES, PriceConfig
from antiphon.domain.call import current
from antiphon.domain.errors import (
    InvalidRequest,
    ModelNotFound,
    ProviderNotFound,
    ProviderProtocolError,
    ProviderRateLimited,
    Unauthenticated,
)
from antiphon.domain.principal import ANONYMOUS, Principal
from antiphon.history.recorder import Recorder
from antiphon.rest.engine import servicer as engine
from antiphon.rest.engine.errors import render_error
from antiphon.rest.engine.request import key_from_json, key_from_object
from antiphon.rest.v1 import engine_pb2
from antiphon.routing.router import Router
from tests.unit.rest.caller import USER, Context, as_caller
from tests.unit.scripted import NO_STORE, ORIGIN, START, STOP, USAGE, ScriptedProvider

GATEWAY_KEY = "sk-gateway"
DEFAULTS = {"temperature": 1, "max_tokens": 2048, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}
PRICES = Prices({"one": PriceConfig(input=1, output=10)}, {})


def servicer(provider: ScriptedProvider, *own: str) -> engine.EngineServicer:
    router = Router([(provider, ["one", "up-*"])])
    keys = KeyRing([(USER, SecretStr(GATEWAY_KEY))])
    chat = ChatService(router, Recorder(NO_STORE), PRICES, timeout=60)
    return engine.EngineServicer(chat, router, Catalog(router, [provider], PRICES), keys, own)


async def called(
    provider: ScriptedProvider,
    body: Any,
    *own: str,
    at: str = "scripted",
    caller: Principal = USER,
    written: list[httpbody_pb2.HttpBody] | None = None,
    context: Context | None = None,
) -> list[httpbody_pb2.HttpBody]:
    """Return what the servicer writes for a body. `written` collects it, even if the call raises."""
    written = [] if written is None else written
    if isinstance(body, dict):
        body = json.dumps({"model": "one", "chat_input": "Hello"} | body).encode()
    request = engine_pb2.CreateEngineChatRequest(provider=at, body=httpbody_pb2.HttpBody(data=body))
    as_caller(caller)
    given: Any = context or Context()
    async for piece in servicer(provider, *own).CreateEngineChat(request, given):
        written.append(piece)
    return written


async def answered(provider: ScriptedProvider, **body: Any) -> dict[str, Any]:
    (piece,) = await called(provider, body)
    assert piece.content_type == "application/json"
    found: dict[str, Any] = json.loads(piece.data)
    return found


async def test_the_documented_answer() -> None:
    """The answer has every documented field in order, nulls included. The provider is asked for a stream."""
    provider = ScriptedProvider()
    found = await answered(provider)
    assert " ".join(found) == (
        "id choices created model object system_fingerprint usage session_id chat_input chat_output context provider timestamp"
        " parameters metrics"
    )
    measured = found.pop("metrics")
    assert len(found.pop("id")) == 36
    assert found.pop("timestamp") > 1_700_000_000
    message = {"content": "Hello", "role": "assistant", "function_call": None, "tool_calls": None}
    assert found == {
        "choices": [{"finish_reason": "stop", "index": 0, "logprobs": None, "message": message}],
        "created": 1_700_000_000,
        "model": "model-1",
        "object": "chat.completion",
        "system_fingerprint": None,
        "usage": None,
        "session_id": None,
        "chat_input": "Hello",
        "chat_output": "Hello",
        "context": [{"role": "user", "content": "Hello"}],
        "provider": "scripted",
        "parameters": DEFAULTS,
    }
    assert " ".join(measured) == (
        "input_tokens output_tokens total_tokens cost_usd latency_s time_to_first_token_s inter_token_latency_s tokens_per_second"
    )
    assert (measured["input_tokens"], measured["output_tokens"], measured["total_tokens"]) == (3, 2, 5)
    assert measured["cost_usd"] == pytest.approx(23e-6)
    assert 0 < measured["time_to_first_token_s"] <= measured["latency_s"]
    assert measured["tokens_per_second"] == pytest.approx(2 / measured["latency_s"])
    assert provider.requests == [
        domain.ChatRequest(
            "one",
            (domain.Message(domain.Role.USER, (domain.Text("Hello"),)),),
            stream=True,
            sampling=domain.Sampling(max_tokens=2048),
            provider="scripted",
            known_fields=True,
        )
    ]


@pytest.mark.parametrize(
    ("given", "echoed", "sent"),
    [
        (None, DEFAULTS, domain.Sampling(max_tokens=2048)),
        ("None", DEFAULTS, domain.Sampling(max_tokens=2048)),
        ({}, DEFAULTS, domain.Sampling(max_tokens=2048)),
        ({"temperature": 0}, {**DEFAULTS, "temperature": 0}, domain.Sampling(temperature=0, max_tokens=2048)),
        ({"max_tokens": None}, {**DEFAULTS, "max_tokens": None}, domain.Sampling()),
        ({"max_output_tokens": 7}, {**DEFAULTS, "max_tokens": 7}, domain.Sampling(max_tokens=7)),
        ({"max_tokens": 8, "max_output_tokens": 7}, {**DEFAULTS, "max_tokens": 8}, domain.Sampling(max_tokens=8)),
        ({"stop": ["x"], "seed": 3}, {**DEFAULTS, "stop": ["x"], "seed": 3}, domain.Sampling(max_tokens=2048, stop=("x",), seed=3)),
        (
            {"max_completion_tokens": 7},
            {name: value for name, value in DEFAULTS.items() if name != "max_tokens"} | {"max_completion_tokens": 7},
            domain.Sampling(max_completion_tokens=7),
        ),
    ],
)
async def test_parameters_override_the_defaults_and_are_repeated(given: Any, echoed: dict[str, Any], sent: domain.Sampling) -> None:
    """Given parameters override the defaults and are repeated in the answer.

    Of the defaults only `max_tokens` is sent to the provider.
    """
    provider = ScriptedProvider()
    assert (await answered(provider, parameters=given))["parameters"] == echoed
    assert provider.requests[0].sampling == sent


async def test_a_conversation_is_its_own_context() -> None:
    """A conversation is returned as `context`, unchanged, and its last content as `chat_input`."""
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    provider = ScriptedProvider()
    found = await answered(provider, chat_input=conversation, session_id="s-1")
    assert (found["context"], found["chat_input"], found["session_id"]) == (conversation, conversation[1]["content"], "s-1")
    assert [message.role for message in provider.requests[0].messages] == [domain.Role.SYSTEM, domain.Role.USER]


@pytest.mark.parametrize(("name", "expected"), [("one-2024-08-06", "one"), ("two", "two"), ("", "one")])
async def test_a_version_suffix_of_the_model_is_not_returned(name: str, expected: str) -> None:
    """A version suffix of the requested model is not returned; another model's name is."""
    started = domain.Started("x", name, ORIGIN, 1)
    assert (await answered(ScriptedProvider([started, USAGE, STOP])))["model"] == expected


def call(
    arguments: str, block: int = 0, *, kind: str = "function", choice: int = 0, state: domain.State | None = None
) -> list[domain.Event]:
    call_id = "" if kind == "function_call" else "c"
    begun = domain.BlockStarted(block, choice, domain.ToolCall(call_id, "f", "", kind, state=state))
    return [begun, domain.InputDelta(block, arguments)]


async def test_tools_and_the_functions_of_2023() -> None:
    """Tools and functions of 2023 are the same for the provider, and the answer has the form that the caller used."""
    finished = domain.Finished(0, domain.FinishReason.TOOL_CALLS, "tool_calls")
    batch = [START, *call('{"a":1}'), USAGE, finished]
    function = {"name": "f", "parameters": {"type": "object"}}
    tool = {"type": "function", "function": function}

    provider = ScriptedProvider(batch)
    found = await answered(provider, tools=[tool])
    entry = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert found["choices"][0]["message"] == {"content": None, "role": "assistant", "function_call": None, "tool_calls": [entry]}
    assert (found["choices"][0]["finish_reason"], found["chat_output"]) == ("tool_calls", '{"a":1}')

    old = ScriptedProvider(batch)
    found = await answered(old, functions=[function], function_call={"name": "f"})
    assert found["choices"][0]["message"]["function_call"] == entry["function"]
    assert found["choices"][0]["message"]["tool_calls"] is None
    assert (found["choices"][0]["finish_reason"], found["chat_output"]) == ("function_call", '{"a":1}')
    assert old.requests[0].tools == provider.requests[0].tools
    assert old.requests[0].tool_choice == domain.ToolChoice(domain.ToolChoiceMode.TOOL, "f")


async def test_a_stream_is_bare_text() -> None:
    """A stream is the plain text of the first choice, without thoughts and without an end token."""
    first, second = (
        [domain.ThinkingDelta(0, "hm"), domain.TextDelta(1, "Hé")],
        [domain.BlockStarted(2, 1, domain.Text("")), domain.TextDelta(2, "no"), domain.TextDelta(1, "llo\n")],
    )
    pieces = await called(ScriptedProvider([START, *first], [*second], [USAGE, STOP]), {"is_stream": True})
    assert [(piece.content_type, piece.data.decode()) for piece in pieces] == [("text/plain; charset=utf-8", "Hé"), ("", "llo\n")]


@pytest.mark.parametrize(
    ("events", "output"),
    [
        ([domain.RefusalDelta(0, "I can"), domain.RefusalDelta(0, "not.")], "I cannot."),
        ([domain.TextDelta(0, "Well. "), domain.RefusalDelta(1, "No.")], "Well. No."),
        ([domain.MediaDelta(0, transcript="Good "), domain.MediaDelta(0, "AAAA", "day.")], "Good day."),
        ([domain.TextDelta(0, "Hi"), domain.MediaDelta(1, transcript="Hi")], "Hi"),
        ([*call(""), domain.InputDelta(0, '{"a":'), domain.InputDelta(0, "1}"), domain.TextDelta(1, "")], '{"a":1}'),
        ([*call("{}"), *call('{"b":2}', 1)], "{}"),
        ([domain.ThinkingDelta(0, "hm"), domain.TextDelta(1, "Let me see."), *call("{}", 2)], "Let me see."),
        ([*call('{"a"', kind="function_call"), domain.InputDelta(0, ":1}")], '{"a":1}'),
        ([*call("grep", kind="custom"), domain.InputDelta(0, " x")], "grep x"),
        (
            [
                domain.BlockStarted(0, 1, domain.Refusal("")),
                domain.RefusalDelta(0, "no"),
                *call("{}", 1, choice=1),
                domain.TextDelta(2, "yes"),
            ],
            "yes",
        ),
    ],
)
async def test_a_stream_and_a_whole_reply_have_the_same_output(events: list[domain.Event], output: str) -> None:
    """Whole and streamed replies have the same output, and a refusal, a recording or a call is never an empty one."""
    batches: list[domain.Batch] = [[START], *([event] for event in events), [USAGE, STOP]]
    assert (await answered(ScriptedProvider(*batches)))["chat_output"] == output
    pieces = await called(ScriptedProvider(*batches), {"is_stream": True})
    assert b"".join(piece.data for piece in pieces).decode() == output
    chunks = [json.loads(piece.data) for piece in await called(ScriptedProvider(*batches), {"is_stream": True, "retries": 0})]
    assert chunks[-1]["chat_output"] == output
    calls = any(isinstance(event, domain.InputDelta) for event in events)
    assert "".join(chunk["chat_output_stream"] for chunk in chunks) in ({output, ""} if calls else {output})


async def test_an_end_token_carries_the_measurements() -> None:
    """The end token has the figures in the form of LLMstudio 0.3."""
    pieces = await called(ScriptedProvider(), {"is_stream": "True", "has_end_token": True})
    token, *figures = pieces[-1].data.decode().split(",")
    assert token == "<END_TOKEN>"  # noqa: S105 - marks the end of a text
    found = dict(figure.split("=") for figure in figures)
    assert " ".join(found) == (
        "input_tokens output_tokens cost_usd latency_s time_to_first_token_s inter_token_latency_s tokens_per_second"
    )
    assert (found["input_tokens"], found["output_tokens"], found["cost_usd"]) == ("3", "2", "2.3e-05")
    assert len(found["latency_s"].partition(".")[2]) == 5


@pytest.mark.parametrize("word", ["brand_new", ""])
async def test_a_finish_reason_that_the_clients_do_not_know_is_stop(word: str) -> None:
    """An unknown finish reason becomes `stop`, because the clients refuse any other."""
    batch = [START, domain.TextDelta(0, "Hello"), USAGE, domain.Finished(0, domain.FinishReason.OTHER, word)]
    assert (await answered(ScriptedProvider(batch)))["choices"][0]["finish_reason"] == "stop"
    (*_, last) = await called(ScriptedProvider(batch), {"is_stream": True, "retries": 0})
    assert json.loads(last.data)["choices"][0]["finish_reason"] == "stop"


async def test_a_stream_without_text_has_its_type_all_the_same() -> None:
    """A stream without text is one empty piece with its content type."""
    (piece,) = await called(ScriptedProvider([START, USAGE, STOP]), {"is_stream": True})
    assert (piece.content_type, piece.data) == ("text/plain; charset=utf-8", b"")


async def test_a_1x_client_gets_one_chunk_object_a_piece() -> None:
    """A 1.x client, recognised by `retries` without a session, gets JSON chunks.

    Its extra fields are parameters, and it gets no defaults.
    """
    text, tool = [domain.TextDelta(0, "Hel"), domain.TextDelta(0, "lo")], call("{}", 1)
    provider = ScriptedProvider([START, *text], [*tool], [USAGE, STOP])
    body = {"is_stream": True, "retries": 0, "parameters": {"temperature": 0.5}, "seed": 1, "base_url": "x"}
    pieces = await called(provider, body)
    assert [piece.content_type for piece in pieces] == ["application/json", "", ""]
    first, second, last = (json.loads(piece.data) for piece in pieces)
    assert {chunk["object"] for chunk in (first, second, last)} == {"chat.completion.chunk"}
    assert {chunk["id"] for chunk in (first, second, last)} == {first["id"]}
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "Hello"}
    assert (first["chat_output_stream"], first["metrics"], first["context"]) == ("Hello", None, None)
    assert second["choices"][0]["delta"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert (last["choices"][0]["finish_reason"], last["chat_output"]) == ("stop", "Hello")
    assert last["parameters"] == {"temperature": 0.5, "seed": 1}
    assert last["metrics"]["total_tokens"] == 5
    assert provider.requests[0].sampling == domain.Sampling(temperature=0.5, seed=1)


async def test_a_1x_client_gets_a_call_with_its_fields_in_one_delta() -> None:
    """A 1.x client gets a tool call with its unknown fields in one delta."""
    signed = call("{}", 1, state=domain.State(fields={"extra_content": {"google": 1}}))
    text = [domain.BlockStarted(0, 0, domain.Text("")), domain.TextDelta(0, "Hi")]
    provider = ScriptedProvider([START, domain.DeltaGroup(0, 4), *text, *signed], [USAGE, STOP])
    first, _ = [json.loads(piece.data) for piece in await called(provider, {"is_stream": True, "retries": 0})]
    entry = {
        "index": 0,
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"google": 1},
    }
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "Hi", "tool_calls": [entry]}


@pytest.mark.parametrize("size", [200_000, 300_000])
async def test_a_long_request_is_not_repeated_in_a_chunk(size: int) -> None:
    """A request over 256 KiB is not repeated in the last chunk, which the 1.x client could not read."""
    pieces = await called(ScriptedProvider(), {"is_stream": True, "retries": 0, "chat_input": "x" * size, "seed": 1})
    last = json.loads(pieces[-1].data)
    assert len(pieces[-1].data) < 1_000_000
    assert (last["chat_input"] is None, last["context"] is None) == (size > 256 * 1024,) * 2
    assert (last["chat_output"], last["parameters"], last["metrics"]["total_tokens"]) == ("Hello", {"seed": 1}, 5)


@pytest.mark.parametrize("is_1x", [False, True])
async def test_a_late_failure_breaks_the_transfer(is_1x: bool) -> None:
    """A failure during a stream breaks the transfer off without an end token, because plain text has no place for an error."""
    written: list[httpbody_pb2.HttpBody] = []
    context = Context()
    provider = ScriptedProvider([START, domain.TextDelta(0, "Hel")], ProviderProtocolError("Cut.", provider="scripted"))
    body = {"is_stream": True, "has_end_token": True} | ({"retries": 0} if is_1x else {})
    with pytest.raises(ProviderProtocolError):
        await called(provider, body, written=written, context=context)
    assert len(written) == 1
    assert len(context.trailing) > 100


async def test_a_failure_before_the_first_byte_is_a_status() -> None:
    """A failure before the first byte is raised, so that it can become a status."""
    written: list[httpbody_pb2.HttpBody] = []
    context = Context()
    with pytest.raises(ProviderRateLimited):
        await called(
            ScriptedProvider(ProviderRateLimited("x", provider="p")), {"is_stream": True}, written=written, context=context
        )
    assert (written, context.trailing) == ([], ())


@pytest.mark.parametrize(
    ("body", "places"),
    [
        (b"{", [(1,)]),
        (b"[]", [()]),
        ({"model": "", "chat_input": []}, [("model",)]),
        ({"chat_input": []}, [("chat_input",)]),
        ({"chat_input": [{"role": "user"}, {"role": "king", "content": "x"}]}, [("chat_input", 1, "role")]),
        ({"parameters": {"temperature": 3, "max_tokens": "many"}}, [("parameters", "temperature"), ("parameters", "max_tokens")]),
        ({"parameters": "no"}, [("parameters",)]),
        ({"is_stream": "perhaps"}, [("is_stream",)]),
        ({"api_key": "two words"}, [("api_key",)]),
        ({"tools": [{"type": "function"}]}, [("tools", 0, "function")]),
    ],
)
async def test_every_wrong_field_is_reported(body: Any, places: list[tuple[str | int, ...]]) -> None:
    """Every wrong field is listed by its place in the body, without values. The provider is not asked."""
    provider = ScriptedProvider()
    with pytest.raises(InvalidRequest) as caught:
        await called(provider, body)
    status, _, data = render_error(caught.value)
    assert status == 422
    detail = json.loads(data)["detail"]
    assert [tuple(entry["loc"]) for entry in detail] == places
    assert all(set(entry) == {"type", "loc", "msg"} for entry in detail)
    assert provider.requests == []


@pytest.mark.parametrize(
    ("chat_input", "place"),
    [("a\0", ["chat_input"]), ([{"role": "user", "content": "x"}, {"role": "user", "content": "a\0"}], ["chat_input", 1])],
)
async def test_a_nul_is_reported_at_its_place(chat_input: Any, place: list[str | int]) -> None:
    """A NUL is reported at its place in the body, with an index only if `chat_input` is a list."""
    with pytest.raises(InvalidRequest) as caught:
        await called(ScriptedProvider(), {"chat_input": chat_input})
    assert json.loads(render_error(caught.value)[2])["detail"][0]["loc"] == place


async def test_unknown_providers_and_models() -> None:
    """An unknown provider is a 404 and an unknown model a 400; no other provider is asked."""
    provider = ScriptedProvider()
    with pytest.raises(ProviderNotFound) as no_provider:
        await called(provider, {}, at="other")
    with pytest.raises(ModelNotFound) as no_model:
        await called(provider, {"model": "two"})
    assert [render_error(caught.value)[0] for caught in (no_provider, no_model)] == [404, 400]
    assert provider.requests == []


# Keys.


@pytest.mark.parametrize(("given", "sent"), [(None, None), ("None", None), ("", None), ("sk-own", "sk-own"), (GATEWAY_KEY, None)])
async def test_the_callers_own_key_goes_to_the_provider(given: str | None, sent: str | None) -> None:
    """The caller's provider key is sent to the provider and hidden in `repr`. A key of the gateway is never sent on."""
    provider = ScriptedProvider()
    await called(provider, {"api_key": given})
    (request,) = provider.requests
    assert (request.api_key and request.api_key.get_secret_value()) == sent
    assert "sk-own" not in repr(request)


@pytest.mark.parametrize("body", [{"api_key": GATEWAY_KEY}, {"retries": 0, "parameters": {"api_key": GATEWAY_KEY}}])
async def test_a_key_of_the_gateway_may_stand_in_the_body(body: dict[str, Any]) -> None:
    """A gateway key in the body identifies the caller, and is neither sent on nor repeated."""
    provider = ScriptedProvider()
    (piece,) = await called(provider, body, caller=ANONYMOUS)
    assert current().caller == USER
    assert GATEWAY_KEY.encode() not in piece.data
    assert provider.requests[0].api_key is None
    assert GATEWAY_KEY not in str(provider.requests[0].extra)


@pytest.mark.parametrize("body", [{}, {"api_key": "None"}, {"api_key": "sk-own"}, {"api_key": 5}, b"{", b"[]", b"{}"])
async def test_without_a_good_key_nobody_is_let_in(body: Any) -> None:
    """Without a valid gateway key a call is `Unauthenticated`, even with a provider's key or an invalid body."""
    provider = ScriptedProvider()
    with pytest.raises(Unauthenticated):
        await called(provider, body, caller=ANONYMOUS)
    with pytest.raises(Unauthenticated):
        await called(provider, body, "another", caller=ANONYMOUS)
    with pytest.raises(Unauthenticated):
        await called(provider, body, at="unheard-of", caller=ANONYMOUS)
    assert provider.requests == []


async def test_a_providers_key_lets_in_where_the_operator_says_so() -> None:
    """If the operator allows it for a provider, a provider's key is enough; the caller stays anonymous."""
    provider = ScriptedProvider()
    await called(provider, {"api_key": "sk-own"}, "scripted", caller=ANONYMOUS)
    assert current().caller is ANONYMOUS
    assert provider.requests[0].api_key == SecretStr("sk-own")
    with pytest.raises(Unauthenticated):
        await called(provider, {}, "scripted", caller=ANONYMOUS)


@pytest.mark.parametrize("value", ["sk-a", "", "None", None, 5, ["sk-a"], {"api_key": "sk-a"}, "sk-\u00e9\n", "Nonesuch"])
@pytest.mark.parametrize("parameters", [{}, {"parameters": None}, {"parameters": {"api_key": "sk-b", "x": 1}}, {"parameters": [1]}])
def test_a_key_is_found_without_the_rest(value: Any, parameters: dict[str, Any]) -> None:
    """`key_from_json` finds the same key as `key_from_object`, if it is a text."""
    body = {"chat_input": "x", "api_key": value, **parameters, "more": [[]]}
    found = key_from_object(body)
    for one in (body, dict(reversed(body.items()))):
        assert key_from_json(json.dumps(one).encode()) == (found if isinstance(found, str) else None)


@pytest.mark.parametrize("rest", [b'"\xff"', b'"' + b"x" * 10_000 + b'"', b"1e999", b"9" * 10_000, b"[" * 500 + b"]" * 500])
def test_nothing_but_the_key_is_read(rest: bytes) -> None:
    """The key is found even if other values of the body could not be parsed."""
    assert key_from_json(b'{"x":' + rest + b',"api_key":"sk-a"}') == "sk-a"
    assert key_from_json(b'{"x":' + b"[" * 5000 + rest) is None


async def test_a_long_body_has_its_key_in_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body over MAX_KEYLESS_BYTES needs its key in the header. No body is parsed before the caller is known."""
    monkeypatch.setattr(engine, "parse_in_turns", None)
    body = {"model": "one", "chat_input": "", "api_key": GATEWAY_KEY}
    room = MAX_KEYLESS_BYTES - len(json.dumps(body))
    with pytest.raises(Unauthenticated, match='needs its key as "Authorization: Bearer <key>"') as caught:
        await called(ScriptedProvider(), body | {"chat_input": "x" * (room + 1)}, caller=ANONYMOUS)
    assert "256 KiB" in caught.value.message
    with pytest.raises(Unauthenticated):
        await called(ScriptedProvider(), body | {"api_key": "sk-unknown"}, caller=ANONYMOUS)
    monkeypatch.undo()
    (piece,) = await called(ScriptedProvider(), body | {"chat_input": "x" * room}, caller=ANONYMOUS)
    assert piece.content_type == "application/json"


# Lists.


async def json_of(method: Any, request: Any) -> Any:
    context: Any = Context()
    (piece,) = [piece async for piece in method(request, context)]
    return json.loads(piece.data)


async def test_the_lists() -> None:
    """Providers, models by name, and parameters with the defaults that are used are listed, limited to the caller's models."""
    as_caller(USER)
    dialect = servicer(ScriptedProvider())
    assert await json_of(dialect.ListEngineProviders, engine_pb2.ListEngineProvidersRequest()) == ["scripted"]
    models = {"name": "scripted", "models": ["one"]}
    assert await json_of(dialect.ListEngineModels, engine_pb2.ListEngineModelsRequest()) == {"scripted": models}
    assert await json_of(dialect.ListEngineModels, engine_pb2.ListEngineModelsRequest(provider="scripted")) == models
    parameters = await json_of(dialect.ListEngineParameters, engine_pb2.ListEngineParametersRequest(provider="scripted"))
    assert {parameter["id"]: parameter["default"] for parameter in parameters} == DEFAULTS
    assert all(set(parameter) == {"id", "name", "type", "default", "min", "max", "step"} for parameter in parameters)
    as_caller(Principal("narrow", owner="narrow", models=("two", "other/*")))
    nothing = {"scripted": {**models, "models": []}}
    assert await json_of(dialect.ListEngineModels, engine_pb2.ListEngineModelsRequest()) == nothing
    health = await json_of(dialect.GetHealth, engine_pb2.GetHealthRequest())
    assert health["status"] == "healthy"


async def test_lists_of_an_unknown_provider_are_refused() -> None:
    """Lists of an unknown provider raise `ProviderNotFound`; a missing provider raises `InvalidRequest`."""
    dialect = servicer(ScriptedProvider())
    with pytest.raises(ProviderNotFound):
        await json_of(dialect.ListEngineModels, engine_pb2.ListEngineModelsRequest(provider="x"))
    with pytest.raises(ProviderNotFound):
        await json_of(dialect.ListEngineParameters, engine_pb2.ListEngineParametersRequest(provider="x"))
    with pytest.raises(InvalidRequest) as caught:
        await json_of(dialect.ListEngineParameters, engine_pb2.ListEngineParametersRequest())
    assert caught.value.violations[0].path == ("query", "provider")
