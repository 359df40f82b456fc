"""Static API keys."""

import pytest
from pydantic import SecretStr

from antiphon.auth.keys import KeyRing, Principal, load_keys, new_key
from antiphon.config import AuthConfig, ConfigError, KeyConfig
from antiphon.errors import Unauthenticated

DEV, OPS = Principal("dev", admin=False), Principal("ops", admin=True)
RING = KeyRing([(DEV, SecretStr("sk-dev")), (OPS, SecretStr("sk-ops"))])


@pytest.mark.parametrize("header", ["Bearer sk-ops", "bearer sk-ops", "BEARER  sk-ops "])
def test_a_good_key_tells_who_is_calling(header: str) -> None:
    """Whatever the case of the scheme."""
    assert RING.authenticate(header) == OPS


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "sk-dev", "Basic sk-dev", "Bearer sk-de", "Bearer sk-devs", "Bearer é"]
)
def test_anything_else_is_refused(header: str | None) -> None:
    """No key, half a key, another scheme."""
    with pytest.raises(Unauthenticated) as caught:
        RING.authenticate(header)
    assert "sk-" not in caught.value.message


def test_keys_come_from_where_the_configuration_says() -> None:
    """From its variables; from ANTIPHON_KEY where it names none; never from nowhere."""
    named = AuthConfig(keys=(KeyConfig(name="dev", key_env="DEV_KEY"),))
    assert load_keys(named, {"DEV_KEY": "k1\n"}).authenticate("Bearer k1") == DEV
    assert load_keys(AuthConfig(), {"ANTIPHON_KEY": "k2"}).authenticate("Bearer k2").admin
    for auth in (named, AuthConfig()):
        with pytest.raises(ConfigError):
            load_keys(auth, {})


def test_keys_are_kept_only_as_digests() -> None:
    """Nothing in a key ring holds the key itself."""
    assert "sk-dev" not in repr(vars(RING))
    assert new_key().get_secret_value() != new_key().get_secret_value()
