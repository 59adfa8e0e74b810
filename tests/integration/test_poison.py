"""Work that nobody can use: it is kept among the dead letters, told of, and everything else flows on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec import structs

from fixtures.world import World, make_world
from navarch_common import dead
from navarch_common.bus.base import StoredMessage
from navarch_common.events import encode
from navarch_common.events.messages import HealthReport
from navarch_common.model.node import NODE, Phase
from navarch_health import reports
from navarch_provisioner import intake
from support.deps import until
from support.health_rig import Rig as HealthRig
from support.health_world import node, report, xid
from support.provisioner_world import Rig

NAMES = ("training-node0", "training-node1")


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(dead, "AGAIN_S", 0.005)
    made = await make_world()
    yield made
    await made.close()


def said(name: str) -> HealthReport:
    return report(xid(79), sequence=1, node=name)


async def letters(world: World) -> list[StoredMessage]:
    async with world.bus.read("NAVARCH_DEAD", ("navarch.dead.*",)) as messages:
        return [message async for message in messages]


async def health_of(world: World) -> HealthRig:
    for name in NAMES:
        await world.plant((NODE.key(name), node(name)))
    return HealthRig(world)


def broken_for(monkeypatch: pytest.MonkeyPatch, module: Any, function: str, bad: str) -> list[str]:
    """Makes `function` fail for whatever is about `bad`; returns the names that it failed over."""
    whole, failed = getattr(module, function), []

    def breaks(*args: Any, **kwargs: Any) -> Any:
        if any(getattr(one, "node", "") == bad for one in args):
            failed.append(bad)
            raise ZeroDivisionError("a bug of ours")
        return whole(*args, **kwargs)

    monkeypatch.setattr(module, function, breaks)
    return failed


async def test_a_report_over_which_health_breaks_again_and_again_is_buried_with_an_alarm_and_others_are_judged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = broken_for(monkeypatch, reports, "_check", NAMES[0])
    rig = await health_of(world)
    async with rig.running():
        await rig.report(said(NAMES[0]))
        await rig.report(said(NAMES[1]))
        await rig.becomes(NAMES[1], "unhealthy")
        await rig.settled()
    assert len(failed) == dead.FAILURES_MAX
    [letter] = await letters(world)
    assert letter.headers["Navarch-Code"] == "handler-failed"
    assert letter.headers["Navarch-Error"].endswith("ZeroDivisionError: a bug of ours")
    [alarm] = await world.events("cluster.alarm")
    assert (alarm.code, alarm.actor) == ("message-buried", "health")


async def test_a_report_that_a_store_refuses_for_good_is_buried_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = await health_of(world)
    world.store.plant(NODE.key(NAMES[0]), b"rubbish that no store of ours wrote")
    async with rig.running():
        await rig.report(said(NAMES[0]))
        await rig.report(said(NAMES[1]))
        await rig.becomes(NAMES[1], "unhealthy")
        await rig.settled()
    assert [letter.headers["Navarch-Code"] for letter in await letters(world)] == ["handler-failed"]


async def test_a_store_that_is_away_buries_nothing(world: World) -> None:
    rig = await health_of(world)
    async with rig.running():
        world.store.unavailable = True
        await rig.report(said(NAMES[0]))
        await until(lambda: world.buses.streams["NAVARCH_REPORTS"].consumers["health"].outstanding, "it was delivered")
        await asyncio.sleep(0.1)
        world.store.unavailable = False
        await rig.becomes(NAMES[0], "unhealthy")
    assert await letters(world) == []


async def test_a_report_of_a_later_release_waits_for_a_copy_that_knows_it_before_it_is_buried(world: World) -> None:
    rig = await health_of(world)
    fields = msgspec.json.decode(encode(said(NAMES[0])))
    async with rig.running():
        newer = msgspec.json.encode({**fields, "type": "report.health.v2"})
        await world.bus.publish_durable(f"navarch.reports.{NAMES[0]}.health", newer, msg_id="newer")
        await rig.settled()
    [letter] = await letters(world)
    assert letter.data == newer
    assert letter.headers["Navarch-Deliveries"] == str(dead.NEWER_TRIES)


async def test_a_lifecycle_report_that_cannot_be_decoded_is_buried_by_the_provisioner(world: World) -> None:
    rig = Rig(world)
    async with rig.running():
        await world.bus.publish_durable("navarch.reports.training-x.lifecycle", b"\xff no json", msg_id="bad")
        await rig.grow(1)
    [letter] = await letters(world)
    assert (letter.data, letter.headers["Navarch-By"]) == (b"\xff no json", "provisioner copy-1")
    [told] = await world.events("cluster.message-rejected")
    assert told.reason.startswith("dropped a message on navarch.reports.training-x.lifecycle: ")


async def test_a_lifecycle_report_over_which_the_intake_breaks_is_buried_and_the_provisioner_lives_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(world)
    async with rig.running():
        await rig.desire(2)
        await rig.reach(lambda rs: sum(r.phase is Phase.BOOTING for r in rs) == 2, "two machines boot")
        bad, good = (record.node for record in await rig.nodes(Phase.BOOTING))
        failed = broken_for(monkeypatch, intake, "_useless", bad)
        await rig.register(bad)
        await rig.register(good)
        await rig.phase(good, Phase.VALIDATING)
        await until(lambda: len(failed) == dead.FAILURES_MAX, "it was tried often enough")
        await rig.bring_up(good)
    [letter] = await letters(world)
    assert letter.headers["Navarch-Subject"] == f"navarch.reports.{bad}.lifecycle"
    assert [alarm.actor for alarm in await world.events("cluster.alarm")] == ["provisioner"]


async def test_a_store_that_has_just_gone_back_and_knows_no_node_makes_no_health_report_useless(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "LATER_S", 0.01)
    before = world.stores.backup()
    rig = await health_of(world)
    async with rig.running():
        await rig.step()
        await rig.beat(NAMES[0])
        await rig.becomes(NAMES[0], "healthy")
        world.stores.roll_back(before)  # and nobody has noticed yet
        await rig.report(said(NAMES[0]))
        await asyncio.sleep(0.1)
        assert await world.bus.pending("NAVARCH_REPORTS", "health") == 1
    assert await world.events("cluster.message-rejected") == []


@pytest.mark.parametrize("known", ["no such node", "an earlier generation of it"])
async def test_a_store_that_has_just_gone_back_makes_no_lifecycle_report_useless(
    world: World, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    monkeypatch.setattr(intake, "AGAIN_S", 0.01)
    before = world.stores.backup()
    rig = Rig(world)
    async with rig.running():
        await rig.desire(1)
        await rig.reach(lambda rs: sum(r.phase is Phase.BOOTING for r in rs) == 1, "a machine boots")
        [record] = await rig.nodes(Phase.BOOTING)
        if known != "no such node":
            before = world.stores.backup()
            await world.plant((NODE.key(record.node), structs.replace(record, generation=record.generation + 1)))
        world.stores.roll_back(before)  # and nobody has noticed yet
        await rig.register(record.node, generation=record.generation + (known != "no such node"))
        await asyncio.sleep(0.1)
        assert await world.bus.pending("NAVARCH_REPORTS", "provisioner") == 1
    assert await world.events("cluster.message-rejected") == []
