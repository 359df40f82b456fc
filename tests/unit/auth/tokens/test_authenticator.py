"""Tests of tokens as credentials, with many attacks on the check."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import OctKey, RSAKey
from joserfc.jws import JWSRegistry
from pydantic import SecretStr
from structlog.testing import capture_logs

from antiphon.auth.api_keys.static import KeyRing
from antiphon.auth.base import Authenticators, identify
from antiphon.auth.tokens.authenticator import MAX_TOKEN, MAX_VERIFIED, Issuer, Tokens, load_tokens
from antiphon.auth.tokens.jwks import KeySource, RotatingKeys, SharedSecret
from antiphon.config import AuthConfig, ConfigError, IssuerConfig
from antiphon.domain.errors import Unauthenticated
from antiphon.domain.principal import DEFAULT_SCOPES, Principal
from antiphon.net.fetch import Fetcher
from tests.unit.auth.signer import AUDIENCE, ISSUER, SECRET, at, b64, claims, config, entry, jwks, key, sign

ANN = Principal("corp:ann", owner="corp:ann", id="token:corp:ann", scopes=DEFAULT_SCOPES)


class Clock:
    """A clock that a test sets by hand, in seconds since 1970."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Published:
    """A published key set that counts how often it was read."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.data = jwks(*entries)
        self.reads = 0

    async def __call__(self) -> bytes:
        self.reads += 1
        return self.data


def tokens(keys: KeySource | Published, clock: Callable[[], float] = time.time, **more: Any) -> Tokens:
    settings = config(**more)
    source = RotatingKeys(settings, keys) if isinstance(keys, Published) else keys
    return Tokens({ISSUER: Issuer(settings, source, clock)}, Fetcher(), clock)


def published(*names: str) -> Published:
    return Published(*(entry(name) for name in names or ("rsa-1",)))


async def refused(kinds: Tokens, token: str) -> Unauthenticated:
    """Return the 401 of a call with this token. Assert that neither the error nor the log repeats any part of the token."""
    with capture_logs() as logs, pytest.raises(Unauthenticated) as caught:
        await identify(Authenticators(KeyRing(()), kinds), f"Bearer {token}")
    output = f"{caught.value} {caught.value.__cause__} {logs}"
    assert not any(len(part) > 8 and part in output for part in token.split("."))
    assert "ann" not in output
    return caught.value


@pytest.mark.parametrize(
    ("name", "alg"),
    [
        ("rsa-1", "RS256"),
        ("rsa-1", "RS384"),
        ("rsa-1", "RS512"),
        ("rsa-1", "PS256"),
        ("ec-1", "ES256"),
        ("ec384-1", "ES384"),
        ("ec521-1", "ES512"),
        ("ed-1", "EdDSA"),
        ("ed-1", "Ed25519"),
        ("ed448-1", "EdDSA"),
    ],
)
async def test_a_valid_token_identifies_its_principal(name: str, alg: str) -> None:
    """A token is accepted with every public-key algorithm. A plain OpenID Connect token gets the default scopes."""
    assert await tokens(published("rsa-2", name)).authenticate(sign(claims(), name, alg)) == ANN


@pytest.mark.parametrize("alg", ["HS256", "HS512"])
async def test_a_token_signed_with_the_shared_secret(alg: str) -> None:
    """A shared secret checks HS256 by default, and HS384 and HS512 only if the configuration names them."""
    secret = "s" * 64
    auth = AuthConfig(tokens=(config(secret_env="S", algorithms=() if alg == "HS256" else (alg,)),))  # noqa: S106 - the name of a variable
    made = load_tokens(auth, {"S": secret})
    signed = f"{b64(json.dumps({'alg': alg}).encode())}.{b64(json.dumps(claims()).encode())}"
    signature = JWSRegistry.algorithms[alg].sign(signed.encode(), OctKey.import_key(secret.encode()))
    assert await made.authenticate(f"{signed}.{b64(signature)}") == ANN
    await refused(made, f"{signed}.{b64(signature[:-1] + bytes([signature[-1] ^ 1]))}")
    await refused(made, sign(claims(), "oct-1", "HS256"))
    await refused(made, sign(claims()))
    await made.close()


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "at+jwt"},
        {"typ": "application/at+JWT"},
        {"typ": None},
        {"kid": None},
        {"x5t": "abc", "nonce": "n", "signer": 5},
        {"jku": "https://evil.test/jwks", "x5u": "https://evil.test/x5u"},
        {"jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}},
    ],
)
async def test_what_a_header_says_besides_does_not_matter(header: dict[str, Any]) -> None:
    """Keys and URLs in a token's header are ignored. A token without a key id is checked with the issuer's only key."""
    keys = published()
    assert await tokens(keys).authenticate(sign(claims(), **header)) == ANN
    assert keys.reads == 1


@pytest.mark.parametrize("aud", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE], "second"])
async def test_one_audience_of_several_is_enough(aud: Any) -> None:
    """One common audience is enough, whether the token or the configuration lists several."""
    assert await tokens(published(), audience=[AUDIENCE, "second"]).authenticate(sign(claims(aud=aud))) == ANN


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://evil.test"},
        {"iss": f"{ISSUER}/"},
        {"iss": ISSUER.upper()},
        {"iss": [ISSUER]},
        {"iss": None},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": AUDIENCE.upper()},
        {"aud": f"{AUDIENCE} other"},
        {"aud": []},
        {"aud": {AUDIENCE: AUDIENCE}},
        {"aud": [AUDIENCE, 5]},
        {"aud": 5},
        {"aud": None},
        {"exp": at(-31)},
        {"exp": at(-1_000_000)},
        {"exp": 0},
        {"exp": -1},
        {"exp": None},
        {"exp": lambda now: str(now + 300)},
        {"exp": True},
        {"exp": lambda now: [now + 300]},
        {"exp": {}},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"nbf": at(300)},
        {"nbf": str},
        {"nbf": float("nan")},
        {"iat": at(300)},
        {"iat": "yesterday"},
        {"sub": None},
        {"sub": ""},
        {"sub": " "},
        {"sub": 5},
        {"sub": True},
        {"sub": ["ann"]},
        {"sub": {"ann": 1}},
        {"sub": "ann\0"},
        {"sub": "ann\nadmin"},
        {"sub": "ann\r"},
        {"sub": "ann\u2028"},
        {"sub": "ann\u202enna"},
        {"sub": "\ud800"},
        {"sub": "a" * 256},
        {"jti": 5},
        {"token_use": "refresh"},
        {"token_type": "refresh_token"},
        {"typ": "Refresh"},
        {"typ": "Offline"},
        {"token_use": "id"},
        {"typ": "ID"},
    ],
)
async def test_claims_that_are_not_right_are_refused(wrong: dict[str, Any]) -> None:
    """A token of the issuer with a wrong or malformed issuer, audience, time, subject or token type is refused."""
    await refused(tokens(published()), sign(claims(**wrong)))


COGNITO: dict[str, Any] = {"aud": None, "client_id": "app-1", "token_use": "access", "scope": "aws.cognito.signin.user.admin"}


async def test_a_token_without_an_audience_is_good_by_its_client() -> None:
    """An AWS Cognito access token, which has no audience, is accepted if its client id is configured.

    A token with an audience is accepted too.
    """
    assert await tokens(published(), audience=[], client_ids=["app-0", "app-1"]).authenticate(sign(claims(**COGNITO))) == ANN
    assert await tokens(published(), audience=[], client_ids="app-1").authenticate(sign(claims(**COGNITO), typ=None)) == ANN
    both = tokens(published(), client_ids=["app-1"])
    assert await both.authenticate(sign(claims(**COGNITO))) == ANN
    assert await both.authenticate(sign(claims())) == ANN


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "app-2"},
        {"client_id": "APP-1"},
        {"client_id": "app-1 "},
        {"client_id": None},
        {"client_id": ""},
        {"client_id": ["app-1"]},
        {"client_id": {"app-1": 1}},
        {"client_id": None, "azp": "app-1"},
        {"token_use": "id"},
        {"token_use": "Access"},
        {"token_use": None},
        {"token_use": ["access"]},
        {"token_use": "refresh"},
        # A Cognito ID token, and a token that is both ID and access token.
        {"client_id": None, "token_use": "id", "aud": "app-1"},
        {"token_use": "id", "aud": "app-1"},
        # Tokens for another audience, which is never ignored.
        {"aud": "https://other.test"},
        {"aud": "app-1"},
        {"aud": ["app-1"]},
        {"aud": ""},
        {"aud": []},
        {"aud": {}},
        {"aud": 0},
        {"aud": False},
        {"iss": "https://evil.test"},
        {"exp": at(-31)},
        {"sub": None},
    ],
)
@pytest.mark.parametrize("audience", [[], [AUDIENCE]], ids=["clients alone", "audience too"])
async def test_a_token_of_another_client_is_refused(wrong: dict[str, Any], audience: list[str]) -> None:
    """A token of another client, an ID or refresh token, or one for another audience is refused, though the issuer signed it."""
    await refused(tokens(published(), audience=audience, client_ids=["app-1"]), sign(claims(**COGNITO | wrong)))


async def test_without_client_ids_an_audience_is_needed() -> None:
    """Without configured client ids, a token that has no audience is refused, whatever its client id is."""
    await refused(tokens(published()), sign(claims(**COGNITO)))
    await refused(tokens(published()), sign(claims(**COGNITO | {"client_id": AUDIENCE})))
    forged = sign(claims(**COGNITO), "rsa-2", kid="rsa-1")
    await refused(tokens(published(), audience=[], client_ids=["app-1"]), forged)


async def test_clocks_may_be_apart_by_the_leeway() -> None:
    """Times in a token may be off by the leeway and no more.

    The error of an expired token says so, because its holder can get a new one.
    """
    kinds = tokens(published(), leeway=30)
    for good in ({"exp": at(-20)}, {"nbf": at(20)}, {"iat": at(20)}, {"nbf": at(-5), "exp": at(100.5)}):
        assert await kinds.authenticate(sign(claims(**good))) == ANN
    assert (await refused(kinds, sign(claims(exp=at(-40))))).message == "The token has expired."
    await refused(tokens(published(), leeway=0), sign(claims(iat=at(20))))


@pytest.mark.parametrize("spelling", ["none", "None", "NONE", "nOnE", "", "none ", " none", "null", None, 0, False, ["none"], {}])
@pytest.mark.parametrize("signature", ["", "AAAA"])
async def test_a_token_that_is_not_signed_is_refused(spelling: Any, signature: str) -> None:
    """An unsigned token is refused however it spells the algorithm `none`, and the key set is not read for it."""
    keys = published()
    header = json.dumps({"alg": spelling, "kid": "rsa-1"}).encode()
    await refused(tokens(keys), f"{b64(header)}.{b64(json.dumps(claims()).encode())}.{signature}")
    assert keys.reads == 0


async def test_a_public_key_is_not_accepted_as_a_secret() -> None:
    """A token signed by HS256 with the public RSA key as the secret is refused: as PEM, DER, JWK or modulus."""
    kinds = tokens(published())
    rsa = key("rsa-1")
    assert isinstance(rsa, RSAKey)
    known = [rsa.as_pem(), rsa.as_pem().strip(), rsa.as_der(), json.dumps(entry("rsa-1")).encode(), entry("rsa-1")["n"].encode()]
    for secret in known:
        for alg in ("HS256", "HS384", "HS512"):
            digest = getattr(hashlib, f"sha{alg[2:]}")
            signed = f"{b64(json.dumps({'alg': alg, 'kid': 'rsa-1'}).encode())}.{b64(json.dumps(claims()).encode())}"
            await refused(kinds, f"{signed}.{b64(hmac.new(secret, signed.encode(), digest).digest())}")
    with pytest.raises(ConfigError, match="public key"):
        SharedSecret(SecretStr(rsa.as_pem().decode()))


@pytest.mark.parametrize(
    ("by", "alg", "header"),
    [
        ("rsa-9", "RS256", {"kid": "rsa-1"}),  # another key with a valid key id
        ("rsa-9", "RS256", {"kid": "rsa-1", "jwk": {}}),
        ("rsa-9", "RS256", {"kid": "rsa-1", "jku": "https://id.test.evil.test/jwks"}),
        ("rsa-9", "RS256", {"kid": "rsa-1", "x5u": "https://evil.test/cert"}),
        ("rsa-9", "RS256", {"kid": "rsa-1", "x5c": ["AAAA"]}),
        ("rsa-9", "RS256", {"kid": "rsa-9"}),
        ("rsa-1", "RS256", {"kid": "RSA-1"}),
        ("rsa-1", "RS256", {"kid": None}),  # there are several keys
        ("rsa-1", "RS256", {"kid": ""}),
        ("rsa-1", "RS256", {"kid": 1}),
        ("rsa-1", "RS256", {"kid": ["rsa-1"]}),
        ("rsa-1", "RS256", {"kid": {"rsa-1": 1}}),
        ("rsa-1", "RS256", {"kid": "../../etc/passwd"}),
        ("rsa-1", "RS256", {"kid": "rsa-1' OR '1'='1"}),
        ("rsa-1", "RS256", {"kid": "ec-1"}),  # a key of another kind
        ("ec-1", "ES256", {"kid": "rsa-1"}),
        ("rsa-1", "RS256", {"alg": "RS384"}),  # signed with another algorithm than the header's
        ("rsa-1", "RS256", {"alg": "PS256"}),
        ("rsa-1", "RS256", {"alg": "rs256"}),
        ("rsa-1", "RS256", {"alg": "RS256 "}),
        ("rsa-1", "RS256", {"alg": None}),
        ("rsa-1", "RS256", {"alg": ["RS256"]}),
        ("rsa-1", "RS256", {"alg": "ES256"}),
        ("rsa-1", "RS256", {"alg": "RSA-OAEP"}),
        ("rsa-1", "RS256", {"alg": "dir", "enc": "A128GCM"}),
        ("rsa-1", "RS256", {"crit": ["exp"]}),
        ("rsa-1", "RS256", {"crit": ["exp"], "exp": 1}),
        ("rsa-1", "RS256", {"crit": ["b64"], "b64": True}),
        ("rsa-1", "RS256", {"crit": ["b64"], "b64": False}),
        ("rsa-1", "RS256", {"b64": False}),
        ("rsa-1", "RS256", {"crit": []}),
        ("rsa-1", "RS256", {"crit": "exp"}),
        ("rsa-1", "RS256", {"crit": [{}]}),
        ("rsa-1", "RS256", {"crit": 0}),
        ("rsa-1", "RS256", {"typ": "logout+jwt"}),
        ("rsa-1", "RS256", {"typ": "dpop+jwt"}),
        ("rsa-1", "RS256", {"typ": ["JWT"]}),
        ("rsa-1", "RS256", {"jku": 5}),
        ("rsa-1", "RS256", {"x5c": "AAAA"}),
    ],
)
async def test_keys_and_headers_that_do_not_fit_are_refused(by: str, alg: str, header: dict[str, Any]) -> None:
    """A token with a wrong key, key id, algorithm or header is refused, and causes at most one read of the key set."""
    keys = published("rsa-1", "ec-1", "ed-1")
    await refused(tokens(keys), sign(claims(), by, alg, **header))
    assert keys.reads <= 1


@pytest.mark.parametrize(
    ("published_entry", "by", "alg"),
    [
        (entry("short-1"), "short-1", "RS256"),  # 1024 bits
        ({"kty": "oct", "k": b64(SECRET.encode()), "kid": "oct-1"}, "oct-1", "HS256"),
        ({"kty": "oct", "k": b64(SECRET.encode()), "kid": "oct-1", "alg": "RS256"}, "oct-1", "HS256"),
        (entry("rsa-1", use="enc"), "rsa-1", "RS256"),
        (entry("rsa-1", alg="RS512"), "rsa-1", "RS256"),
        (entry("rsa-1", alg="RSA-OAEP"), "rsa-1", "RS256"),
        (entry("rsa-1", alg="HS256"), "rsa-1", "RS256"),
        (entry("rsa-1", key_ops=["encrypt"]), "rsa-1", "RS256"),
        (entry("rsa-1", kty="EC"), "rsa-1", "RS256"),
        (entry("ec-1", kty="RSA"), "ec-1", "ES256"),
        (entry("ec-1", crv="P-384"), "ec-1", "ES256"),
        (entry("ed-1", crv="X25519"), "ed-1", "EdDSA"),
        (key("rsa-1").as_dict(private=True), "rsa-1", "RS256"),  # a published private key
        (entry("rsa-1", kid=5), "rsa-1", "RS256"),
        (entry("rsa-1", kid=None), "rsa-1", "RS256"),
    ],
)
async def test_an_unsuitable_key_verifies_no_token(published_entry: dict[str, Any], by: str, alg: str) -> None:
    """A published key that is weak, symmetric, private, or of another use, algorithm or type verifies no token."""
    await refused(tokens(Published(published_entry, entry("rsa-2"))), sign(claims(), by, alg))


@pytest.mark.parametrize("alg", ["RS384", "ES256"])
async def test_only_algorithms_that_the_configuration_names_are_good(alg: str) -> None:
    """A token with an algorithm that the configuration does not list is refused, though the key would verify it."""
    kinds = tokens(published("rsa-1", "ec-1"), algorithms=("RS256",))
    assert await kinds.authenticate(sign(claims())) == ANN
    await refused(kinds, sign(claims(), "rsa-1" if alg == "RS384" else "ec-1", alg))


def mangled() -> list[str]:
    good = sign(claims())
    head, body, signature = good.split(".")
    deep = b"[" * 1000 + b"]" * 1000
    twice = b'{"alg": "RS256", "alg": "none", "kid": "rsa-1"}'
    return [
        f"{good}.{signature}",
        f"{head}.{body}.{signature}.{signature}.{signature}",
        f"{head}.{body}",
        f"{head}.{body}.",
        f"{head}..{signature}",
        f".{body}.{signature}",
        "..",
        f"{head}.{head}.{signature}",
        f"{body}.{body}.{signature}",
        f"{head}.{body}.{body}",
        f"{head}.{body}.{signature[:-4]}",
        f"{head}.{body}.{signature}=",
        f"{head}\n.{body}.{signature}",
        f"{head}=.{body}.{signature}",
        f"{head}.{body}.{signature}AAAA",
        f"{head}.{body}.A",
        f"{head}.{body}.++//",
        f"{head}.{body[:-1]}.{signature}",
        f"{head}.{body}é.{signature}",
        f"{head}!.{body}.{signature}",
        f"{head}.{b64(b'not JSON')}.{signature}",
        f"{head}.{b64(b'[]')}.{signature}",
        f"{head}.{b64(b'null')}.{signature}",
        f"{b64(b'not JSON')}.{body}.{signature}",
        f"{b64(b'[]')}.{body}.{signature}",
        f"{b64(bytes(range(256)))}.{body}.{signature}",
        sign(claims(), header=twice),
        sign(claims(), header=b'{"alg": "RS256", "kid": "rsa-1", "deep": ' + deep + b"}"),
        sign(claims(), header=json.dumps({"alg": "RS256", "kid": "rsa-1"}).encode("utf-16")),
        sign(claims(), header=b'\xef\xbb\xbf{"alg": "RS256", "kid": "rsa-1"}'),
        sign(json.dumps(claims()).encode("utf-16")),
        sign(b'{"iss": "' + ISSUER.encode() + b'", "aud": "antiphon", "sub": "ann", "exp": 1e999}'),
        sign(b'{"iss": "' + ISSUER.encode() + b'", "aud": "antiphon", "sub": "ann", "exp": -' + b"9" * 400 + b"}"),
        sign(b'{"iss": "' + ISSUER.encode() + b'", "aud": "antiphon", "sub": "ann", "exp": ' + deep + b"}"),
        sign(b'{"iss": "' + ISSUER.encode() + b'", "aud": "antiphon", "sub": "ann", "exp": 9999999999, "sub": 5}'),
    ]


@pytest.mark.parametrize("number", range(len(mangled())))
async def test_a_malformed_token_is_refused(number: int) -> None:
    """A malformed token is refused: wrong number of segments, bad base64, bad JSON, or a member that occurs twice."""
    await refused(tokens(published()), mangled()[number])


async def test_a_token_changed_in_any_place_is_refused() -> None:
    """A token with one character changed or cut at any position is refused."""
    kinds = tokens(published("ec-1"))
    good = sign(claims(), "ec-1", "ES256")
    assert await kinds.authenticate(good) == ANN
    for place in range(len(good)):
        before, after = good[:place], good[place + 1 :]
        other = "B" if good[place] == "A" else "A"
        for bad in (before + other + after, before, f"{before}.{after}", f"{before}\0{after}"):
            if bad != good:
                with pytest.raises(Unauthenticated):
                    await identify(kinds, f"Bearer {bad}")


async def test_a_huge_token_is_not_looked_at() -> None:
    """A token of MAX_TOKEN characters is accepted; a longer one is refused without being read."""
    kinds = tokens(published())
    room = MAX_TOKEN - len(sign(claims(pad="")))
    longest = sign(claims(pad="x" * (room * 3 // 4)))
    assert MAX_TOKEN - 4 < len(longest) <= MAX_TOKEN
    assert await kinds.authenticate(longest) == ANN
    for more in (sign(claims(pad="x" * room)), f"{'A' * MAX_TOKEN}.{'A' * MAX_TOKEN}.A", longest.replace(".", "." + "A" * 10**6)):
        await refused(kinds, more)


@pytest.mark.parametrize(
    "credential",
    [
        "sk-abc",
        "",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "é.é.é",
        "sk-or.v1.abc",
        sign(claims(iss="https://other.test")),
        sign(claims(aud="api")),
    ],
)
async def test_other_credentials_are_left_to_other_authenticators(credential: str) -> None:
    """A credential that no configured issuer can have signed gives None, because it may be a provider's key.

    No key set is read for it.
    """
    keys = published()
    assert await tokens(keys).authenticate(credential) is None
    assert keys.reads == 0


async def test_a_token_is_checked_once_and_known_for_a_while() -> None:
    """A verified token is accepted from the cache for at most a minute, and never after its expiry."""
    clock = Clock()
    keys = published()
    kinds = tokens(keys, clock)
    token, short = sign(claims(exp=int(clock.now) + 300)), sign(claims(exp=int(clock.now) + 10))
    assert (await kinds.authenticate(token), await kinds.authenticate(short)) == (ANN, ANN)
    keys.data = jwks()
    await kinds._issuers[ISSUER]._keys._set.renew()  # type: ignore[attr-defined]
    clock.now += 9
    assert (await kinds.authenticate(token), await kinds.authenticate(short)) == (ANN, ANN)
    clock.now += 2
    assert await kinds.authenticate(token) == ANN
    await refused(kinds, short)
    clock.now += 50
    await refused(kinds, token)


async def test_a_token_in_its_leeway_is_not_remembered() -> None:
    """A token that is accepted only by the leeway is not cached, and is verified each time."""
    clock = Clock()
    kinds = tokens(published(), clock)
    token = sign(claims(exp=int(clock.now) - 10))
    assert await kinds.authenticate(token) == ANN
    clock.now += 25
    await refused(kinds, token)


async def test_the_cache_is_bounded_and_holds_digests() -> None:
    """The cache holds at most MAX_VERIFIED tokens, as digests, and drops the oldest first."""
    kinds = tokens(published("ed-1"))
    first = sign(claims(n=0), "ed-1", "EdDSA")
    for number in range(MAX_VERIFIED + 10):
        kinds._remember(number.to_bytes(32, "big"), ANN, time.time() + 60)
    await kinds.authenticate(first)
    assert len(kinds._verified) == MAX_VERIFIED
    assert (10).to_bytes(32, "big") not in kinds._verified
    assert first not in repr(kinds._verified)


async def test_two_issuers_may_call_two_people_the_same() -> None:
    """Two issuers with the same subject give two owners. A token of one issuer that the other has signed is refused."""
    one, two = config(), config(name="shop", issuer="https://shop.test")
    keys = {"rsa-1": RotatingKeys(one, published("rsa-1")), "rsa-2": RotatingKeys(two, Published(entry("rsa-2", kid="rsa-1")))}
    kinds = Tokens({one.issuer: Issuer(one, keys["rsa-1"]), two.issuer: Issuer(two, keys["rsa-2"])}, Fetcher())
    shop = await kinds.authenticate(sign(claims(iss="https://shop.test"), "rsa-2", kid="rsa-1"))
    assert shop is not None
    assert (shop.owner, shop.id) == ("shop:ann", "token:shop:ann")
    assert await kinds.authenticate(sign(claims())) == ANN
    await refused(kinds, sign(claims(iss="https://shop.test"), "rsa-1"))
    await refused(kinds, sign(claims(), "rsa-2", kid="rsa-1"))


async def test_concurrent_calls_read_the_key_set_once() -> None:
    """Fifty concurrent calls with different tokens read the key set once."""
    keys = published("ed-1")
    kinds = tokens(keys)
    found = await asyncio.gather(*(kinds.authenticate(sign(claims(n=n), "ed-1", "EdDSA")) for n in range(50)))
    assert found == [ANN] * 50
    assert keys.reads == 1


@pytest.mark.parametrize(
    ("settings", "environment", "where"),
    [
        ({"secret_env": "S"}, {}, "S is not set"),
        ({"secret_env": "S"}, {"S": "x" * 31}, "less than 32 bytes"),
        ({"secret_env": "S", "algorithms": ("HS256", "HS512")}, {"S": "x" * 63}, "less than 64 bytes"),
        ({"jwks_file": "/nowhere/jwks.json"}, {}, "/nowhere/jwks.json"),
        ({"jwks_url": "http://id.test/jwks"}, {}, "jwks_url: not an https URL"),
        ({"jwks_url": "http://127.0.0.1.id.test/jwks"}, {}, "jwks_url"),
        ({"jwks_url": "https://a:b@id.test/jwks"}, {}, "password"),
        ({"jwks_url": "ftp://id.test/jwks"}, {}, "jwks_url"),
        ({"jwks_url": "https://"}, {}, "jwks_url"),
        ({"issuer": "corp"}, {}, "issuer"),
        ({"issuer": "http://id.test"}, {}, "issuer"),
        ({"issuer": "https://id.test#x"}, {}, "issuer"),
    ],
)
def test_impossible_settings_are_refused_at_start(settings: dict[str, Any], environment: dict[str, str], where: str) -> None:
    """A missing or short secret, a missing file and an unsafe URL are a `ConfigError` at the start, which names the setting."""
    with pytest.raises(ConfigError, match=where) as caught:
        load_tokens(AuthConfig(tokens=(config(**settings),)), environment)
    assert "xxx" not in str(caught.value)


def test_an_issuers_configuration_is_validated() -> None:
    """The configuration of an issuer is validated.

    It needs one source of keys, matching algorithms, an audience and a unique name, and may not give `admin` by default.
    """
    for wrong in (
        {"audience": []},
        {"audience": [], "client_ids": []},
        {"audience": [], "client_ids": [""]},
        {"name": "a:b"},
        {"name": ""},
        {"issuer": ""},
        {"secret_env": "S", "jwks_url": "https://x.test"},
        {"secret_env": "S", "algorithms": ["RS256"]},
        {"algorithms": ["HS256"]},
        {"secret_env": "S", "algorithms": ["HS256", "RS256"]},
        {"algorithms": ["none"]},
        {"default_scopes": ["chat", "admin"]},
        {"scopes": {"x": ["everything"]}},
        {"leeway": 301},
    ):
        with pytest.raises(ValueError, match="validation error"):
            config(**wrong)
    with pytest.raises(ValueError, match="same name"):
        AuthConfig(tokens=(config(), config(issuer="https://x.test")))
    with pytest.raises(ValueError, match="same issuer"):
        AuthConfig(tokens=(config(), config(name="other")))
    key_of_that_name = {"name": "corp:ann", "key_env": "K"}
    with pytest.raises(ValueError, match="owner of an issuer's"):
        AuthConfig.model_validate({"keys": [key_of_that_name], "tokens": [config().model_dump()]})
    IssuerConfig.model_validate({"name": "a", "issuer": "b", "audience": "c", "secret_env": "S", "algorithms": ["HS384"]})
