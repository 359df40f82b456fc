"""What a provider said, without its secrets."""

import base64
import json
import re
from urllib.parse import quote

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


@pytest.mark.parametrize("secret", ["Wren/Static+1~owl==", "sécret-é-£", 'a"b\\c/d%41e'])
def test_known_secrets_go_however_they_are_encoded(secret: str) -> None:
    """Also in part, twice, in the middle of base64, or escaped as JSON in JSON."""
    plain = secret.encode()
    escaped = json.dumps(secret)[1:-1].replace("/", "\\/")
    every = [
        quote(secret, safe=""),
        re.sub("%..", lambda match: match[0].lower(), quote(secret, safe="")),
        quote(secret),
        quote(quote(secret, safe=""), safe=""),
        escaped,
        json.dumps(escaped)[1:-1],
        "".join(f"\\u{ord(character):04X}" for character in secret),
        plain.hex(),
        plain.hex().upper(),
        *(base64.b64encode(b"Bearer "[:count] + plain).decode() for count in range(8)),
        *(base64.urlsafe_b64encode(b"Bearer "[:count] + plain).decode() for count in range(8)),
    ]
    for encoded in every:
        found = redact(f"before {encoded} after", [secret])
        assert "[redacted]" in found, encoded
        assert found.startswith("before ")
        assert found.endswith(" after")


def test_what_comes_back_can_be_written() -> None:
    """Also where half a character stood beside an encoded secret."""
    found = redact(r"\ud83d Wren%2FStatic \u0000", ["Wren/Static"])
    assert REDACTED in found
    assert found.encode()
