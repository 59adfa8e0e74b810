"""Messages that could not be used: all are counted, and each source is told of at most once a minute.

Anyone can publish nonsense, so telling of it is bounded in rate, in memory, and in how many sources are told apart.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from navarch_common.clock import Clock
from navarch_common.events.kinds import MessageRejected
from navarch_common.ids import is_id
from navarch_common.model.base import Service
from navarch_common.store.base import Commit, StoreError

if TYPE_CHECKING:
    from navarch_common.run import Deps

log = structlog.get_logger()

QUIET = timedelta(minutes=1)
"""A source is told of once in this time."""
SOURCES_MAX = 1000
"""Sources told apart; the one heard of longest ago is forgotten first."""
EVENTS_PER_QUIET_MAX = 30
"""Events in that time, from all sources together."""


@dataclass(slots=True)
class _Source:
    told_at: datetime
    untold: int = 0


class Rejects:
    """One service's record of what it had to drop."""

    def __init__(self, deps: "Deps", service: Service) -> None:
        self._clock: Clock = deps.clock
        self._cluster, self._metrics, self._service = deps.cluster, deps.metrics, service
        self._commit: Callable[[Commit], Awaitable[int]] = deps.committer.commit
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        self._told: list[datetime] = []

    async def note(self, subject: str, source: str, error: object, *, pool: str = "", node: str = "") -> None:
        """Counts a message from `source` that was dropped because of `error`, and tells of it where that is due.

        Never raises for want of a store: the count and the log line are made in any case.
        """
        self._metrics.count("navarch_messages_rejected_total", service=self._service)
        count = self._due(source, self._clock.now())
        if not count:
            return
        sender = "" if source in subject.split(".") or source == subject else f" from {source[:100]}"
        reason = f"dropped {_what(count)} on {subject[:200]}{sender}: {error}"[:1000]
        log.warning("message rejected", subject=subject[:200], source=source[:100], error=str(error)[:500], count=count)
        event = MessageRejected(
            at=self._clock.now(),
            cluster=self._cluster,
            pool=pool if is_id(pool) else "",
            node=node if is_id(node) and is_id(pool) else "",
            reason=reason,
            code="message-rejected",
            actor=self._service,
            subject=subject[:1000],
            count=count,
        )
        try:
            async with asyncio.timeout(5.0):
                await self._commit(Commit(emit=(event,)))
        except (StoreError, TimeoutError) as failure:
            log.warning("rejection not told", error=str(failure), source=source[:100])

    def _due(self, source: str, now: datetime) -> int:
        """How many messages to tell of now; 0 where it is not time yet."""
        known = self._sources.get(source)
        if known is None:
            known = _Source(now - QUIET)
            if len(self._sources) >= SOURCES_MAX:
                self._sources.popitem(last=False)
        self._sources[source] = known
        self._sources.move_to_end(source)
        known.untold += 1
        self._told = [at for at in self._told if at > now - QUIET]
        if now - known.told_at < QUIET or len(self._told) >= EVENTS_PER_QUIET_MAX:
            return 0
        self._told.append(now)
        count, known.untold, known.told_at = known.untold, 0, now
        return count


def _what(count: int) -> str:
    return "a message" if count == 1 else f"{count} messages"
