"""What a machine says of itself: its names, its kernel, its boot, how busy it is."""

from __future__ import annotations

import platform
import socket
import time
from pathlib import Path
from typing import Protocol

import msgspec

from navarch_common.clock import Clock
from navarch_common.errors import NavarchError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
ADDRESSES_MAX = 32


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change while a machine runs."""

    hostname: str = ""
    addresses: tuple[str, ...] = ()
    kernel: str = ""


class HostLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How busy it is now, 0 to 1. None: not known."""

    cpu_ratio: float | None = None
    memory_ratio: float | None = None


class Host(Protocol):
    """One machine."""

    def facts(self) -> HostFacts: ...

    def load(self) -> HostLoad: ...

    def uptime_s(self) -> float:
        """Return seconds that rise within a boot, across restarts of the agent."""
        ...


class BootIdUnknown(NavarchError):
    """Without a boot id, one boot's reports cannot be told from another's."""


class LinuxHost:
    """The machine that we run on, by psutil and /proc."""

    def __init__(self) -> None:
        # Here and not above: a simulated fleet in one process does without it.
        import psutil

        self._psutil = psutil
        psutil.cpu_percent(None)  # the first answer is about nothing; the next ones are about the time since

    def facts(self) -> HostFacts:
        return HostFacts(
            hostname=socket.gethostname()[:256], addresses=self._addresses(), kernel=platform.release()[:256]
        )

    def load(self) -> HostLoad:
        return HostLoad(
            cpu_ratio=_ratio(self._psutil.cpu_percent(None)), memory_ratio=_ratio(self._psutil.virtual_memory().percent)
        )

    def uptime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def _addresses(self) -> tuple[str, ...]:
        families = (socket.AF_INET, socket.AF_INET6)
        found = [
            entry.address.partition("%")[0]
            for entries in self._psutil.net_if_addrs().values()
            for entry in entries
            if entry.family in families
        ]
        return tuple(a for a in dict.fromkeys(found) if not a.startswith(("127.", "::1", "fe80:")))[:ADDRESSES_MAX]


class SimulatedHost:
    """A machine that only exists in a simulation, since `clock` told its first time."""

    def __init__(self, node: str, clock: Clock) -> None:
        self._facts = HostFacts(hostname=node, addresses=("127.0.0.1",), kernel="simulated")
        self._load = HostLoad(cpu_ratio=0.05, memory_ratio=0.1)
        self._clock = clock
        self._booted_at = clock.now()

    def facts(self) -> HostFacts:
        return self._facts

    def load(self) -> HostLoad:
        return self._load

    def uptime_s(self) -> float:
        return (self._clock.now() - self._booted_at).total_seconds()


def read_boot_id(path: Path = BOOT_ID) -> str:
    """Return the kernel's id of this boot. Raises `BootIdUnknown`."""
    try:
        boot_id = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BootIdUnknown(f"{path} cannot be read ({error}); give --boot-id") from error
    if not boot_id:
        raise BootIdUnknown(f"{path} is empty; give --boot-id")
    return boot_id


def _ratio(percent: float) -> float:
    return round(min(max(percent / 100, 0.0), 1.0), 4)
