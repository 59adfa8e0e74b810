"""A process goes on whatever becomes of those who read its log."""

import json
import logging
import os
import pty
import socket
import subprocess
import sys
import tty
from pathlib import Path
from typing import Any

import pytest

from navarch_common.log_sink import PENDING_BYTES_MAX, NeverWaitingHandler, never_waiting

TALKS = """
import sys
from pathlib import Path
import structlog
from navarch_common.log import configure
configure("info", service="talks")
log = structlog.get_logger()
for number in range(int(sys.argv[2])):
    log.info("x" * 200, number=number)
Path(sys.argv[1]).write_text("went on")
"""
PATIENCE_S = 60


def talks(said_by: Path, lines: int, stderr: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", TALKS, str(said_by), str(lines)], stderr=stderr)


@pytest.mark.parametrize("reader", ["hangs", "is gone"])
def test_a_process_whose_log_nobody_takes_goes_on_and_ends(tmp_path: Path, reader: str) -> None:
    process = talks(tmp_path / "told", 20_000, subprocess.PIPE)
    assert process.stderr is not None
    if reader == "is gone":
        process.stderr.close()
    assert process.wait(timeout=PATIENCE_S) == 0
    assert (tmp_path / "told").read_text() == "went on"


def test_a_terminal_that_was_stopped_and_a_journal_that_hangs_stop_nobody(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    left, right = socket.socketpair()
    for name, sink in (("terminal", theirs), ("journal", right.fileno())):
        assert talks(tmp_path / name, 20_000, sink).wait(timeout=PATIENCE_S) == 0
        assert (tmp_path / name).exists()
    os.close(ours)
    os.close(theirs)
    left.close()
    right.close()


def test_a_reader_that_is_fast_enough_gets_every_line_whole(tmp_path: Path) -> None:
    _, errors = talks(tmp_path / "told", 20_000, subprocess.PIPE).communicate(timeout=PATIENCE_S)
    told = [json.loads(line) for line in errors.splitlines()]
    numbers = [line["number"] for line in told if "number" in line]
    lost = sum(int(line["event"].split()[0]) for line in told if "were dropped" in line["event"])
    assert numbers == sorted(numbers)
    assert len(numbers) + lost == 20_000
    assert len(numbers) > 1000


class Reader:
    """Takes so many bytes, and no more."""

    def __init__(self) -> None:
        self.room = 0
        self.taken = b""

    def write(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.taken += taken
        return len(taken)


def say(handler: logging.Handler, text: str) -> None:
    handler.handle(logging.LogRecord("n", logging.INFO, "f", 1, text, None, None))


def test_what_does_not_fit_waits_and_comes_first_in_order() -> None:
    reader = Reader()
    handler = NeverWaitingHandler(reader.write)
    say(handler, "one")
    reader.room = 5  # not a whole number of lines
    say(handler, "two")
    assert reader.taken == b"one\nt"
    reader.room = 100
    handler.flush()
    assert reader.taken == b"one\ntwo\n"


def test_what_waits_is_bounded_and_what_was_lost_is_counted_and_told() -> None:
    reader = Reader()
    handler = NeverWaitingHandler(reader.write)
    lines = 3 * PENDING_BYTES_MAX // 1000
    for _ in range(lines):
        say(handler, "x" * 999)
    kept = PENDING_BYTES_MAX // 1000
    assert handler.dropped == lines - kept
    reader.room = 10 * PENDING_BYTES_MAX
    say(handler, "after")
    told = reader.taken.splitlines()
    assert told[:kept] == [b"x" * 999] * kept
    assert told[kept:] == [b"%d log lines were dropped: nobody took them" % (lines - kept), b"after"]
    assert handler.dropped == 0


def test_a_plain_file_and_what_is_no_file_are_written_as_ever(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        assert never_waiting(file) is None
