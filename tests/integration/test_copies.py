"""Copies of the provisioner side by side: they share the pools, and one that was stopped and resumed does no harm."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from fixtures.world import World, make_world
from navarch_common.model.node import Phase
from navarch_provisioner.service import FLEET
from support.deps import cut_off, running, until
from support.provisioner_world import MemoryCloud, Rig

POOLS = "".join(
    f"\n  pool-{n}: {{provider: cloud, instance_type: h100-8x, min_nodes: 1, max_nodes: 20}}" for n in range(5)
)
CONFIG = f"""
providers: {{cloud: {{type: fake}}}}
pools:{POOLS}
"""

TWO_POOLS = """
providers: {cloud: {type: fake}}
pools:
  other: {provider: cloud, instance_type: h100-8x, min_nodes: 1, max_nodes: 20}
  training: {provider: cloud, instance_type: h100-8x, min_nodes: 1, max_nodes: 20}
"""


@pytest.fixture
async def world() -> World:
    return await make_world()


def held(rig: Rig) -> set[str]:
    pools = rig.service.status()["pools"]
    assert isinstance(pools, dict)
    return {*pools, *([FLEET] if rig.service.status()["leads"] else [])}


async def test_two_copies_share_the_pools_and_what_speaks_for_all_of_them(world: World) -> None:
    cloud = MemoryCloud(world.clock)
    one = Rig(world, text=CONFIG, cloud=cloud, instance="copy-1", own=True)
    two = Rig(world, text=CONFIG, cloud=cloud, instance="copy-2", own=True)
    async with one.running():
        await until(lambda: len(held(one)) == 6, "the first copy has everything")
        async with two.running():
            await until(lambda: (len(held(one)), len(held(two))) == (3, 3), "they share")
            assert not held(one) & held(two)
        await until(lambda: len(held(one)) == 6, "the first copy has everything again")


async def test_a_pool_is_handed_over_when_its_launch_is_answered_and_the_machine_is_recorded(world: World) -> None:
    """A call that is cut off is unknown: the next holder would have to wait before it may try again."""
    cloud, answer = MemoryCloud(world.clock), asyncio.Event()
    cloud.pause = lambda operation: answer.wait() if operation == "launch" else None
    one = Rig(world, text=TWO_POOLS, cloud=cloud, instance="copy-1", own=True)
    two = Rig(world, text=TWO_POOLS, cloud=cloud, instance="copy-2", own=True)
    async with running(one.service):
        await one.desire(1)
        await one.reach(lambda rs: any(r.phase is Phase.LAUNCHING for r in rs), "a launch under way")
        async with running(two.service):
            await until(lambda: two.service.ready, "the second copy is there")
            await asyncio.sleep(1.2)
            assert "training" in held(one)
            await one.desire(2)
            await asyncio.sleep(0.3)
            [node] = await one.nodes()  # nothing new is begun about what is to be handed over
            answer.set()
            await until(lambda: held(two) == {"training"}, "the pool is handed over")
            await two.phase(node.node, Phase.BOOTING)
            await two.reach(lambda rs: len(rs) == 2, "the new holder goes on")
    assert cloud.made[0].node == node.node
    assert "find" not in [operation for operation, _ in cloud.calls]


async def test_a_copy_that_was_stopped_beyond_its_lease_writes_nothing_and_launches_nothing(world: World) -> None:
    """As SIGSTOP does it: time goes on for everybody, and the stopped copy learns of it by its own clock or the fence."""
    cloud = MemoryCloud(world.clock)
    one = Rig(world, cloud=cloud, instance="copy-1", own=True)
    two = Rig(world, cloud=cloud, instance="copy-2", own=True)
    async with one.running():
        await until(lambda: held(one) == {"training", FLEET}, "the first copy has everything")
        async with AsyncExitStack() as running:
            with cut_off(one.deps):
                world.advance(60)
                await running.enter_async_context(two.running())
                await until(lambda: held(two) == {"training", FLEET}, "the second copy has everything")
                await two.grow(2)
            await one.wake()
            await until(lambda: held(one) and held(two), "they share")
            await asyncio.sleep(0.3)
    assert len(cloud.made) == 2
    assert len(await world.events("node.launched")) == 2


async def test_a_worker_whose_pool_is_another_copys_begins_no_call_for_a_sweep_that_began_before(world: World) -> None:
    rig = Rig(world, own=True)
    async with rig.running():
        [name] = await rig.grow(1)
        record = await rig.node(name)
        worker, _ = rig.service._workers["training"]
        worker.call("ask", record)
        assert worker.status()["calls"] == [name]
        await until(lambda: worker.status()["calls"] == [], "the provider's answer")
        rig.service._leases.lost("training")
        worker.call("ask", record)
        assert worker.status()["calls"] == []


async def test_a_worker_that_is_told_to_stop_begins_no_call_in_the_pass_that_it_finishes(world: World) -> None:
    rig = Rig(world, own=True)
    async with rig.running():
        [name] = await rig.grow(1)
        record = await rig.node(name)
        worker, task = rig.service._workers["training"]
        task.cancel()
        await asyncio.sleep(0)
        worker.call("ask", record)
        assert worker.status()["calls"] == []
