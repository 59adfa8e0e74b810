"""All that is known of one pool at one moment, with the revision of each record: what `plan` decides on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from navarch_common.config import PoolConfig
from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import COMMAND, INBOX, META, CommandRecord, InboxRecord, MetaRecord
from navarch_common.model.health import HEALTH, HealthRecord, HealthStatus
from navarch_common.model.node import COMING, ENDED, LEAVING, NODE, NodeRecord, Phase, ProviderState
from navarch_common.model.pool import GUARD, POOL, SUPPLY, VERDICTS, Guard, PoolRecord, SupplyRecord
from navarch_common.model.wish import NODE_WISHES, NodeWishes, Wish
from navarch_common.store.base import ABSENT
from navarch_provisioner.settings import ProvisionerSettings

ACTIONS_OF_FAILURE = frozenset({"drain_and_replace", "reset_gpu", "reboot_node"})
"""Verdicts' actions that end in a replacement. The two repairs are among them: there is no repair to try first yet."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is known of the work on a node: by its heartbeats, or by its scheduler."""

    idle: bool | None = None
    """None: not known, because nothing was heard lately or a GPU could not be read. Never taken for idle."""
    at: datetime | None = None
    """When the last heartbeat came in."""
    idle_since: datetime | None = None
    """Since when every heartbeat that was looked at said idle, as far as this copy has watched."""
    text: str = ""
    """What runs there: `GPU 3 has 2 processes`."""
    driver_state: str = "unknown"


@dataclass(frozen=True)
class NodeView:
    """One node: its record, the verdict on it, what it reported, what was wished for it, what works on it."""

    record: NodeRecord
    revision: int
    health: HealthRecord | None = None
    health_revision: int = ABSENT
    inbox: InboxRecord | None = None
    inbox_revision: int = ABSENT
    wish_record: NodeWishes | None = None
    wish_revision: int = ABSENT
    work: Work = field(default_factory=Work)

    @property
    def node(self) -> str:
        return self.record.node

    @property
    def phase(self) -> Phase:
        return self.record.phase

    @cached_property
    def verdict(self) -> HealthRecord | None:
        """The verdict on this very generation, or None: one about an earlier machine says nothing of this one."""
        if self.health is not None and self.health.generation == self.record.generation:
            return self.health
        return None

    @property
    def status(self) -> HealthStatus:
        return self.verdict.status if self.verdict else HealthStatus.UNKNOWN

    @property
    def failed(self) -> bool:
        """Health says that it failed, and that it should go."""
        verdict = self.verdict
        return verdict is not None and verdict.status is HealthStatus.UNHEALTHY and verdict.action in ACTIONS_OF_FAILURE

    @property
    def usable(self) -> bool:
        """Takes work now, as far as its hardware goes."""
        return self.phase is Phase.ACTIVE and self.status in (HealthStatus.HEALTHY, HealthStatus.DEGRADED)

    @property
    def gone(self) -> bool:
        """Its provider says for certain that the machine no longer exists."""
        instance = self.record.instance
        return instance is not None and instance.state is ProviderState.GONE

    @property
    def open_wishes(self) -> tuple[Wish, ...]:
        """Those without a final answer, oldest first."""
        if self.wish_record is None:
            return ()
        answers = self.record.answers
        return tuple(
            wish for wish in self.wish_record.wishes if wish.id not in answers or answers[wish.id].outcome == "accepted"
        )

    @property
    def key(self) -> AnyKey:
        return NODE.key(self.node)

    def expect(self) -> dict[AnyKey, int]:
        """The records that any decision on this node rests on."""
        return {
            self.key: self.revision,
            HEALTH.key(self.node): self.health_revision,
            NODE_WISHES.key(self.node): self.wish_revision,
        }


@dataclass(frozen=True)
class PoolView:
    """One pool, as far as one who decides on its machines must know it."""

    pool: str
    cluster: str
    installation: str
    settings: ProvisionerSettings
    config: PoolConfig | None
    """None: the pool left the configuration. It is retiring: nothing is launched, nothing terminated by ourselves."""
    config_generation: int = 0
    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    desired: PoolRecord | None = None
    desired_revision: int = ABSENT
    supply: SupplyRecord | None = None
    supply_revision: int = ABSENT
    verdicts_revision: int = ABSENT
    guards: tuple[Guard, ...] = ()
    guard_revisions: Mapping[str, int] = field(default_factory=dict)
    """By guard name, absent ones too: a freeze that comes in between makes the commit conflict."""
    meta: MetaRecord | None = None
    meta_revision: int = ABSENT
    commands: Mapping[str, CommandRecord] = field(default_factory=dict)
    command_revisions: Mapping[str, int] = field(default_factory=dict)
    replacing: frozenset[str] = frozenset()
    """Holders of the budget of concurrent replacements: the failed nodes that are being replaced."""
    replaced_lately: frozenset[str] = frozenset()
    """Holders of the budget per hour."""
    outbox_waiting: int = 0
    in_flight: frozenset[str] = frozenset()
    """Nodes that a cloud call of this process is about."""
    resting: Mapping[str, datetime] = field(default_factory=dict)
    """Nodes whose last cloud call settled nothing: not before then again."""
    cooling: Mapping[str, datetime] = field(default_factory=dict)
    """Offers (`provider/region/zone`) that refused lately: not before then again."""
    providers: frozenset[str] = frozenset()
    """Providers that can be called."""
    watching_since: datetime | None = None
    """Since when this copy holds the pool. None: long since."""
    fresh_ids: tuple[str, ...] = ()
    """Node ids minted for this pass, to be used in order: chance stays outside of decisions."""

    def settled(self, now: datetime) -> bool:
        """Whether this copy has watched long enough to conclude anything from what it did not hear: after a long
        absence the reports that wait must be read first."""
        return self.watching_since is None or now - self.watching_since >= self.settings.heartbeat_timeout

    @property
    def living(self) -> list[NodeView]:
        """Nodes that may have a machine, in the order of their birth."""
        return [view for view in self.nodes.values() if view.phase not in ENDED]

    @property
    def safe_mode(self) -> bool:
        """True also while it is not known whether it is on."""
        return self.meta is None or self.meta.safe_mode is not None

    @property
    def target(self) -> int:
        """How many nodes the pool should have: what the autoscaler says, within the configured bounds."""
        wanted = self.desired.desired if self.desired else 0
        if self.config is None:
            return wanted
        return min(max(wanted, self.config.min_nodes), self.config.max_nodes)

    @property
    def coming(self) -> list[NodeView]:
        return [view for view in self.living if view.phase in COMING]

    def replacement_of(self, view: NodeView) -> NodeView | None:
        """The node that takes `view`'s place, at the end of the chain where a replacement failed in its turn; None
        where there is none, or it was given up."""
        found = None
        step = self.nodes.get(view.record.replaced_by or "")
        for _ in range(len(self.nodes)):
            if step is None or step.phase in ENDED or step.phase in LEAVING:
                break
            leaving = step.phase is Phase.DRAINING and step.record.replaced_by is not None
            found = None if leaving else step
            if not leaving:
                break
            step = self.nodes.get(step.record.replaced_by or "")
        return found

    def expect_guards(self) -> dict[AnyKey, int]:
        """Freeze and safe mode: what every launch and every termination rests on."""
        expect: dict[AnyKey, int] = {guard_key(name): revision for name, revision in self.guard_revisions.items()}
        expect[META.key()] = self.meta_revision
        return expect

    def expect_pool(self) -> dict[AnyKey, int]:
        """Desired count and the verdicts on the pool: what every change of the node count rests on."""
        return {
            POOL.key(self.pool): self.desired_revision,
            VERDICTS.key(self.pool): self.verdicts_revision,
            **self.expect_guards(),
        }

    def expect_supply(self) -> dict[AnyKey, int]:
        return {SUPPLY.key(self.pool): self.supply_revision}


def guard_key(name: str) -> AnyKey:
    return GUARD.key(*name.split("/"))


def guard_names(pool: str) -> tuple[str, str]:
    """The guards that bind a pool: the cluster's freeze and its own."""
    return "freeze", f"freeze/{pool}"


def inbox_key(node: str) -> AnyKey:
    return INBOX.key(node)


def command_key(command: str) -> AnyKey:
    return COMMAND.key(command)
