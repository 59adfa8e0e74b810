"""Health as a whole, over a store and a bus in memory: what it commits, tells, holds back, and survives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from fixtures.world import World
from navarch_common import copies
from navarch_common.events import encode
from navarch_common.events.kinds import MessageRejected, NodeFailed, NodeSuspect
from navarch_common.events.messages import Probe, ProbeReply
from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import META, SafeMode
from navarch_common.model.health import HEALTH
from navarch_common.model.node import NODE, Phase, ProviderState
from navarch_common.model.pool import VERDICTS
from navarch_common.store.base import Commit, Conflict, Stored
from navarch_health import reports
from support.deps import until, without_bus
from support.health_rig import CONFIG, REPORTS, Rig
from support.health_world import BOOT, STATUS, T0, node, registration, report, seconds, xid

NAMES = tuple(f"training-node{n}" for n in range(5))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put off comes again at once: redelivery runs on the loop's clock, not on the test's."""
    monkeypatch.setattr(reports, "LATER_S", 0.01)
    monkeypatch.setattr(reports, "ADOPTION_S", 0.01)


async def plant(world: World, *names: str, **fields: object) -> None:
    await world.plant(*((NODE.key(name), node(name, **fields)) for name in names))


async def fleet_of(world: World, *names: str) -> Rig:
    """A rig whose nodes are healthy, once it runs and `settle` was called."""
    await plant(world, *names)
    return Rig(world)


async def settle(rig: Rig, *names: str) -> None:
    await rig.step()
    for name in names:
        await rig.beat(name)
    await rig.step()
    for name in names:
        assert (await rig.health(name)).status == STATUS.HEALTHY


def said(name: str, code: int = 79, sequence: int = 1, **fields: object):  # type: ignore[no-untyped-def]
    return report(xid(code), sequence=sequence, node=name, **fields)


# The main line


async def test_a_node_becomes_unknown_then_healthy_and_the_provisioner_is_woken(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with world.bus.subscribe("navarch.wake.provisioner.training") as wakes, rig.running():
        await rig.step()
        assert (await rig.health(NAMES[0])).status == STATUS.UNKNOWN
        await rig.beat(NAMES[0])
        await rig.becomes(NAMES[0], "healthy")
        async with asyncio.timeout(2):
            assert (await anext(wakes)).subject.endswith("training")
    assert await world.events("node.recovered") == []


async def test_a_kernel_line_fails_the_node_with_its_event_in_one_commit(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await settle(rig, NAMES[0])
        marker = (await world.found(VERDICTS.key("training"))).revision
        await rig.report(said(NAMES[0], trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01"))
        record = await rig.becomes(NAMES[0], "unhealthy")
        await rig.settled()
    (event,) = await world.events("node.failed")
    assert isinstance(event, NodeFailed)
    assert event.failure_id == record.failure_id
    assert event.trace_id == "a" * 32
    assert record.trace.startswith("00-" + "a" * 32)
    stored = await world.found(HEALTH.key(NAMES[0]))
    assert event.rev == stored.revision == (await world.found(VERDICTS.key("training"))).revision > marker
    text, _ = rig.deps.metrics.render()
    assert b'navarch_xid_errors_total{code="79"} 1.0' in text
    assert b'navarch_reports_total{kind="health"} 1.0' in text
    assert b"navarch_detection_seconds_count 1.0" in text
    assert b"navarch_heartbeats_total 1.0" in text


async def test_a_report_comes_before_any_heartbeat_or_record_of_health(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await rig.report(said(NAMES[0]))
        await rig.becomes(NAMES[0], "unhealthy")


async def test_a_report_delivered_twice_is_told_once(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await rig.report(said(NAMES[0]), msg_id="one")
        await rig.report(said(NAMES[0]), msg_id="two")
        await rig.settled()
    assert len(await world.events("node.failed")) == 1


async def test_a_report_whose_commits_reply_was_lost_comes_again_and_is_told_once(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await settle(rig, NAMES[0])
        world.store.lose_replies(1)
        await rig.report(said(NAMES[0]))
        await rig.becomes(NAMES[0], "unhealthy")
        assert await world.bus.pending(REPORTS, "health") == 1, "not acknowledged: the outcome was unknown"
        for _ in range(20):
            world.advance(1)
            await asyncio.sleep(0.01)
        await rig.settled()
    events = [e.id for e in await world.events("node.failed")]
    waiting = [entry.id for entry in await world.store.outbox()]
    assert len({*events, *waiting}) == 1


async def test_a_verdict_that_may_yet_be_forgotten_is_no_reason_to_acknowledge_the_report_that_led_to_it(
    world: World,
) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await settle(rig, NAMES[0])
        # Behind Sentinels a commit that no replica had is in the store for everyone to read, until a failover.
        world.store.lose_replies(100)
        await rig.report(said(NAMES[0]))
        await rig.becomes(NAMES[0], "unhealthy")
        for _ in range(20):
            world.advance(1)
            await asyncio.sleep(0.01)
        assert await world.bus.pending(REPORTS, "health") == 1, "acknowledged for what only an unknown commit says"
        world.store.lose_replies(0)
        for _ in range(20):
            world.advance(1)
            await asyncio.sleep(0.01)
        await rig.settled()


async def test_nothing_is_acknowledged_while_the_store_is_away(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await settle(rig, NAMES[0])
        world.store.unavailable = True
        await rig.report(said(NAMES[0]))
        await asyncio.sleep(0.1)
        assert await world.bus.pending(REPORTS, "health") == 1
        world.store.unavailable = False
        for _ in range(20):
            world.advance(1)
            await asyncio.sleep(0.01)
        await rig.becomes(NAMES[0], "unhealthy")
        await rig.settled()


async def test_a_storm_of_conflicts_loses_no_verdict(world: World) -> None:
    rig, other = await fleet_of(world, *NAMES), Rig(world, instance="copy-2", own=True)
    async with rig.running(), other.running():
        await settle(rig, *NAMES)
        storm = asyncio.create_task(rewrite(world, NAMES[0]))
        for sequence in range(1, 41):
            await rig.report(said(NAMES[0], code=(63, 119, 48, 95)[sequence % 4], sequence=sequence))
        for _ in range(60):
            world.advance(1)
            await asyncio.sleep(0.01)
        storm.cancel()
        await asyncio.wait([storm])
        for _ in range(20):
            world.advance(1)
            await asyncio.sleep(0.01)
        await rig.settled()
        record = await rig.health(NAMES[0])
    assert record.status == STATUS.UNHEALTHY
    assert {e.code for e in record.episodes} == {"xid-63", "xid-119", "xid-48", "xid-95"}
    assert record.sequences[BOOT] == 40
    assert len(await world.events("node.failed")) == 1


async def test_no_verdict_outlives_the_node_that_it_was_read_with(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await settle(rig, NAMES[0])
        read, raced = world.store.get_many, False

        async def read_then_lose_the_race(keys):  # type: ignore[no-untyped-def]
            nonlocal raced
            found = await read(keys)
            if not raced:
                raced = True
                await rig.edit(NAMES[0], phase=Phase.TERMINATED)
            return found

        monkeypatch.setattr(world.store, "get_many", read_then_lose_the_race)
        await rig.report(said(NAMES[0]))
        await rig.settled()
        assert raced
        assert (await rig.health(NAMES[0])).status == STATUS.HEALTHY
    assert await world.events("node.failed") == []


async def test_a_copy_that_sees_a_node_for_the_first_time_wipes_no_verdict_of_another(world: World) -> None:
    rig, other = await fleet_of(world, NAMES[0]), Rig(world, instance="copy-2", own=True)
    await other.service._fleet.refresh(world.clock.now())
    async with rig.running():
        await settle(rig, NAMES[0])
        await rig.report(said(NAMES[0]))
        await rig.becomes(NAMES[0], "unhealthy")
        # The other copy looked before there was a record, and only now comes to act on what it saw.
        await other.service._watch._settle_all([NAMES[0]], world.clock.now())
        assert (await rig.health(NAMES[0])).status == STATUS.UNHEALTHY
    assert len(await world.events("node.failed")) == 1


async def rewrite(world: World, name: str) -> None:
    """Somebody else writes the node's record all the time, as a busy provisioner does."""
    store, _ = world.another_process()
    while True:
        stored = await store.get(NODE.key(name))
        assert stored is not None
        try:
            await store.commit(Commit(expect={stored.key: stored.revision}, put={stored.key: stored.record}))
        except Conflict:
            continue
        await asyncio.sleep(0.003)


async def test_what_a_driver_takes_back_recovers_the_node(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    reset = "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
    none = "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    async with rig.running():
        await settle(rig, NAMES[0])
        await rig.report(report(xid(154, 0, message=reset), sequence=1, node=NAMES[0]))
        await rig.becomes(NAMES[0], "unhealthy")
        await rig.report(report(xid(154, 9, message=none), sequence=2, node=NAMES[0]))
        await rig.becomes(NAMES[0], "healthy")
    assert len(await world.events("node.recovered")) == 1


async def test_a_boot_that_registers_clears_what_it_repairs_before_its_first_report(world: World) -> None:
    rig = await fleet_of(world, *NAMES[:2])
    async with rig.running():
        await settle(rig, *NAMES[:2])
        await rig.report(said(NAMES[0], code=119))
        await rig.report(said(NAMES[1], code=79))
        await rig.becomes(NAMES[0], "unhealthy")
        await rig.becomes(NAMES[1], "unhealthy")
        for name in NAMES[:2]:
            await rig.edit(name, registration=registration("boot-two"))
        await rig.step()
        assert (await rig.health(NAMES[0])).status == STATUS.UNKNOWN
        assert (await rig.health(NAMES[1])).status == STATUS.UNHEALTHY
        for name in NAMES[:2]:
            await rig.beat(name, boot_id="boot-two")
        await rig.step()
        assert (await rig.health(NAMES[0])).status == STATUS.HEALTHY
        assert (await rig.health(NAMES[1])).status == STATUS.UNHEALTHY


async def test_another_generation_begins_anew(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await settle(rig, NAMES[0])
        await rig.report(said(NAMES[0]))
        await rig.becomes(NAMES[0], "unhealthy")
        await rig.edit(NAMES[0], generation=2, registration=registration("boot-two", generation=2))
        await rig.step()
        fresh = await rig.health(NAMES[0])
    assert (fresh.generation, fresh.status, fresh.failure_id, fresh.entities) == (2, STATUS.UNKNOWN, "", {})


# Bad input


@pytest.mark.parametrize(
    ("subject", "data"),
    [
        pytest.param(f"navarch.reports.{NAMES[0]}.health", b"\xff\xfe not json", id="garbage"),
        pytest.param(f"navarch.reports.{NAMES[0]}.health", b'{"type":"report.health.v1"}', id="fields missing"),
        pytest.param(f"navarch.reports.{NAMES[0]}.health", b"[" * 50_000, id="deep"),
        pytest.param(f"navarch.reports.{NAMES[1]}.health", encode(said(NAMES[0])), id="another's subject"),
        pytest.param("navarch.reports.Not-An-Id.health", b"{}", id="no id"),
    ],
)
async def test_a_report_that_cannot_be_used_is_dead_told_and_harms_nobody(
    world: World, subject: str, data: bytes
) -> None:
    rig = await fleet_of(world, *NAMES[:2])
    async with rig.running():
        await world.bus.publish_durable(subject, data, msg_id="bad")
        await rig.report(said(NAMES[1], code=63))
        await rig.becomes(NAMES[1], "degraded")
        await rig.settled()
    async with world.bus.read("NAVARCH_DEAD", ("navarch.dead.*",)) as messages:
        dead = [message async for message in messages]
    assert [message.data for message in dead] == [data]
    (event,) = await world.events("cluster.message-rejected")
    assert isinstance(event, MessageRejected)
    assert event.subject == subject


@pytest.mark.parametrize(
    "data",
    [b"\x00", b"{}", b"x" * 70_000, b'{"type":"heartbeat.v1","node":"Bad Id"}', b"[" * 60_000],
    ids=["garbage", "empty", "oversized", "bad id", "deep"],
)
async def test_a_heartbeat_that_cannot_be_used_is_counted_and_told_once_a_minute(world: World, data: bytes) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        for _ in range(20):
            await world.bus.publish(f"navarch.heartbeat.{NAMES[0]}", data)
        await settle(rig, NAMES[0])
        await until(lambda: b'rejected_total{service="health"} 20.0' in rig.deps.metrics.render()[0], "all are counted")
    assert len(await world.events("cluster.message-rejected")) == 1


async def test_a_heartbeat_on_another_nodes_subject_counts_for_neither(world: World) -> None:
    rig = await fleet_of(world, *NAMES[:2])
    async with rig.running():
        await rig.step()
        await world.bus.publish(f"navarch.heartbeat.{NAMES[1]}", encode_beat(NAMES[0]).encode())
        await rig.step()
        for name in NAMES[:2]:
            assert (await rig.health(name)).status == STATUS.UNKNOWN
    (event,) = await world.events("cluster.message-rejected")
    assert f"it is about node {NAMES[0]}" in event.reason


@pytest.mark.parametrize("wrong", ["NaN", "Infinity", "-1e400", "1e300", '"hot"', "-500"])
async def test_absurd_numbers_in_a_heartbeat_are_refused(world: World, wrong: str) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await rig.step()
        text = encode_beat(NAMES[0]).replace('"temperature_c":40.0', f'"temperature_c":{wrong}')
        await world.bus.publish(f"navarch.heartbeat.{NAMES[0]}", text.encode())
        await rig.step()
        assert (await rig.health(NAMES[0])).status == STATUS.UNKNOWN
        await world.bus.publish(f"navarch.heartbeat.{NAMES[0]}", encode_beat(NAMES[0]).encode())
        await rig.step()
        assert (await rig.health(NAMES[0])).status == STATUS.HEALTHY


async def test_a_node_whose_record_is_younger_than_our_last_look_is_nobodys_impostor(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await rig.step()
        await plant(world, NAMES[1])
        await rig.beat(NAMES[1])
        await rig.beat("nobody-knows")
        for _ in range(3):
            await rig.step()
            await rig.beat(NAMES[1])
            await rig.beat("nobody-knows")
        await until(lambda: b"rejected_total" in rig.deps.metrics.render()[0], "the unknown one is told of")
    told = [event.reason for event in await world.events("cluster.message-rejected")]
    assert len(told) == 1
    assert "no record of node nobody-knows" in told[0]


def encode_beat(name: str) -> str:
    return (
        f'{{"type":"heartbeat.v1","node":"{name}","pool":"training","generation":1,"boot_id":"{BOOT}","sequence":7,'
        '"at":"2026-01-01T00:00:00Z","interval_s":5.0,"driver_state":"ok","gpus":[{"index":0,"temperature_c":40.0}]}'
    )


async def test_reports_of_an_older_generation_and_of_unknown_nodes_are_dropped_and_told(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    await plant(world, NAMES[1], generation=3, registration=registration(generation=3))
    await plant(world, NAMES[2], phase=Phase.TERMINATED)
    async with rig.running():
        await rig.report(said(NAMES[1], generation=2))
        await rig.report(said("nobody-knows"))
        await rig.report(said(NAMES[2]))
        await rig.settled()
        await rig.step()
    assert (await rig.health(NAMES[1])).status == STATUS.UNKNOWN
    assert await world.store.get(HEALTH.key("nobody-knows")) is None
    assert await world.store.get(HEALTH.key(NAMES[2])) is None
    told = " ".join(event.reason for event in await world.events("cluster.message-rejected"))
    assert "generation 2 of node" in told
    assert "no record of node nobody-knows" in told
    assert "has ended (terminated)" in told


async def test_in_safe_mode_an_unknown_nodes_report_waits_until_it_is_adopted(world: World) -> None:
    stored = await world.found(META.key())
    safe = SafeMode(since=T0, code="lost", reason="the store was lost")
    await world.plant((META.key(), structs.replace(stored.record, safe_mode=safe)))  # type: ignore[type-var]
    rig = Rig(world)
    async with rig.running():
        await rig.report(said(NAMES[0]))
        await asyncio.sleep(0.05)
        assert await world.bus.pending(REPORTS, "health") == 1
        await plant(world, NAMES[0])
        for _ in range(15):
            world.advance(1)
            await asyncio.sleep(0.01)
        await rig.becomes(NAMES[0], "unhealthy")
        await rig.settled()


async def test_a_report_of_a_generation_that_is_not_recorded_yet_waits_for_it(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await rig.report(said(NAMES[0], generation=2))
        await asyncio.sleep(0.05)
        assert await world.bus.pending(REPORTS, "health") == 1
        await rig.edit(NAMES[0], generation=2, registration=registration(generation=2))
        for _ in range(5):
            world.advance(1)
            await asyncio.sleep(0.01)
        await rig.becomes(NAMES[0], "unhealthy")


async def test_heartbeats_that_come_late_or_twice_or_from_a_boot_that_is_over_count_for_nothing(world: World) -> None:
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await settle(rig, NAMES[0])
        heard = rig.service._hearing.heard
        beat = await rig.beat(NAMES[0])
        await world.bus.publish(f"navarch.heartbeat.{NAMES[0]}", encode(beat))
        await world.bus.publish(f"navarch.heartbeat.{NAMES[0]}", encode(structs.replace(beat, sequence=1)))
        await rig.step()
        assert rig.service._hearing.heard == heard + 1
        await rig.beat(NAMES[0], boot_id="boot-two")
        await world.bus.publish(f"navarch.heartbeat.{NAMES[0]}", encode(structs.replace(beat, sequence=99)))
        await rig.step()
        assert rig.service._hearing.heard == heard + 2


async def test_a_boot_that_was_thought_over_counts_again_where_the_one_after_it_was_a_twin_that_is_gone(
    world: World,
) -> None:
    """Two machines of one node, as a cloud without tokens may make them: the double is ended, the other must not die of its
    silence."""
    rig = await fleet_of(world, NAMES[0])
    async with rig.running():
        await settle(rig, NAMES[0])
        await rig.beat(NAMES[0], boot_id="boot-two")
        await rig.step()
        await rig.pass_time(400, NAMES)
        record = await rig.health(NAMES[0])
        assert (record.status, record.silent_since) == (STATUS.HEALTHY, None)
    assert await world.events("node.failed") == []


# Silence


async def test_one_silent_node_is_suspect_then_gone_by_its_providers_word(world: World) -> None:
    rig = await fleet_of(world, *NAMES)
    others = NAMES[1:]
    async with rig.running():
        await settle(rig, *NAMES)
        await rig.pass_time(20, others)
        record = await rig.health(NAMES[0])
        assert (record.status, record.code) == (STATUS.SUSPECT, "silence")
        assert record.silent_since is not None
        instance = node(NAMES[0]).instance
        assert instance is not None
        gone = structs.replace(instance, state=ProviderState.GONE, state_at=world.clock.now())
        await rig.edit(NAMES[0], instance=gone)
        await world.bus.publish("navarch.wake.health.training", b"")
        record = await rig.becomes(NAMES[0], "unhealthy")
    (suspect,) = await world.events("node.suspect")
    assert isinstance(suspect, NodeSuspect)
    assert 14.0 < suspect.silent_s < 18.0
    (failed,) = await world.events("node.failed")
    assert isinstance(failed, NodeFailed)
    assert (failed.cause, failed.node) == ("provider-gone", NAMES[0])
    assert record.takes_work
    for name in others:
        assert (await rig.health(name)).status == STATUS.HEALTHY


async def test_a_node_that_is_heard_again_recovers_and_nothing_was_destroyed(world: World) -> None:
    rig = await fleet_of(world, *NAMES)
    async with rig.running():
        await settle(rig, *NAMES)
        await rig.pass_time(60, NAMES[1:])
        assert (await rig.health(NAMES[0])).status == STATUS.SUSPECT
        await rig.beat(NAMES[0])
        await rig.becomes(NAMES[0], "healthy")
    assert [event.node for event in await world.events("node.recovered")] == [NAMES[0]]
    assert await world.events("node.failed") == []


async def test_silence_alone_fails_a_node_only_at_the_long_deadline(world: World) -> None:
    rig = await fleet_of(world, *NAMES)
    async with rig.running():
        await settle(rig, *NAMES)
        await rig.pass_time(290, NAMES[1:])
        assert (await rig.health(NAMES[0])).status == STATUS.SUSPECT
        await rig.pass_time(20, NAMES[1:])
        record = await rig.health(NAMES[0])
    assert (record.status, record.code, record.takes_work) == (STATUS.UNHEALTHY, "silence", False)


async def test_a_silent_node_that_answers_probes_is_not_failed(world: World) -> None:
    rig = await fleet_of(world, *NAMES)

    async def answer() -> None:
        async with world.bus.subscribe(f"navarch.probe.{NAMES[0]}") as probes:
            async for probe in probes:
                reply = ProbeReply(
                    node=NAMES[0], pool="training", generation=1, boot_id=BOOT, sequence=1, at=world.clock.now()
                )
                await world.bus.reply(probe, encode(reply))

    async with rig.running():
        await settle(rig, *NAMES)
        answering = asyncio.create_task(answer())
        await rig.pass_time(290, NAMES[1:])
        await rig.service._probing.round()
        await rig.pass_time(15, NAMES[1:])
        record = await rig.health(NAMES[0])
        assert record.status == STATUS.SUSPECT
        assert record.reasons[-1].code == "answers-probes"
        answering.cancel()
        await asyncio.wait([answering])
        await rig.pass_time(45, NAMES[1:])
        assert (await rig.health(NAMES[0])).status == STATUS.UNHEALTHY
    assert Probe(node=NAMES[0], at=T0)


async def test_a_copy_that_is_deaf_says_so_to_whoever_waits_for_its_verdicts(world: World) -> None:
    async def deaf() -> list[str]:
        await rig.service._presence.announce()
        return [copy.deaf for copy in await copies.living(world.store, "health")]

    rig = await fleet_of(world, *NAMES)
    async with rig.running():
        await settle(rig, *NAMES)
        [just_started] = await deaf()
        assert "just started" in just_started
        await rig.pass_time(20, NAMES)
        assert await deaf() == [""]
        with without_bus(rig.deps):
            [cut_off] = await deaf()
            assert "bus" in cut_off


async def test_a_whole_pool_that_falls_silent_at_once_is_nobodys_fault(world: World) -> None:
    rig = await fleet_of(world, *NAMES)
    async with rig.running():
        await settle(rig, *NAMES)
        await rig.pass_time(600)
        for name in NAMES:
            assert (await rig.health(name)).status == STATUS.HEALTHY
        assert b'navarch_verdicts_suspended{reason="mass"} 1.0' in rig.deps.metrics.render()[0]
        await rig.pass_time(10, NAMES)
        assert b"navarch_verdicts_suspended{" not in rig.deps.metrics.render()[0]
    assert await world.events("node.suspect") == []
    alarms = await world.events("cluster.alarm")
    assert {alarm.code for alarm in alarms} == {"mass-silence"}
    assert 1 <= len(alarms) <= 3, "and it is told rarely"


async def test_the_last_healthy_node_of_a_pool_never_fails_by_silence_alone(world: World) -> None:
    rig = await fleet_of(world, *NAMES[:2])
    async with rig.running():
        await settle(rig, *NAMES[:2])
        await rig.pass_time(400, ())
        for name in NAMES[:2]:
            record = await rig.health(name)
            assert record.status == STATUS.SUSPECT
            assert record.reasons[-1].code == "pool-guard"
    assert await world.events("node.failed") == []


@pytest.mark.parametrize("moment", ["before it counts again", "after it has counted"])
async def test_the_last_healthy_node_is_not_made_the_last_by_two_copies_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A copy is about to fail a silent node; another copy fails the pool's only healthy one in that moment."""
    silent, heard = NAMES[:2]
    rig, other = await fleet_of(world, silent, heard), Rig(world, instance="copy-2", own=True)
    async with rig.running():
        await settle(rig, silent, heard)
        await rig.pass_time(290, [heard])
        read, raced = world.store.get_many, False
        about = VERDICTS.key("training") if moment == "before it counts again" else HEALTH.key(silent)

        async def read_while_another_copy_judges(keys: Sequence[AnyKey]) -> list[Stored[Any] | None]:
            nonlocal raced
            found = await read(keys)
            if not raced and about in keys:
                raced = True
                await other.service._reports._judge(said(heard), "", again=False)
            return found

        monkeypatch.setattr(world.store, "get_many", read_while_another_copy_judges)
        await rig.pass_time(60, [heard])
        assert raced
        assert (await rig.health(heard)).status == STATUS.UNHEALTHY
        assert (await rig.health(silent)).status == STATUS.SUSPECT
        assert (await rig.health(silent)).reasons[-1].code == "pool-guard"
    assert [failed.node for failed in await world.events("node.failed")] == [heard]


async def test_a_deaf_observer_condemns_nobody_for_silence(world: World) -> None:
    rig = await fleet_of(world, *NAMES)
    async with rig.running():
        await settle(rig, *NAMES)
        await rig.pass_time(20, NAMES)
        with without_bus(rig.deps):
            await rig.pass_time(100)
        await asyncio.sleep(1.1)
        await rig.pass_time(8)
        for name in NAMES:
            assert (await rig.health(name)).status == STATUS.HEALTHY
        await rig.pass_time(20, NAMES[1:])
        assert (await rig.health(NAMES[0])).status == STATUS.SUSPECT
    assert len(await world.events("node.suspect")) == 1


async def test_a_copy_that_has_just_started_condemns_nobody_for_what_it_has_not_heard(world: World) -> None:
    rig = await fleet_of(world, *NAMES)
    async with rig.running():
        await settle(rig, *NAMES)
    world.advance(3600)
    again = Rig(world, instance="copy-2")
    again.sequence = 1000
    async with again.running():
        await again.pass_time(14)
        assert await world.events("node.suspect") == []
        await again.pass_time(30, NAMES[1:])
        assert (await again.health(NAMES[0])).status == STATUS.SUSPECT


async def test_a_node_whose_deadline_was_lost_with_the_store_is_found_all_the_same(world: World) -> None:
    rig = await fleet_of(world, *NAMES)
    async with rig.running():
        await settle(rig, *NAMES)
        await world.store.forget_beats(NAMES)
        again = Rig(world, instance="copy-2", own=True)
        again.sequence = 1000
        async with again.running():
            await again.pass_time(40, NAMES[1:])
            assert (await again.health(NAMES[0])).status == STATUS.SUSPECT


async def test_machines_that_are_powered_off_or_on_their_way_out_are_not_missed(world: World) -> None:
    rig = await fleet_of(world, *NAMES)
    async with rig.running():
        await settle(rig, *NAMES)
        await rig.edit(NAMES[0], powered_off=True)
        await rig.edit(NAMES[1], phase=Phase.TERMINATING)
        await rig.edit(NAMES[2], phase=Phase.TERMINATED)
        await rig.pass_time(30, NAMES[3:])
        assert await world.store.beats([NAMES[2]]) == [None], "and what has ended is forgotten"
    assert await world.events("node.suspect") == []


async def test_a_driver_that_stops_answering_makes_suspect_only_after_a_while(world: World) -> None:
    rig = await fleet_of(world, *NAMES)
    async with rig.running():
        await settle(rig, *NAMES)
        await rig.beat(NAMES[0], driver_state="unknown")
        await rig.step()
        assert (await rig.health(NAMES[0])).status == STATUS.HEALTHY, "an agent that starts has not asked it yet"
        for _ in range(4):
            await rig.pass_time(5, NAMES[1:])
            await rig.beat(NAMES[0], driver_state="hung")
        await rig.step()
        record = await rig.health(NAMES[0])
        assert (record.status, record.code) == (STATUS.SUSPECT, "driver-hung")
        await rig.beat(NAMES[0])
        await rig.becomes(NAMES[0], "healthy")


async def test_two_copies_come_to_one_verdict(world: World) -> None:
    rig, other = await fleet_of(world, *NAMES), Rig(world, instance="copy-2", own=True)
    async with rig.running(), other.running():
        await settle(rig, *NAMES)
        for _ in range(20):
            await rig.pass_time(1, NAMES[1:])
            other.monotonic_s = rig.monotonic_s
            other.service._observer.note(world.clock.now(), other.monotonic_s, other.deps.bus.status)
            await asyncio.gather(rig.step(), other.step())
    assert len(await world.events("node.suspect")) == 1


# Policy


async def test_a_policy_file_is_taken_over_and_a_bad_one_is_not(world: World, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "policy.yaml"
    file.write_text("rules:\n  - name: lenient\n    condition: 'true'\n    result: healthy\n")
    rig = Rig(world, text=CONFIG + f"server: {{health_policy: {file}}}\n")
    await plant(world, NAMES[0])
    async with rig.running():
        assert rig.service.status()["policy"] == str(file)
        await rig.report(said(NAMES[0], sequence=1))
        await rig.settled()
        assert (await rig.health(NAMES[0])).status == STATUS.UNKNOWN
        file.write_text("rules:\n  - name: broken\n    condition: evnt.x\n    result: healthy\n")
        await rig.service._take_policy()
        await rig.service._take_policy()
        (alarm,) = await world.events("cluster.alarm")
        assert "rules[0] (broken): column" in alarm.reason
        assert rig.service.status()["policy"] == str(file)
        file.write_text(
            "metadata: {name: strict}\nrules:\n  - name: strict\n    condition: 'true'\n    result: unhealthy\n"
        )
        await rig.service._take_policy()
        assert rig.service.status()["policy"] == "strict"
        await rig.report(report(xid(13, 60), sequence=2, node=NAMES[0]))
        await rig.becomes(NAMES[0], "unhealthy")
    assert seconds(1)
