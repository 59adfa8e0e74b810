"""All that is known of one pool at one moment, with the revision of each record: what `plan` decides on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from navarch_common import guards
from navarch_common.config import PoolConfig
from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import COMMAND, INBOX, META, CommandRecord, InboxRecord, MetaRecord
from navarch_common.model.health import HEALTH, HealthRecord, HealthStatus
from navarch_common.model.node import COMING, ENDED, LEAVING, NODE, NodeRecord, Phase, ProviderState
from navarch_common.model.pool import GUARD, POOL, SUPPLY, VERDICTS, Guard, PoolRecord, SupplyRecord
from navarch_common.model.wish import NODE_WISHES, ChangeWish, NodeWishes, PoolWish, Wish
from navarch_common.store.base import ABSENT
from navarch_provisioner.settings import ProvisionerSettings

AGENTS_TRY_AGAIN = timedelta(seconds=15)
"""Once the bus is back, an agent's waiting reports have come within this: a publish that hangs ends after 5 s, the longest
pause before the next is 5 s, and whoever takes reports in is back after a second."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is known of the work on a node: by its heartbeats, or by its scheduler."""

    idle: bool | None = None
    """None: not known, because nothing was heard lately or a GPU could not be read. Never taken for idle."""
    at: datetime | None = None
    """When the last heartbeat was sent, by our clock: when it came in, but for what it was late."""
    idle_since: datetime | None = None
    """Since when every heartbeat that was looked at said idle, as far as this copy has watched."""
    text: str = ""
    """What runs there: `GPU 3 has 2 processes`."""
    driver_state: str = "unknown"
    boot_id: str = ""
    """Of the agent that was heard last."""


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
        return self.verdict is not None and self.verdict.failed

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
    close_wish: PoolWish | None = None
    """An operator's wish to close the breaker."""
    close_wish_revision: int = ABSENT
    guards: tuple[Guard, ...] = ()
    """Of each guard the newest, wherever it was read."""
    unguarded: str = ""
    """Why it is not known what operators forbid; empty where it is."""
    guard_revisions: Mapping[str, int] = field(default_factory=dict)
    """What the store has, by guard name; those of the pool as a whole even where they are absent: a freeze that comes in
    between makes the commit conflict."""
    meta: MetaRecord | None = None
    meta_revision: int = ABSENT
    commands: Mapping[str, CommandRecord] = field(default_factory=dict)
    command_revisions: Mapping[str, int] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    """Nodes whose time to be usable is up while a report of theirs waits to be taken in, or while nobody can tell."""
    unattended: bool = False
    """Somebody's time to be usable is up, and no copy of health lives that could have found it healthy."""
    replacing: frozenset[str] = frozenset()
    """Holders of the budget of concurrent replacements: the failed nodes that are being replaced."""
    replaced_lately: frozenset[str] = frozenset()
    """Holders of the budget per hour."""
    spent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Holders of each bucket of `limits:` that binds this pool."""
    prices: Mapping[str, float | None] = field(default_factory=dict)
    """By holder of dollars: what its machine costs an hour; 0 where its provider does not tell; None while it has none."""
    change_wishes: Mapping[str, ChangeWish] = field(default_factory=dict)
    """What operators said of changes, by change."""
    change_wish_revisions: Mapping[str, int] = field(default_factory=dict)
    outbox_waiting: int = 0
    in_flight: frozenset[str] = frozenset()
    """Nodes that a cloud call of this process is about."""
    resting: Mapping[str, datetime] = field(default_factory=dict)
    """By `rest_of`, calls that settled nothing: not before then again. By node, nodes that nothing is done about."""
    cooling: Mapping[str, datetime] = field(default_factory=dict)
    """Offers (`provider/region/zone`) that refused lately: not before then again."""
    providers: frozenset[str] = frozenset()
    """Providers that can be called."""
    watching_since: datetime | None = None
    """Since when this copy holds the pool. None: long since."""
    fresh_ids: Iterable[str] = ()
    """Node ids for this pass, minted as they are used: chance stays outside of decisions."""

    def settled(self, now: datetime) -> bool:
        """Whether this copy has watched long enough to conclude anything from what it did not hear: after a long
        absence, its own or the bus's, the reports that wait must be read first."""
        enough = max(self.settings.heartbeat_timeout, AGENTS_TRY_AGAIN)
        return self.watching_since is None or now - self.watching_since >= enough

    @property
    def rebuilt_at(self) -> datetime | None:
        """When safe mode ended."""
        return self.meta.safe_mode_left_at if self.meta else None

    @cached_property
    def living(self) -> list[NodeView]:
        """Nodes that may have a machine, in the order of their birth."""
        return [view for view in self.nodes.values() if view.record.phase not in ENDED]

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

    @cached_property
    def coming(self) -> list[NodeView]:
        return [view for view in self.living if view.phase in COMING]

    def replacement_of(self, view: NodeView) -> NodeView | None:
        """The node that takes `view`'s place, at the end of the chain where a replacement failed in its turn; None
        where there is none, it was given up, or it failed before it was usable and waits for its own turn to go."""
        if view.record.replaced_by is None:
            return None
        found = None
        step = self.nodes.get(view.record.replaced_by or "")
        for _ in range(len(self.nodes)):
            if step is None or step.phase in ENDED or step.phase in LEAVING:
                break
            if step.phase is Phase.VALIDATING and step.failed:
                break
            leaving = step.phase is Phase.DRAINING and step.record.replaced_by is not None
            found = None if leaving else step
            if not leaving:
                break
            step = self.nodes.get(step.record.replaced_by or "")
        return found

    def expect_guards(self) -> dict[AnyKey, int]:
        """Freeze, hold of the pool and safe mode: what every launch and every termination rests on."""
        expect: dict[AnyKey, int] = {guard_key(name): self.guard_revision(name) for name in guard_names(self.pool)}
        expect[META.key()] = self.meta_revision
        return expect

    def expect_hold(self, node: str) -> dict[AnyKey, int]:
        """The hold on one node, there or not: what every automatic step about it rests on."""
        key = guards.hold_key(node=node)
        return {key: self.guard_revision(key.name)}

    def guard_revision(self, name: str) -> int:
        return self.guard_revisions.get(name, ABSENT)

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


def guard_names(pool: str) -> tuple[str, ...]:
    """The guards that bind a pool as a whole: the cluster's freeze, its own, and a hold."""
    return tuple(key.name for key in guards.keys_of_pool(pool))


def inbox_key(node: str) -> AnyKey:
    return INBOX.key(node)


def command_key(command: str) -> AnyKey:
    return COMMAND.key(command)


def rest_of(node: str, call: str) -> str:
    """The name under which one call about one node rests."""
    return f"{call} {node}"
