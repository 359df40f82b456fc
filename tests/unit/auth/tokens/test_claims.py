"""Tests of how the claims of a token become a principal."""

from typing import Any

import pytest

from antiphon.auth.tokens.claims import ClaimMapping, ClaimUnusable
from antiphon.domain.principal import DEFAULT_SCOPES, Principal, Scope
from tests.unit.auth.signer import config


def principal(settings: dict[str, Any], **claims: Any) -> Principal:
    return ClaimMapping(config(**settings)).principal({"sub": "ann", **claims})


@pytest.mark.parametrize(
    ("settings", "owner"),
    [
        ({}, "corp:ann"),
        ({"owner_prefix": ""}, "ann"),
        ({"owner_prefix": "old-corp:"}, "old-corp:ann"),
        ({"owner_claim": "email"}, "corp:ann@corp.test"),
        ({"owner_claim": "org.unit"}, "corp:sales"),
        ({"owner_claim": "https://corp.test/user"}, "corp:ann7"),
    ],
)
def test_the_owner_comes_from_a_claim(settings: dict[str, Any], owner: str) -> None:
    """The owner is the configured claim (a name or a dotted path) behind the issuer's name or another prefix.

    The id always comes from the subject.
    """
    claims = {"email": "ann@corp.test", "org": {"unit": "sales"}, "https://corp.test/user": "ann7"}
    found = principal(settings, **claims)
    assert (found.owner, found.name, found.id) == (owner, owner, "token:corp:ann")


@pytest.mark.parametrize("wrong", [None, 5, True, "", " ", [], ["a"], {}, "a\0", "a\n", "a\x7f", "a\u200b", "\ud800", "a" * 256])
def test_an_owner_is_a_name_in_one_line(wrong: Any) -> None:
    """An owner claim must be a text of at most 255 visible characters in one line; anything else raises `ClaimUnusable`."""
    with pytest.raises(ClaimUnusable, match="email"):
        principal({"owner_claim": "email"}, email=wrong)
    with pytest.raises(ClaimUnusable, match="a.b.c"):
        principal({"owner_claim": "a.b.c"}, a={"b": "c"})
    assert principal({"name_claim": "email"}, email=wrong).name == "corp:ann"


def test_the_name_comes_from_a_claim() -> None:
    """The principal's name comes from `name_claim` if that is configured; the owner stays the same."""
    found = principal({"name_claim": "preferred_username"}, preferred_username="Ann Onymous")
    assert (found.name, found.owner) == ("Ann Onymous", "corp:ann")


MAPPING = {"llm.chat": ["chat"], "llm.all": ["chat", "history", "proxy", "engine"], "llm.boss": ["admin"]}


@pytest.mark.parametrize(
    ("settings", "claims", "scopes"),
    [
        ({}, {}, DEFAULT_SCOPES),
        ({}, {"scope": "openid email profile"}, DEFAULT_SCOPES),
        ({}, {"scope": "admin chat"}, DEFAULT_SCOPES),  # without a mapping a token's scope is not one of ours
        ({"default_scopes": ["chat"]}, {"scope": "openid"}, {Scope.CHAT}),
        ({"default_scopes": []}, {"scope": "openid"}, set()),
        ({"scopes": {}}, {"scope": "llm.chat"}, set()),
        ({"scopes": {}}, {}, DEFAULT_SCOPES),
        ({"scopes": None}, {"scope": "llm.chat"}, DEFAULT_SCOPES),
        ({"scopes": {"llm.chat": []}}, {"scope": "llm.chat"}, set()),
        ({"scopes": MAPPING}, {}, DEFAULT_SCOPES),
        ({"scopes": MAPPING, "default_scopes": ["chat"]}, {}, {Scope.CHAT}),
        ({"scopes": MAPPING, "default_scopes": ["chat"]}, {"scope": None}, set()),
        ({"scopes": MAPPING}, {"scp": None, "scope": "llm.chat"}, {Scope.CHAT}),
        ({"default_scopes": ["chat"]}, {"scope": None}, {Scope.CHAT}),
        ({"scopes": MAPPING, "scope_claim": "realm.roles"}, {"realm": {"roles": None}}, set()),
        ({"scopes": MAPPING, "scope_claim": "realm.roles"}, {"realm": {}}, DEFAULT_SCOPES),
        ({"scopes": MAPPING, "scope_claim": "realm.roles"}, {"realm": None}, set()),
        ({"scopes": MAPPING}, {"scope": "openid"}, set()),
        ({"scopes": MAPPING}, {"scope": ""}, set()),
        ({"scopes": MAPPING}, {"scope": []}, set()),
        ({"scopes": MAPPING}, {"scope": "openid", "scp": ["llm.chat"]}, {Scope.CHAT}),
        ({"scopes": MAPPING}, {"scope": "openid llm.chat"}, {Scope.CHAT}),
        ({"scopes": MAPPING}, {"scope": ["llm.chat", 5, None]}, {Scope.CHAT}),
        ({"scopes": MAPPING}, {"scp": "llm.chat"}, {Scope.CHAT}),
        ({"scopes": MAPPING}, {"scp": ["llm.chat"], "scope": "llm.boss"}, {Scope.CHAT, Scope.ADMIN}),
        ({"scopes": MAPPING}, {"scope": "llm.all llm.boss"}, DEFAULT_SCOPES | {Scope.ADMIN}),
        ({"scopes": MAPPING}, {"scope": "llm.chatter"}, set()),
        ({"scopes": MAPPING}, {"scope": {"llm.boss": 1}}, set()),
        ({"scopes": MAPPING}, {"scope": 5}, set()),
        ({"scopes": MAPPING, "scope_claim": "realm.roles"}, {"realm": {"roles": ["llm.chat"]}, "scope": "llm.boss"}, {Scope.CHAT}),
    ],
)
def test_scopes_are_what_the_mapping_says(settings: dict[str, Any], claims: dict[str, Any], scopes: set[Scope]) -> None:
    """Scopes are mapped from a text or a list in `scope`, `scp` or the configured claim.

    The default holds only for tokens without such a claim.
    """
    assert principal(settings, **claims).scopes == scopes


@pytest.mark.parametrize(
    ("value", "claim", "admin"),
    [
        ("boss", "boss", True),
        ("boss", ["user", "boss"], True),
        ("boss", "boss user", False),
        ("boss", "Boss", False),
        ("boss", ["bosses"], False),
        ("boss", {"boss": True}, False),
        ("boss", True, False),
        ("boss", None, False),
        ("True", True, False),
        (True, True, True),
        (True, [True], True),
        (True, "true", False),
        (True, 1, False),
        (True, [1], False),
        (True, False, False),
    ],
)
def test_a_claim_makes_an_admin(value: str | bool, claim: Any, admin: bool) -> None:
    """A caller is an admin only if the configured claim has exactly the configured value and type."""
    found = principal({"admin": {"claim": "groups", "value": value}}, groups=claim)
    assert (Scope.ADMIN in found.scopes) is admin
    assert found.scopes >= DEFAULT_SCOPES
    assert Scope.ADMIN not in principal({}, groups=claim, admin=True, is_admin=True, scopes=["admin"]).scopes
