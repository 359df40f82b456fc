"""Tests of the guard for personal data: what it finds, and what it does not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.config import ConfigError, GuardConfig
from antiphon.guards import personal_data
from tests.unit.guards.feeding import fed, pieces


def masked(text: str, **options: object) -> str:
    return fed(personal_data.build(GuardConfig(name="pii", kind="personal_data", **options))(), [text])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to jane.doe+x@mail.example.co.uk.", "Write to [EMAIL]."),
        ("почта:jane@example.com, ok", "почта:[EMAIL], ok"),
        ("jane@localhost or @jane", "jane@localhost or @jane"),
        ("call +1 (212) 555-0187 now", "call [PHONE] now"),
        ("(212) 555-0187; 212.555.0187", "[PHONE]; [PHONE]"),
        ("+49 30 901820 and +44 20 7946 0958, 20 times", "[PHONE] and [PHONE], 20 times"),
        ("call 212-555-0187 24 hours", "call [PHONE] 24 hours"),
        ("020 7946 0958", "020 7946 0958"),  # not of a configured region
        ("order 1234567, 2024-11-25, 10:30:45, 3.14159265", "order 1234567, 2024-11-25, 10:30:45, 3.14159265"),
        ("card 4111 1111 1111 1111 12/29", "card [CREDIT_CARD] 12/29"),
        ("3782-822463-10005 5555555555554444", "[CREDIT_CARD] [CREDIT_CARD]"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("IBAN GB82 WEST 1234 5698 7654 32 is mine", "IBAN [IBAN] is mine"),
        ("DE89370400440532013000, de89 3704 0044 0532 0130 00", "[IBAN], [IBAN]"),
        ("DE89370400440532013001", "DE89370400440532013001"),
        ("ssn 536-90-4399, not 666-90-4399", "ssn [US_SSN], not 666-90-4399"),
        ("from 192.168.1.17 and 2001:db8::1 or fe80::1:2.", "from [IP_ADDRESS] and [IP_ADDRESS] or [IP_ADDRESS]."),
        ("999.1.1.1 a::b f32::consts 00:1a:2b:3c:4d:5e", "999.1.1.1 a::b f32::consts 00:1a:2b:3c:4d:5e"),
    ],
)
def test_data_with_valid_form_and_check_digits_is_masked(text: str, expected: str) -> None:
    """Data with the right form and check digits is masked; similar text, and digits after a number, are not."""
    assert masked(text) == expected


def test_only_the_entities_and_regions_that_are_configured_are_looked_for() -> None:
    """Only the configured entities and regions are found. Without a region, only phone numbers with a country code are."""
    text = "jane@example.com 020 7946 0958 212-555-0187 +1 212 555 0187"
    assert masked(text, entities=["phone"], regions=["GB"]) == "jane@example.com [PHONE] 212-555-0187 [PHONE]"
    assert masked(text, entities=["phone"], regions=[]) == "jane@example.com 020 7946 0958 212-555-0187 [PHONE]"


def test_it_can_block() -> None:
    """The guard can block as the blocklist does."""
    assert masked("I am jane@example.com.", action="block") == "I am !"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"entities": ["name"]}, "guards.pii.entities.0"),
        ({"entities": []}, "guards.pii.entities"),
        ({"regions": ["Mars"]}, "guards.pii.regions"),
        ({"patterns": ["a"]}, "guards.pii.patterns"),
    ],
)
def test_a_wrong_option_is_reported_with_its_place(options: dict[str, object], where: str) -> None:
    """A wrong option, or one of another guard, is a `ConfigError` that names it."""
    with pytest.raises(ConfigError, match=where):
        masked("", **options)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `personal-data` the configuration is refused with its name."""
    monkeypatch.setattr(personal_data, "INSTALLED", False)
    with pytest.raises(ConfigError, match=r"antiphon\[personal-data\]"):
        masked("")


_SAMPLES = [
    "jane@example.com",
    "212-555-0187",
    "+49 30 901820",
    "4111 1111 1111 1111",
    "GB82 WEST 1234 5698 7654 32",
    "10.0.0.1",
    " 12",
]
_TEXTS = st.lists(st.one_of(st.sampled_from(_SAMPLES), st.text(alphabet="a1 .-@(+:", max_size=4)), max_size=8).map("".join)


@settings(max_examples=300, deadline=None)
@given(pieces(_TEXTS))
def test_what_is_masked_does_not_depend_on_where_the_text_was_split(split: list[str]) -> None:
    """The result does not depend on where the text is split."""
    build = personal_data.build(GuardConfig(name="pii", kind="personal_data"))
    assert fed(build(), split) == fed(build(), ["".join(split)])
