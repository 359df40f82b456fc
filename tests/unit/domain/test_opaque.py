"""Tests of opaque values as clients get them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import Origin
from antiphon.domain.opaque import unwrap, wrap


@given(st.text(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_what_goes_out_comes_back(value: str, provider: str) -> None:
    """A wrapped value is unwrapped to the same value and origin, whatever the provider is called."""
    wrapped = wrap(value, Origin("openai-chat", provider, "m", provider))
    assert wrapped.startswith("ap1.")
    assert unwrap(wrapped) == (value, Origin(provider=provider, deployment=provider))


@pytest.mark.parametrize("value", ["", "sig", "ap1", "ap1.", "ap1..x", "ap1.x", "AbC+/=="])
def test_what_was_not_wrapped_is_a_clients_own(value: str) -> None:
    """A value without a wrapper is returned as it is, without an origin."""
    assert unwrap(value) == (value, None)


def test_a_value_of_nobody_stays_as_it_is() -> None:
    """A value without a provider is not wrapped. A value that another gateway has wrapped is wrapped again."""
    assert wrap("s", None) == wrap("s", Origin("openai-chat")) == "s"
    assert wrap("ap1.up.s", Origin(provider="a.b")) == "ap1.a%2Eb.ap1.up.s"
