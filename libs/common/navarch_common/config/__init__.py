"""The one configuration file: what it may say, and how it becomes a checked `Config`.

In comes the text of a `navarch.yaml` and the environment; out comes a frozen `Config`, or a `ConfigError` with every
mistake, each at its line and column. A file is a proposal: the gateway commits its text and hash as the record
`config/<generation>`, which it alone owns, and every service acts on the committed generation.

`schema` (and what is exported here) needs msgspec alone. `load`, `watch` and `commands` need the extra `[config]`.
"""

from navarch_common.config.pools import PoolConfig, ProviderChoice
from navarch_common.config.providers import ProviderConfig
from navarch_common.config.schema import BusConfig, Config, ServerConfig, StateConfig, TelemetryConfig
from navarch_common.config.units import Share, format_duration, parse_duration, parse_share

__all__ = [
    "BusConfig",
    "Config",
    "PoolConfig",
    "ProviderChoice",
    "ProviderConfig",
    "ServerConfig",
    "Share",
    "StateConfig",
    "TelemetryConfig",
    "format_duration",
    "parse_duration",
    "parse_share",
]
