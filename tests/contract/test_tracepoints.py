"""The driver's tracepoints, over a tree of files that looks like tracefs: what is switched on, read, counted and left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch_agent.log import KernelLogUnavailable, KernelRecord
from navarch_agent.log.tracepoints import Seen, Tracepoints, parse
from navarch_common.clock import ManualClock
from navarch_common.xid import parse_line
from support.kmsg_samples import Sample, meaning, samples

XID = "nvidia/nvidia_dev_xid"
SXID = "nvswitch/nvswitch_dev_sxid"
FAULTS = [sample for sample in samples() if sample.kind in ("xid", "sxid", "sxid_detail")]


class Tracefs:
    """A directory with the files that we use, and a pipe that somebody holds open."""

    def __init__(self, root: Path, *events: str) -> None:
        self.root = root
        self.instance = root / "instances" / "navarch"
        for event in events:
            (root / "events" / event).mkdir(parents=True)
            (self.instance / "events" / event).mkdir(parents=True)
            self.switch(event).write_text("0\n")
        self.instance.mkdir(parents=True, exist_ok=True)
        for name in ("buffer_size_kb", "buffer_percent"):
            (self.instance / name).write_text("50\n")
        os.mkfifo(self.instance / "trace_pipe")
        self.pipe = os.open(self.instance / "trace_pipe", os.O_RDWR | os.O_NONBLOCK)

    def switch(self, event: str) -> Path:
        return self.instance / "events" / event / "enable"

    def write(self, text: str | bytes) -> None:
        os.write(self.pipe, text.encode() if isinstance(text, str) else text)

    def log(self, clock: ManualClock | None = None, sweep_s: float = 60.0) -> Tracepoints:
        return Tracepoints(clock or ManualClock(), "boot-1", uptime_s=lambda: 10_000.0, root=self.root, sweep_s=sweep_s)


@pytest.fixture
def tracefs(tmp_path: Path) -> Iterator[Tracefs]:
    tree = Tracefs(tmp_path / "tracing", XID, SXID)
    yield tree
    os.close(tree.pipe)


def event(text: str, *, task: str = "<...>-1234", seconds: str = "9000.250000", name: str = "nvidia_dev_xid") -> str:
    return f"{task:>22} [003] d..1.  {seconds}: {name}: {text}\n"


def as_event(sample: Sample) -> str:
    """What the tracepoint tells where the kernel's log tells `sample`."""
    text = sample.text[sample.text.index("Xid (") - (sample.kind != "xid") :]
    if "(PCI:" not in text:
        text = text.replace("(", "(PCI:", 1)
    return event(text, name="nvidia_dev_xid" if sample.kind == "xid" else "nvswitch_dev_sxid")


async def read(log: Tracepoints, count: int, then: Callable[[], object] = lambda: None) -> list[KernelRecord]:
    found: list[KernelRecord] = []
    async with asyncio.timeout(10), aclosing(log.records()) as records:
        async for record in records:
            found.append(record)
            if len(found) == count:
                then()
                break
    return found


async def test_an_event_reads_as_the_kernels_line_would_and_is_dated_by_the_kernel(tracefs: Tracefs) -> None:
    tracefs.write(event("Xid (PCI:0000:3b:00.0): 79, GPU has fallen off the bus."))
    clock = ManualClock()
    (record,) = await read(tracefs.log(clock), 1)
    fault = parse_line(record.text)
    assert fault is not None
    assert (fault.code, fault.pci, fault.message) == (79, "0000:3b:00", "GPU has fallen off the bus.")
    assert record.at == clock.now() - timedelta(seconds=10_000) + timedelta(seconds=9000.25)
    assert record.boot_id == "boot-1"


@pytest.mark.parametrize("sample", FAULTS, ids=[f"{place}-{one.kind}-{one.code}" for place, one in enumerate(FAULTS)])
async def test_a_sample_of_the_driver_means_the_same_as_an_event(tracefs: Tracefs, sample: Sample) -> None:
    tracefs.write(as_event(sample))
    (record,) = await read(tracefs.log(), 1)
    assert meaning(parse_line(record.text)) == (sample.kind, sample.code, sample.pci)


async def test_what_comes_later_and_in_pieces_is_read_when_it_is_whole(tracefs: Tracefs) -> None:
    whole = event("Xid (PCI:0000:3b:00.0): 79, X").encode()
    tracefs.write(event("Xid (PCI:0000:3b:00.0): 31, X"))
    async with asyncio.timeout(10), aclosing(tracefs.log().records()) as records:
        assert ": 31, " in (await anext(records)).text
        waiting = asyncio.ensure_future(anext(records))
        for place in range(0, len(whole), 7):
            tracefs.write(whole[place : place + 7])
            await asyncio.sleep(0)
        assert ": 79, X" in (await waiting).text


async def test_lost_events_are_counted_before_the_next(tracefs: Tracefs) -> None:
    tracefs.write(event("Xid (PCI:0000:3b:00.0): 31, X"))
    tracefs.write("CPU:3 [LOST 12 EVENTS]\nCPU:11 [LOST EVENTS]\n")
    tracefs.write(event("Xid (PCI:0000:3b:00.0): 79, X") + event("Xid (PCI:0000:3b:00.0): 43, X"))
    assert [record.lost for record in await read(tracefs.log(), 3)] == [0, 13, 0]


async def test_it_is_a_small_ring_that_wakes_at_once_and_is_switched_off_in_the_end(tracefs: Tracefs) -> None:
    tracefs.write(event("Xid (PCI:0000:3b:00.0): 79, X"))
    watched = [tracefs.switch(XID), tracefs.switch(SXID), *sorted(tracefs.instance.glob("buffer_*"))]
    for path in watched:
        path.write_text("")
    meanwhile: list[str] = []
    await read(tracefs.log(), 1, lambda: meanwhile.extend(path.read_text() for path in watched))
    assert meanwhile == ["1", "1", "0", "64"]
    assert [tracefs.switch(one).read_text().strip() for one in (XID, SXID)] == ["0", "0"]


async def test_a_driver_that_was_loaded_anew_is_switched_on_again(tracefs: Tracefs) -> None:
    tracefs.write(event("Xid (PCI:0000:3b:00.0): 31, X"))
    async with asyncio.timeout(10), aclosing(tracefs.log(sweep_s=0.005).records()) as records:
        await anext(records)
        waiting = asyncio.ensure_future(anext(records))
        tracefs.switch(XID).write_text("0\n")
        while tracefs.switch(XID).read_text().strip() != "1":
            await asyncio.sleep(0.001)
        tracefs.write(event("Xid (PCI:0000:3b:00.0): 79, X"))
        assert ": 79, X" in (await waiting).text


async def test_one_event_of_the_two_is_enough(tmp_path: Path) -> None:
    tree = Tracefs(tmp_path, SXID)
    tree.write(event("SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress", name="nvswitch_dev_sxid"))
    (record,) = await read(tree.log(), 1)
    assert meaning(parse_line(record.text)) == ("sxid", 12028, "0000:05:00")
    os.close(tree.pipe)


async def test_a_machine_without_the_open_driver_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "instances").mkdir()
    (tmp_path / "events" / "sched").mkdir(parents=True)
    with pytest.raises(KernelLogUnavailable, match="has no events of the NVIDIA driver"):
        await read(Tracepoints(ManualClock(), "boot-1", uptime_s=lambda: 1.0, root=tmp_path), 1)
    assert list((tmp_path / "instances").iterdir()) == []


async def test_tracing_that_is_not_ours_to_use_says_so(tmp_path: Path) -> None:
    (tmp_path / "events" / XID).mkdir(parents=True)
    with pytest.raises(KernelLogUnavailable, match=r"no tracing in .*navarch: No such file"):
        await read(Tracepoints(ManualClock(), "boot-1", uptime_s=lambda: 1.0, root=tmp_path), 1)


async def test_events_that_cannot_be_switched_on_are_no_witness(tracefs: Tracefs) -> None:
    for one in (XID, SXID):
        tracefs.switch(one).unlink()
    with pytest.raises(KernelLogUnavailable, match="can be switched on"):
        await read(tracefs.log(), 1)


async def test_a_pipe_that_ends_is_no_witness_any_more(tmp_path: Path) -> None:
    tree = Tracefs(tmp_path, XID)
    os.close(tree.pipe)
    with pytest.raises(KernelLogUnavailable, match="has ended"):
        await read(tree.log(), 1)


@pytest.mark.parametrize(
    ("seconds", "usec"),
    [("9000.250000", 9_000_250_000), ("0.000001", 1), ("3.5", 3_500_000), ("3.123456789", 3_123_456)],
)
def test_an_events_time_is_read_in_any_precision(seconds: str, usec: int) -> None:
    seen = parse(event("Xid (PCI:0000:3b:00.0): 79, X", seconds=seconds).encode())
    assert isinstance(seen, Seen)
    assert seen.usec == usec


# Whatever the pipe holds.


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_are_too_odd(line: bytes) -> None:
    seen = parse(line)
    assert isinstance(seen, Seen) or seen >= 0


@settings(deadline=None)
@given(st.binary(max_size=15).filter(lambda name: b"\n" not in name and b"\x00" not in name), st.binary(max_size=50))
def test_no_name_of_a_task_changes_what_is_told(name: bytes, text: bytes) -> None:
    rest = b"-1 [003] d..1. 9.250000: nvidia_dev_xid: Xid (PCI:0000:3b:00.0): 79, " + text.replace(b"\n", b"")
    assert parse(b" " + name + rest) == parse(b" task" + rest)


@settings(deadline=None)
@given(st.binary(max_size=15), st.integers(0, 10**6))
def test_no_name_of_a_task_makes_an_event_of_another(name: bytes, number: int) -> None:
    assert parse(b" %s-%d [003] d..1. 9.250000: sched_switch: prev_comm=x" % (name, number)) == 0
