"""What one look at the host says, and how the kernel's files are read. Pure: text in, values out.

A file that says something else than we know is None or left out, never an error and never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

KERNEL_THREAD: Final = 0x00200000
"""PF_KTHREAD of include/linux/sched.h."""
COUNT_MAX: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """How full one file system is. None: not known."""

    mount: str
    used_ratio: float | None = None
    """As df says it: of what is not kept for root."""
    free_bytes: int = 0
    inodes_used_ratio: float | None = None
    """None also where a file system has as many as it likes."""
    free_inodes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    point: str
    read_only: bool = False
    turned: bool = False
    """The kernel took writing away: the file system is read-only below a mount that is not. Who mounts one read-only on
    purpose, as a system from an image does, marks both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that waits in the kernel, or is a zombie."""

    pid: int
    name: str
    state: str
    started: int = 0
    """In clock ticks after the boot: with the pid it names one process."""
    cpu_ticks: int = 0
    kernel_thread: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One InfiniBand or RoCE port."""

    name: str
    """As `mlx5_0/1`."""
    state: str | None = None
    """`active`, `down`, `init`, `armed`… None: not known."""
    phys_state: str = ""
    rate: str = ""
    link_layer: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Those that could be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """What the kernel thinks of its own clock, by adjtimex(2)."""

    synchronized: bool
    error_s: float = 0.0
    """As estimated by whoever keeps the clock. Without meaning while it is not synchronized."""
    error_s_max: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReading:
    """One look. None: not known, or not to be found on this machine."""

    disks: tuple[Disk, ...] = ()
    mounts: tuple[Mount, ...] | None = None
    """Those of the places that matter."""
    data_mount: str = ""
    """The mount that the agent itself writes to."""
    memory_available_ratio: float | None = None
    load: float | None = None
    """Of the last minute. A figure of other news, no news of its own."""
    processes: tuple[Process, ...] | None = None
    """Those that wait in the kernel (D) and zombies (Z)."""
    ports: tuple[Port, ...] | None = None
    fabric_manager: str | None = None
    """The state of its unit. None also where there are no NVSwitches, or no such unit."""
    peermem: bool | None = None
    """None also where there is nothing that it would connect."""
    clock: ClockReading | None = None


class HostReader(Protocol):
    """Looks at one machine."""

    doing: str
    """What it looks at right now: where it hangs, if it does. Read from another thread."""

    def look(self) -> HostReading:
        """Block until everything was read. What cannot be read is unknown; a kernel that hangs makes it hang."""
        ...


def mounts(text: str) -> tuple[Mount, ...]:
    """Read /proc/self/mountinfo, in its order: of two at one point the later one lies on top."""
    found = []
    for line in text.splitlines():
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        behind = fields[fields.index("-", 6) + 1 :]
        if len(behind) < 3 or not fields[4].startswith("/"):
            continue
        mount_read_only = "ro" in fields[5].split(",")
        below_read_only = "ro" in behind[2].split(",")
        found.append(
            Mount(
                point=_unescaped(fields[4]),
                read_only=mount_read_only or below_read_only,
                turned=below_read_only and not mount_read_only,
            )
        )
    return tuple(found)


def mount_of(path: str, among: Iterable[Mount]) -> Mount | None:
    """Return the mount that `path`, absolute and without links, lies on."""
    best: Mount | None = None
    for mount in among:
        inside = mount.point in ("/", path) or path.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def process(text: str) -> Process | None:
    """Read /proc/PID/stat. The name may hold anything, blanks and parentheses too."""
    head, opening, rest = text.partition("(")
    name, closing, rest = rest.rpartition(")")
    fields = rest.split()
    pid = count(head)
    if not opening or not closing or pid is None or len(fields) < 20:
        return None
    flags, user, system, started = (count(fields[place]) for place in (6, 11, 12, 19))
    if flags is None or user is None or system is None or started is None:
        return None
    return Process(
        pid=pid,
        name=name[:64],
        state=fields[0][:1],
        started=started,
        cpu_ticks=user + system,
        kernel_thread=bool(flags & KERNEL_THREAD),
    )


def memory_available_ratio(text: str) -> float | None:
    """Read /proc/meminfo."""
    said = dict(re.findall(r"^(MemTotal|MemAvailable):\s+([0-9]{1,18}) kB\s*$", text, re.MULTILINE | re.ASCII))
    total, available = count(said.get("MemTotal", "")), count(said.get("MemAvailable", ""))
    return None if not total or available is None else min(available / total, 1.0)


def load(text: str) -> float | None:
    """Read /proc/loadavg: of the last minute."""
    match = re.match(r"([0-9]{1,9}\.[0-9]{1,4}) ", text)
    return None if match is None else float(match[1])


def modules(text: str) -> frozenset[str]:
    """Read /proc/modules: the names of those that are alive."""
    lines = (line.split() for line in text.splitlines())
    return frozenset(fields[0] for fields in lines if len(fields) >= 5 and fields[4] == "Live")


def port_word(text: str) -> str | None:
    """Read a port's `state` or `phys_state`, as `4: ACTIVE`."""
    match = re.fullmatch(r"[0-9]{1,3}: ?([A-Za-z][A-Za-z_ ]{0,40}?)\s*", text)
    return None if match is None else match[1].lower()


def count(text: str) -> int | None:
    """Read a number as the kernel prints it; what is too large for JSON is as large as that."""
    text = text.strip(" \t\n")
    return min(int(text), COUNT_MAX) if re.fullmatch(r"[0-9]{1,20}", text) else None


def unit_state(text: str) -> str | None:
    """Read what `systemctl show` says of LoadState and ActiveState. None where systemd knows no such unit."""
    said = dict(line.partition("=")[::2] for line in text.splitlines())
    active = said.get("ActiveState", "")
    return active[:32] if said.get("LoadState") == "loaded" and re.fullmatch(r"[a-z]+", active) else None


def _unescaped(point: str) -> str:
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), point)
