"""Whatever makes many nodes silent at once, or us deaf: nobody is condemned for it, and people hear of it once."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
from msgspec import structs

from fixtures.world import World
from navarch_common.model.health import HEALTH, HealthRecord
from navarch_common.model.node import NODE, NodeRecord
from support import health_world
from support.health_rig import Rig
from support.health_world import STATUS, T0, seconds


def node(index: int, zone: str) -> NodeRecord:
    made = health_world.node(f"training-{zone[-1]}{index:06d}")
    assert made.instance is not None
    return structs.replace(made, instance=structs.replace(made.instance, provider="aws", region="us-east-1", zone=zone))


async def plant(world: World, count: int, zone: str) -> list[str]:
    """Nodes that health found well before the test begins."""
    names = []
    for index in range(count):
        record = node(index, zone)
        health = HealthRecord(node=record.node, pool="training", generation=1, status=STATUS.HEALTHY, since=T0)
        await world.plant((NODE.key(record.node), record), (HEALTH.key(record.node), health))
        names.append(record.node)
    return names


async def beat(rig: Rig, names: list[str]) -> None:
    for name in names:
        await rig.beat(name)
    await rig.step()


async def unwell(world: World) -> set[str]:
    stored = await world.store.records(HEALTH)
    return {one.record.node for one in stored if one.record.status is not STATUS.HEALTHY}


async def test_a_whole_zone_silent_at_once_condemns_nobody_and_is_told_once_by_all_copies_together(
    world: World,
) -> None:
    dark, bright = await plant(world, 12, "us-east-1a"), await plant(world, 288, "us-east-1b")
    first, second = Rig(world), Rig(world, instance="copy-2", own=True)
    second.sequence = 1_000_000
    async with first.running(), second.running():
        for name in (*dark, *bright):
            await first.beat(name)
        for rig in (first, second):
            await rig.step()
        for minute in range(20):
            for _ in range(3):
                await beat(first, bright)
                world.advance(5)
                for rig in (first, second):
                    rig.monotonic_s += 5
                    await rig.step()
            if minute > 1:
                world.advance(45)
                await beat(first, bright)
        assert await unwell(world) == set()
    [alarm] = await world.events("cluster.alarm")
    assert (alarm.code, alarm.actor) == ("mass-silence", "health")
    assert "12 of 12 nodes in zone aws/us-east-1/us-east-1a are silent at once" in alarm.reason
    assert await world.events("node.failed") == []


async def test_a_copy_that_starts_over_a_thousand_nodes_calls_nobody_silent(world: World) -> None:
    names = await plant(world, 1000, "us-east-1a")
    world.advance(3600)
    rig = Rig(world)
    async with rig.running():
        await rig.pass_time(4)
        await beat(rig, names)
        await rig.pass_time(14)
        await beat(rig, names)
        await rig.pass_time(4)
        assert await unwell(world) == set()
    assert await world.events("node.suspect") == []
    assert await world.events("cluster.alarm") == []


async def test_a_loop_that_was_blocked_for_a_minute_has_heard_nothing_and_knows_it(world: World) -> None:
    names = await plant(world, 60, "us-east-1a")
    rig = Rig(world)
    async with rig.running():
        await beat(rig, names)
        await rig.pass_time(16)
        await beat(rig, names)
        world.advance(60)
        rig.monotonic_s += 60
        rig.service._observer.note(world.clock.now(), rig.monotonic_s, rig.deps.bus.status)
        await rig.step()
        assert "stood still" in rig.service._watch.suspended
        await beat(rig, names)
        await rig.pass_time(14)
        assert await unwell(world) == set()
    assert await world.events("node.suspect") == []


class Jumping:
    """One copy's wall clock, which somebody sets."""

    def __init__(self, world: World) -> None:
        self._world, self.ahead = world, seconds(0)

    def now(self) -> datetime:
        return self._world.clock.now() + self.ahead


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_a_clock_that_jumps_by_an_hour_changes_no_verdict(world: World, jump: float) -> None:
    names = await plant(world, 60, "us-east-1a")
    clock = Jumping(world)
    rig = Rig(world, clock=clock)
    async with rig.running():
        await beat(rig, names)
        await rig.pass_time(16, names)
        clock.ahead = seconds(jump)
        await rig.step()
        await rig.pass_time(40, names)
        assert await unwell(world) == set()
    assert await world.events("node.suspect") == []
    assert await world.events("node.failed") == []


async def test_a_pass_that_comes_before_the_observer_has_noticed_the_jump_calls_nobody_suspect(world: World) -> None:
    names = await plant(world, 3, "us-east-1a")
    clock = Jumping(world)
    rig = Rig(world, clock=clock)
    async with rig.running():
        await beat(rig, names)
        await rig.pass_time(16, names)
        clock.ahead = seconds(3600)
        await rig.step()
        assert await unwell(world) == set()


async def test_an_alarm_that_two_copies_raise_at_the_same_moment_is_told_once(world: World) -> None:
    names = await plant(world, 10, "us-east-1a")
    copies = [Rig(world), Rig(world, instance="copy-2", own=True)]
    async with copies[0].running(), copies[1].running():
        await beat(copies[0], names)
        for rig in copies:
            await rig.step()
        for _ in range(10):
            world.advance(3)
            for rig in copies:
                rig.monotonic_s += 3
                rig.service._observer.note(world.clock.now(), rig.monotonic_s, rig.deps.bus.status)
            await asyncio.gather(*(rig.step() for rig in copies))
    assert len(await world.events("cluster.alarm")) == 1
