"""A chat of the engine dialect, converted to a domain request.

The specification is the one that `antiphon.rest.engine.servicer` names.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec.structs import replace
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from antiphon import domain
from antiphon.rest.openai import request as openai
from antiphon.rest.shared.body import Fields, Path, option_path, renaming, validate

PARAMETERS: Final = (
    {"id": "temperature", "name": "Temperature", "type": "float", "default": 1, "min": 0, "max": 2, "step": 0.01},
    {"id": "max_tokens", "name": "Maximum length", "type": "int", "default": 2048, "min": 1, "max": 4096, "step": 1},
    {"id": "top_p", "name": "Top P", "type": "float", "default": 1, "min": 0, "max": 1, "step": 0.01},
    {"id": "frequency_penalty", "name": "Frequency Penalty", "type": "float", "default": 0, "min": -2, "max": 2, "step": 0.01},
    {"id": "presence_penalty", "name": "Presence Penalty", "type": "float", "default": 0, "min": -2, "max": 2, "step": 0.01},
)
"""The parameters that the document lists. The `max` of `max_tokens` is meant for sliders; more may be requested."""

DEFAULTS: Final[domain.JsonObject] = {str(parameter["id"]): parameter["default"] for parameter in PARAMETERS}

_RESERVED: Final = frozenset({"api_key", "model", "messages", "stream", "stream_options", "session_id", "max_output_tokens"})
"""Names that the parameters cannot set. The 0.3 clients send `max_output_tokens` beside `max_tokens`, always with the same
value."""

_UNUSED: Final = frozenset({"api_endpoint", "api_version", "base_url", "region", "access_key", "secret_key"})


def none_if_unset(value: object) -> object:
    """Return None for null, an empty text and the text "None", with which the clients leave a field unset; else the value."""
    return None if value in ("None", "") else value


def key_from_object(raw: Mapping[str, Any]) -> object:
    """Return the API key of a parsed body, of whatever type; None if it has none."""
    parameters = raw.get("parameters")
    key = none_if_unset(raw.get("api_key"))
    return none_if_unset(parameters.get("api_key")) if key is None and isinstance(parameters, dict) else key


_NULL: Final = msgspec.Raw(b"null")


class _Parameters(msgspec.Struct):
    api_key: msgspec.Raw = _NULL


class _Keys(msgspec.Struct):
    """The two fields of a body that may hold a key, not decoded. All other fields are skipped, and create no objects."""

    api_key: msgspec.Raw = _NULL
    parameters: msgspec.Raw = _NULL


_keys: Final = msgspec.json.Decoder(_Keys)
_parameters: Final = msgspec.json.Decoder(_Parameters)
_key: Final = msgspec.json.Decoder(str)


def key_from_json(data: bytes) -> str | None:
    """Return the API key of a body, as `key_from_object` does, and decode nothing else; None if it has none that is a text.

    For bodies of at most `MAX_KEYLESS_BYTES`, which take 1 ms: it runs before the caller is known.
    """
    try:
        fields = _keys.decode(data)
        raw = fields.api_key
        if _is_unset(raw) and bytes(memoryview(fields.parameters)[:1]) == b"{":
            raw = _parameters.decode(fields.parameters).api_key
        return None if _is_unset(raw) else _key.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _is_unset(raw: msgspec.Raw) -> bool:
    return bytes(memoryview(raw)[:6]) in (b"null", b'"None"', b'""')


def _check_printable(key: SecretStr | None) -> SecretStr | None:
    """Return the key. Raises `ValueError` if it has other than printable ASCII characters: it becomes a header."""
    text = "" if key is None else key.get_secret_value()
    if not all("\x21" <= character <= "\x7e" for character in text):
        raise ValueError("must be of printable characters")
    return key


class EngineChatBody(Fields):
    """The body of a chat. Types are not strict: the clients send values such as "False"."""

    model_config = ConfigDict(strict=False)

    model: str = Field(min_length=1)
    chat_input: str | list[dict[str, Any]]
    api_key: Annotated[SecretStr | None, BeforeValidator(none_if_unset), AfterValidator(_check_printable)] = None
    parameters: Annotated[dict[str, Any] | None, BeforeValidator(none_if_unset)] = None
    is_stream: Annotated[bool | None, BeforeValidator(none_if_unset)] = None
    has_end_token: Annotated[bool | None, BeforeValidator(none_if_unset)] = None
    session_id: str | None = None
    retries: int | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _copy_key_from_parameters(cls, raw: object) -> object:
        """Copy a key from the parameters to `api_key`.

        The asynchronous 1.x client can send a key only in the parameters, which are passed on and repeated.
        """
        if isinstance(raw, dict) and (key := key_from_object(raw)) is not None:
            return {**raw, "api_key": key}
        return raw

    @property
    def is_1x(self) -> bool:
        """Return whether a 1.x client sent the body. Such a client reads a stream of chunk objects, and has no default parameters.

        The 1.x clients send `retries`. The 0.3 clients always send a `session_id`.
        """
        return "retries" in self.model_fields_set and "session_id" not in self.model_fields_set


class EngineCompletionBody(openai.ChatCompletionBody):
    """The same chat as a chat completion. Its types are not strict either."""

    model_config = ConfigDict(strict=False)


class EngineChat:
    """The parts of a request that its answer repeats."""

    def __init__(self, body: EngineChatBody, provider: str) -> None:
        sent_parameters = dict(body.parameters or {})
        if body.is_1x:  # unknown fields of a 1.x body are parameters as well
            sent_parameters = {
                name: value for name, value in (body.model_extra or {}).items() if name not in _UNUSED
            } | sent_parameters
        if "max_tokens" not in sent_parameters and "max_output_tokens" in sent_parameters:
            sent_parameters["max_tokens"] = sent_parameters["max_output_tokens"]
        self.sent_parameters = {name: value for name, value in sent_parameters.items() if name not in _RESERVED}
        self.id = str(uuid.uuid4())
        self.provider = provider
        self.model = body.model
        self.session_id = body.session_id
        self.has_functions = body.functions is not None
        self._is_text = isinstance(body.chat_input, str)
        self.context = [{"role": "user", "content": body.chat_input}] if isinstance(body.chat_input, str) else body.chat_input
        self.chat_input = self.context[-1].get("content") if self.context else None
        defaults = {} if body.is_1x else dict(DEFAULTS)
        if self.sent_parameters.get("max_completion_tokens") is not None:  # it replaces max_tokens; no model accepts both
            defaults.pop("max_tokens", None)
        self.parameters = defaults | self.sent_parameters

    def model_name(self, started: domain.Started) -> str:
        """Return the model's name as the caller wrote it if the provider only adds a version to it, else the provider's name."""
        return self.model if not started.model or started.model.startswith(self.model) else started.model

    def path(self, path: Path) -> Path:
        """Return the path in this dialect's body of a field of the chat completion or of the domain request."""
        match path := option_path(path):
            case ("messages", *inner):
                return ("chat_input",) if self._is_text else ("chat_input", *inner)
            case (str(name), *_) if name in self.parameters:
                return ("parameters", *path)
            case _:
                return path


def request_from_body(body: EngineChatBody, chat: EngineChat) -> domain.ChatRequest:
    """Return the domain request, made by way of a chat completion, with the parameters as fields. Raises `InvalidRequest`.

    Of the default parameters only `max_tokens` is sent: the others are the providers' own defaults, and some models refuse them.
    """
    sent = {name: value for name, value in chat.parameters.items() if name in chat.sent_parameters or name == "max_tokens"}
    functions = [{"type": "function", "function": function} for function in body.functions or ()]
    choice = body.tool_choice
    if isinstance(body.function_call, dict):
        choice = {"type": "function", "function": body.function_call}
    elif body.function_call is not None:
        choice = body.function_call
    fields = {"tools": [*functions, *(body.tools or ())] or None, "tool_choice": choice, "response_format": body.response_format}
    sent |= {name: value for name, value in fields.items() if value is not None}
    with renaming(chat.path):
        completion = validate({**sent, "model": body.model, "messages": chat.context}, EngineCompletionBody)
        chat_request = openai.request_from_body(completion, stream=True)
    return replace(chat_request, provider=chat.provider, known_fields=True)
