"""Takes back from the stream of events what the store has forgotten of failures.

A store that lost writes is rebuilt from its providers and from the agents, which report again what they kept of the boot
that runs. What an earlier boot broke, nobody would report: the machine would be taken into use again as if it were well,
although the whole world was told that it failed. So after each safe mode every watched node is held against the last
`node.failed` that was told of it. One that nothing took back since stands again, with the same failure id. It is not told
again: whoever listens has heard of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog
from msgspec import structs

from navarch_common.events.kinds import NodeDegraded, NodeFailed, NodeRecovered, NodeTerminated
from navarch_common.model.cluster import META
from navarch_common.model.health import EntityVerdict, HealthRecord, HealthStatus
from navarch_common.model.node import NodeRecord
from navarch_common.run import Deps
from navarch_common.store.base import Conflict
from navarch_common.told import Told
from navarch_health.fleet import Fleet
from navarch_health.life import REPAIRED_BY_BOOT
from navarch_health.verdict import MACHINE, WATCHED, Change, Context, settle
from navarch_health.verdicts import UnknownNode, Verdicts

log = structlog.get_logger("navarch.health")

NODES_MAX: Final = 50
"""Nodes looked at in one pass."""
LOOKED_FOR: Final = timedelta(hours=1)
"""So long after a safe mode a node that turns up is still held against the stream."""
_TAKES_BACK: Final = (NodeRecovered, NodeDegraded, NodeTerminated)


class Remembering:
    """One process's look at what was told and may be forgotten. `step` is a reconciler's step."""

    def __init__(self, deps: Deps, fleet: Fleet, verdicts: Verdicts) -> None:
        self._deps, self._fleet, self._verdicts = deps, fleet, verdicts
        self._told = Told(deps.store, deps.bus, deps.subjects)
        self._looked: dict[str, tuple[int, datetime]] = {}
        """By node, its generation and the safe mode for which it was held against the stream."""

    async def step(self) -> dict[str, int]:
        """Raises `BusError`, `StoreError`: the next pass looks again."""
        doubted_at = await self._doubted_at()
        if doubted_at is None:
            self._looked.clear()
            return {"compared": 0, "remembered": 0}
        due = [
            stored.record
            for name, stored in sorted(self._fleet.nodes.items())
            if stored.record.phase in WATCHED
            and self._looked.get(name) != (stored.record.generation, doubted_at)
            and not self._is_failed(name)
        ][:NODES_MAX]
        remembered = 0
        for node in due:
            try:
                remembered += await self._look(node)
            except (UnknownNode, Conflict) as error:
                log.info("failure looked for again with the next pass", node=node.node, why=str(error))
                continue
            self._looked[node.node] = node.generation, doubted_at
        return {"compared": len(due), "remembered": remembered}

    async def _doubted_at(self) -> datetime | None:
        """Since when what is stored is rebuilt, or when that was over; None where it was long ago, or never."""
        meta = await self._deps.store.get(META.key())
        if meta is None:
            return None
        if meta.record.safe_mode is not None:
            return meta.record.safe_mode.since
        left_at = meta.record.safe_mode_left_at
        return left_at if left_at is not None and self._deps.clock.now() - left_at < LOOKED_FOR else None

    def _is_failed(self, name: str) -> bool:
        health = self._fleet.health.get(name)
        return health is not None and health.record.status is HealthStatus.UNHEALTHY

    async def _look(self, node: NodeRecord) -> bool:
        """Whether a failure was forgotten. Raises `UnknownNode`, `Conflict`, `BusError`, `StoreError`."""
        failed = await self._told.last_event(NodeFailed, node.pool, node.node)
        if failed is None or not stands(failed, node):
            return False
        for kind in _TAKES_BACK:
            since = await self._told.last(kind, node.pool, node.node)
            if since is not None and since.rev > failed.rev:
                return False
        change = await self._verdicts.change(
            node.node, lambda now, before, context: remembered(failed, now, before, context), create=True
        )
        if change is None or change.record.failure_id != failed.failure_id:
            return False
        log.warning(
            "failure remembered", node=node.node, pool=node.pool, code=failed.cause, failure_id=failed.failure_id
        )
        self._deps.metrics.count("navarch_failures_remembered_total")
        return True


def stands(failed: NodeFailed, node: NodeRecord) -> bool:
    """Whether what was told says something of the machine that is there now. Silence is judged by what is heard now; what a
    boot repairs is no more once one came after it."""
    if failed.generation != node.generation or not failed.failure_id or failed.entity in ("", MACHINE):
        return False
    booted_at = None if node.registration is None else node.registration.at
    return failed.action not in REPAIRED_BY_BOOT or booted_at is None or booted_at <= failed.at


def remembered(failed: NodeFailed, node: NodeRecord, before: HealthRecord, context: Context) -> Change | None:
    """The verdict as it was told; None where there is a worse one, or the node is another by now."""
    if node.phase not in WATCHED or before.status is HealthStatus.UNHEALTHY or not stands(failed, node):
        return None
    verdict = EntityVerdict(
        status=HealthStatus.UNHEALTHY,
        action=failed.action,
        rule=failed.rule,
        code=failed.cause,
        reason=f"{failed.reason}; told at {failed.at.isoformat(timespec='seconds')}, and forgotten by the store"[:1024],
        since=failed.at,
        evidence=failed.evidence,
    )
    change = settle(
        before, structs.replace(before, entities={**before.entities, failed.entity: verdict}), node, context
    )
    if change is None or change.record.status is not HealthStatus.UNHEALTHY:
        return None
    record = structs.replace(change.record, failure_id=failed.failure_id)
    return Change(record, class_changed=change.class_changed)
