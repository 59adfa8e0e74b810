"""Holds each failure that stands against the stream of events, slowly, and tells again what was lost.

It repairs: a node's verdict is unhealthy, and `node.failed` with its failure id is neither the last of its subject in the
stream nor in the outbox (see `navarch_common.told`). Every copy looks; the first whose commit is applied has told it, and
the others see that.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import structlog

from navarch_common.events.kinds import NodeFailed
from navarch_common.model.health import HealthRecord, HealthStatus
from navarch_common.model.node import NodeRecord
from navarch_common.run import Deps
from navarch_common.store.base import Commit, Conflict, Stored
from navarch_common.told import CHECKED_FOR, Look, Told
from navarch_health.fleet import Fleet
from navarch_health.verdict import Context, failed_again

log = structlog.get_logger("navarch.health")

NODES_MAX: Final = 50
"""Failures looked at in one pass."""


class Retelling:
    """One process's look at what was told. `step` is a reconciler's step."""

    def __init__(self, deps: Deps, fleet: Fleet) -> None:
        self._deps, self._fleet = deps, fleet
        self._told = Told(deps.store, deps.bus, deps.subjects)
        self._checked: dict[str, tuple[str, datetime]] = {}
        """By node, the failure that was found in the stream, and when."""
        self._made_at: datetime | None = None

    async def step(self) -> dict[str, int]:
        """Raises `BusError`, `StoreError`: the next pass looks again."""
        failed = [
            (node, health)
            for name, health in sorted(self._fleet.health.items())
            if health.record.status is HealthStatus.UNHEALTHY and (node := self._fleet.nodes.get(name)) is not None
        ]
        look = await self._told.look()
        if look is None:
            return {"checked": 0, "told": 0}
        if look.made_at != self._made_at:
            self._made_at = look.made_at
            self._checked.clear()
        now = self._deps.clock.now()
        self._checked = {
            health.record.node: found for _, health in failed if (found := self._checked.get(health.record.node))
        }
        due = [(node, health) for node, health in failed if self._is_due(health.record, look, now)][:NODES_MAX]
        told = 0
        for node, health in due:
            told += await self._check(node, health)
        return {"checked": len(due), "told": told}

    def _is_due(self, record: HealthRecord, look: Look, now: datetime) -> bool:
        if not record.failure_id or record.failed_at is None or record.node in look.waiting:
            return False
        failure_id, found_at = self._checked.get(record.node, ("", now))
        fresh = failure_id == record.failure_id and now - found_at < CHECKED_FOR
        return not fresh and look.should_be_there(record.failed_at, now)

    async def _check(self, node: Stored[NodeRecord], health: Stored[HealthRecord]) -> bool:
        """Whether the failure had to be told again."""
        record, now = health.record, self._deps.clock.now()
        last = await self._told.last(NodeFailed, record.pool, record.node)
        if last is not None and last.failure_id == record.failure_id:
            self._checked[record.node] = record.failure_id, now
            return False
        event = failed_again(record, node.record, Context(self._deps.cluster, now, record.trace))
        # The record is written as it is, so that no event is newer than its record.
        commit = Commit(
            expect={health.key: health.revision, node.key: node.revision},
            put={health.key: record},
            emit=(event,),
            trace=record.trace,
        )
        try:
            revision = await self._deps.committer.commit(commit)
        except Conflict as conflict:
            log.debug("failure not told again", node=record.node, conflict=str(conflict))
            return False
        self._fleet.note(node, Stored(health.key, record, revision), now)
        log.warning("failure told again", node=record.node, pool=record.pool, failure_id=record.failure_id)
        self._deps.metrics.count("navarch_events_told_again_total", service="health")
        return True
