"""How a configuration file comes into force, or does not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.world import World
from navarch_common.config.problems import ConfigError
from navarch_common.config.watch import watch
from navarch_common.events.kinds import ConfigApplied, ConfigRejected
from navarch_common.model.cluster import CONFIG
from navarch_gateway.config_keeper import ConfigKeeper
from navarch_gateway.proposer import Proposer
from support.gateway_world import CONFIG as TEXT
from support.gateway_world import make_deps

CURRENT = CONFIG.key("current")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "navarch.yaml"
    path.write_text(TEXT)
    return path


async def test_the_first_file_is_generation_one(world: World, file: Path) -> None:
    await Proposer(make_deps(world), file, {}).first()
    current = (await world.found(CURRENT)).record
    assert (current.generation, current.text, current.source) == (1, TEXT, str(file))  # type: ignore[attr-defined]
    assert (await world.found(CONFIG.key("1"))).record == current
    (event,) = await world.events("cluster.config-applied")
    assert isinstance(event, ConfigApplied)
    assert (event.generation, event.sha256) == (1, current.sha256)  # type: ignore[attr-defined]


async def test_the_same_file_again_changes_nothing(world: World, file: Path) -> None:
    for _ in range(2):
        await Proposer(make_deps(world), file, {}).first()
    assert len(await world.events("cluster.config-applied")) == 1


async def test_two_gateways_that_start_together_commit_one_generation(world: World, file: Path) -> None:
    deps = make_deps(world)
    await asyncio.gather(*(Proposer(deps, file, {}).first() for _ in range(4)))
    assert (await world.found(CURRENT)).record.generation == 1  # type: ignore[attr-defined]
    assert len(await world.events("cluster.config-applied")) == 1


async def test_a_first_file_that_is_wrong_stops_the_gateway_with_its_place(world: World, file: Path) -> None:
    await replaced(file, TEXT.replace("max_nodes: 5", "max_nodez: 5"))
    with pytest.raises(ConfigError, match=r"navarch\.yaml:6:.*max_nodez"):
        await Proposer(make_deps(world), file, {}).first()
    assert await world.store.get(CURRENT) is None


async def test_a_wrong_file_leaves_the_old_one_in_force_with_an_event(world: World, file: Path) -> None:
    await Proposer(make_deps(world), file, {}).first()
    await replaced(file, "pools: [")
    proposer = Proposer(make_deps(world), file, {})
    await proposer.first()
    assert (await world.found(CURRENT)).record.generation == 1  # type: ignore[attr-defined]
    (event,) = await world.events("cluster.config-rejected")
    assert isinstance(event, ConfigRejected)
    assert event.generation == 1
    assert str(file) in event.errors[0]
    assert proposer.last_error


async def test_a_changed_file_is_taken_over_and_a_wrong_one_refused_once(
    world: World, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navarch_gateway.proposer.watch", quickly)
    deps = make_deps(world)
    proposer = Proposer(deps, file, {})
    await proposer.first()
    async with asyncio.timeout(10):
        running = asyncio.create_task(proposer.run())
        await replaced(file, TEXT.replace("max_nodes: 5", "max_nodes: 7"))
        await until(lambda: generation_is(world, 2))
        await deps.config.refresh()
        assert deps.config.current.config.pools["training"].max_nodes == 7
        await replaced(file, "pools: 7")
        await until(lambda: told(world, "cluster.config-rejected", 1))
        await replaced(file, TEXT)
        await until(lambda: generation_is(world, 3))
        assert proposer.last_error == ""
        running.cancel()
    assert len(await world.events("cluster.config-rejected")) == 1


async def test_a_store_that_is_away_delays_a_change_and_loses_none(
    world: World, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navarch_gateway.proposer.watch", quickly)
    monkeypatch.setattr("navarch_gateway.proposer.RETRY_S", 0.01)
    proposer = Proposer(make_deps(world), file, {})
    await proposer.first()
    async with asyncio.timeout(10):
        running = asyncio.create_task(proposer.run())
        await asyncio.sleep(0.05)
        world.store.unavailable = True
        await replaced(file, TEXT.replace("max_nodes: 5", "max_nodes: 7"))
        await asyncio.sleep(0.1)
        world.store.unavailable = False
        await until(lambda: generation_is(world, 2))
        running.cancel()


def quickly(*args: Any, **options: Any) -> AsyncIterator[Any]:
    return watch(*args, **options, period_s=0.01)


async def replaced(file: Path, text: str) -> None:
    """As an editor does it: whole, by a rename."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.rename(file)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    while not await true():
        await asyncio.sleep(0.01)


async def generation_is(world: World, generation: int) -> bool:
    stored = await world.store.get(CURRENT)
    return stored is not None and stored.record.generation == generation


async def told(world: World, kind: str, times: int) -> bool:
    return len(await world.events(kind)) == times


async def test_a_store_that_has_lost_the_configuration_gets_it_back_under_the_same_generation(
    world: World, file: Path
) -> None:
    deps = make_deps(world)
    await Proposer(deps, file, {}).first()
    await replaced(file, TEXT.replace("max_nodes: 5", "max_nodes: 6"))
    await Proposer(deps, file, {}).first()
    before = (await world.found(CURRENT)).record
    world.stores.lose_everything()
    world.advance(1)
    await world.life.step()
    await asyncio.gather(*(ConfigKeeper(make_deps(world)).kept() for _ in range(3)))
    assert (await world.found(CURRENT)).record == before
    assert (await world.found(CONFIG.key("2"))).record == before
    assert [event.code for event in await world.events("cluster.config-applied")][-1] == "config-restored"
    assert len(await world.events("cluster.config-applied")) == 3


async def test_a_file_proposed_after_a_rollback_is_compared_with_what_was_in_force(world: World, file: Path) -> None:
    deps = make_deps(world)
    await Proposer(deps, file, {}).first()
    backup = world.stores.backup()
    await replaced(file, TEXT.replace("max_nodes: 5", "max_nodes: 6"))
    await Proposer(deps, file, {}).first()
    world.stores.roll_back(backup)
    await world.life.step()
    await replaced(file, TEXT.replace("max_nodes: 5", "max_nodes: 7"))
    await Proposer(deps, file, {}).first()
    assert (await world.found(CURRENT)).record.generation == 3  # type: ignore[attr-defined]
    await deps.config.refresh()
    assert deps.config.current.generation == 3


async def test_a_gateway_that_runs_puts_the_configuration_back_in_a_new_life_of_the_store(
    world: World, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navarch_gateway.config_keeper.LOOK_S", 0.01)
    deps = make_deps(world)
    await Proposer(deps, file, {}).first()
    keeping = asyncio.create_task(ConfigKeeper(deps).run())
    await asyncio.sleep(0.05)
    world.stores.lose_everything()
    await asyncio.sleep(0.05)
    assert await world.store.get(CURRENT) is None, "it is bound to the life before"
    await world.life.step()
    await asyncio.sleep(0.1)
    assert (await world.found(CURRENT)).record.generation == 1  # type: ignore[attr-defined]
    keeping.cancel()
