"""Heartbeats in, deadlines out. The path of one heartbeat is hot: decode once, look up, note; no task, no log, no write.

What was heard is written in batches: one deadline per node and batch, however many heartbeats it sent. Every copy of
the service hears every heartbeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from navarch_common.bus.base import BusError, BusMessage
from navarch_common.events.messages import MESSAGE_BYTES_MAX, Heartbeat
from navarch_common.model.node import ended
from navarch_common.rejects import Rejects
from navarch_common.run import Deps
from navarch_common.store.base import Beat, StoreError
from navarch_health.fleet import Fleet, Tracked
from navarch_health.settings import HealthSettings

log = structlog.get_logger("navarch.health")

BATCH_S: Final = 1.0
"""Between two batches: a node that beats more often is written once."""
BATCH_MAX: Final = 1000
"""Nodes in one write, so that none holds the store for long."""
WRITE_LIMIT_S: Final = 5.0
STRAYS_MAX: Final = 1000
"""Nodes without a record that are told apart."""
YIELD_EVERY: Final = 256
"""Messages after which other tasks run: a full queue would never let them."""


class Hearing:
    """Listens to every heartbeat, and keeps their deadlines in the store."""

    def __init__(self, deps: Deps, fleet: Fleet, settings: HealthSettings, rejects: Rejects) -> None:
        self._deps, self._fleet, self._rejects = deps, fleet, rejects
        self._decoder = msgspec.json.Decoder(Heartbeat)
        self._prefix_length = len(deps.subjects.heartbeats) - 1
        self._pending: dict[str, tuple[Tracked, datetime, float, bytes]] = {}
        self._heard = self._told = 0
        self._write_failures = 0
        self.listening_since: datetime | None = None
        """None while nothing is subscribed."""
        self.attended: set[str] = set()
        """Nodes whose heartbeat may change what is thought of them: taken by the watch."""
        self.wake = asyncio.Event()
        self._strays: dict[str, int] = {}
        """Nodes heard without a known record, and how many looks at the records had begun by then."""
        self.take_settings(settings)

    def take_settings(self, settings: HealthSettings) -> None:
        self._timeout_s = settings.heartbeat_timeout.total_seconds()
        self._deadline_s = settings.silence_deadline.total_seconds()

    @property
    def heard(self) -> int:
        """Heartbeats that counted, since the start."""
        return self._heard

    @property
    def write_failures(self) -> int:
        """Batches that could not be written, in a row."""
        return self._write_failures

    async def listen(self) -> None:
        """Until cancelled, also over outages of the bus."""
        while True:
            try:
                async with self._deps.bus.subscribe(self._deps.subjects.heartbeats) as messages:
                    self.listening_since = self._deps.clock.now()
                    await self._hear(messages)
            except BusError as error:
                log.warning("heartbeats not heard", error=str(error))
            finally:
                self.listening_since = None
            await asyncio.sleep(1.0)

    async def write(self) -> None:
        """Writes batches until cancelled, and what is left at the end."""
        try:
            while True:
                await asyncio.sleep(BATCH_S)
                await self._write_batch()
        finally:
            await self._write_batch()

    async def _hear(self, messages: AsyncIterator[BusMessage]) -> None:
        decode, now = self._decoder.decode, self._deps.clock.now
        tracked_nodes, pending = self._fleet.tracked, self._pending
        prefix_length = self._prefix_length
        count = 0
        async for message in messages:
            count += 1
            if count >= YIELD_EVERY:
                count = 0
                await asyncio.sleep(0)
            data = message.data
            if len(data) > MESSAGE_BYTES_MAX:
                await self._refuse(message, f"{len(data)} bytes, more than the {MESSAGE_BYTES_MAX} allowed")
                continue
            try:
                beat = decode(data)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                await self._refuse(message, error)
                continue
            node = beat.node
            tracked = tracked_nodes.get(node)
            if tracked is None or beat.generation != tracked.generation:
                await self._stray(message, beat)
                continue
            if message.subject[prefix_length:] != node:
                await self._refuse(message, f"it is about node {node}")
                continue
            if beat.boot_id == tracked.boot_id:
                if beat.sequence <= tracked.sequence:
                    continue
            elif beat.boot_id == tracked.past_boot_id and not self._fell_silent(tracked):
                continue
            else:
                # A boot that was thought over speaks while the one after it is silent: that one was a twin, and is gone.
                tracked.past_boot_id, tracked.boot_id = tracked.boot_id, beat.boot_id
                tracked.attention = True
            tracked.sequence = beat.sequence
            tracked.heard_at = at = now()
            tracked.driver_state = beat.driver_state
            self._heard += 1
            pending[node] = (tracked, at, beat.interval_s, data)
            if tracked.attention or beat.driver_state != "ok" or tracked.driver_trouble_since is not None:
                self._attend(tracked, at)

    def _fell_silent(self, tracked: Tracked) -> bool:
        """Whether the boot that is heard has not been heard for a whole timeout."""
        heard_at = tracked.heard_at
        return heard_at is not None and (self._deps.clock.now() - heard_at).total_seconds() >= self._timeout_s

    def _attend(self, tracked: Tracked, at: datetime) -> None:
        if tracked.driver_state == "ok":
            tracked.driver_trouble_since = None
        elif tracked.driver_trouble_since is None:
            tracked.driver_trouble_since = at
        self.attended.add(tracked.node)
        self.wake.set()

    async def _stray(self, message: BusMessage, beat: Heartbeat) -> None:
        """A heartbeat of a node that is not known, has ended, or is of another generation."""
        node = self._fleet.nodes.get(beat.node)
        if node is None:
            self.wake.set()
            if self._looked_since(beat.node):
                await self._refuse(message, f"there is no record of node {beat.node}")
        elif not ended(node.record):
            said, known = beat.generation, node.record.generation
            await self._refuse(message, f"generation {said} of node {beat.node}, whose generation is {known}")

    def _looked_since(self, node: str) -> bool:
        """Whether a look at the records that began after this node was first heard did not find it: until then, its
        record may only be younger than our last look."""
        if len(self._strays) >= STRAYS_MAX and node not in self._strays:
            self._strays.clear()
        return self._fleet.looks_done > self._strays.setdefault(node, self._fleet.looks_begun)

    async def _refuse(self, message: BusMessage, error: object) -> None:
        await self._rejects.note(message.subject, message.subject[self._prefix_length :], error)

    def count(self) -> None:
        """Adds what was heard since the last call to the counter: labels cost too much for the path of one message."""
        self._deps.metrics.count("navarch_heartbeats_total", self._heard - self._told)
        self._told = self._heard

    async def _write_batch(self) -> None:
        self.count()
        left = list(self._pending.items())
        self._pending.clear()
        try:
            while left:
                beats = [self._beat(name, *noted) for name, noted in left[:BATCH_MAX]]
                async with asyncio.timeout(WRITE_LIMIT_S):
                    await self._deps.store.write_beats(beats)
                del left[:BATCH_MAX]
        except (StoreError, TimeoutError) as error:
            if not self._write_failures:
                log.warning("heartbeats not written, kept for the next batch", nodes=len(left), error=str(error))
            self._write_failures += 1
            for name, noted in left:
                self._pending.setdefault(name, noted)
        else:
            self._write_failures = 0

    def _beat(self, name: str, tracked: Tracked, at: datetime, interval_s: float, data: bytes) -> Beat:
        """An agent that beats more slowly than it should (it has not been told yet) gets its own three intervals."""
        due_s = max(self._timeout_s, min(3 * interval_s, self._deadline_s))
        return Beat(node=name, pool=tracked.pool, at=at, due_at=at + timedelta(seconds=due_s), sample=data)
