"""Looks at the machine that we run on, by what its kernel shows under /proc and /sys. Blocks: it belongs into a thread.

Reading must not do harm. Some registers of network cards are refused by their firmware, and the driver prints an error
for each attempt: a file that answers an error is left alone for as long as this process runs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import structlog

from navarch_agent import host_reading as reading
from navarch_agent.host_ports import COUNTERS
from navarch_agent.host_reading import ClockReading, Disk, HostReading, Mount, Port, Process

log = structlog.get_logger("navarch.agent.host")

FILE_BYTES_MAX: Final = 4 << 20
PORTS_MAX: Final = 256
SYSTEMCTL_TIMEOUT_S: Final = 10.0
FABRIC_MANAGER: Final = "nvidia-fabricmanager.service"
PEERMEM: Final = frozenset({"nvidia_peermem", "nv_peer_mem"})

_T = TypeVar("_T")


class LinuxHostReader:
    """A `HostReader` of this machine. `root` is where /proc and /sys are; paths of file systems are those of the host."""

    def __init__(
        self,
        data_dir: Path,
        *,
        root: Path = Path("/"),
        statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
        clock: Callable[[], ClockReading] | None = None,
        unit: Callable[[str], str] | None = None,
    ) -> None:
        """`clock` and `unit` (the answer of systemd about a unit) stand in for the machine's own."""
        self.doing = "nothing"
        self._data_dir = data_dir
        self._root = root
        self._statvfs = statvfs
        self._clock = read_clock if clock is None else clock
        self._unit = ask_systemd if unit is None else unit
        self._left_alone: set[Path] = set()
        self._noted: set[str] = set()

    def look(self) -> HostReading:
        mounts = self._attempt("/proc/self/mountinfo", self._mounts)
        self.doing = str(self._data_dir)
        places, that_matter, data_mount = self._places(mounts)
        found = HostReading(
            mounts=that_matter,
            data_mount=data_mount,
            memory_available_ratio=self._attempt(
                "/proc/meminfo", lambda: reading.memory_available_ratio(self._text("proc/meminfo"))
            ),
            load=self._attempt("/proc/loadavg", lambda: reading.load(self._text("proc/loadavg"))),
            processes=self._attempt("/proc/*/stat", self._processes),
            ports=self._attempt("/sys/class/infiniband", self._ports),
            fabric_manager=self._attempt("the fabric manager's unit", self._fabric_manager),
            peermem=self._attempt("/proc/modules", self._peermem),
            clock=self._attempt("adjtimex", self._clock),
            disks=tuple(self._disk(place) for place in places),
        )
        self.doing = "nothing"
        return found

    def _attempt(self, what: str, read: Callable[[], _T]) -> _T | None:
        """Return what `read` does, None where it could not: that is said once."""
        self.doing = what
        try:
            return read()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            if what not in self._noted:
                self._noted.add(what)
                log.info("not readable on this host: unknown from here on", what=what, why=str(error)[:300])
            return None

    def _text(self, path: str) -> str:
        return _read(self._root / path)

    def _mounts(self) -> tuple[Mount, ...]:
        return reading.mounts(self._text("proc/self/mountinfo"))

    def _places(self, mounts: tuple[Mount, ...] | None) -> tuple[list[str], tuple[Mount, ...] | None, str]:
        """Return the file systems that matter, each once, their mounts as far as known, and which one is ours."""
        data_dir = os.path.realpath(self._data_dir)
        paths = ["/", "/var", data_dir]
        if mounts is None:
            return list(dict.fromkeys(paths)), None, ""
        found = [mount for path in paths if (mount := reading.mount_of(path, mounts)) is not None]
        ours = reading.mount_of(data_dir, mounts)
        that_matter = tuple({mount.point: mount for mount in found}.values())
        return [mount.point for mount in that_matter], that_matter, "" if ours is None else ours.point

    def _disk(self, place: str) -> Disk:
        return self._attempt(f"the file system at {place}", lambda: self._space(place)) or Disk(mount=place)

    def _space(self, place: str) -> Disk:
        said = self._statvfs(place)
        used, inodes_used = said.f_blocks - said.f_bfree, said.f_files - said.f_ffree
        return Disk(
            mount=place,
            used_ratio=_ratio(used, used + said.f_bavail),
            free_bytes=said.f_bavail * said.f_frsize,
            inodes_used_ratio=_ratio(inodes_used, inodes_used + said.f_favail),
            free_inodes=said.f_favail,
        )

    def _processes(self) -> tuple[Process, ...]:
        found = []
        for path in (self._root / "proc").iterdir():
            if reading.count(path.name) is None:
                continue
            try:
                process = reading.process(_read(path / "stat"))
            except OSError:
                continue  # it has ended since, or is not ours to see
            if process is not None and process.state in ("D", "Z"):
                found.append(process)
        return tuple(found)

    def _ports(self) -> tuple[Port, ...]:
        devices = self._entries("sys/class/infiniband")
        if not devices and not (self._root / "sys/class").is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no /sys/class")
        found = [
            self._port(f"{device}/{number}", self._root / "sys/class/infiniband" / device / "ports" / number)
            for device in devices
            for number in self._entries(f"sys/class/infiniband/{device}/ports")
        ]
        return tuple(found[:PORTS_MAX])

    def _port(self, name: str, path: Path) -> Port:
        state, phys_state = self._gently(path / "state"), self._gently(path / "phys_state")
        rate, link_layer = self._gently(path / "rate"), self._gently(path / "link_layer")
        counters = {}
        for counter in COUNTERS:
            said = self._gently(path / "counters" / counter)
            if said is None:
                said = self._gently(path / "hw_counters" / counter)
            if said is not None and (value := reading.count(said)) is not None:
                counters[counter] = value
        return Port(
            name=name,
            state=None if state is None else reading.port_word(state),
            phys_state=reading.port_word(phys_state or "") or "",
            rate=_line(rate),
            link_layer=_line(link_layer),
            counters=counters,
        )

    def _gently(self, path: Path) -> str | None:
        """Read what may be missing, and never again what answered an error."""
        if path in self._left_alone:
            return None
        self.doing = str(path)
        try:
            return _read(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if not isinstance(error, OSError) or error.errno != errno.ENODEV:  # the card has left; it may come back
                self._left_alone.add(path)
                log.info("a port's file answers with an error and is left alone", path=str(path), why=str(error)[:300])
            return None

    def _fabric_manager(self) -> str | None:
        if not self._entries("proc/driver/nvidia-nvswitch/devices"):
            return None
        return reading.unit_state(self._unit(FABRIC_MANAGER))

    def _peermem(self) -> bool | None:
        if not self._entries("proc/driver/nvidia/gpus"):
            return None
        if not any(device.startswith("mlx5") for device in self._entries("sys/class/infiniband")):
            return None
        return not PEERMEM.isdisjoint(reading.modules(self._text("proc/modules")))

    def _entries(self, path: str) -> list[str]:
        try:
            return sorted(entry.name for entry in (self._root / path).iterdir())
        except FileNotFoundError:
            return []


def ask_systemd(unit: str) -> str:
    """Ask systemd what it knows of `unit`. `is-active` alone calls a unit that does not exist inactive, too.

    Raises `OSError` where there is no systemctl, `subprocess.SubprocessError` where it fails or takes too long.
    """
    command = ["systemctl", "show", "--property=LoadState,ActiveState", unit]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT_S, check=True)
    return done.stdout


class _Timex(ctypes.Structure):
    """`struct timex` of linux/timex.h."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "time_s", "time_us", "tick")),
        *((name, ctypes.c_long) for name in ("ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("spare", ctypes.c_int * 11),
    )


STA_UNSYNC: Final = 0x0040


def read_clock() -> ClockReading:
    """Ask the kernel what it thinks of its clock. It needs no right to. Raises `OSError`."""
    library = ctypes.CDLL(None, use_errno=True)
    timex = _Timex(modes=0)
    if library.adjtimex(ctypes.byref(timex)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ClockReading(
        synchronized=not timex.status & STA_UNSYNC, error_s=timex.esterror / 1e6, error_s_max=timex.maxerror / 1e6
    )


def _read(path: Path) -> str:
    with path.open("rb") as file:  # buffered, and so read to its end: one call to the kernel gives one page
        return file.read(FILE_BYTES_MAX).decode("utf-8", "backslashreplace")


def _ratio(used: int, all_of_it: int) -> float | None:
    return None if all_of_it <= 0 else min(max(used / all_of_it, 0.0), 1.0)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())[:64]
