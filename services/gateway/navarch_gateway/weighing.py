"""Reads what a configuration would take out of the fleet as it is at this moment. What counts, `takings` decides."""

import asyncio
from dataclasses import dataclass

from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import META, Taking
from navarch_common.model.pool import POOL
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT
from navarch_gateway.cache import Cache
from navarch_gateway.takings import Pools, takings

READ_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Weighed:
    takings: tuple[Taking, ...]
    expect: dict[AnyKey, int]
    """What a commit that rests on them expects: sizes, and whether it is safe mode. Not each node: one that comes up
    meanwhile was wanted before, and counts with its pool's size."""


async def weigh(deps: Deps, old: Pools, new: Pools) -> Weighed:
    """Reads all records anew, which a change of the file is rare enough for. Raises `StoreError`, `TimeoutError`."""
    async with asyncio.timeout(READ_TIMEOUT_S):
        meta = await deps.store.get(META.key())
        cache = Cache(deps.store, deps.clock)
        await cache.refresh()
    known, blind = cache.known(), meta is None or meta.record.safe_mode is not None
    taken = takings(known, old, new, deps.clock.now(), blind=blind)
    changed = (pool for pool in new if new[pool] != old.get(pool))
    sizes: dict[AnyKey, int] = {
        POOL.key(pool): known.pools[pool].revision if pool in known.pools else ABSENT for pool in changed
    }
    return Weighed(taken, {**sizes, META.key(): meta.revision if meta is not None else ABSENT})
