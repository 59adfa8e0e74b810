from collections.abc import AsyncIterator

import pytest

from fixtures.world import World
from navarch_common.events.kinds import MessageRejected
from navarch_common.metrics import Metrics
from navarch_common.rejects import EVENTS_PER_QUIET_MAX, SOURCES_MAX, Rejects


class SomeDeps:
    """What `Rejects` takes of `Deps`."""

    def __init__(self, world: World) -> None:
        self.clock, self.cluster = world.clock, world.cluster
        self.metrics, self.committer = Metrics(), world.committer("health")


@pytest.fixture
async def deps(world: World) -> AsyncIterator[SomeDeps]:
    return SomeDeps(world)


async def told(world: World) -> list[MessageRejected]:
    return [event for event in await world.events() if isinstance(event, MessageRejected)]


def counted(deps: SomeDeps) -> str:
    text = deps.metrics.render()[0].decode()
    return next(line for line in text.splitlines() if line.startswith("navarch_messages_rejected_total{"))


async def test_the_first_bad_message_of_a_source_is_told_at_once(world: World, deps: SomeDeps) -> None:
    rejects = Rejects(deps, "health")  # type: ignore[arg-type]
    await rejects.note("navarch.heartbeat.n1", "n1", ValueError("not JSON"), pool="training", node="n1")
    (event,) = await told(world)
    assert (event.code, event.actor, event.pool, event.node, event.count) == (
        "message-rejected", "health", "training", "n1", 1,
    )  # fmt: skip
    assert event.reason == "dropped a message on navarch.heartbeat.n1: not JSON"


async def test_a_flood_is_counted_in_full_and_told_once_a_minute(world: World, deps: SomeDeps) -> None:
    rejects = Rejects(deps, "health")  # type: ignore[arg-type]
    for _ in range(100):
        await rejects.note("s", "n1", "bad")
    assert len(await told(world)) == 1
    world.advance(60)
    await rejects.note("s", "n1", "bad")
    assert [event.count for event in await told(world)] == [1, 100]
    assert counted(deps).endswith(" 101.0")


async def test_many_sources_cannot_flood_the_events_nor_the_memory(world: World, deps: SomeDeps) -> None:
    rejects = Rejects(deps, "health")  # type: ignore[arg-type]
    for number in range(2 * SOURCES_MAX):
        await rejects.note("s", f"source-{number}", "bad")
    assert len(await told(world)) == EVENTS_PER_QUIET_MAX
    assert len(rejects._sources) == SOURCES_MAX


async def test_what_came_from_outside_never_breaks_the_event(world: World, deps: SomeDeps) -> None:
    rejects = Rejects(deps, "health")  # type: ignore[arg-type]
    await rejects.note("x" * 5000, "y" * 5000, "z" * 50_000, pool="no pool\n", node="../n")
    (event,) = await told(world)
    assert (event.pool, event.node) == ("", "")
    assert len(event.reason) <= 1000


async def test_a_store_that_is_away_stops_nobody(world: World, deps: SomeDeps) -> None:
    rejects = Rejects(deps, "health")  # type: ignore[arg-type]
    world.stores.up = False
    await rejects.note("s", "n1", "bad")
    world.stores.up = True
    assert await told(world) == []
