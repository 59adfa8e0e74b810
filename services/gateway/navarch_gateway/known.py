"""What the gateway knows when it decides or shows: records as they were read, together. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from navarch_common.config import Config
from navarch_common.model.health import HealthRecord
from navarch_common.model.node import ENDED, NodeRecord
from navarch_common.model.pool import Guard, PoolRecord, SupplyRecord
from navarch_common.model.status import Status, status_of
from navarch_common.model.wish import NodeWishes, PoolWish
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


def standing(guards: Iterable[Guard], now: datetime) -> list[Guard]:
    """The freezes in force at `now`, the newest first."""
    holding = [guard for guard in guards if guard.active and (guard.until is None or guard.until > now)]
    return sorted(holding, key=lambda guard: -guard.number)
