"""Tests of reading a configuration from the file and the environment, and of the messages for mistakes in them."""

from pathlib import Path

import pytest

from antiphon.config import Config, ConfigError
from antiphon.config.file import load


def written(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Config:
    path = tmp_path / "antiphon.yaml"
    path.write_text(text)
    return load(path, environment or {})


def refusal(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> str:
    """Return the message of the `ConfigError` that this configuration raises, without the folder."""
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, text, environment)
    assert caught.value.located
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """A variable overrides one setting of the file; the rest of its section stays."""
    environment = {"ANTIPHON_LIMITS__DRAIN": "3", "ANTIPHON_WORKERS": "2"}
    config = written(tmp_path, "limits: {request_timeout: 7, drain: 9}", environment)
    assert (config.limits.request_timeout, config.limits.drain, config.workers) == (7, 3, 2)


def test_the_environment_can_set_everything(tmp_path: Path) -> None:
    """Variables can set lists and mappings as JSON, and settings below names that the operator chose.

    A name in the file decides its case.
    """
    environment = {
        "ANTIPHON_PROVIDERS__LOCAL__MODELS": '["m", "n-*"]',
        "ANTIPHON_PROVIDERS__LOCAL__STREAM_USAGE": "false",
        "ANTIPHON_PROXY": '{"allow": ["https://a.test"]}',
        "ANTIPHON_AUTH__KEYS": '[{"name": "dev", "key_env": "K"}]',
        "ANTIPHON_LIMITS__OWNERS__ACME__DAILY_USD": "1.5",
        "ANTIPHON_LOG__LEVEL": "DEBUG",
    }
    config = written(tmp_path, "limits: {owners: {Acme: {monthly_usd: 9}}}", environment)
    assert config.providers["local"].models == ("m", "n-*")
    assert config.providers["local"].stream_usage is False
    assert config.proxy.allow == ("https://a.test",)
    assert config.auth.keys[0].name == "dev"
    assert config.limits.owners["Acme"].model_dump(exclude_unset=True) == {"monthly_usd": 9, "daily_usd": 1.5}
    assert config.log.level == "debug"


def test_a_section_in_json_takes_the_place_of_the_files(tmp_path: Path) -> None:
    """A section in JSON replaces the section of the file. A variable of one setting overrides it, whichever is set first."""
    environment = {"ANTIPHON_LIMITS__DRAIN": "3", "ANTIPHON_LIMITS": '{"drain": 9, "redis_timeout": 2}'}
    limits = written(tmp_path, "limits: {request_timeout: 7}", environment).limits
    assert (limits.drain, limits.redis_timeout, limits.request_timeout) == (3, 2, 600)


def test_a_section_that_stands_twice_is_overridden_once(tmp_path: Path) -> None:
    """A section that a YAML alias repeats is overridden only where the variable names it."""
    text = "limits: {per_key: &q {daily_usd: 1}, per_owner: *q}"
    limits = written(tmp_path, text, {"ANTIPHON_LIMITS__PER_KEY__DAILY_USD": "2"}).limits
    assert (limits.per_key.daily_usd, limits.per_owner.daily_usd) == (2, 1)


def test_names_are_texts(tmp_path: Path) -> None:
    """Names of settings are texts, though YAML 1.1 reads some as another type, such as the guard's `on` as true."""
    config = written(tmp_path, "guards: [{name: a, kind: blocklist, patterns: [x], on: [reply]}]\npersonas: {7: {}, no: {}}")
    assert config.guards[0].on == ("reply",)
    assert set(config.personas) == {"7", "no"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workers: 1\nlog: {level: info}\nworkers: 2", "antiphon.yaml: line 3: not YAML: workers is set twice, first in line 1"),
        ("log:\n  level: info\n  level: debug", "antiphon.yaml: line 3: not YAML: level is set twice, first in line 2"),
        ("? [a, b]\n: c", "antiphon.yaml: line 1: not YAML: the name of a setting must be a text"),
        ("a: [", "antiphon.yaml: line 1: not YAML: expected the node content, but found '<stream end>'"),
        ("rest: 3", "antiphon.yaml: rest: must be a section of settings, such as {name: value}"),
        ("rest: {lisen: x}", "antiphon.yaml: rest.lisen: there is no such setting; is listen meant?"),
        ("wrokers: 1", "antiphon.yaml: wrokers: there is no such setting; is workers meant?"),
        (
            "providers: {a: {read_timeout: 3}}",
            "antiphon.yaml: providers.a.read_timeout: there is no such setting; it is called timeouts.stall now",
        ),
        ("grpc: {zzz: x}", "antiphon.yaml: grpc.zzz: there is no such setting"),
        ("providers: {a: {models: gpt}}", "antiphon.yaml: providers.a.models: must be a list, such as [one, other]"),
        ("providers: {a: {headers: {x: 1}}}", "antiphon.yaml: providers.a.headers.x: must be a text: put it in quotes"),
        ("providers: {a: {stream_usage: perhaps}}", "antiphon.yaml: providers.a.stream_usage: must be true or false"),
        ("workers: 1.5", "antiphon.yaml: workers: must be a whole number"),
        ("workers: 0", "antiphon.yaml: workers: must be 1 or more"),
        ("workers: 257", "antiphon.yaml: workers: must be 256 or less"),
        ("limits: {drain: soon}", "antiphon.yaml: limits.drain: must be a number"),
        ("limits: {request_timeout: 0}", "antiphon.yaml: limits.request_timeout: must be more than 0"),
        ("log: {level: loud}", "antiphon.yaml: log.level: must be 'debug', 'info', 'warning' or 'error'"),
        ("auth: {keys: [{key_env: K}]}", "antiphon.yaml: auth.keys.0.name: is required"),
        ("auth: {keys: [{name: a}]}", "antiphon.yaml: auth.keys.0: needs one of key_env and key_file"),
        (
            "providers: {a: {proxy: 'http://me:hunter2@p:1', proxy_env: P}}",
            "antiphon.yaml: providers.a: takes only one of proxy, proxy_env and proxy_file",
        ),
        (
            "auth: {keys: [{name: a, key_env: A, tags: {Team: x}}]}",
            "antiphon.yaml: auth.keys.0.tags: the name of a tag is 1 to 32 of a-z, 0-9, _, . and -",
        ),
        (
            "auth: {tokens: [{name: a, issuer: i, audience: a, admin: {claim: c, value: 3}}]}",
            "antiphon.yaml: auth.tokens.0.admin.value: must be a text: put it in quotes, or must be true or false",
        ),
    ],
)
def test_a_mistake_is_reported_by_place_and_expected_value(tmp_path: Path, text: str, expected: str) -> None:
    """A mistake is reported by file, line or setting and what is expected, without Python's terms."""
    assert refusal(tmp_path, text) == expected


def test_every_mistake_is_reported(tmp_path: Path) -> None:
    """All mistakes are reported at once, in a line each."""
    lines = refusal(tmp_path, "workers: 0\nrest: 3\nlog: {levle: info}").splitlines()
    assert [line.split(": ")[1] for line in lines] == ["rest", "workers", "log.levle"]


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    """A missing file is a `ConfigError` that names it."""
    with pytest.raises(ConfigError, match="nothing.yaml: No such file or directory"):
        load(tmp_path / "nothing.yaml", {})


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("ANTIPHON_WROKERS", "2", "ANTIPHON_WROKERS: there is no such setting; is ANTIPHON_WORKERS meant?"),
        ("ANTIPHON_LIMITS_DRAIN", "2", "ANTIPHON_LIMITS_DRAIN: there is no such setting; is ANTIPHON_LIMITS__DRAIN meant?"),
        ("ANTIPHON_LIMITS__DRIAN", "2", "ANTIPHON_LIMITS__DRIAN: limits.drian: there is no such setting; is drain meant?"),
        (
            "ANTIPHON_PROVIDERS__A__TOTAL_TIMEOUT",
            "3",
            (
                "ANTIPHON_PROVIDERS__A__TOTAL_TIMEOUT: providers.a.total_timeout: there is no such setting; "
                "it is called timeouts.total now"
            ),
        ),
        ("ANTIPHON_WORKERS__X", "1", "ANTIPHON_WORKERS__X: workers: must be a whole number"),
        ("ANTIPHON_WORKERS", "two", "ANTIPHON_WORKERS: workers: must be a whole number"),
        ("ANTIPHON_GRPC__LISTEN", "here", 'ANTIPHON_GRPC__LISTEN: grpc.listen: must be "host:port", such as "127.0.0.1:8080"'),
        ("ANTIPHON_PROXY__ALLOW", "https://a", "ANTIPHON_PROXY__ALLOW: a list, a mapping or a section must be JSON here"),
        ("ANTIPHON_PROXY__ALLOW", '["https://a", 3]', "ANTIPHON_PROXY__ALLOW: proxy.allow.1: must be a text: put it in quotes"),
    ],
)
def test_a_mistake_in_the_environment_is_reported_by_its_variable(tmp_path: Path, variable: str, value: str, expected: str) -> None:
    """A mistake in the environment, a misspelt variable too, is reported by the variable's name."""
    assert refusal(tmp_path, "workers: 1", {variable: value}) == expected


def test_variables_of_others_are_ignored(tmp_path: Path) -> None:
    """Variables of commands and tests, those that the configuration names and those of Kubernetes services are not mistakes."""
    environment = {
        "ANTIPHON_KEY": "k",
        "ANTIPHON_ADDRESS": "127.0.0.1:1",
        "ANTIPHON_CONFIG": "x",
        "ANTIPHON_TEST_KILLS": "3",
        "ANTIPHON_BENCH_CONFIG": "x",
        "ANTIPHON_KEY_OF_TEAM_A": "k",
        "ANTIPHON_OPENAI_KEY": "k",
        "ANTIPHON_PORT": "tcp://10.0.0.1:8080",
        "ANTIPHON_SERVICE_HOST": "10.0.0.1",
        "ANTIPHON_SERVICE_PORT_HTTP": "8080",
        "ANTIPHON_GRPC_PORT_50051_TCP_ADDR": "10.0.0.1",
    }
    text = """
auth: {keys: [{name: a, key_env: ANTIPHON_KEY_OF_TEAM_A}]}
providers: {openai: {api_key_env: ANTIPHON_OPENAI_KEY}}
"""
    assert written(tmp_path, text, environment).workers == 1
    assert "ANTIPHON_OPENAI_KEY: there is no such setting" in refusal(tmp_path, "workers: 1", environment)
