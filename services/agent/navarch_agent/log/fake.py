"""A kernel log in memory, with the real one's bad habits: it overwrites what nobody read in time, and it is bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from datetime import datetime

from navarch_agent.log.base import KernelLogUnavailable, KernelRecord
from navarch_common.clock import Clock


class MemoryKernelLog:
    """Holds the last `capacity` lines of one boot. `printk` is the kernel's side."""

    def __init__(self, clock: Clock, boot_id: str, *, capacity: int = 64) -> None:
        self._clock = clock
        self._boot_id = boot_id
        self._ring: deque[tuple[int, datetime, str]] = deque(maxlen=capacity)
        self._next = 0
        self._more: asyncio.Event | None = None
        self._unavailable = ""

    def printk(self, text: str) -> None:
        """Print one line, as the kernel would; control characters and all."""
        self._ring.append((self._next, self._clock.now(), text))
        self._next += 1
        self._wake()

    def fail(self, reason: str) -> None:
        """Make the log unreadable until `fail("")`."""
        self._unavailable = reason
        self._wake()

    def reboot(self, boot_id: str) -> None:
        """Forget everything, as a new boot does."""
        self._boot_id = boot_id
        self._ring.clear()
        self._next = 0
        self._wake()

    async def records(self, place: str = "") -> AsyncGenerator[KernelRecord, None]:
        boot_id, _, sequence = place.rpartition("/")
        last = int(sequence) if boot_id == self._boot_id else None
        boot_id = self._boot_id
        while True:
            if self._unavailable:
                raise KernelLogUnavailable(self._unavailable)
            if self._boot_id != boot_id:
                boot_id, last = self._boot_id, None
            found = next((entry for entry in self._ring if last is None or entry[0] > last), None)
            if found is None:
                await self._wait()
                continue
            number, at, text = found
            lost, last = 0 if last is None else number - last - 1, number
            place = f"{boot_id}/{number}"
            yield KernelRecord(sequence=number, at=at, text=text, boot_id=boot_id, lost=lost, place=place)

    def _wake(self) -> None:
        if self._more is not None:
            self._more.set()

    async def _wait(self) -> None:
        self._more = asyncio.Event()
        await self._more.wait()
