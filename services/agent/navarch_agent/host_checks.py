"""What is wrong with the host, from one look to the next: conditions that begin, last and end. Pure.

One condition of each kind: it names all that it concerns, and is over when it concerns nothing. What could not be read
begins nothing and ends nothing. The limits have a hysteresis, so that what sways around one is told once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from navarch_agent.conditions import Conditions
from navarch_agent.host_ports import ERRORS_PER_HOUR, FLAPS, FLAPS_RELEASE, PortHistory, Ports
from navarch_agent.host_reading import ClockReading, Disk, HostReading, Mount, Process
from navarch_common.events.messages import Observation

Figures = dict[str, float | int | str | bool]

FULL, FULL_RELEASE = 0.95, 0.92
MEMORY_AVAILABLE, MEMORY_RELEASE = 0.02, 0.04
STUCK_S: Final = 300.0
"""So long a process has waited in the kernel without any time on a processor."""
ZOMBIES, ZOMBIES_RELEASE = 100, 80
ZOMBIE_LOOKS: Final = 5
FABRIC_MANAGER_LOOKS: Final = 2
"""An update of the driver restarts it: one look that finds it stopped proves nothing."""
UNSYNCHRONIZED_S: Final = 600.0
CLOCK_ERROR_S: Final = 1.0
HANG_S: Final = 60.0
"""A look takes milliseconds. One that takes so long waits for something that may never answer."""
NAMED: Final = 5
"""So many of what a condition concerns are named; the rest are counted."""


class HostChecks:
    """The conditions of one host. `now_s` is of a clock that never jumps, `at` is what observations say."""

    def __init__(self) -> None:
        self._conditions = Conditions()
        self._stands: dict[str, tuple[str, frozenset[str], int]] = {}
        """By kind: what was said of a condition that stands, what it concerns, and how often that came to be more."""
        self._ports = Ports()
        self._was_writable: set[str] = set()
        self._waiting: dict[tuple[int, int], tuple[float, int]] = {}
        """Processes that wait in the kernel: since when, and their time on processors then."""
        self._zombie_looks = 0
        self._peermem_was_loaded = False
        self._fabric_manager_looks = 0
        self._unsynchronized_since_s: float | None = None
        self._load: float | None = None

    def look(self, reading: HostReading, now_s: float, at: datetime) -> list[Observation]:
        """Return what there is to tell after a look."""
        self._load = reading.load
        return [
            *self._tell("host_look_hangs", False, at, "the look at the host came back"),
            *self._disk_full(reading.disks, at),
            *self._inodes_full(reading.disks, at),
            *self._read_only(reading.mounts, reading.data_mount, at),
            *self._memory(reading.memory_available_ratio, at),
            *self._stuck(reading.processes, now_s, at),
            *self._zombies(reading.processes, at),
            *self._all_ports(reading, now_s, at),
            *self._fabric_manager(reading.fabric_manager, at),
            *self._peermem(reading.peermem, at),
            *self._clock(reading.clock, now_s, at),
        ]

    def hangs(self, doing: str, since_s: float, now_s: float, at: datetime) -> list[Observation]:
        """Return what there is to tell of a look that began at `since_s` and has not come back from `doing`."""
        seconds = now_s - since_s
        if seconds < HANG_S:
            return []
        message = (
            f"looking at {doing} has taken {span(seconds)} so far: it hangs, and the host is not looked at meanwhile"
        )
        return self._tell("host_look_hangs", True, at, message, {"doing": doing[:200], "hangs_s": round(seconds, 1)})

    def tell_again(self) -> None:
        """What stands is told with the next look, whoever knew of it."""
        self._conditions.tell_again()

    def _disk_full(self, disks: tuple[Disk, ...], at: datetime) -> list[Observation]:
        used = {disk.mount: disk.used_ratio for disk in disks}
        full, known = self._above("disk_full", used)
        free = {disk.mount: disk.free_bytes for disk in disks}
        said = [f"{mount} is {_percent(used[mount])} full, {_gigabytes(free[mount])} are left" for mount in full]
        return self._tell("disk_full", known, at, _listed(said), _fullest(full, used), concerns=full)

    def _inodes_full(self, disks: tuple[Disk, ...], at: datetime) -> list[Observation]:
        used = {disk.mount: disk.inodes_used_ratio for disk in disks}
        full, known = self._above("inodes_full", used)
        free = {disk.mount: disk.free_inodes for disk in disks}
        said = [f"{mount} has used {_percent(used[mount])} of its inodes, {free[mount]} are left" for mount in full]
        return self._tell("inodes_full", known, at, _listed(said), _fullest(full, used), concerns=full)

    def _above(self, kind: str, used: Mapping[str, float | None]) -> tuple[list[str], bool | None]:
        """Who is over the limit, and whether anyone is; None where those who were are not known."""
        stood = self._concerned(kind)
        over, unknown = [], False
        for name, ratio in used.items():
            if ratio is None:
                unknown = unknown or name in stood
            elif ratio >= FULL_RELEASE if name in stood else ratio > FULL:
                over.append(name)
        return over, True if over else None if unknown else False

    def _read_only(self, mounts: tuple[Mount, ...] | None, data_mount: str, at: datetime) -> list[Observation]:
        """Systems from an image have a root that is read-only from the start, and that is no fault of theirs."""
        if mounts is None:
            return []
        stood = self._concerned("read_only")
        lost = []
        for mount in mounts:
            if not mount.read_only:
                self._was_writable.add(mount.point)
            elif mount.turned or mount.point in (data_mount, *stood) or mount.point in self._was_writable:
                lost.append(mount.point)
        message = f"read-only: the file system of {_listed(lost)}"
        return self._tell("read_only", bool(lost), at, message, {"mount": ", ".join(lost)[:200]}, concerns=lost)

    def _memory(self, available: float | None, at: datetime) -> list[Observation]:
        if available is None:
            return []
        low = available < (MEMORY_RELEASE if "memory_pressure" in self._stands else MEMORY_AVAILABLE)
        message = f"{_percent(available)} of the memory is available"
        return self._tell("memory_pressure", low, at, message, {"available_ratio": round(available, 4)})

    def _stuck(self, processes: tuple[Process, ...] | None, now_s: float, at: datetime) -> list[Observation]:
        """Kernel threads are left out: some wait so for all their life, and the kernel's log tells of the others."""
        if processes is None:
            return []
        before, self._waiting = self._waiting, {}
        stuck: list[tuple[float, Process]] = []
        for process in processes:
            if process.state != "D" or process.kernel_thread:
                continue
            since_s, ticks = before.get((process.pid, process.started), (now_s, process.cpu_ticks))
            if ticks != process.cpu_ticks:
                since_s = now_s  # it ran in between: it is busy with a slow disk, perhaps, and not stuck
            self._waiting[process.pid, process.started] = since_s, process.cpu_ticks
            if now_s - since_s >= STUCK_S:
                stuck.append((now_s - since_s, process))
        stuck.sort(key=lambda item: (-item[0], item[1].pid))
        names = [f"{process.name} ({process.pid})" for _, process in stuck]
        longest_s = max((waited for waited, _ in stuck), default=0.0)
        message = (
            f"{_many(len(stuck), 'process waits', 'processes wait')} in the kernel, for {span(longest_s)} at most: "
        )
        figures: Figures = {
            "count": len(stuck),
            "longest_s": round(longest_s, 1),
            "processes": ", ".join(names[:NAMED]),
        }
        concerns = [f"{process.pid}/{process.started}" for _, process in stuck]
        return self._tell("stuck_processes", bool(stuck), at, message + _listed(names), figures, concerns=concerns)

    def _zombies(self, processes: tuple[Process, ...] | None, at: datetime) -> list[Observation]:
        if processes is None:
            return []
        found = sum(process.state == "Z" for process in processes)
        many = found > (ZOMBIES_RELEASE if "zombies" in self._stands else ZOMBIES)
        self._zombie_looks = self._zombie_looks + 1 if many else 0
        lasting = self._zombie_looks >= ZOMBIE_LOOKS
        message = f"{found} processes have ended and nobody waits for them (zombies)"
        return self._tell("zombies", lasting, at, message, {"count": found})

    def _all_ports(self, reading: HostReading, now_s: float, at: datetime) -> list[Observation]:
        if reading.ports is None:
            return []
        self._ports.see(reading.ports, now_s)
        ports = self._ports.histories
        return [
            *self._port_down(ports, now_s, at),
            *self._port_flapping(ports, now_s, at),
            *self._port_errors(ports, now_s, at),
        ]

    def _port_down(self, ports: Mapping[str, PortHistory], now_s: float, at: datetime) -> list[Observation]:
        """Only ports that were active count: of another one nobody knows whether a cable was ever meant for it."""
        down = [name for name, history in ports.items() if history.down_since_s is not None]
        said = [_down(ports[name], now_s) for name in down]
        longest_s = max((now_s - (ports[name].down_since_s or 0.0) for name in down), default=0.0)
        figures: Figures = {"count": len(down), "ports": ", ".join(down)[:200], "down_s": round(longest_s, 1)}
        known: bool | None = bool(down)
        if down and all(ports[name].port.state is None for name in down):
            known = None
        return self._tell("port_down", known, at, _listed(said), figures, concerns=down)

    def _port_flapping(self, ports: Mapping[str, PortHistory], now_s: float, at: datetime) -> list[Observation]:
        stood = self._concerned("port_flapping")
        flaps = {name: history.flaps(now_s) for name, history in ports.items()}
        flapping = [name for name in flaps if flaps[name] >= (FLAPS_RELEASE if name in stood else FLAPS)]
        said = [f"port {name} went down {flaps[name]} times within 24 h" for name in flapping]
        figures: Figures = {
            "ports": ", ".join(flapping)[:200],
            "flaps": max((flaps[name] for name in flapping), default=0),
        }
        return self._tell("port_flapping", bool(flapping), at, _listed(said), figures, concerns=flapping)

    def _port_errors(self, ports: Mapping[str, PortHistory], now_s: float, at: datetime) -> list[Observation]:
        stood = self._concerned("port_errors")
        concerns, said = [], []
        figures: Figures = {}
        for name, history in ports.items():
            for counter, errors in history.errors(now_s).items():
                key = f"{name}:{counter}"
                if errors < ERRORS_PER_HOUR[counter] / (2 if key in stood else 1):
                    continue
                concerns.append(key)
                said.append(f"port {name} counted {errors} {counter} within an hour")
                figures[f"{counter}_per_hour"] = max(errors, int(figures.get(f"{counter}_per_hour", 0)))
        figures["ports"] = ", ".join(dict.fromkeys(key.partition(":")[0] for key in concerns))[:200]
        return self._tell("port_errors", bool(concerns), at, _listed(said), figures, concerns=concerns)

    def _fabric_manager(self, state: str | None, at: datetime) -> list[Observation]:
        stopped = {"active": False, "inactive": True, "failed": True}.get(state or "")
        if stopped is None:
            return []  # between two states, or not known
        self._fabric_manager_looks = self._fabric_manager_looks + 1 if stopped else 0
        holds = self._fabric_manager_looks >= FABRIC_MANAGER_LOOKS
        message = f"the fabric manager is {state}: GPUs behind NVSwitches do not reach one another without it"
        return self._tell("fabric_manager_down", holds, at, message, {"state": state or ""})

    def _peermem(self, loaded: bool | None, at: datetime) -> list[Observation]:
        """Where it never was DMA-BUF may do its work, and nobody can tell: that is a note, and said once."""
        if loaded is None:
            return []
        self._peermem_was_loaded = self._peermem_was_loaded or loaded
        if not loaded and not self._peermem_was_loaded and "peermem_missing" in self._stands:
            return []
        message = "nvidia_peermem is not loaded: network cards reach the GPUs' memory by DMA-BUF or not at all"
        figures: Figures = {"was_loaded": self._peermem_was_loaded}
        return self._tell("peermem_missing", not loaded, at, message, figures)

    def _clock(self, clock: ClockReading | None, now_s: float, at: datetime) -> list[Observation]:
        """An error is only looked at while the clock is synchronized: otherwise the kernel says 16 s whatever it is."""
        if clock is None:
            return []
        if clock.synchronized:
            self._unsynchronized_since_s = None
            holds: bool | None = clock.error_s > CLOCK_ERROR_S
            message = f"the clock is off by {clock.error_s:.1f} s, as whoever keeps it says"
            return self._tell("clock_unsynchronized", holds, at, message, {"error_s": round(clock.error_s, 3)})
        since_s = self._unsynchronized_since_s = (
            now_s if self._unsynchronized_since_s is None else self._unsynchronized_since_s
        )
        holds = True if now_s - since_s > UNSYNCHRONIZED_S else None
        message = f"nobody has kept the clock right for {span(now_s - since_s)}"
        figures: Figures = {"unsynchronized_s": round(now_s - since_s, 1), "error_s_max": round(clock.error_s_max, 3)}
        return self._tell("clock_unsynchronized", holds, at, message, figures)

    def _concerned(self, kind: str) -> frozenset[str]:
        return self._stands[kind][1] if kind in self._stands else frozenset()

    def _tell(
        self,
        kind: str,
        holds: bool | None,
        at: datetime,
        message: str,
        figures: Figures | None = None,
        *,
        concerns: list[str] | None = None,
    ) -> list[Observation]:
        """Told at once when it begins, when it concerns what it did not, and when it is over."""
        news = 0
        if holds:
            now_concerned = frozenset(concerns or ())
            _, was_concerned, news = self._stands.get(kind, ("", now_concerned, 0))
            news += bool(now_concerned - was_concerned)
            self._stands[kind] = message, now_concerned, news
        elif holds is False:
            message, _, _ = self._stands.pop(kind, (message, frozenset(), 0))

        def tell(text: str, metrics: Mapping[str, float | int | str | bool]) -> Observation:
            more: Figures = {} if self._load is None else {"load": self._load}
            return Observation(
                at=at, event_type="host", message=text[:2048], metrics={"kind": kind, **metrics, **more}, source="host"
            )

        return self._conditions.follow(kind, holds, at, tell, message, figures, amount=float(news))


def span(seconds: float) -> str:
    """Say a time as people do: `40 s`, `7 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _down(history: PortHistory, now_s: float) -> str:
    port, since_s = history.port, history.down_since_s or 0.0
    details = ", ".join(word for word in (port.link_layer, port.phys_state, port.rate) if word)
    return f"port {port.name} was active and is {port.state or 'not known'}{f' ({details})' if details else ''}" + (
        f", for {span(now_s - since_s)}" if now_s > since_s else ""
    )


def _fullest(full: list[str], used: Mapping[str, float | None]) -> Figures:
    worst = max((used[name] or 0.0 for name in full or used), default=0.0)
    return {"count": len(full), "mount": ", ".join(full)[:200], "used_ratio": round(worst, 4)}


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED
    return "; ".join(names[:NAMED]) + (f"; and {more} more" if more > 0 else "")


def _many(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _percent(ratio: float | None) -> str:
    return f"{100 * (ratio or 0.0):.1f} %"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
