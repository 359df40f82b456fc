"""The functions to fuzz: each takes any bytes, and raises if it finds a defect. This module does not depend on a fuzzer.

A target feeds one parser of data from outside. The parser may raise only the errors that it documents. The target also checks what
must always hold, for example that the result does not depend on where a stream is cut.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Final
from zlib import crc32

import msgspec
import orjson
from pydantic import SecretStr
from yarl import URL

from antiphon import domain
from antiphon.auth.base import bearer
from antiphon.auth.tokens.authenticator import Issuer, Tokens
from antiphon.auth.tokens.jwks import SharedSecret
from antiphon.auth.tokens.keyset import KeysUnusable
from antiphon.auth.tokens.keyset import parse as parse_keys
from antiphon.config import GuardConfig, IssuerConfig, ProxyConfig
from antiphon.database.paging import token as page_token
from antiphon.domain.errors import AntiphonError, InvalidRequest, PermissionDenied, ProviderError, Unauthenticated
from antiphon.domain.model_names import is_name
from antiphon.domain.models import ModelInfo
from antiphon.guards.base import Blocked, Filter, Guard
from antiphon.guards.json_chain import JsonChain, filter_json
from antiphon.guards.registry import KINDS
from antiphon.history import rows
from antiphon.net.egress import EgressPolicy, Target
from antiphon.net.eventstream import EventStreamReader, InvalidStream, StreamMessage
from antiphon.net.fetch import FetchedAnswer, Fetcher
from antiphon.net.sse import EventTooLarge, SseEvent, SseReader
from antiphon.providers import failure
from antiphon.providers.anthropic.models import read_page as anthropic_models
from antiphon.providers.anthropic.response import AnthropicReader
from antiphon.providers.bedrock.response import BedrockReader
from antiphon.providers.client import Reader
from antiphon.providers.cohere.models import read_page as cohere_models
from antiphon.providers.cohere.response import CohereReader
from antiphon.providers.credentials.endpoint import json_object, read_token
from antiphon.providers.credentials.endpoint import refusal as token_refusal
from antiphon.providers.credentials.token import TokenFailed
from antiphon.providers.gemini.models import read_page as gemini_models
from antiphon.providers.gemini.response import GeminiReader
from antiphon.providers.openai import request as openai_request
from antiphon.providers.openai.response import OpenAIReader
from antiphon.providers.openai_model_list import read_page as openai_models
from antiphon.providers.responses.response import ResponsesReader
from antiphon.rest.analytics import servicer as analytics
from antiphon.rest.assistant import servicer as assistant
from antiphon.rest.engine import request as engine_request
from antiphon.rest.openai import errors as openai_errors
from antiphon.rest.openai import request as openai
from antiphon.rest.proxy import errors as proxy_errors
from antiphon.rest.proxy import proxied
from antiphon.rest.proxy import servicer as proxy
from antiphon.rest.registry import DIALECTS
from antiphon.rest.shared.body import parse
from antiphon.rest.shared.json import dumps
from antiphon.rest.shared.message_json import message_json
from tests.fuzz.http_answer import http_answer


def cut(data: bytes, size: int) -> list[bytes]:
    """Split data into pieces of `size` bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]


# Answers of providers.


def sse(data: bytes) -> None:
    """Check that events do not depend on where the stream is cut, and that no event is larger than the maximum."""
    size, data = 1 + (data[0] if data else 0) % 13, data[1:]

    def read(pieces: list[bytes]) -> tuple[list[SseEvent], SseEvent | None]:
        reader = SseReader(1 << 20)
        events = [event for piece in pieces for event in reader.feed(piece)]
        return events, reader.end()

    whole = read([data])
    assert read(cut(data, size)) == whole, "the result depends on where it is cut"
    assert not any(b"\n" in name for name, _ in whole[0])
    small = SseReader(16)
    try:
        for piece in cut(data, size):
            assert all(len(payload) <= 16 for _, payload in small.feed(piece))
    except EventTooLarge:
        pass


def event_stream(data: bytes) -> None:
    """Check that messages of an event stream do not depend on where it is cut, and that only documented errors are raised.

    Fuzzers find no checksums, so they are put right: as the length of a message, and over its bytes.
    """
    size, data = 1 + (data[0] if data else 0) % 13, data[1:]

    def read(pieces: list[bytes]) -> tuple[list[StreamMessage], type[Exception] | None, bool]:
        reader = EventStreamReader(1 << 16)
        found: list[StreamMessage] = []
        try:
            for piece in pieces:
                found.extend(reader.feed(piece))
        except (InvalidStream, EventTooLarge) as error:
            return found, type(error), True
        return found, None, reader.is_between_messages

    for mended in (data, _mended(data), _mended(data) + data):
        assert read([mended]) == read(cut(mended, size)), "the result depends on where it is cut"


def _mended(data: bytes) -> bytes:
    """Return a message whose headers and payload are `data`, whose first byte is the length of the headers."""
    length, data = (data[0], data[1:]) if data else (0, b"")
    prelude = struct.pack(">II", 16 + len(data), min(length, len(data)))
    checked = prelude + struct.pack(">I", crc32(prelude)) + data
    return checked + struct.pack(">I", crc32(checked))


REQUEST: Final = domain.ChatRequest("m", (domain.Message(domain.Role.USER, (domain.Text("x"),)),), stream=True)


def reply_stream(data: bytes, make: Callable[[domain.ChatRequest, str], Reader] = OpenAIReader) -> None:
    """Check that a streamed reply ends or raises `ProviderError`, and that its text does not depend on where the stream is cut."""
    size, data = 1 + (data[0] if data else 0) % 13, data[1:]

    def read(pieces: list[bytes]) -> tuple[str, type[Exception] | None]:
        reader = make(REQUEST, "p")
        texts: list[str] = []
        try:
            for piece in pieces:
                texts += [event.text for event in reader.feed(piece) if isinstance(event, domain.TextDelta)]
                if reader.failure is not None:
                    raise reader.failure
                if reader.ending.done:
                    break
            texts += [event.text for event in reader.end() if isinstance(event, domain.TextDelta)]
        except ProviderError as error:
            return "".join(texts), type(error)
        return "".join(texts), None

    assert read([data]) == read(cut(data, size)), "the result depends on where it is cut"


def bedrock_stream(data: bytes) -> None:
    """Check the same of Bedrock's streams: each line is the name of an event or an exception, a space, and its JSON."""
    size, data = data[:1], data[1:]

    def event(line: bytes) -> bytes:
        name, _, payload = line.partition(b" ")
        name = name[:100]
        kind = b"exception" if name.endswith(b"Exception") else b"event"
        fields = ((b":%b-type" % kind, name), (b":message-type", kind))
        headers = b"".join(bytes([len(key)]) + key + b"\7" + struct.pack(">H", len(value)) + value for key, value in fields)
        return _mended(bytes([len(headers)]) + headers + payload)

    reply_stream(size + b"".join(map(event, data.split(b"\n"))), BedrockReader)


def reply_json(data: bytes, make: Callable[[domain.ChatRequest, str], Reader] = OpenAIReader) -> None:
    """Check that a reply in one JSON object either is complete or raises `ProviderError`."""
    try:
        events = make(REQUEST, "p").read_object(data)
    except ProviderError:
        return
    assert any(isinstance(event, domain.Finished) for event in events)
    used = [count for event in events if isinstance(event, domain.Usage) for count in (event.input_tokens, event.output_tokens)]
    assert all(count is None or count >= 0 for count in used)


def model_list(data: bytes) -> None:
    """Check that each reader of lists of models either refuses a body, or returns models with distinct, valid names."""
    for read_page in (anthropic_models, cohere_models, gemini_models, openai_models):
        try:
            page = read_page(data)
        except ValueError:
            continue
        names = [model.name for model in page.models]
        assert len(set(names)) == len(names)
        assert all(name and is_name(name) for name in names)
        for model in page.models:
            assert "\n" not in model.title
            assert (model.context_tokens or 1) > 0
            assert model.prices is None or min(model.prices.input or 0, model.prices.output or 0) >= 0
            assert msgspec.json.decode(msgspec.json.encode(model), type=ModelInfo) == model


def refusal(data: bytes) -> None:
    """Check that any error answer of a provider becomes one of our errors, and that a retry delay is finite and not negative."""
    status, data = 400 + (data[0] if data else 0) % 200, data[1:]
    text = data[:40].decode("latin-1")
    for headers in ({"retry-after": text}, {"retry-after-ms": text}, {}):
        error = failure.error_of_status("p", status, headers, data)
        failure.explain(error, data, ("open-sesame",))
        assert error.retry_after is None or 0 <= error.retry_after < float("inf")
        _check_rendered(openai_errors.render_error, error)


# Requests of callers.


def body(data: bytes) -> None:
    """Check that a body of any dialect is either refused, or a valid request.

    A valid request can be sent to a provider and stored in a database.
    """
    which, data = (data[0] if data else 0) % len(_BODIES), data[1:]
    read, render = _BODIES[which]
    try:
        request = read(data)
        if request is None:
            return
        for message in request.messages:
            dumps(message_json(message))
        sent = orjson.loads(openai_request.encode(request, "p", stream_usage=True))
        assert isinstance(sent, dict)
    except InvalidRequest as error:
        _check_rendered(render, error)


def _check_rendered(render: Callable[[AntiphonError], tuple[int, Any, bytes]], error: AntiphonError) -> None:
    status, headers, rendered = render(error)
    assert 400 <= status < 600
    assert isinstance(orjson.loads(rendered), dict)
    assert all(value.isprintable() for value in headers.values())


def _generate(body: assistant.GenerateBody) -> domain.ChatRequest:
    return domain.ChatRequest("m", assistant._messages(body), stream=True, tools=assistant._tools(body.tools))


def _engine(body: engine_request.EngineChatBody) -> domain.ChatRequest:
    return engine_request.request_from_body(body, engine_request.EngineChat(body, "p"))


_REQUESTS: Final[Mapping[type[Any], Callable[[Any], domain.ChatRequest]]] = {
    openai.ChatCompletionBody: partial(openai.request_from_body, stream=True),
    analytics.AnalyticsChatBody: analytics.request_from_body,
    assistant.GenerateBody: _generate,
    engine_request.EngineChatBody: _engine,
}
"""Functions that make a chat request of a body. For a dialect that is not here, only the fields of the body are checked."""


def _reader(kind: type[Any]) -> Callable[[bytes], domain.ChatRequest | None]:
    def read(data: bytes) -> domain.ChatRequest | None:
        body, make = parse(data, kind), _REQUESTS.get(kind)
        return make(body) if make else None

    return read


_BODIES: Final[Sequence[tuple[Callable[[bytes], domain.ChatRequest | None], Callable[..., Any]]]] = (
    (proxied.check_openai, proxy_errors.render_openai_error),
    (lambda data: proxied.check_gemini(data, count=False), proxy_errors.render_gemini_error),
    (lambda data: proxied.check_gemini(data, count=True), proxy_errors.render_gemini_error),
    *{
        method.body: (_reader(method.body), dialect.errors_of(name).render)
        for dialect in DIALECTS
        for name, method in dialect.methods.items()
        if method.body is not None and not method.passes_on
    }.values(),
)
"""Pairs of functions: one reads a body, the other renders its errors."""


def page(data: bytes) -> None:
    """Check that any text is either refused as a page token, or read the same after it is written again."""
    kinds: tuple[type[Any], ...] = (rows.ListToken, rows.PathToken)
    written = data[1:].decode("utf-8", "surrogateescape")
    kind = kinds[(data[0] if data else 0) % len(kinds)]
    for text in (written, base64.urlsafe_b64encode(data[1:]).decode().rstrip("=")):
        try:
            found = rows.read_token(text, kind)
        except InvalidRequest:
            continue
        assert rows.read_token(page_token(found), kind) == found


# Credentials of callers.

SECRET: Final = "a-secret-of-thirty-two-bytes-or-more"  # noqa: S105 - used only in this module
NOW: Final = 1_700_000_000


def _tokens() -> Tokens:
    config = IssuerConfig(name="corp", issuer="https://id.test", audience=("antiphon",), secret_env="S", algorithms=("HS256",))  # noqa: S106 - a name
    issuer = Issuer(config, SharedSecret(SecretStr(SECRET)), lambda: float(NOW))
    return Tokens({"https://id.test": issuer}, Fetcher(), lambda: float(NOW))


TOKENS: Final = _tokens()


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits for I/O, and return its result. Raises `AssertionError` if it does wait."""
    try:
        while coroutine.send(None) is None:
            pass
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


def token(data: bytes) -> None:
    """Check that only a correctly signed token authenticates, and that its owner has the prefix of the issuer."""
    header, _, claims = data.partition(b"\n")
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, claims))
    signature = base64.urlsafe_b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).rstrip(b"=")
    valid = (signed + b"." + signature).decode()
    unsigned = (data.decode("utf-8", "surrogateescape"), signed.decode() + ".", signed.decode() + "." + "A" * 43)
    for credential in (valid, *unsigned):
        try:
            principal = finished(TOKENS.authenticate(credential))
        except Unauthenticated:
            continue
        assert principal is None or (credential == valid and principal.owner.startswith("corp:")), "it is not signed"


def key_set(data: bytes) -> None:
    """Check that any document is either a key set without private keys, or raises `KeysUnusable`."""
    try:
        found = parse_keys(data)
    except KeysUnusable:
        return
    assert not any(key.is_private for key in found.keys)


def access_token(data: bytes) -> None:
    """Check that any answer of a token endpoint has a token and a time, or raises `TokenFailed`; no error has its sentences."""
    found = json_object(data)
    if found is not None:
        for value in ("access_token", "accessToken"):
            try:
                made = read_token(found, value=value)
            except TokenFailed:
                continue
            assert made.value.isprintable()
            assert made.value not in repr(made) or len(made.value) < 12
            assert 0 < made.lifetime <= 7 * 86400
    why = str(token_refusal(FetchedAnswer(400, {}, data)))
    assert re.fullmatch(r"status 400(, [A-Za-z_]{1,64})?(, AADSTS\d{4,10})?", why)


def header(data: bytes) -> None:
    """Check the headers of callers and of providers' answers.

    An authorization header has a credential or is refused; the answer headers that are passed on are printable ASCII.
    """
    text = data.decode("latin-1")
    try:
        credential = bearer(text)
        assert credential
        assert credential == credential.strip()
    except Unauthenticated:
        pass
    name, _, content = text.partition(":")
    answer: Any = SimpleNamespace(status=429, headers={name: content, "content-type": content})
    for value in (*proxy.answer_metadata(answer, {"authorization": "Bearer key"}).values(), proxy._content_type(answer)):
        assert value.isascii()
        assert value.isprintable() or not value


# Targets that callers name.

POLICY: Final = EgressPolicy(
    ProxyConfig(
        allow=("https://api.openai.com", "http://10.1.2.3:8000/v1", "https://[2001:db8::1]:8443"),
        aliases={"default": "https://api.openai.com/v1"},
    )
)
ALLOWED: Final = {("https", "api.openai.com", 443), ("http", "10.1.2.3", 8000), ("https", "2001:db8::1", 8443)}


def target(data: bytes) -> None:
    """Check that a target is either refused, or one of the allowed hosts, also when another library parses its URL."""
    try:
        found: Target = POLICY.target(data.decode("utf-8", "surrogateescape"), default_path="/v1")
    except (InvalidRequest, PermissionDenied):
        return
    url = URL(found.url + "/chat/completions")
    assert (found.scheme, found.host, found.port) in ALLOWED
    assert (url.scheme, url.host, url.port) == (found.scheme, found.host, found.port), "it is read in two ways"
    assert url.path == found.path + "/chat/completions"


# Text that guards filter.

GUARDS: Final[Sequence[Guard]] = (
    KINDS["personal_data"](GuardConfig(name="p", kind="personal_data", regions=["US", "DE"])),
    KINDS["blocklist"](
        GuardConfig(name="b", kind="blocklist", patterns=[r"(?i)secret\s+plan", r"\bab+\b", r"a.{0,9}c"], action="mask")
    ),
    KINDS["blocklist"](GuardConfig(name="c", kind="blocklist", patterns=[r"cat|catfish", r"^x|y$"])),
)

MASKING: Final = KINDS["blocklist"](GuardConfig(name="m", kind="blocklist", patterns=["abb"], action="mask", replacement="#"))


def guard(data: bytes) -> None:
    """Check that the output of a guard does not depend on where the text is cut."""
    which, size = (data[0] if data else 0), 1 + (data[1] if len(data) > 1 else 0) % 31
    text = data[2:].decode("utf-8", "replace")
    make = GUARDS[which % len(GUARDS)]

    def fed(reader: Filter, step: int) -> str:
        passed: list[str] = []
        try:
            passed.extend(reader.feed(text[at : at + step], final=False) for at in range(0, len(text), step))
            passed.append(reader.feed("", final=True))
        except Blocked as blocked:
            return "".join(passed) + blocked.before + "!"
        return "".join(passed)

    assert fed(make(), size) == fed(make(), 512), "the result depends on where it is cut"


def guarded_json(data: bytes) -> None:
    """Check the JSON that guards let through.

    It must still be JSON, unchanged where nothing was found, and without a match in any string, name or number.
    """
    size, text = 1 + (data[0] if data else 0) % 31, data[1:].decode("utf-8", "replace")
    if re.search(r"[0-9.eE+-]{100}|[ \n\r\t]{100}", text):
        return  # the filter does not wait for the end of such a long number, so it treats it as text

    async def fed(step: int) -> str:
        chain = JsonChain([MASKING])
        passed = [await chain.feed(text[at : at + step]) for at in range(0, len(text), step)]
        return "".join(passed) + await chain.feed("", final=True)

    filtered = finished(filter_json([MASKING], text))
    assert finished(fed(size)) == filtered, "the result depends on where it is cut"
    try:
        read = _texts(text)
    except (ValueError, RecursionError):
        return
    assert "abb" not in "\0".join(_texts(filtered)), "a match is let through"
    assert "abb" in "\0".join(read) or filtered == text, "it was changed for nothing"


def _texts(text: str) -> list[str]:
    """Return the names, strings and numbers of a JSON text, as they are written."""
    found: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, list | tuple):
            for inner in value:
                collect(inner)
        else:
            found.append(str(value))

    collect(json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=list))
    return found


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "http answer": http_answer,
    "sse": sse,
    "reply stream": reply_stream,
    "reply json": reply_json,
    "anthropic stream": partial(reply_stream, make=AnthropicReader),
    "anthropic json": partial(reply_json, make=AnthropicReader),
    "event stream": event_stream,
    "bedrock stream": bedrock_stream,
    "bedrock json": partial(reply_json, make=BedrockReader),
    "cohere stream": partial(reply_stream, make=CohereReader),
    "cohere json": partial(reply_json, make=CohereReader),
    "gemini stream": partial(reply_stream, make=GeminiReader),
    "gemini json": partial(reply_json, make=GeminiReader),
    "responses stream": partial(reply_stream, make=ResponsesReader),
    "responses json": partial(reply_json, make=ResponsesReader),
    "model list": model_list,
    "refusal": refusal,
    "body": body,
    "page token": page,
    "token": token,
    "key set": key_set,
    "access token": access_token,
    "header": header,
    "target": target,
    "guard": guard,
    "guarded json": guarded_json,
}
"""The targets by name."""
