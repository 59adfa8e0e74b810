"""The provisioner when records are missing, and when what it hears is of no use."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import structs

from fixtures.world import World
from navarch_common.events.kinds import NodePlanned, NodeTerminated
from navarch_common.model.cluster import INBOX, META, MetaRecord, SafeMode
from navarch_common.model.health import HealthStatus
from navarch_common.model.node import NODE, LaunchRequest, Phase
from navarch_common.store.base import Commit
from navarch_common.store.meta import taken_over
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
        await rig.reach(
            lambda rs: sum(r.phase is Phase.ACTIVE for r in rs if r.node.startswith("training-old")) == 2, "both active"
        )
        await rig.reach(lambda rs: len(rs) == 5, "safe mode ends, and the pool grows")
    assert not await in_safe_mode(world)
    assert rig.cloud.terminated == []
    assert len(await world.events("cluster.safe-mode-left")) == 1


async def test_safe_mode_ends_where_no_machine_is_left_once_a_list_would_show_it(world: World) -> None:
    await enter_safe_mode(world)
    async with Rig(world).running() as rig:
        await rig.desire(1)
        await rig.pass_time(30)
        await asyncio.sleep(0.2)
        assert await rig.nodes() == []
        await rig.pass_time(35)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "a machine")


async def test_an_intent_whose_launch_the_store_has_forgotten_gets_its_machine_and_no_second_one(world: World) -> None:
    rig = Rig(world)
    async with rig.running():
        await rig.desire(1)
        await rig.reach(lambda rs: [r.phase for r in rs] == [Phase.BOOTING], "a machine")
    [made] = await rig.nodes()
    assert made.launch is not None
    intent = structs.replace(
        made, phase=Phase.PLANNED, instance=None, launch=structs.replace(made.launch, called_at=None)
    )
    await world.plant((NODE.key(made.node), intent))
    await enter_safe_mode(world)
    async with Rig(world, cloud=rig.cloud).running() as again:
        await again.reach(lambda rs: [r.phase for r in rs] == [Phase.BOOTING], "its machine is found")
        await again.register(made.node)
        await until_async(lambda: not_in_safe_mode(world), "safe mode left")
        await again.phase(made.node, Phase.VALIDATING)
    assert len(rig.cloud.made) == 1


async def test_safe_mode_waits_for_a_machine_that_was_planned_just_before_and_is_not_listed_yet(world: World) -> None:
    rig = Rig(world)
    old_machine(rig, "training-old0001", world.meta.installation)
    told = {"at": world.clock.now(), "cluster": "test", "pool": POOL_NAME, "reason": "why", "code": "x", "actor": "p"}
    planned = [NodePlanned(node=f"training-{name}0001", **told) for name in ("old", "new", "gone")]
    ended = NodeTerminated(node="training-gone0001", **told)
    await world.committer("provisioner").commit(Commit(emit=(*planned, ended)))
    await enter_safe_mode(world)
    await rig.desire(2)
    async with rig.running():
        await rig.reach(lambda rs: len(rs) == 1, "the old one is adopted")
        await rig.register("training-old0001")
        await rig.phase("training-old0001", Phase.VALIDATING)
        await rig.pass_time(10)
        await asyncio.sleep(0.2)
        assert await in_safe_mode(world)
        old_machine(rig, "training-new0001", world.meta.installation)
        await rig.reach(lambda rs: len(rs) == 2, "the new one is adopted, and none is launched in its place")
        await rig.register("training-new0001")
        await until_async(lambda: not_in_safe_mode(world), "safe mode left")
    assert {record.node for record in await rig.nodes()} == {"training-old0001", "training-new0001"}


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


async def first_start(world: World) -> None:
    stored = await world.store.get(META.key())
    assert stored is not None
    await world.plant((META.key(), structs.replace(stored.record, first_look=True)))


async def test_a_first_start_launches_nothing_before_every_provider_has_told_what_it_has(world: World) -> None:
    await first_start(world)
    rig = Rig(world)
    rig.cloud.list_error = Upstream("unwell")
    async with rig.running():
        await rig.desire(1)
        await asyncio.sleep(0.3)
        assert rig.cloud.made == []
        rig.cloud.list_error = None
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "a machine")
    assert await world.events("cluster.safe-mode-entered") == []


async def test_a_first_start_that_finds_another_installation_waits_for_an_operator_and_may_take_it_over(
    world: World,
) -> None:
    await first_start(world)
    rig = Rig(world)
    old_machine(rig, "training-theirs1", "someone-else")
    async with rig.running():
        await rig.desire(1)
        await until_async(lambda: in_safe_mode(world), "safe mode")
        await asyncio.sleep(0.2)
        assert (len(rig.cloud.made), await rig.nodes()) == (1, [])
        stored = await world.store.get(META.key())
        assert stored is not None
        assert stored.record.safe_mode is not None
        assert stored.record.safe_mode.code == "unknown-installation"
        await world.plant((META.key(), taken_over(stored.record, "someone-else")))
        await world.life.step()
        await rig.reach(lambda rs: [r.node for r in rs] == ["training-theirs1"], "it is adopted")
        await rig.register("training-theirs1")
        await until_async(lambda: not_in_safe_mode(world), "safe mode left")
    assert rig.cloud.terminated == []
    assert world.life.installation == "someone-else"
    assert (await world.bus.kv_get("NAVARCH_STATE", "meta.test")).value.count(b"someone-else") == 1  # type: ignore[union-attr]


async def not_in_safe_mode(world: World) -> bool:
    return not await in_safe_mode(world)


async def until_async(ask: Callable[[], Awaitable[bool]], what: str) -> None:
    for _ in range(500):
        if await ask():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited in vain: {what}")


async def test_two_machines_of_one_node_make_one_node_the_older_one(world: World) -> None:
    await enter_safe_mode(world)
    rig = Rig(world)
    old_machine(rig, "training-twin001", world.meta.installation)
    world.advance(60)
    first = rig.cloud.made[0]
    rig.cloud._make(structs.replace(first, token="f" * 32))
    async with rig.running():
        await rig.reach(lambda rs: len(rs) == 1, "one is adopted")
        await asyncio.sleep(0.2)
        [record] = await rig.nodes()
    assert record.instance is not None
    assert record.instance.instance_id == "i-0000"


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
            await world.bus.publish_durable(
                subject, b'{"type": "report.registered.v1", "node"', msg_id=f"garbage-{index}"
            )
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
