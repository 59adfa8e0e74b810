"""Two witnesses of one kernel, and rows that belong to a line before: what is reported, once, and with whose words."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch_agent.driver_watch import DriverWatch
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_agent.host import SimulatedHost
from navarch_agent.identity import Identity
from navarch_agent.kernel import KernelWatch
from navarch_agent.log import KernelRecord
from navarch_agent.log.fake import MemoryKernelLog
from navarch_agent.parts import Parts
from navarch_agent.reporter import Reporter
from navarch_agent.second_witness import SecondWitness
from navarch_agent.service import Agent
from navarch_agent.spool import Spool
from navarch_agent.sxid_details import SxidDetails
from navarch_agent.witnesses import KERNEL_LOG, TRACEPOINT, Witnesses
from navarch_common.bus.memory import MemoryServer
from navarch_common.clock import SystemClock
from navarch_common.events import decode
from navarch_common.events.messages import HealthReport, Observation
from navarch_common.events.subjects import Subjects
from navarch_common.telemetry import Telemetry
from navarch_common.xid import KernelFault, parse_line

NODE = "training-a"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
LOST = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
SAME = "NVRM: Xid (PCI:0000:3b:00.0): 79, GPU has fallen off the bus."
"""As a tracepoint tells it."""
OTHER = "NVRM: Xid (PCI:0000:3b:00.0): 48, DBE"
VERDICT = "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x0 (None) to 0x{} (X)"
SWITCH = "nvidia-nvswitch0: SXid (PCI:0000:86:00.0): 20034, "
HEAD = SWITCH + "Fatal, Link 30 LTSSM Fault Up"
SEVERITY = SWITCH + "Severity 1 Engine instance 60 Sub-engine instance 02"
DATA = SWITCH + "Data {0x50610002, 0x10100030}"
MORE = SWITCH + "Data {0x00000001, 0x00000002}"


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []
        self.places: list[str | None] = []

    def health(self, observation: Observation, *, trace: str = "", place: str | None = None) -> None:
        assert trace
        self.observations.append(observation)
        self.places.append(place)

    def said(self) -> list[tuple[int | None, str]]:
        return [(one.code, one.source) for one in self.observations]


class Rig:
    """A kernel's watch with both logs at hand, and a reporter that keeps."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.log = MemoryKernelLog(self.clock, "boot-1")
        self.tracepoints = MemoryKernelLog(self.clock, "boot-1")
        self.told = Told()
        rng = random.Random(1)
        driver = FakeGpuDriver(NODE, rng)
        self.server = MemoryServer()
        self.parts = Parts(
            identity=Identity(node=NODE, pool="training", generation=1, boot_id="boot-1"),
            bus=self.server.connect(),
            subjects=Subjects(),
            driver=driver,
            kernel_log=self.log,
            spool=Spool("boot-1"),
            host=SimulatedHost(NODE, self.clock),
            telemetry=Telemetry(rng),
            clock=self.clock,
            rng=rng,
        )
        watch = DriverWatch(driver)
        watch.identified.set()
        self.kernel = KernelWatch(self.parts, cast("Reporter", self.told), watch)

    def prints(self, text: str, after_s: float = 0.0) -> None:
        """The kernel's log tells `text`."""
        self.kernel._take(record(text, after_s))

    def traces(self, text: str, after_s: float = 0.0) -> None:
        """The tracepoint told `text`, and has waited long enough."""
        self.kernel.witnessed(record(text, after_s), TRACEPOINT)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.told.observations) < count:
                await asyncio.sleep(0)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def record(text: str, after_s: float = 0.0, lost: int = 0) -> KernelRecord:
    at = NOW + timedelta(seconds=after_s)
    return KernelRecord(sequence=7, at=at, text=text, boot_id="boot-1", place="boot-1/7", lost=lost)


def fault(text: str) -> KernelFault:
    found = parse_line(text)
    assert found is not None
    return found


# Which fault is news.


@pytest.mark.parametrize(
    ("first", "second"),
    [((KERNEL_LOG, LOST), (TRACEPOINT, SAME)), ((TRACEPOINT, SAME), (KERNEL_LOG, LOST))],
    ids=["the log first", "the tracepoint first"],
)
def test_what_both_saw_is_told_once_by_whoever_came_first(
    rig: Rig, first: tuple[str, str], second: tuple[str, str]
) -> None:
    for source, text in (first, second):
        (rig.prints if source == KERNEL_LOG else rig.traces)(text)
    assert rig.told.said() == [(79, first[0])]


def test_what_only_the_tracepoint_saw_is_told_with_its_name(rig: Rig) -> None:
    rig.prints(OTHER)
    rig.traces(SAME)
    assert rig.told.said() == [(48, KERNEL_LOG), (79, TRACEPOINT)]
    assert rig.told.observations[1].pci == "0000:3b:00"
    assert rig.told.observations[1].message == "GPU has fallen off the bus."


def test_one_line_excuses_one_event_and_no_more(rig: Rig) -> None:
    rig.prints(LOST)
    rig.traces(SAME)
    rig.traces(SAME, 0.5)
    assert rig.told.said() == [(79, KERNEL_LOG), (79, TRACEPOINT)]


@pytest.mark.parametrize(("after_s", "told"), [(4.9, 1), (5.0, 1), (5.1, 2), (-4.9, 1), (-5.1, 2)])
def test_five_seconds_apart_are_two_faults(rig: Rig, after_s: float, told: int) -> None:
    rig.prints(LOST)
    rig.traces(SAME, after_s)
    assert len(rig.told.observations) == told


def test_another_device_another_code_and_another_verdict_are_other_faults(rig: Rig) -> None:
    rig.prints(LOST)
    rig.prints(VERDICT.format(1))
    for text in (SAME.replace("3b", "5e"), OTHER, VERDICT.format(2)):
        rig.traces(text)
    assert rig.told.said()[2:] == [(79, TRACEPOINT), (48, TRACEPOINT), (154, TRACEPOINT)]


def test_lines_without_a_code_have_one_witness_only(rig: Rig) -> None:
    for _ in range(2):
        rig.prints("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.")
    assert rig.told.said() == [(None, KERNEL_LOG)] * 2
    assert rig.kernel._witnesses._told == {}


def test_only_the_kernels_log_has_a_place(rig: Rig) -> None:
    rig.prints(LOST)
    rig.kernel.witnessed(replace_place(record(OTHER)), TRACEPOINT)
    assert rig.told.places == ["boot-1/7", None]
    assert rig.kernel._place == "boot-1/7"


def replace_place(one: KernelRecord) -> KernelRecord:
    return KernelRecord(sequence=one.sequence, at=one.at, text=one.text, boot_id=one.boot_id, place="")


SIGHTINGS = st.lists(
    st.tuples(st.sampled_from([KERNEL_LOG, TRACEPOINT]), st.integers(0, 20), st.sampled_from([LOST, OTHER])),
    max_size=60,
)


@settings(deadline=None)
@given(SIGHTINGS)
def test_whatever_they_see_no_fault_is_hidden_by_less_than_a_sighting_of_the_other(
    seen: list[tuple[str, int, str]],
) -> None:
    witnesses = Witnesses()
    hidden = {KERNEL_LOG: 0, TRACEPOINT: 0}
    for source, after_s, text in seen:
        if not witnesses.is_news(fault(text), NOW + timedelta(seconds=after_s), source):
            hidden[source] += 1
    of = {source: sum(1 for one in seen if one[0] == source) for source in hidden}
    assert hidden[KERNEL_LOG] + hidden[TRACEPOINT] <= min(of.values())
    if 0 in of.values():
        assert hidden == {KERNEL_LOG: 0, TRACEPOINT: 0}


def test_a_storm_of_many_devices_takes_bounded_memory() -> None:
    witnesses, details = Witnesses(), SxidDetails()
    for number in range(5000):
        one = fault(HEAD.replace("0000:86", f"{number:04x}:86"))
        witnesses.is_news(one, NOW, KERNEL_LOG)
        details.reported(one, Observation(at=NOW, event_type="sxid"), KERNEL_LOG)
        witnesses.is_news(fault(LOST), NOW, KERNEL_LOG)
    assert len(witnesses._told) <= Witnesses.KEYS_MAX
    assert sum(len(told) for told in witnesses._told.values()) < Witnesses.KEYS_MAX + Witnesses.SIGHTINGS_MAX
    assert len(details._heads) <= SxidDetails.HEADS_MAX


# The task that listens.


@contextmanager
def quick(patch: pytest.MonkeyPatch) -> Iterator[None]:
    patch.setattr(SecondWitness, "HOLD_S", 0.0)
    patch.setattr(SecondWitness, "RETRY_S", 0.0)
    yield


async def test_what_a_tracepoint_saw_waits_for_the_kernels_line(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SecondWitness, "HOLD_S", 3600.0)
    second = asyncio.create_task(SecondWitness(rig.tracepoints, rig.kernel).run())
    rig.tracepoints.printk(SAME)
    async with asyncio.timeout(10):
        while rig.tracepoints._more is None:  # not all is read
            await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    second.cancel()
    assert rig.told.said() == []


async def test_what_the_log_told_meanwhile_is_not_told_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with quick(monkeypatch):
        rig.kernel._take(KernelRecord(sequence=1, at=rig.clock.now(), text=LOST, boot_id="boot-1", place="boot-1/1"))
        rig.tracepoints.printk(SAME)
        rig.tracepoints.printk(OTHER)
        second = asyncio.create_task(SecondWitness(rig.tracepoints, rig.kernel).run())
        await rig.until(2)
        second.cancel()
    assert rig.told.said() == [(79, KERNEL_LOG), (48, TRACEPOINT)]


async def test_lost_events_are_lost_records_of_the_kernel(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with quick(monkeypatch):
        rig.tracepoints.printk(OTHER)
        second = asyncio.create_task(SecondWitness(rig.tracepoints, rig.kernel).run())
        await rig.until(1)
        for _ in range(200):
            rig.tracepoints.printk("flood")
        rig.tracepoints.printk(SAME)
        await rig.until(2)
        second.cancel()
    assert rig.kernel.lost == 201 - 64


async def test_a_machine_without_tracepoints_says_nothing_and_looks_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def look(self: MemoryKernelLog, place: str = "") -> Any:
        nonlocal looks
        looks += 1
        return read(self, place)

    read = MemoryKernelLog.records
    monkeypatch.setattr(MemoryKernelLog, "records", look)
    rig.tracepoints.fail("no events of the NVIDIA driver")
    with quick(monkeypatch):
        second = asyncio.create_task(SecondWitness(rig.tracepoints, rig.kernel).run())
        async with asyncio.timeout(10):
            while looks < 3:
                await asyncio.sleep(0)
        assert rig.told.observations == []
        rig.tracepoints.fail("")
        rig.tracepoints.printk(SAME)
        await rig.until(1)
        second.cancel()
    assert rig.told.said() == [(79, TRACEPOINT)]


async def test_an_agent_with_tracepoints_reports_what_they_alone_tell(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = rig.server.connect()
    subjects = Subjects()
    await ours.ensure_streams(subjects.streams())
    agent = Agent(replace(rig.parts, tracepoints=rig.tracepoints), listen=False)
    with quick(monkeypatch):
        life = asyncio.create_task(agent.run())
        rig.tracepoints.printk(SAME)
        async with (
            asyncio.timeout(10),
            ours.consume(subjects.stream("REPORTS"), "health", "navarch.reports.*.health") as deliveries,
        ):
            async for delivery in deliveries:
                (observation,) = decode(delivery.data, HealthReport).observations
                break
        life.cancel()
        await asyncio.wait([life])
    assert (observation.code, observation.source, observation.gpu_index) == (79, TRACEPOINT, 3)


# The rows after an SXid.


def test_an_sxid_is_reported_at_once_and_again_with_each_row_that_follows(rig: Rig) -> None:
    rig.prints(HEAD)
    assert [one.metrics["fatal"] for one in rig.told.observations] == [True]
    rig.prints(SEVERITY, 0.001)
    rig.prints(DATA, 0.002)
    rig.prints(MORE, 0.003)
    head, *rows = rig.told.observations
    engine = {"severity": 1, "engine_instance": 60, "sub_engine_instance": 2}
    data = "0x50610002, 0x10100030"
    assert [one.metrics for one in rows] == [
        {**head.metrics, **engine},
        {**head.metrics, **engine, "data": data},
        {**head.metrics, **engine, "data": f"{data}, 0x00000001, 0x00000002"},
    ]
    assert {(one.at, one.message, one.code, one.pci, one.event_type) for one in rig.told.observations} == {
        (NOW, "Fatal, Link 30 LTSSM Fault Up", 20034, "0000:86:00", "sxid")
    }


@pytest.mark.parametrize(
    ("row", "after_s"),
    [
        pytest.param(DATA.replace("20034", "20035"), 0.1, id="another code"),
        pytest.param(DATA.replace("86", "87"), 0.1, id="another switch"),
        pytest.param(DATA, 1.1, id="more than a second later"),
        pytest.param(DATA, -0.1, id="earlier"),
        pytest.param(SWITCH + "Severity 1", 0.1, id="a row that is cut"),
        pytest.param(SWITCH + "Data {0x1, 0x2", 0.1, id="data that is cut"),
    ],
)
def test_a_row_that_belongs_to_nothing_is_no_news(rig: Rig, row: str, after_s: float) -> None:
    rig.prints(HEAD)
    rig.prints(row, after_s)
    assert len(rig.told.observations) == 1


def test_a_row_without_its_sxid_is_no_fault(rig: Rig) -> None:
    rig.prints(LOST)
    assert rig.kernel._details._heads == {}
    rig.told.observations.clear()
    rig.prints(SEVERITY)
    assert rig.told.observations == []


def test_rows_without_end_are_no_flood(rig: Rig) -> None:
    rig.prints(HEAD)
    for _ in range(100):
        rig.prints(DATA)
    assert len(rig.told.observations) == 1 + SxidDetails.ROWS_MAX


def test_the_rows_of_an_sxid_that_was_left_out_are_not_the_last_ones(rig: Rig) -> None:
    for _ in range(50):
        rig.prints(HEAD)
        rig.prints(DATA)
    assert len(rig.told.observations) == 2 * 10


def test_a_count_of_what_was_left_out_is_told_once(rig: Rig) -> None:
    for _ in range(13):
        rig.prints(HEAD)
    rig.prints(HEAD, 6)
    rig.prints(DATA, 6)
    assert [one.metrics.get("left_out") for one in rig.told.observations[-2:]] == [3, None]


def test_rows_that_both_witnesses_tell_are_folded_once(rig: Rig) -> None:
    rig.prints(HEAD)
    rig.prints(DATA)
    rig.traces(HEAD)
    rig.traces(DATA)
    assert rig.told.said() == [(20034, KERNEL_LOG)] * 2
    rig.traces(HEAD, 6)
    rig.traces(SEVERITY, 6)
    assert rig.told.said()[2:] == [(20034, TRACEPOINT)] * 2
    assert rig.told.observations[-1].metrics["severity"] == 1


@settings(deadline=None)
@given(st.text(max_size=80))
def test_no_row_is_too_odd(text: str) -> None:
    details, head = SxidDetails(), fault(HEAD)
    details.reported(head, Observation(at=NOW, event_type="sxid", code=head.code), KERNEL_LOG)
    for start in ("Severity ", "Data {", "Severity 9 Engine instance "):
        row = KernelFault(kind="sxid_detail", message=start + text, code=head.code, pci=head.pci)
        more = details.fold(row, NOW, KERNEL_LOG)
        assert more is None or len(str(more.metrics.get("data", ""))) <= 512
