"""Opaque values as clients hold them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import Origin
from antiphon.domain.opaque import unwrap, wrap


@given(st.text(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_what_goes_out_comes_back(value: str, provider: str) -> None:
    """Whatever it is, and whatever its provider is called."""
    wrapped = wrap(value, Origin("openai-chat", provider, "m", provider))
    assert wrapped.startswith("ap1.")
    assert unwrap(wrapped) == (value, Origin(provider=provider, deployment=provider))


@pytest.mark.parametrize("value", ["", "sig", "ap1", "AbC+/=="])
def test_what_was_not_wrapped_is_a_clients_own(value: str) -> None:
    """It stays as it is."""
    assert unwrap(value) == (value, None)


@pytest.mark.parametrize("value", ["ap1.", "ap1..x", "ap1.x"])
def test_what_is_damaged_goes_to_no_provider(value: str) -> None:
    """A client has lost the name or the value: a provider would refuse what is left."""
    _, origin = unwrap(value)
    assert origin is not None
    assert not any(origin.is_from(Origin("openai-chat", provider)) for provider in ("openai", "x", "gemini"))


def test_a_value_of_nobody_stays_as_it_is() -> None:
    """There is nothing to tell of it; one that another gateway has wrapped is wrapped once more."""
    assert wrap("s", None) == wrap("s", Origin("openai-chat")) == "s"
    assert wrap("s", Origin(provider="a", deployment="b")) == "ap1.b.s"
    assert wrap("ap1.up.s", Origin(provider="a.b")) == "ap1.a%2Eb.ap1.up.s"
