"""Tests of why a provider rejected a request."""

import json
from typing import Any

import pytest

from antiphon.domain.errors import ProviderCredentials, ProviderRejected, ProviderUnavailable, Rejection
from antiphon.providers.failure import error_of_payload, error_of_status, explain

UNCHANGED = "`thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. These blocks must remain"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "context_length_exceeded", "message": "This model's maximum ..."}, Rejection.TOO_LONG),
        ({"type": "invalid_request_error", "message": "prompt is too long: 212000 tokens > 200000 maximum"}, Rejection.TOO_LONG),
        (
            {"status": "INVALID_ARGUMENT", "message": "The input token count (1200000) exceeds the maximum number"},
            Rejection.TOO_LONG,
        ),
        ({"message": "Input is too long for requested model."}, Rejection.TOO_LONG),
        ({"code": "content_filter", "message": "The response was filtered"}, Rejection.REFUSED),
        ({"code": "cyber_policy", "message": "This request was flagged."}, Rejection.REFUSED),
        ({"message": "blocked output: this generation may be a potential violation"}, Rejection.REFUSED),
        ({"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}, Rejection.REFUSED),
        ({"message": "messages.1.content.0: Invalid `signature` in `thinking` block"}, Rejection.STATE),
        ({"message": f"messages.1.content.2: {UNCHANGED}"}, Rejection.STATE),
        ({"code": "invalid_encrypted_content", "message": "..."}, Rejection.STATE),
        ({"message": "The encrypted content gAAA... could not be verified."}, Rejection.STATE),
        ({"message": "temperature must be at most 2", "param": "temperature"}, Rejection.INVALID),
        ({"message": "My essay says: prompt is too long, is it?"}, Rejection.INVALID),
        ({}, Rejection.INVALID),
    ],
)
def test_a_rejection_has_a_reason(error: dict[str, Any], expected: Rejection) -> None:
    """Codes and the starts of known messages say why a request was rejected; a message that only contains such words does not."""
    found = error_of_status("p", 400, {}, json.dumps({"error": error}).encode())
    assert isinstance(found, ProviderRejected)
    assert found.rejection is expected
    inside = error_of_payload("p", {"error": {"status": 400, **error}})
    assert isinstance(inside, ProviderRejected)
    assert inside.rejection is expected


@pytest.mark.parametrize(
    "message",
    [
        "This endpoint's maximum context length is 131072 tokens. However, you requested about 200000 tokens",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        "The prompt is too long: 131073, model maximum context length: 131072",
        "The model returned the following errors: prompt is too long: 203454 tokens > 200000 maximum",
        "The model returned the following errors: Input is too long for requested model.",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
        "Unable to submit request because the input token count is 1200000 but model only supports up to 1048576.",
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is",
        "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context length is 4096 tokens",
        "You passed 5000 input tokens and requested 100 output tokens. However, the model's context length is only 4096 tokens",
        "Input length (265330) exceeds model's maximum context length (262144).",
        "Requested token count exceeds the model's maximum context length of 131072 tokens. You requested a total of",
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 4000 `inputs` tokens and 200",
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
        "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
        "The number of tokens to keep from the initial prompt is greater than the context length. Try to load the model",
        "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of",
        "prompt too long; exceeded max context length by 904 tokens",
        "the input length exceeds the context length",
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 98304]",
        "Invalid request: Your request exceeded model token limit: 131072 (requested: 150000)",
        "invalid params, context window exceeds limit (2013)",
        "prompt token count of 70000 exceeds the limit of 64000",
    ],
)
def test_every_host_has_words_of_its_own_for_too_long(message: str) -> None:
    """A host that sends no code for it is recognised by how its message begins; the same words quoted later say nothing."""

    def rejection(text: str) -> Rejection:
        found = error_of_status("p", 400, {}, json.dumps({"error": {"message": text, "type": "invalid_request_error"}}).encode())
        assert isinstance(found, ProviderRejected)
        return found.rejection

    assert rejection(message) is Rejection.TOO_LONG
    assert rejection(f"messages[0]: {message}") is Rejection.INVALID


@pytest.mark.parametrize("status", [500, None])
def test_a_request_that_is_too_long_is_no_failure_of_the_host(status: int | None) -> None:
    """Some hosts answer 500, or in their stream, to what is too long; it must not count against them."""
    error = {"message": "the request exceeds the available context size, try increasing it", "type": "server_error"}
    body = json.dumps({"error": error}).encode()
    found = error_of_payload("p", error) if status is None else error_of_status("p", status, {}, body)
    assert isinstance(found, ProviderRejected)
    assert found.rejection is Rejection.TOO_LONG
    assert isinstance(error_of_payload("p", {**error, "message": "out of memory"}), ProviderUnavailable)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("prompt is too long: 213462 tokens > 200000 maximum", Rejection.TOO_LONG),
        ("messages.1.content.0: Invalid `signature` in `thinking` block", Rejection.STATE),
        ("temperature: range: 0..1", Rejection.INVALID),
    ],
)
def test_a_host_that_asks_another_one_passes_its_words_on(message: str, expected: Rejection) -> None:
    """OpenRouter has the other host's answer in a field, as JSON or text, and Bedrock its message behind a prefix."""
    answer = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message}})
    for error in (
        {"message": "Provider returned error", "code": 400, "metadata": {"raw": answer, "provider_name": "Anthropic"}},
        {"message": "Provider returned error", "code": 400, "metadata": {"raw": message}},
        {"message": f"The model returned the following errors: {message}"},
    ):
        found = error_of_status("p", 400, {}, json.dumps({"error": error}).encode())
        assert isinstance(found, ProviderRejected)
        assert found.rejection is expected


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "Invalid prompt: your prompt was flagged as potentially ...", "code": "invalid_prompt"}}),
        (400, {"error": {"message": "Your request was rejected as a result of our safety system.", "code": "moderation_blocked"}}),
        (400, {"error": {"message": "Output blocked by content filtering policy", "type": "invalid_request_error"}}),
        (400, {"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}),
        (400, {"error": {"message": "System detected potentially unsafe or sensitive content in input.", "code": "1301"}}),
        (403, {"error": {"code": 403, "message": "x requires moderation", "metadata": {"reasons": ["x"], "flagged_input": "x"}}}),
        (403, {"code": "The caller does not have permission", "error": "Content violates usage guidelines. Team: team-1, API ..."}),
    ],
)
def test_a_content_filter_is_recognised_whatever_its_status(status: int, body: dict[str, Any]) -> None:
    """What a filter rejected is `refused`, also with 403: it says nothing about the gateway's key, or the next request."""
    raw = json.dumps(body).encode()
    found = error_of_status("p", status, {}, raw)
    assert isinstance(found, ProviderRejected)
    assert found.rejection is Rejection.REFUSED
    explain(found, raw, ())
    assert "team-1" not in (found.explanation or ""), "text with 403 may name the gateway's account"


def test_a_404_for_what_is_in_one_request_is_about_that_request() -> None:
    """State that a provider does not have, and a feature that a model lacks: the next request may be answered."""
    gone = {"message": "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false. Try", "param": "input"}
    lacks = {"message": "No endpoints found that support image input", "code": 404}
    for body, expected in ((gone, Rejection.STATE), (lacks, Rejection.UNSUPPORTED)):
        found = error_of_status("p", 404, {}, json.dumps({"error": body}).encode())
        assert isinstance(found, ProviderRejected)
        assert found.rejection is expected
    missing = error_of_status("p", 404, {}, json.dumps({"error": {"message": "No endpoints found for x.", "code": 404}}).encode())
    assert isinstance(missing, ProviderCredentials)


def test_a_request_that_is_too_long_has_the_code_that_clients_know() -> None:
    """Whatever the host calls it, the code is OpenAI's."""
    body = json.dumps({"error": {"message": "prompt is too long: 3 tokens > 2 maximum"}}).encode()
    assert error_of_status("p", 400, {}, body).code == "context_length_exceeded"


def test_an_account_that_is_not_paid_for_is_about_the_credentials() -> None:
    """402 is a failure of the gateway's account."""
    assert isinstance(error_of_status("p", 402, {}, b""), ProviderCredentials)
