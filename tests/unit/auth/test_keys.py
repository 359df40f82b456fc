"""Static API keys."""

import pytest
from pydantic import SecretStr

from antiphon.auth.base import Authenticators, identify
from antiphon.auth.keys import KeyRing, load_keys
from antiphon.config import AuthConfig, ConfigError, KeyConfig
from antiphon.errors import Unauthenticated
from antiphon.principal import EVERYDAY, Principal, Scope
from tests.unit.auth.signer import config

DEV = Principal("dev", owner="dev", id="static:dev")
OPS = Principal("ops", owner="ops", id="static:ops", scopes=EVERYDAY | {Scope.ADMIN})
RING = KeyRing([(DEV, SecretStr("sk-dev")), (OPS, SecretStr("sk-ops"))])


@pytest.mark.parametrize("header", ["Bearer sk-ops", "bearer sk-ops", "BEARER  sk-ops "])
async def test_a_good_key_tells_who_is_calling(header: str) -> None:
    """Whatever the case of the scheme."""
    assert await identify(RING, header) == OPS


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "sk-dev", "Basic sk-dev", "Bearer sk-de", "Bearer sk-devs", "Bearer é"]
)
async def test_anything_else_is_refused(header: str | None) -> None:
    """No key, half a key, another scheme."""
    with pytest.raises(Unauthenticated) as caught:
        await identify(RING, header)
    assert "sk-" not in caught.value.message


async def test_keys_come_from_where_the_configuration_says() -> None:
    """From its variables; from ANTIPHON_KEY where it names none; never from nowhere."""
    named = AuthConfig(keys=(KeyConfig(name="dev", key_env="DEV_KEY"),))
    assert await load_keys(named, {"DEV_KEY": "k1\n"}).authenticate("k1") == DEV
    found = await load_keys(AuthConfig(), {"ANTIPHON_KEY": "k2"}).authenticate("k2")
    assert found is not None
    assert found.admin
    for auth in (named, AuthConfig()):
        with pytest.raises(ConfigError):
            load_keys(auth, {})


async def test_there_may_be_no_key_where_tokens_are_good() -> None:
    """The one in ANTIPHON_KEY is good all the same, if it is there."""
    auth = AuthConfig(tokens=(config(),))
    assert await load_keys(auth, {}).authenticate("") is None
    assert await load_keys(auth, {"ANTIPHON_KEY": "k2"}).authenticate("k2") is not None


def test_keys_are_kept_only_as_digests() -> None:
    """Nothing in a key ring holds the key itself."""
    assert "sk-dev" not in repr(vars(RING))


async def test_the_first_kind_that_knows_a_credential_decides() -> None:
    """And none that no kind knows."""
    other = KeyRing([(DEV, SecretStr("sk-ops")), (OPS, SecretStr("sk-other"))])
    kinds = Authenticators(RING, other)
    assert await kinds.authenticate("sk-ops") == OPS
    assert await kinds.authenticate("sk-other") == OPS
    assert await kinds.authenticate("sk-none") is None


@pytest.mark.parametrize(
    ("names", "values"), [(("a", "b"), ("same", "same")), (("a", "a"), ("one", "other"))], ids=["one key", "one name"]
)
def test_twins_are_refused(names: tuple[str, str], values: tuple[str, str]) -> None:
    """Nobody could tell whose the conversations are."""
    keys = tuple(KeyConfig(name=name, key_env=variable) for name, variable in zip(names, ("K1", "K2"), strict=True))
    with pytest.raises(ConfigError):
        load_keys(AuthConfig(keys=keys), dict(zip(("K1", "K2"), values, strict=True)))


def test_a_key_of_two_lines_is_refused() -> None:
    """No header could carry it."""
    with pytest.raises(ConfigError) as caught:
        load_keys(AuthConfig(keys=(KeyConfig(name="a", key_env="K1"),)), {"K1": "sk-a\nsk-b"})
    assert "sk-a" not in str(caught.value)
