"""Tests of the table of hosts, and of enabling hosts by environment variables."""

import httpx2
import pytest

from antiphon.config import ConfigError, ProviderConfig, TimeoutsConfig, TokenConfig, TokenKind
from antiphon.providers.hosts import HOSTS, complete, from_environment
from antiphon.providers.registry import PROTOCOLS, build


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_rows(host: object) -> None:
    """Every host can be enabled by its variables alone, and built."""
    row = next(row for row in HOSTS if row is host)
    environment = {name: "http://host.test" for name in (row.url_variable,) if name}
    environment |= {name: "a-key" for name in (row.key_variable,) if name}
    environment |= dict.fromkeys(row.switch_variables[:1], "true")
    configs = from_environment(environment)
    assert list(configs) == [row.name]
    assert build(row.name, configs[row.name], environment).name == row.name
    assert row.protocol in PROTOCOLS
    if row.base_url is not None:
        url = httpx2.URL(row.base_url)
        assert url.scheme == "https" or url.host == "127.0.0.1"
        assert not row.base_url.endswith("/")


def test_rows_do_not_compete() -> None:
    """No name or pattern occurs in two rows that a key switches on, and none matches every model."""
    assert len({host.name for host in HOSTS}) == len(HOSTS)
    models = [model for host in HOSTS if not host.switch_variables for model in host.models]
    assert len(set(models)) == len(models)
    assert "*" not in models
    assert all("*" not in host.models[0] for host in HOSTS if host.models), "the first may become the default model"


def test_the_environment_switches_on() -> None:
    """A host is enabled if its variable is set and not empty; the order is that of the table."""
    assert from_environment({}) == {}
    assert from_environment({"OPENAI_API_KEY": " ", "OLLAMA_HOST": ""}) == {}
    configs = from_environment({"GROQ_API_KEY": "g", "OPENAI_API_KEY": "o"})
    assert list(configs) == ["openai", "groq"]
    assert configs["openai"].base_url == "https://api.openai.com/v1"
    assert configs["openai"].api_key_env == "OPENAI_API_KEY"
    assert "gpt-*" in configs["openai"].models
    assert configs["groq"].models == ()


def test_bedrock() -> None:
    """It needs a key and a region, and has the address of that region; a section with a region may have any name."""
    key = {"AWS_BEARER_TOKEN_BEDROCK": "k"}
    assert from_environment({"AWS_REGION": "eu-central-1"}) == {}
    assert from_environment(key) == {}
    own = from_environment({**key, "AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "eu-central-1"})["bedrock"]
    assert (own.protocol, own.base_url) == ("bedrock", "https://bedrock-runtime.eu-central-1.amazonaws.com")
    assert (own.api_key_env, own.models) == ("AWS_BEARER_TOKEN_BEDROCK", ())
    address = {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "https://vpce.test"}
    assert from_environment({**key, **address})["bedrock"].base_url == "https://vpce.test"
    elsewhere = ProviderConfig(protocol="bedrock", region="us-west-2")
    for name in ("bedrock", "bedrock-us"):
        completed = complete(name, elsewhere, {**key, "AWS_REGION": "eu-central-1", **address})
        assert completed.base_url == "https://bedrock-runtime.us-west-2.amazonaws.com"
        assert completed.api_key_env == "AWS_BEARER_TOKEN_BEDROCK"
    assert complete("bedrock", ProviderConfig(), {"AWS_REGION": "us-east-1"}).api_key_env is None
    with pytest.raises(ConfigError, match=r"providers\.bedrock\.region: set it, or AWS_REGION"):
        complete("bedrock", ProviderConfig(), key)
    with pytest.raises(ConfigError, match=r"providers\.bedrock\.region: 'europe' is not an AWS region"):
        complete("bedrock", ProviderConfig(region="europe"), key)
    with pytest.raises(ConfigError, match=r"providers\.other\.base_url: is missing"):
        complete("other", ProviderConfig(region="us-west-2"), key)


VERTEX = {"GOOGLE_GENAI_USE_VERTEXAI": "true", "GOOGLE_CLOUD_PROJECT": "acme"}


def test_vertex() -> None:
    """It is switched on as Google's SDKs are, with a credentials file or a key, and its host follows from the location."""
    assert from_environment({**VERTEX, "GOOGLE_GENAI_USE_VERTEXAI": "no", "GOOGLE_API_KEY": "k"}) == {}
    assert from_environment(VERTEX) == {}, "nothing asks the metadata server that was not told to"
    found = from_environment({**VERTEX, "GOOGLE_APPLICATION_CREDENTIALS": "a.json", "GEMINI_API_KEY": "k"})
    assert list(found) == ["vertex", "gemini"]
    vertex = found["vertex"]
    assert vertex.credentials == TokenConfig(kind=TokenKind.GOOGLE)
    assert (vertex.project, vertex.location, vertex.base_url) == ("acme", None, "https://aiplatform.googleapis.com")
    environment = {**VERTEX, "GOOGLE_CLOUD_LOCATION": "eu"}
    own = complete("vertex", ProviderConfig(credentials=TokenConfig(kind=TokenKind.GOOGLE_METADATA)), environment)
    assert (own.project, own.base_url) == ("acme", "https://aiplatform.eu.rep.googleapis.com")
    other = complete("mine", ProviderConfig(protocol="vertex", project="p", location="us-east5"), environment)
    assert (other.project, other.base_url) == ("p", "https://us-east5-aiplatform.googleapis.com")
    with pytest.raises(ConfigError, match="^GOOGLE_CLOUD_PROJECT or GOOGLE_CLOUD_LOCATION: is not the name"):
        complete("mine", ProviderConfig(protocol="vertex"), {"GOOGLE_CLOUD_LOCATION": "evil.test/"})


def test_vertex_in_express_mode() -> None:
    """With a key there is no project, unless one is configured, and one host for all locations."""
    environment = {**VERTEX, "GOOGLE_CLOUD_LOCATION": "eu", "GOOGLE_API_KEY": "k"}
    express = from_environment(environment)["vertex"]
    assert (express.api_key_env, express.project, express.base_url) == ("GOOGLE_API_KEY", None, "https://aiplatform.googleapis.com")
    bound = complete("vertex", ProviderConfig(project="p"), environment)
    assert (bound.project, bound.base_url) == ("p", "https://aiplatform.eu.rep.googleapis.com")


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        (("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"), TokenKind.ENTRA_SECRET),
        (("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"), TokenKind.ENTRA_WORKLOAD),
        (("IDENTITY_ENDPOINT", "IDENTITY_HEADER"), TokenKind.ENTRA_MANAGED),
    ],
)
def test_azure_without_a_key(variables: tuple[str, ...], kind: TokenKind) -> None:
    """The usual variables of Microsoft Entra are used where there is no key, and only if all of them are set."""
    endpoint = {"AZURE_OPENAI_ENDPOINT": "https://acme.openai.azure.com"}
    environment = endpoint | dict.fromkeys(variables, "x")
    assert from_environment(environment)["azure"].credentials == TokenConfig(kind=kind)
    assert from_environment({**environment, variables[-1]: ""}) == {}
    assert from_environment({**environment, "AZURE_OPENAI_API_KEY": "k"})["azure"].credentials is None
    own = complete("azure", ProviderConfig(credentials=TokenConfig(kind=TokenKind.ENTRA_MANAGED)), {**environment, **endpoint})
    assert own.credentials == TokenConfig(kind=TokenKind.ENTRA_MANAGED)


def test_anthropic() -> None:
    """It has its own protocol; that of OpenAI is used if the configuration names it."""
    environment = {"ANTHROPIC_API_KEY": "k"}
    own = from_environment(environment)["anthropic"]
    assert (own.protocol, own.base_url, own.auth_header) == ("anthropic", "https://api.anthropic.com", "x-api-key")
    assert own.api_key_env == "ANTHROPIC_API_KEY"
    assert from_environment({**environment, "ANTHROPIC_BASE_URL": "http://x/"})["anthropic"].base_url == "http://x"
    other = complete("anthropic", ProviderConfig(protocol="openai"), environment)
    assert (other.protocol, other.base_url, other.auth_header) == ("openai", "https://api.anthropic.com/v1", "authorization")
    assert (other.api_key_env, other.models) == ("ANTHROPIC_API_KEY", own.models)
    assert complete("anthropic", ProviderConfig(), environment).protocol == "anthropic"


def test_cohere() -> None:
    """Its key switches on its own protocol."""
    config = from_environment({"COHERE_API_KEY": "k"})["cohere"]
    assert (config.protocol, config.base_url, config.api_key_env) == ("cohere", "https://api.cohere.com", "COHERE_API_KEY")


def test_the_responses_api_is_a_choice() -> None:
    """A host may be asked by another of its protocols, with the same address and key; the usual one depends on the model."""
    environment = {"OPENAI_API_KEY": "k"}
    chosen = complete("openai", ProviderConfig(protocol="openai-responses"), environment)
    assert (chosen.protocol, chosen.base_url, chosen.api_key_env) == (
        "openai-responses",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
    )
    assert from_environment(environment)["openai"].protocol == "openai-by-model"


def test_gemini() -> None:
    """Its key switches on its own protocol; its OpenAI-compatible API is another protocol of the same name."""
    environment = {"GEMINI_API_KEY": "k"}
    config = from_environment(environment)["gemini"]
    assert (config.protocol, config.base_url) == ("gemini", "https://generativelanguage.googleapis.com")
    assert config.auth_header == "x-goog-api-key"
    assert complete("gemini", config, environment) == config
    compatible = complete("gemini", ProviderConfig(protocol="openai"), environment)
    assert (compatible.base_url, compatible.auth_header) == (
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "authorization",
    )
    assert (compatible.api_key_env, compatible.models) == ("GEMINI_API_KEY", config.models)
    assert complete("gemini", compatible, environment) == compatible
    elsewhere = complete("gemini", ProviderConfig(base_url="http://x/openai"), environment)
    assert (elsewhere.protocol, elsewhere.auth_header, elsewhere.api_key_env) == ("openai", "authorization", None)
    own = complete("gemini", ProviderConfig(base_url="http://x", protocol="gemini"), environment)
    assert (own.protocol, own.auth_header) == ("gemini", "x-goog-api-key")


def test_the_environment_names_the_url() -> None:
    """A variable can replace the base URL, but does not enable a host that needs a key."""
    assert from_environment({"OPENAI_BASE_URL": "http://x/v1"}) == {}
    config = from_environment({"OPENAI_BASE_URL": "http://x/v1/", "OPENAI_API_KEY": "k"})["openai"]
    assert config.base_url == "http://x/v1"


def test_azure() -> None:
    """Azure needs its endpoint and its key, which is sent in the header `api-key`."""
    assert from_environment({"AZURE_OPENAI_API_KEY": "k"}) == {}
    config = from_environment({"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com/"})["azure"]
    assert config.base_url == "https://r.openai.azure.com/openai/v1"
    assert config.auth_header == "api-key"


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("http://gpu:1234", "http://gpu:1234/v1"),
        ("https://gpu/v1/", "https://gpu/v1"),
        ("gpu", "http://gpu:11434/v1"),
        ("gpu:1234", "http://gpu:1234/v1"),
        ("0.0.0.0", "http://127.0.0.1:11434/v1"),
        ("0.0.0.0:1234", "http://127.0.0.1:1234/v1"),
        (":1234", "http://127.0.0.1:1234/v1"),
        ("[::1]:1234", "http://[::1]:1234/v1"),
        ("[::]", "http://127.0.0.1:11434/v1"),
    ],
)
def test_ollama_host(value: str, url: str) -> None:
    """OLLAMA_HOST is a URL, or a listening address as Ollama's server takes it."""
    assert from_environment({"OLLAMA_HOST": value})["ollama"].base_url == url


def test_local_hosts_need_no_key() -> None:
    """VLLM and LM Studio are enabled by their URL alone; a key is used if there is one."""
    assert from_environment({"VLLM_BASE_URL": "http://x/v1"})["vllm"].api_key_env is None
    assert from_environment({"VLLM_BASE_URL": "http://x/v1", "VLLM_API_KEY": "k"})["vllm"].api_key_env == "VLLM_API_KEY"
    assert from_environment({"LMSTUDIO_BASE_URL": "http://x/v1"})["lmstudio"].base_url == "http://x/v1"


def test_complete_fills_what_is_missing() -> None:
    """A configured provider with the name of a host gets the settings that it leaves unset, and keeps its own."""
    environment = {"MISTRAL_API_KEY": "k"}
    config = complete("mistral", ProviderConfig(models=("m",), timeouts=TimeoutsConfig(stall=7)), environment)
    assert config.base_url == "https://api.mistral.ai/v1"
    assert (config.api_key_env, config.models, config.timeouts.stall) == ("MISTRAL_API_KEY", ("m",), 7)
    assert config.stream_usage is False
    assert complete("mistral", ProviderConfig(stream_usage=True), environment).stream_usage is True
    assert complete("mistral", ProviderConfig(api_key_env="OTHER"), environment).api_key_env == "OTHER"
    assert complete("mistral", ProviderConfig(), {}).api_key_env is None
    assert complete("mistral", config, environment) == config, "what is complete stays"


def test_a_key_goes_to_its_own_host_only() -> None:
    """A provider with a host's name but another base URL gets neither the host's key nor its models."""
    config = complete("openai", ProviderConfig(base_url="http://other/v1"), {"OPENAI_API_KEY": "k"})
    assert (config.base_url, config.api_key_env, config.models) == ("http://other/v1", None, ())


def test_no_base_url() -> None:
    """An unknown provider, and a host without a common URL, need a base URL; `echo` needs none."""
    with pytest.raises(ConfigError, match=r"providers\.mine\.base_url"):
        complete("mine", ProviderConfig(), {})
    with pytest.raises(ConfigError, match="AZURE_OPENAI_ENDPOINT"):
        complete("azure", ProviderConfig(), {})
    assert complete("openai", ProviderConfig(protocol="echo"), {}).base_url is None


def test_the_variable_of_an_sdk() -> None:
    """Cohere's own SDK takes the key from another variable than most applications."""
    assert from_environment({"CO_API_KEY": "k"})["cohere"].api_key_env == "CO_API_KEY"
    assert from_environment({"CO_API_KEY": "k", "COHERE_API_KEY": "k"})["cohere"].api_key_env == "COHERE_API_KEY"


@pytest.mark.parametrize(
    ("base_url", "protocol"),
    [
        ("https://r.openai.azure.com/openai/v1", "openai-by-model"),
        ("https://r.services.ai.azure.com/openai/v1/", "openai-by-model"),
        ("https://r.openai.azure.com/openai/deployments/{model}?api-version=2024-10-21", "openai"),
        ("https://proxy.test/openai/v1", "openai"),
    ],
)
def test_azure_has_both_protocols(base_url: str, protocol: str) -> None:
    """At the address of its v1 API; a configuration that names a protocol has that one."""
    assert complete("mine", ProviderConfig(base_url=base_url), {}).protocol == protocol
    named = ProviderConfig(base_url=base_url, protocol="openai")
    assert complete("mine", named, {}).protocol == "openai"
