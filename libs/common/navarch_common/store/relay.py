"""Publishes what committers could not: the net under every commit.

It repairs this: an event is durable in the outbox, its commit is over five seconds old (or of this process, which
could not publish it), and the event is not known to be published. Every process runs one; they may all send the same
entry, since the stream knows its id. An entry older than half the stream's memory of ids is first compared with the
last message of its subject. Entries of one order (a node, a pool) go out one after the other; one that fails stops its
order until the next pass, and no other.
"""

import asyncio
from itertools import groupby
from operator import attrgetter

import structlog

from navarch_common.bus.base import Bus, BusError
from navarch_common.clock import Clock
from navarch_common.events.subjects import Subjects
from navarch_common.store.base import OutboxEntry, StateStore, StoreError
from navarch_common.store.publish import Publisher

log = structlog.get_logger(__name__)

AGE_S = 5.0
"""Younger entries belong to the committer that wrote them, unless it has left them."""
PERIOD_S = 1.0
STALE_S = 5.0
"""What was read so long ago is read again: it may have been told by others since, or forgotten with the store."""
PAGE = 1000
AT_ONCE = 32
"""Orders whose entries are published at the same time."""


class Relay:
    """Run by every process, as a task named `relay`."""

    def __init__(
        self,
        store: StateStore,
        bus: Bus,
        subjects: Subjects,
        clock: Clock,
        *,
        age_s: float = AGE_S,
        left: set[str] | None = None,
    ) -> None:
        """`left` are the orders that this process's committers could not publish: theirs go out whatever their age."""
        self._store = store
        self._left = set() if left is None else left
        self._clock = clock
        self._age_s = age_s
        self._publisher = Publisher(store, bus, subjects)
        self._woken = asyncio.Event()
        self._published = 0
        self._known_already = 0
        self._last: dict[str, object] = {}

    @property
    def status(self) -> dict[str, object]:
        """Totals, and what the last pass saw: how many entries waited, which orders are stuck on what."""
        return {"published": self._published, "known_already": self._known_already, **self._last}

    def wake(self) -> None:
        """Makes the next pass begin at once."""
        self._woken.set()

    async def run(self) -> None:
        """Passes over the outbox at start and each second, until cancelled."""
        complained = ""
        while True:
            error = await self.step()
            if error != complained:
                log.warning("relay waits", error=error) if error else log.info("relay goes on")
                complained = error
            try:
                async with asyncio.timeout(PERIOD_S):
                    await self._woken.wait()
            except TimeoutError:
                continue
            self._woken.clear()

    async def step(self) -> str:
        """One pass. Returns what kept it from sending everything; empty when nothing did."""
        stuck: dict[str, str] = {}
        error, waiting, after = "", 0, ""
        left = frozenset(self._left)
        self._left.clear()
        try:
            waiting = await self._store.outbox_length()
            while waiting:
                read_at_s = asyncio.get_running_loop().time()
                page = await self._store.outbox(older_than_s=0.0 if left else self._age_s, after_id=after, limit=PAGE)
                due = [one for one in page if one.age_s >= self._age_s or one.order in left]
                await self._send(due, read_at_s, stuck)
                if len(page) < PAGE:
                    break
                after = page[-1].id
        except StoreError as unreadable:
            error = str(unreadable)
        self._left |= left if error else left & stuck.keys()
        error = error or next(iter(stuck.values()), "")
        self._last = {
            "at": self._clock.now().isoformat(),
            "waiting": waiting,
            "stuck": dict(list(stuck.items())[:10]),
            "error": error,
        }
        return error

    async def _send(self, page: list[OutboxEntry], read_at_s: float, stuck: dict[str, str]) -> None:
        free = asyncio.Semaphore(AT_ONCE)
        by_order = groupby(sorted(page, key=attrgetter("order")), key=attrgetter("order"))
        async with asyncio.TaskGroup() as group:
            for order, entries in by_order:
                if order not in stuck:
                    sending = self._send_order(order, list(entries), read_at_s, free, stuck)
                    group.create_task(sending, name=f"relay {order}")

    async def _send_order(
        self, order: str, entries: list[OutboxEntry], read_at_s: float, free: asyncio.Semaphore, stuck: dict[str, str]
    ) -> None:
        async with free:
            for entry in entries:
                if asyncio.get_running_loop().time() - read_at_s > STALE_S:
                    return
                try:
                    sent = await self._publisher.settle(entry)
                except (BusError, StoreError) as error:
                    stuck[order] = str(error)
                    return
                self._published += sent
                self._known_already += not sent
