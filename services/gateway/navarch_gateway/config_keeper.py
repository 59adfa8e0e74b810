"""Puts the configuration in force back where it was lost.

The condition it repairs: the bus remembers a generation that is higher than the one in the store, or the store has none
at all. The store was flushed then, or rolled back, and what it says of the configuration is not what services act on.
"""

import asyncio

import structlog

from navarch_common.bus.base import BusError
from navarch_common.model.cluster import ConfigRecord
from navarch_common.run import Deps
from navarch_common.store.base import Conflict, Stored, StoreError
from navarch_gateway import proposal

log = structlog.get_logger(__name__)

LOOK_S = 1.0
"""How often it looks whether the store is in another life."""
PERIOD_S = 30.0
TIMEOUT_S = 10.0


async def remember(deps: Deps, record: ConfigRecord) -> None:
    """Lets the bus remember what was committed. Where it cannot, whoever takes the generation over does it later."""
    try:
        await deps.config.mirror.raise_to(record)
    except BusError as error:
        log.warning("the bus does not remember the configuration yet", error=str(error))


class ConfigKeeper:
    """One gateway's care for the committed configuration. All gateways do the same; the first commits it."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def kept(self) -> Stored[ConfigRecord] | None:
        """What is in force, in the store again where it was not; None where nothing was ever committed. Raises `BusError`,
        `StoreError`, `TimeoutError`."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                remembered, _ = await self._deps.config.mirror.read()
                found = await self._deps.store.get(proposal.CURRENT)
                commit = proposal.restore(found, remembered, self._deps.cluster, self._deps.clock.now())
                if commit is None:
                    return found
                try:
                    await self._deps.committer.commit(commit)
                except Conflict:
                    continue
                assert remembered is not None
                log.warning("configuration put back", generation=remembered.generation, sha256=remembered.sha256[:12])

    async def run(self) -> None:
        """Until cancelled: at once in a new life of the store, and now and then."""
        incarnation, due_s = "", 0.0
        while True:
            now_s = asyncio.get_running_loop().time()
            if self._deps.store.incarnation != incarnation or now_s >= due_s:
                try:
                    looked_in = self._deps.store.incarnation
                    await self.kept()
                    incarnation, due_s = looked_in, now_s + PERIOD_S
                except (BusError, StoreError, TimeoutError) as error:
                    log.warning("configuration not looked after", error=str(error) or "no answer in time")
            await asyncio.sleep(LOOK_S)
