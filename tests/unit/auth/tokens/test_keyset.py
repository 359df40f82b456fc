"""Tests of parsing a JSON Web Key Set."""

from typing import Any

import pytest

from antiphon.auth.tokens.keyset import MAX_KEYS, KeysUnusable, parse
from tests.unit.auth.signer import entry, jwks


@pytest.mark.parametrize("name", ["rsa-1", "ec-1", "ec384-1", "ec521-1", "ed-1", "ed448-1"])
def test_public_keys_for_signatures_are_kept(name: str) -> None:
    """Public signature keys of every supported type are kept; other members of an entry do no harm."""
    more = {"use": "sig", "key_ops": ["verify"], "x5t": "abc", "issuer": "https://id.test", "x5c": ["AAAA"]}
    (found,) = parse(jwks(entry(name, **more))).keys
    assert found.kid == name
    assert not found.is_private


@pytest.mark.parametrize(
    "odd",
    [
        {},
        None,
        5,
        "rsa-1",
        [],
        {"kty": "RSA"},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
        {"kty": ["RSA"]},
        {"kty": {}},
        entry("short-1"),
        entry("x-1"),
        entry("rsa-1", n=5),
        entry("rsa-1", n=""),
        entry("rsa-1", n="é"),
        entry("rsa-1", n="!!"),
        entry("rsa-1", n=None),
        entry("rsa-1", e="AQ"),  # an exponent of 1
        entry("rsa-1", e="AA"),
        entry("rsa-1", n="A" * 22000),
        entry("rsa-1", n="_" * 2000),
        entry("rsa-1", use=["sig"]),
        entry("rsa-1", use={}),
        entry("rsa-1", use=5),
        entry("rsa-1", key_ops="sign"),
        entry("rsa-1", key_ops=5),
        entry("rsa-1", key_ops=[{}]),
        entry("rsa-1", use="sig", key_ops=["encrypt"]),
        entry("rsa-1", alg=5),
        entry("rsa-1", alg="none"),
        entry("rsa-1", x5u="file:///etc/passwd"),
        entry("rsa-1", d="AQAB"),
        entry("ec-1", crv="secp256k1"),
        entry("ec-1", crv=[]),
        entry("ec-1", x=entry("ec-1")["y"]),  # not on the curve
        entry("ed-1", x="AAAA"),
        entry("ed-1", crv="Ed25519\0"),
    ],
)
def test_an_unusable_key_is_ignored(odd: Any) -> None:
    """An entry that is not a usable public signature key is ignored and counted; the other keys stay."""
    found = parse(jwks(odd, entry("ec-2")))
    assert [key.kid for key in found.keys] == ["ec-2"]
    assert found.ignored == 1
    assert parse(jwks(odd)).keys == ()


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"[]", b"5", b"{}", b'{"keys": {}}', b'{"keys": null}', b'{"keys": "x"}', b"\xff"]
)
def test_data_that_is_not_a_key_set_raises(data: bytes) -> None:
    """Data that is not a key set raises `KeysUnusable`."""
    with pytest.raises(KeysUnusable):
        parse(data)


def test_a_key_is_found_by_its_name() -> None:
    """A key is found by its id, and keys of several types may share one id.

    Without an id a key is found only if it is the only one.
    """
    found = parse(jwks(entry("rsa-1"), entry("ec-1", kid="rsa-1"), entry("ed-1"), entry("ec-2", kid=None)))
    assert [key.key_type for key in found.find("rsa-1")] == ["RSA", "EC"]
    assert [key.key_type for key in found.find("ed-1")] == ["OKP"]
    assert (found.find("other"), found.find(""), found.find(None)) == ((), (), ())
    assert len(parse(jwks(entry("ec-2", kid=None), {})).find(None)) == 1


def test_the_number_of_entries_is_limited() -> None:
    """At most MAX_KEYS entries of a key set are read, so that a huge set costs no more."""
    found = parse(jwks(*[entry("ed-1")] * (MAX_KEYS + 5)))
    assert (len(found.keys), found.ignored) == (MAX_KEYS, 5)
