"""The entries of `pools:`, and `defaults:`, which gives what a pool does not say itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from msgspec import Meta
from msgspec.structs import force_setattr

from navarch_common.config.autoscaling import Autoscaling, Day
from navarch_common.config.limits import LimitsConfig
from navarch_common.config.notifier import NotifierConfig
from navarch_common.config.section import Count, Hour, Id, Labels, Path, Patience, Section, Text
from navarch_common.config.units import Share

ShellCommand = Annotated[str, Meta(min_length=1, max_length=16_384, extra={"secret": True})]
"""A line for a shell. Join tokens end up in them, so it is never shown."""
SshKey = Annotated[str, Meta(min_length=1, max_length=16_384)]


class ProviderChoice(Section, frozen=True, kw_only=True):
    """One of the providers that a pool may launch on."""

    name: Id
    """A key of `providers:`."""
    priority: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)] = 0
    """The lowest is tried first."""
    weight: Count = 1
    """Share of the launches under `round-robin`; 0 counts as 1."""
    regions: tuple[Text, ...] = ()
    """Where to launch, in order of preference. None takes the pool's region."""
    instance_type: Text | None = None
    """What this provider calls the type. None takes the pool's."""


class PoolHealthConfig(Section, frozen=True, kw_only=True):
    """What makes a node fail, and what follows."""

    aliases: ClassVar[dict[str, str]] = {"unhealthy_threshold": "unhealthy_after"}

    unhealthy_after: Annotated[int, Meta(ge=0, le=1000)] = 2
    """Consecutive unhealthy readings of a polled check; facts act at once. 0 counts as the default."""
    auto_replace: bool = True
    """Whether a failed node is replaced without being asked."""

    def __post_init__(self) -> None:
        if self.unhealthy_after == 0:
            force_setattr(self, "unhealthy_after", 2)


class SurgeConfig(Section, frozen=True, kw_only=True):
    """Replacements that run beside what they replace."""

    enabled: bool = True
    """Launch first, terminate then."""
    max: Share | None = None
    """Extra nodes at once. None is `disruption.max_unavailable`."""
    timeout: Patience = timedelta(minutes=30)
    """After which a faulty node is given up before its replacement is there."""


class WindowConfig(Section, frozen=True, kw_only=True):
    """Hours of the week in which voluntary disruption is allowed."""

    days: tuple[Day, ...] = ()
    """Days of the week. None means every day."""
    start: Hour = 0
    """First hour, inclusive, UTC."""
    end: Hour = 24
    """Hour at which it is over, UTC; before `start` it is the next day's."""


class DisruptionConfig(Section, frozen=True, kw_only=True):
    """How much may be out of service by our own hand."""

    max_unavailable: Share = Share(1, 0.02)
    """Usable nodes that we take out, and replacements under way, at once."""
    max_per_hour: Count = 4
    """Disruptions in any hour."""
    max_unhealthy: Share = Share(2, 0.2)
    """Over it the breaker opens: so many failures are not the machines' fault."""
    windows: tuple[WindowConfig, ...] = ()
    """When voluntary disruption is allowed. None means always."""


class ScaleDownConfig(Section, frozen=True, kw_only=True):
    """When a node counts as not needed."""

    idle_after: Patience = timedelta(minutes=10)
    """Proven idleness before a node may be taken."""
    force: bool = False
    """Take busy nodes too."""


class DrainConfig(Section, frozen=True, kw_only=True):
    """How long work may take to leave. Unset, each cause has its own times."""

    grace: Patience | None = None
    """Between the word to leave and the first pressure."""
    deadline: Patience | None = None
    """After which the node goes, whatever runs there."""


class PoolDefaults(Section, frozen=True, kw_only=True):
    """What a pool may have from `defaults:`; a pool's own key wins, and in `health` and `labels` key by key."""

    aliases: ClassVar[dict[str, str]] = {"cooldown_period": "cooldown", "autoscaler": "autoscaling"}
    later: ClassVar[frozenset[str]] = frozenset({"validate", "join"})

    provider: Id | None = None
    """A key of `providers:`; after loading, each pool has either this or `providers`."""
    instance_type: Text | None = None
    """`h100-8x` (model, memory where ambiguous, count) or a cloud's own name; `local` and `fake` take any."""
    strategy: Literal["priority", "cost", "availability", "round-robin"] = "priority"
    """How one of several providers is chosen."""
    region: Text | None = None
    """Where to launch."""
    zones: tuple[Text, ...] = ()
    """Zones, in order of preference. None means any."""
    ssh_keys: tuple[SshKey, ...] = ()
    """Names of keys, or whole `user:key` lines, as the cloud wants them."""
    ssh_user: Text = "ubuntu"
    """Who runs `setup_commands`."""
    ssh_private_key_path: Path | None = None
    """Required with `setup_commands`."""
    setup_commands: tuple[ShellCommand, ...] = ()
    """Run over SSH, in order, on a machine that does not start its agent by itself."""
    ip_wait_timeout: Patience = timedelta(minutes=15)
    """For the machine's address to appear, before `setup_commands`."""
    ssh_timeout: Patience = timedelta(minutes=10)
    """For SSH to answer."""
    ssh_connect_timeout: Patience = timedelta(seconds=30)
    """For one connection."""
    command_timeout: Patience = timedelta(minutes=5)
    """For one of the `setup_commands`."""
    automation: Literal["act", "observe", "approve"] = "act"
    """`observe` says what it would do, `approve` waits for `navarch approve`."""
    cooldown: Patience = timedelta(minutes=5)
    """Between two scalings. `0s` means none."""
    health: PoolHealthConfig = PoolHealthConfig()
    """What makes a node fail, and what follows."""
    labels: Labels = {}
    """Given to each machine; `pool` is always the pool's name."""
    surge: SurgeConfig = SurgeConfig()
    """Replacements that run beside what they replace."""
    disruption: DisruptionConfig = DisruptionConfig()
    """How much may be out of service by our own hand."""
    scale_down: ScaleDownConfig = ScaleDownConfig()
    """When a node counts as not needed."""
    drain: DrainConfig = DrainConfig()
    """How long work may take to leave."""
    registration_timeout: Patience = timedelta(minutes=10)
    """From when its provider made the machine to its agent's registration, and as long from there until it is found
    healthy; then it is given up."""
    max_step_up: Share = Share(4, 1.0)
    """Nodes that one decision or message may add, relative to the present count."""
    repair: tuple[Literal["reset_gpu", "reboot_node"], ...] = ()
    """What is tried before a node is replaced."""
    spot: bool = False
    """Launch machines that the cloud may take back."""
    spill: tuple[Literal["on_demand", "spot"], ...] = ()
    """Where a replacement may cost more."""
    max_price_per_hour: Annotated[float, Meta(ge=0, le=100_000)] | None = None
    """US dollars an hour that one machine may cost. None means any."""
    warm: Count = 0
    """Spare nodes, ready and cordoned."""
    notifier: NotifierConfig | None = None
    """Who tells the workload scheduler. None is `server.notifier`."""
    limits: LimitsConfig = LimitsConfig()
    """What may be had and done at most."""
    autoscaling: Autoscaling | None = None
    """Who sizes the pool. None keeps it at its desired count, at least `min_nodes`."""


class PoolConfig(PoolDefaults, frozen=True, kw_only=True):
    """One node pool. After loading, `defaults` are folded in: every field holds what is in force."""

    min_nodes: Count = 0
    """Never fewer. It is also the count that a new pool starts with."""
    max_nodes: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Never more."""
    providers: tuple[ProviderChoice, ...] = ()
    """Several providers to choose from, instead of `provider`."""

    @property
    def choices(self) -> tuple[ProviderChoice, ...]:
        """The providers of this pool in file order, with instance type and regions filled in."""
        own = self.providers or ((ProviderChoice(name=self.provider),) if self.provider else ())
        regions = (self.region,) if self.region else ()
        return tuple(
            ProviderChoice(
                name=choice.name,
                priority=choice.priority,
                weight=choice.weight or 1,
                regions=choice.regions or regions,
                instance_type=choice.instance_type or self.instance_type,
            )
            for choice in own
        )

    @property
    def surge_max(self) -> Share:
        """Extra nodes at once."""
        return self.disruption.max_unavailable if self.surge.max is None else self.surge.max
