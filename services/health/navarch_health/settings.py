"""What health takes from the configuration in force."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from navarch_common.config.schema import Config
from navarch_health.fold import Limits
from navarch_health.liveness import Patience


@dataclass(frozen=True, slots=True)
class HealthSettings:
    heartbeat_interval: timedelta
    """How often an agent says that it lives: `server.heartbeat_interval`."""
    heartbeat_timeout: timedelta
    """Silence after which a node is suspect: `server.heartbeat_timeout`."""
    silence_deadline: timedelta
    """Silence after which a node has failed although nobody else says so: `server.silence_deadline`."""
    reading_gap: timedelta
    """Readings of polled checks further apart are not consecutive: two and a half `server.health_check_interval`."""
    policy_path: Path | None = None
    """`server.health_policy`; None is the built-in policy."""
    unhealthy_after: dict[str, int] = field(default_factory=dict)
    """Per pool `health.unhealthy_after`."""

    @classmethod
    def of(cls, config: Config) -> "HealthSettings":
        server = config.server
        return cls(
            heartbeat_interval=server.heartbeat_interval,
            heartbeat_timeout=server.heartbeat_timeout,
            silence_deadline=server.silence_deadline,
            reading_gap=server.health_check_interval * 2.5,
            policy_path=None if server.health_policy is None else Path(server.health_policy),
            unhealthy_after={name: pool.health.unhealthy_after for name, pool in config.pools.items()},
        )

    @property
    def patience(self) -> Patience:
        return Patience(heartbeat_timeout=self.heartbeat_timeout, silence_deadline=self.silence_deadline)

    @property
    def tick_s(self) -> float:
        """How often silence is looked for: a fifteenth of what is borne, between 50 ms and a second."""
        return min(1.0, max(0.05, self.heartbeat_timeout.total_seconds() / 15))

    def limits(self, pool: str) -> Limits:
        return Limits(unhealthy_after=self.unhealthy_after.get(pool, 2), reading_gap=self.reading_gap)
