"""A freeze and a hold reach a provisioner that is in the middle of its work, wherever they can still be read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from fixtures.world import World
from navarch_common.guarding import Guards
from navarch_common.guards import freeze_key, hold_key
from navarch_common.model.node import Phase
from navarch_provisioner.settings import Timings
from support import guards
from support.deps import cut_off, without_bus
from support.provisioner_world import CONFIG, QUICK, MemoryCloud, Rig

MANY = CONFIG.replace(
    "max_nodes: 20", "max_nodes: 300, disruption: {max_unavailable: 100%, max_per_hour: 200, max_unhealthy: 100%}"
)
CROWD = Timings(
    reconcile_period=timedelta(seconds=0.05),
    sweep_period=timedelta(seconds=30),
    launch_concurrency=100,
    call_concurrency=4,
)


async def test_a_freeze_during_a_hundred_replacements_stops_every_new_call_within_two_seconds_and_all_go_on_later(
    world: World,
) -> None:
    cloud = MemoryCloud(world.clock)
    async with Rig(world, text=MANY, cloud=cloud, timings=CROWD).running() as rig:
        names = await rig.grow(100)
        gate = asyncio.Event()

        async def slow(operation: str) -> None:
            if operation == "launch":
                await gate.wait()

        cloud.pause = slow
        for name in names:
            await rig.fail(name)
        await rig.reach(
            lambda rs: sum(r.replaces in names and r.phase in (Phase.PLANNED, Phase.LAUNCHING) for r in rs) == 100,
            "a hundred replacements under way", 20.0,
        )  # fmt: skip
        await world.plant((freeze_key(), guards.freeze(1)))
        gate.set()
        await asyncio.sleep(2.0)
        cloud.pause = None
        calls = [call for call in cloud.calls if call[0] in ("launch", "terminate")]
        await asyncio.sleep(1.0)
        assert [call for call in cloud.calls if call[0] in ("launch", "terminate")] == calls
        assert len(cloud.made) <= 100 + CROWD.call_concurrency
        await world.plant((freeze_key(), guards.freeze(2, active=False)))
        await rig.wake()
        world.advance(60)
        await rig.reach(
            lambda rs: sum(r.replaces in names and r.phase is Phase.BOOTING for r in rs) == 100,
            "a hundred new machines", 20.0,
        )  # fmt: skip
    assert len(cloud.made) == 200


async def test_a_freeze_that_only_the_bus_has_kept_withholds_a_call(
    world: World,
) -> None:
    async with Rig(world).running() as rig:
        [name] = await rig.grow(1)
        # As after a store that was lost and put back without its guards: its life goes on, and the guard is not there.
        await Guards(rig.deps).publish([guards.freeze(1)])
        await asyncio.sleep(0.6)
        await rig.fail(name)
        await rig.reach(
            lambda rs: any(r.node == name and r.blocked and r.blocked.code == "frozen" for r in rs), "frozen"
        )
        assert rig.cloud.terminated == []
        assert len(rig.cloud.made) == 1


async def test_while_neither_store_nor_bus_can_be_read_nothing_is_called(world: World) -> None:
    rig = Rig(world, own=True)
    async with rig.running():
        await rig.grow(1)
        record = (await rig.nodes(Phase.ACTIVE))[0]
        before = list(rig.cloud.calls)
        with cut_off(rig.deps):
            outcome = await rig.service._calls.make("terminate", record, lambda: True)
        assert outcome.withheld is not None
        assert outcome.withheld.code == "guards-unreadable"
        assert rig.cloud.calls == before


async def test_a_store_that_comes_back_while_the_bus_is_away_lets_nothing_be_called_until_both_are_there(
    world: World,
) -> None:
    rig = Rig(world, own=True)
    async with rig.running():
        await rig.grow(1)
        record = (await rig.nodes(Phase.ACTIVE))[0]
        before = list(rig.cloud.calls)
        with cut_off(rig.deps):
            await Guards(rig.deps).read()
        with without_bus(rig.deps):
            outcome = await rig.service._calls.make("terminate", record, lambda: True)
        assert outcome.withheld is not None
        assert outcome.withheld.code == "guards-unreadable"
        assert "the store was away" in outcome.withheld.text
        assert rig.cloud.calls == before
        await Guards(rig.deps).read()
        outcome = await rig.service._calls.make("terminate", record, lambda: True)
        assert outcome.withheld is None


async def test_a_held_node_is_cordoned_and_kept_and_replaced_when_it_is_released(world: World) -> None:
    async with Rig(world).running() as rig:
        name, *_ = await rig.grow(2)
        await world.plant((hold_key(node=name), guards.hold(1, node=name, at=world.clock.now(), until=None)))
        await rig.fail(name)
        await rig.reach(
            lambda rs: any(r.node == name and "health" in r.cordons and r.blocked and r.blocked.code == "held" for r in rs),
            "cordoned and held",
        )  # fmt: skip
        await asyncio.sleep(0.2)
        assert (await rig.node(name)).phase is Phase.ACTIVE
        await world.plant((hold_key(node=name), guards.hold(2, node=name, active=False)))
        await rig.wake()
        await rig.phase(name, Phase.DRAINING)


async def test_a_hold_that_comes_between_a_decision_and_its_commit_wins(world: World) -> None:
    async with Rig(world, timings=replace(QUICK, reconcile_period=timedelta(hours=1))).running() as rig:
        name, *_ = await rig.grow(2)
        worker = rig.service._workers["training"][0]
        commit = worker._commit
        held_first = guards.hold(1, node=name, at=world.clock.now(), until=None)

        async def late(step: object, entry: object = None) -> bool:
            if getattr(step, "act", "") == "replace":
                await world.plant((hold_key(node=name), held_first))
            return await commit(step, entry)  # type: ignore[arg-type]

        worker._commit = late  # type: ignore[method-assign]
        await rig.fail(name)
        await rig.reach(lambda rs: any(r.node == name and r.blocked and r.blocked.code == "held" for r in rs), "held")
        assert (await rig.node(name)).phase is Phase.ACTIVE
        assert len(await rig.nodes()) == 2
