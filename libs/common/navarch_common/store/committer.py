"""What services commit through: one commit, then its events to whoever listens.

The commit makes state and events durable together; publishing only makes the events known sooner. So publishing never
makes `commit` fail: what could not be sent for certain stays in the outbox, from where the relay sends it.

First copies of one node's events must arrive in order, although several processes commit about it: a publisher first
sends what waits of the same order, each after the PubAck of the one before. A publisher that comes late might repeat
what others have sent long ago, so it leaves everything to the relay, which looks before it sends.
"""

import asyncio
from itertools import chain

import structlog

from navarch_common.bus.base import Bus, BusError
from navarch_common.clock import Clock
from navarch_common.events.subjects import Subjects
from navarch_common.model.base import Service
from navarch_common.store.base import Commit, Committed, OutboxEntry, StateStore, StoreError
from navarch_common.store.publish import Publisher, of_orders

log = structlog.get_logger(__name__)

LATE_S = 10.0
"""This long after the commit was sent, its events belong to the relay."""
DOUBT_S = 2.0
"""After a failed publish nobody tries again for this long, so that a dead bus does not slow every commit."""
PAGE = 1000


class Committer:
    """One service's way to change the shared state."""

    def __init__(
        self,
        store: StateStore,
        bus: Bus,
        subjects: Subjects,
        *,
        writer: Service | None,
        clock: Clock,
        left: set[str] | None = None,
    ) -> None:
        """`writer` None may change only the families that the commit itself guards. `left` gathers the orders whose
        events it could not publish, for the relay of the same process."""
        self._left = set() if left is None else left
        self._store = store
        self._writer = writer
        self._clock = clock
        self._publisher = Publisher(store, bus, subjects)
        self._quiet_until = 0.0
        self._published = 0
        self._left_to_relay = 0
        self._last_doubt: dict[str, object] | None = None

    @property
    def status(self) -> dict[str, object]:
        return {"published": self._published, "left_to_relay": self._left_to_relay, "last_doubt": self._last_doubt}

    async def commit(self, commit: Commit) -> int:
        """Applies `commit` and returns its revision; see `StateStore.commit` for what it raises. `StoreUnavailable`
        means that the outcome is unknown: read before deciding again."""
        self._check_writer(commit)
        sent_at = asyncio.get_running_loop().time()
        committed = await self._store.commit(commit)
        if committed.entries:
            await self._tell(committed, sent_at)
        return committed.revision

    def _check_writer(self, commit: Commit) -> None:
        for key in chain(commit.put, commit.touch, commit.delete):
            writer = key.family.writer
            assert writer in (self._writer, None), f"{key} is written by {writer}, and this is {self._writer}"

    async def _tell(self, committed: Committed, sent_at: float) -> None:
        if asyncio.get_running_loop().time() < self._quiet_until:
            self._left_to_relay += len(committed.entries)
            self._left.update(entry.order for entry in committed.entries)
            return
        try:
            for entry in (*await self._older(committed), *committed.entries):
                if asyncio.get_running_loop().time() - sent_at > LATE_S:
                    self._leave(committed, f"more than {LATE_S:.0f} s after the commit")
                    return
                await self._publisher.publish(entry)
                self._published += 1
        except (BusError, StoreError) as error:
            self._quiet_until = asyncio.get_running_loop().time() + DOUBT_S
            self._leave(committed, str(error))
        except Exception:
            # The commit is durable, so whatever went wrong in telling of it is the relay's to repair.
            log.exception("events left to the relay", first=committed.entries[0].id, revision=committed.revision)

    async def _older(self, committed: Committed) -> list[OutboxEntry]:
        """What others have committed before about the same things, and nobody has published for certain."""
        if not committed.waiting_before:
            return []
        orders = frozenset(entry.order for entry in committed.entries)
        older: list[OutboxEntry] = []
        after = ""
        while True:
            page = await self._store.outbox(after_id=after, before_id=committed.entries[0].id, limit=PAGE)
            older += of_orders(page, orders)
            if len(page) < PAGE:
                return older
            after = page[-1].id

    def _leave(self, committed: Committed, why: str) -> None:
        entry = committed.entries[0]
        self._left_to_relay += 1
        self._left.update(entry.order for entry in committed.entries)
        self._last_doubt = {"at": self._clock.now().isoformat(), "entry": entry.id, "why": why}
        log.warning("events left to the relay", entry=entry.id, order=entry.order, why=why)
