"""What every kernel log promises: each record once and in order, a place to resume from, losses counted."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from navarch_agent.log import KernelLog, KernelLogUnavailable, KernelRecord
from navarch_agent.log.fake import MemoryKernelLog
from navarch_agent.log.file import FileKernelLog
from navarch_agent.log.journald import Journald
from navarch_agent.log.kmsg import Kmsg
from navarch_common.clock import ManualClock, SystemClock
from navarch_common.xid import parse_line
from support.journal import Journal
from support.kmsg_samples import meaning, samples

BOOT = "8f5c0a52-0000-4000-8000-000000000001"


class Ring:
    """The device behind `Kmsg`: a ring of records, read one by one, that overwrites what nobody read."""

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self.kept: list[tuple[int, bytes]] = []
        self.next = 0
        self.position: int | None = 0
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.opened: int | None = None

    def printk(self, text: str, dictionary: str = "") -> None:
        record = f"4,{self.next},{self.next * 1000},-;{text}\n{dictionary}".encode()
        self.kept = [*self.kept, (self.next, record)][-self.capacity :]
        self.next += 1
        self.theirs.send(b"!")

    def read(self, fd: int, size: int) -> bytes:
        assert size == 8192
        self.ours.setblocking(False)
        if self.opened != fd:
            self.opened, self.position = fd, self.kept[0][0] if self.kept else self.next
        assert self.position is not None
        if self.kept and self.position < self.kept[0][0]:
            self.position = self.kept[0][0]
            raise OSError(errno.EPIPE, "overrun")
        for number, record in self.kept:
            if number == self.position:
                self.position += 1
                return record
        raise BlockingIOError


@dataclass
class Machine:
    log: KernelLog
    printk: Callable[[str], object]


class PolledKmsg(Kmsg):
    """`Kmsg` over a `Ring`; the ring's socket says that there is more, as the device's descriptor would."""

    def __init__(self, ring: Ring, path: Path) -> None:
        super().__init__(SystemClock(), BOOT, uptime_s=time.monotonic, path=path, read=ring.read)
        self._ring = ring

    def _open(self) -> int:
        self._ring.opened = None
        return os.dup(self._ring.ours.fileno())


@pytest.fixture(params=["memory", "file", "kmsg", "journald"])
async def machine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Machine]:
    if request.param == "memory":
        memory = MemoryKernelLog(SystemClock(), BOOT)
        yield Machine(memory, memory.printk)
    elif request.param == "file":
        path = tmp_path / "kmsg"
        yield Machine(FileKernelLog(SystemClock(), BOOT, path, sweep_s=0.05), lambda text: append(path, text + "\n"))
    elif request.param == "journald":
        yield Machine(Journald(SystemClock(), BOOT, uptime_s=time.monotonic), Journal(tmp_path, monkeypatch).printk)
    else:
        ring = Ring()
        yield Machine(PolledKmsg(ring, tmp_path / "none"), ring.printk)
        ring.ours.close()
        ring.theirs.close()


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


async def read(log: KernelLog, count: int, place: str = "") -> list[KernelRecord]:
    found: list[KernelRecord] = []
    async with asyncio.timeout(5), aclosing(log.records(place)) as records:
        async for record in records:
            found.append(record)
            if len(found) == count:
                break
    return found


async def nothing_more(log: KernelLog, place: str) -> bool:
    try:
        async with asyncio.timeout(0.15), aclosing(log.records(place)) as records:
            async for _ in records:
                return False
    except TimeoutError:
        return True
    return False


async def test_what_was_printed_before_is_read_in_order(machine: Machine) -> None:
    for text in ("one", "two", "three"):
        machine.printk(text)
    records = await read(machine.log, 3)
    assert [record.text for record in records] == ["one", "two", "three"]
    assert [record.lost for record in records] == [0, 0, 0]
    assert {record.boot_id for record in records} == {BOOT}
    assert records[0].sequence < records[1].sequence < records[2].sequence
    assert records[0].at <= records[2].at


async def test_what_is_printed_later_is_read_when_it_comes(machine: Machine) -> None:
    machine.printk("one")
    async with asyncio.timeout(5), aclosing(machine.log.records()) as records:
        assert (await anext(records)).text == "one"
        waiting = asyncio.ensure_future(anext(records))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        machine.printk("two")
        assert (await waiting).text == "two"


async def test_reading_resumes_after_a_place(machine: Machine) -> None:
    for text in ("one", "two", "three"):
        machine.printk(text)
    first, second, _ = await read(machine.log, 3)
    (again,) = await read(machine.log, 1, second.place)
    assert again.text == "three"
    assert again.lost == 0
    assert [record.text for record in await read(machine.log, 2, first.place)] == ["two", "three"]
    assert await nothing_more(machine.log, again.place)


async def test_a_place_that_means_nothing_is_the_beginning(machine: Machine) -> None:
    machine.printk("one")
    for place in ("", "another-boot/99999", "9/9/9/zz", "x", "/"):
        assert [record.text for record in await read(machine.log, 1, place)] == ["one"]


async def test_text_that_is_no_utf8_is_read_all_the_same(machine: Machine) -> None:
    machine.printk("caf\u00e9 \u2603")
    assert [record.text for record in await read(machine.log, 1)] == ["caf\u00e9 \u2603"]


async def test_every_sample_comes_through_as_its_file_says(machine: Machine) -> None:
    place, batch = "", 19  # fewer than a ring holds
    for start in range(0, 95, batch):
        lines = samples()[start : start + batch]
        for sample in lines:
            machine.printk(sample.text)
        records = await read(machine.log, batch, place)
        place = records[-1].place
        told = [meaning(parse_line(record.text)) for record in records]
        assert told == [(sample.kind, sample.code, sample.pci) for sample in lines]


# The ring of the kernel, and its likeness in memory: what nobody reads in time is overwritten.


@pytest.mark.parametrize("kind", ["memory", "kmsg"])
async def test_overwritten_records_are_counted(kind: str, tmp_path: Path) -> None:
    if kind == "memory":
        memory = MemoryKernelLog(SystemClock(), BOOT, capacity=10)
        log: KernelLog = memory
        printk: Callable[[str], object] = memory.printk
    else:
        ring = Ring(capacity=10)
        log, printk = PolledKmsg(ring, tmp_path / "none"), ring.printk
    printk("first")
    async with asyncio.timeout(5), aclosing(log.records()) as records:
        first = await anext(records)
        for number in range(100):
            printk(f"flood {number}")
        after = await anext(records)
        assert (after.text, after.lost) == ("flood 90", 90)
        assert (await anext(records)).lost == 0
    (resumed,) = await read(log, 1, first.place)
    assert (resumed.text, resumed.lost) == ("flood 90", 90)


async def test_a_new_boot_begins_at_its_beginning() -> None:
    log = MemoryKernelLog(SystemClock(), BOOT)
    log.printk("old")
    (old,) = await read(log, 1)
    log.reboot("another-boot")
    log.printk("new")
    (new,) = await read(log, 1, old.place)
    assert (new.text, new.boot_id, new.lost) == ("new", "another-boot", 0)


async def test_a_log_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    log = MemoryKernelLog(SystemClock(), BOOT)
    log.fail("permission denied")
    with pytest.raises(KernelLogUnavailable, match="permission denied"):
        await read(log, 1)
    with pytest.raises(KernelLogUnavailable, match="cannot be opened: No such file"):
        await read(Kmsg(SystemClock(), BOOT, uptime_s=time.monotonic, path=tmp_path / "none"), 1)
    (tmp_path / "directory").mkdir()
    with pytest.raises(KernelLogUnavailable, match="cannot be"):
        await read(FileKernelLog(SystemClock(), BOOT, tmp_path / "directory"), 1)


# /dev/kmsg.


async def test_a_record_is_its_first_line_and_is_dated_by_the_kernel() -> None:
    clock, ring = ManualClock(), Ring()
    ring.printk("head", " SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n")
    ring.printk("next")
    log = PolledKmsg(ring, Path("none"))
    log._clock, log._uptime_s = clock, lambda: 10.0
    head, after = await read(log, 2)
    assert head.text == "head"
    assert head.at == clock.now() - timedelta(seconds=10)
    assert after.at == clock.now() - timedelta(seconds=10) + timedelta(milliseconds=1)


async def test_a_record_too_long_for_the_buffer_is_counted_as_lost() -> None:
    ring = Ring()
    for text in ("one", "two", "three"):
        ring.printk(text)
    whole = ring.read

    def picky(fd: int, size: int) -> bytes:
        record = whole(fd, size)
        if b"two" in record:
            raise OSError(errno.EINVAL, "invalid argument")
        return record

    log = PolledKmsg(ring, Path("none"))
    log._read = picky
    assert [(record.text, record.lost) for record in await read(log, 2)] == [("one", 0), ("three", 1)]


async def test_a_plain_file_is_not_taken_for_the_device(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    log = Kmsg(SystemClock(), BOOT, uptime_s=time.monotonic, path=path, read=lambda fd, size: b"")
    ours, theirs = socket.socketpair()
    log._open = ours.detach  # type: ignore[method-assign]
    with pytest.raises(KernelLogUnavailable, match="like a plain file"):
        await read(log, 1)
    theirs.close()


async def test_the_real_device_is_read() -> None:
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("/dev/kmsg is not ours to read here")
    records = await read(Kmsg(SystemClock(), BOOT, uptime_s=time.monotonic), 3)
    assert records[0].sequence < records[1].sequence < records[2].sequence
    assert all(record.at <= SystemClock().now() for record in records)


# A file.


def follow(path: Path, sweep_s: float = 0.05) -> FileKernelLog:
    return FileKernelLog(SystemClock(), BOOT, path, sweep_s=sweep_s)


async def test_a_burst_in_one_write_yields_every_line(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    append(path, "".join(f"line {number}\n" for number in range(20_000)))
    records = await read(follow(path), 20_000)
    assert [record.text for record in records] == [f"line {number}" for number in range(20_000)]


async def test_a_line_without_its_newline_does_not_count_yet(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    append(path, "one\ntw")
    log = follow(path)
    (one,) = await read(log, 1)
    assert await nothing_more(log, one.place)
    append(path, "o\n")
    assert [record.text for record in await read(log, 1, one.place)] == ["two"]


async def test_inotify_wakes_the_reader_long_before_the_sweep(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    append(path, "one\n")
    async with asyncio.timeout(5), aclosing(follow(path, sweep_s=60).records()) as records:
        await anext(records)
        waiting = asyncio.ensure_future(anext(records))
        await asyncio.sleep(0.02)
        began = time.monotonic()
        append(path, "two\n")
        assert (await waiting).text == "two"
        assert time.monotonic() - began < 0.5


async def test_a_file_that_comes_later_is_found(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    async with asyncio.timeout(5), aclosing(follow(path).records()) as records:
        waiting = asyncio.ensure_future(anext(records))
        await asyncio.sleep(0.02)
        append(path, "one\n")
        assert (await waiting).text == "one"


@pytest.mark.parametrize("how", ["truncated", "rewritten longer", "replaced", "rotated"])
async def test_a_file_that_is_not_what_it_was_is_read_from_its_beginning(tmp_path: Path, how: str) -> None:
    path = tmp_path / "kmsg"
    append(path, "an old line\nanother old line\n")
    async with asyncio.timeout(5), aclosing(follow(path).records()) as records:
        await anext(records)
        last = await anext(records)
        if how == "truncated":
            path.write_text("new\n")
        elif how == "rewritten longer":
            path.write_text("new\n" + "much more than there was before\n" * 5)
        elif how == "replaced":
            (tmp_path / "next").write_text("new\n")
            (tmp_path / "next").replace(path)
        else:
            append(path, "the old file's last\n")
            path.rename(tmp_path / "kmsg.1")
            path.write_text("new\n")
            assert (await anext(records)).text == "the old file's last"
        record = await anext(records)
        assert record.text == "new"
        assert record.sequence >= last.sequence
    assert [found.text for found in await read(follow(path), 1, last.place)] == ["new"]


async def test_an_endless_line_takes_bounded_memory_and_hides_nothing_after_it(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    append(path, b"x" * 1_000_000 + b"\nafter\n")
    endless, after = await read(follow(path), 2)
    assert len(endless.text) < 9000
    assert after.text == "after"
    assert [record.text for record in await read(follow(path), 1, endless.place)] == ["after"]


async def test_bytes_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    append(path, b"\xff\xfe one\r\n")
    (record,) = await read(follow(path), 1)
    assert record.text == "\\xff\\xfe one"
