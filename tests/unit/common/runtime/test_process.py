"""Real processes, real signals."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

HEAD = """
import asyncio, sys
from navarch_common.errors import NavarchError
from navarch_common.process import UsageError, main
print("up", flush=True)
"""


def start(tmp_path: Path, body: str) -> subprocess.Popen[str]:
    script = tmp_path / "navarch-test"
    script.write_text(HEAD + textwrap.dedent(body))
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


WAITS = """
async def work():
    try:
        print("working", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.01)
        print("tidied", flush=True)
sys.exit(main(work()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_work_tidy_up_and_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, WAITS)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert out.endswith("tidied\n")


STUBBORN = """
async def work():
    while True:
        try:
            print("working", flush=True)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
sys.exit(main(work(), shutdown_s=%s))
"""


def test_work_that_does_not_end_is_ended_after_the_time_for_shutdown(tmp_path: Path) -> None:
    process = start(tmp_path, STUBBORN % 0.2)
    assert process.stdout is not None
    process.stdout.readline()
    began = time.monotonic()
    process.terminate()
    out, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert time.monotonic() - began < 5
    assert "not stopped after 0.2 s" in err + out


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, STUBBORN % 60)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline()
    time.sleep(0.6)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 1


def test_the_same_wish_by_two_ways_is_one_wish(tmp_path: Path) -> None:
    """`make` and `timeout` pass on a signal that the terminal has sent to the whole process group."""
    process = start(tmp_path, WAITS.replace("sleep(0.01)", "sleep(0.3)"))
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert out.endswith("tidied\n")


FAILS = """
async def work():
    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        await asyncio.sleep(60)
async def fail():
    raise %s
sys.exit(main(work()))
"""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ('NavarchError("no connection to NATS")', 1, "navarch-test: no connection to NATS\n"),
        ('UsageError("no address: set bus.url")', 2, "navarch-test: no address: set bus.url\n"),
    ],
)
def test_expected_trouble_is_one_line_and_a_status(tmp_path: Path, error: str, code: int, said: str) -> None:
    process = start(tmp_path, FAILS % error)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (code, said)


def test_a_bug_is_told_with_its_traceback(tmp_path: Path) -> None:
    process = start(tmp_path, FAILS % 'ZeroDivisionError("bug")')
    out, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "in fail" in out + err


def test_work_that_is_done_ends_with_0(tmp_path: Path) -> None:
    process = start(tmp_path, "sys.exit(main(asyncio.sleep(0)))")
    process.communicate(timeout=10)
    assert process.returncode == 0
