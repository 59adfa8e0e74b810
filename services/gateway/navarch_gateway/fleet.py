"""Everything that may be asked of the fleet, in one place: both doors call this and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec import structs

from navarch_api import types as t
from navarch_common.clock import Clock
from navarch_common.metrics import Metrics
from navarch_gateway.acts import Acts
from navarch_gateway.cache import Cache
from navarch_gateway.forward import Forward
from navarch_gateway.history import History
from navarch_gateway.postmaster import Postmaster
from navarch_gateway.reads import Reads
from navarch_gateway.steering import Steering
from navarch_gateway.views import held_config_views


@dataclass(frozen=True, slots=True)
class Fleet:
    """The use cases. Each raises `Refused`, or what a port raises where it does not answer."""

    reads: Reads
    acts: Acts
    steering: Steering
    forward: Forward
    history: History
    postmaster: Postmaster
    cache: Cache
    clock: Clock
    metrics: Metrics
    status: Callable[[], t.ClusterStatus]
    pools: Callable[[], tuple[str, ...]]
    """Pools of the configuration in force."""

    async def plan(self, pool: str) -> t.Plan:
        """Of one pool, or of all (empty)."""
        if pool:
            self.reads.check_pool(pool)
        found = await self.forward.plan([pool] if pool else self.pools())
        return structs.replace(found, blocked=(*found.blocked, *held_config_views(self.cache.known(), pool)))
