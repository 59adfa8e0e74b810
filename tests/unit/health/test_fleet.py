"""What health knows of the records, where the store begins a new life."""

from fixtures.records import node_record
from fixtures.world import World
from navarch_common.model.health import HEALTH
from navarch_common.model.node import NODE, Phase
from navarch_health.fleet import Fleet
from support.health_world import record


async def test_in_a_new_life_of_the_store_the_records_of_the_old_one_are_forgotten_and_who_was_heard_is_not(
    world: World,
) -> None:
    fleet = Fleet(world.store)
    await world.plant((NODE.key("n-1"), node_record("n-1", phase=Phase.ACTIVE)))
    backup = world.stores.backup()
    await world.plant((NODE.key("n-1"), node_record("n-1", phase=Phase.DRAINING)))
    await world.plant((NODE.key("n-2"), node_record("n-2", phase=Phase.ACTIVE)))
    await fleet.refresh(world.clock.now())
    heard_at = fleet.tracked["n-1"].heard_at = world.clock.now()
    world.stores.roll_back(backup)
    await world.life.step()
    assert await fleet.refresh(world.clock.now()) == {"n-1"}
    assert set(fleet.nodes) == set(fleet.tracked) == {"n-1"}
    assert fleet.nodes["n-1"].record.phase is Phase.ACTIVE
    assert fleet.tracked["n-1"].heard_at == heard_at
    assert fleet.watched_count == 1


async def test_what_changed_before_a_commit_of_ours_and_was_not_read_yet_is_read_all_the_same(world: World) -> None:
    """Found by the simulator (seed 15993): a new machine was not watched for five minutes, and given up meanwhile."""
    fleet = Fleet(world.store)
    await world.plant(*((NODE.key(name), node_record(name, phase=Phase.BOOTING)) for name in ("n-1", "n-2")))
    await fleet.refresh(world.clock.now())
    await world.plant((NODE.key("n-1"), node_record("n-1", phase=Phase.VALIDATING)))
    await world.plant((NODE.key("n-2"), node_record("n-2", phase=Phase.VALIDATING)))
    await world.plant((HEALTH.key("n-2"), record(node_record("n-2"))))
    newest = await world.found(NODE.key("n-2"))
    fleet.note(newest, await world.found(HEALTH.key("n-2")), world.clock.now())
    assert fleet.tracked["n-2"].watched
    assert await fleet.refresh(world.clock.now()) == {"n-1"}
    assert fleet.tracked["n-1"].watched
    await world.plant((HEALTH.key("n-1"), record(node_record("n-1"))))
    assert await fleet.refresh(world.clock.now()) == {"n-1"}
