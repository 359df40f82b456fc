"""Tests of what a provider's errors mean."""

import json
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    Rejection,
)
from antiphon.providers.failure import EXPLANATION_CHARACTERS, error_of_payload, error_of_status, explain, log_refusal


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, ProviderUnavailable),
        (400, ProviderRejected),
        (401, ProviderCredentials),
        (402, ProviderCredentials),
        (403, ProviderCredentials),
        (404, ProviderCredentials),
        (408, ProviderTimeout),
        (413, ProviderRejected),
        (418, ProviderUnavailable),
        (422, ProviderRejected),
        (429, ProviderRateLimited),
        (500, ProviderUnavailable),
        (502, ProviderUnavailable),
        (503, ProviderUnavailable),
        (504, ProviderTimeout),
        (529, ProviderUnavailable),
    ],
)
def test_statuses(status: int, kind: type[ProviderError]) -> None:
    """Each status becomes one class of error and is kept; the message has none of the provider's text."""
    error = error_of_status("acme", status, {}, b'{"error": {"message": "secret words", "code": "secret_code"}}')
    assert type(error) is kind
    assert (error.status, error.provider, error.code) == (status, "acme", None)
    assert "secret" not in error.message


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *((status, False) for status in (301, 302, 307, 400, 401, 402, 403, 404, 405, 410, 413, 418, 422, 451, 501, 505)),
        *((status, True) for status in (408, 409, 425, 429, 498, 500, 502, 503, 504, 529)),
    ],
)
def test_a_permanent_failure_is_not_retryable(status: int, retryable: bool) -> None:
    """A status that would be the same again, such as a redirect or a lack of credit, is not retryable."""
    assert error_of_status("acme", status, {}, b"").retryable is retryable


def test_a_blocked_reply_is_a_refusal() -> None:
    """What Cohere blocks is blocked again; Groq has the same status for a lack of capacity."""
    error = error_of_status("acme", 498, {}, b'{"message": "blocked output: this generation may be a potential violation"}')
    assert isinstance(error, ProviderRejected)
    assert error.rejection is Rejection.REFUSED
    assert not error.retryable


@pytest.mark.parametrize("fields", [{"code": "insufficient_quota"}, {"type": "insufficient_quota", "code": None}])
def test_a_quota_that_is_used_up_is_not_worth_a_retry(fields: dict[str, str | None]) -> None:
    """A used-up quota is a rate limit that is not retryable, in a stream too."""
    for error in (error_of_status("acme", 429, {}, orjson.dumps({"error": fields})), error_of_payload("acme", {"error": fields})):
        assert type(error) is ProviderRateLimited
        assert not error.retryable
    assert error_of_status("acme", 429, {}, orjson.dumps({"error": {"code": "rate_limit_exceeded"}})).retryable


def test_only_safe_codes_are_given_to_callers() -> None:
    """A code is given to the caller only if it is on the allow-list."""
    body = b'{"error": {"message": "m", "code": "context_length_exceeded"}}'
    error = error_of_status("acme", 400, {}, body)
    assert error.code == "context_length_exceeded"
    assert error.message == "The provider acme refused the request: context_length_exceeded."
    for code in (b'"internal_10.0.0.1"', b'{"a": 1}', b"17", b"null"):
        assert error_of_status("acme", 400, {}, b'{"error": {"code": ' + code + b"}}").code is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b'{"error": "text"}', b'{"detail": "text"}', b"\xff\xfe"])
def test_bodies_of_any_shape(body: bytes) -> None:
    """A body that is not an error object changes nothing."""
    assert type(error_of_status("acme", 422, {}, body)) is ProviderRejected


def test_bad_key_with_status_400() -> None:
    """A 400 whose error code is about the key is `ProviderCredentials`, also in the list that Google's hosts send."""
    for body in (b'{"error": {"code": "invalid_api_key"}}', b'[{"error": {"code": 400, "status": "UNAUTHENTICATED"}}]'):
        assert type(error_of_status("acme", 400, {}, body)) is ProviderCredentials


@pytest.mark.parametrize(
    "body",
    [
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."},
        },
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "You have reached your specified API usage limits."},
        },
        {"error": {"type": "invalid_request_error", "message": "This organization has been disabled."}},
        [
            {
                "error": {
                    "code": 400,
                    "message": "It is not valid.",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
                }
            }
        ],
        {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}},
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***ey."},
        {"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."},
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"},
        {"error": {"message": "The model `x` has been decommissioned.", "code": "model_decommissioned"}},
        {"error": {"message": "acme/x is not a valid model ID", "code": 400}},
        {"error": {"message": "The model `x` does not exist.", "code": "model_not_found"}},
        {"error": {"code": 400, "message": "User location is not supported for the API use.", "status": "FAILED_PRECONDITION"}},
        {"message": "The provided model identifier is invalid.", "type": "ValidationException"},
        {
            "message": "Invocation of model ID a.b-v1:0 with on-demand throughput isn\u2019t supported.",
            "type": "ValidationException",
        },
    ],
    ids=str,
)
def test_a_400_about_the_key_the_account_or_the_model_is_the_gateways(body: object) -> None:
    """A 400 about the key, the account or the model is `ProviderCredentials`, by its code or the beginning of its message.

    The caller gets none of the text.
    """
    error = error_of_status("acme", 400, {}, orjson.dumps(body))
    explain(error, orjson.dumps(body), ())
    assert type(error) is ProviderCredentials
    assert type(error_of_payload("acme", body[0] if isinstance(body, list) else {**body, "status": 400})) is ProviderCredentials
    assert "balance" not in error.message


def test_a_model_that_bedrock_does_not_have() -> None:
    """AWS has no word for it, only a message."""
    error = error_of_status(
        "acme", 400, {"x-amzn-errortype": "ValidationException"}, b'{"message":"The provided model identifier is invalid."}'
    )
    assert isinstance(error, ProviderCredentials)
    assert error.is_about_model


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Invalid value: 'Incorrect API key provided'.", "type": "invalid_request_error"}},
        {"error": {"message": "Invalid API key.", "type": "invalid_request_error", "param": "tools[0].function.name"}},
        {"detail": [{"loc": ["body", "api key is"], "msg": "Extra inputs are not permitted"}]},
        {"error": {"message": "Unrecognized request argument supplied: api_key"}},
        {"error": {"message": "api_key: Extra inputs are not permitted"}},
        {"error": {"message": "Invalid token 50300 in logit_bias"}},
    ],
    ids=str,
)
def test_a_callers_words_about_keys_are_about_the_request(body: object) -> None:
    """An error that quotes a caller's text about keys stays `ProviderRejected`, so that it cannot make a valid key look invalid."""
    assert type(error_of_status("acme", 400, {}, orjson.dumps(body))) is ProviderRejected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 999) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "msg", "detail", "details", "loc", "param", "code", "type", "status", "reason"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(body=JSON, status=st.sampled_from([200, 400, 401, 404, 413, 422, 429, 500]))
def test_an_error_object_of_any_shape_is_an_error_of_ours(body: Any, status: int) -> None:
    """Any JSON gives a `ProviderError` and no other exception."""
    data = orjson.dumps(body)
    for error in (error_of_status("acme", status, {}, data), error_of_payload("acme", body)):
        explain(error, data, ("open-sesame",))
        assert isinstance(error, ProviderError)
        if isinstance(error, ProviderRejected):
            assert error.explanation is None or 0 < len(error.explanation) <= EXPLANATION_CHARACTERS


REFUSALS: dict[str, tuple[object, tuple[str | None, str | None, str | None]]] = {
    "OpenAI": (
        {
            "error": {
                "message": "Too long.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
        },
        ("Too long.", "context_length_exceeded", "messages"),
    ),
    "Azure": (
        {
            "error": {
                "message": "Filtered.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {},
            }
        },
        ("Filtered.", "content_filter", "prompt"),
    ),
    "Anthropic": (
        {"type": "error", "error": {"type": "invalid_request_error", "message": "messages.0: no"}, "request_id": "req_1"},
        ("messages.0: no", None, None),
    ),
    "Google": (
        [{"error": {"code": 400, "message": "Bad contents.", "status": "INVALID_ARGUMENT"}}],
        ("Bad contents.", None, None),
    ),
    "vLLM": (
        {"object": "error", "message": "Too long.", "type": "BadRequestError", "param": None, "code": 400},
        ("Too long.", None, None),
    ),
    "Mistral": (
        {
            "object": "error",
            "message": {
                "detail": [{"type": "extra_forbidden", "loc": ["body", "messages", 0, "x"], "msg": "No extras", "input": 1}]
            },
            "type": "invalid_request_error",
            "code": None,
        },
        ("messages[0].x: No extras", None, "messages[0].x"),
    ),
    "FastAPI": (
        {"detail": [{"loc": ["body", "n"], "msg": "Too many"}, {"loc": ["body", "stop"], "msg": "Too long"}]},
        ("n: Too many; stop: Too long", None, "n"),
    ),
    "FastAPI's text": ({"detail": "No."}, ("No.", None, None)),
    "Ollama": ({"error": "invalid options: x"}, ("invalid options: x", None, None)),
    "xAI": ({"code": "invalid-argument", "error": "No."}, ("No.", "invalid-argument", None)),
    "Cohere": ({"message": "invalid request", "id": "x"}, ("invalid request", None, None)),
    "Cloudflare": ({"errors": [{"message": "No.", "code": 5006}], "success": False}, ("No.", None, None)),
    "a number": ({"error": {"message": 7, "code": 7, "param": 7}}, (None, None, None)),
    "private": (
        {"error": {"message": "open-sesame at gpu.internal", "code": "open-sesame", "param": "gpu.internal"}},
        ("[redacted] at [redacted]", None, None),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_a_provider_says_of_the_request(name: str, status: int) -> None:
    """Message, code and param are read from every known form of error, without private text."""
    body, expected = REFUSALS[name]
    error = error_of_status("acme", status, {}, orjson.dumps(body))
    explain(error, orjson.dumps(body), ("open-sesame",))
    assert isinstance(error, ProviderRejected)
    assert (error.explanation, error.code, error.param) == expected
    assert not error.retryable


@pytest.mark.parametrize(
    "body", [b"", b"<html>No</html>", b"text", b"[]", b"7", b"\xff", b'{"error": {}}', b'{"error": ' + b"[" * 900]
)
def test_an_unknown_body_gives_no_explanation(body: bytes) -> None:
    """A body that is not the API's, such as a web page, gives no explanation, because it may come from a proxy on the way."""
    error = error_of_status("acme", 400, {}, body)
    explain(error, body, ())
    assert isinstance(error, ProviderRejected)
    assert (error.explanation, error.code, error.param) == (None, None, None)


def test_an_explanation_is_1000_characters_at_most() -> None:
    """An explanation is cut to 1,000 characters after private text is removed, so that no secret is cut in two."""
    body = orjson.dumps({"error": {"message": "x" * 5 + " " + "y " * 490 + "open-sesame-and-more " * 9}})
    error = error_of_status("acme", 400, {}, body)
    explain(error, body, ("open-sesame-and-more",))
    assert isinstance(error, ProviderRejected)
    assert error.explanation is not None
    assert len(error.explanation) == EXPLANATION_CHARACTERS == 1000
    assert "open" not in error.explanation


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_other_failures_have_none_of_the_providers_text(status: int) -> None:
    """Other errors have none of the provider's text, code or param."""
    body = orjson.dumps({"error": {"message": "secret words", "code": "secret_code", "param": "secret"}})
    error = error_of_status("acme", status, {}, body)
    explain(error, body, ())
    assert "secret" not in str(vars(error))


def test_what_google_says_of_a_retry() -> None:
    """The wait stands in the body, unless a header has it; a quota of a day is not worth one."""

    def error(*details: object, headers: dict[str, str] | None = None) -> ProviderError:
        body = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}
        return error_of_status("acme", 429, headers or {}, json.dumps(body).encode())

    assert error({"retryDelay": "34.5s"}).retry_after == 34.5
    assert error({"retryDelay": "34.5s"}, headers={"retry-after": "9"}).retry_after == 9
    assert error({"retryDelay": "999999999s"}).retry_after == 24 * 3600
    for odd in ({"retryDelay": "-1s"}, {"retryDelay": 3}, {"retryDelay": "soon"}, "x", {}):
        assert error(odd).retry_after == 1.0
    assert error_of_payload("acme", {"error": {"code": 503, "details": [{"retryDelay": "2s"}]}}).retry_after == 2
    assert not error({"violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}, {"retryDelay": "3s"}).retryable
    for several in ([{"quotaId": "GenerateRequestsPerMinute"}], 1, [1], None):
        assert error({"violations": several}).retryable


def test_waits_of_errors() -> None:
    """A rate limit always has a time to wait, 1 second by default. An overload has the one that was sent, and a rejection none."""
    assert error_of_status("acme", 429, {}, b"").retry_after == 1.0
    assert error_of_status("acme", 429, {"retry-after": "9"}, b"").retry_after == 9
    assert error_of_status("acme", 503, {"retry-after": "9"}, b"").retry_after == 9
    assert error_of_status("acme", 503, {}, b"").retry_after is None
    assert error_of_status("acme", 400, {"retry-after": "9"}, b"").retry_after is None


@pytest.mark.parametrize(
    ("payload", "kind", "status"),
    [
        ({"code": 429}, ProviderRateLimited, 429),
        ({"code": "429"}, ProviderRateLimited, 429),
        ({"code": "rate_limit_exceeded", "type": "tokens"}, ProviderRateLimited, None),
        ({"type": "insufficient_quota"}, ProviderRateLimited, None),
        ({"status": "RESOURCE_EXHAUSTED"}, ProviderRateLimited, None),
        ({"code": "invalid_api_key", "type": "invalid_request_error"}, ProviderCredentials, None),
        ({"code": 401}, ProviderCredentials, 401),
        ({"type": "authentication_error"}, ProviderCredentials, None),
        ({"type": "invalid_request_error"}, ProviderRejected, None),
        ({"type": "request_too_large"}, ProviderRejected, None),
        ({"type": "BadRequestError", "code": 400, "object": "error"}, ProviderRejected, 400),
        ({"code": "context_length_exceeded"}, ProviderRejected, None),
        ({"code": 502, "message": "upstream"}, ProviderUnavailable, 502),
        ({"type": "server_error"}, ProviderUnavailable, None),
        ({"status_code": 504}, ProviderTimeout, 504),
        ({"error": {"code": 429}}, ProviderRateLimited, 429),
        ({"code": True}, ProviderUnavailable, None),
        ("text", ProviderUnavailable, None),
        (["a"], ProviderUnavailable, None),
    ],
)
def test_payloads(payload: object, kind: type[ProviderError], status: int | None) -> None:
    """An error object in a 200 is classified by its status, then by its code and type."""
    error = error_of_payload("acme", payload)
    assert (type(error), error.status) == (kind, status)


def test_the_log_has_the_providers_text_redacted_and_cut() -> None:
    """The provider's text is logged at the level debug only, without keys and with at most 500 characters."""
    with structlog.testing.capture_logs() as logs:
        log_refusal("acme", 401, b"no: open-sesame, sk-123456789012 \xff" + b"." * 600, ("open-sesame",))
    line, text = logs
    assert line == {"event": "provider_error", "log_level": "warning", "provider": "acme", "status": 401, "size": 634}
    assert (text["event"], text["log_level"], len(text["body"])) == ("provider_error_body", "debug", 500)
    assert text["body"].startswith("no: [redacted], [redacted] \ufffd...")


def test_the_log_has_no_text_of_the_request() -> None:
    """The log line has type, code and param if they are single words, and never the message, which may quote the request."""
    error = {"message": "my secret diary", "type": "invalid_request_error", "code": 17, "param": "messages[0].content"}
    with structlog.testing.capture_logs() as logs:
        log_refusal("acme", 400, orjson.dumps({"error": error}), ())
        log_refusal(
            "acme",
            400,
            orjson.dumps({"error": {"code": "my secret diary", "param": ["secret"], "type": "open-sesame"}}),
            ("open-sesame",),
        )
    first, second = (line for line in logs if line["log_level"] != "debug")
    assert (first["type"], first["code"], first["param"]) == ("invalid_request_error", "17", "messages[0].content")
    assert second["type"] == "[redacted]"
    assert not {"code", "param"} & second.keys()
    assert "secret" not in str(first) + str(second)


@pytest.mark.parametrize(
    ("status", "advice", "expected"),
    [
        (529, None, True),
        (529, "false", False),
        (500, "maybe", True),
        (418, "true", True),
        (429, "false", False),
        (400, "true", False),
    ],
)
def test_advice_to_retry(status: int, advice: str | None, expected: bool) -> None:
    """The header counts, unless the request itself is refused."""
    headers = {} if advice is None else {"x-should-retry": advice}
    assert error_of_status("acme", status, headers, b"{}").retryable is expected


def test_a_spend_limit() -> None:
    """Anthropic's spend limit is told like a rate limit, but a retry is useless."""
    error = {"type": "rate_limit_error", "message": "x", "details": {"error_code": "enforced_spend_limit_reached"}}
    made = error_of_status("acme", 429, {}, orjson.dumps({"type": "error", "error": error}))
    assert type(made) is ProviderRateLimited
    assert not made.retryable


@pytest.mark.parametrize("in_body", [True, False], ids=["body", "header"])
@pytest.mark.parametrize(
    ("name", "status", "kind", "retryable"),
    [
        ("ValidationException", 400, ProviderRejected, False),
        ("ThrottlingException", 400, ProviderRateLimited, True),
        ("ServiceQuotaExceededException", 400, ProviderRateLimited, False),
        ("ExpiredTokenException", 400, ProviderCredentials, False),
        ("ResourceNotFoundException", 404, ProviderCredentials, False),
        ("ModelErrorException", 424, ProviderUnavailable, True),
    ],
)
def test_names_of_aws(in_body: bool, name: str, status: int, kind: type[ProviderError], retryable: bool) -> None:
    """AWS names an error in a header or in the body, each with an address or a name space."""
    headers = {} if in_body else {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/"}
    body = {"message": "why", **({"__type": f"com.amazon.coral.service#{name}"} if in_body else {})}
    error = error_of_status("p", status, headers, json.dumps(body).encode())
    assert type(error) is kind
    assert error.retryable is retryable
    explain(error, json.dumps(body).encode(), ())
    assert getattr(error, "explanation", None) == ("why" if kind is ProviderRejected else None)
