"""Tests of removing secrets from a provider's text."""

import base64
import json
import re
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.telemetry.redaction import REDACTED, publishable, redact


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
    """Keys, tokens and passwords are removed by their form."""
    assert secret not in redact(text)
    assert REDACTED in redact(text)


def test_known_secrets_go_whatever_their_shape() -> None:
    """A known secret is removed even if it looks like a word, unless it is too short."""
    assert redact("you sent swordfish", ("swordfish", "o")) == f"you sent {REDACTED}"


def test_ordinary_text_stays() -> None:
    """An error message without secrets is unchanged."""
    text = '{"error": {"message": "maximum context length is 8192 tokens", "type": "invalid_request_error", "param": null}}'
    assert redact(text) == text


@pytest.mark.parametrize("secret", ["Wren/Static+1~owl==", "sécret-é-£", 'a"b\\c/d%41e'])
def test_known_secrets_go_however_they_are_encoded(secret: str) -> None:
    """A known secret is removed in any encoding: percent, JSON escapes, hexadecimal, base64, also nested."""
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


def test_the_result_can_be_encoded() -> None:
    """The result can always be encoded, even with half a surrogate pair beside an encoded secret."""
    found = redact(r"\ud83d Wren%2FStatic \u0000", ["Wren/Static"])
    assert REDACTED in found
    assert found.encode()


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("cannot reach http://gpu-7.rack.lan:8000/v1/chat", "gpu-7.rack.lan"),
        ("see https://platform.openai.com/account/api-keys.", "platform.openai.com"),
        ("api.internal:8443 closed the connection", "api.internal"),
        ("vllm.models:8000 closed the connection", "vllm.models"),
        ("vllm-svc:8000 and redis:6379 are down", "vllm-svc"),
        ("vllm-svc:8000 and redis:6379 are down", "redis"),
        ("no route to localhost", "localhost"),
        ("at worker.default.svc.cluster.local", "worker"),
        ("API.ACME.COM refused it.", "ACME"),
        ("from api.acme.co.uk, sorry", "acme"),
        ("from api.acme.it.", "acme"),
        ('{"host": "gpu7"}', "gpu7"),
        ("upstream=gpu, try again", "=gpu"),
        ("node: rack-12", "rack-12"),
        ("at 192.168.1.4:8080", "192.168.1.4"),
        ("network 10.0.0.0/8", "10.0.0.0"),
        ("error internal_10.0.0.1", "10.0.0.1"),
        ("node ip-10-1-2-3 failed", "10-1-2-3"),
        ("from [fd00::1]:8080", "fd00"),
        ("from 2001:db8::8a2e:370:7334.", "2001:db8"),
        ("fe80::1%eth0 is down", "fe80"),
        ("::ffff:10.0.0.1", "ffff"),
        ("ask admin@corp.example", "admin"),
        ("Rate limit in organization org-AbCdEf123456 on tokens", "AbCdEf"),
        ("project proj_abcDEF123 is not active", "abcDEF"),
        ("key 0b6f2c1e-1d6f-4a55-9a53-2f1d2f0c7a10 is", "1d6f"),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/x", "123456789012"),
        ("projects/my-project/locations/eu", "my-project"),
        ("you sent swordfish to gpu_no7", "swordfish"),
        ("you sent swordfish to gpu_no7", "gpu_no7"),
        ("Incorrect API key provided: sk-abcd1234efgh5678.", "abcd1234"),
        ("GET https://user:hunter2@backend/v1 failed", "backend"),
        ("GET http://[fd00::7]:80/backend failed", "backend"),
        ("GET http://10.1.2.3/backend failed", "backend"),
        ("GET https://x/swordfish/backend failed", "backend"),
    ],
)
def test_private_text_is_removed(text: str, hidden: str) -> None:
    """Keys, hosts, addresses and accounts are removed from text that callers get."""
    result = publishable(text, ("swordfish", "gpu_no7"))
    assert hidden not in result
    assert REDACTED in result


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (8800 in messages, 200 in tools).",
        "prompt is too long: 208310 tokens > 200000 maximum",
        "Unsupported parameter: 'max_tokens' is not supported with gpt-5.6. Use 'max_completion_tokens' instead.",
        "Invalid value: 'x'. Supported values are: 'system', 'assistant', and 'developer'.",
        "messages.0.content: Field required",
        "messages[0].content[1].image_url.url: must be text",
        "tools.0.function.parameters.properties.name.type is not valid",
        "response_format.json_schema.schema, e.g. i.e. v1.2.3 3.14 top_p>=0.5",
        "claude-3.5-sonnet-20241022, anthropic.claude-sonnet-4-20250514-v1:0, qwen2.5:14b, llama3:8b, meta-llama/Llama-3.1-8B",
        "image/png at 12:30:45, 16:9, status:400, line:12",
        "`tool_use` ids were found without `tool_result` blocks immediately after: toolu_01A09q90qw90lq917835lq9.",
        "wrong.Please retry; org-level and user_message stay",
    ],
)
def test_ordinary_text_for_callers_stays(text: str) -> None:
    """Words, numbers, fields and model names are unchanged."""
    assert publishable(text) == text


HOSTS = st.from_regex(r"[a-z][a-z0-9\-]{0,20}(\.[a-z][a-z0-9\-]{0,20}){0,3}\.(com|internal|local|io|net)", fullmatch=True)
ADDRESSES = st.ip_addresses().map(str)


@given(private=HOSTS | ADDRESSES | st.tuples(ADDRESSES, st.integers(1, 65535)).map(lambda pair: f"[{pair[0]}]:{pair[1]}"))
def test_no_host_and_no_address_stays(private: str) -> None:
    """Any host or address is removed, at any place in a sentence."""
    for form in ("at {}", "{} failed", "({})", "'{}'", "at {}.", "{}, twice"):
        assert private.strip("[]") not in publishable(form.format(private))


@pytest.mark.parametrize(
    "piece", ["a", "a.", "a-", "::", "a:", "1.", "a@", "http:/", "host=", "org-", "sk-.", "0:", "arn:", "[:", "x.com."]
)
def test_a_long_text_takes_no_long_time(piece: str) -> None:
    """The time grows linearly with the length of the text."""
    text = (piece * 65536)[:65536]
    began = time.process_time()
    publishable(text)
    assert time.process_time() - began < 2
