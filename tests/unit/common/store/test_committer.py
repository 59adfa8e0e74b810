"""What a committer does when telling goes wrong, and what it refuses."""

import asyncio
from typing import Any

import pytest

from fixtures.records import node_cordoned, node_failed, node_record
from fixtures.world import World
from navarch_common.bus.base import PubAck
from navarch_common.model.cluster import META
from navarch_common.model.node import NODE
from navarch_common.store.base import ABSENT, Commit, Conflict, StoreUnavailable
from navarch_common.store.committer import Committer
from navarch_common.store.memory import MemoryStore

ONE = NODE.key("training-1")


async def ids_told(world: World) -> list[str]:
    return [event.id for event in await world.events()]


async def test_a_commit_tells_its_events_and_empties_the_outbox(world: World) -> None:
    committer = world.committer("provisioner")
    revision = await committer.commit(Commit(put={ONE: node_record()}, emit=(node_cordoned(), node_failed())))
    assert await ids_told(world) == [f"{revision:016d}-0", f"{revision:016d}-1"]
    assert await world.store.outbox_length() == 0
    assert committer.status["published"] == 2


@pytest.mark.parametrize("how", ["put", "touch", "delete"])
async def test_a_service_writes_only_its_own_records(world: World, how: str) -> None:
    commits = {
        "put": Commit(put={ONE: node_record()}),
        "touch": Commit(touch={ONE: node_record()}),
        "delete": Commit(delete=(ONE,)),
    }
    with pytest.raises(AssertionError, match="written by provisioner, and this is health"):
        await world.committer("health").commit(commits[how])
    await world.committer("health").commit(Commit(expect={ONE: ABSENT}))


async def test_anyone_may_write_what_the_commit_itself_guards(world: World) -> None:
    stored = await world.store.get(META.key())
    assert stored is not None
    await world.committer("health").commit(
        Commit(expect={META.key(): stored.revision}, put={META.key(): stored.record})
    )


async def test_a_commit_that_is_refused_tells_nothing(world: World) -> None:
    with pytest.raises(Conflict):
        await world.committer("provisioner").commit(Commit(expect={ONE: 5}, emit=(node_failed(),)))
    assert await ids_told(world) == []


async def test_a_lost_reply_of_the_store_is_raised_and_the_event_waits_for_the_relay(world: World) -> None:
    world.store.lose_replies()
    with pytest.raises(StoreUnavailable):
        await world.committer("provisioner").commit(Commit(put={ONE: node_record()}, emit=(node_failed(),)))
    assert await world.store.get(ONE) is not None
    assert await world.store.outbox_length() == 1


@pytest.mark.parametrize("fault", ["lost_replies", "lost_publishes", "refused_publishes"])
async def test_a_publish_in_doubt_leaves_the_commit_done_and_the_event_to_the_relay(world: World, fault: str) -> None:
    world.buses.faults.timeout_scale = 0.0
    setattr(world.buses.faults, fault, 1)
    committer = world.committer("provisioner")
    await committer.commit(Commit(emit=(node_failed(), node_cordoned())))
    assert await world.store.outbox_length() == 2
    assert committer.status["left_to_relay"] == 1


async def test_after_a_doubt_the_bus_is_left_alone_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.buses.faults.refused_publishes = 1
    committer = world.committer("provisioner")
    for _ in range(3):
        await committer.commit(Commit(emit=(node_failed(),)))
    assert await world.store.outbox_length() == 3
    monkeypatch.setattr(asyncio.get_running_loop(), "time", later(asyncio.get_running_loop(), 3.0))
    await committer.commit(Commit(emit=(node_failed(),)))
    assert await world.store.outbox_length() == 0
    assert len(await ids_told(world)) == 4


def later(loop: asyncio.AbstractEventLoop, by_s: float) -> Any:
    now = loop.time
    return lambda: now() + by_s


async def test_a_bus_that_is_not_connected_costs_no_time(world: World) -> None:
    world.bus.lose_connection()
    async with asyncio.timeout(0.5):
        await world.committer("provisioner").commit(Commit(emit=(node_failed(),)))
    assert await world.store.outbox_length() == 1


async def test_older_events_of_the_same_node_go_first_and_others_stay(world: World) -> None:
    dead = await world.store.commit(Commit(emit=(node_failed("n-1"), node_failed("n-2"))))
    revision = await world.committer("provisioner").commit(Commit(emit=(node_cordoned("n-1"),)))
    assert await ids_told(world) == [dead.entries[0].id, f"{revision:016d}-0"]
    assert [entry.id for entry in await world.store.outbox()] == [dead.entries[1].id]


async def test_older_events_are_found_behind_thousands_of_others(world: World) -> None:
    for _ in range(3):
        await world.store.commit(Commit(emit=tuple(node_failed("n-2") for _ in range(700))))
    dead = await world.store.commit(Commit(emit=(node_failed("n-1"),)))
    revision = await world.committer("provisioner").commit(Commit(emit=(node_cordoned("n-1"),)))
    assert await ids_told(world) == [dead.entries[0].id, f"{revision:016d}-0"]


async def test_what_nobody_foresaw_in_publishing_does_not_fail_the_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> PubAck:
        raise RuntimeError("a bug")

    monkeypatch.setattr(world.bus, "publish_durable", broken)
    await world.committer("provisioner").commit(Commit(put={ONE: node_record()}, emit=(node_failed(),)))
    assert await world.store.outbox_length() == 1


async def test_an_outbox_that_fails_after_the_commit_does_not_fail_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(self: MemoryStore, ids: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(MemoryStore, "outbox_done", unavailable)
    committer = Committer(world.store, world.bus, world.subjects, writer="health", clock=world.clock)
    await committer.commit(Commit(emit=(node_failed(),)))
    assert len(await ids_told(world)) == 1
    assert await world.store.outbox_length() == 1
