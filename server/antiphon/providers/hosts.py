"""Hosts that speak a protocol that is known here: rows of data. A new compatible host is a row, or a section of the configuration.

A host is switched on by its usual environment variable. Models named here are found by their bare name; every model of a host is
found as "host/model". A host of other people's open models names none, or two such hosts would claim the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from yarl import URL

from antiphon.config import ConfigError, ProviderConfig
from antiphon.providers.openai.capabilities import FIELDS, OPENAI, SILENT, UNKNOWN, Capabilities, Thoughts

WITHOUT_URL: Final = frozenset({"echo"})
"""Protocols that reach no host."""


_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost"})
"""Where several hosts may be."""

_ANY_ADDRESS: Final = ("", "0.0.0.0", "[::]")  # noqa: S104 - not bound to, but replaced


class Host(Struct, frozen=True, kw_only=True):
    """One host. `models` are names first, then patterns; the first name may become the default model."""

    name: str
    base_url: str | None
    """None: it is different for each customer."""
    key_variable: str | None
    url_variable: str | None = None
    """Takes the place of `base_url`."""
    url_suffix: str = ""
    """What is put behind the value of `url_variable`, where its usual value is not a base URL."""
    switched_on_by_url: bool = False
    """Whether `url_variable` alone switches it on: the host needs no key."""
    auth_header: str = "authorization"
    stream_usage: bool = True
    models: tuple[str, ...] = ()
    protocol: str = "openai"
    takes: Capabilities = FIELDS
    """What it takes back of what a model has said."""


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
        takes=OPENAI,
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
        takes=OPENAI,
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
        takes=Capabilities(
            thoughts=Thoughts.NONE,
            reply_fields=_GEMINI,
            call_fields=frozenset({"extra_content"}),
            takes_nulls=False,
            unsigned_call="skip_thought_signature_validator",
            unsigned_models=("*gemini-1*", "*gemini-2*", "*gemma*"),
        ),
    ),
    # Refuses `stream_options` (422), and tells the usage of every stream without it.
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
        takes=Capabilities(thoughts=Thoughts.PARTS, thinking_models=("magistral*",), reply_fields=_MISTRAL, short_call_ids=True),
    ),
    Host(
        name="deepseek",
        base_url="https://api.deepseek.com/v1",
        key_variable="DEEPSEEK_API_KEY",
        models=("deepseek-chat", "deepseek-reasoner"),
        takes=Capabilities(thoughts=Thoughts.REASONING_CONTENT, fill="", refusals=False),
    ),
    # Kimi refuses an empty `reasoning_content` as it does none.
    Host(
        name="moonshot",
        base_url="https://api.moonshot.ai/v1",
        key_variable="MOONSHOT_API_KEY",
        takes=Capabilities(thoughts=Thoughts.REASONING_CONTENT, fill=" ", refusals=False),
    ),
    Host(name="perplexity", base_url="https://api.perplexity.ai", key_variable="PERPLEXITY_API_KEY", takes=SILENT),
    Host(
        name="xai",
        base_url="https://api.x.ai/v1",
        key_variable="XAI_API_KEY",
        models=("grok-4", "grok-3", "grok-3-mini", "grok-*"),
        takes=SILENT,
    ),
    Host(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        # Its other models refuse a thought: https://console.groq.com/docs/reasoning
        takes=Capabilities(
            thoughts=Thoughts.REASONING, thinking_models=("*gpt-oss*", "*qwen3*", "*qwq*", "*r1*"), reply_fields=_GROQ
        ),
    ),
    Host(name="together", base_url="https://api.together.xyz/v1", key_variable="TOGETHER_API_KEY"),
    Host(name="fireworks", base_url="https://api.fireworks.ai/inference/v1", key_variable="FIREWORKS_API_KEY"),
    Host(
        name="cerebras",
        base_url="https://api.cerebras.ai/v1",
        key_variable="CEREBRAS_API_KEY",
        takes=Capabilities(thoughts=Thoughts.REASONING, reply_fields=_CEREBRAS),
    ),
    Host(name="nvidia", base_url="https://integrate.api.nvidia.com/v1", key_variable="NVIDIA_API_KEY"),
    Host(
        name="openrouter",
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        takes=Capabilities(thoughts=Thoughts.DETAILS),
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
"""In the order in which they claim a model, and in which the first gives the default model."""


ECHO: Final = ProviderConfig(protocol="echo", models=("echo",))
"""What answers where no provider is configured."""


def configured(providers: Mapping[str, ProviderConfig], environment: Mapping[str, str]) -> dict[str, ProviderConfig]:
    """The providers by name: those of the configuration; else those whose environment variable is set, and `echo`.

    Raises `ConfigError`.
    """
    if providers:
        return {name: complete(name, provider, environment) for name, provider in providers.items()}
    return {**from_environment(environment), "echo": ECHO}


def from_environment(environment: Mapping[str, str]) -> dict[str, ProviderConfig]:
    """The providers that the usual variables switch on, by name, in the order of `HOSTS`."""
    return {host.name: complete(host.name, ProviderConfig(), environment) for host in HOSTS if _is_on(host, environment)}


def complete(name: str, config: ProviderConfig, environment: Mapping[str, str] = os.environ) -> ProviderConfig:
    """`config` with what it leaves open taken from the row of the same name and the environment. What is complete stays as it is.

    With a base URL of its own it is another host that only has the same name: it gets neither the models nor the key of the row.
    Raises `ConfigError` if there is no base URL and the protocol needs one.
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
    if completed.base_url is None:
        wanted = f"set it, or {host.url_variable}" if host is not None and host.url_variable else "is missing"
        raise ConfigError(f"providers.{name}.base_url: {wanted}")
    return completed


def capabilities(name: str, base_url: str | None) -> Capabilities:
    """Return what a provider takes back of what a model has said: that of the row with its address, else of its name."""
    address = URL(base_url).host if base_url else None
    is_told = address is not None and address not in _LOOPBACK
    at_address = (host for host in HOSTS if is_told and host.base_url and URL(host.base_url).host == address)
    named = (host for host in HOSTS if host.name == name)
    found = next((host for host in (*at_address, *named) if host.protocol == "openai"), None)
    return UNKNOWN if found is None else found.takes


def _is_on(host: Host, environment: Mapping[str, str]) -> bool:
    has_url = host.url_variable is not None and bool(environment.get(host.url_variable, "").strip())
    if host.switched_on_by_url:
        return has_url
    has_key = host.key_variable is not None and bool(environment.get(host.key_variable, "").strip())
    return has_key and (has_url or host.base_url is not None)


def _base_url(host: Host, environment: Mapping[str, str]) -> str | None:
    value = environment.get(host.url_variable or "", "").strip().rstrip("/")
    if not value:
        return host.base_url
    if "://" not in value:
        value = f"http://{_client_address(value, host)}"
    return value if host.url_suffix and value.endswith(host.url_suffix) else value + host.url_suffix


def _client_address(value: str, host: Host) -> str:
    """A server's listening address, which is what OLLAMA_HOST may hold, as one to connect to."""
    address, colon, port = value.rpartition(":") if not value.endswith("]") else (value, "", "")
    if not colon:
        address, port = value, (host.base_url or "").rpartition(":")[2].partition("/")[0]
    return f"{'127.0.0.1' if address in _ANY_ADDRESS else address}:{port}"
