"""Since when a copy of the provisioner has been able to hear: what it did not hear before proves nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from fixtures.world import World
from support.deps import without_bus
from support.provisioner_world import QUICK, Rig


async def test_it_counts_from_when_the_bus_was_found_back_and_not_from_when_it_was_last_seen_away(world: World) -> None:
    async with Rig(world, own=True, timings=replace(QUICK, reconcile_period=timedelta(hours=1))).running() as rig:
        await rig.grow(1)
        worker = rig.service._workers["training"][0]
        async with worker.apart:
            with without_bus(rig.deps):
                away_at = (await worker.read()).watching_since
                world.advance(9)
            back_at = (await worker.read()).watching_since
            world.advance(9)
            later = (await worker.read()).watching_since
    assert away_at is not None
    assert back_at is not None
    assert back_at - away_at >= timedelta(seconds=9)
    assert later == back_at
