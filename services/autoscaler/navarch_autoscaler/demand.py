"""What was said of queues, by pool and source, and how fresh it is. Pure: the time comes with each word.

A source goes stale alone, after three of its own intervals (90 s while its interval is not known). Fresh sources of a
pool are added up.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from navarch_autoscaler.strategies.base import Demand
from navarch_common.errors import NavarchError
from navarch_common.events.messages import QueueDepth

STALE_AFTER = timedelta(seconds=90)
STALE_INTERVALS = 3
INTERVAL_MAX = timedelta(hours=1)
"""A source that speaks more seldom than this does not thereby become fresh for longer."""
SOURCES_MAX = 64
"""Sources of one pool that are remembered."""
FORGET_AFTER = timedelta(hours=6)
"""A stale source is forgotten after this, so that one that was switched off does not hold a pool up for ever."""


class TooManySources(NavarchError):
    """A pool has as many sources as are remembered; a further one is refused."""


@dataclass(frozen=True, slots=True)
class Said:
    """The last word of one source."""

    depth: QueueDepth
    at: datetime
    """When we heard it: a sender's clock is not trusted."""
    interval: timedelta | None = None

    def fresh(self, now: datetime) -> bool:
        patience = STALE_AFTER if self.interval is None else max(STALE_INTERVALS * self.interval, timedelta(seconds=5))
        return now - self.at <= patience


@dataclass(frozen=True, slots=True)
class QueueBook:
    """The last word of each source of one pool."""

    said: dict[str, Said] = field(default_factory=dict)

    def note(self, source: str, depth: QueueDepth, at: datetime) -> "QueueBook":
        """The book with this word in it. An older word than the one known changes nothing. Raises `TooManySources`."""
        known = {name: said for name, said in self.said.items() if at - said.at <= FORGET_AFTER}
        before = known.get(source)
        if before is None and len(known) >= SOURCES_MAX:
            raise TooManySources(f"{SOURCES_MAX} sources are known already; {source!r} is not taken")
        if before is not None and at < before.at:
            return self
        interval = None if before is None else min(at - before.at, INTERVAL_MAX)
        if interval is not None and before is not None and before.interval is not None:
            # A burst of messages must not make a steady source look stale a second later.
            interval = max(interval, before.interval / 2)
        if interval is not None and interval < STALE_AFTER / STALE_INTERVALS:
            interval = STALE_AFTER / STALE_INTERVALS
        return replace(self, said={**known, source: Said(depth, at, interval)})

    def demand(self, now: datetime) -> Demand | None:
        """The fresh sources added up; None while there is none."""
        known = {name: said for name, said in self.said.items() if now - said.at <= FORGET_AFTER}
        fresh = [said for said in known.values() if said.fresh(now)]
        if not fresh:
            return None
        return Demand(
            queue_depth=sum(said.depth.queue_depth for said in fresh),
            sources=len(fresh),
            stale=tuple(sorted(name or "(unnamed)" for name, said in known.items() if not said.fresh(now))),
            heard_at=max(said.at for said in fresh),
        )
