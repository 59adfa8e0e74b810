"""Freezes and holds are kept in three places, and one witness that can be read is enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fixtures.world import World
from navarch_common.guard_file import DiskGuardFile, MemoryGuardFile
from navarch_common.guarding import BESIDE_FOR_S, Guards
from navarch_common.guards import freeze_key, keys_of_pool, standing
from navarch_common.model.pool import Guard
from navarch_common.run import Deps
from support.deps import make_deps
from support.guards import T0, freeze, hold

CONFIG = """
providers: {cloud: {type: fake}}
pools: {training: {provider: cloud, instance_type: h100-8x, min_nodes: 1, max_nodes: 20}}
"""


def deps_of(world: World, file: MemoryGuardFile | DiskGuardFile | None = None) -> Deps:
    return replace(make_deps(world, "gateway", CONFIG), guard_file=file or MemoryGuardFile())


async def plant(world: World, guard: Guard) -> None:
    await world.plant((freeze_key(guard.pool), guard))


async def frozen(guards: Guards) -> bool:
    return bool(standing((await guards.read(keys_of_pool("training"))).guards, T0))


async def test_a_freeze_that_the_store_alone_knows_is_seen_and_kept_in_the_file(world: World) -> None:
    deps = deps_of(world)
    await plant(world, freeze(1))
    reading = await Guards(deps).keep()
    assert (reading.guards, reading.store, reading.bus) == ((freeze(1),), {"freeze": 1}, ())
    data = await deps.guard_file.read()
    assert data is not None
    assert b"freeze" in data


async def test_a_freeze_that_the_bus_alone_knows_is_seen(world: World) -> None:
    guards = Guards(deps_of(world))
    await guards.publish([freeze(1)])
    assert await frozen(guards)
    world.store.server.lose_everything()
    assert await frozen(guards)


async def test_a_freeze_that_the_file_alone_knows_is_seen(world: World) -> None:
    file = MemoryGuardFile()
    await plant(world, freeze(1))
    await Guards(deps_of(world, file)).keep()
    world.store.server.lose_everything()
    assert await frozen(Guards(deps_of(world, file)))


async def test_an_older_file_lifts_nothing_and_is_brought_up(world: World) -> None:
    file = MemoryGuardFile()
    guards = Guards(deps_of(world, file))
    await plant(world, freeze(1, active=False))
    await guards.keep()
    await plant(world, freeze(2))
    assert await frozen(guards)
    await guards.keep()
    world.store.server.lose_everything()
    assert await frozen(guards)


async def test_a_bus_without_the_store_is_enough_to_know(world: World) -> None:
    guards = Guards(deps_of(world))
    await guards.publish([freeze(1)])
    world.store.unavailable = True
    reading = await guards.read()
    assert reading.readable
    assert reading.store is None
    assert reading.guards == (freeze(1),)


async def test_a_store_without_the_bus_is_enough_to_know(world: World) -> None:
    guards = Guards(deps_of(world))
    await plant(world, freeze(1))
    world.bus.lose_connection()
    reading = await guards.read()
    assert reading.readable
    assert not reading.doubt
    assert reading.bus is None
    assert reading.guards == (freeze(1),)


async def test_a_store_that_was_away_is_not_enough_to_know_while_the_bus_cannot_be_read(world: World) -> None:
    """A freeze that was accepted meanwhile is on the bus alone, and the bus may go before anyone has written it back."""
    deps = deps_of(world)
    guards, others = Guards(deps), Guards(deps)
    world.store.unavailable = True
    await others.read()
    world.bus.lose_connection()
    world.store.unavailable = False
    for _ in range(2):
        assert "the store was away, and the bus cannot be read" in (await guards.read(keys_of_pool("training"))).doubt
    others._beside_until_s = 0.0
    await others.beside()
    assert others.doubt
    world.bus.restore_connection()
    assert not (await guards.read()).doubt
    world.bus.lose_connection()
    assert not (await guards.read()).doubt


async def test_a_store_that_lacks_what_the_bus_knew_is_not_enough_until_it_was_seen_to_have_it(world: World) -> None:
    guards = Guards(deps_of(world))
    await guards.publish([freeze(1)])
    await guards.read()
    world.bus.lose_connection()
    assert (await guards.read()).doubt
    world.bus.restore_connection()
    await plant(world, freeze(1))
    assert not (await guards.read()).doubt
    world.bus.lose_connection()
    assert not (await guards.read()).doubt


async def test_where_neither_can_be_read_it_is_said_so_and_nothing_is_written(world: World) -> None:
    deps = deps_of(world)
    world.store.unavailable = True
    world.bus.lose_connection()
    reading = await Guards(deps).keep()
    assert not reading.readable
    assert reading.doubt == reading.problem
    assert "the store cannot be read" in reading.problem
    assert "the bus cannot be read" in reading.problem
    assert await deps.guard_file.read() is None


async def test_rubbish_on_the_bus_is_no_answer_and_is_replaced_by_the_next_write(world: World) -> None:
    deps = deps_of(world)
    await world.bus.kv_put(world.subjects.stream("STATE"), f"guards.{world.cluster}", b"\x00rubbish")
    guards = Guards(deps)
    assert (await guards.read()).bus is None
    await guards.publish([freeze(1)])
    assert (await guards.read()).bus == (freeze(1),)


async def test_what_is_added_to_the_bus_drops_nothing_newer_that_is_there(world: World) -> None:
    guards = Guards(deps_of(world))
    await guards.publish([freeze(5)])
    await guards.publish([freeze(4, active=False), hold(6, node="n1")])
    assert set((await guards.read()).bus or ()) == {freeze(5), hold(6, node="n1")}


async def test_what_the_bus_says_beside_the_store_is_asked_for_anew_after_half_a_second(world: World) -> None:
    mine, other = Guards(deps_of(world)), Guards(deps_of(world))
    assert await mine.beside() == ()
    await other.publish([freeze(1)])
    assert await mine.beside() == ()
    mine._beside_until_s -= BESIDE_FOR_S
    assert await mine.beside() == (freeze(1),)


async def test_the_file_on_the_disk_is_replaced_whole(tmp_path: Path) -> None:
    file = DiskGuardFile(tmp_path / "data")
    assert await file.read() is None
    await file.write(b"one")
    await file.write(b"two")
    assert await file.read() == b"two"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["guards.json"]


async def test_a_directory_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a directory")
    file = DiskGuardFile(tmp_path / "data")
    await file.write(b"one")
    assert await file.read() is None
