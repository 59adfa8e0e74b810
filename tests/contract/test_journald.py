"""The kernel's lines out of systemd's journal: what its records are like, and a journalctl that dies, lies or is not there."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch_agent.log import KernelLogUnavailable, KernelRecord
from navarch_agent.log.file import FileKernelLog
from navarch_agent.log.journald import RECORD_BYTES_MAX, Journald, Pieces
from navarch_agent.log.kmsg import Kmsg
from navarch_agent.main import _kernel_log as chosen
from navarch_common.clock import ManualClock, SystemClock
from navarch_common.xid import parse_line
from support.journal import BOOT, MISSED, Journal, cursor, entry

OURS = "boot-1"
LOST = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.setattr(Journald, "BACKOFF_S", (0.0, 0.0))
    return Journal(tmp_path, monkeypatch)


def follow() -> Journald:
    return Journald(SystemClock(), OURS, uptime_s=time.monotonic, kernel_boot_id=BOOT)


async def read(log: Journald, count: int, place: str = "") -> list[KernelRecord]:
    found: list[KernelRecord] = []
    async with asyncio.timeout(20), aclosing(log.records(place)) as records:
        async for record in records:
            found.append(record)
            if len(found) == count:
                break
    return found


def texts(records: list[KernelRecord]) -> list[str]:
    return [record.text for record in records]


async def test_a_record_is_dated_by_the_kernel_and_numbered_by_the_journal(journal: Journal) -> None:
    journal.printk("one")
    journal.printk("two", _SOURCE_MONOTONIC_TIMESTAMP=None, __MONOTONIC_TIMESTAMP="7000")
    journal.printk("three", _SOURCE_MONOTONIC_TIMESTAMP="never", __MONOTONIC_TIMESTAMP=None)
    clock = ManualClock()
    log = Journald(clock, OURS, uptime_s=lambda: 10.0, kernel_boot_id=BOOT)
    one, two, three = await read(log, 3)
    booted_at = clock.now() - timedelta(seconds=10)
    assert [record.at - booted_at for record in (one, two)] == [timedelta(milliseconds=1), timedelta(milliseconds=7)]
    assert three.at == clock.now()
    assert [record.sequence for record in (one, two, three)] == [1, 2, 3]
    assert {record.boot_id for record in (one, two, three)} == {OURS}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param(LOST, LOST, id="text"),
        pytest.param([*b"\xff\xfe one \xe2\x98\x83"], "\\xff\\xfe one \u2603", id="bytes that are no text"),
        pytest.param(["first", "second"], "first", id="a field that comes twice"),
        pytest.param([[*b"first"], "second"], "first", id="twice, as bytes"),
        pytest.param("x" * 100_000, "x" * 8256, id="a line without end"),
        pytest.param([1, "x", None], "", id="a list of this and that"),
        pytest.param([300, -1], "", id="numbers that are no bytes"),
        pytest.param({"a": 1}, "", id="an object"),
    ],
)
async def test_a_message_is_read_in_every_form_that_it_comes_in(journal: Journal, message: Any, text: str) -> None:
    journal.printk(message)
    assert texts(await read(follow(), 1)) == [text]


async def test_what_a_process_wrote_into_the_kernel_log_does_not_pass_for_the_driver(journal: Journal) -> None:
    journal.printk(LOST, SYSLOG_IDENTIFIER="python3", SYSLOG_FACILITY="1")
    journal.printk("ib6: lost carrier", SYSLOG_IDENTIFIER="systemd-networkd", SYSLOG_FACILITY="3")
    forged, carrier = await read(follow(), 2)
    assert parse_line(forged.text) is None
    fault = parse_line(carrier.text)
    assert fault is not None
    assert fault.kind == "ib_carrier_lost"


async def test_only_the_kernel_of_this_boot_is_heard(journal: Journal) -> None:
    journal.printk("of another boot", boot="f" * 32)
    journal.printk(LOST, _TRANSPORT="syslog")
    journal.printk(LOST, _TRANSPORT=None)
    journal.printk(LOST, _TRANSPORT=["kernel", "syslog"])
    journal.printk("ours")
    assert texts(await read(follow(), 1)) == ["ours"]


async def test_lines_that_are_no_records_hide_nothing(journal: Journal) -> None:
    journal.printk("one")
    journal.append(b"-- Boot 278a6e1cf35f459e8d8db11bbdbb60b1 --")
    journal.append(b"\xff\x00\xfe")
    journal.append(b"")
    journal.append(b"[" * 100_000)
    journal.printk("two")
    assert [(record.text, record.lost) for record in await read(follow(), 2)] == [("one", 0), ("two", 0)]


async def test_records_that_cannot_be_read_count_as_lost(journal: Journal) -> None:
    journal.printk("one")
    journal.append(b'{"__CURSOR":"s=')
    journal.append(json.dumps({**entry(90, "no cursor of ours"), "__CURSOR": "; rm"}).encode())
    journal.append(json.dumps(entry(91, "x" * RECORD_BYTES_MAX)).encode())
    journal.append(json.dumps(entry(92, "x" * 20 * RECORD_BYTES_MAX)).encode())
    journal.printk("two")
    journal.printk("three")
    records = await read(follow(), 3)
    assert [(record.text, record.lost) for record in records] == [("one", 0), ("two", 4), ("three", 0)]


async def test_what_journald_missed_itself_is_counted_and_nobody_else_can_say_so(journal: Journal) -> None:
    journal.printk("one")
    journal.printk("Missed 17 kernel messages", _TRANSPORT="driver", MESSAGE_ID=MISSED)
    journal.printk("Missed 500 kernel messages", _TRANSPORT="syslog", MESSAGE_ID=MISSED)
    journal.printk("Missed 600 kernel messages", _TRANSPORT="driver", MESSAGE_ID="f" * 32)
    journal.printk("two")
    assert [(record.text, record.lost) for record in await read(follow(), 2)] == [("one", 0), ("two", 17)]


async def test_a_journalctl_that_dies_is_started_again_where_it_stood(journal: Journal) -> None:
    journal.printk("one")
    two = journal.printk("two")
    journal.append(b"!die 1 killed")
    journal.printk("three")
    assert texts(await read(follow(), 3)) == ["one", "two", "three"]
    first, second = journal.calls()
    assert "--after-cursor" not in first
    assert f"--after-cursor={two['__CURSOR']} " in second


async def test_it_asks_for_this_boot_for_all_of_it_and_goes_on_from_a_place(journal: Journal) -> None:
    journal.printk("one")
    journal.printk("two")
    one, two = await read(follow(), 2)
    assert texts(await read(follow(), 1, one.place)) == ["two"]
    fresh, resumed = journal.calls()
    for call in (fresh, resumed):
        assert {"--output=json", "--boot", "--all", "--follow", "--no-tail", "_TRANSPORT=kernel"} <= set(call.split())
    assert f"--after-cursor={cursor(1)}" in resumed
    assert two.place == f"journald/{OURS}/{cursor(2)}"


@pytest.mark.parametrize(
    "place", [f"journald/another-boot/{cursor(1)}", "journald/boot-1/s=;i=1", f"{OURS}/{cursor(2)}", f"{OURS}/17"]
)
async def test_a_place_of_another_boot_or_another_log_is_the_beginning(journal: Journal, place: str) -> None:
    journal.printk("one")
    journal.printk("two")
    assert texts(await read(follow(), 1, place)) == ["one"]


async def test_a_record_that_journald_moved_to_another_file_is_not_told_twice(journal: Journal) -> None:
    one = journal.printk("one")
    moved = one["__CURSOR"].replace("s=4621dc07", "s=00000000").replace("i=1;", "i=77;")
    (record,) = await read(follow(), 1)
    journal.path.write_bytes(json.dumps({**one, "__CURSOR": moved}).encode() + b"\n")
    journal.printk("two")
    assert texts(await read(follow(), 1, record.place)) == ["two"]


async def test_one_that_dies_again_and_again_without_a_word_is_no_log(journal: Journal) -> None:
    journal.append(b"first of its kind")
    for number in range(20):
        journal.append(b"!die 1 %d" % number)
        journal.append(b"and on")
    with pytest.raises(KernelLogUnavailable, match="ended 3 times without a record"):
        await read(follow(), 1)
    assert len(journal.calls()) == 3


async def test_a_journal_without_this_boot_is_unknown_and_not_quiet(journal: Journal) -> None:
    with pytest.raises(KernelLogUnavailable, match="holds nothing of this boot: the agent needs to be root or in"):
        await read(follow(), 1)
    assert journal.calls() == []


async def test_what_journalctl_complains_of_is_the_reason(journal: Journal) -> None:
    journal.append(b"!die 1 No journal files were opened due to insufficient permissions.")
    with pytest.raises(KernelLogUnavailable, match="ended with 1: No journal files were opened due to insufficient"):
        await read(follow(), 1)


async def test_a_machine_without_journalctl_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelLogUnavailable, match="journalctl cannot be run: No such file"):
        await read(follow(), 1)


async def test_no_journalctl_is_left_behind(journal: Journal) -> None:
    journal.printk("one")
    await read(follow(), 1)
    assert len(journal.pids()) == 2
    for pid in journal.pids():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("setting", "kind"), [("journald", Journald), (Path("/dev/kmsg"), Kmsg), (Path("journald"), FileKernelLog)], ids=str
)
def test_a_setting_chooses_the_kernel_log(setting: Path | str, kind: type) -> None:
    assert type(chosen(setting, OURS, time.monotonic)) is kind


# Whatever a journal holds.

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=4)
)
NAMES = (
    "_TRANSPORT", "_BOOT_ID", "_SOURCE_MONOTONIC_TIMESTAMP", "__MONOTONIC_TIMESTAMP", "SYSLOG_IDENTIFIER", "MESSAGE_ID",
    "MESSAGE", "__CURSOR",
)  # fmt: skip
FIELDS = st.dictionaries(
    st.sampled_from(NAMES), VALUES | st.sampled_from(["kernel", "driver", MISSED, "Missed 5 kernel messages", "9" * 40])
)
GARBAGE = (
    st.none()
    | st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b""))
    | FIELDS.map(lambda fields: json.dumps({**entry(1, "odd"), **fields}).encode())
)


@settings(deadline=None)
@given(st.lists(st.text("ab\n", max_size=12).map(str.encode)))
def test_however_a_pipe_cuts_them_lines_are_whole_or_too_long(chunks: list[bytes]) -> None:
    pieces, found = Pieces(5), []
    for chunk in chunks:
        found += pieces.add(chunk)
        assert len(pieces.rest) <= 6
    *lines, _ = b"".join(chunks).split(b"\n")
    assert found == [line if len(line) <= 5 else None for line in lines]


class Played(Journald):
    """A journal whose lines are given."""

    lines: tuple[bytes | None, ...] = ()

    async def _look(self) -> None:
        pass

    async def _lines(self, cursor: str) -> AsyncGenerator[bytes | None, None]:
        for line in self.lines:
            yield line
        await asyncio.Event().wait()


@settings(deadline=None)
@given(st.lists(GARBAGE, max_size=8), st.lists(GARBAGE, max_size=8))
def test_whatever_lies_between_them_the_kernels_lines_come_through(
    before: list[bytes | None], between: list[bytes | None]
) -> None:
    def line(number: int) -> bytes:
        return json.dumps(entry(number, f"line {number}")).encode()

    async def all_of_it() -> list[KernelRecord]:
        log = Played(SystemClock(), OURS, uptime_s=time.monotonic, kernel_boot_id=BOOT)
        log.lines = (*before, line(500), *between, line(501))
        found = []
        async with asyncio.timeout(10), aclosing(log.records()) as records:
            async for record in records:
                found.append(record)
                if record.text == "line 501":
                    return found
        raise AssertionError("it ended")

    found = asyncio.run(all_of_it())
    assert [record.text for record in found if record.text.startswith("line ")] == ["line 500", "line 501"]
    assert all(record.lost >= 0 and len(record.text) < 9000 for record in found)
