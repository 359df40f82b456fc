"""Tests of which provider answers for which model."""

import pytest
from pydantic import SecretStr

from antiphon.config import ConfigError
from antiphon.config.routing import AliasConfig
from antiphon.domain.attempt_class import AttemptClass
from antiphon.domain.errors import InvalidRequest, ModelNotFound, ProviderNotFound
from antiphon.domain.principal import Principal
from antiphon.domain.request import ChatRequest
from antiphon.routing.deployment import MODELS
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


def alias(**config: object) -> AliasConfig:
    return AliasConfig(**config)  # type: ignore[arg-type]


def test_one_name_stands_for_several_models() -> None:
    """An alias has tiers in their order, with weights, and models for some failures; it is listed, and may be the default."""
    smart = alias(**{"try": [{"one": 3, "b/two": 1}, "c/any"], "when": {"refused": "b/other"}})
    router = Router([(A, ["one"]), (B, ["two", "*"]), (C, [])], "smart", aliases={"smart": smart})
    route = router.resolve("")
    found = [[(option.candidate.route, option.weight) for option in tier] for tier in route.tiers]
    assert found == [[("a/one", 3.0), ("b/two", 1.0)], [("c/any", 1.0)]]
    assert [tier[0].candidate.route for tier in route.when[AttemptClass.REFUSED]] == ["b/other"]
    assert (route.alias, route.provider.name, route.model) == ("smart", "a", "one")
    assert [(entry.name, entry.is_default) for entry in router.models()] == [("one", False), ("smart", True), ("two", False)]
    assert router.resolve("one").tiers[0][0].candidate is route.tiers[0][0].candidate, "one state for each model of a deployment"


def test_an_alias_that_names_what_does_not_exist_is_refused_at_start() -> None:
    """The error has the path of the setting."""
    for config, path in (
        ({"try": ["one", "nowhere/x"]}, "models.smart.try.1"),
        ({"try": ["one"], "when": {"refused": "x"}}, "models.smart.when.refused"),
    ):
        with pytest.raises(ConfigError, match=path):
            Router([(A, ["one"])], aliases={"smart": alias(**config)})


def test_a_caller_gets_only_the_candidates_that_it_may_use() -> None:
    """Candidates that a key may not use are left out, unless it may use the alias; a caller's own key goes to one provider only."""
    smart = alias(**{"try": ["one", "b/two"], "when": {"refused": "b/two"}})
    router = Router([(A, ["one"]), (B, ["two"])], aliases={"smart": smart}, wants_key={"a", "b"})
    bare, own = ChatRequest("", (), stream=True), ChatRequest("", (), stream=True, api_key=SecretStr("sk-own"))

    def routes(models: tuple[str, ...] | None, request: ChatRequest) -> list[str]:
        route = router.resolve("smart").allowed(Principal("ann", owner="ann", models=models), request)
        return [] if route is None else [option.candidate.route for tier in route.tiers for option in tier]

    assert routes(None, bare) == routes(("smart",), bare) == ["a/one", "b/two"]
    assert routes(("b/*",), bare) == ["b/two"]
    assert routes(("other",), bare) == []
    assert routes(None, own) == routes(("smart",), own) == ["a/one"]


def test_models_that_callers_make_up_do_not_fill_the_memory() -> None:
    """Only so many models of a deployment are remembered; those of the configuration always are."""
    router = Router([(A, ["one", "*"])])
    named = router.resolve("one").only
    for number in range(MODELS * 2):
        router.resolve(f"made-up-{number}")
    assert len(router.deployments()[0].candidates()) <= MODELS
    assert router.resolve("one").only is router.resolve("a/one").only is named
