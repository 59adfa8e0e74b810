"""What the open NVIDIA driver tells through tracepoints: each Xid and SXid, past the rate limits of printk.

`nvidia:nvidia_dev_xid` (kernel-open/nvidia/nv-tracepoint.h of NVIDIA's open-gpu-kernel-modules) prints
`Xid (PCI:%s): %u, %s` and `nvswitch:nvswitch_dev_sxid` (its nvswitch_event.h) `SXid (PCI:%s): %u, %s`, with the
kernel's name of the device, function and all. No header says what stands in the text beside the message (the process?
a newline?), so all that follows the code is taken as the kernel's log would have it.

Facts about tracefs that shaped this file: a new instance takes 1.4 MB for each CPU unless it is told less before the
first event is switched on; a reader is woken when the ring is half full unless `buffer_percent` is 0; what was
overwritten is told as `CPU:3 [LOST 12 EVENTS]` before the next event of that CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from navarch_agent.log.base import KernelLogUnavailable, KernelRecord
from navarch_agent.log.file import LINE_BYTES_MAX
from navarch_common.clock import Clock

ROOT = Path("/sys/kernel/tracing")
INSTANCE = "navarch"
EVENTS = {"nvidia_dev_xid": "nvidia", "nvswitch_dev_sxid": "nvswitch"}
"""Our events, and the system that each belongs to."""
BUFFER_KB = 64
"""For each CPU: hundreds of faults."""
_CHUNK_BYTES = 65_536

# A task's name comes first, is its user's choice, and has 15 bytes at most: too few to look like the rest of this.
_EVENT = re.compile(
    r"(?P<seconds>\d{1,10})\.(?P<fraction>\d{1,9}): (?P<event>nvidia_dev_xid|nvswitch_dev_sxid): (?P<text>.*)"
)
_LOST = re.compile(r"CPU:\d{1,6} \[LOST (?:(?P<count>\d{1,18}) )?EVENTS\]")
_AS_PRINTED = {"nvidia_dev_xid": "NVRM: ", "nvswitch_dev_sxid": "nvidia-nvswitch0: "}
"""What the driver puts before the same words in the kernel's log. Which switch's number it is the event does not say."""


class Tracepoints:
    """A `KernelLog` of what the tracepoints tell, in an instance of our own, so that nobody else's tracing is touched.

    It holds what came since it was first opened in this boot, each event once, and has no places: `place` is ignored.
    `root` is where tracefs is mounted. The rest is as with `Kmsg`.
    """

    def __init__(
        self,
        clock: Clock,
        boot_id: str,
        *,
        uptime_s: Callable[[], float],
        root: Path = ROOT,
        sweep_s: float = 30.0,
    ) -> None:
        self._clock = clock
        self._boot_id = boot_id
        self._uptime_s = uptime_s
        self._root = root
        self._instance = root / "instances" / INSTANCE
        self._sweep_s = sweep_s

    async def records(self, place: str = "") -> AsyncGenerator[KernelRecord, None]:  # noqa: ARG002 - the ring forgets what was read
        booted_at = self._clock.now() - timedelta(seconds=self._uptime_s())
        # In a thread: every CPU of the machine has its say in the size of a ring.
        fd = await asyncio.to_thread(self._open)
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        rest, lost = b"", 0
        try:
            loop.add_reader(fd, readable.set)
            while True:
                readable.clear()
                chunk = self._read(fd)
                if chunk is None:
                    self._switch_on()  # a driver that was loaded anew has its events switched off
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._sweep_s):
                            await readable.wait()
                    continue
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[:LINE_BYTES_MAX]
                for line in lines:
                    seen = parse(line)
                    if isinstance(seen, Seen):
                        yield self._record(seen, booted_at, lost)
                        lost = 0
                    else:
                        lost += seen
        finally:
            loop.remove_reader(fd)
            os.close(fd)
            self._switch_off()

    def _record(self, seen: Seen, booted_at: datetime, lost: int) -> KernelRecord:
        return KernelRecord(
            sequence=seen.usec,
            at=min(booted_at + timedelta(microseconds=seen.usec), self._clock.now()),
            text=seen.text,
            boot_id=self._boot_id,
            lost=lost,
            place="",
        )

    def _open(self) -> int:
        if not any(self._has(event) for event in EVENTS):
            raise KernelLogUnavailable(f"{self._root} has no events of the NVIDIA driver")
        try:
            self._instance.mkdir(exist_ok=True)
            _write(self._instance / "buffer_size_kb", str(BUFFER_KB))
            with contextlib.suppress(OSError):  # an older kernel has none, and wakes us at once
                _write(self._instance / "buffer_percent", "0")
            fd = os.open(self._instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise KernelLogUnavailable(f"no tracing in {self._instance}: {error.strerror}") from error
        if not self._switch_on():
            os.close(fd)
            self._switch_off()
            raise KernelLogUnavailable(f"no event in {self._instance} can be switched on")
        return fd

    def _has(self, event: str) -> bool:
        try:
            return (self._root / "events" / EVENTS[event] / event).is_dir()
        except OSError:  # not ours to look at
            return False

    def _switch_on(self) -> int:
        """See to it that the events that there are come; return how many."""
        count = 0
        for event, system in EVENTS.items():
            path = self._instance / "events" / system / event / "enable"
            with contextlib.suppress(OSError):
                if path.read_bytes().strip() != b"1":
                    _write(path, "1")
                count += 1
        return count

    def _switch_off(self) -> None:
        for event, system in EVENTS.items():
            with contextlib.suppress(OSError):
                _write(self._instance / "events" / system / event / "enable", "0")
        with contextlib.suppress(OSError):
            self._instance.rmdir()

    def _read(self, fd: int) -> bytes | None:
        try:
            chunk = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise KernelLogUnavailable(f"{self._instance}/trace_pipe cannot be read: {error.strerror}") from error
        if not chunk:
            raise KernelLogUnavailable(f"{self._instance}/trace_pipe has ended: somebody stopped the tracing")
        return chunk


class Seen(NamedTuple):
    """One event."""

    usec: int
    """Since boot, by the clock of the kernel's log."""
    text: str
    """As the kernel's log would have it."""


def parse(line: bytes) -> Seen | int:
    """Read one line of `trace_pipe`: an event, or how many were lost before the next one (0 for anything else)."""
    text = line[:LINE_BYTES_MAX].decode("utf-8", "backslashreplace")
    if match := _EVENT.search(text):
        usec = int(match["seconds"]) * 1_000_000 + int(match["fraction"].ljust(6, "0")[:6])
        return Seen(usec, _AS_PRINTED[match["event"]] + match["text"])
    if match := _LOST.match(text):
        return int(match["count"] or 1)
    return 0


def _write(path: Path, text: str) -> None:
    """Write into a control file of the kernel, which is there or is not: nothing is created."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
