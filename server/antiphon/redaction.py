"""What others said - a provider, a library - made fit for a log: without keys, tokens, passwords and cookies.

It may take away too much, never too little. Not for callers: what they read are our own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

REDACTED: Final = "[redacted]"

_SHORTEST: Final = 6
"""A shorter secret than this is left: taking every "a" out of a text tells the secret as well."""

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
    """`text` without `secrets`, and without what is shaped like one."""
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, REDACTED)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
