"""Tests of which provider answers for which model."""

import pytest
from pydantic import SecretStr

from antiphon.config import ConfigError
from antiphon.domain.errors import InvalidRequest, ModelNotFound, ProviderNotFound
from antiphon.domain.request import ChatRequest
from antiphon.routing.router import Router
from tests.unit.scripted import ScriptedProvider


def provider(name: str) -> ScriptedProvider:
    made = ScriptedProvider()
    made.name = name
    return made


A, B, C = provider("a"), provider("b"), provider("c")
ROUTER = Router([(A, ["one", "both", "big-*"]), (B, ["two", "both", "*"]), (C, [])])


@pytest.mark.parametrize(
    ("model", "name", "upstream"),
    [
        ("one", "a", "one"),
        ("both", "a", "both"),
        ("b/both", "b", "both"),
        ("big-1", "a", "big-1"),
        ("anything", "b", "anything"),
        ("c/any/thing", "c", "any/thing"),
        ("x/two", "b", "x/two"),
        ("", "a", "one"),
    ],
)
def test_a_model_has_one_route(model: str, name: str, upstream: str) -> None:
    """Listed names come first, then `provider/model`, then patterns. An empty name is the default model."""
    route = ROUTER.resolve(model)
    assert (route.provider.name, route.model) == (name, upstream)


def test_a_model_that_nobody_has_is_not_found() -> None:
    """An unknown name, an unknown model of a known provider, and an incomplete name raise `ModelNotFound`."""
    router = Router([(A, ["one"])])
    for model in ("two", "a/two", "a/", "/one", "b/one"):
        with pytest.raises(ModelNotFound) as caught:
            router.resolve(model)
        assert caught.value.metadata == {"model": model}
    with pytest.raises(ModelNotFound):
        ROUTER.resolve("a/two")  # the pattern of another provider matches it


def test_a_provider_that_is_named_answers_or_nobody_does() -> None:
    """With a named provider only that one answers, and an empty model is not the default."""
    for name, model in (("a", "both"), ("b", "both"), ("b", "one"), ("c", "a/one"), ("a", "big-2")):
        route = ROUTER.resolve(model, name)
        assert (route.provider.name, route.model) == (name, model)
    for name, model in (("a", "two"), ("a", ""), ("c", "")):
        with pytest.raises(ModelNotFound) as caught:
            ROUTER.resolve(model, name)
        assert not isinstance(caught.value, ProviderNotFound)
    with pytest.raises(ProviderNotFound) as unknown:
        ROUTER.resolve("one", "d")
    assert unknown.value.metadata == {"provider": "d"}


def test_a_provider_lists_its_own_models() -> None:
    """A provider's models are listed by name, also those that another provider answers for."""
    assert ROUTER.providers() == ["a", "b", "c"]
    assert [ROUTER.models_at(name) for name in ROUTER.providers()] == [["one", "both"], ["two", "both"], []]
    with pytest.raises(ProviderNotFound):
        ROUTER.models_at("d")


def test_models_are_listed_by_name_without_patterns() -> None:
    """Each model name is listed once, in order, with the provider that answers for it."""
    entries = [(entry.name, entry.provider, entry.is_default) for entry in ROUTER.models()]
    assert entries == [("both", "a", False), ("one", "a", True), ("two", "b", False)]


def test_an_unknown_default_model_is_refused_at_start() -> None:
    """A default model that no provider has, or no model by name, is a `ConfigError`."""
    with pytest.raises(ConfigError, match="models.default"):
        Router([(A, ["one"])], "two")
    with pytest.raises(ConfigError, match="models.default"):
        Router([(A, ["big-*"])])
    assert Router([(A, ["big-*"])], "big-1").default == "big-1"


def test_a_callers_key_pays_where_a_key_is_wanted() -> None:
    """The caller's own key pays only at providers that want one."""
    router = Router([(A, ["one"]), (B, ["two", "*"])], wants_key={"a"})
    bare = ChatRequest("", (), stream=True)
    own = ChatRequest("", (), stream=True, api_key=SecretStr("sk-own"))
    paid = [router.resolve(model).is_paid_by_caller(own) for model in ("one", "a/one", "two", "b/any", "any")]
    assert paid == [True, True, False, False, False]
    assert not router.resolve("one").is_paid_by_caller(bare)
    assert router.resolve("one", "a").is_paid_by_caller(own)


@pytest.mark.parametrize("odd", ["any ", " any", "any\n", "a\tb", "b/any ", "b/ any", "b/\u200bany", "c/any\x00"])
def test_an_invalid_model_name_is_refused(odd: str) -> None:
    """An invalid model name is refused even if a pattern matches, because a provider might read it as another model."""
    with pytest.raises(InvalidRequest) as caught:
        ROUTER.resolve(odd)
    assert [violation.path for violation in caught.value.violations] == [("model",)]
    with pytest.raises(ModelNotFound):
        ROUTER.model(odd)
    with pytest.raises(InvalidRequest):
        ROUTER.resolve("any\n", "b")


def test_a_pattern_is_a_star_and_what_is_written() -> None:
    """In a pattern only `*` is special."""
    router = Router([(A, ["one", "x[1]*"]), (B, ["y?*"])])
    assert router.resolve("x[1]2").provider.name == "a"
    assert router.resolve("y?2").provider.name == "b"
    for model in ("x12", "yy2", "b/yy2"):
        with pytest.raises(ModelNotFound):
            router.resolve(model)
