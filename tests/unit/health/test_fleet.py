"""What health knows of the records, where the store begins a new life."""

from fixtures.records import node_record
from fixtures.world import World
from navarch_common.model.node import NODE, Phase
from navarch_health.fleet import Fleet


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
