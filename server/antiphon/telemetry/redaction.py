"""What others said - a provider, a library - made fit for a log, or for a caller.

`redact` takes out keys, tokens, passwords and cookies; `publishable` also what tells of the network and the accounts behind the
gateway. Both may take away too much, never too little.
"""

from __future__ import annotations

import base64
import ipaddress
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
            r"\b(?:sk|pk|rk|gsk|xai|csk|fw|pplx|nvapi|hf|key|api|tgp|ghp|glpat|xox[abp])[-_](?:[\w*]{0,5}[.\-]){0,16}+"
            r"[\w*]{6,}(?:[.\-]{0,9}[\w*]+)*+"
            r"|\b(?:AIza|AKIA|ASIA|ya29\.)[\w*.\-]{8,}"
        ),
        REDACTED,
    ),
    # Any long run that could be one: 32 and more hexadecimal digits, 40 and more of base64.
    (re.compile(r"\b[0-9a-fA-F]{32,}\b|(?<![\w+/])[\w+/\-]{40,}={0,2}"), REDACTED),
)

# Last labels by which a dotted name is a host: what is usual for hosts and is no word that a field, a file or a sentence ends in.
_TOP: Final = (
    "com|net|org|io|ai|dev|app|cloud|co|biz|edu|gov|mil|tech|xyz|online|site|internal|local|localdomain|localhost|lan|corp|intra|intranet"
    "|private|home|svc|consul|arpa|test|example|invalid|eu|uk|de|fr|nl|cn|jp|kr|ru|br|au|ca|ch|se|es|pt|cz|dk|fi|gr|hu|ie|il|sg|hk|tw|nz"
    "|mx|ar|cl|za|tr|ua|ro|sk|pl|vn|th|ae|ng|ke"
)

_TOP_OF_THREE: Final = "in|it|at|be|no|us|me|is|so|to"
"""The same, where two labels could be a field, or two sentences without a space between them."""

_LABEL: Final = r"[a-z0-9][a-z0-9\-]{0,62}"

_END: Final = r"(?![\w\-]|\.\w|\[)"
"""Where a name ends: neither its label goes on, nor a path of fields."""


def _host(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.\-]){pattern}", re.IGNORECASE)


_PRIVATE: Final = (
    # URLs, also with something that was taken out of them already, and addresses of mail.
    re.compile(r"\b[a-z][a-z0-9+.\-]{0,30}://(?:\[redacted\]|[^\s\"'<>`)\]}])+", re.IGNORECASE),
    re.compile(r"[\w.+\-]{1,64}@[\w\-]{1,63}(?:\.[\w\-]{1,63})+"),
    # Values that are called a host: after "=" any, after ":" what is quoted or no plain word.
    re.compile(
        r"(?<![a-z])(?:host|hostname|server|upstream|node|pod|peer|ip)(?:=|[\"']\s{0,9}:\s{0,9}[\"']|:\s{0,9}(?=[a-z\-]*[\d.]))"
        r"[^\s\"',;)}\]]+",
        re.IGNORECASE,
    ),
    # IPv4, and as AWS writes it into a name.
    re.compile(r"(?<!\d)\d{1,3}(?:\.\d{1,3}){3}(?!\d)(?::\d{1,5}|/\d{1,2})?|\bip-\d{1,3}(?:-\d{1,3}){3}\b"),
    # A dotted name with a port, or with a last label that hosts have; a dot at its end is the sentence's.
    _host(rf"(?:{_LABEL}\.)+[a-z][a-z0-9\-]{{0,62}}:\d{{2,5}}\b"),
    _host(rf"(?:{_LABEL}\.)+(?:{_TOP}){_END}"),
    _host(rf"(?:{_LABEL}\.){{2,}}(?:{_TOP_OF_THREE}){_END}"),
    # One label with a port that a server could have; three digits are a status, but for HTTPS's.
    re.compile(r"(?<![\w.\-\"'$@/])[a-z][a-z0-9\-]{0,62}:(?:\d{4,5}|443|[89]\d)\b(?![.\d])", re.IGNORECASE),
    re.compile(r"\blocalhost\b", re.IGNORECASE),
    # Whose account it is: organisations and projects, ids, ARNs and resource names.
    re.compile(r"\b(?:org|proj|acct|cus|wrkspc|ws|team|user)[-_](?=[A-Za-z\-]{0,40}\d|[A-Za-z]{16})[A-Za-z0-9\-]{6,}"),
    re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE),
    re.compile(r"\barn:[\w\-]+:[^\s\"']+|(?<=\bprojects/)[\w\-]+"),
)

_IPV6: Final = re.compile(
    r"\[?(?<![\w:.])(?=[0-9a-f.]*:[0-9a-f.]*:)[0-9a-f:.]{2,45}(?:%\w{1,16})?(?![\w:])(?:\](?::\d{1,5})?|/\d{1,3})?", re.IGNORECASE
)


def publishable(text: str, private: Iterable[str] = ()) -> str:
    """`text` as a caller may read it: as `redact` leaves it, without URLs, hosts, addresses, and ids of accounts.

    `private` are the secrets, and names that are known to be nobody's business outside. What looks like a field
    ("messages.0.content"), a number or the name of a model stays.
    """
    text = _IPV6.sub(_address, redact(text, private))
    for pattern in _PRIVATE:
        text = pattern.sub(REDACTED, text)
    return text


def _address(found: re.Match[str]) -> str:
    """Nothing of an IPv6 address; what only resembles one, as a time does, stays."""
    bare = found[0].lstrip("[").partition("]")[0].partition("/")[0].rstrip(".")
    try:
        ipaddress.IPv6Address(bare)
    except ValueError:
        return found[0]
    return REDACTED


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
