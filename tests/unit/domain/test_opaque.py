"""Tests of opaque values as clients get them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import Origin
from antiphon.domain.opaque import last_wrapped, unwrap, wrap


@given(st.text(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_wrapped_value_is_unwrapped(value: str, provider: str) -> None:
    """A wrapped value is unwrapped to the same value and origin, whatever the provider is called."""
    wrapped = wrap(value, Origin("openai-chat", provider, "m", provider))
    assert wrapped.startswith("ap1.")
    assert unwrap(wrapped) == (value, Origin(provider=provider, deployment=provider))


@pytest.mark.parametrize("value", ["", "sig", "ap1", "AbC+/=="])
def test_a_value_without_a_wrapper_is_unchanged(value: str) -> None:
    """A value without a wrapper is returned as it is, without an origin."""
    assert unwrap(value) == (value, None)


@pytest.mark.parametrize("value", ["ap1.", "ap1..x", "ap1.x"])
def test_a_damaged_value_matches_no_provider(value: str) -> None:
    """A value that lost its name or its content gets an origin that matches no provider, as every provider would refuse it."""
    _, origin = unwrap(value)
    assert origin is not None
    assert not any(origin.is_from(Origin("openai-chat", provider)) for provider in ("openai", "x", "gemini"))


def test_a_value_without_a_provider_is_not_wrapped() -> None:
    """A value without a provider is not wrapped. A value that another gateway has wrapped is wrapped again."""
    assert wrap("s", None) == wrap("s", Origin("openai-chat")) == "s"
    assert wrap("s", Origin(provider="a", deployment="b")) == "ap1.b.s"
    assert wrap("ap1.up.s", Origin(provider="a.b")) == "ap1.a%2Eb.ap1.up.s"


@given(st.lists(st.from_regex(r"[A-Za-z0-9+/_-]+=?", fullmatch=True), min_size=1, max_size=4), st.integers(1, 3))
def test_the_last_of_values_that_a_client_has_joined(values: list[str], times: int) -> None:
    """It is found also where several gateways have wrapped it; what is not wrapped stays as it is."""
    wrapped = values
    for _ in range(times):
        wrapped = [wrap(value, Origin(deployment="a.b")) for value in wrapped]
    assert last_wrapped("".join(wrapped)) == wrapped[-1]
    assert last_wrapped("".join(values)) == "".join(values)
    assert last_wrapped("ap1.") == "ap1."
