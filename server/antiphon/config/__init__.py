"""What an operator decides, and the defaults: each section of the configuration is a class, each setting one of its fields."""

from antiphon.config.access import PUBLIC_ALGORITHMS, AuthConfig, IssuerConfig, KeyConfig
from antiphon.config.credentials import TokenConfig, TokenKind
from antiphon.config.database import DatabaseConfig
from antiphon.config.dialects import ClientConfig, EngineConfig, PersonaConfig, ProxyConfig, SessionsConfig
from antiphon.config.guards import GuardConfig, GuardOptions
from antiphon.config.history import HistoryConfig
from antiphon.config.limits import LimitsConfig, QuotaConfig
from antiphon.config.outbound import OutboundConfig
from antiphon.config.ports import (
    CUT_TRAILERS,
    MAX_KEYLESS_BYTES,
    MAX_MESSAGE_BYTES,
    GrpcConfig,
    MetricsConfig,
    RestConfig,
    TlsConfig,
    UpstreamTlsConfig,
    split_address,
)
from antiphon.config.prices import PriceConfig
from antiphon.config.providers import KEEP_ALIVE, ProviderConfig, UnsupportedPolicy
from antiphon.config.routing import RoutingConfig, TimeoutsConfig
from antiphon.config.section import ConfigError
from antiphon.config.whole import Config, LogConfig, database_url

__all__ = [
    "CUT_TRAILERS",
    "KEEP_ALIVE",
    "MAX_KEYLESS_BYTES",
    "MAX_MESSAGE_BYTES",
    "PUBLIC_ALGORITHMS",
    "AuthConfig",
    "ClientConfig",
    "Config",
    "ConfigError",
    "DatabaseConfig",
    "EngineConfig",
    "GrpcConfig",
    "GuardConfig",
    "GuardOptions",
    "HistoryConfig",
    "IssuerConfig",
    "KeyConfig",
    "LimitsConfig",
    "LogConfig",
    "MetricsConfig",
    "OutboundConfig",
    "PersonaConfig",
    "PriceConfig",
    "ProviderConfig",
    "ProxyConfig",
    "QuotaConfig",
    "RestConfig",
    "RoutingConfig",
    "SessionsConfig",
    "TimeoutsConfig",
    "TlsConfig",
    "TokenConfig",
    "TokenKind",
    "UnsupportedPolicy",
    "UpstreamTlsConfig",
    "database_url",
    "split_address",
]
