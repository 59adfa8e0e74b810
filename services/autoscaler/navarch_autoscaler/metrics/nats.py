"""Queue depths that anyone publishes to `navarch.metrics.queue.<pool>[.<source>]`.

Every copy hears all of them on core NATS, at once; the last word of each source also stays in the stream, for a copy
that starts later or did not hear for a while. The moment of hearing counts, not the sender's clock.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from navarch_autoscaler.demand import QueueBook, TooManySources
from navarch_autoscaler.strategies.base import Demand
from navarch_common.bus.base import Bus, BusError, BusUnavailable, StoredMessage
from navarch_common.clock import Clock
from navarch_common.events.codec import BadMessage, decode_queue_depth
from navarch_common.events.subjects import Subjects
from navarch_common.ids import InvalidId, check_id
from navarch_common.rejects import Rejects

log = structlog.get_logger(__name__)

LOOK_S = 0.5
"""How often it is looked whether something may have been missed."""
READ_AGAIN_S = 60.0
"""The last words are read again this often although nothing seems to be missed."""


class NatsQueueDepths:
    """A `MetricsSource`: what was published, by pool and source."""

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        clock: Clock,
        rejects: Rejects,
        *,
        knows: Callable[[str], bool],
        wake: Callable[[str], None],
    ) -> None:
        """`knows` tells whether a pool is configured; `wake` is called with a pool that somebody has spoken of."""
        self._bus, self._subjects, self._clock, self._rejects = bus, subjects, clock, rejects
        self._knows, self._wake = knows, wake
        self._books: dict[str, QueueBook] = {}
        self._read: dict[str, tuple[int, datetime]] = {}
        """By subject, which word was last read in the stream."""
        self._heard_through: tuple[int, int] | None = None
        """What the bus counted of its own deafness when the stream was last read; None where it is to be read."""

    def demand(self, pool: str, now: datetime) -> Demand | None:
        book = self._books.get(pool)
        return None if book is None else book.demand(now)

    async def run(self) -> None:
        async with self._bus.subscribe(self._subjects.queue_depths) as heard:
            await self._remember()
            async for message in heard:
                await self._note(message.subject, message.data, self._clock.now())
        raise BusUnavailable("the connection was closed under the subscription to queue depths")

    async def keep_up(self) -> None:
        """Until cancelled: reads what was said while nothing could be heard."""
        while True:
            for _ in range(round(READ_AGAIN_S / LOOK_S)):
                await asyncio.sleep(LOOK_S)
                if self._heard_through != self._deafness() and self._bus.status.connected:
                    break
            await self._remember()

    def _deafness(self) -> tuple[int, int]:
        status = self._bus.status
        return status.disconnects, status.dropped

    async def _remember(self) -> None:
        """What was said when we did not listen. Without it the pools keep their size until somebody speaks again."""
        deafness = self._deafness()
        try:
            stream = self._subjects.stream("METRICS")
            async with self._bus.read(stream, (self._subjects.queue_depths,), last_per_subject=True) as said:
                words = [message async for message in said]
        except BusError as error:
            log.warning("queue depths not read back", error=str(error))
            return
        news = [word for word in words if self._read.get(word.subject) != (word.sequence, word.stored_at)]
        self._read = {word.subject: (word.sequence, word.stored_at) for word in words}
        self._heard_through = deafness
        for word in news:
            if not self._is_known(word):
                await self._note(word.subject, word.data, word.stored_at)

    def _is_known(self, word: StoredMessage) -> bool:
        """Whether it is the word of its source that we heard already. That it is said once more would count as more."""
        try:
            pool, source = self._addressed(word.subject)
            said = self._books[pool].said[source]
            return decode_queue_depth(word.data) == said.depth
        except (BadMessage, InvalidId, KeyError):
            return False

    async def _note(self, subject: str, data: bytes, at: datetime) -> None:
        try:
            pool, source = self._addressed(subject)
            depth = decode_queue_depth(data)
            self._books[pool] = self._books.get(pool, QueueBook()).note(source, depth, at)
        except (BadMessage, InvalidId, TooManySources) as error:
            await self._rejects.note(subject, subject, str(error))
            return
        self._wake(pool)

    def _addressed(self, subject: str) -> tuple[str, str]:
        """The pool and source that a subject names. Raises `BadMessage` or `InvalidId`."""
        pool, *rest = subject.removeprefix(self._subjects.queue_depths.removesuffix(">")).split(".")
        check_id(pool, "pool")
        if len(rest) > 1:
            raise BadMessage(f"subject {subject[:100]!r} has more tokens than <pool>.<source>")
        if not self._knows(pool):
            raise BadMessage(f"pool {pool!r} is not in the configuration")
        return pool, check_id(rest[0], "source") if rest else ""
