"""What others said - a provider, a library - made fit for a log: without keys, tokens, passwords and cookies.

It may take away too much, never too little. Not for callers: what they read are our own words.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Final

REDACTED: Final = "[redacted]"

_SHORTEST: Final = 6
"""A shorter secret than this is left: taking every "a" out of a text tells the secret as well."""

_ENCODED: Final = re.compile(r"%([0-9a-fA-F]{2})|\\+u([0-9a-fA-F]{4})|\\+(?=[^\\])")
"""A character in percent-encoding or as JSON's escape, however often that was escaped itself."""

_DEPTH: Final = 3
"""As often may something have been encoded."""

_PATTERNS: Final = (
    # Credentials inside a URL: the part between "//" and "@".
    (re.compile(r"(?<=://)[^\s/@\"'<>]+(?=@)"), REDACTED),
    (re.compile(r"\b(bearer|basic)(\s+)[^\s\"',;<>]{4,}", re.IGNORECASE), rf"\1\2{REDACTED}"),
    # A JWT.
    (re.compile(r"\beyJ[\w-]{4,}\.[\w-]{4,}(?:\.[\w-]*)?"), REDACTED),
    # Named values: api_key=..., "token": "...", x-api-key: ..., ?key=...
    (
        re.compile(
            r"((?:api[_-]?key|access[_-]?key|[?&]key|token|secret|password|passwd|authorization|cookie)[\"']?\s*[:=]\s*[\"']?)"
            r"(?!\[redacted\]|bearer\b|basic\b|null\b)[^\s\"'&,;<>}]{4,}",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    # Keys by their usual prefixes, whole or with stars in the middle as error messages show them.
    (
        re.compile(
            r"\b(?:sk|pk|rk|gsk|xai|csk|fw|pplx|nvapi|hf|key|api|tgp|ghp|glpat|xox[abp])[-_][\w*.\-]*[\w*]{6,}"
            r"|\b(?:AIza|AKIA|ASIA|ya29\.)[\w*.\-]{8,}"
        ),
        REDACTED,
    ),
    # Any long run that could be one: 32 and more hexadecimal digits, 40 and more of base64.
    (re.compile(r"\b[0-9a-fA-F]{32,}\b|(?<![\w+/])[\w+/\-]{40,}={0,2}"), REDACTED),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without `secrets`, and without what is shaped like one.

    A secret is known in base64, in hexadecimal digits, percent-encoded and escaped as in JSON, too. Where it was encoded so that
    parts of it are plain, the whole text comes back decoded.
    """
    known = [form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)]
    text = decoded = _without(text, known)
    if known and ("%" in text or "\\" in text):
        for _ in range(_DEPTH):
            decoded = _ENCODED.sub(_decoded, decoded)
            if (cleaned := _without(decoded, known)) != decoded:
                text = decoded = cleaned
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _without(text: str, known: Iterable[str]) -> str:
    for form in known:
        text = text.replace(form, REDACTED)
    return text


def _decoded(match: re.Match[str]) -> str:
    number = int(match[1] or match[2] or "0", 16)
    if 0xD800 <= number < 0xE000:  # half of a character, which no log can write
        return "\ufffd"
    return chr(number) if match[1] or match[2] else ""


def _forms(secret: str) -> Iterator[str]:
    """The secret, as it is and decoded; in hexadecimal digits; and the part of its base64 that no neighbour changes."""
    yield secret
    plain = secret.encode("utf-8", "surrogatepass")
    if not secret.isascii():
        yield plain.decode("latin-1")  # what is left of it when each byte was percent-encoded
    if (decoded := _ENCODED.sub(_decoded, secret)) != secret and len(decoded) >= _SHORTEST:
        yield decoded
    yield plain.hex()
    yield plain.hex().upper()
    for before in range(3):
        begin, end = -(-before * 8 // 6), (before + len(plain)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + plain)[begin:end].decode()
