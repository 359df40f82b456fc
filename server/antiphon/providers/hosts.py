"""The known hosts, as rows of data. A new compatible host is a row here, or a section of the configuration.

A host is switched on by its usual environment variable. The models in a row can be requested by their bare names, all models of a
host as "host/model". A host that serves other companies' open models lists none, or two such hosts would claim the same name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from yarl import URL

from antiphon.config import ConfigError, ProviderConfig
from antiphon.providers.openai.capabilities import NO_PARTS, NO_THOUGHTS, OPENAI, UNKNOWN, Capabilities, Thoughts

WITHOUT_URL: Final = frozenset({"echo"})
"""Protocols that connect to no host."""


_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost"})
"""Addresses that several hosts may share."""

_ANY_ADDRESS: Final = ("", "0.0.0.0", "[::]")  # noqa: S104 - not bound to, but replaced


class Host(Struct, frozen=True, kw_only=True):
    """One host. `models` lists names first, then patterns; the first name may become the default model."""

    name: str
    base_url: str | None
    """None: each customer has a different one."""
    key_variable: str | None
    url_variable: str | None = None
    """The environment variable that overrides `base_url`."""
    url_suffix: str = ""
    """Appended to the value of `url_variable`, if its usual value is not a base URL."""
    switched_on_by_url: bool = False
    """Whether `url_variable` alone switches the host on, because it needs no key."""
    auth_header: str = "authorization"
    stream_usage: bool = True
    models: tuple[str, ...] = ()
    protocol: str = "openai"
    capabilities: Capabilities = NO_PARTS
    """Which parts of earlier replies may be sent back to it."""


_GROQ: Final = frozenset({"role", "content", "name", "tool_calls", "function_call", "reasoning"})
_MISTRAL: Final = frozenset({"role", "content", "tool_calls", "prefix"})
_CEREBRAS: Final = frozenset({"role", "content", "name", "tool_calls", "reasoning"})
_GEMINI: Final = frozenset({"role", "content", "name", "tool_calls", "extra_content"})

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
            "ft:*",
        ),
        capabilities=OPENAI,
    ),
    # Its v1 API needs no api-version, and its models are deployments:
    # https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle
    Host(
        name="azure",
        base_url=None,
        key_variable="AZURE_OPENAI_API_KEY",
        url_variable="AZURE_OPENAI_ENDPOINT",
        url_suffix="/openai/v1",
        auth_header="api-key",
        capabilities=OPENAI,
    ),
    # https://docs.anthropic.com/en/api/openai-sdk
    Host(
        name="anthropic",
        base_url="https://api.anthropic.com/v1",
        key_variable="ANTHROPIC_API_KEY",
        models=("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-1", "claude-*"),
    ),
    # https://ai.google.dev/gemini-api/docs/openai and, for the signature, https://ai.google.dev/gemini-api/docs/thought-signatures.
    # Models of before version 3 take calls without one.
    Host(
        name="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_variable="GEMINI_API_KEY",
        models=("gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.5-flash-lite", "gemini-*"),
        capabilities=Capabilities(
            thoughts=Thoughts.NONE,
            reply_fields=_GEMINI,
            call_fields=frozenset({"extra_content"}),
            nulls=False,
            unsigned_call="skip_thought_signature_validator",
            unsigned_models=("*gemini-1*", "*gemini-2*", "*gemma*"),
        ),
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
        capabilities=Capabilities(
            thoughts=Thoughts.PARTS, thinking_models=("magistral*",), reply_fields=_MISTRAL, short_call_ids=True
        ),
    ),
    Host(
        name="deepseek",
        base_url="https://api.deepseek.com/v1",
        key_variable="DEEPSEEK_API_KEY",
        models=("deepseek-chat", "deepseek-reasoner"),
        capabilities=Capabilities(thoughts=Thoughts.REASONING_CONTENT, empty_thought="", refusals=False),
    ),
    # Kimi refuses an empty `reasoning_content` as well as a missing one.
    Host(
        name="moonshot",
        base_url="https://api.moonshot.ai/v1",
        key_variable="MOONSHOT_API_KEY",
        capabilities=Capabilities(thoughts=Thoughts.REASONING_CONTENT, empty_thought=" ", refusals=False),
    ),
    Host(name="perplexity", base_url="https://api.perplexity.ai", key_variable="PERPLEXITY_API_KEY", capabilities=NO_THOUGHTS),
    Host(
        name="xai",
        base_url="https://api.x.ai/v1",
        key_variable="XAI_API_KEY",
        models=("grok-4", "grok-3", "grok-3-mini", "grok-*"),
        capabilities=NO_THOUGHTS,
    ),
    Host(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        # Its other models refuse reasoning: https://console.groq.com/docs/reasoning
        capabilities=Capabilities(
            thoughts=Thoughts.REASONING, thinking_models=("*gpt-oss*", "*qwen3*", "*qwq*", "*r1*"), reply_fields=_GROQ
        ),
    ),
    Host(name="together", base_url="https://api.together.xyz/v1", key_variable="TOGETHER_API_KEY"),
    Host(name="fireworks", base_url="https://api.fireworks.ai/inference/v1", key_variable="FIREWORKS_API_KEY"),
    Host(
        name="cerebras",
        base_url="https://api.cerebras.ai/v1",
        key_variable="CEREBRAS_API_KEY",
        capabilities=Capabilities(thoughts=Thoughts.REASONING, reply_fields=_CEREBRAS),
    ),
    Host(name="nvidia", base_url="https://integrate.api.nvidia.com/v1", key_variable="NVIDIA_API_KEY"),
    Host(
        name="openrouter",
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        capabilities=Capabilities(thoughts=Thoughts.DETAILS),
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
    of the row. Raises `ConfigError` if there is no base URL and the protocol needs one.
    """
    if config.protocol in WITHOUT_URL:
        return config
    host = next((host for host in HOSTS if host.name == name), None)
    changes: dict[str, object] = {}
    if host is not None:
        if config.base_url is None:
            changes["base_url"] = _base_url(host, environment)
            no_key = config.api_key_env is None and config.api_key_file is None
            if no_key and host.key_variable is not None and environment.get(host.key_variable, "").strip():
                changes["api_key_env"] = host.key_variable
            if not config.models:
                changes["models"] = host.models
        for field in ("protocol", "auth_header", "stream_usage"):
            if field not in config.model_fields_set:
                changes[field] = getattr(host, field)
    completed = config.model_copy(update=changes)
    if completed.base_url is None and (not config.deployments or any(own.base_url is None for own in config.deployments.values())):
        wanted = f"set it, or {host.url_variable}" if host is not None and host.url_variable else "is missing"
        raise ConfigError(f"providers.{name}.base_url: {wanted}")
    return completed


def capabilities(name: str, base_url: str | None) -> Capabilities:
    """Return the capabilities of a provider: those of the host with its address, else of the host with its name, else `UNKNOWN`."""
    name = name.partition("/")[0]  # that of the provider, without its deployment
    address = URL(base_url).host if base_url else None
    is_known_address = address is not None and address not in _LOOPBACK
    at_address = (host for host in HOSTS if is_known_address and host.base_url and URL(host.base_url).host == address)
    named = (host for host in HOSTS if host.name == name)
    found = next((host for host in (*at_address, *named) if host.protocol == "openai"), None)
    return UNKNOWN if found is None else found.capabilities


def _is_on(host: Host, environment: Mapping[str, str]) -> bool:
    """Return whether the environment has the variables that switch a host on."""
    has_url = host.url_variable is not None and bool(environment.get(host.url_variable, "").strip())
    if host.switched_on_by_url:
        return has_url
    has_key = host.key_variable is not None and bool(environment.get(host.key_variable, "").strip())
    return has_key and (has_url or host.base_url is not None)


def _base_url(host: Host, environment: Mapping[str, str]) -> str | None:
    """Return the base URL from the environment, else that of the row; None if neither has one."""
    value = environment.get(host.url_variable or "", "").strip().rstrip("/")
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
