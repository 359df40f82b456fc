"""Redaction of texts from outside (providers, libraries) before they go to a log or to a caller.

`redact` removes keys, tokens, passwords and cookies. `publishable` also removes what reveals the network and the accounts behind
the gateway. Both prefer to remove too much rather than too little.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Final

REDACTED: Final = "[redacted]"

_MIN_SECRET_LENGTH: Final = 6
"""Secrets with fewer characters are not searched for: removing every "a" from a text would reveal the secret as well."""

_ENCODED: Final = re.compile(r"%([0-9a-fA-F]{2})|\\+u([0-9a-fA-F]{4})|\\+(?=[^\\])")
"""A character that is percent-encoded or escaped as in JSON, also if the escape itself was escaped, however often."""

_MAX_ENCODINGS: Final = 3
"""How many times a secret may have been encoded and is still found."""

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
            r"\b(?:sk|pk|rk|gsk|xai|csk|fw|pplx|nvapi|hf|key|api|tgp|ghp|glpat|xox[abp])[-_](?:[\w*]{0,5}[.\-]){0,16}+"
            r"[\w*]{6,}(?:[.\-]{0,9}[\w*]+)*+"
            r"|\b(?:AIza|AKIA|ASIA|ya29\.)[\w*.\-]{8,}"
        ),
        REDACTED,
    ),
    # Any long run that could be a key: at least 32 hexadecimal digits, or 40 characters of base64.
    (re.compile(r"\b[0-9a-fA-F]{32,}\b|(?<![\w+/])[\w+/\-]{40,}={0,2}"), REDACTED),
)

# Top-level labels that make a dotted name a host. Labels that may also end a field name, a file name or a sentence are left out.
_TOP_LEVEL: Final = (
    "com|net|org|io|ai|dev|app|cloud|co|biz|edu|gov|mil|tech|xyz|online|site|internal|local|localdomain|localhost|lan|corp|intra|intranet"
    "|private|home|svc|consul|arpa|test|example|invalid|eu|uk|de|fr|nl|cn|jp|kr|ru|br|au|ca|ch|se|es|pt|cz|dk|fi|gr|hu|ie|il|sg|hk|tw|nz"
    "|mx|ar|cl|za|tr|ua|ro|sk|pl|vn|th|ae|ng|ke"
)

_AMBIGUOUS_TOP_LEVEL: Final = "in|it|at|be|no|us|me|is|so|to"
"""Top-level labels that count only in a name of at least three labels: with two, it could be a field, or two sentences without a
space."""

_LABEL: Final = r"[a-z0-9][a-z0-9\-]{0,62}"

_END: Final = r"(?![\w\-]|\.\w|\[)"
"""The end of a host name: neither a character of a label nor a further field of a path follows."""


def _host(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.\-]){pattern}", re.IGNORECASE)


_PRIVATE: Final = (
    # URLs, also partly redacted ones, and e-mail addresses.
    re.compile(r"\b[a-z][a-z0-9+.\-]{0,30}://(?:\[redacted\]|[^\s\"'<>`)\]}])+", re.IGNORECASE),
    re.compile(r"[\w.+\-]{1,64}@[\w\-]{1,63}(?:\.[\w\-]{1,63})+"),
    # Values named as a host: after "=" any value; after ":" a quoted value, or one that is not a plain word.
    re.compile(
        r"(?<![a-z])(?:host|hostname|server|upstream|node|pod|peer|ip)(?:=|[\"']\s{0,9}:\s{0,9}[\"']|:\s{0,9}(?=[a-z\-]*[\d.]))"
        r"[^\s\"',;)}\]]+",
        re.IGNORECASE,
    ),
    # IPv4 addresses, also in the form that AWS writes into host names (ip-10-0-0-1).
    re.compile(r"(?<!\d)\d{1,3}(?:\.\d{1,3}){3}(?!\d)(?::\d{1,5}|/\d{1,2})?|\bip-\d{1,3}(?:-\d{1,3}){3}\b"),
    # A dotted name with a port or a top-level label of hosts. A dot at its end belongs to the sentence.
    _host(rf"(?:{_LABEL}\.)+[a-z][a-z0-9\-]{{0,62}}:\d{{2,5}}\b"),
    _host(rf"(?:{_LABEL}\.)+(?:{_TOP_LEVEL}){_END}"),
    _host(rf"(?:{_LABEL}\.){{2,}}(?:{_AMBIGUOUS_TOP_LEVEL}){_END}"),
    # One label with a plausible port: four or five digits, 443, or 80 to 99. Any other three digits are taken for an HTTP status.
    re.compile(r"(?<![\w.\-\"'$@/])[a-z][a-z0-9\-]{0,62}:(?:\d{4,5}|443|[89]\d)\b(?![.\d])", re.IGNORECASE),
    re.compile(r"\blocalhost\b", re.IGNORECASE),
    # Accounts: ids of organisations and projects, UUIDs, ARNs, and resource names.
    re.compile(r"\b(?:org|proj|acct|cus|wrkspc|ws|team|user)[-_](?=[A-Za-z\-]{0,40}\d|[A-Za-z]{16})[A-Za-z0-9\-]{6,}"),
    re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE),
    re.compile(r"\barn:[\w\-]+:[^\s\"']+|(?<=\bprojects/)[\w\-]+"),
)

_IPV6: Final = re.compile(
    r"\[?(?<![\w:.])(?=[0-9a-f.]*:[0-9a-f.]*:)[0-9a-f:.]{2,45}(?:%\w{1,16})?(?![\w:])(?:\](?::\d{1,5})?|/\d{1,3})?", re.IGNORECASE
)


def publishable(text: str, private: Iterable[str] = ()) -> str:
    """Return `text` as a caller may read it: redacted, and without URLs, hosts, addresses and account ids.

    `private` lists the secrets, and names that no outsider may see. Field paths ("messages.0.content"), numbers and model names
    stay.
    """
    text = _IPV6.sub(_hide_ipv6, redact(text, private))
    for pattern in _PRIVATE:
        text = pattern.sub(REDACTED, text)
    return text


def _hide_ipv6(found: re.Match[str]) -> str:
    """Return `REDACTED` for an IPv6 address, and the text itself if it only resembles one, as a time does."""
    bare = found[0].lstrip("[").partition("]")[0].partition("/")[0].rstrip(".")
    try:
        ipaddress.IPv6Address(bare)
    except ValueError:
        return found[0]
    return REDACTED


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return `text` without `secrets`, and without anything that is shaped like a secret.

    A secret is also found in base64, in hexadecimal digits, percent-encoded, and escaped as in JSON. If a secret was found only
    after decoding, the whole text is returned decoded.
    """
    known = [form for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH for form in _encodings(secret)]
    text = decoded = _remove(text, known)
    if known and ("%" in text or "\\" in text):
        for _ in range(_MAX_ENCODINGS):
            decoded = _ENCODED.sub(_decode, decoded)
            if (cleaned := _remove(decoded, known)) != decoded:
                text = decoded = cleaned
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _remove(text: str, known: Iterable[str]) -> str:
    for form in known:
        text = text.replace(form, REDACTED)
    return text


def _decode(match: re.Match[str]) -> str:
    number = int(match[1] or match[2] or "0", 16)
    if 0xD800 <= number < 0xE000:  # half of a surrogate pair, which no log can write
        return "\ufffd"
    return chr(number) if match[1] or match[2] else ""


def _encodings(secret: str) -> Iterator[str]:
    """Yield the forms in which a secret may appear: as it is, decoded, in hexadecimal digits, and in base64.

    Of the base64 only the characters are used that do not depend on the neighbouring bytes, for each of the three alignments.
    """
    yield secret
    plain = secret.encode("utf-8", "surrogatepass")
    if not secret.isascii():
        yield plain.decode("latin-1")  # the form that remains when each byte was percent-encoded
    if (decoded := _ENCODED.sub(_decode, secret)) != secret and len(decoded) >= _MIN_SECRET_LENGTH:
        yield decoded
    yield plain.hex()
    yield plain.hex().upper()
    for before in range(3):
        begin, end = -(-before * 8 // 6), (before + len(plain)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + plain)[begin:end].decode()
