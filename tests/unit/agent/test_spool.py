"""The spool: what was put is there after any crash, what was acknowledged is not, and it stays small."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from navarch_agent.journal import Journal, JournalHeld
from navarch_agent.spool import DoneCommand, Entry, Spool


def entry(number: int, importance: int = 1, topic: str = "", size: int = 10) -> Entry:
    return Entry(id=f"id-{number}", subject="s", data=b"x" * size, importance=importance, topic=topic)


def opened(path: Path, boot: str = "boot", first: int = 1) -> Spool:
    return Spool(boot, Journal(path), first_sequence=first)


def ids(spool: Spool) -> list[str]:
    return [waiting.id for waiting in spool.waiting()]


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    done = DoneCommand(id="c1", outcome="done", text="as told")
    spool.put(entry(1), sequence=1, place="here")
    spool.put(entry(2), sequence=2, done=done)
    spool.close()
    again = opened(tmp_path)
    assert ids(again) == ["id-1", "id-2"]
    assert again.last_sequence == 2
    assert again.place == "here"
    assert again.done("c1") == done
    assert again.waiting()[0] == entry(1)


def test_what_was_acknowledged_is_gone(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in (1, 2, 3):
        spool.put(entry(number), sequence=number)
    spool.acknowledge("id-2")
    spool.acknowledge("never heard of")
    assert ids(spool) == ["id-1", "id-3"]
    spool.close()
    assert ids(opened(tmp_path)) == ["id-1", "id-3"]


def test_a_new_boot_counts_anew_and_keeps_what_waits(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.put(entry(1), sequence=41)
    spool.close()
    again = opened(tmp_path, boot="another", first=1000)
    assert again.last_sequence == 999
    assert ids(again) == ["id-1"]
    again.close()
    assert opened(tmp_path, boot="another").last_sequence == 999


def test_a_restart_in_the_same_boot_goes_on_counting(tmp_path: Path) -> None:
    spool = opened(tmp_path, first=500)
    spool.put(entry(1), sequence=500)
    spool.close()
    assert opened(tmp_path, first=7).last_sequence == 500


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path, cut: int) -> None:
    spool = opened(tmp_path)
    spool.put(entry(1), sequence=1)
    spool.put(entry(2), sequence=2)
    spool.close()
    journal = tmp_path / "journal"
    journal.write_bytes(journal.read_bytes()[:-cut])
    torn = opened(tmp_path)
    assert ids(torn) == (["id-1", "id-2"] if cut == 1 else ["id-1"])
    torn.put(entry(3), sequence=3)
    torn.close()
    assert "id-3" in ids(opened(tmp_path))


def test_a_damaged_line_costs_that_line_alone(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in (1, 2, 3):
        spool.put(entry(number), sequence=number)
    spool.close()
    journal = tmp_path / "journal"
    journal.write_bytes(journal.read_bytes().replace(b"id-2", b"id-7"))
    assert ids(opened(tmp_path)) == ["id-1", "id-3"]


def test_garbage_is_no_journal_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(os.urandom(10_000) + b"\n00000000 \n")
    spool = opened(tmp_path)
    assert ids(spool) == []
    spool.put(entry(1), sequence=1)
    spool.close()
    assert ids(opened(tmp_path)) == ["id-1"]


WRITER = """
import sys
from pathlib import Path
from navarch_agent.journal import Journal
from navarch_agent.spool import Entry, Spool
spool = Spool("boot", Journal(Path(sys.argv[1])))
number = spool.last_sequence
while True:
    number += 1
    spool.put(Entry(id=f"id-{number}", subject="s", data=b"x" * 500), sequence=number)
    print(number, flush=True)
    if number % 3 == 0:
        spool.acknowledge(f"id-{number - 1}")
"""


def test_kill_9_loses_nothing_that_was_put(tmp_path: Path) -> None:
    told = 0
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(300):
            told = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        told = max([told, *map(int, writer.stdout.read().split("\n")[:-1])])
        writer.wait()
        writer.stdout.close()
    spool = opened(tmp_path)
    assert spool.last_sequence >= told
    present = {int(found.removeprefix("id-")) for found in ids(spool)}
    # The acknowledgement of the last but one may or may not have been written.
    missing = {number for number in range(1, told + 1) if number not in present}
    assert missing <= {number - 1 for number in range(3, told + 2, 3)}


def test_two_agents_do_not_share_a_spool(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    with pytest.raises(JournalHeld, match="another agent already works in"):
        opened(tmp_path)
    spool.close()
    opened(tmp_path)


def test_a_full_spool_gives_up_the_oldest_of_the_least_important(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spool, "ENTRIES_MAX", 4)
    spool = Spool("boot")
    for number, importance in enumerate([2, 0, 1, 0, 2, 2, 1]):
        spool.put(entry(number, importance), sequence=number)
    assert ids(spool) == ["id-0", "id-4", "id-5", "id-6"]
    assert spool.dropped == 3


def test_a_spool_is_bounded_in_bytes_and_its_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spool, "BYTES_MAX", 100_000)
    monkeypatch.setattr(Spool, "_COMPACT_BYTES", 50_000)
    spool = opened(tmp_path)
    for number in range(500):
        spool.put(entry(number, size=2000), sequence=number)
    assert spool.count == 50
    assert spool.dropped == 450
    assert (tmp_path / "journal").stat().st_size < 500_000
    spool.close()
    again = opened(tmp_path)
    assert ids(again) == [f"id-{number}" for number in range(450, 500)]
    assert again.dropped == 450


def test_the_most_important_goes_first_and_of_these_the_oldest() -> None:
    spool = Spool("boot")
    for number, importance in enumerate([0, 2, 1, 2, 3]):
        spool.put(entry(number, importance), sequence=number)
    assert ids(spool) == ["id-4", "id-1", "id-3", "id-2", "id-0"]


def test_a_newer_report_on_a_topic_replaces_the_older() -> None:
    spool = Spool("boot")
    spool.put(entry(1, topic="registered"), sequence=1)
    spool.put(entry(2, topic="command/c"), sequence=2)
    spool.put(entry(3, topic="registered"), sequence=3)
    assert ids(spool) == ["id-2", "id-3"]
    assert spool.dropped == 0


def test_a_disk_that_refuses_keeps_reports_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)

    write = os.write

    def full(fd: int, raw: memoryview) -> int:
        if len(raw) < 20:
            raise OSError(28, "No space left on device")
        return write(fd, raw[:-15])  # the disk takes a part of the line, and then no more

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        spool.put(entry(1), sequence=1)
    assert ids(spool) == ["id-1"]
    assert spool.write_failures == 1
    spool.put(entry(2), sequence=2)
    spool.close()
    assert ids(opened(tmp_path)) == ["id-2"]


def test_only_so_many_done_commands_are_remembered() -> None:
    spool = Spool("boot")
    for number in range(Spool.DONE_MAX + 10):
        spool.put(entry(number), sequence=number, done=DoneCommand(id=f"c{number}", outcome="done"))
        spool.acknowledge(f"id-{number}")
    assert spool.done("c9") is None
    assert spool.done("c10") is not None


async def test_syncing_reaches_the_disk_and_forgives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    spool.put(entry(1), sequence=1)
    await spool.sync()

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    await spool.sync()
    assert spool.write_failures == 1
