"""Tests of opaque values as clients get them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.domain.content import Origin
from antiphon.domain.opaque import Unwrapped, split, unwrap, wrap

NAMES = st.text(st.characters(exclude_categories=["Cs"]))
MORE = st.dictionaries(
    st.text(max_size=5), st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=9) | st.lists(st.booleans())
)


@given(st.text(), NAMES, NAMES.filter(bool), NAMES, NAMES.filter(bool), MORE)
def test_a_wrapped_value_is_unwrapped(
    value: str, protocol: str, provider: str, model: str, deployment: str, more: dict[str, object]
) -> None:
    """A wrapped value is unwrapped to the same value and origin, whatever they are called, with what was added to it."""
    origin = Origin(protocol, provider, model, deployment)
    wrapped = wrap(value, origin, more)
    assert wrapped.startswith("ap1.")
    assert unwrap(wrapped) == Unwrapped(value, origin, more)


def test_the_form() -> None:
    """It names the provider, protocol and model; the deployment, if it has another name; what was added, if anything was."""
    assert wrap("s", Origin("gemini", "g", "gemini-2.5-pro", "g")) == "ap1.g:gemini:gemini-2%2E5-pro.s"
    assert wrap("s", Origin("gemini", "g", "m", "eu")) == "ap1.g:gemini:m:eu.s"
    assert wrap("s", Origin("bedrock", "b", "eu.x-v1:0")) == "ap1.b:bedrock:eu%2Ex-v1%3A0.s"
    assert wrap("s", Origin("gemini", "g"), {"a": 1}) == "ap1.g:gemini:::eyJhIjoxfQ.s"


def test_a_value_of_the_earlier_form_is_unwrapped() -> None:
    """It names the deployment alone, which has the name of its provider."""
    assert unwrap("ap1.up%2Eeu.a.b") == Unwrapped("a.b", Origin(provider="up.eu", deployment="up.eu"))


@pytest.mark.parametrize("value", ["", "sig", "ap1", "AbC+/=="])
def test_a_value_without_a_wrapper_is_unchanged(value: str) -> None:
    """A value without a wrapper is returned as it is, without an origin."""
    assert unwrap(value) == Unwrapped(value, None)


@pytest.mark.parametrize(
    "value", ["ap1.", "ap1..x", "ap1.x", "ap1.a/b.x", "ap1.g:p:m::!.x", "ap1.g:p:m::AAAA.x", "ap1.g:p:m::WzFd.x"]
)
def test_a_damaged_value_matches_no_provider(value: str) -> None:
    """A value that lost its name or its content gets an origin that matches no provider, as every provider would refuse it."""
    origin = unwrap(value).origin
    assert origin is not None
    assert not any(origin.is_from(Origin("openai-chat", provider)) for provider in ("openai", "x", "gemini", "g"))


def test_a_value_without_a_provider_is_not_wrapped() -> None:
    """A value without a provider is not wrapped. A value that another gateway has wrapped is wrapped again."""
    assert wrap("s", None) == wrap("s", Origin("openai-chat")) == "s"
    assert wrap("s", Origin(deployment="b")) == "ap1.b.s"
    assert wrap("ap1.up.s", Origin(provider="a.b")) == "ap1.a%2Eb.ap1.up.s"


@given(st.lists(st.from_regex(r"[A-Za-z0-9+/_-]+=?", fullmatch=True), min_size=1, max_size=4), st.integers(1, 3))
def test_values_that_a_client_has_joined(values: list[str], times: int) -> None:
    """They are found also where several gateways have wrapped them; what is not wrapped stays as it is."""
    wrapped = values
    for _ in range(times):
        wrapped = [wrap(value, Origin("p", "a.b", "m"), {"n": at}) for at, value in enumerate(wrapped)]
    assert split("".join(wrapped)) == wrapped
    assert split("".join(values)) == ["".join(values)]
    assert split("ap1.") == ["ap1."]
    assert split("x" + wrapped[0]) == ["x" + wrapped[0]]
