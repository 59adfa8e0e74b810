"""The kernel's own log, `/dev/kmsg`: one record a read, in a ring that overwrites what nobody read in time.

What it holds is this boot's alone. Facts about the device that shaped this file: a read into a buffer that is too small
fails *and skips the record*, so the buffer is 8 KiB; an overrun is one EPIPE, after which reading goes on at the oldest
record that is kept, and the loss is the gap in the kernel's sequence numbers.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timedelta
from pathlib import Path

from navarch_agent.log.base import KernelLogUnavailable, KernelRecord
from navarch_common.clock import Clock

DEVICE = Path("/dev/kmsg")
RECORD_BYTES_MAX = 8192

_RECORD = re.compile(rb"(?P<priority>\d{1,5}),(?P<sequence>\d{1,20}),(?P<usec>\d{1,20}),[^;\n]*;(?P<text>[^\n]*)")


class Kmsg:
    """A `KernelLog` over `/dev/kmsg`.

    The constructor opens nothing. `uptime_s` tells the kernel's own clock (`time.monotonic`); records are dated by it and `clock`. `read` is `os.read`.
    """

    def __init__(
        self,
        clock: Clock,
        boot_id: str,
        *,
        uptime_s: Callable[[], float],
        path: Path = DEVICE,
        read: Callable[[int, int], bytes] = os.read,
    ) -> None:
        self._clock = clock
        self._boot_id = boot_id
        self._uptime_s = uptime_s
        self._path = path
        self._read = read

    async def records(self, place: str = "") -> AsyncGenerator[KernelRecord, None]:
        boot_id, _, sequence = place.rpartition("/")
        last = int(sequence) if boot_id == self._boot_id and sequence.isdigit() else None
        booted_at = self._clock.now() - timedelta(seconds=self._uptime_s())
        fd = self._open()
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            loop.add_reader(fd, readable.set)
            while True:
                readable.clear()
                raw = self._next(fd)
                if raw is None:
                    await readable.wait()
                    continue
                record = self._record(raw, last, booted_at)
                if record is not None:
                    last = record.sequence
                    yield record
        finally:
            loop.remove_reader(fd)
            os.close(fd)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise KernelLogUnavailable(f"the kernel log {self._path} cannot be opened: {error.strerror}") from error

    def _next(self, fd: int) -> bytes | None:
        """Return the next record that is kept, None where there is none yet."""
        while True:
            try:
                raw = self._read(fd, RECORD_BYTES_MAX)
            except BlockingIOError:
                return None
            except OSError as error:
                # EPIPE: the ring was overrun. EINVAL: a record longer than the buffer. Both show as a gap in sequence.
                if error.errno not in (errno.EPIPE, errno.EINVAL):
                    raise KernelLogUnavailable(
                        f"the kernel log {self._path} cannot be read: {error.strerror}"
                    ) from error
            else:
                if not raw:
                    raise KernelLogUnavailable(f"{self._path} ends like a plain file: it is no kernel log device")
                return raw

    def _record(self, raw: bytes, last: int | None, booted_at: datetime) -> KernelRecord | None:
        match = _RECORD.match(raw)
        if match is None:
            return None
        sequence = int(match["sequence"])
        if last is not None and sequence <= last:
            return None
        printed_at = booted_at + timedelta(microseconds=min(int(match["usec"]), 10**16))
        return KernelRecord(
            sequence=sequence,
            at=min(printed_at, self._clock.now()),
            text=match["text"].decode("utf-8", "backslashreplace"),
            boot_id=self._boot_id,
            lost=0 if last is None else sequence - last - 1,
            place=f"{self._boot_id}/{sequence}",
        )
