"""Tests of the whole configuration."""

from pathlib import Path

import pytest

from antiphon.config import Config, ConfigError, ProviderConfig, database_url, split_address
from antiphon.config.file import load
from antiphon.domain.principal import Quota

EXAMPLE = """
grpc: {listen: "127.0.0.1:50051"}
rest: {listen: "127.0.0.1:8080"}
workers: 1
database: {url: "sqlite:///antiphon.db"}
models: {default: "gpt-4o"}
providers: {openai: {protocol: openai, base_url: "https://api.openai.com/v1", api_key_env: OPENAI_API_KEY,
  models: [gpt-4o, gpt-3.5-turbo]}}
auth: {keys: [{name: dev, key_env: ANTIPHON_KEY, admin: true}]}
log: {level: info, file: null}
proxy: {allow: []}
"""


def written(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "antiphon.yaml"
    path.write_text(text)
    return load(path, {})


def test_the_documented_example_is_good(tmp_path: Path) -> None:
    """The example of the documentation is a valid configuration."""
    config = written(tmp_path, EXAMPLE)
    assert config.providers["openai"].models == ("gpt-4o", "gpt-3.5-turbo")
    assert config.auth.keys[0].admin


def test_no_configuration_is_needed() -> None:
    """Without a configuration the defaults hold, and the server listens on loopback only."""
    config = load(None, {})
    assert (config.grpc.listen, config.rest.listen, config.workers) == ("127.0.0.1:50051", "127.0.0.1:8080", 1)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("rest: {listen: nowhere}", "rest.listen"),
        ("rest: {listen: '127.0.0.1:99999'}", "rest.listen"),
        ("workers: 0", "workers"),
        ("wrokers: 1", "wrokers"),
        ("auth: {keys: [{name: dev}]}", "auth.keys.0"),
        ("providers: {x: {timeouts: {stall: 0}}}", "providers.x.timeouts.stall"),
        ("providers: {x: {deployments: {d: {timeouts: {total: 0}}}}}", "providers.x.deployments.d.timeouts.total"),
        ("log: {level: loud}", "log.level"),
        ("rest: {listen: '127.0.0.1:50051'}", "yaml: rest.listen and grpc.listen are both 127.0.0.1:50051"),
        ("metrics: {listen: '127.0.0.1:8080'}", "metrics.listen is 127.0.0.1:8080, as another port is"),
        ("- a", "mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_a_mistake_is_reported_with_its_place(tmp_path: Path, text: str, where: str) -> None:
    """A wrong value or a misspelt setting is a `ConfigError` that names the setting."""
    with pytest.raises(ConfigError, match=where):
        written(tmp_path, text)


def test_secrets_come_from_variables_or_files_only(tmp_path: Path) -> None:
    """A key is read from a variable or a file, is hidden in `repr`, and is a `ConfigError` if it is missing or not UTF-8."""
    path = tmp_path / "key"
    path.write_text("sk-1\n")
    for config, environment in (
        (ProviderConfig(api_key_env="K"), {"K": "sk-1"}),
        (ProviderConfig(api_key_file=path), {}),
    ):
        key = config.api_key("acme", environment)
        assert key is not None
        assert key.get_secret_value() == "sk-1"
        assert "sk-1" not in repr(key)
    assert ProviderConfig().api_key("acme", {}) is None
    with pytest.raises(ConfigError, match=r"^providers\.acme\.api_key_env: the environment variable K is not set$"):
        ProviderConfig(api_key_env="K").api_key("acme", {"K": " "})
    with pytest.raises(ConfigError, match=r"^providers\.acme\.api_key_file: .*missing: No such file or directory$"):
        ProviderConfig(api_key_file=tmp_path / "missing").api_key("acme", {})
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        ProviderConfig(api_key_file=path).api_key("acme", {})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("providers: {a/b: {base_url: 'http://h/v1'}}", "providers: 'a/b' cannot be reached: .* a / "),
        ("providers: {'': {base_url: 'http://h/v1'}}", "providers: '' cannot be reached"),
        ('providers: {a: {headers: {x-a: "b\\r\\nx-evil: 1"}}}', r"providers\.a\.headers: x-a: its value has a line break"),
        ("providers: {a: {headers: {x-a: é}}}", r"providers\.a\.headers: x-a: "),
        ('providers: {a: {headers: {"x a": b}}}', r"providers\.a\.headers: 'x a' is not the name of a header"),
        ('providers: {a: {headers: {"x:a": b}}}', r"providers\.a\.headers: 'x:a' is not the name of a header"),
        ("providers: {a: {headers: {Content-Length: '3'}}}", r"providers\.a\.headers: content-length must not be set"),
        ("providers: {a: {auth_header: 'x key'}}", r"providers\.a\.auth_header: is not the name of a header"),
        ('clients: {a: {url: "http://h", headers: {x-a: "b\\nc"}}}', r"clients\.a\.headers: x-a"),
        ("limits: {request_timeout: .inf}", r"limits\.request_timeout: must be a finite number"),
        ("limits: {request_timeout: .nan}", r"limits\.request_timeout: must be a finite number"),
        ("limits: {per_key: {daily_usd: .inf}}", r"limits\.per_key\.daily_usd: must be a finite number"),
        ("prices: {m: {input: .inf, output: 1}}", r"prices\.m\.input: must be a finite number"),
    ],
)
def test_values_that_no_call_could_use_are_refused(tmp_path: Path, text: str, wanted: str) -> None:
    """Invalid headers, provider names that no model name can contain, and numbers that are not finite are refused."""
    with pytest.raises(ConfigError, match=wanted) as caught:
        written(tmp_path, text)
    assert "evil" not in str(caught.value)


def test_addresses_are_split() -> None:
    """An address is split into host and port; an IPv6 host loses its brackets."""
    assert split_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert split_address("[::1]:80") == ("::1", 80)


@pytest.mark.parametrize("odd", ["a\\nb", "a\\e[2Jb", "a\\0b", "a\\u202Eb", "a\\u2066b", "\\u200B", "\\x7F"])
def test_a_name_with_non_printable_characters_is_refused(tmp_path: Path, odd: str) -> None:
    """Non-printable characters in names, owners and models of keys are refused: line breaks, escapes, NUL, direction marks."""
    for field, fields in (
        ("name", f'name: "{odd}"'),
        ("owner", f'name: a, owner: "{odd}"'),
        ("models", f'name: a, models: ["{odd}"]'),
    ):
        with pytest.raises(ConfigError, match=rf"auth\.keys\.0\.{field}.*non-printable"):
            written(tmp_path, f"auth: {{keys: [{{key_env: A, {fields}}}]}}")
    issuer = "{name: i, issuer: i, audience: a, secret_env: S, owner_prefix: "
    with pytest.raises(ConfigError, match=r"owner_prefix.*non-printable"):
        written(tmp_path, f'auth: {{tokens: [{issuer}"{odd}"}}]}}')


def test_names_may_be_of_any_script(tmp_path: Path) -> None:
    """Names may have letters of any script, and spaces inside."""
    config = written(tmp_path, 'auth: {keys: [{name: "Zoë Ångström", owner: "株式会社 é/1", key_env: A}]}')
    assert (config.auth.keys[0].name, config.auth.keys[0].owner) == ("Zoë Ångström", "株式会社 é/1")


def test_limits_are_read_with_their_quotas(tmp_path: Path) -> None:
    """Quotas are read for a key, for each owner and for one owner; null is kept apart from unset.

    The Redis URL comes from a variable and is hidden in `repr`.
    """
    config = written(
        tmp_path,
        """
auth: {keys: [{name: a, key_env: A, limits: {requests_per_minute: 5}}]}
limits: {per_owner: {daily_usd: 1.5}, owners: {acme: {daily_usd: null}}, redis_url_env: REDIS, on_failure: closed}
""",
    )
    assert config.auth.keys[0].limits.quota() == Quota(requests_per_minute=5)
    assert config.limits.per_owner.quota() == Quota(daily_usd=1.5)
    assert config.limits.owners["acme"].model_fields_set == {"daily_usd"}
    with pytest.raises(ConfigError, match="REDIS"):
        config.limits.redis({})
    found = config.limits.redis({"REDIS": "redis://:secret@host/0"})
    assert found is not None
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    "wrong",
    [
        "{per_key: {requests_per_minute: -1}}",
        "{per_key: {requests: 1}}",
        "{on_failure: maybe}",
        "{redis_url: 'redis://h', redis_url_env: X}",
    ],
)
def test_wrong_limits_are_refused(wrong: str, tmp_path: Path) -> None:
    """Wrong limits are a `ConfigError` that names the setting."""
    with pytest.raises(ConfigError, match="limits"):
        written(tmp_path, f"limits: {wrong}")


def test_the_database_is_named_by_a_variable_or_a_file(tmp_path: Path) -> None:
    """The database URL comes from the file, a variable or a separate file, and is never printed.

    Two sources or a missing one are a `ConfigError`.
    """
    held = tmp_path / "url"
    held.write_text("postgresql://user:hunter2@host/name\n")
    for named in ("url_env: DATABASE_URL", f"url_file: {held}"):
        config = written(tmp_path, f"database: {{{named}}}")
        assert (
            database_url(config, {"DATABASE_URL": "postgresql://user:hunter2@host/name"}) == "postgresql://user:hunter2@host/name"
        )
        assert "hunter2" not in f"{config} {config.model_dump()}"
    assert database_url(written(tmp_path, "database: {url: 'sqlite:///x.db'}"), {}) == "sqlite:///x.db"
    assert database_url(load(None, {}), {}).startswith("sqlite:////")
    for wrong, said in (("url_env: DATABASE_URL", "DATABASE_URL is not set"), ("url_file: /nowhere", "No such file")):
        with pytest.raises(ConfigError, match=f"database.url_.*{said}"):
            database_url(written(tmp_path, f"database: {{{wrong}}}"), {})
    with pytest.raises(ConfigError, match="only one of"):
        written(tmp_path, "database: {url: 'sqlite:///x.db', url_env: DATABASE_URL}")


@pytest.mark.parametrize(
    ("settings", "kept"), [("{}", True), ("{pooler: true}", False), ("{pooler: true, statement_cache: true}", True)]
)
def test_statements_are_kept_but_with_a_pooler(settings: str, tmp_path: Path, *, kept: bool) -> None:
    """Prepared statements are cached, but not with a connection pooler, unless `statement_cache` is set."""
    assert written(tmp_path, f"database: {settings}").database.keeps_statements is kept


def test_a_configuration_prints_no_secret() -> None:
    """Neither `repr` nor a dump of the configuration has passwords of URLs, headers or queries."""
    config = Config(
        database={"url": "postgresql://user:hidden-1@host/name"},  # type: ignore[arg-type]
        limits={"redis_url": "redis://:hidden-2@host"},  # type: ignore[arg-type]
        providers={
            "p": {"base_url": "https://h/v1?key=hidden-3", "headers": {"x-key": "hidden-4"}, "query": {"key": "hidden-5"}}  # type: ignore[dict-item]
        },
        clients={"c": {"url": "http://x?key=hidden-6", "headers": {"x-key": "hidden-7"}}},  # type: ignore[dict-item]
    )
    assert "hidden" not in f"{config} {config!r} {[config]}"
    assert "hidden" not in f"{config.model_dump()} {config.model_dump(mode='json')} {config.model_dump_json()}"
