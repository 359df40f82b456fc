"""Tests of the API keys in the configuration (static keys)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from antiphon.auth.api_keys.static import KeyRing, credentials_of, load_keys
from antiphon.auth.base import Authenticators, identify
from antiphon.config import AuthConfig, ConfigError, KeyConfig
from antiphon.domain.errors import Unauthenticated
from antiphon.domain.principal import DEFAULT_SCOPES, Principal, Quota, Scope
from tests.unit.auth.signer import config

DEV = Principal("dev", owner="dev", id="static:dev")
OPS = Principal("ops", owner="ops", id="static:ops", scopes=DEFAULT_SCOPES | {Scope.ADMIN})
RING = KeyRing([(DEV, SecretStr("sk-dev")), (OPS, SecretStr("sk-ops"))])


@pytest.mark.parametrize("header", ["Bearer sk-ops", "bearer sk-ops", "BEARER  sk-ops "])
async def test_a_valid_key_identifies_its_principal(header: str) -> None:
    """A valid bearer key identifies its principal, whatever the case of the word Bearer."""
    assert await identify(RING, header) == OPS


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "sk-dev", "Basic sk-dev", "Bearer sk-de", "Bearer sk-devs", "Bearer é"]
)
async def test_anything_else_is_refused(header: str | None) -> None:
    """A missing key, an incomplete key and another scheme are refused, and the error does not repeat the key."""
    with pytest.raises(Unauthenticated) as caught:
        await identify(RING, header)
    assert "sk-" not in caught.value.message


async def test_keys_come_from_where_the_configuration_says() -> None:
    """A key is read from the variable that the configuration names, or from ANTIPHON_KEY if it names none.

    A missing variable is a `ConfigError`.
    """
    named = AuthConfig(keys=(KeyConfig(name="dev", key_env="DEV_KEY"),))
    assert await load_keys(named, {"DEV_KEY": "k1\n"}).authenticate("k1") == DEV
    found = await load_keys(AuthConfig(), {"ANTIPHON_KEY": "k2"}).authenticate("k2")
    assert found is not None
    assert Scope.ADMIN in found.scopes
    for auth in (named, AuthConfig()):
        with pytest.raises(ConfigError):
            load_keys(auth, {})


async def test_no_key_is_needed_with_a_token_issuer() -> None:
    """A configuration with a token issuer needs no API key; ANTIPHON_KEY is still accepted if it is set."""
    auth = AuthConfig(tokens=(config(),))
    assert await load_keys(auth, {}).authenticate("") is None
    assert await load_keys(auth, {"ANTIPHON_KEY": "k2"}).authenticate("k2") is not None


def test_keys_are_kept_only_as_digests() -> None:
    """A key ring holds the digests of its keys and never the keys."""
    assert "sk-dev" not in repr(vars(RING))


async def test_the_first_kind_that_knows_a_credential_decides() -> None:
    """The first authenticator that recognises a credential returns the principal. A credential that none recognises gives None."""
    other = KeyRing([(DEV, SecretStr("sk-ops")), (OPS, SecretStr("sk-other"))])
    kinds = Authenticators(RING, other)
    assert await kinds.authenticate("sk-ops") == OPS
    assert await kinds.authenticate("sk-other") == OPS
    assert await kinds.authenticate("sk-none") is None


@pytest.mark.parametrize(
    ("names", "values"), [(("a", "b"), ("same", "same")), (("a", "a"), ("one", "other"))], ids=["one key", "one name"]
)
def test_keys_with_the_same_name_or_value_are_refused(names: tuple[str, str], values: tuple[str, str]) -> None:
    """Two keys with the same name or the same value are a `ConfigError`, because their conversations could not be told apart."""
    keys = tuple(KeyConfig(name=name, key_env=variable) for name, variable in zip(names, ("K1", "K2"), strict=True))
    with pytest.raises(ConfigError):
        load_keys(AuthConfig(keys=keys), dict(zip(("K1", "K2"), values, strict=True)))


def test_a_key_of_two_lines_is_refused() -> None:
    """A key with a line break is a `ConfigError`, because no header can carry it. The error does not repeat the key."""
    with pytest.raises(ConfigError) as caught:
        load_keys(AuthConfig(keys=(KeyConfig(name="a", key_env="K1"),)), {"K1": "sk-a\nsk-b"})
    assert "sk-a" not in str(caught.value)


async def test_a_configured_key_has_the_rights_of_its_entry() -> None:
    """A configured key has the owner, scopes, models and limits of its entry.

    An entry without scopes has all scopes but `admin`.
    """
    ci = KeyConfig(
        name="ci",
        key_env="CI",
        owner="team",
        scopes=("chat", "history"),
        models=("gpt-4o*",),
        limits={"daily_usd": 2},
    )
    auth = AuthConfig(
        keys=(ci, KeyConfig(name="ops", key_env="OPS", scopes=("chat",), admin=True), KeyConfig(name="all", key_env="ALL"))
    )
    ring = load_keys(auth, {"CI": "k1", "OPS": "k2", "ALL": "k3"})
    found = await ring.authenticate("k1")
    assert found == Principal("ci", "team", "static:ci", frozenset({Scope.CHAT, Scope.HISTORY}), ("gpt-4o*",), Quota(daily_usd=2))
    assert found.may_use("gpt-4o-mini", "openai")
    assert not found.may_use("o3", "openai")
    for key, scopes in (("k2", {Scope.CHAT, Scope.ADMIN}), ("k3", DEFAULT_SCOPES)):
        found = await ring.authenticate(key)
        assert found is not None
        assert found.scopes == scopes


@pytest.mark.parametrize(
    ("written", "all_of_it"),
    [({}, True), ({"scopes": None, "models": None}, True), ({"scopes": [], "models": []}, False)],
)
async def test_an_empty_list_allows_nothing(written: dict[str, Any], all_of_it: bool) -> None:
    """An empty list of scopes or models allows none of them; the default holds only if the list is unset or null."""
    ring = load_keys(AuthConfig(keys=(KeyConfig.model_validate({"name": "a", "key_env": "A", **written}),)), {"A": "k"})
    found = await ring.authenticate("k")
    assert found is not None
    assert found.scopes == (DEFAULT_SCOPES if all_of_it else frozenset())
    assert found.may_use("gpt-4o", "openai") is all_of_it


async def test_an_admin_with_an_empty_list_of_scopes_is_an_admin_alone() -> None:
    """A key with `admin: true` and an empty list of scopes has the scope `admin` and no other."""
    key = KeyConfig.model_validate({"name": "a", "key_env": "A", "scopes": [], "admin": True})
    found = await load_keys(AuthConfig(keys=(key,)), {"A": "k"}).authenticate("k")
    assert found is not None
    assert found.scopes == {Scope.ADMIN}


async def test_a_key_is_refused_from_its_expiry_on() -> None:
    """A key is refused from its expiry time on, without a restart. A time without a zone is UTC."""
    end = datetime(2027, 1, 1, tzinfo=UTC)
    now = end - timedelta(microseconds=1)
    ring = KeyRing([(DEV, SecretStr("sk-dev")), (OPS, SecretStr("sk-ops"))], {DEV.id: end}, lambda: now)
    assert await identify(ring, "Bearer sk-dev") == DEV
    now = end
    with pytest.raises(Unauthenticated):
        await identify(Authenticators(ring, KeyRing([(OPS, SecretStr("sk-dev"))])), "Bearer sk-dev")
    assert await identify(ring, "Bearer sk-ops") == OPS
    for written in ("2027-01-01", "2027-01-01T00:00:00", "2027-01-01T02:00:00+02:00"):
        assert KeyConfig(name="a", key_env="A", expire_time=written).expire_time == end
    past = AuthConfig(keys=(KeyConfig(name="old", key_env="A", expire_time="2020-01-01"),))
    with pytest.raises(Unauthenticated):
        await load_keys(past, {"A": "k"}).authenticate("k")


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 101},
        {"name": "a\0b"},
        {"owner": ""},
        {"owner": "x" * 201},
        {"scopes": ["everything"]},
        {"models": [""]},
        {"models": ["x" * 201]},
        {"models": ["x"] * 101},
        {"expire_time": "soon"},
        {"limits": {"daily_usd": -1}},
        {"limits": {"daily_usd": float("inf")}},
        {"quota": {}},
    ],
)
def test_a_configured_key_has_the_bounds_of_a_stored_one(wrong: dict[str, Any]) -> None:
    """A configured key is validated with the same bounds as a key made by `AdminService`."""
    with pytest.raises(ValidationError):
        KeyConfig.model_validate({"name": "a", "key_env": "A", **wrong})


def test_a_keys_name_may_not_look_like_an_issuers_owner() -> None:
    """A key's name may not look like an owner of a token issuer (`corp:ann`), but its `owner` may name one explicitly."""
    with pytest.raises(ValidationError, match="corp:"):
        AuthConfig(keys=(KeyConfig(name="corp:ann", key_env="A"),), tokens=(config(),))
    assert (
        AuthConfig(keys=(KeyConfig(name="robot", owner="corp:ann", key_env="A"),), tokens=(config(),)).keys[0].owner == "corp:ann"
    )


def test_credential_ids_by_owner() -> None:
    """`credentials_of` maps each owner to the audit-log ids of its keys; without configured keys it has the one of ANTIPHON_KEY."""
    keys = (
        KeyConfig(name="laptop", key_env="A", owner="ann"),
        KeyConfig(name="ann", key_env="B"),
        KeyConfig(name="ben", key_env="C"),
    )
    assert credentials_of(AuthConfig(keys=keys)) == {"ann": ["static:laptop", "static:ann"], "ben": ["static:ben"]}
    assert credentials_of(AuthConfig()) == {"default": ["static:default"]}
