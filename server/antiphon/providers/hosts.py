"""The known hosts, as rows of data. A new compatible host is a row here, or a section of the configuration.

A host is switched on by its usual environment variable. The models in a row can be requested by their bare names, all models of a
host as "host/model". A host that serves other companies' open models lists none, or two such hosts would claim the same name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from pydantic import ValidationError
from yarl import URL

from antiphon.config import ConfigError, ProviderConfig, TokenConfig, TokenKind
from antiphon.providers.locations import vertex_url
from antiphon.providers.regions import RUNTIME, endpoint, region_in

WITHOUT_URL: Final = frozenset({"echo"})
"""Protocols that connect to no host."""

BY_LOCATION: Final[Mapping[str, Callable[[str | None], str]]] = {"vertex": vertex_url}
"""Protocols of Google Cloud, whose base URL follows from the location."""

_ENTRA: Final = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID")
_YES: Final = frozenset({"1", "true"})

_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost"})
"""Addresses that several hosts may share."""

_OPENAI: Final = "api.openai.com"
"""The address of OpenAI itself, which has two protocols."""

_AZURE: Final = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")

_AZURE_V1: Final = "/openai/v1"
"""The path of Azure's API without an api-version."""

_ANY_ADDRESS: Final = ("", "0.0.0.0", "[::]")  # noqa: S104 - not bound to, but replaced


class Host(Struct, frozen=True, kw_only=True):
    """One host. `models` lists names first, then patterns; the first name may become the default model."""

    name: str
    base_url: str | None
    """None: each customer has a different one."""
    key_variable: str | None
    sdk_key_variable: str | None = None
    """The environment variable from which the host's own SDK takes the key, if that has another name."""
    url_variable: str | None = None
    """The environment variable that overrides `base_url`."""
    url_suffix: str = ""
    """Appended to the value of `url_variable`, if its usual value is not a base URL."""
    switched_on_by_url: bool = False
    """Whether `url_variable` alone switches the host on, because it needs no key."""
    is_regional: bool = False
    """Whether its address depends on the AWS region, so that `base_url` is None."""
    switch_variables: tuple[str, ...] = ()
    """Environment variables one of which must be "true" to switch the host on, as its key may be meant for another one."""
    token_variables: tuple[tuple[TokenKind, tuple[str, ...]], ...] = ()
    """The kinds of access tokens that the host takes in place of a key, each with the variables that must be set for it."""
    auth_header: str = "authorization"
    stream_usage: bool = True
    models: tuple[str, ...] = ()
    protocol: str = "openai"
    openai_url: str | None = None
    """The base URL of its OpenAI-compatible API, if it has one beside that of `protocol`."""
    lists_models: bool = True
    """Whether its list of models has those that a customer can request."""


HOSTS: Final = (
    Host(
        name="openai",
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        url_variable="OPENAI_BASE_URL",
        models=(
            "gpt-4.1-mini",
            "gpt-4.1",
            "gpt-4o",
            "gpt-4o-mini",
            "gpt-5",
            "gpt-5-mini",
            "gpt-5-nano",
            "o3",
            "o4-mini",
            "gpt-*",
            "chatgpt-*",
            "o1*",
            "o3*",
            "o4*",
            "codex-*",
            "computer-use-*",
            "ft:*",
        ),
    ),
    # Its v1 API needs no api-version, and its models are deployments:
    # https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle
    Host(
        name="azure",
        base_url=None,
        key_variable="AZURE_OPENAI_API_KEY",
        url_variable="AZURE_OPENAI_ENDPOINT",
        url_suffix=_AZURE_V1,
        auth_header="api-key",
        lists_models=False,  # it lists what could be deployed, not what is
        token_variables=(
            (TokenKind.ENTRA_SECRET, (*_ENTRA, "AZURE_CLIENT_SECRET")),
            (TokenKind.ENTRA_WORKLOAD, (*_ENTRA, "AZURE_FEDERATED_TOKEN_FILE")),
            (TokenKind.ENTRA_MANAGED, ("IDENTITY_ENDPOINT", "IDENTITY_HEADER")),
        ),
    ),
    Host(
        name="anthropic",
        base_url="https://api.anthropic.com",
        key_variable="ANTHROPIC_API_KEY",
        url_variable="ANTHROPIC_BASE_URL",
        auth_header="x-api-key",
        models=("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-1", "claude-*"),
        protocol="anthropic",
        openai_url="https://api.anthropic.com/v1",  # https://platform.claude.com/docs/en/api/openai-sdk
    ),
    # Switched on, and given a key, as Google's SDKs are: https://googleapis.github.io/python-genai/#create-a-client. It comes
    # before "gemini", for whoever switches it on wants its models.
    Host(
        name="vertex",
        base_url=None,
        key_variable="GOOGLE_API_KEY",
        auth_header="x-goog-api-key",
        switch_variables=("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"),
        token_variables=((TokenKind.GOOGLE, ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT")),),
        models=("gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.5-flash-lite", "gemini-*", "claude-*"),
        protocol="vertex",
    ),
    Host(
        name="gemini",
        base_url="https://generativelanguage.googleapis.com",
        key_variable="GEMINI_API_KEY",
        auth_header="x-goog-api-key",
        models=("gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.5-flash-lite", "gemini-*"),
        protocol="gemini",
        openai_url="https://generativelanguage.googleapis.com/v1beta/openai",  # https://ai.google.dev/gemini-api/docs/openai
    ),
    # Refuses `stream_options` (422), and sends the usage of every stream without it.
    Host(
        name="mistral",
        base_url="https://api.mistral.ai/v1",
        key_variable="MISTRAL_API_KEY",
        stream_usage=False,
        models=(
            "mistral-small-latest",
            "mistral-medium-latest",
            "mistral-large-latest",
            "codestral-latest",
            "mistral-*",
            "ministral-*",
            "magistral-*",
            "codestral-*",
            "devstral-*",
            "pixtral-*",
        ),
    ),
    Host(
        name="deepseek",
        base_url="https://api.deepseek.com/v1",
        key_variable="DEEPSEEK_API_KEY",
        models=("deepseek-chat", "deepseek-reasoner"),
    ),
    Host(
        name="moonshot",
        base_url="https://api.moonshot.ai/v1",
        key_variable="MOONSHOT_API_KEY",
    ),
    Host(name="perplexity", base_url="https://api.perplexity.ai", key_variable="PERPLEXITY_API_KEY"),
    Host(
        name="xai",
        base_url="https://api.x.ai/v1",
        key_variable="XAI_API_KEY",
        models=("grok-4", "grok-3", "grok-3-mini", "grok-*"),
    ),
    Host(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
    ),
    Host(name="together", base_url="https://api.together.xyz/v1", key_variable="TOGETHER_API_KEY"),
    Host(name="fireworks", base_url="https://api.fireworks.ai/inference/v1", key_variable="FIREWORKS_API_KEY"),
    Host(
        name="cerebras",
        base_url="https://api.cerebras.ai/v1",
        key_variable="CEREBRAS_API_KEY",
    ),
    Host(name="nvidia", base_url="https://integrate.api.nvidia.com/v1", key_variable="NVIDIA_API_KEY"),
    Host(
        name="openrouter",
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
    ),
    Host(
        name="cohere",
        base_url="https://api.cohere.com",
        key_variable="COHERE_API_KEY",
        sdk_key_variable="CO_API_KEY",
        models=("command-a-03-2025", "command-a-reasoning-08-2025", "command-r7b-12-2024", "command-r-plus-08-2024", "command-*"),
        protocol="cohere",
    ),
    # The id of a model depends on the region, so that none is listed:
    # https://docs.aws.amazon.com/bedrock/latest/userguide/models-supported.html
    Host(
        name="bedrock",
        base_url=None,
        key_variable="AWS_BEARER_TOKEN_BEDROCK",
        url_variable="AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
        is_regional=True,
        protocol="bedrock",
    ),
    Host(
        name="ollama",
        base_url="http://127.0.0.1:11434/v1",
        key_variable=None,
        url_variable="OLLAMA_HOST",
        url_suffix="/v1",
        switched_on_by_url=True,
    ),
    Host(
        name="vllm",
        base_url="http://127.0.0.1:8000/v1",
        key_variable="VLLM_API_KEY",
        url_variable="VLLM_BASE_URL",
        switched_on_by_url=True,
    ),
    Host(
        name="lmstudio",
        base_url="http://127.0.0.1:1234/v1",
        key_variable=None,
        url_variable="LMSTUDIO_BASE_URL",
        switched_on_by_url=True,
    ),
)
"""The order decides which host gets a model that several claim, and whose first model is the default."""

ECHO: Final = ProviderConfig(protocol="echo", models=("echo",))
"""The provider used if none is configured."""


def configured(providers: Mapping[str, ProviderConfig], environment: Mapping[str, str]) -> dict[str, ProviderConfig]:
    """Return the providers by name: those of the configuration, else those of the environment and `echo`.

    Raises `ConfigError`.
    """
    if providers:
        return {name: complete(name, provider, environment) for name, provider in providers.items()}
    return {**from_environment(environment), "echo": ECHO}


def from_environment(environment: Mapping[str, str]) -> dict[str, ProviderConfig]:
    """Return the providers that the usual environment variables switch on, by name, in the order of `HOSTS`."""
    return {host.name: complete(host.name, ProviderConfig(), environment) for host in HOSTS if _is_on(host, environment)}


def complete(name: str, config: ProviderConfig, environment: Mapping[str, str] = os.environ) -> ProviderConfig:
    """Return `config` with its unset fields filled in from the host of the same name and the environment.

    If `config` has its own base URL, it is another host that happens to have the same name: it gets neither the models nor the key
    of the row. A host with an `openai_url` then has the protocol "openai", unless `config` names one. At OpenAI itself, and at
    Azure, the protocol depends on the model.

    Raises `ConfigError` if there is no base URL and the protocol needs one.
    """
    if config.protocol in WITHOUT_URL:
        return config
    host = _host(name, config)
    changes: dict[str, object] = {}
    if host is not None:
        if config.base_url is None:
            try:
                changes["base_url"] = _base_url(host, environment, config.region)
            except ConfigError as error:
                raise ConfigError(f"providers.{name}.region: {error}") from None
            if config.api_key_env is None and config.api_key_file is None and config.credentials is None:
                changes |= _usual_credential(host, environment)
            if not config.models:
                changes["models"] = host.models
        for field in ("protocol", "auth_header", "stream_usage"):
            if field not in config.model_fields_set:
                changes[field] = getattr(host, field)
    completed = _located(config.model_copy(update=changes), environment)
    if "protocol" not in config.model_fields_set and _is_openai(completed.base_url):
        completed = completed.model_copy(update={"protocol": "openai-by-model"})
    has_address = bool(config.deployments) and all(own.base_url is not None for own in config.deployments.values())
    if completed.base_url is None and host is not None and host.is_regional and not has_address:
        raise ConfigError(f"providers.{name}.region: set it, or AWS_REGION")
    if completed.base_url is None and (not config.deployments or any(own.base_url is None for own in config.deployments.values())):
        wanted = f"set it, or {host.url_variable}" if host is not None and host.url_variable else "is missing"
        raise ConfigError(f"providers.{name}.base_url: {wanted}")
    return completed


def _is_openai(base_url: str | None) -> bool:
    """Return whether a URL is of OpenAI itself, or of Azure's API that has both protocols at one address.

    One that is not valid is reported where it is used.
    """
    try:
        url = URL(base_url or "")
    except ValueError:
        return False
    host = url.host or ""
    return host == _OPENAI or (host.endswith(_AZURE) and url.path.rstrip("/") == _AZURE_V1)


def _usual_credential(host: Host, environment: Mapping[str, str]) -> dict[str, object]:
    """Return the setting of the API key or the access token for which the environment has the usual variables; {} for none."""
    for variable in (host.key_variable, host.sdk_key_variable):
        if variable is not None and _is_set(variable, environment):
            return {"api_key_env": variable}
    for kind, variables in host.token_variables:
        if all(_is_set(name, environment) for name in variables):
            return {"credentials": TokenConfig(kind=kind)}
    return {}


def _located(config: ProviderConfig, environment: Mapping[str, str]) -> ProviderConfig:
    """Return `config` with project, location and base URL, if its protocol has a base URL for each location."""
    to_url = BY_LOCATION.get(config.protocol)
    if to_url is None:
        return config
    with_key = config.has_key and config.project is None  # then the key's project counts
    project = config.project or (None if with_key else environment.get("GOOGLE_CLOUD_PROJECT", "").strip() or None)
    location = config.location or environment.get("GOOGLE_CLOUD_LOCATION", "").strip() or None
    try:
        ProviderConfig(project=project, location=location)
    except ValidationError:
        raise ConfigError("GOOGLE_CLOUD_PROJECT or GOOGLE_CLOUD_LOCATION: is not the name of a project or a location") from None
    url = config.base_url or to_url(None if project is None else location)
    return config.model_copy(update={"project": project, "location": location, "base_url": url})


def find(name: str, base_url: str | None) -> Host | None:
    """Return the known host with the address of `base_url`, else the one with the name; None if there is none."""
    name = name.partition("/")[0]  # that of the provider, without its deployment
    address = URL(base_url).host if base_url else None
    if address is not None and address.endswith(_AZURE):
        name, address = "azure", None  # each customer has an address
    is_known_address = address is not None and address not in _LOOPBACK
    at_address = (host for host in HOSTS if is_known_address and host.base_url and URL(host.base_url).host == address)
    named = (host for host in HOSTS if host.name == name)
    return next(chain(at_address, named), None)


def _host(name: str, config: ProviderConfig) -> Host | None:
    """Return the host of that name, in the form of its OpenAI-compatible API if `config` means that one.

    A `base_url` without a `protocol` means it, too: `protocol` is "openai" unless it is set. A section with a `region` may have any
    name, because one name is in one region only.
    """
    host = next((host for host in HOSTS if host.name == name), None)
    if host is None and config.region is not None:
        host = next((host for host in HOSTS if host.is_regional and host.protocol == config.protocol), None)
    if host is None or host.openai_url is None:
        return host
    named = "protocol" in config.model_fields_set
    if config.protocol == "openai" if named else config.base_url is not None:
        return replace(host, protocol="openai", base_url=host.openai_url, url_variable=None, auth_header="authorization")
    return host


def lists_models(name: str, base_url: str | None) -> bool:
    """Return whether a provider with the OpenAI protocol lists the models that can be requested there.

    Azure is known by the name of its row, and by its addresses: each customer has one.
    """
    address = (URL(base_url).host if base_url else None) or ""
    named = next((host for host in HOSTS if host.name == name), None)
    return not address.endswith(_AZURE) and (named is None or named.lists_models)


def _is_on(host: Host, environment: Mapping[str, str]) -> bool:
    """Return whether the environment has the variables that switch a host on."""
    has_url = host.url_variable is not None and bool(environment.get(host.url_variable, "").strip())
    if host.switched_on_by_url:
        return has_url
    if host.switch_variables and not any(environment.get(name, "").strip().lower() in _YES for name in host.switch_variables):
        return False
    has_region = host.is_regional and region_in(environment) is not None
    has_address = has_url or has_region or host.base_url is not None or host.protocol in BY_LOCATION
    return has_address and bool(_usual_credential(host, environment))


def _is_set(variable: str, environment: Mapping[str, str]) -> bool:
    return bool(environment.get(variable, "").strip())


def _base_url(host: Host, environment: Mapping[str, str], region: str | None) -> str | None:
    """Return the base URL from the environment, else that of the row; None if neither has one.

    That of a host with regions is its address in `region`, which counts more than the environment. Raises `ConfigError` if that
    is no region.
    """
    value = environment.get(host.url_variable or "", "").strip().rstrip("/")
    if host.is_regional and (region is not None or not value):
        region = region or region_in(environment)
        return None if region is None else endpoint(RUNTIME, region)
    if not value:
        return host.base_url
    if "://" not in value:
        value = f"http://{_client_address(value, host)}"
    return value if host.url_suffix and value.endswith(host.url_suffix) else value + host.url_suffix


def _client_address(value: str, host: Host) -> str:
    """Return the address to connect to for a server's listening address, which OLLAMA_HOST may contain."""
    address, colon, port = value.rpartition(":") if not value.endswith("]") else (value, "", "")
    if not colon:
        address, port = value, (host.base_url or "").rpartition(":")[2].partition("/")[0]
    return f"{'127.0.0.1' if address in _ANY_ADDRESS else address}:{port}"
