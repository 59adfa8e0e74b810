"""What a store that went back has forgotten of failures is taken from what was told of them."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from fixtures.world import World, make_world
from navarch_common.events.kinds import NodeFailed, NodeRecovered
from navarch_common.model.health import HealthStatus
from navarch_common.model.node import NODE, NodeRecord, Phase, Registration
from navarch_common.store.base import Commit, Conflict
from navarch_health.remembering import remembered, stands
from support.health_rig import Rig
from support.health_world import T0, context, node, record, registration, report, xid

NAME = "training-node0"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await make_world()
    yield made
    await made.close()


def booted(at: datetime) -> Registration:
    return structs.replace(registration("boot-2"), at=at)


async def forget(world: World, rig: Rig) -> NodeFailed:
    """The node fails, everybody is told, the store goes back to before that, and the machine boots again."""
    await rig.becomes(NAME, "unknown")
    before = world.stores.backup()
    world.advance(1)
    await rig.report(report(xid(79), sequence=1, node=NAME))
    await rig.becomes(NAME, "unhealthy")
    await rig.settled()
    [told] = await world.events("node.failed")
    assert isinstance(told, NodeFailed)
    world.stores.roll_back(before)
    world.advance(1)
    await world.life.step()
    world.advance(1)
    await rig.edit(NAME, registration=booted(world.clock.now()))
    await rig.beat(NAME, boot_id="boot-2")
    await rig.step()
    assert (await rig.health(NAME)).status is not HealthStatus.UNHEALTHY
    return told


async def test_a_failure_that_the_store_forgot_stands_again_under_its_id(world: World) -> None:
    await world.plant((NODE.key(NAME), node(NAME)))
    rig = Rig(world)
    async with rig.running():
        told = await forget(world, rig)
        done = await rig.service._remembering._step()
        found = await rig.becomes(NAME, "unhealthy")
        again = await rig.service._remembering._step()
    assert (done, again["remembered"]) == ({"compared": 1, "remembered": 1}, 0)
    assert (found.failure_id, found.code, found.action) == (told.failure_id, "xid-79", told.action)
    assert await world.events("node.failed") == [told], "nobody is told again of what was told"
    assert found.failed


async def test_who_is_outrun_by_another_commit_looks_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.plant((NODE.key(NAME), node(NAME)))
    rig = Rig(world)

    async def outrun(*_: object, **__: object) -> None:
        raise Conflict(f"health/{NAME}", 1, 2)

    async with rig.running():
        await forget(world, rig)
        with monkeypatch.context() as patch:
            patch.setattr(rig.service._verdicts, "change", outrun)
            assert (await rig.service._remembering._step())["remembered"] == 0
        assert (await rig.service._remembering._step())["remembered"] == 1


async def test_what_was_taken_back_since_stays_so(world: World) -> None:
    await world.plant((NODE.key(NAME), node(NAME)))
    rig = Rig(world)
    async with rig.running():
        await forget(world, rig)
        recovered = NodeRecovered(
            at=world.clock.now(),
            cluster="test",
            pool="training",
            node=NAME,
            reason="well",
            code="passed",
            actor="health",
        )
        await world.committer("health").commit(Commit(emit=(recovered,)))
        await world.told("node.recovered")
        done = await rig.service._remembering._step()
    assert done == {"compared": 1, "remembered": 0}


async def test_where_no_safe_mode_was_nothing_is_compared(world: World) -> None:
    await world.plant((NODE.key(NAME), node(NAME)))
    rig = Rig(world)
    async with rig.running():
        await rig.becomes(NAME, "unknown")
        assert await rig.service._remembering._step() == {"compared": 0, "remembered": 0}


TOLD = NodeFailed(
    at=T0, cluster="test", pool="training", node=NAME, reason="fell off", code="xid-79", actor="health", failure_id="f1",
    cause="xid-79", entity="gpu:1", generation=1,
)  # fmt: skip


def failed(**fields: Any) -> NodeFailed:
    return structs.replace(TOLD, **fields)


BOOTED = booted(T0 + timedelta(seconds=9))
STANDS = [
    ("a fault that asks for another machine", failed(), node(NAME, registration=BOOTED), True),
    ("one of an earlier machine", failed(generation=2), node(NAME), False),
    ("one that a boot repairs, before any", failed(action="reboot_node"), node(NAME), True),
    ("one that a boot has repaired", failed(action="reboot_node"), node(NAME, registration=BOOTED), False),
    ("silence", failed(entity="machine", cause="silence"), node(NAME), False),
    ("an event that names no failure", failed(failure_id=""), node(NAME), False),
]


@pytest.mark.parametrize(("told", "of", "expected"), [row[1:] for row in STANDS], ids=[row[0] for row in STANDS])
def test_what_says_something_of_the_machine_that_is_there(told: NodeFailed, of: NodeRecord, expected: bool) -> None:
    assert stands(told, of) is expected
    assert (remembered(told, of, record(of), context()) is not None) is expected


def test_a_node_that_is_on_its_way_out_is_left_alone() -> None:
    gone = node(NAME, phase=Phase.TERMINATING)
    assert remembered(failed(), gone, record(gone), context()) is None
