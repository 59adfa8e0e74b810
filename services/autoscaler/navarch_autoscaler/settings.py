"""What the autoscaler takes from the configuration in force."""

from dataclasses import dataclass
from datetime import timedelta

from navarch_common.config.schema import Config


@dataclass(frozen=True, slots=True)
class AutoscalerSettings:
    interval: timedelta
    """Pools are sized this often even though nothing woke us: `server.autoscale_interval`."""
    fresh_for: timedelta
    """A heartbeat older than this says nothing of utilization: `server.heartbeat_timeout`."""

    @classmethod
    def of(cls, config: Config) -> "AutoscalerSettings":
        return cls(interval=config.server.autoscale_interval, fresh_for=config.server.heartbeat_timeout)
