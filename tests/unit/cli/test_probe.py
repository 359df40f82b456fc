"""Tests of `antiphon check-config --probe` with real PostgreSQL, Redis, TLS hosts, a token issuer and an outbound proxy."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from joserfc.jwk import ECKey

from antiphon.cli.probe import probe
from antiphon.config.file import load
from antiphon.database.migrate import migrate
from tests.certificates import Authority
from tests.odd_upstream import HANG, OddUpstream, answer
from tests.ports import free_port
from tests.postgres import Postgres
from tests.redis import Redis
from tests.token_endpoint import TokenEndpoint

KEY = "sk-provider-secret-of-probe"
PASSWORD = "pr0be-password"  # noqa: S105 - used by this test only


async def run(folder: Path, config: dict[str, Any], *options: str, **environment: str) -> tuple[int, str]:
    """Run the command as a process. Return its exit code and all of its output."""
    path = folder / "antiphon.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "antiphon", "check-config", "--config", str(path), "--probe", *options]
    variables = {"HOME": str(folder), "ANTIPHON_KEY": "sk-mine", "PROVIDER_KEY": KEY, "WRONG_KEY": "sk-wrong", **environment}
    process = await asyncio.create_subprocess_exec(
        *command, env=variables, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def probe_results(
    config: dict[str, Any], folder: Path, patience: float = 10, **environment: str
) -> dict[str, tuple[bool, str]]:
    """Probe a configuration in this process. Return ok and detail by kind and name, such as "provider odd"."""
    path = folder / "antiphon.yaml"
    path.write_text(yaml.safe_dump(config))
    variables = {"HOME": str(folder), "ANTIPHON_KEY": "sk-mine", "PROVIDER_KEY": KEY, **environment}
    probed = await probe(load(path, variables), variables, patience)
    return {f"{one.kind} {one.name}".strip(): (one.ok, one.detail) for one in probed}


@pytest.mark.slow
async def test_all_is_well(tmp_path: Path) -> None:
    """If all is reachable, each probe has a tick and its time, the exit code is 0, and no secret is printed."""
    authority = Authority()
    tls = authority.issue("127.0.0.1").context(tmp_path)
    ca = str(authority.write(tmp_path / "ca.pem"))
    key = ECKey.generate_key("P-256", parameters={"kid": "one", "alg": "ES256", "use": "sig"})
    async with OddUpstream(tls) as host, OddUpstream(tls) as issuer:
        host.default = [answer({"object": "list", "data": []})]
        issuer.default = [answer({"keys": [key.as_dict(private=False)]})]
        with Postgres() as postgres, Redis() as redis:
            await migrate(postgres.url)
            config = {
                "database": {"url_env": "DATABASE_URL"},
                "limits": {"redis_url_env": "REDIS_URL"},
                "providers": {
                    "inside": {"base_url": host.base_url, "api_key_env": "PROVIDER_KEY", "models": ["a"], "ca": ca},
                    "echo": {"protocol": "echo", "models": ["echo"]},
                },
                "auth": {
                    "tokens": [
                        {
                            "name": "idp",
                            "issuer": "https://idp",
                            "audience": "a",
                            "jwks_url": issuer.base_url + "/keys",
                            "timeout": 20,
                            "ca": ca,
                        }
                    ]
                },
            }
            secrets = {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
            code, output = await run(tmp_path, config, **secrets)
            as_json = await run(tmp_path, config, "--json", **secrets)
    assert code == 0, output
    marks = [line.partition("(")[0].strip() for line in output.splitlines()]
    assert marks[0].startswith("✓ database: PostgreSQL: schema 00")
    assert marks[1:] == [
        "✓ redis: answers",
        "✓ issuer idp: 1 keys",
        "✓ provider echo: needs no host",
        "✓ provider inside: reachable, and takes the key",
    ]
    assert as_json[0] == 0
    report = json.loads(as_json[1])
    assert report["ok"]
    assert [one["kind"] for one in report["probes"]] == ["database", "redis", "issuer", "provider", "provider"]
    assert all(one["ok"] and one["seconds"] < 10 for one in report["probes"])
    assert [request.path for request in host.requests] == ["/v1/models"] * 2
    assert host.requests[0].headers["authorization"] == f"Bearer {KEY}"
    for secret in (KEY, Redis.PASSWORD, "sk-mine"):
        assert secret not in output + as_json[1]


async def test_each_failure_is_a_cross_with_its_reason(tmp_path: Path) -> None:
    """Each failed probe has its reason, the exit code is 1, and no password is printed."""
    async with OddUpstream(Authority().issue("127.0.0.1").context(tmp_path)) as strange, OddUpstream() as host:
        host.default = [answer({"error": {"message": "no"}}, "401 Unauthorized")]
        with Redis() as redis:
            at = {"api_key_env": "PROVIDER_KEY", "models": ["a"]}
            config = {
                "database": {"url_env": "DATABASE_URL"},
                "limits": {"redis_url_env": "REDIS_URL"},
                "providers": {
                    "refused": {"base_url": host.base_url, **at},
                    "unresolved": {"base_url": "http://nobody.invalid/v1", **at},
                    "untrusted": {"base_url": strange.base_url, **at},
                    "closed": {"base_url": f"http://127.0.0.1:{free_port()}/v1", **at},
                    "proxied": {"base_url": host.base_url, **at, "proxy_env": "PROXY_URL"},
                },
                "auth": {"tokens": [{"name": "idp", "issuer": strange.base_url, "audience": "a", "timeout": 20}]},
            }
            code, output = await run(
                tmp_path,
                config,
                "--json",
                DATABASE_URL=f"postgresql://me:{PASSWORD}@127.0.0.1:{free_port()}/a",
                REDIS_URL=redis.url.replace(Redis.PASSWORD, PASSWORD),
                PROXY_URL=f"http://me:{PASSWORD}@127.0.0.1:{free_port()}",
            )
    assert code == 1, output
    results = {f"{one['kind']} {one['name']}": (one["ok"], one["told"]) for one in json.loads(output)["probes"]}
    assert results.pop("issuer idp")[1].startswith("TLS: the certificate is not trusted: ")
    assert results.pop("provider untrusted")[1].startswith("TLS: the certificate of 127.0.0.1 is not trusted: ")
    assert results == {
        "database ": (False, "PostgreSQL: Connection refused"),
        "redis ": (False, "the password is refused"),
        "provider refused": (False, "the key is refused (401)"),
        "provider unresolved": (False, "the name nobody.invalid is not resolved"),
        "provider closed": (False, "no connection to 127.0.0.1: Connection refused"),
        "provider proxied": (False, "the outbound proxy is out of reach: Connection refused"),
    }
    for secret in (KEY, PASSWORD, Redis.PASSWORD):
        assert secret not in output


@pytest.mark.parametrize(
    ("status", "ok", "detail"),
    [
        ("404 Not Found", True, "reachable, but lists no models (404), so that the key is not known to be good"),
        ("429 Too Many Requests", True, "reachable, but for now it takes no more requests (429)"),
        ("503 Service Unavailable", False, "answers 503"),
    ],
)
async def test_what_a_provider_answers(tmp_path: Path, status: str, ok: bool, detail: str) -> None:
    """A provider that has no list of models, or is rate limited, is reachable; one that answers 503 is not."""
    async with OddUpstream() as host:
        host.default = [answer(b"", status)]
        config = {"providers": {"odd": {"base_url": host.base_url + "?api-version=1", "models": ["a"]}}}
        assert (await probe_results(config, tmp_path))["provider odd"] == (ok, detail)
        assert host.requests[0].path == "/v1/models?api-version=1"


async def test_probes_that_hang_are_given_up(tmp_path: Path) -> None:
    """Probes that hang end together after `patience` seconds, and their connections are closed."""
    async with OddUpstream() as host:
        host.default = [HANG]
        providers = {name: {"base_url": host.base_url, "models": ["a"]} for name in ("one", "two")}
        results = await probe_results({"providers": providers}, tmp_path, patience=0.3)
        assert results["provider one"] == results["provider two"] == (False, "no answer within 0.3 s")
        for _ in providers:
            await asyncio.wait_for(host.left.get(), 20)


async def test_a_database_that_is_a_file(tmp_path: Path) -> None:
    """A probe does not create a missing SQLite file. It reports the schema of an existing one, or that it is not a database."""
    url = f"sqlite:///{tmp_path}/here.db"
    config = {"database": {"url": url}, "providers": {"echo": {"protocol": "echo", "models": ["echo"]}}}
    ok, detail = (await probe_results(config, tmp_path))["database"]
    assert ok
    assert detail.endswith("here.db is not there yet; a start makes it")
    assert not (tmp_path / "here.db").exists()
    await migrate(url)
    assert (await probe_results(config, tmp_path))["database"][1].startswith("SQLite: schema 00")
    (tmp_path / "here.db").write_text("hats " * 1000)
    assert (await probe_results(config, tmp_path))["database"] == (False, "SQLite: file is not a database")


async def test_an_access_token_that_cannot_be_had(tmp_path: Path) -> None:
    """The reason why there is no token is told, without secrets; the provider is not asked then."""
    async with OddUpstream() as host, TokenEndpoint() as endpoint:
        host.default = [answer({"data": []})]
        good = endpoint.service_account(tmp_path / "good.json")
        bad = endpoint.service_account(tmp_path / "bad.json", client_email="other@acme.test")
        named = {"good": {"kind": "google", "file": str(good)}, "bad": {"kind": "google", "file": str(bad)}}
        providers = {name: {"base_url": host.base_url, "models": ["a"], "credentials": one} for name, one in named.items()}
        results = await probe_results({"providers": providers}, tmp_path)
    assert results["provider good"] == (True, "reachable, and takes the key")
    assert results["provider bad"] == (False, "no access token: status 400, invalid_grant")
    assert len(host.requests) == 1
