"""The real provisioner over a cloud that loses, lies and runs dry: one machine for each intent, none ended by mistake."""

import asyncio
from collections import Counter

import pytest

from fixtures.world import World
from navarch_common.model.node import Phase, ProviderState
from support.provisioner_world import CONFIG, Rig
from support.world_cloud import WorldCloud


@pytest.fixture
def cloud(world: World) -> WorldCloud:
    made = WorldCloud(world.clock)
    made.weather(boot_time_s=0.0)
    return made


def rig_over(world: World, cloud: WorldCloud, text: str = CONFIG) -> Rig:
    return Rig(world, text=text, cloud=cloud)  # type: ignore[arg-type]


def one_machine_for_each_node(cloud: WorldCloud) -> bool:
    return max(Counter(machine.request.node for machine in cloud.on()).values(), default=0) <= 1


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_lost_on_the_way_each_intent_is_one_machine(world: World, seed: int) -> None:
    cloud = WorldCloud(world.clock, seed)
    cloud.weather(boot_time_s=0.0, lost_request_rate=0.3, lost_reply_rate=0.3, failure_rate=0.2, stale_list_s=20.0)
    rig = rig_over(world, cloud)
    async with rig.running():
        await rig.desire(6)
        await rig.pass_time(300)
        cloud.weather(lost_request_rate=0.0, lost_reply_rate=0.0, failure_rate=0.0, stale_list_s=0.0)
        for _ in range(40):
            await rig.pass_time(30)
            if len(await rig.nodes(Phase.BOOTING)) == 6 and len(cloud.on()) == 6:
                break
        booting = {record.node for record in await rig.nodes(Phase.BOOTING)}
    assert {machine.request.node for machine in cloud.on()} == booting
    assert len(cloud.on()) == len(booting) == 6
    assert one_machine_for_each_node(cloud)
    assert {machine.copy for machine in cloud.kept.values()} == {1}
    assert not await world.events("instance.leaked")


async def test_without_tokens_a_lost_reply_is_looked_up_before_anything_is_made_again(
    world: World, cloud: WorldCloud
) -> None:
    cloud.weather(tokens=False, lost_reply_rate=1.0)
    rig = rig_over(world, cloud)
    async with rig.running():
        await rig.desire(3)
        await rig.pass_time(20)
        cloud.weather(lost_reply_rate=0.0)
        await rig.pass_time(120)
        await rig.reach(lambda rs: sum(r.phase is Phase.BOOTING for r in rs) == 3, "three machines")
    assert len(cloud.kept) == 3
    assert one_machine_for_each_node(cloud)


async def test_a_storm_of_refusals_is_met_with_ever_fewer_calls_and_outlived(world: World, cloud: WorldCloud) -> None:
    rig = rig_over(world, cloud)
    async with rig.running():
        [name] = await rig.grow(1)
        cloud.weather(failure_rate=1.0)
        await rig.desire(4)
        calls = []
        for _ in range(4):
            before = cloud.calls["launch"]
            await rig.pass_time(300, name)
            calls.append(cloud.calls["launch"] - before)
        assert calls[-1] < calls[0], calls
        assert calls[-1] <= 10, calls
        assert (await rig.node(name)).phase is Phase.ACTIVE
        cloud.weather(failure_rate=0.0)
        await rig.pass_time(600, name)
        await rig.reach(lambda rs: sum(r.phase is Phase.BOOTING for r in rs) == 3, "three more machines")
    assert len(cloud.on()) == 4
    assert len(await world.events("provider.degraded")) == 1, "one alarm"
    assert len(await world.events("provider.recovered")) == 1


async def test_a_list_that_breaks_off_takes_no_machine_for_gone(world: World, cloud: WorldCloud) -> None:
    rig = rig_over(world, cloud)
    async with rig.running():
        names = await rig.grow(5)
        cloud.weather(short_list_rate=1.0)
        await rig.pass_time(300, *names)
        for record in await rig.nodes():
            assert record.phase is Phase.ACTIVE
            assert record.instance is not None
            assert record.instance.state is not ProviderState.GONE
    assert len(cloud.on()) == 5
    assert cloud.calls["terminate"] == 0


async def test_a_list_that_is_five_minutes_old_makes_nothing_twice_and_reaps_nothing(
    world: World, cloud: WorldCloud
) -> None:
    rig = rig_over(world, cloud)
    async with rig.running():
        [old, *_] = await rig.grow(2)
        await rig.pass_time(400, *[record.node for record in await rig.nodes(Phase.ACTIVE)])
        cloud.weather(stale_list_s=300.0)
        names = await rig.grow(5)
        await rig.pass_time(250, *names)
        assert len(cloud.kept) == 5
        assert all(record.phase is Phase.ACTIVE for record in await rig.nodes())
        await rig.wish(old, "terminate", force=True)
        await rig.phase(old, Phase.TERMINATED)
        await rig.pass_time(200, *names)
    assert not await world.events("instance.leaked"), "what has just ended is still listed, and is no leak"
    assert cloud.calls["terminate"] == 1


async def test_a_termination_whose_reply_was_lost_is_made_again_and_told_once(world: World, cloud: WorldCloud) -> None:
    rig = rig_over(world, cloud)
    async with rig.running():
        [old, _] = await rig.grow(2)
        cloud.weather(lost_reply_rate=1.0)
        await rig.wish(old, "terminate", force=True)
        await rig.phase(old, Phase.TERMINATING)
        await rig.pass_time(60)
        assert (await rig.node(old)).phase is Phase.TERMINATING, "nobody has said that it is gone"
        cloud.weather(lost_reply_rate=0.0)
        await rig.pass_time(60)
        await rig.phase(old, Phase.TERMINATED)
    assert cloud.calls["terminate"] > 1
    for kind in ("node.terminating", "node.terminated"):
        assert [event.node for event in await world.events(kind)] == [old], kind
    assert len(cloud.on()) >= 1


async def test_a_machine_that_returns_after_its_end_is_told_of_and_never_becomes_the_node_again(
    world: World, cloud: WorldCloud
) -> None:
    rig = rig_over(world, cloud)
    async with rig.running():
        [old, _] = await rig.grow(2)
        await rig.wish(old, "terminate", force=True)
        ended = await rig.phase(old, Phase.TERMINATED)
        assert ended.instance is not None
        cloud.world.return_(ended.instance.instance_id)
        await rig.register(old, boot="boot-2")
        living = [record.node for record in await rig.nodes(Phase.ACTIVE)]
        await rig.pass_time(400, *living)
        await asyncio.sleep(0.1)
        after = await rig.node(old)
        assert (after.phase, after.registration) == (Phase.TERMINATED, ended.registration)
    leaked = await world.events("instance.leaked")
    assert [event.instance_id for event in leaked] == [ended.instance.instance_id]  # type: ignore[attr-defined]
    assert cloud.calls["terminate"] == 1, "reported: nobody said that leaks may be ended"


async def test_a_zone_that_is_sold_out_is_passed_over_with_another_token_and_proof(
    world: World, cloud: WorldCloud
) -> None:
    cloud.weather(sold_out=("us-a",))
    text = CONFIG.replace("min_nodes: 1", "zones: [us-a, us-b], min_nodes: 1")
    rig = rig_over(world, cloud, text)
    async with rig.running():
        await rig.desire(3)
        await rig.reach(lambda rs: sum(r.phase is Phase.BOOTING for r in rs) == 3, "three machines in the other zone")
    assert {machine.where for machine in cloud.on()} == {"us-b"}
    assert len(cloud.kept) == 3
