"""The guard `personal_data`: what tells who somebody is, or how to reach or charge them. Options: `entities`, `regions`, `action`.

Two libraries decide, which the extra `antiphon[personal-data]` installs: phonenumbers (Google's libphonenumber) and python-stdnum,
which knows how IBANs, card numbers and social security numbers are made and checked. The patterns here only find what to ask them
about, in linear time and of bounded length, so that a stream can be read. Only what has such a form is found: no names, and no
addresses of houses. Presidio, which looks for those too, needs spaCy with a trained model, 400 MB, and reads a text as a whole.
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
"""What to ask about. In this order: of two that find equally much, the first."""

_SEPARATORS: Final = " -./()"

_TRIES: Final = 8
"""Times that a candidate is asked about, each time with one group less: numbers are written in groups, and more may follow them."""

_PHONE_TRIES: Final = 3
"""The same where asking takes longest."""

_PHONE_DIGITS: Final = range(7, 16)
"""E.164 has 15 at most. Shorter ones than 7 are dialled, but tell nobody from anybody else."""


class _Options(GuardOptions):
    entities: tuple[Entity, ...] = Field(default=get_args(Entity), min_length=1)
    regions: tuple[str, ...] = ("US",)
    """Where telephone numbers without a country's code may belong; those with one are found anyway."""
    action: Literal["block", "mask"] = "mask"

    @field_validator("regions")
    @classmethod
    def _known(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        for region in regions:
            if region not in phonenumbers.SUPPORTED_REGIONS:
                raise ValueError(f'{region!r} is not the code of a region, such as "US"')
        return regions


def build(config: GuardConfig) -> Guard:
    """The guard that is configured. Raises `ConfigError`, also where the extra is not installed."""
    if not INSTALLED:
        raise ConfigError(f"guards.{config.name}: the kind personal_data needs an extra: pip install 'antiphon[personal-data]'")
    options = config.options(_Options)
    checks = _checks(options.regions)
    entities = [entity for entity in _PATTERNS if entity in options.entities]
    rules = [Rule(Pattern(_PATTERNS[entity]), f"[{entity.upper()}]", checks.get(entity)) for entity in entities]
    together = Pattern(*(_PATTERNS[entity] for entity in entities))
    return partial(Scanner, config.name, Finder(rules, together), block=options.action == "block")


def _checks(regions: tuple[str, ...]) -> dict[Entity, Callable[[str], int]]:
    """How many characters of a candidate are one, by entity; an e-mail address is what looks like one."""
    return {
        "credit_card": _check(lambda text: text.isdigit() and 13 <= len(text) <= 19 and bool(luhn.is_valid(text))),
        "iban": _check(lambda text: bool(iban.is_valid(text))),
        "us_ssn": lambda text: len(text) if ssn.is_valid(text.replace(" ", "-")) else 0,
        "ip_address": _ip_address,
        "phone": _phone(regions),
    }


def _check(is_one: Callable[[str], bool]) -> Callable[[str], int]:
    """Asks about all of a candidate, without its separators, then without its last groups."""

    def check(candidate: str) -> int:
        for begun in islice(_shorter(candidate), _TRIES):
            if is_one(begun.replace(" ", "").replace("-", "")):
                return len(begun)
        return 0

    return check


def _phone(regions: tuple[str, ...]) -> Callable[[str], int]:
    # "ZZ" stands for no region: what has a country's code is parsed all the same.
    regions = regions or ("ZZ",)

    def check(candidate: str) -> int:
        plausible = (begun for begun in _shorter(candidate) if sum(map(str.isdigit, begun)) in _PHONE_DIGITS)
        for begun in islice(plausible, _PHONE_TRIES):
            if any(_is_phone(begun, region) for region in regions):
                return len(begun)
        return 0

    return check


def _is_phone(text: str, region: str) -> bool:
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(text, region)))
    except phonenumbers.NumberParseException:
        return False


def _shorter(candidate: str) -> Iterator[str]:
    while candidate:
        yield candidate
        last = max(candidate.rfind(separator) for separator in _SEPARATORS)
        candidate = candidate[: max(last, 0)].rstrip(_SEPARATORS)


def _ip_address(text: str) -> int:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return 0
    # Without a digit, it is a name in some programming language: a::b.
    return len(text) if any(map(str.isdigit, text)) else 0
