"""Keeps the records that lists are made of, decoded: what changed is read on every event and each second, all of it now
and then, since deleted records don't show in what changed.

Whoever needs the very latest of one thing reads the store; lists of ten thousand nodes are served from here and say how
old they are.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Generic

import structlog

from navarch_common.clock import Clock
from navarch_common.model.base import Family, R
from navarch_common.model.cluster import PROPOSAL
from navarch_common.model.health import HEALTH
from navarch_common.model.node import NODE
from navarch_common.model.pool import GUARD, POOL, SUPPLY
from navarch_common.model.wish import CHANGE_WISH, NODE_WISHES, POOL_WISH
from navarch_common.store.base import Since, StateStore, Stored, StoreError
from navarch_gateway.known import Known
from navarch_gateway.refusal import unavailable

log = structlog.get_logger(__name__)

SWEEP_EVERY = timedelta(seconds=30)
READ_TIMEOUT_S = 10.0
TOO_OLD = timedelta(seconds=30)
"""A list older than this is not shown as if it were the truth."""


@dataclass(slots=True)
class _Shelf(Generic[R]):
    """One family's records by name, sorted, and the highest revision among them."""

    family: Family[R]
    records: Mapping[str, Stored[R]] = field(default_factory=dict)
    revision: int = 0

    def clear(self) -> None:
        self.records, self.revision = {}, 0

    def take(self, found: Sequence[Stored[R]]) -> None:
        if found:
            self.records = dict(sorted({**self.records, **{stored.key.name: stored for stored in found}}.items()))
            self.revision = max(self.revision, *(stored.revision for stored in found))


class Cache:
    """What is known, refreshed by `refresh`. One writer; readers take `known` and keep it as long as they like."""

    def __init__(self, store: StateStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._shelves: tuple[_Shelf[Any], ...] = tuple(
            _Shelf(family)
            for family in (NODE, HEALTH, POOL, SUPPLY, GUARD, NODE_WISHES, POOL_WISH, CHANGE_WISH, PROPOSAL)
        )
        self._swept_at: datetime | None = None
        self._incarnation = store.incarnation
        self._known: Known | None = None
        self._lock = asyncio.Lock()

    @property
    def latest(self) -> Known | None:
        """What was read last, however old; None while nothing was."""
        return self._known

    @property
    def fresh(self) -> bool:
        return self._known is not None and self._clock.now() - self._known.as_of <= TOO_OLD

    def known(self) -> Known:
        """Raises `Refused` while nothing was read yet, or what was read has become too old to be shown."""
        if self._known is None:
            raise unavailable("starting", "the gateway has not read the store yet; try again in a moment")
        age = self._clock.now() - self._known.as_of
        if age > TOO_OLD:
            raise unavailable("state-unavailable", f"the store has not answered for {age.total_seconds():.0f} s")
        return self._known

    def similar(self, node: str) -> list[str]:
        """Some known nodes whose names begin alike, for a hint. Empty while nothing is known."""
        if self._known is None:
            return []
        return list(islice((name for name in self._known.nodes if name[:3] == node[:3]), 200))

    async def refresh(self) -> None:
        """Raises `StoreError`; what was known stays, and grows older."""
        async with self._lock:
            now = self._clock.now()
            if self._store.incarnation != self._incarnation:
                # Another life: revisions of the one before say nothing of what has changed.
                self._incarnation, self._swept_at = self._store.incarnation, None
            sweep = self._swept_at is None or now - self._swept_at >= SWEEP_EVERY
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    found = await self._read(sweep=sweep)
            except TimeoutError as error:
                raise StoreError(f"the store did not answer within {READ_TIMEOUT_S:g} s") from error
            for shelf, records in zip(self._shelves, found, strict=True):
                if sweep:
                    shelf.clear()
                shelf.take(records)
            if sweep:
                self._swept_at = now
            self._known = Known(now, *(shelf.records for shelf in self._shelves))

    async def _read(self, *, sweep: bool) -> list[list[Stored[Any]]]:
        """By shelf, all records, or those that changed."""
        if sweep:
            return [await self._store.records(shelf.family) for shelf in self._shelves]
        return await self._store.changed([Since(shelf.family, shelf.revision) for shelf in self._shelves])
