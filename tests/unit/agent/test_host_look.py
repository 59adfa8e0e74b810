"""The look at a host: what each file becomes, what cannot be read is unknown, and reading does no harm."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from navarch_agent import host_look
from navarch_agent.host_reading import HostReading, Mount, Port
from support.host_tree import DATA_MOUNT, ROOT_MOUNT, HostTree


@pytest.fixture
def tree(tmp_path: Path) -> HostTree:
    return HostTree(tmp_path)


def test_a_healthy_host_is_read_in_full(tree: HostTree) -> None:
    found = tree.reader().look()
    assert [(disk.mount, disk.used_ratio, disk.inodes_used_ratio) for disk in found.disks] == [
        ("/", 0.5, 0.1),
        ("/data", 0.2, 0.1),
    ]
    assert found.disks[0].free_bytes == 500 * 4096
    assert (found.mounts, found.data_mount) == ((Mount(point="/"), Mount(point="/data")), "/data")
    assert (found.memory_available_ratio, found.load, found.processes) == (0.5, 1.5, ())
    assert (found.fabric_manager, found.peermem, found.clock) == ("active", True, tree.clock)
    assert found.ports is not None
    assert [port.name for port in found.ports] == ["mlx5_0/1", "mlx5_1/1"]
    assert found.ports[0] == Port(
        name="mlx5_0/1",
        state="active",
        phys_state="linkup",
        rate="400 Gb/sec (4X NDR)",
        link_layer="InfiniBand",
        counters={"link_downed": 3, "symbol_error": 0, "link_error_recovery": 2},
    )


def test_only_processes_that_wait_in_the_kernel_and_zombies_are_read(tree: HostTree) -> None:
    tree.process(7, "D")
    tree.process(8, "Z")
    tree.process(9, "R")
    tree.write("proc/10/stat", "garbage")
    (tree.root / "proc/11").mkdir()
    found = tree.reader().look().processes
    assert found is not None
    assert sorted((process.pid, process.state) for process in found) == [(7, "D"), (8, "Z")]


def test_file_systems_that_are_one_are_looked_at_once(tree: HostTree) -> None:
    tree.write("proc/self/mountinfo", f"{ROOT_MOUNT}\n")
    assert [disk.mount for disk in tree.reader().look().disks] == ["/"]


def test_a_file_is_read_to_its_end(tree: HostTree) -> None:
    assert len(host_look._read(Path("/proc/self/smaps"))) > 20_000, "and the kernel gives one page at a time"
    many = "".join(f"{n} 27 0:{n} / /run/{n} rw - tmpfs tmpfs rw\n" for n in range(5000))
    tree.write("proc/self/mountinfo", f"{ROOT_MOUNT}\n{many}{DATA_MOUNT.replace('rw', 'ro')}\n")
    assert tree.reader().look().mounts == (Mount(point="/"), Mount(point="/data", read_only=True))


@pytest.mark.parametrize(
    ("gone", "field"),
    [
        ("proc/self", "mounts"),
        ("proc/meminfo", "memory_available_ratio"),
        ("proc/loadavg", "load"),
        ("proc", "processes"),
        ("sys", "ports"),
        ("proc/driver/nvidia-nvswitch", "fabric_manager"),
        ("proc/driver/nvidia", "peermem"),
        ("proc/modules", "peermem"),
        ("sys/class/infiniband", "peermem"),
    ],
)
def test_what_is_not_there_is_unknown_and_the_rest_is_read(tree: HostTree, gone: str, field: str) -> None:
    path = tree.root / gone
    path.unlink() if path.is_file() else shutil.rmtree(path)
    found = tree.reader().look()
    assert getattr(found, field) is None
    assert found.clock is not None


def test_a_machine_without_network_ports_has_none(tree: HostTree) -> None:
    shutil.rmtree(tree.root / "sys/class/infiniband")
    assert tree.reader().look().ports == ()


def test_a_machine_without_nvswitches_is_not_asked_for_a_fabric_manager(tree: HostTree) -> None:
    shutil.rmtree(tree.root / "proc/driver/nvidia-nvswitch")
    tree.reader().look()
    assert tree.asked == []


def raising(error: Exception) -> Any:
    def fail(*_: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("more", "read"),
    [
        ({"statvfs": raising(OSError(errno.EIO, "I/O error"))}, lambda found: found.disks[0].used_ratio),
        ({"clock": raising(OSError(errno.EPERM, "not permitted"))}, lambda found: found.clock),
        ({"unit": raising(FileNotFoundError("systemctl"))}, lambda found: found.fabric_manager),
        ({"unit": raising(subprocess.TimeoutExpired("systemctl", 10))}, lambda found: found.fabric_manager),
        ({"unit": lambda _: "rubbish"}, lambda found: found.fabric_manager),
    ],
)
def test_what_answers_an_error_is_unknown_and_said_once(tree: HostTree, more: dict[str, Any], read: Any) -> None:
    reader = tree.reader(**more)
    with capture_logs() as logs:
        found = [reader.look() for _ in range(3)]
    assert [read(one) for one in found] == [None] * 3
    assert all(one.memory_available_ratio == 0.5 for one in found)
    assert max(Counter(str(entry["what"]) for entry in logs).values(), default=1) == 1
    assert {entry["log_level"] for entry in logs} <= {"info"}


def test_a_ports_file_that_answers_an_error_is_never_read_again(
    tree: HostTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = host_look._read

    def read(path: Path) -> str:
        asked.append(f"{path.parts[-5]}/{path.name}")
        if path.name == "symbol_error":
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path)

    monkeypatch.setattr(host_look, "_read", read)
    reader = tree.reader()
    with capture_logs() as logs:
        found = [reader.look() for _ in range(5)]
    # One that is in both folders is asked for in the second where the first refuses, and then in neither.
    assert asked.count("mlx5_0/symbol_error") == 2
    assert asked.count("mlx5_0/link_downed") == 5
    for one in found:
        assert one.ports is not None
        assert one.ports[0].counters == {"link_downed": 3, "link_error_recovery": 2}
    assert len({str(entry["path"]) for entry in logs}) == len(logs)


def test_a_card_that_has_left_is_looked_at_again(tree: HostTree, monkeypatch: pytest.MonkeyPatch) -> None:
    real = host_look._read
    gone = True

    def read(path: Path) -> str:
        if gone and path.name == "state":
            raise OSError(errno.ENODEV, "No such device")
        return real(path)

    monkeypatch.setattr(host_look, "_read", read)
    reader = tree.reader()
    states = [[port.state for port in reader.look().ports or ()]]
    gone = False
    states.append([port.state for port in reader.look().ports or ()])
    assert states == [[None, None], ["active", "active"]]


def test_rubbish_in_every_file_is_unknown(tree: HostTree) -> None:
    for file in [path for path in tree.root.rglob("*") if path.is_file()]:
        file.write_bytes(b"\xff\x00rubbish \n\n ( ) - : =\n" * 50)
    tree.unit = "\x00"
    found = tree.reader().look()
    assert isinstance(found, HostReading)
    assert (found.memory_available_ratio, found.load, found.processes, found.fabric_manager) == (None, None, (), None)
    assert [port.state for port in found.ports or ()] == [None, None]


def test_this_machine_can_be_looked_at() -> None:
    found = host_look.LinuxHostReader(Path("/nowhere/at/all")).look()
    assert found.memory_available_ratio is not None
    assert found.processes is not None
    assert found.mounts
