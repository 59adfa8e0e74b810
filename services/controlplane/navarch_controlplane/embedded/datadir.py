"""The data directory: who holds it, which ports its servers keep, and what runs there now."""

import fcntl
import os
import random
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from navarch_common.errors import NavarchError

S = TypeVar("S", bound=msgspec.Struct)

_PORTS = range(10_000, 32_000)
"""Ports to choose from. Above is where most systems take the ports of outgoing connections: one of our own clients,
reconnecting while the server is down, could hold the server's port, or even be connected to itself."""

_ORPHANS_GO_S = 2.0
"""How long to wait for a lock whose taker is gone: its servers die with it, but not before it."""
_CLOCK_STEP_S = 2.0
"""Start times are counted from a boot time that moves a little when the clock is set."""


class DataDirInUse(NavarchError):
    """Something else holds the data directory; the message says what, since when and where."""


class DataDirUnusable(NavarchError):
    """The data directory cannot be made or written."""


class Runtime(msgspec.Struct, frozen=True):
    """What runs in a data directory, for scripts: full URLs. Written when all is ready, removed on stop."""

    http: str
    grpc: str
    nats: str
    redis: str
    pid: int
    started_at: float
    """When the process started, seconds since 1970: a pid alone may be another's by now."""

    @property
    def alive(self) -> bool:
        return is_running(self.pid, self.started_at)


class Holder(msgspec.Struct, frozen=True):
    """Who took the lock."""

    pid: int
    started_at: float
    since: str
    """Local time, for the person who is refused."""
    command: str


class Ports(msgspec.Struct):
    """Chosen once, then kept, so that agents that outlive us find the same address again."""

    nats: int = 0
    redis: int = 0


class DataDir:
    """A data directory, not necessarily held. `lock()` takes it."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.lock_descriptor = -1
        """Inherited by the servers: the lock stands as long as any process has it open."""

    @contextmanager
    def lock(self, command: str, since: str) -> Iterator[None]:
        """Holds the directory, which is made where missing. Raises `DataDirInUse`, `DataDirUnusable`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirUnusable(
                f"data directory {self.path}: {error.strerror}; name another with --data-dir"
            ) from error
        try:
            self._take(descriptor)
            me = Holder(pid=os.getpid(), started_at=started_at(os.getpid()) or 0.0, since=since, command=command)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(me) + b"\n", 0)
            self.lock_descriptor = descriptor
            yield
        finally:
            self.lock_descriptor = -1
            os.close(descriptor)

    def read_ports(self) -> Ports:
        """The ports of an earlier start; zeros where there was none or the file cannot be read."""
        return _read(self.path / "ports.json", Ports) or Ports()

    def write_ports(self, ports: Ports) -> None:
        write_atomically(self.path / "ports.json", msgspec.json.encode(ports))

    def read_runtime(self) -> Runtime | None:
        return _read(self.path / "runtime.json", Runtime)

    def write_runtime(self, runtime: Runtime) -> None:
        write_atomically(self.path / "runtime.json", msgspec.json.encode(runtime))

    def remove_runtime(self) -> None:
        (self.path / "runtime.json").unlink(missing_ok=True)

    def _take(self, descriptor: int) -> None:
        """Locks the file. Servers of a process that was killed a moment ago are given time to go."""
        patience = time.monotonic() + _ORPHANS_GO_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = _read(self.path / "lock", Holder)
                if (holder is not None and is_running(holder.pid, holder.started_at)) or time.monotonic() > patience:
                    raise DataDirInUse(self._who_holds_it(holder)) from error
                time.sleep(0.02)
            else:
                return

    def _who_holds_it(self, holder: Holder | None) -> str:
        runtime = self.read_runtime()
        if holder is not None and is_running(holder.pid, holder.started_at):
            where = f", HTTP at {runtime.http}" if runtime is not None and runtime.alive else ""
            return (
                f"data directory {self.path} is in use by pid {holder.pid} ({holder.command}, since {holder.since}{where}); "
                "stop that first, or name another directory with --data-dir"
            )
        orphans = ", ".join(f"pid {pid} ({name})" for pid, name in _who_has_open(self.path / "lock"))
        return (
            f"data directory {self.path} was left behind, and {orphans or 'a process that cannot be seen from here'} "
            "still works in it; end that first, or name another directory with --data-dir"
        )


def started_at(pid: int) -> float | None:
    """When a living process started, seconds since 1970; None where there is none, or only its remains."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def is_running(pid: int, since: float) -> bool:
    """Whether the process that started then still runs, and not another that got its pid."""
    start = started_at(pid)
    return start is not None and abs(start - since) < _CLOCK_STEP_S


def port_is_free(port: int) -> bool:
    """Whether a server could listen there now, on the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def choose_port(rng: random.Random, taken: set[int]) -> int:
    """A free port of the loopback address that outgoing connections will not take."""
    for _ in range(1000):
        port = rng.choice(_PORTS)
        if port not in taken and port_is_free(port):
            return port
    raise DataDirUnusable(f"no free port of 127.0.0.1 found between {_PORTS.start} and {_PORTS.stop}")


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file that readers see whole or not at all, and that survives a power cut."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(data + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _read(path: Path, kind: type[S]) -> S | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def _who_has_open(path: Path) -> list[tuple[int, str]]:
    """Processes that have a file open, as far as the system lets us see."""
    if sys.platform != "linux":
        return []
    wanted, found = path.stat(), []
    for process in psutil.process_iter(["name"]):
        try:
            for entry in os.scandir(f"/proc/{process.pid}/fd"):
                status = os.stat(entry.path)  # noqa: PTH116 a directory of magic links: a Path for each would only cost
                if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append((process.pid, str(process.info["name"])))
                    break
        except (OSError, psutil.Error):
            continue
    return found
