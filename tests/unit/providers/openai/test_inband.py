"""Tests of errors inside an answer with status 200, in the forms of different hosts."""

import json
from typing import Any

import pytest

from antiphon.domain.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from antiphon.domain.events import TextDelta
from antiphon.domain.request import ChatRequest
from antiphon.providers.openai.inband import error_in
from antiphon.providers.openai.response import OpenAIReader
from tests.odd_upstream import delta, sse

ERRORS: dict[str, tuple[dict[str, Any], type[ProviderError]]] = {
    "vLLM": ({"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, ProviderRejected),
    "type": ({"type": "error", "message": "m", "code": "rate_limit_exceeded"}, ProviderRateLimited),
    "type of an object": ({"type": "error", "error": {"type": "rate_limit_error", "message": "m"}}, ProviderRateLimited),
    "code": ({"message": "m", "code": 429}, ProviderRateLimited),
    "code as text": ({"message": "m", "code": "503"}, ProviderUnavailable),
    "word": ({"code": "InvalidApiKey", "message": "m", "request_id": "r"}, ProviderUnavailable),
    "status": ({"message": "m", "status": 401}, ProviderCredentials),
    "type of the error": ({"message": "m", "type": "timeout_error"}, ProviderTimeout),
    "MiniMax": ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "m"}}, ProviderRateLimited),
    "MiniMax, balance": ({"id": "x", "base_resp": {"status_code": 1008, "status_msg": "m"}}, ProviderCredentials),
    "MiniMax, unknown": ({"id": "x", "choices": [], "base_resp": {"status_code": 1, "status_msg": "m"}}, ProviderUnavailable),
}


@pytest.mark.parametrize(("error", "expected"), ERRORS.values(), ids=ERRORS)
def test_errors(error: dict[str, Any], expected: type[ProviderError]) -> None:
    """Each is a failure of its kind: at the beginning, behind output, and in the place of a whole reply."""
    for events in ((error,), (delta("a"), error)):
        reader = OpenAIReader(ChatRequest("m", (), stream=True), "acme")
        with pytest.raises(ProviderError) as raised:
            assert TextDelta(0, "a") in reader.feed(sse(*events))
            assert reader.failure is not None
            raise reader.failure
        assert type(raised.value) is expected
    reader = OpenAIReader(ChatRequest("m", (), stream=False), "acme")
    with pytest.raises(expected):
        reader.read_object(json.dumps(error).encode())
    assert reader.error_body


@pytest.mark.parametrize(
    "chunk",
    [
        {"message": "loading the model", "type": "status"},
        {"message": "loading", "code": 200},
        {"message": "loading", "code": "0"},
        {"detail": "x"},
        {"id": "x", "message": "m", "code": 500},
        {"usage": {}, "message": "m", "code": 500},
        {"choices": [], "message": "m", "code": 500},
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"sources": []},
    ],
)
def test_what_is_no_error(chunk: dict[str, Any]) -> None:
    assert error_in(chunk) is None
