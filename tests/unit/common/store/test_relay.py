"""What the relay sends, when, and what it leaves alone."""

import asyncio

import pytest

from fixtures.records import node_cordoned, node_failed, pool_resized
from fixtures.world import World
from navarch_common.store import relay as relay_module
from navarch_common.store.base import Commit
from navarch_common.store.committer import Committer
from navarch_common.store.relay import Relay


@pytest.fixture
def relay(world: World) -> Relay:
    return Relay(world.store, world.bus, world.subjects, world.clock)


async def ids_told(world: World) -> list[str]:
    return [event.id for event in await world.events()]


async def test_only_entries_older_than_five_seconds_are_the_relays(world: World, relay: Relay) -> None:
    committed = await world.store.commit(Commit(emit=(node_failed(),)))
    world.advance(4)
    assert await relay.step() == ""
    assert await ids_told(world) == []
    world.advance(2)
    assert await relay.step() == ""
    assert await ids_told(world) == [committed.entries[0].id]
    assert await world.store.outbox_length() == 0


async def test_what_a_committer_of_this_process_could_not_publish_goes_out_with_the_next_pass(world: World) -> None:
    left: set[str] = set()
    relay = Relay(world.store, world.bus, world.subjects, world.clock, left=left)
    committer = Committer(world.store, world.bus, world.subjects, writer="health", clock=world.clock, left=left)
    world.buses.faults.refused_publishes = 2
    await committer.commit(Commit(emit=(node_failed("n-1"),)))
    await committer.commit(Commit(emit=(node_failed("n-2"),)))  # it does not try so soon after a failure
    somebody_elses = await world.store.commit(Commit(emit=(node_failed("n-3"),)))
    assert "injected" in await relay.step()
    assert [event.node for event in await world.events()] == ["n-2"]
    assert await relay.step() == ""
    assert [event.node for event in await world.events()] == ["n-2", "n-1"]
    assert [entry.id for entry in await world.store.outbox()] == [somebody_elses.entries[0].id]


async def test_an_entry_that_fails_holds_back_its_own_order_only(world: World, relay: Relay) -> None:
    committed = await world.store.commit(Commit(emit=(node_failed("n-1"), node_cordoned("n-1"), pool_resized())))
    first, second, other = (entry.id for entry in committed.entries)
    world.advance(10)
    world.buses.faults.refused_publishes = 1
    assert "refused" in (await relay.step()) or relay.status["error"]
    assert await ids_told(world) == [other]
    assert relay.status["stuck"] == {"node/n-1": relay.status["error"]}
    assert await relay.step() == ""
    assert await ids_told(world) == [other, first, second]
    assert relay.status["published"] == 3


async def test_what_was_read_long_ago_is_read_again_before_it_is_sent(
    world: World, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stood still has entries in hand that others have told since, or that a rolled-back store forgot."""
    monkeypatch.setattr(relay_module, "STALE_S", 0.05)
    committed = await world.store.commit(Commit(emit=(node_failed("n-1"), node_cordoned("n-1"))))
    first, second = (entry.id for entry in committed.entries)
    world.advance(10)
    outbox_done = world.store.outbox_done

    async def stand_still(ids: list[str]) -> None:
        await asyncio.sleep(0.1)
        await outbox_done(ids)
        await outbox_done([second])  # as if the store had forgotten it

    monkeypatch.setattr(world.store, "outbox_done", stand_still)
    assert await relay.step() == ""
    assert await relay.step() == ""
    assert await ids_told(world) == [first]


async def test_an_entry_that_was_stored_though_its_ack_was_lost_is_not_stored_twice(world: World, relay: Relay) -> None:
    world.buses.faults.timeout_scale = 0.0
    world.buses.faults.lost_replies = 1
    await world.committer("health").commit(Commit(emit=(node_failed(),)))
    world.advance(10)
    await relay.step()
    assert len(await ids_told(world)) == 1
    assert await world.store.outbox_length() == 0


async def test_an_old_entry_that_its_subject_told_last_is_not_told_again(world: World, relay: Relay) -> None:
    world.buses.faults.timeout_scale = 0.0
    world.buses.faults.lost_replies = 1
    await world.committer("health").commit(Commit(emit=(node_failed(),)))
    world.advance(2 * 3600)
    await relay.step()
    assert len(await ids_told(world)) == 1
    assert await world.store.outbox_length() == 0
    assert relay.status["known_already"] == 1


async def test_an_old_entry_that_was_never_told_is_told(world: World, relay: Relay) -> None:
    await world.committer("health").commit(Commit(emit=(node_failed(),)))
    world.bus.lose_connection()
    await world.committer("health").commit(Commit(emit=(node_failed(),)))
    world.bus.restore_connection()
    world.advance(2 * 3600)
    await relay.step()
    assert len(await ids_told(world)) == 2


async def test_thousands_of_entries_go_out_in_one_pass_each_node_in_order(world: World, relay: Relay) -> None:
    nodes = [f"n-{number}" for number in range(50)]
    for _ in range(50):
        await world.store.commit(Commit(emit=tuple(node_failed(node) for node in nodes)))
    world.advance(10)
    assert await relay.step() == ""
    told = await world.events()
    assert len(told) == 2500
    for node in nodes:
        revisions = [event.rev for event in told if event.node == node]
        assert revisions == sorted(revisions)


async def test_a_store_that_does_not_answer_is_told_of_and_survived(world: World, relay: Relay) -> None:
    await world.store.commit(Commit(emit=(node_failed(),)))
    world.advance(10)
    world.store.unavailable = True
    assert "unavailable" in await relay.step()
    world.store.unavailable = False
    assert await relay.step() == ""
    assert len(await ids_told(world)) == 1


async def test_a_running_relay_passes_at_start_and_when_woken_until_it_is_cancelled(world: World, relay: Relay) -> None:
    await world.store.commit(Commit(emit=(node_failed(),)))
    world.advance(10)
    running = asyncio.create_task(relay.run(), name="relay")
    async with asyncio.timeout(1):
        while await world.store.outbox_length():
            await asyncio.sleep(0)
        await world.store.commit(Commit(emit=(node_failed(),)))
        world.advance(10)
        relay.wake()
        while await world.store.outbox_length():
            await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert relay.status["published"] == 2
