"""The provisioner over store, bus and cloud in memory: whole stories, as its neighbours tell them."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec

from fixtures.world import World
from navarch_common.copies import CopyReport
from navarch_common.model.cluster import COMMAND
from navarch_common.model.health import HealthStatus
from navarch_common.model.node import NODE, Phase, ProviderState
from navarch_common.model.pool import GUARD, SUPPLY, Guard
from navarch_provisioner.cloud.base import NoCapacity, Upstream
from support.deps import without_bus
from support.provisioner_world import CONFIG, POOL_NAME, QUICK, Rig, changed


async def test_a_pool_grows_to_its_desired_count_and_each_node_is_launched_once(world: World) -> None:
    async with Rig(world).running() as rig:
        names = await rig.grow(3)
    assert len(names) == 3
    assert len(rig.cloud.made) == 3
    assert [event.KIND for event in await world.events("node.active")] == ["node.active"] * 3


async def test_a_registered_agent_is_told_how_often_to_beat(world: World) -> None:
    async with Rig(world).running() as rig:
        [name] = await rig.grow(1)
        await asyncio.sleep(0.1)
    [command] = [stored.record for stored in await world.store.records(COMMAND)]
    assert (command.node, command.kind, command.args["heartbeat_interval_s"]) == (name, "configure", "5")


async def test_a_failed_node_is_replaced_before_it_goes(world: World) -> None:
    async with Rig(world).running() as rig:
        names = await rig.grow(3)
        broken = names[0]
        await rig.fail(broken)
        await rig.phase(broken, Phase.DRAINING)
        await rig.reach(lambda rs: any(r.replaces == broken and r.phase is Phase.BOOTING for r in rs), "a replacement")
        await rig.pass_time(5, broken)
        record = await rig.node(broken)
        assert record.phase is Phase.DRAINING, "it stays until its replacement is active"
        assert record.replaced_by is not None
        assert "health" in record.cordons
        await rig.bring_up(record.replaced_by)
        await rig.phase(broken, Phase.TERMINATED)
    assert rig.cloud.terminated == [broken]
    assert await world.store.holders(f"replace/{POOL_NAME}") == []
    assert (await rig.node(record.replaced_by)).trace.startswith(f"00-{'a' * 32}-")


async def test_one_failure_after_the_other_is_replaced_within_the_budget(world: World) -> None:
    async with Rig(world).running() as rig:
        first, second, _ = await rig.grow(3)
        await rig.fail(first)
        await rig.phase(first, Phase.DRAINING)
        await rig.fail(second)
        await rig.reach(
            lambda rs: any(r.node == second and r.blocked and r.blocked.code == "budget-exhausted" for r in rs),
            "the second waits for the budget",
        )
        assert "health" in (await rig.node(second)).cordons
        await rig.pass_time(5, first)
        replacement = (await rig.node(first)).replaced_by
        assert replacement is not None
        await rig.phase(replacement, Phase.BOOTING)
        await rig.bring_up(replacement)
        await rig.phase(second, Phase.DRAINING)


async def test_a_launch_whose_reply_was_lost_is_looked_up_and_not_repeated(world: World) -> None:
    rig = Rig(world)
    rig.cloud.lose = 1
    async with rig.running():
        await rig.grow(1)
    assert len(rig.cloud.made) == 1


async def test_a_launch_that_never_arrived_is_repeated_with_the_same_token_after_proof(world: World) -> None:
    rig = Rig(world)
    rig.cloud.drop = 1
    async with rig.running():
        await rig.desire(1)
        await rig.reach(lambda rs: rs and rs[0].phase is Phase.LAUNCH_UNKNOWN, "unknown")
        await rig.pass_time(20)
        assert rig.cloud.made == []
        await rig.pass_time(60)
        [record] = await rig.nodes(Phase.BOOTING)
    [request] = rig.cloud.made
    assert record.launch is not None
    assert record.launch.request == request
    assert record.launch.attempt == 1


async def test_a_refusal_is_no_end_and_is_tried_again_after_a_pause(world: World) -> None:
    rig = Rig(world)
    rig.cloud.refuse = [NoCapacity("none left")]
    async with rig.running():
        await rig.desire(1)
        await rig.reach(lambda rs: any(r.phase is Phase.LAUNCH_FAILED for r in rs), "a failed launch")
        [event] = await world.told("pool.exhausted")
        assert event.code == "no-capacity"
        await rig.pass_time(40)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "another try")
        [booting] = await rig.nodes(Phase.BOOTING)
        await rig.bring_up(booting.node)
        await asyncio.sleep(0.1)
    supply = await world.found(SUPPLY.key(POOL_NAME))
    assert supply.record.launch_failures == 0


async def test_a_machine_that_never_registers_is_given_up_and_replaced(world: World) -> None:
    async with Rig(world).running() as rig:
        await rig.desire(1)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "booting")
        [late] = await rig.nodes()
        await rig.pass_time(650)
        await rig.phase(late.node, Phase.TERMINATED)
        await rig.pass_time(10)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "its successor")
    assert len(await world.events("node.registration-timeout")) == 1
    assert rig.cloud.terminated == [late.node]


async def test_a_machine_that_cannot_register_while_the_bus_is_away_from_us_is_not_given_up_for_that(
    world: World,
) -> None:
    rig = Rig(world, own=True)
    async with rig.running():
        await rig.desire(1)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "booting")
        [new] = await rig.nodes()
        with without_bus(rig.deps):
            await rig.register(new.node)
            await rig.pass_time(650)
            await asyncio.sleep(0.2)
            assert (await rig.node(new.node)).phase is Phase.BOOTING
        await rig.phase(new.node, Phase.VALIDATING)
    assert await world.events("node.registration-timeout") == []


async def test_a_node_is_not_given_up_while_a_report_of_it_waits_with_somebody(world: World) -> None:
    """A copy that stands still may hold its registration. Found by the simulator (seed 13598)."""
    reports = world.buses.streams["NAVARCH_REPORTS"]
    rig = Rig(world)
    async with rig.running():
        await rig.desire(1)
        await rig.reach(lambda rs: [r for r in rs if r.phase is Phase.BOOTING], "a machine that boots")
        (record,) = await rig.nodes()
        # Nobody here takes what is for health: it is as a report that somebody took and does not acknowledge.
        await world.bus.publish_durable(world.subjects.report(record.node, "health"), b"{}", msg_id="waits")
        await rig.pass_time(700)
        await rig.reach(lambda rs: rs[0].blocked is not None and rs[0].blocked.code == "report-waits", "the wait")
        assert (await rig.nodes())[0].phase is Phase.BOOTING
        for message in list(reports.select((), 0)):
            reports.remove(message.sequence)
        await rig.pass_time(5)
        await rig.phase(record.node, Phase.TERMINATED)
    assert len(await world.events("node.registration-timeout")) == 1


async def test_a_machine_is_given_up_as_unhealthy_only_while_health_is_there_and_hears(world: World) -> None:
    def health(**said: Any) -> bytes:
        now = world.clock.now()
        return msgspec.json.encode(CopyReport(service="health", instance="h1", since=now, at=now, **said))

    async with Rig(world).running() as rig:
        await rig.desire(1)
        await rig.reach(lambda rs: any(r.phase is Phase.BOOTING for r in rs), "booting")
        [new] = await rig.nodes()
        await rig.register(new.node)
        await rig.phase(new.node, Phase.VALIDATING)
        for said in (None, health(), health(ready=True, deaf="it has just started")):
            if said is not None:
                await world.store.announce("health/h1", said, timedelta(hours=1))
            await rig.pass_time(700, new.node)
            await rig.reach(lambda rs: rs[0].blocked is not None and rs[0].blocked.code == "health-away", "the wait")
            assert (await rig.node(new.node)).phase is Phase.VALIDATING
        await world.store.announce("health/h1", health(ready=True), timedelta(hours=1))
        await rig.pass_time(5, new.node)
        await rig.phase(new.node, Phase.TERMINATED)
    [event] = await world.events("node.registration-timeout")
    assert event.code == "validation-timeout"


async def test_a_machine_that_vanished_is_refilled_once_health_says_that_it_failed(world: World) -> None:
    async with Rig(world).running() as rig:
        names = await rig.grow(2)
        await rig.pass_time(65, *names)
        rig.cloud.vanish(names[0])
        await rig.reach(
            lambda rs: any(r.instance and r.instance.state is ProviderState.GONE for r in rs), "the sweep sees it"
        )
        assert (await rig.node(names[0])).phase is Phase.ACTIVE, "health alone says that a node failed"
        await rig.fail(names[0], "provider-gone")
        await rig.phase(names[0], Phase.TERMINATED)
        await rig.reach(lambda rs: any(r.replaces == names[0] and r.phase is Phase.BOOTING for r in rs), "a refill")
    assert ("terminate", "i-0000") not in rig.cloud.calls


async def test_a_list_that_failed_is_asked_for_again_long_before_the_next_sweep(world: World) -> None:
    timings = replace(QUICK, sweep_period=timedelta(hours=1), look_again=timedelta(seconds=0.05))
    rig = Rig(world, timings=timings)
    rig.cloud.list_error = Upstream("unwell")
    async with rig.running():
        [name] = await rig.grow(1)
        await rig.pass_time(65, name)
        rig.cloud.vanish(name)
        rig.cloud.list_error = None
        await rig.reach(lambda rs: rs[0].instance.state is ProviderState.GONE, "the sweep sees it")


async def test_a_silent_node_is_cordoned_and_asked_for_and_uncordoned_when_it_speaks_again(world: World) -> None:
    async with Rig(world).running() as rig:
        [name] = await rig.grow(1)
        world.advance(20)
        await rig.judge(name, HealthStatus.SUSPECT, code="silence", silent_since=world.clock.now())
        await rig.reach(lambda rs: "health" in rs[0].cordons, "a cordon")
        await rig.reach(lambda rs: rs[0].instance.state_at == world.clock.now(), "the provider's word")
        await rig.judge(name, HealthStatus.HEALTHY)
        await rig.reach(lambda rs: "health" not in rs[0].cordons, "no cordon")
    assert rig.cloud.terminated == []


async def test_scale_down_takes_only_what_is_idle_long_enough(world: World) -> None:
    async with Rig(world).running() as rig:
        idle, busy, other = await rig.grow(3)
        await rig.beat(busy, processes=2)
        await rig.beat(other, processes=1)
        await rig.desire(1)
        for _ in range(20):
            world.advance(5)
            await rig.beat(idle)
            await rig.beat(busy, processes=2)
            await rig.beat(other, processes=1)
            await asyncio.sleep(0.06)
        await rig.beat(idle)
        await rig.phase(idle, Phase.TERMINATED)
        assert (await rig.node(busy)).phase is Phase.ACTIVE
        assert (await rig.node(other)).phase is Phase.ACTIVE
    assert rig.cloud.terminated == [idle]


async def test_a_freeze_stops_launches_at_once_and_its_end_lets_them_go_on(world: World) -> None:
    async with Rig(world).running() as rig:
        freeze = Guard(name="freeze", active=True, actor="operator:ann", reason="stop", at=world.clock.now())
        await world.plant((GUARD.key("freeze"), freeze))
        await rig.desire(2)
        await asyncio.sleep(0.2)
        assert rig.cloud.made == []
        await world.plant((GUARD.key("freeze"), msgspec.structs.replace(freeze, active=False)))
        await rig.wake()
        await rig.reach(lambda rs: sum(r.phase is Phase.BOOTING for r in rs) == 2, "two machines")


async def test_operators_wishes_are_done_and_answered(world: World) -> None:
    async with Rig(world).running() as rig:
        first, second = await rig.grow(2)

        async def answered(node: str, wish: str) -> tuple[str, str]:
            await rig.reach(lambda rs: any(r.node == node and wish in r.answers for r in rs), f"{wish} is answered")
            answer = (await rig.node(node)).answers[wish]
            return answer.outcome, answer.code

        await rig.wish(first, "cordon", id_="w1")
        assert await answered(first, "w1") == ("done", "cordoned")
        assert "operator:ann" in (await rig.node(first)).cordons
        await rig.wish(first, "uncordon", id_="w2", actor="operator:bob")
        assert await answered(first, "w2") == ("done", "uncordoned")
        assert not (await rig.node(first)).cordons
        world.advance(1)
        await rig.beat(second, processes=3)
        await rig.wish(second, "terminate", id_="w3")
        assert await answered(second, "w3") == ("refused", "busy")
        await rig.wish(second, "terminate", id_="w4", force=True)
        record = await rig.phase(second, Phase.TERMINATED)
        assert record.answers["w4"].outcome == "done"


async def test_a_wished_replacement_comes_first_and_the_old_node_goes_when_it_is_idle(world: World) -> None:
    async with Rig(world).running() as rig:
        [old] = await rig.grow(1)
        await rig.wish(old, "replace")
        await rig.reach(lambda rs: any(r.replaces == old and r.phase is Phase.BOOTING for r in rs), "a replacement")
        new = (await rig.node(old)).replaced_by
        assert new is not None
        assert (await rig.node(old)).phase is Phase.ACTIVE
        await rig.bring_up(new)
        await rig.phase(old, Phase.DRAINING)
        world.advance(5)
        await rig.beat(old, processes=1)
        await asyncio.sleep(0.1)
        assert (await rig.node(old)).phase is Phase.DRAINING
        world.advance(5)
        await rig.beat(old, processes=0)
        record = await rig.phase(old, Phase.TERMINATED)
    assert record.answers["w1"].outcome == "done"


async def test_a_pool_that_left_the_configuration_is_left_alone(world: World) -> None:
    async with Rig(world).running() as rig:
        names = await rig.grow(2)
    gone = CONFIG.replace("training:", "another:")
    async with Rig(world, text=gone, cloud=rig.cloud, instance="copy-2").running() as second:
        await second.fail(names[0])
        await second.pass_time(700, *names)
        assert [record.phase for record in await second.nodes()] == [Phase.ACTIVE] * 2
    assert rig.cloud.terminated == []


async def test_a_stranger_with_our_tags_is_reported_once_and_never_touched(world: World) -> None:
    rig = Rig(world)
    async with rig.running():
        await rig.grow(1)
        [request] = rig.cloud.made
        rig.cloud._make(msgspec.structs.replace(request, node="training-nobody1", token="0" * 32))
        rig.cloud._make(msgspec.structs.replace(request, node="other-1", token="1" * 32, installation="theirs"))
        await asyncio.sleep(0.1)
        await rig.pass_time(320)
        await asyncio.sleep(0.15)
    leaked = await world.events("instance.leaked")
    assert [event.instance_id for event in leaked] == ["i-0001"]
    assert rig.cloud.terminated == []


async def test_what_the_next_pass_would_do_can_be_asked(world: World) -> None:
    async with Rig(world).running() as rig:
        await rig.grow(1)
        freeze = Guard(
            name="freeze", active=True, level="launch", actor="operator:ann", reason="x", at=world.clock.now()
        )
        await world.plant((GUARD.key("freeze"), freeze))
        await rig.desire(2)
        answer = await world.bus.request(world.subjects.plan(POOL_NAME), b"", timeout_s=2.0)
        said = msgspec.json.decode(answer.data)
        assert said["changes"] is False
        assert said["blocked"][0]["code"] == "frozen"


async def test_a_powered_off_machine_boots_again_and_is_the_same_node(world: World) -> None:
    async with Rig(world).running() as rig:
        [name] = await rig.grow(1)
    stored = await world.found(NODE.key(name))
    await world.plant((stored.key, changed(await rig.node(name), powered_off=True)))
    async with Rig(world, cloud=rig.cloud, instance="copy-2").running() as second:
        await second.reach(lambda rs: not rs[0].powered_off, "powered on")
        assert (await second.node(name)).phase is Phase.ACTIVE
    assert [call for call in rig.cloud.calls if call[0] == "power_on"] == [("power_on", "i-0000")]


async def test_two_copies_share_the_pools_and_launch_nothing_twice(world: World) -> None:
    first = Rig(world)
    second = Rig(world, own=True, cloud=first.cloud, instance="copy-2")
    async with first.running(), second.running():
        await first.grow(5)
    assert len(first.cloud.made) == 5


async def test_store_and_bus_may_fail_while_machines_are_launched(world: World) -> None:
    rig = Rig(world, own=True)
    async with rig.running():
        await rig.desire(3)
        for _ in range(10):
            world.stores.up = False
            await asyncio.sleep(0.01)
            world.stores.up = True
            await asyncio.sleep(0.05)
        await rig.pass_time(120)
        await rig.reach(lambda rs: sum(r.phase is Phase.BOOTING for r in rs) == 3, "three machines", 10.0)
    assert len(rig.cloud.made) == 3
