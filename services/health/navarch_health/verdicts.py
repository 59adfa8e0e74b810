"""The one way in which health changes a record: read node and health, decide, commit what rests on both, and again
where somebody else was quicker.

Every commit expects the node's and the health record's revision, so no verdict outlives the node it is about and none
overwrites another; a verdict whose class changed renews its pool's marker. Who counts a pool's healthy nodes before
acting expects that marker: scale-down, terminate, and a verdict from silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from navarch_common.bus.base import BusError
from navarch_common.errors import NavarchError
from navarch_common.events.kinds import NodeFailed
from navarch_common.model.base import AnyKey
from navarch_common.model.health import HEALTH, HealthRecord
from navarch_common.model.node import NODE, NodeRecord
from navarch_common.model.pool import VERDICTS, VerdictsMarker
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT, Commit, Conflict, Stored
from navarch_health.fleet import Fleet
from navarch_health.verdict import WATCHED, Change, Context, first_sight

log = structlog.get_logger("navarch.health")

TRIES: Final = 8
"""How often a decision is made anew because of a conflict. Under contention each try lets one commit through."""
COMMIT_LIMIT_S: Final = 5.0

Decide = Callable[[NodeRecord, HealthRecord, Context], Change | None]
"""From the node and what is thought of it to what is to change. It may raise to give up."""


class UnknownNode(NavarchError):
    """There is no record of the node."""


class Verdicts:
    """Commits verdicts for one process."""

    def __init__(self, deps: Deps, fleet: Fleet) -> None:
        self._deps, self._fleet = deps, fleet

    def context(self, trace: str = "") -> Context:
        return Context(cluster=self._deps.cluster, now=self._deps.clock.now(), trace=trace)

    async def change(
        self,
        name: str,
        decide: Decide,
        trace: str = "",
        *,
        create: bool = False,
        settle: bool = False,
        rests_on: Mapping[AnyKey, int] | None = None,
    ) -> Change | None:
        """Reads, decides and commits; returns what was committed, None where nothing was to change.

        With `create` a watched node without a record of its generation gets one, also where nothing else is to change.
        With `settle` it is also made sure that nothing to change was not read from a commit that may yet be forgotten.
        `rests_on` are revisions of other records that the decision rests on: one that moved is a `Conflict` at once.

        Raises `UnknownNode`, what `decide` raises, `Conflict` after too many tries, `StoreError`, and `TimeoutError`:
        after the last two the outcome is unknown.
        """
        for left in range(TRIES - 1, -1, -1):
            try:
                async with asyncio.timeout(COMMIT_LIMIT_S):
                    return await self._once(name, decide, trace, create=create, settle=settle, rests_on=rests_on or {})
            except Conflict as conflict:
                if not left or rests_on:
                    raise
                log.debug("verdict made anew", node=name, conflict=str(conflict))
        raise AssertionError("unreachable")

    async def _once(
        self, name: str, decide: Decide, trace: str, *, create: bool, settle: bool, rests_on: Mapping[AnyKey, int]
    ) -> Change | None:
        node, health = await self._deps.store.get_many([NODE.key(name), HEALTH.key(name)])
        if node is None:
            await self._prove(NODE.key(name), ABSENT)
            raise UnknownNode(f"there is no record of node {name}")
        context = self.context(trace)
        known = health is not None and health.record.generation == node.record.generation
        sight = first_sight(node.record, context)
        before = health.record if health is not None and known else sight.record
        try:
            change = decide(node.record, before, context)
        except NavarchError:
            await self._prove(node.key, node.revision)
            raise
        if change is None and create and not known and node.record.phase in WATCHED:
            change = sight
        if change is None:
            if settle:
                # What stands in the store may be a commit that no replica had, and whose outcome is unknown. A commit of
                # what was read counts only when that does.
                expect = {HEALTH.key(name): ABSENT if health is None else health.revision, node.key: node.revision}
                await self._deps.committer.commit(Commit(expect=expect))
            if health is not None:
                self._fleet.note(node, health, self._deps.clock.now())
            return None
        await self._commit(node, health, change, rests_on, fresh=not known)
        return change

    async def _prove(self, key: AnyKey, revision: int) -> None:
        """Who gives a report up for good must not have read a store that has just gone back: reading does not show it, a
        commit of what was read does. Raises `Conflict`, `StoreError`."""
        await self._deps.committer.commit(Commit(expect={key: revision}))

    async def _commit(
        self,
        node: Stored[NodeRecord],
        health: Stored[HealthRecord] | None,
        change: Change,
        rests_on: Mapping[AnyKey, int],
        *,
        fresh: bool,
    ) -> None:
        record = change.record
        key = HEALTH.key(record.node)
        moved = change.class_changed or fresh
        revision = await self._deps.committer.commit(
            Commit(
                expect={key: ABSENT if health is None else health.revision, node.key: node.revision, **rests_on},
                put={key: record},
                touch={VERDICTS.key(record.pool): VerdictsMarker(pool=record.pool)} if moved else {},
                emit=change.events,
                trace=record.trace,
            )
        )
        self._fleet.note(node, Stored(key, record, revision), self._deps.clock.now())
        if moved:
            _tell(change)
        if moved and not change.events:
            await self._wake(record.pool)

    async def _wake(self, pool: str) -> None:
        """No event tells of it (a node became healthy for the first time, or is unknown again): a hint does."""
        try:
            await self._deps.bus.publish(self._deps.subjects.wake("provisioner", pool), b"")
        except BusError as error:
            log.debug("provisioner not woken", pool=pool, error=str(error))


def _tell(change: Change) -> None:
    record = change.record
    failed = any(isinstance(event, NodeFailed) for event in change.events)
    say = log.warning if failed else log.info
    say(
        "node failed" if failed else "verdict",
        node=record.node,
        pool=record.pool,
        status=str(record.status),
        code=record.code,
        action=record.action,
        rule=record.rule,
        reason=record.reason,
    )
