"""What the provisioner goes by: the committed configuration, and the rhythm of its own work."""

from dataclasses import dataclass, field
from datetime import timedelta

from navarch_common import leases
from navarch_common.config import Config, PoolConfig, ProviderConfig
from navarch_common.config.limits import LimitsConfig
from navarch_common.config.notifier import NotifierConfig


@dataclass(frozen=True, slots=True)
class Timings:
    """The provisioner's own rhythm. Tests of the shell shorten it."""

    reconcile_period: timedelta = timedelta(seconds=10)
    """A pool is looked at this often although nothing woke it."""
    sweep_period: timedelta = timedelta(seconds=30)
    """How often each provider is asked for everything it has."""
    retell_period: timedelta = timedelta(seconds=15)
    """How often a few nodes' records are held against what the stream of events was told."""
    full_read_period: timedelta = timedelta(seconds=60)
    """How often a pool is read whole rather than by what changed: deletions show only then."""
    lease_ttl: timedelta = leases.TTL
    cloud_call_timeout: timedelta = timedelta(seconds=30)
    """After it a cloud call is unknown, never failed."""
    launch_settle: timedelta = timedelta(seconds=5)
    """How long after the end of a launch call its machine may still appear at the cloud. Until then, not finding it
    proves nothing."""
    look_again: timedelta = timedelta(seconds=1)
    """Between two lookups of a launch whose outcome is unknown, and two tries to terminate."""
    report_patience: timedelta = timedelta(seconds=10)
    """A report that its taker did not acknowledge by then, because it died over it, goes to another copy."""
    command_repeat: timedelta = timedelta(seconds=5)
    """A command is sent again until its result is in."""
    command_expiry: timedelta = timedelta(hours=1)
    leak_grace: timedelta = timedelta(minutes=5)
    """A machine with our tags and no record is called leaked this long after it was first seen, at the second sighting."""
    newborn_grace: timedelta = timedelta(seconds=60)
    """A cloud may not list yet what it made this recently: its absence proves nothing."""
    keep_ended: timedelta = timedelta(days=28)
    """How long the record of an ended node is kept."""
    launch_concurrency: int = 10
    """Launches of one pool that may be planned or under way at once."""
    call_concurrency: int = 16
    """Cloud calls that one process has open at once."""
    backoff_first: timedelta = timedelta(seconds=5)
    backoff_max: timedelta = timedelta(minutes=5)

    breaker_pause: timedelta = timedelta(minutes=5)
    """After a breaker opened, before the first canary; doubled for each that fails."""
    breaker_pause_max: timedelta = timedelta(hours=1)

    @property
    def proof_after(self) -> timedelta:
        """After a launch call began, not finding its machine proves that there is none only this much later."""
        return self.cloud_call_timeout + self.launch_settle


@dataclass(frozen=True, slots=True)
class ProvisionerSettings:
    """The configuration in force, as far as machines are concerned."""

    pools: dict[str, PoolConfig]
    providers: dict[str, ProviderConfig]
    fleet_limits: LimitsConfig = field(default_factory=LimitsConfig)
    """`limits:` at the top of the file; those of providers and pools stand with them."""
    heartbeat_interval: timedelta = timedelta(seconds=5)
    heartbeat_timeout: timedelta = timedelta(seconds=15)
    silence_deadline: timedelta = timedelta(minutes=5)
    """Silence after which a node that never was found healthy is given up."""
    health_check_interval: timedelta = timedelta(seconds=60)
    nats_url: str = ""
    """Where machines reach the bus."""
    subject_prefix: str = "navarch"
    otlp_endpoint: str = ""
    """Where machines' agents send their spans, so that a trace begins at the kernel's line; empty: nowhere."""
    collect_leaks: bool = False
    """`gc: terminate`: end what is ours by tag and ended or doubled by record, instead of only reporting it."""
    notifiers: dict[str, NotifierConfig] = field(default_factory=dict)
    """By pool: who tells its scheduler."""
    timings: Timings = field(default_factory=Timings)

    @classmethod
    def of(cls, config: Config, *, nats_url: str = "", timings: Timings | None = None) -> "ProvisionerSettings":
        """`nats_url` is the bus that this process is connected to; `bus.external_url` and `bus.url` win."""
        return cls(
            pools=dict(config.pools),
            providers=dict(config.providers),
            fleet_limits=config.limits,
            heartbeat_interval=config.server.heartbeat_interval,
            heartbeat_timeout=config.server.heartbeat_timeout,
            silence_deadline=config.server.silence_deadline,
            health_check_interval=config.server.health_check_interval,
            nats_url=config.bus.external_url or nats_url or config.bus.url or "",
            subject_prefix=config.bus.prefix,
            otlp_endpoint=config.telemetry.otlp_endpoint or "",
            collect_leaks=config.gc == "terminate",
            notifiers={name: pool.notifier or config.server.notifier for name, pool in config.pools.items()},
            timings=timings or Timings(),
        )
