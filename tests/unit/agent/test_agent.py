"""The agent as a whole, over an in-memory bus: what it says, what it keeps, what it does when told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from navarch_agent.commands import Periods
from navarch_agent.driver_watch import DriverWatch
from navarch_agent.gpu import DriverState, Inventory, Sample
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_agent.host import SimulatedHost
from navarch_agent.identity import Identity
from navarch_agent.inject import InjectionReply, Simulation
from navarch_agent.journal import Journal
from navarch_agent.kernel import KernelWatch
from navarch_agent.log.fake import MemoryKernelLog
from navarch_agent.outbox import Outbox
from navarch_agent.parts import Parts
from navarch_agent.pulse import Pulse
from navarch_agent.service import Agent
from navarch_agent.simulated import SimulatedFleet
from navarch_agent.spool import Entry, Spool
from navarch_common.bus.base import Bus, BusTimeout, Delivery
from navarch_common.bus.memory import MemoryBus, MemoryServer
from navarch_common.clock import SystemClock
from navarch_common.events import decode, encode
from navarch_common.events.messages import (
    REJECTED,
    Command,
    CommandReceipt,
    CommandResult,
    HealthReport,
    Heartbeat,
    Leaving,
    LifecycleReport,
    Probe,
    ProbeReply,
    Registered,
)
from navarch_common.events.subjects import Subjects
from navarch_common.model.gpu import is_idle
from navarch_common.telemetry import Telemetry

NODE = "training-a"
SUBJECTS = Subjects()
LOST = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
QUICK = Periods(heartbeat_s=0.02, health_check_s=0.05)
T = TypeVar("T")


class Lab:
    """One agent with its surroundings at hand."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.ours: MemoryBus = self.server.connect()
        self.bus: Bus = self.server.connect()
        self.clock = SystemClock()
        self.kernel = MemoryKernelLog(self.clock, "boot-1")
        self.driver = FakeGpuDriver(NODE, random.Random(1))
        self.heard: list[Heartbeat] = []
        self.taken: dict[str, list[Delivery]] = {"health": [], "lifecycle": []}

    def agent(self, *, spool: Spool | None = None, periods: Periods = QUICK, generation: int = 1) -> Agent:
        rng = random.Random(1)
        parts = Parts(
            identity=Identity(node=NODE, pool="training", generation=generation, boot_id="boot-1"),
            bus=self.ours,
            subjects=SUBJECTS,
            driver=self.driver,
            kernel_log=self.kernel,
            spool=Spool("boot-1") if spool is None else spool,
            host=SimulatedHost(NODE, self.clock),
            telemetry=Telemetry(rng),
            clock=self.clock,
            rng=rng,
            version="1.2.3",
        )
        return Agent(parts, periods, simulation=Simulation(self.driver, self.kernel.printk))

    @asynccontextmanager
    async def running(self, agent: Agent | None = None) -> AsyncIterator[Agent]:
        """An agent that has registered, and a control plane's ears."""
        agent = agent or self.agent()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            ears = tasks.create_task(self._listen())
            before = len(await self.lifecycle(Registered))
            life = tasks.create_task(agent.run())
            await self.until(lambda: len(self.heard) > 0)
            async with asyncio.timeout(5):
                while len(await self.lifecycle(Registered)) == before:
                    await asyncio.sleep(0.005)
            try:
                yield agent
            finally:
                life.cancel()
                await asyncio.wait([life])
                ears.cancel()

    async def _listen(self) -> None:
        async with self.bus.subscribe(SUBJECTS.heartbeats) as messages:
            async for message in messages:
                self.heard.append(decode(message.data, Heartbeat))

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():
                await asyncio.sleep(0.005)

    async def take_reports(self, kind: str) -> None:
        """Take reports as their consumer does, until cancelled."""
        stream, subject = SUBJECTS.stream("REPORTS"), f"navarch.reports.*.{kind}"
        async with self.bus.consume(stream, kind, subject) as deliveries:
            async for delivery in deliveries:
                self.taken[kind].append(delivery)
                await delivery.ack()

    async def stored(self, kind: str) -> list[Delivery]:
        await asyncio.sleep(0.02)
        return list(self.taken[kind])

    async def health(self, count: int = 0) -> list[HealthReport]:
        """All health reports so far, once there are `count`."""
        return [decode(message.data, HealthReport) for message in await self._at_least("health", count)]

    async def lifecycle(self, kind: type[T], count: int = 0) -> list[T]:
        async with asyncio.timeout(5):
            while True:
                reports = [decode(message.data, LifecycleReport) for message in await self.stored("lifecycle")]
                found = [report for report in reports if isinstance(report, kind)]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.005)

    async def _at_least(self, kind: str, count: int) -> list[Delivery]:
        async with asyncio.timeout(5):
            while len(found := await self.stored(kind)) < count:
                await asyncio.sleep(0.005)
        return found

    async def ask(self, subject: str, data: bytes, timeout_s: float = 1.0) -> bytes:
        return (await self.bus.request(subject, data, timeout_s=timeout_s)).data

    async def command(self, command_id: str = "c1", **fields: Any) -> CommandReceipt:
        command = Command(
            **{
                "id": command_id,
                "node": NODE,
                "generation": 1,
                "kind": "configure",
                "expires_at": datetime.now(UTC) + timedelta(seconds=30),
                **fields,
            }
        )
        return decode(await self.ask(SUBJECTS.command(NODE), encode(command)), CommandReceipt)

    async def inject(self, request: bytes) -> InjectionReply:
        return decode(await self.ask(SUBJECTS.inject(NODE), request), InjectionReply)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab()
    await lab.bus.ensure_streams(SUBJECTS.streams())
    takers = [asyncio.create_task(lab.take_reports(kind)) for kind in lab.taken]
    yield lab
    for taker in takers:
        taker.cancel()
    await asyncio.wait(takers)


async def test_it_registers_with_all_that_it_is(lab: Lab) -> None:
    async with lab.running():
        (report,) = await lab.lifecycle(Registered)
        assert (report.node, report.pool, report.generation, report.boot_id) == (NODE, "training", 1, "boot-1")
        registration = report.registration
        assert (registration.hostname, registration.kernel, registration.agent_version) == (NODE, "simulated", "1.2.3")
        assert (registration.driver, registration.driver_state) == ("570.133.20", "ok")
        assert registration.gpus == lab.driver.gpus


async def test_heartbeats_come_in_the_rhythm_and_rise(lab: Lab) -> None:
    async with lab.running():
        await lab.until(lambda: len(lab.heard) >= 10)
        sequences = [beat.sequence for beat in lab.heard]
        assert sequences == sorted(set(sequences))
        beat = lab.heard[-1]
        assert (beat.node, beat.pool, beat.boot_id, beat.interval_s) == (NODE, "training", "boot-1", 0.02)
        assert beat.driver_state == "ok"
        assert len(beat.gpus) == 8
        assert is_idle(beat.gpus) is True
        assert beat.cpu_ratio == 0.05


async def test_a_kernel_line_becomes_a_report_with_its_trace(lab: Lab) -> None:
    async with lab.running():
        lab.kernel.printk(LOST)
        (report,) = await lab.health(1)
        (observation,) = report.observations
        assert (observation.code, observation.gpu_index, observation.gpu_uuid) == (79, 3, lab.driver.gpus[3].uuid)
        (message,) = await lab.stored("health")
        assert message.subject == f"navarch.reports.{NODE}.health"
        assert message.headers["Nats-Msg-Id"] == f"{NODE}-1-boot-1-health-{report.sequence}"
        assert message.headers["traceparent"] == report.trace
        assert len(report.trace) == 55


async def test_lines_of_no_interest_are_not_reported(lab: Lab) -> None:
    async with lab.running():
        for number in range(1000):
            lab.kernel.printk(f"audit: type=1400 number {number}")
        lab.kernel.printk(LOST)
        assert [report.observations[0].code for report in await lab.health(1)] == [79]


async def test_overwritten_kernel_records_show_in_the_heartbeat(lab: Lab) -> None:
    async with lab.running():
        lab.kernel.printk("first")
        await asyncio.sleep(0.01)
        for number in range(500):
            lab.kernel.printk(f"flood {number}")
        await lab.until(lambda: lab.heard[-1].lost_kernel_records == 500 - 64)


async def test_an_outage_loses_no_report_and_hoards_no_heartbeat(lab: Lab) -> None:
    async with lab.running():
        lab.server.stop()
        last = lab.heard[-1].sequence
        lab.kernel.printk(LOST)
        lab.kernel.printk(LOST.replace("3b", "07"))
        await asyncio.sleep(0.3)
        assert lab.heard[-1].sequence == last
        back_at = datetime.now(UTC)
        lab.server.start()
        reports = await lab.health(2)
        assert [report.observations[0].gpu_index for report in reports] == [3, 0]
        await lab.until(lambda: lab.heard[-1].sequence > last)
        assert all(beat.at >= back_at - timedelta(seconds=0.01) for beat in lab.heard if beat.sequence > last)


@pytest.mark.parametrize("fault", ["lost_replies", "lost_publishes", "refused_publishes"])
async def test_a_report_is_published_until_it_is_acknowledged_and_stored_once(lab: Lab, fault: str) -> None:
    lab.server.faults.timeout_scale = 0
    spool = Spool("boot-1")
    async with lab.running(lab.agent(spool=spool)):
        setattr(lab.server.faults, fault, 2)
        lab.kernel.printk(LOST)
        await lab.until(lambda: getattr(lab.server.faults, fault) == 0 and spool.count == 0)
        assert len(await lab.health()) == 1


async def test_a_refused_report_does_not_hold_up_the_next(lab: Lab) -> None:
    async with lab.running():
        lab.server.faults.refused_publishes = 1
        lab.kernel.printk(LOST)
        lab.kernel.printk(LOST.replace("3b", "07"))
        assert len(await lab.health(1)) >= 1
        assert {report.observations[0].gpu_index for report in await lab.health(2)} == {0, 3}


async def test_a_report_that_is_never_taken_delays_no_fault(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outbox, "BACKOFF_S_MIN", 60.0)
    spool = Spool("boot-1", first_sequence=1000)
    spool.put(Entry(id="poison", subject="nobody.takes.this", data=b"x"), sequence=1)
    async with lab.running(lab.agent(spool=spool)):
        lab.kernel.printk(LOST)
        assert [report.observations[0].code for report in await lab.health(1)] == [79]
        assert [entry.id for entry in spool.waiting()] == ["poison"]


async def test_a_probe_is_answered(lab: Lab) -> None:
    async with lab.running():
        probe = encode(Probe(node=NODE, at=datetime.now(UTC)))
        reply = decode(await lab.ask(SUBJECTS.probe(NODE), probe), ProbeReply)
        assert (reply.node, reply.boot_id, reply.generation) == (NODE, "boot-1", 1)


async def test_a_probe_that_asks_for_it_makes_the_agent_register_anew(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pulse, "ASKED_SPREAD_S", 0.0)
    async with lab.running():
        await lab.lifecycle(Registered, 1)
        await lab.ask(SUBJECTS.probe(NODE), encode(Probe(node=NODE, at=datetime.now(UTC))))
        await lab.ask(SUBJECTS.probe(NODE), encode(Probe(node=NODE, at=datetime.now(UTC), register=True)))
        first, second = await lab.lifecycle(Registered, 2)
        assert (first.boot_id, first.registration.gpus) == (second.boot_id, second.registration.gpus)
        assert second.sequence > first.sequence
        await asyncio.sleep(0.3)
        assert len(await lab.lifecycle(Registered, 2)) == 2


async def test_a_probe_that_asks_for_it_makes_the_agent_report_its_faults_again_as_they_were(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pulse, "ASKED_SPREAD_S", 0.0)
    async with lab.running():
        lab.kernel.printk(LOST)
        [first] = await lab.health(1)
        for count in (2, 3):
            await lab.ask(SUBJECTS.probe(NODE), encode(Probe(node=NODE, at=datetime.now(UTC), register=True)))
            assert await lab.health(count) == [first] * count


async def test_garbage_is_counted_and_harms_nothing(lab: Lab) -> None:
    async with lab.running() as agent:
        for subject in (SUBJECTS.probe(NODE), SUBJECTS.command(NODE)):
            for data in (b"", b"\xff", b"{}", b"[" * 70_000, encode(Probe(node="training-b", at=datetime.now(UTC)))):
                await lab.bus.publish(subject, data)
        await lab.until(lambda: agent.rejected == 9)
        await lab.command()
        assert len(await lab.lifecycle(CommandResult, 1)) == 1


async def test_garbage_is_told_of_once_for_each_subject_and_says_nothing_of_the_machine(lab: Lab) -> None:
    async with lab.running() as agent:
        for subject in (SUBJECTS.probe(NODE), SUBJECTS.command(NODE)):
            for _ in range(5):
                await lab.bus.publish(subject, b"garbage")
        await lab.until(lambda: agent.rejected == 10)
        told = [observation for report in await lab.health(2) for observation in report.observations]
    assert {one.event_type for one in told} == {REJECTED}
    assert [one.message.partition(": ")[0] for one in told] == [SUBJECTS.probe(NODE), SUBJECTS.command(NODE)]


async def test_a_command_is_acknowledged_done_and_its_result_reported(lab: Lab) -> None:
    async with lab.running() as agent:
        assert (await lab.command(args={"heartbeat_interval_s": "0.5"})).id == "c1"
        (result,) = await lab.lifecycle(CommandResult, 1)
        assert (result.command_id, result.outcome) == ("c1", "done")
        assert agent.periods.heartbeat_s == 0.5


async def test_a_command_that_comes_again_is_reported_again_and_not_done_again(lab: Lab) -> None:
    async with lab.running() as agent:
        await lab.command(args={"heartbeat_interval_s": "0.5"})
        await lab.command("c2", args={"heartbeat_interval_s": "0.7"})
        await lab.command(args={"heartbeat_interval_s": "0.5"})
        results = await lab.lifecycle(CommandResult, 3)
        assert [(result.command_id, result.outcome) for result in results] == [
            ("c1", "done"),
            ("c2", "done"),
            ("c1", "done"),
        ]
        assert agent.periods.heartbeat_s == 0.7


@pytest.mark.parametrize(
    ("fields", "outcome", "words"),
    [
        ({"generation": 2}, "refused", "it is for generation 2"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "expired", "it expired at 2020"),
        ({"args": {"heartbeat_interval_s": "soon"}}, "refused", "expected seconds"),
    ],
)
async def test_a_command_that_is_not_done_is_reported_too(
    lab: Lab, fields: dict[str, Any], outcome: str, words: str
) -> None:
    async with lab.running() as agent:
        await lab.command(**fields)
        (result,) = await lab.lifecycle(CommandResult, 1)
        assert result.outcome == outcome
        assert words in result.text
        assert agent.periods == QUICK


async def test_a_stop_is_reported_before_the_agent_leaves(lab: Lab) -> None:
    agent = lab.agent()
    async with asyncio.timeout(5):
        life = asyncio.create_task(agent.run())
        await lab.lifecycle(Registered, 1)
        await lab.command(kind="stop")
        await life
    assert [result.outcome for result in await lab.lifecycle(CommandResult)] == ["done"]
    (leaving,) = await lab.lifecycle(Leaving)
    assert leaving.reason == "told to stop by command c1"
    kinds = [type(decode(message.data, LifecycleReport)) for message in await lab.stored("lifecycle")]
    assert kinds == [Registered, CommandResult, Leaving]


async def test_a_clean_stop_says_goodbye_and_a_power_cut_does_not(lab: Lab) -> None:
    async with lab.running():
        pass
    assert [leaving.reason for leaving in await lab.lifecycle(Leaving)] == ["the agent was stopped"]
    async with lab.running(agent := lab.agent(spool=Spool("boot-1", first_sequence=1000))):
        agent.says_goodbye = False
    assert len(await lab.lifecycle(Leaving)) == 1


async def test_leaving_takes_bounded_time_when_nobody_listens(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Agent, "LEAVE_TIMEOUT_S", 0.05)
    async with lab.running():
        lab.server.faults.lost_publishes = 1
    assert await lab.lifecycle(Leaving) == []


async def test_a_restart_goes_on_where_it_was(lab: Lab, tmp_path: Path) -> None:
    def spool() -> Spool:
        return Spool("boot-1", Journal(tmp_path))

    async with lab.running(lab.agent(spool=spool())):
        lab.kernel.printk(LOST)
        await lab.health(1)
        await lab.command(args={"heartbeat_interval_s": "3"})
        await lab.lifecycle(CommandResult, 1)
    lab.kernel.printk(LOST.replace("3b", "07"))
    lab.heard.clear()
    async with lab.running(lab.agent(spool=spool())):
        reports = await lab.health(2)
        await lab.command(args={"heartbeat_interval_s": "9"})
        await lab.lifecycle(CommandResult, 2)
        await asyncio.sleep(0.05)
        assert [report.observations[0].gpu_index for report in await lab.health()] == [3, 0]
        numbers = [
            decode(message.data, HealthReport | LifecycleReport).sequence
            for kind in ("health", "lifecycle")
            for message in await lab.stored(kind)
        ]
        assert len(numbers) == len(set(numbers))
        assert reports[0].sequence < reports[1].sequence
        assert lab.heard[-1].interval_s == QUICK.heartbeat_s


async def test_reports_of_a_dead_agent_are_sent_by_the_next(lab: Lab, tmp_path: Path) -> None:
    agent = lab.agent(spool=Spool("boot-1", Journal(tmp_path)))
    agent.says_goodbye = False
    life = asyncio.create_task(agent.run())
    await lab.lifecycle(Registered, 1)
    lab.server.stop()
    lab.kernel.printk(LOST)
    await asyncio.sleep(0.05)
    life.cancel()
    await asyncio.wait([life])
    lab.server.start()
    assert await lab.health() == []
    async with lab.running(lab.agent(spool=Spool("boot-1", Journal(tmp_path)))):
        assert [report.observations[0].code for report in await lab.health(1)] == [79]


async def test_a_hung_driver_is_told_and_its_gpus_are_not_forgotten(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pulse, "RECONNECT_SPREAD_S", 0.0)
    async with lab.running():
        lab.driver.pretend(DriverState.HUNG)
        await lab.until(lambda: lab.heard[-1].driver_state == "hung")
        assert lab.heard[-1].gpus == ()
        lab.kernel.printk(LOST)
        assert (await lab.health(1))[0].observations[0].gpu_index == 3
        lab.server.stop()
        lab.server.start()
        again = (await lab.lifecycle(Registered, 2))[-1].registration
        assert again.driver_state == "hung"
        assert again.gpus == lab.driver.gpus
        lab.driver.pretend(DriverState.OK)
        await lab.until(lambda: lab.heard[-1].driver_state == "ok")
        assert (await lab.lifecycle(Registered, 3))[-1].registration.driver_state == "ok"


async def test_a_driver_that_comes_late_is_registered(lab: Lab) -> None:
    lab.driver.pretend(DriverState.MISSING)
    async with lab.running():
        (first,) = await lab.lifecycle(Registered)
        assert (first.registration.driver_state, first.registration.gpus) == ("missing", ())
        assert lab.heard[-1].driver_state == "missing"
        lab.driver.pretend(DriverState.OK)
        second = (await lab.lifecycle(Registered, 2))[1]
        assert second.registration.gpus == lab.driver.gpus


class Stuck:
    """A driver whose calls never return."""

    async def inventory(self) -> Inventory:
        await asyncio.Event().wait()
        raise AssertionError

    async def sample(self) -> Sample:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        pass


async def test_a_driver_that_never_answers_holds_nobody_up() -> None:
    watch = DriverWatch(Stuck(), grace_s=0.01)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            sample = await watch.sample(tasks)
            assert (sample.state, sample.gpus) == (DriverState.UNKNOWN, ())
        assert watch._reading is not None
        watch._reading.cancel()


async def test_a_reading_goes_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeGpuDriver(NODE, random.Random(1))
    watch = DriverWatch(driver, grace_s=0.01)
    async with asyncio.TaskGroup() as tasks:
        assert (await watch.sample(tasks)).state is DriverState.OK
        monkeypatch.setattr(driver, "sample", Stuck().sample)
        assert (await watch.sample(tasks)).state is DriverState.OK
        monkeypatch.setattr(DriverWatch, "STALE_S", 0.0)
        stale = await watch.sample(tasks)
        assert stale.state is DriverState.UNKNOWN
        assert "has not answered for" in stale.reason
        assert watch._reading is not None
        watch._reading.cancel()


async def test_an_unreadable_kernel_log_is_reported_and_tried_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KernelWatch, "RETRY_S", 0.02)
    lab.kernel.fail("permission denied")
    async with lab.running():
        (report,) = await lab.health(1)
        assert report.observations[0].message == "permission denied"
        await asyncio.sleep(0.1)
        lab.kernel.fail("")
        lab.kernel.printk(LOST)
        assert [found.observations[0].code for found in await lab.health(2)] == [None, 79]


async def test_heat_is_reported_at_once_again_and_when_it_is_over(lab: Lab) -> None:
    async with lab.running():
        await lab.inject(b'{"verb":"temperature","gpu":2,"temperature_c":96}')
        first, second = (await lab.health(2))[:2]
        assert first.observations[0].event_type == "thermal"
        assert first.observations[0].metrics == {"temperature": 96.0}
        assert (second.at - first.at).total_seconds() >= QUICK.health_check_s * 0.9
        await lab.inject(b'{"verb":"temperature","gpu":2}')
        await asyncio.sleep(0.2)
        temperatures = [report.observations[0].metrics["temperature"] for report in await lab.health()]
        assert isinstance(temperatures[-1], float)
        assert temperatures[-1] < 82


async def test_an_injected_xid_takes_the_way_of_a_real_one(lab: Lab) -> None:
    async with lab.running():
        reply = await lab.inject(b'{"verb":"xid","code":79,"gpu":3}')
        assert reply.ok
        assert (await lab.health(1))[0].observations[0].gpu_index == 3
        assert (await lab.inject(b'{"verb":"xid","code":79,"gpu":12}')).text == (
            "there is no GPU 12: this machine has 8, from 0"
        )


async def test_a_silent_machine_says_nothing_at_all_and_then_everything(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Outbox, "BACKOFF_S_MAX", 0.05)
    async with lab.running():
        await lab.inject(b'{"verb":"silence","for_s":0.5}')
        last = lab.heard[-1].sequence
        lab.kernel.printk(LOST)
        with pytest.raises(BusTimeout):
            await lab.ask(SUBJECTS.probe(NODE), encode(Probe(node=NODE, at=datetime.now(UTC))), timeout_s=0.1)
        await asyncio.sleep(0.1)
        assert lab.heard[-1].sequence <= last + 1
        assert await lab.health() == []
        assert len(await lab.health(1)) == 1
        await lab.until(lambda: lab.heard[-1].sequence > last + 1)


async def test_after_a_lost_connection_it_registers_anew(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pulse, "RECONNECT_SPREAD_S", 0.0)
    async with lab.running():
        lab.server.stop()
        lab.server.start()
        one, two = await lab.lifecycle(Registered, 2)
        assert one.sequence < two.sequence


async def test_once_in_a_while_it_registers_anew(lab: Lab) -> None:
    periods = Periods(heartbeat_s=0.02, health_check_s=1, registration_s=0.1)
    async with lab.running(lab.agent(periods=periods)):
        await lab.lifecycle(Registered, 3)


async def test_it_waits_for_a_bus_that_is_not_there_yet(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("navarch_agent.hearing.RETRY_S", 0.02)
    lab.server.stop()
    life = asyncio.create_task(lab.agent().run())
    await asyncio.sleep(0.1)
    assert not life.done()
    lab.server.start()
    await lab.lifecycle(Registered, 1)
    async with asyncio.timeout(5):
        while True:
            try:
                await lab.command()
                break
            except Exception:  # noqa: BLE001 - nobody hears commands yet
                await asyncio.sleep(0.01)
    life.cancel()
    await asyncio.wait([life])


# Many in one process.


async def test_a_fleet_shares_one_connection(lab: Lab) -> None:
    fleet = SimulatedFleet(lab.ours, SUBJECTS, clock=lab.clock)
    machines = [
        fleet.machine(
            Identity(node=f"training-{number}", pool="training", generation=1, boot_id=f"boot-{number}"),
            random.Random(number),
            periods=Periods(heartbeat_s=0.2),
        )
        for number in range(200)
    ]
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(fleet.run()), tasks.create_task(lab._listen())]
        running += [tasks.create_task(machine.run()) for machine in machines]
        assert len({report.node for report in await lab.lifecycle(Registered, 200)}) == 200
        await lab.until(lambda: len({beat.node for beat in lab.heard}) == 200)
        machines[7].kernel.printk(LOST)
        assert [report.node for report in await lab.health(1)] == ["training-7"]
        reply = await lab.ask(SUBJECTS.inject("training-9"), b'{"verb":"xid","code":79,"gpu":3}')
        assert decode(reply, InjectionReply).ok
        probe = await lab.ask(SUBJECTS.probe("training-3"), encode(Probe(node="training-3", at=datetime.now(UTC))))
        assert decode(probe, ProbeReply).node == "training-3"
        machines[5].pull_the_plug()
        running[2 + 5].cancel()
        await asyncio.sleep(0.05)
        with pytest.raises(BusTimeout):
            await lab.ask(
                SUBJECTS.probe("training-5"), encode(Probe(node="training-5", at=datetime.now(UTC))), timeout_s=0.1
            )
        for task in running:
            task.cancel()
    assert {report.node for report in await lab.lifecycle(Leaving)} == {f"training-{n}" for n in range(200)} - {
        "training-5"
    }
