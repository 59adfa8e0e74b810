import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from navarch_controlplane.embedded import datadir
from navarch_controlplane.embedded.datadir import DataDir, DataDirInUse, DataDirUnusable, Ports, Runtime

SINCE = "2026-01-01 10:00:00"


def test_a_second_holder_is_told_who_holds_it_and_where(tmp_path: Path) -> None:
    first = DataDir(tmp_path / "data")
    with first.lock("navarch up", SINCE):
        first.write_runtime(
            Runtime(
                http="http://127.0.0.1:8080",
                grpc="127.0.0.1:50051",
                nats="n",
                redis="r",
                pid=os.getpid(),
                started_at=datadir.started_at(os.getpid()) or 0.0,
            )
        )
        with pytest.raises(DataDirInUse) as refusal, DataDir(tmp_path / "data").lock("navarch up", SINCE):
            pytest.fail("taken twice")
    message = str(refusal.value)
    for part in (f"pid {os.getpid()}", "navarch up", SINCE, "http://127.0.0.1:8080", "--data-dir"):
        assert part in message


def test_the_directory_can_be_taken_again_after_it_was_let_go(tmp_path: Path) -> None:
    for _ in range(2):
        with DataDir(tmp_path).lock("navarch up", SINCE):
            pass


def test_an_orphan_that_inherited_the_lock_keeps_others_out_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datadir, "_ORPHANS_GO_S", 0.05)
    held = DataDir(tmp_path)
    with held.lock("navarch up", SINCE):
        orphan = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(held.lock_descriptor,)
        )
    try:
        (tmp_path / "lock").write_text(
            json.dumps({"pid": 2**22 + 1, "started_at": 1.0, "since": SINCE, "command": "x"})
        )
        with pytest.raises(DataDirInUse) as refusal, DataDir(tmp_path).lock("navarch up", SINCE):
            pytest.fail("taken from under an orphan")
        assert f"pid {orphan.pid}" in str(refusal.value)
    finally:
        orphan.communicate(b"\n", timeout=10)


def test_an_orphan_that_goes_a_moment_later_is_waited_for(tmp_path: Path) -> None:
    held = DataDir(tmp_path)
    with held.lock("navarch up", SINCE):
        orphan = subprocess.Popen(["sleep", "0.3"], pass_fds=(held.lock_descriptor,))
    (tmp_path / "lock").write_text(json.dumps({"pid": 2**22 + 1, "started_at": 1.0, "since": SINCE, "command": "x"}))
    with DataDir(tmp_path).lock("navarch up", SINCE):
        pass
    orphan.wait(timeout=10)


def test_a_pid_that_was_given_to_another_process_is_not_the_holder(tmp_path: Path) -> None:
    stale = Runtime(http="h", grpc="g", nats="n", redis="r", pid=os.getpid(), started_at=1.0)
    assert not stale.alive


def test_a_directory_that_cannot_be_made_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataDirUnusable, match="file/data"),
        DataDir(tmp_path / "file" / "data").lock("navarch up", SINCE),
    ):
        pytest.fail("made inside a file")


def test_the_lock_is_not_inherited_by_processes_that_are_not_servers(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    with data.lock("navarch up", SINCE):
        other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        signal.setitimer(signal.ITIMER_REAL, 10.0)  # The kernel closes the other's descriptor a moment after its start.
        with (tmp_path / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        other.communicate(b"\n", timeout=10)


def test_ports_are_remembered_and_nonsense_in_their_file_is_forgotten(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    assert data.read_ports() == Ports()
    data.write_ports(Ports(nats=12345, redis=23456))
    assert data.read_ports() == Ports(nats=12345, redis=23456)
    (tmp_path / "ports.json").write_text("{")
    assert data.read_ports() == Ports()


def test_a_chosen_port_is_free_and_not_one_that_outgoing_connections_take() -> None:
    port = datadir.choose_port(random.Random(1), taken=set())
    assert 10_000 <= port < 32_000
    assert datadir.port_is_free(port)
    assert datadir.choose_port(random.Random(1), taken={port}) != port


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not datadir.port_is_free(server.getsockname()[1])


def test_a_draft_is_never_seen_under_the_files_name(tmp_path: Path) -> None:
    datadir.write_atomically(tmp_path / "runtime.json", b"{}")
    assert [file.name for file in tmp_path.iterdir()] == ["runtime.json"]
