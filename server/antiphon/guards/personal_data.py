"""The guard `personal_data`: finds data that identifies a person, or lets one contact or charge them.

Options: `entities`, `regions`, `action`. Two libraries decide, which the extra `antiphon[personal-data]` installs: phonenumbers
(Google's libphonenumber), and python-stdnum, which knows the formats and check digits of IBANs, card numbers and social security
numbers. The patterns here only find candidates for them, in linear time and of bounded length, so that a stream can be filtered.
Only data of such a form is found, not names or postal addresses. Presidio finds those too, but needs spaCy with a trained model,
400 MB, and a complete text.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Final, Literal, get_args

from pydantic import Field, field_validator

from antiphon.config import ConfigError, GuardConfig, GuardOptions
from antiphon.guards.base import Guard
from antiphon.guards.pattern import Pattern
from antiphon.guards.scanner import Finder, Rule, Scanner

INSTALLED: Final = find_spec("phonenumbers") is not None and find_spec("stdnum") is not None

if INSTALLED:
    import phonenumbers
    from stdnum import iban, luhn
    from stdnum.us import ssn

Entity = Literal["email", "phone", "credit_card", "iban", "ip_address", "us_ssn"]

_PATTERNS: Final[dict[Entity, str]] = {
    "email": r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}",
    "credit_card": r"\b[2-6](?:[ -]?[0-9]){12,18}\b",
    "iban": r"\b[A-Za-z]{2}[0-9]{2}(?: ?[A-Za-z0-9]){11,30}\b",
    "us_ssn": r"\b[0-9]{3}[ -][0-9]{2}[ -][0-9]{4}\b",
    "ip_address": r"\b(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){1,6}:[0-9A-Fa-f]{1,4})\b",
    "phone": r"(?:\+|\(|\b)[0-9]{1,15}(?:[ ./()-]{1,3}[0-9]{2,12}){0,5}\b",
}
"""The patterns of candidates. Of two with equally long matches, the first one is used."""

_SEPARATORS: Final = " -./()"

_TRIES: Final = 8
"""How often a candidate is checked, each time without its last group: numbers are written in groups, and other groups may
follow."""

_PHONE_TRIES: Final = 3
"""The same for phone numbers, whose check takes longest."""

_PHONE_DIGITS: Final = range(7, 16)
"""The possible numbers of digits of a phone number: E.164 allows at most 15. Shorter numbers than 7 exist, but identify nobody."""


class _Options(GuardOptions):
    entities: tuple[Entity, ...] = Field(default=get_args(Entity), min_length=1)
    regions: tuple[str, ...] = ("US",)
    """The regions of phone numbers without a country code; numbers with one are found anyway."""
    action: Literal["block", "mask"] = "mask"

    @field_validator("regions")
    @classmethod
    def _check_regions(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        for region in regions:
            if region not in phonenumbers.SUPPORTED_REGIONS:
                raise ValueError(f'{region!r} is not the code of a region, such as "US"')
        return regions


def build(config: GuardConfig) -> Guard:
    """Return the configured guard. Raises `ConfigError`, also if the extra is not installed."""
    if not INSTALLED:
        raise ConfigError(f"guards.{config.name}: the kind personal_data needs an extra: pip install 'antiphon[personal-data]'")
    options = config.options(_Options)
    checks = _checks(options.regions)
    entities = [entity for entity in _PATTERNS if entity in options.entities]
    rules = [Rule(Pattern(_PATTERNS[entity]), f"[{entity.upper()}]", checks.get(entity)) for entity in entities]
    together = Pattern(*(_PATTERNS[entity] for entity in entities))
    return partial(Scanner, config.name, Finder(rules, together), block=options.action == "block")


def _checks(regions: tuple[str, ...]) -> dict[Entity, Callable[[str], int]]:
    """Return, for each entity, the function that returns the length of the entity at the start of a candidate, 0 if there is none.

    E-mail addresses have no such check: each candidate is one.
    """
    return {
        "credit_card": _check(lambda text: text.isdigit() and 13 <= len(text) <= 19 and bool(luhn.is_valid(text))),
        "iban": _check(lambda text: bool(iban.is_valid(text))),
        "us_ssn": lambda text: len(text) if ssn.is_valid(text.replace(" ", "-")) else 0,
        "ip_address": _ip_address,
        "phone": _phone(regions),
    }


def _check(is_one: Callable[[str], bool]) -> Callable[[str], int]:
    """Return a function that checks a candidate without its separators, then without its last groups, at most `_TRIES` times."""

    def check(candidate: str) -> int:
        for prefix in islice(_shorter(candidate), _TRIES):
            if is_one(prefix.replace(" ", "").replace("-", "")):
                return len(prefix)
        return 0

    return check


def _phone(regions: tuple[str, ...]) -> Callable[[str], int]:
    """Return the check for phone numbers: it tries plausible lengths, at most `_PHONE_TRIES` of them."""
    # "ZZ" is the library's unknown region: numbers with a country code are still parsed.
    regions = regions or ("ZZ",)

    def check(candidate: str) -> int:
        plausible = (prefix for prefix in _shorter(candidate) if sum(map(str.isdigit, prefix)) in _PHONE_DIGITS)
        for prefix in islice(plausible, _PHONE_TRIES):
            if any(_is_phone(prefix, region) for region in regions):
                return len(prefix)
        return 0

    return check


def _is_phone(text: str, region: str) -> bool:
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(text, region)))
    except phonenumbers.NumberParseException:
        return False


def _shorter(candidate: str) -> Iterator[str]:
    """Yield a candidate, then the same without its last group, and so on."""
    while candidate:
        yield candidate
        last = max(candidate.rfind(separator) for separator in _SEPARATORS)
        candidate = candidate[: max(last, 0)].rstrip(_SEPARATORS)


def _ip_address(text: str) -> int:
    """Return the length of an IP address, 0 if it is none."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return 0
    # Without a digit it is probably a qualified name in a program, such as a::b.
    return len(text) if any(map(str.isdigit, text)) else 0
