"""What a provider said, without its secrets."""

import pytest

from antiphon.redaction import REDACTED, redact


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Incorrect API key provided: sk-abcd1234efgh5678.", "sk-abcd1234efgh5678"),
        ("Incorrect API key provided: sk-proj-ab*****************wxyz.", "wxyz"),
        ("the key gsk_1234567890abcdef is", "gsk_1234567890abcdef"),
        ("xai-0123456789abcdef", "0123456789abcdef"),
        ("key AIzaSyA1234567890abcdefghijk", "AIzaSyA1234567890"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ('{"authorization": "Basic dXNlcjpwYXNz"}', "dXNlcjpwYXNz"),
        ("GET https://user:hunter2@10.0.0.1/v1 failed", "hunter2"),
        ("POST https://host/v1?key=topsecretvalue&x=1", "topsecretvalue"),
        ('{"api_key": "plain-value-7"}', "plain-value-7"),
        ("x-api-key: plain-value-7", "plain-value-7"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJzdWIiOiIxIn0"),
        ("0123456789abcdef0123456789abcdef", "0123456789abcdef"),
        ("token QWxhZGRpbjpvcGVuIHNlc2FtZSBhbmQgbW9yZSBvZiBpdA==", "QWxhZGRpbjpvcGVu"),
    ],
)
def test_what_is_shaped_like_a_secret(text: str, secret: str) -> None:
    """Keys, tokens and passwords are taken out by their shape."""
    assert secret not in redact(text)
    assert REDACTED in redact(text)


def test_known_secrets_go_whatever_their_shape() -> None:
    """The provider's own key goes even if it looks like a word; what is too short to be one stays."""
    assert redact("you sent swordfish", ("swordfish", "o")) == f"you sent {REDACTED}"


def test_ordinary_text_stays() -> None:
    """An error message without secrets is left as it is."""
    text = '{"error": {"message": "maximum context length is 8192 tokens", "type": "invalid_request_error", "param": null}}'
    assert redact(text) == text
