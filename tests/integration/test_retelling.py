"""Events that the bus had acknowledged and lost are told again, once; and a store that lost writes is told of."""

import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from fixtures.servers import Servers, make_servers
from fixtures.world import World, make_world
from navarch_api.client import Client
from navarch_api.errors import ClientError
from navarch_common.model.node import NODE, Phase
from navarch_common.store.base import StoreUnavailable
from navarch_common.told import CHECKED_FOR, HORIZON
from navarch_provisioner.settings import Timings
from support.apart import Apart, apart
from support.deps import until
from support.health_rig import Rig as HealthRig
from support.health_world import node, report, xid
from support.provisioner_world import QUICK, Rig

NAMES = ("training-node0", "training-node1")
EVENTS = "NAVARCH_EVENTS"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = await make_world()
    yield made
    await made.close()


def quick() -> Timings:
    return Timings(
        reconcile_period=QUICK.reconcile_period, sweep_period=QUICK.sweep_period, retell_period=timedelta(seconds=0.05)
    )


async def lose(world: World, kind: str, name: str) -> None:
    """As a server that lost the tail of its disk: what it had acknowledged is gone."""
    stream = world.buses.streams[EVENTS]
    for event in list(stream.select((f"navarch.events.{kind}.training.{name}",), 0)):
        stream.remove(event.sequence)
    assert not [event for event in await world.events(kind) if event.node == name]


async def wipe(world: World) -> None:
    """As a server that comes back with an empty disk; the streams are made anew."""
    world.buses.streams.clear()
    world.advance(1)
    await world.bus.ensure_streams(world.subjects.streams())


async def passes(rig: Rig, count: int) -> None:
    """So many whole looks at what was told."""
    for _ in range(count):
        before = rig.service._retelling.last
        await until(lambda before=before: rig.service._retelling.last is not before, "a pass")  # type: ignore[misc]


async def kinds_of(world: World, name: str) -> list[str]:
    return [event.KIND for event in await world.events() if event.node == name]


async def test_the_event_of_a_nodes_phase_that_was_lost_is_told_again_once(world: World) -> None:
    rig = Rig(world, timings=quick())
    async with rig.running():
        first, second = await rig.grow(2)
        await lose(world, "node.active", first)
        world.advance(CHECKED_FOR.total_seconds())
        await rig.beat(first)
        await rig.beat(second)
        await passes(rig, 5)
    again = [event for event in await world.events("node.active") if event.node == first]
    assert [(event.code, event.actor) for event in again] == [("told-again", "provisioner")]
    assert "active since 2026-01-01T" in again[0].reason
    assert len([event for event in await world.events("node.active") if event.node == second]) == 1
    stored = await world.store.get(NODE.key(first))
    assert stored is not None
    assert stored.revision >= again[0].rev


async def test_a_store_that_goes_away_meanwhile_is_said_so_and_the_next_pass_tells_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(world, timings=quick())
    async with rig.running():
        [first] = await rig.grow(1)
        retelling, workers = rig.service._retelling, rig.service._workers

        async def away(_: object) -> bool:
            raise StoreUnavailable("the store does not answer")

        [(worker, _)] = workers.values()
        monkeypatch.setattr(worker, "commit", away)
        await lose(world, "node.active", first)
        world.advance(CHECKED_FOR.total_seconds())
        await rig.beat(first)
        await until(lambda: retelling.last is not None and bool(retelling.last.error), "a pass that failed")
        assert retelling.last is not None
        assert retelling.last.error == "the store does not answer"
        monkeypatch.undo()
        await until(lambda: retelling.last is not None and not retelling.last.error, "a pass that did not")
    assert "node.active" in await kinds_of(world, first)


async def test_after_the_loss_of_all_streams_everything_that_holds_is_told_again(world: World) -> None:
    rig = Rig(world, timings=quick())
    async with rig.running():
        first, second = await rig.grow(2)
        world.advance(HORIZON.total_seconds() * 2)
        await rig.beat(first)
        await rig.beat(second)
        await wipe(world)
        await passes(rig, 5)
    assert sorted(event.node for event in await world.events("node.active")) == sorted([first, second])


async def test_what_is_older_than_the_stream_keeps_is_not_missed(world: World) -> None:
    rig = Rig(world, timings=quick())
    async with rig.running():
        (name,) = await rig.grow(1)
        world.advance(HORIZON.total_seconds() + 60)
        await lose(world, "node.active", name)
        await passes(rig, 5)
    assert "node.active" not in await kinds_of(world, name)


async def test_what_waits_in_the_outbox_is_not_told_twice(world: World) -> None:
    rig = Rig(world, timings=quick())
    async with rig.running():
        world.buses.faults.timeout_scale = 0
        world.buses.faults.lost_publish_ratio = 1.0
        await rig.desire(1)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "a machine")
        [record] = await rig.nodes()
        assert await world.store.outbox_length() > 0
        await passes(rig, 3)
        world.buses.faults.lost_publish_ratio = 0.0
        waiting = await world.store.outbox()
    assert [entry.subject for entry in waiting].count(f"navarch.events.node.launched.training.{record.node}") == 1


async def test_a_failure_whose_event_was_lost_is_told_again_by_one_of_two_copies(world: World) -> None:
    for name in NAMES:
        await world.plant((NODE.key(name), node(name)))
    one, two = HealthRig(world), HealthRig(world, instance="copy-2", own=True)
    async with one.running(), two.running():
        await one.report(report(xid(79), sequence=1, node=NAMES[0]))
        failed = await one.becomes(NAMES[0], "unhealthy")
        await one.settled()
        await lose(world, "node.failed", NAMES[0])
        for rig in (one, two):
            await rig.step()
        steps = [rig.service._retelling._step() for rig in (one, two)]
        for step in steps:
            await step
        world.advance(CHECKED_FOR.total_seconds())
        for rig in (one, two):
            await rig.service._retelling._step()
    [again] = await world.events("node.failed")
    assert again.failure_id == failed.failure_id  # type: ignore[attr-defined]
    assert again.cause == "xid-79"  # type: ignore[attr-defined]
    assert again.reason.startswith("told again, since its event was lost: failed since ")


async def test_a_store_that_lost_writes_of_which_was_told_is_an_alarm(world: World) -> None:
    rig = Rig(world, timings=quick())
    async with rig.running():
        (name,) = await rig.grow(1)
        await rig.pass_time(10, name)
    assert await world.events("cluster.alarm") == []
    before = world.stores.backup()
    world.advance(1)
    async with rig.running():
        await rig.wish(name, "cordon")
        await rig.reach(lambda rs: any(r.cordons for r in rs), "a cordon")
    world.stores.roll_back(before)
    world.advance(1)
    await world.life.step()  # What forgot writes that were told of begins a new life, which the alarm then speaks of.
    late = Rig(world, timings=quick(), cloud=rig.cloud, instance="copy-2")
    async with late.running():
        await passes(late, 5)
    [alarm] = await world.events("cluster.alarm")
    assert alarm.code == "store-behind-stream"
    assert f"node.cordoned.v1 of {name}" in alarm.reason


CONFIG = """
cluster: {name}
bus: {{prefix: {name}}}
server: {{http_address: '127.0.0.1:0', address: '127.0.0.1:0', heartbeat_interval: 300ms}}
providers: {{local: {{type: local}}}}
pools:
  training: {{provider: local, instance_type: h100-8x, min_nodes: 2, max_nodes: 4}}
"""


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[Servers]:
    made = make_servers(tmp_path)
    if not made.killable:
        pytest.skip("the NATS here is somebody else's and must not lose its disk")
    made.start()
    yield made
    made.stop()


@pytest.mark.long
@pytest.mark.integration
@pytest.mark.slow
def test_a_bus_that_comes_back_with_an_empty_disk_hears_again_what_holds_and_then_what_happens(
    own_servers: Servers, tmp_path: Path, unique: str
) -> None:
    with apart(tmp_path, own_servers, CONFIG.format(name=unique)) as services:
        for service in ("gateway", "health", "autoscaler", "provisioner"):
            services.start(service)
        nodes = services.until_active(2)
        own_servers.nats.stop()
        shutil.rmtree(tmp_path / "nats" / "jetstream")
        own_servers.nats.start()
        services.until(lambda: told(services, "node.active") == nodes, "both nodes told of as active", 60)
        kmsg = services.data_dir / "instances" / min(nodes) / "kmsg"
        with kmsg.open("a") as lines:
            lines.write(
                "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
            )
        services.until(lambda: min(nodes) in told(services, "node.failed"), "its failure told of", 60)
        services.until_active(2)


def told(services: Apart, kind: str) -> set[str]:
    try:
        with Client(services.http, timeout_s=5.0) as client:
            return {str(event["node"]) for event in client.events(type=kind, since="1h").items}
    except ClientError:
        return set()
