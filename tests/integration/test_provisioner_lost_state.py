"""The provisioner when records are missing, and when what it hears is of no use."""

import asyncio

from msgspec import structs

from fixtures.world import World
from navarch_common.model.cluster import INBOX, META, MetaRecord, SafeMode
from navarch_common.model.health import HealthStatus
from navarch_common.model.node import NODE, LaunchRequest, Phase
from navarch_provisioner.cloud.base import Upstream
from support.provisioner_world import POOL_NAME, Rig


async def enter_safe_mode(world: World, code: str = "store-lost") -> None:
    stored = await world.store.get(META.key())
    assert stored is not None
    safe = SafeMode(since=world.clock.now(), code=code, reason="the store is empty")
    await world.plant((META.key(), structs.replace(stored.record, safe_mode=safe)))


async def in_safe_mode(world: World) -> bool:
    meta = (await world.found(META.key())).record
    assert isinstance(meta, MetaRecord)
    return meta.safe_mode is not None


def old_machine(rig: Rig, node: str, installation: str) -> None:
    """A machine of a time that no record tells of."""
    request = LaunchRequest(
        node=node, pool=POOL_NAME, cluster="test", installation=installation, generation=1, provider="cloud",
        instance_type="h100-8x", token=f"{hash(node) % 10**32:032d}",
    )  # fmt: skip
    rig.cloud._make(request)


async def test_after_a_lost_store_machines_are_adopted_and_nothing_is_launched_or_ended(world: World) -> None:
    await enter_safe_mode(world)
    rig = Rig(world)
    for name in ("training-old0001", "training-old0002"):
        old_machine(rig, name, world.meta.installation)
    await rig.desire(5)
    async with rig.running():
        await rig.reach(lambda rs: len(rs) == 2, "both are adopted")
        assert await in_safe_mode(world)
        for record in await rig.nodes():
            await rig.register(record.node)
            await rig.phase(record.node, Phase.VALIDATING)
            await rig.judge(record.node, HealthStatus.HEALTHY)
        await rig.reach(lambda rs: all(r.phase is Phase.ACTIVE for r in rs[:2]), "both are active")
        await rig.reach(lambda rs: len(rs) == 5, "safe mode ends, and the pool grows")
    assert not await in_safe_mode(world)
    assert rig.cloud.terminated == []
    assert len(await world.events("cluster.safe-mode-left")) == 1


async def test_safe_mode_ends_where_no_machine_is_left(world: World) -> None:
    await enter_safe_mode(world)
    async with Rig(world).running() as rig:
        await rig.desire(1)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "a machine")


async def test_safe_mode_stays_while_a_machine_of_another_installation_is_there(world: World) -> None:
    await enter_safe_mode(world)
    rig = Rig(world)
    old_machine(rig, "training-theirs1", "someone-else")
    async with rig.running():
        await rig.desire(1)
        await asyncio.sleep(0.4)
    assert await in_safe_mode(world)
    assert len(rig.cloud.made) == 1
    assert await rig.nodes() == []


async def test_in_safe_mode_the_reports_of_an_unknown_node_wait(world: World) -> None:
    await enter_safe_mode(world, "store-different")
    rig = Rig(world)
    old_machine(rig, "training-theirs1", "someone-else")
    async with rig.running():
        await rig.register("training-unknown")
        await asyncio.sleep(0.2)
    assert await world.bus.pending("NAVARCH_REPORTS", "provisioner") == 1


async def test_a_report_of_an_unknown_node_is_dropped_and_told(world: World) -> None:
    async with Rig(world).running() as rig:
        await rig.register("training-unknown")
        await asyncio.sleep(0.2)
    assert await world.bus.pending("NAVARCH_REPORTS", "provisioner") == 0
    [event] = await world.events("cluster.message-rejected")
    assert "no such node" in event.reason


async def test_garbage_is_dropped_told_once_a_minute_and_harms_nobody(world: World) -> None:
    async with Rig(world).running() as rig:
        [name] = await rig.grow(1)
        for index in range(20):
            subject = world.subjects.report(name, "lifecycle")
            await world.bus.publish_durable(subject, b'{"type": "nonsense"', msg_id=f"garbage-{index}")
        await asyncio.sleep(0.3)
        assert (await rig.node(name)).phase is Phase.ACTIVE
    assert await world.bus.pending("NAVARCH_REPORTS", "provisioner") == 0
    assert len(await world.events("cluster.message-rejected")) == 1


async def test_a_report_of_an_older_generation_is_dropped(world: World) -> None:
    async with Rig(world).running() as rig:
        [name] = await rig.grow(1)
        stored = await world.found(NODE.key(name))
        await world.plant((stored.key, structs.replace(await rig.node(name), generation=2)))
        before = (await rig.node(name)).registration
        await rig.register(name, boot="boot-9", generation=1)
        await asyncio.sleep(0.2)
        assert (await rig.node(name)).registration == before
    assert await world.store.get(INBOX.key(name)) is None


async def test_a_provider_that_cannot_be_listed_proves_nothing(world: World) -> None:
    async with Rig(world).running() as rig:
        [name] = await rig.grow(1)
        rig.cloud.list_error = Upstream("half a page came")
        rig.cloud.machines.clear()
        await rig.pass_time(60, name)
        record = await rig.node(name)
        assert record.instance is not None
        assert record.instance.state.value == "running"
    assert [event.KIND for event in await world.events("provider.degraded")] == ["provider.degraded"]
