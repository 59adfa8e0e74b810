import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fixtures.world import World
from navarch_common.config.load import load_text
from navarch_common.events.kinds import ConfigApplied
from navarch_common.in_force import ConfigWatch
from navarch_common.model.cluster import CONFIG, ConfigRecord
from navarch_common.store.base import Commit


def text(nodes: int) -> str:
    return f"""
cluster: test
providers: {{local: {{type: local}}}}
pools: {{training: {{provider: local, instance_type: h100-8x, min_nodes: {nodes}, max_nodes: 9}}}}
"""


def watch_of(world: World) -> ConfigWatch:
    return ConfigWatch(world.store, world.bus, world.subjects, load_text(text(1), "own", {}), {"HOME": "/"})


async def commit(world: World, generation: int, content: str) -> None:
    record = ConfigRecord(
        generation=generation, text=content, sha256="x", author="gateway", source="f", at=world.clock.now()
    )
    applied = ConfigApplied(
        at=world.clock.now(),
        cluster="test",
        reason="applied",
        code="config-applied",
        actor="gateway",
        generation=generation,
    )
    await world.committer("gateway").commit(Commit(put={CONFIG.key("current"): record}, emit=(applied,)))


@asynccontextmanager
async def running(watch: ConfigWatch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run())
    await asyncio.sleep(0.01)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_committed_generation_wins_over_the_own_file(world: World) -> None:
    await commit(world, 7, text(3))
    in_force = await watch_of(world).open()
    assert (in_force.generation, in_force.config.pools["training"].min_nodes) == (7, 3)


async def test_without_a_commit_the_own_file_is_used_in_the_end(world: World) -> None:
    in_force = await watch_of(world).open(wait_s=0.05)
    assert (in_force.generation, in_force.config.pools["training"].min_nodes) == (0, 1)


async def test_a_service_waits_for_the_gateway_to_commit_the_first_generation(world: World) -> None:
    watch = watch_of(world)
    opening = asyncio.create_task(watch.open(wait_s=30))
    await asyncio.sleep(0.05)
    assert not opening.done()
    await commit(world, 1, text(2))
    async with asyncio.timeout(5):
        assert (await opening).generation == 1


async def test_a_new_generation_wakes_who_waits_for_it(world: World) -> None:
    watch = watch_of(world)
    await watch.open(wait_s=0)
    async with running(watch):
        waiting = asyncio.create_task(watch.wait_change(0))
        await asyncio.sleep(0.01)
        await commit(world, 8, text(5))
        async with asyncio.timeout(5):
            assert (await waiting).config.pools["training"].min_nodes == 5
        async with asyncio.timeout(1):
            assert (await watch.wait_change(0)).generation == 8


@pytest.mark.parametrize("bad", ["pools: [", "cluster: ${MISSING_HERE}", "unknown_key: 1"])
async def test_a_generation_that_cannot_be_used_here_leaves_the_one_before_in_force(world: World, bad: str) -> None:
    await commit(world, 7, text(3))
    watch = watch_of(world)
    await watch.open()
    await commit(world, 8, bad)
    await watch.refresh()
    assert watch.current.generation == 7
    await commit(world, 9, text(4))
    await watch.refresh()
    assert watch.current.generation == 9


async def test_a_bus_that_is_away_does_not_keep_a_generation_from_coming_into_force(world: World) -> None:
    watch = watch_of(world)
    await watch.open(wait_s=0)
    world.bus.lose_connection()
    await world.store.commit(
        Commit(
            put={
                CONFIG.key("current"): ConfigRecord(
                    generation=3, text=text(2), sha256="x", author="gateway", source="f", at=world.clock.now()
                )
            }
        )
    )
    async with running(watch), asyncio.timeout(5):
        assert (await watch.wait_change(0)).generation == 3


async def test_a_generation_outlives_the_store(world: World) -> None:
    await commit(world, 7, text(3))
    watch = watch_of(world)
    await watch.open()
    world.stores.lose_everything()
    await watch.refresh()
    assert watch.current.generation == 7
    in_force = await watch_of(world).open()
    assert (in_force.generation, in_force.config.pools["training"].min_nodes) == (7, 3)


async def test_a_store_that_was_rolled_back_does_not_bring_an_older_generation_back(world: World) -> None:
    await commit(world, 7, text(3))
    backup = world.stores.backup()
    await commit(world, 8, text(4))
    watch = watch_of(world)
    await watch.open()
    world.stores.roll_back(backup)
    await watch.refresh()
    assert watch.current.generation == 8
    assert (await watch_of(world).open()).generation == 8


async def test_where_store_and_bus_have_forgotten_it_a_running_process_tells_the_bus_again(world: World) -> None:
    await commit(world, 7, text(3))
    watch = watch_of(world)
    await watch.open()
    world.stores.lose_everything()
    world.buses.buckets.clear()
    await watch.refresh()
    assert (await watch_of(world).open()).generation == 7


async def test_a_long_configuration_fits_into_a_message_of_the_bus(world: World) -> None:
    await commit(world, 7, text(3) + "# a line of a comment, and many of them\n" * 25_000)
    await watch_of(world).open()
    world.stores.lose_everything()
    assert (await watch_of(world).open()).generation == 7
