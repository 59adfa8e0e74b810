"""What the gateway knows when it decides or shows: records as they were read, together. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from navarch_common.config import Config
from navarch_common.guards import standing
from navarch_common.model.cluster import ProposedConfig
from navarch_common.model.health import HealthRecord
from navarch_common.model.node import ENDED, NodeRecord
from navarch_common.model.pool import Guard, PoolRecord, SupplyRecord
from navarch_common.model.status import Status, status_of
from navarch_common.model.wish import ChangeWish, NodeWishes, PoolWish
from navarch_common.store.base import Stored


@dataclass(frozen=True, slots=True)
class Known:
    """All records that lists are made of, by name. `as_of` is when the oldest of them was last known to be true."""

    as_of: datetime
    nodes: Mapping[str, Stored[NodeRecord]] = field(default_factory=dict)
    """In the order of their ids."""
    health: Mapping[str, Stored[HealthRecord]] = field(default_factory=dict)
    pools: Mapping[str, Stored[PoolRecord]] = field(default_factory=dict)
    supply: Mapping[str, Stored[SupplyRecord]] = field(default_factory=dict)
    guards: Mapping[str, Stored[Guard]] = field(default_factory=dict)
    node_wishes: Mapping[str, Stored[NodeWishes]] = field(default_factory=dict)
    pool_wishes: Mapping[str, Stored[PoolWish]] = field(default_factory=dict)
    """By `<pool>/<verb>`."""
    change_wishes: Mapping[str, Stored[ChangeWish]] = field(default_factory=dict)
    """By change."""
    proposals: Mapping[str, Stored[ProposedConfig]] = field(default_factory=dict)

    @property
    def held_config(self) -> ProposedConfig | None:
        """The configuration that waits for an operator, if one does."""
        return next((stored.record for stored in self.proposals.values() if not stored.record.closed), None)

    def health_of(self, node: str) -> HealthRecord | None:
        found = self.health.get(node)
        return None if found is None else found.record

    def status_of(self, node: NodeRecord) -> Status:
        return status_of(node, self.health_of(node.node))

    def living(self, pool: str | None = None) -> Iterable[NodeRecord]:
        """Nodes that have not ended: what is there, or comes, or goes."""
        for stored in self.nodes.values():
            if stored.record.phase not in ENDED and pool in (None, stored.record.pool):
                yield stored.record

    def pool_names(self, config: Config) -> list[str]:
        """Pools of the configuration, and those that left it but still have something."""
        gone = {name for name, stored in self.pools.items() if stored.record.desired}
        return sorted({*config.pools, *gone, *(node.pool for node in self.living())})

    def wishes_of_pool(self, pool: str) -> list[PoolWish]:
        return [stored.record for stored in self.pool_wishes.values() if stored.record.pool == pool]

    def freezes(self, now: datetime) -> list[Guard]:
        """Those in force at `now`, the newest first."""
        return standing((stored.record for stored in self.guards.values()), now)

    def holds(self, now: datetime) -> list[Guard]:
        """Those in force at `now`, the newest first."""
        return standing((stored.record for stored in self.guards.values()), now, "hold")
