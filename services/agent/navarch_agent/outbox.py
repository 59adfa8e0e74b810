"""Publishes what the spool holds until the bus says that it is stored.

Publishing doesn't wait for the disk: what was appended survives a kill, and after a power loss either the bus has the
report or the boot that it told of is over. So a slow or stuck disk delays no news of a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from navarch_agent.parts import Parts
from navarch_agent.spool import Entry
from navarch_common.bus.base import BusError, StreamRefused

log = structlog.get_logger("navarch.agent.outbox")


class Outbox:
    """The one publisher of a spool."""

    PUBLISH_TIMEOUT_S = 2.5
    BACKOFF_S_MIN, BACKOFF_S_MAX = 0.25, 1.0
    """At most a second: a stream that lost its leader has another within ten, and a report must wait little longer."""

    def __init__(self, parts: Parts, silent: Callable[[], bool]) -> None:
        self._spool = parts.spool
        self._bus = parts.bus
        self._rng = parts.rng
        self._silent = silent
        self._work = asyncio.Event()
        self._unsynced = asyncio.Event()
        self._empty = asyncio.Event()
        self._refused: set[str] = set()

    def wake(self) -> None:
        """Say that the spool has something new."""
        self._empty.clear()
        self._unsynced.set()
        self._work.set()

    async def run(self) -> None:
        """Publish until cancelled: at once what is new, again and again what was not acknowledged."""
        backoff_s = self.BACKOFF_S_MIN
        while True:
            self._work.clear()
            if await self._publish_all():
                backoff_s = self.BACKOFF_S_MIN
                if not self._spool.count:
                    self._empty.set()
                await self._work.wait()
                continue
            # What is new doesn't wait for the end of the backoff: one report that is refused holds up no other.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s * self._rng.uniform(0.5, 1.0)):
                    await self._work.wait()
            backoff_s = min(backoff_s * 2, self.BACKOFF_S_MAX)

    async def sync(self) -> None:
        """Bring what was spooled to the disk, in the background, until cancelled."""
        while True:
            await self._unsynced.wait()
            self._unsynced.clear()
            await self._spool.sync()

    async def flush(self, timeout_s: float) -> bool:
        """Wait until all is published, at most `timeout_s`. Tells whether it is."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._spool.count:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def _publish_all(self) -> bool:
        """Publish each waiting report once. Tells whether all that was tried is stored."""
        if self._silent():
            return False
        stored, waiting = True, self._spool.waiting()
        self._refused &= {entry.id for entry in waiting}
        for entry in waiting:
            if entry.id not in self._spool:
                continue  # given up, or made pointless by a newer one, while others were published
            try:
                await self.publish(entry)
            except StreamRefused as error:
                # A full or missing stream may refuse one report and take the next: none blocks the others.
                stored = False
                self._note_refusal(entry, str(error))
            except BusError:
                return False
            else:
                self._refused.discard(entry.id)
                self._spool.acknowledge(entry.id)
        return stored

    async def publish(self, entry: Entry) -> None:
        """Publish one report, under its own id and in its own trace. Raises `BusError`."""
        headers = {"traceparent": entry.trace} if entry.trace else None
        await self._bus.publish_durable(
            entry.subject, entry.data, msg_id=entry.id, headers=headers, timeout_s=self.PUBLISH_TIMEOUT_S
        )

    def _note_refusal(self, entry: Entry, why: str) -> None:
        """Log a refusal, once for each report."""
        if entry.id not in self._refused:
            log.warning("the bus refuses a report, it is kept", id=entry.id, why=why, waiting=self._spool.count)
        self._refused.add(entry.id)
