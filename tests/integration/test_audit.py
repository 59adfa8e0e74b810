"""The provisioner's acts are in the books, each committed together with what it tells of."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from fixtures.world import World, make_world
from navarch_api.types import AuditEntry
from navarch_common.model.node import Phase
from navarch_common.store.relay import Relay
from support.provisioner_world import MemoryCloud, Rig


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await make_world()
    yield made
    await made.close()


async def entries(world: World) -> list[AuditEntry]:
    async with world.bus.read("NAVARCH_AUDIT") as messages:
        return [msgspec.json.decode(message.data, type=AuditEntry) async for message in messages]


def told(books: list[AuditEntry], node: str) -> list[tuple[str, str]]:
    return [(entry.action, entry.result) for entry in books if entry.node == node]


async def test_a_replacement_is_told_act_by_act_with_what_each_changed(world: World) -> None:
    rig = Rig(world)
    async with rig.running():
        first, _ = await rig.grow(2)
        await rig.fail(first, takes_work=True)
        await rig.reach(lambda rs: any(r.replaces == first for r in rs), "a replacement")
        fresh = next(r.node for r in await rig.nodes() if r.replaces == first)
        await rig.phase(fresh, Phase.BOOTING)
        await rig.bring_up(fresh)
        await rig.phase(first, Phase.TERMINATED)
    books = await entries(world)
    assert told(books, first)[:3] == [("plan", "done"), ("launch", "begun"), ("launch", "made")]
    assert told(books, first)[3:] == [
        ("replace", "done"), ("drain", "done"), ("terminate", "begun"), ("terminate", "ended"), ("terminated", "done"),
    ]  # fmt: skip
    made = next(entry for entry in books if entry.node == fresh and (entry.action, entry.result) == ("launch", "made"))
    assert made.after["instance_id"].startswith("i-")
    replaced = next(entry for entry in books if entry.action == "replace")
    assert (replaced.actor, replaced.after["replaced_by"]) == ("health", fresh)
    begun = next(
        entry for entry in books if entry.node == first and (entry.action, entry.result) == ("terminate", "begun")
    )
    assert begun.after["phase"] == "terminating"
    assert all(entry.reason and entry.code and entry.rev for entry in books)


async def test_a_wish_that_was_carried_out_names_the_request_and_who_asked(world: World) -> None:
    rig = Rig(world)
    async with rig.running():
        (name,) = await rig.grow(1)
        await rig.wish(name, "cordon", id_="r-7")
        await rig.reach(lambda rs: any(r.cordons for r in rs), "a cordon")
    entry = next(entry for entry in await entries(world) if entry.action == "cordon")
    assert (entry.actor, entry.request_id) == ("operator:ann", "r-7")
    assert (entry.before, entry.after) == ({}, {"cordons": "operator:ann"})


async def test_a_call_without_an_answer_is_in_the_books_as_unknown(world: World) -> None:
    cloud = MemoryCloud(world.clock)
    cloud.lose = 1
    rig = Rig(world, cloud=cloud)
    async with rig.running():
        await rig.desire(1)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "a machine")
        [node] = await rig.nodes()
    assert told(await entries(world), node.node)[:3] == [("plan", "done"), ("launch", "begun"), ("launch", "unknown")]


async def test_an_entry_whose_publisher_died_is_told_by_the_relay(world: World) -> None:
    world.buses.faults.timeout_scale = 0
    world.buses.faults.lost_publish_ratio = 1.0
    rig = Rig(world)
    async with rig.running():
        await rig.desire(1)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "a machine")
        [node] = await rig.nodes()
    assert await entries(world) == []
    world.buses.faults.lost_publish_ratio = 0.0
    world.advance(10)
    assert await Relay(world.store, world.bus, world.subjects, world.clock).step() == ""
    assert told(await entries(world), node.node) == [("plan", "done"), ("launch", "begun"), ("launch", "made")]
    assert [event.KIND for event in await world.events()] == ["node.planned", "node.launched"]
