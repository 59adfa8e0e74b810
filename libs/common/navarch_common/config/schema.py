"""The checked configuration: what one `navarch.yaml` says once everything in it is known to be right.

Field names are the keys of the file. Unit, default and reason stand under each; durations are `timedelta`, written
`90s`, `5m`, `1h30m` or `7d`. Everything is frozen. Only msgspec is needed here; reading a file needs `load.py`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from msgspec import Meta
from msgspec.structs import force_setattr

from navarch_common.config.limits import LimitsConfig
from navarch_common.config.notifier import NotifierConfig
from navarch_common.config.pools import PoolConfig, PoolDefaults
from navarch_common.config.providers import ProviderConfig
from navarch_common.config.section import Id, Interval, Path, Patience, Section, Text, Url

Address = Annotated[str, Meta(max_length=261, pattern=r"^\S*:\d{1,5}\Z", extra={"expected": "HOST:PORT or :PORT"})]
ServerUrls = Annotated[
    str,
    Meta(
        max_length=4096,
        pattern=r"^(nats|tls|ws|wss)://[^\s,]+(\s*,\s*((nats|tls|ws|wss)://)?[^\s,]+)*\Z",
        extra={"expected": "nats://host:4222 (or tls://, ws://, wss://), several with commas", "secret": True},
    ),
]
StateUrl = Annotated[
    str,
    Meta(
        max_length=4096,
        pattern=r"^(rediss?|rediss?\+sentinel|unix)://\S+\Z",
        extra={"expected": "redis://, rediss://, redis+sentinel:// or unix://", "secret": True},
    ),
]


class TlsConfig(Section, frozen=True, kw_only=True):
    """Files of a TLS connection."""

    ca_file: Path | None = None
    """Who is trusted. None is the system's own store."""
    cert_file: Path | None = None
    """Our certificate, where the other side wants one."""
    key_file: Path | None = None
    """Its key; needed with `cert_file`."""


class BusConfig(Section, frozen=True, kw_only=True):
    """NATS."""

    url: ServerUrls | None = None
    """Servers. None starts an embedded one. `NAVARCH_NATS_URL` wins."""
    external_url: ServerUrls | None = None
    """Address that machines outside use. None is `url`."""
    credentials: Path | None = None
    """A NATS credentials file."""
    tls: TlsConfig | None = None
    """None is plain text, unless the URL's scheme says otherwise."""
    replicas: Literal[1, 3, 5] = 1
    """Copies of each stream; 3 where the NATS cluster has three servers or more."""
    prefix: Id = "navarch"
    """First token of every subject; streams are named after it."""


class StateConfig(Section, frozen=True, kw_only=True):
    """Redis, or what speaks like it."""

    url: StateUrl | None = None
    """Address. None starts an embedded server. `NAVARCH_REDIS_URL` wins."""
    tls: TlsConfig | None = None
    """Files for `rediss://`."""
    replicas: Literal[0, 1, 2] | None = None
    """How many replicas must have a commit before it counts (Redis' WAIT). None is one behind Sentinels, else none."""


class ServerConfig(Section, frozen=True, kw_only=True):
    """The doors, and the rhythm of the fleet."""

    address: Address = ":50051"
    """gRPC. Without a host it is 127.0.0.1 (see `addresses.py`)."""
    http_address: Address = ":8080"
    """HTTP."""
    external_address: Text | None = None
    """URL that users and machines outside reach us by. None is derived from `address`."""
    heartbeat_interval: Interval = timedelta(seconds=5)
    """How often each agent says that it lives."""
    heartbeat_timeout: Patience = timedelta(0)
    """Silence after which a node is suspect. Absent or 0 becomes three intervals."""
    silence_deadline: Patience = timedelta(minutes=5)
    """Silence after which a node has failed although nobody else says so."""
    health_check_interval: Interval = timedelta(seconds=60)
    """How often each agent runs its polled checks."""
    autoscale_interval: Interval = timedelta(seconds=30)
    """How often pools are sized even though nothing woke the autoscaler."""
    health_policy: Path | None = None
    """File with the health policy. None is the built-in one."""
    notifier: NotifierConfig = NotifierConfig()
    """Who tells the workload scheduler, where a pool does not say."""

    def __post_init__(self) -> None:
        if not self.heartbeat_timeout:
            force_setattr(self, "heartbeat_timeout", 3 * self.heartbeat_interval)


class TelemetryConfig(Section, frozen=True, kw_only=True):
    """What leaves for observers."""

    otlp_endpoint: Url | None = None
    """OpenTelemetry collector, OTLP over HTTP. None sends nothing."""
    gpu_metrics: bool = False
    """Whether `/metrics` has a series for each GPU. Off, since 100,000 of them are many series."""


class InstanceManagerConfig(Section, frozen=True, kw_only=True):
    """The reference's block; its timeout is that of every pool which has none of its own."""

    registration_timeout: Patience = timedelta(minutes=10)
    """Of pools that say none themselves."""
    stale_check_interval: Interval = timedelta(minutes=1)
    """Accepted and not needed: deadlines are watched one by one."""


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    later: ClassVar[frozenset[str]] = frozenset({"auth"})

    cluster: Id = "default"
    """Tags every machine. Two control planes that share a cloud account need two names."""
    installation: Id | None = None
    """Tags every machine too. None is random, and kept in the data directory."""
    gc: Literal["report", "terminate"] = "report"
    """What is done about machines that are ours by tag and unknown by record."""
    insecure: bool = False
    """Lets the doors open without auth, and a real cloud start over a bus without TLS and credentials."""
    bus: BusConfig = BusConfig()
    """NATS."""
    state: StateConfig = StateConfig()
    """Redis."""
    server: ServerConfig = ServerConfig()
    """The doors, and the rhythm of the fleet."""
    limits: LimitsConfig = LimitsConfig()
    """What the whole fleet may have and do."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """What leaves for observers."""
    instance_manager: InstanceManagerConfig | None = None
    """The reference's block."""
    providers: dict[Id, ProviderConfig] = {}
    """Where machines come from, by name."""
    pools: dict[Id, PoolConfig] = {}
    """Node pools, by name."""
    defaults: PoolDefaults = PoolDefaults()
    """What pools have that they do not say. Already folded into `pools`."""
