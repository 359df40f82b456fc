"""Tests of the form of an API key."""

from antiphon.auth.api_keys.secret import digest, is_well_formed, new_key


def test_a_generated_key_is_well_formed_and_a_changed_one_is_not() -> None:
    """A generated key is well-formed. A key with one changed, missing or added character is not."""
    key = new_key().get_secret_value()
    assert is_well_formed(key)
    for at in range(len("sk-ap-"), len(key)):
        assert not is_well_formed(key[:at] + ("a" if key[at] != "a" else "b") + key[at + 1 :])
    for other in ("", "sk-dev", key + "0", key[:-1], key.replace("sk-ap-", "sk-pa-"), "sk-ap-" + "é" * 51):
        assert not is_well_formed(other)


def test_generated_keys_differ() -> None:
    """A hundred generated keys have a hundred different digests."""
    keys = {new_key().get_secret_value() for _ in range(100)}
    assert len({digest(key) for key in keys}) == 100
