"""The configuration."""

from pathlib import Path

import pytest

from antiphon.config import Config, ConfigError, ProviderConfig, load, split_address
from antiphon.principal import Quota

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
    return load(path)


def test_the_documented_example_is_good(tmp_path: Path) -> None:
    """Every documented key is known."""
    config = written(tmp_path, EXAMPLE)
    assert config.providers["openai"].models == ("gpt-4o", "gpt-3.5-turbo")
    assert config.auth.keys[0].admin


def test_none_is_needed() -> None:
    """The defaults listen on loopback only."""
    config = load(None)
    assert (config.grpc.listen, config.rest.listen, config.workers) == ("127.0.0.1:50051", "127.0.0.1:8080", 1)


def test_the_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One setting at a time; the rest of its section stays."""
    monkeypatch.setenv("ANTIPHON_LIMITS__DRAIN", "3")
    monkeypatch.setenv("ANTIPHON_WORKERS", "2")
    config = written(tmp_path, "limits: {request_timeout: 7, drain: 9}")
    assert (config.limits.request_timeout, config.limits.drain, config.workers) == (7, 3, 2)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("rest: {listen: nowhere}", "rest.listen"),
        ("rest: {listen: '127.0.0.1:99999'}", "rest.listen"),
        ("workers: 0", "workers"),
        ("wrokers: 1", "wrokers"),
        ("auth: {keys: [{name: dev}]}", "auth.keys.0"),
        ("providers: {x: {read_timeout: 0}}", "providers.x.read_timeout"),
        ("log: {level: loud}", "log.level"),
        ("rest: {listen: '127.0.0.1:50051'}", "yaml: Value error, rest.listen and grpc.listen are both 127.0.0.1:50051"),
        ("- a", "mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, where: str) -> None:
    """A misspelt setting is a mistake too."""
    with pytest.raises(ConfigError, match=where):
        written(tmp_path, text)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(ConfigError, match="nothing.yaml"):
        load(tmp_path / "nothing.yaml")


def test_secrets_come_from_variables_or_files_only(tmp_path: Path) -> None:
    """And do not print."""
    path = tmp_path / "key"
    path.write_text("sk-1\n")
    for config, environment in (
        (ProviderConfig(api_key_env="K"), {"K": "sk-1"}),
        (ProviderConfig(api_key_file=path), {}),
    ):
        key = config.api_key(environment)
        assert key is not None
        assert key.get_secret_value() == "sk-1"
        assert "sk-1" not in repr(key)
    assert ProviderConfig().api_key({}) is None
    with pytest.raises(ConfigError, match="K is not set"):
        ProviderConfig(api_key_env="K").api_key({"K": " "})
    with pytest.raises(ConfigError, match="missing"):
        ProviderConfig(api_key_file=tmp_path / "missing").api_key({})


def test_addresses_are_split() -> None:
    """IPv6 loses its brackets."""
    assert split_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert split_address("[::1]:80") == ("::1", 80)


def test_limits_are_read_with_their_quotas(tmp_path: Path) -> None:
    """Of all, of owners, and of a key; null is a value of its own."""
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
def test_limits_that_make_no_sense_are_told(wrong: str, tmp_path: Path) -> None:
    """By the path of the setting."""
    with pytest.raises(ConfigError, match="limits"):
        written(tmp_path, f"limits: {wrong}")


def test_a_configuration_prints_no_secret() -> None:
    """Neither the passwords in its URLs, nor headers and queries that may hold keys."""
    config = Config(
        database={"url": "postgresql://user:hidden-1@host/name"},  # type: ignore[arg-type]
        limits={"redis_url": "redis://:hidden-2@host"},  # type: ignore[arg-type]
        providers={"p": {"headers": {"x-key": "hidden-3"}, "query": {"key": "hidden-4"}}},  # type: ignore[dict-item]
        clients={"c": {"url": "http://x", "headers": {"x-key": "hidden-5"}}},  # type: ignore[dict-item]
    )
    assert "hidden" not in f"{config} {config!r} {[config]}"
