"""All nodes as this process knows them: their records, followed by revision, and what it heard of each.

It is a cache. Whatever is decided from it is read again before it is committed, and the commit names the revisions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from navarch_common.model.health import AGENT, HEALTH, HealthRecord, HealthStatus
from navarch_common.model.node import NODE, NodeRecord, ended
from navarch_common.store.base import Since, StateStore, Stored
from navarch_health.verdict import WATCHED


class Tracked:
    """One node, in the words of the heartbeat's path, which is hot: plain slots, no records to look into."""

    __slots__ = (
        "answered_at",
        "attention",
        "boot_id",
        "driver_state",
        "driver_trouble_since",
        "generation",
        "heard_at",
        "node",
        "past_boot_id",
        "pool",
        "probed_at",
        "sequence",
        "since",
        "watched",
    )

    def __init__(self, node: str, pool: str, generation: int, now: datetime) -> None:
        self.node, self.pool, self.generation, self.since = node, pool, generation, now
        self.boot_id = self.past_boot_id = ""
        """The boot that is heard, and the one before it, which is over."""
        self.sequence = -1
        self.heard_at: datetime | None = None
        self.driver_state = ""
        self.driver_trouble_since: datetime | None = None
        self.answered_at: datetime | None = None
        self.probed_at: datetime | None = None
        self.attention = True
        """The next heartbeat may change what is thought of it."""
        self.watched = False
        """It is expected to be heard."""


class Fleet:
    """Records by node id, refreshed by what changed since, and in full now and then."""

    FULL_AFTER_S = 300.0

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._revisions = {NODE.name: 0, HEALTH.name: 0}
        self._full_at: datetime | None = None
        self._incarnation = store.incarnation
        self._fresh: set[str] = set()
        self.looks_begun = self.looks_done = 0
        """How often the records were looked at; `looks_done` is the number of the last look that came to its end."""
        self.nodes: dict[str, Stored[NodeRecord]] = {}
        self.health: dict[str, Stored[HealthRecord]] = {}
        self.tracked: dict[str, Tracked] = {}
        """Every node whose machine may live."""
        self.watched: defaultdict[str, set[str]] = defaultdict(set)
        """By pool, the nodes that are expected to be heard."""

    @property
    def loaded(self) -> bool:
        return self._full_at is not None

    @property
    def watched_count(self) -> int:
        return sum(len(names) for names in self.watched.values())

    async def refresh(self, now: datetime) -> set[str]:
        """Reads what changed and returns the nodes concerned. Raises `StoreError`."""
        self.looks_begun += 1
        look = self.looks_begun
        incarnation = self._store.incarnation
        anew = incarnation != self._incarnation
        if anew or self._full_at is None or (now - self._full_at).total_seconds() >= self.FULL_AFTER_S:
            nodes, health = await self._store.records(NODE), await self._store.records(HEALTH)
            if anew:
                self._begin_anew()
            self._forget((set(self.nodes) | set(self.tracked)) - {stored.record.node for stored in nodes})
            self._full_at, self._incarnation = now, incarnation
        else:
            nodes, health = await self._store.changed(
                [Since(family, self._revisions[family.name]) for family in (NODE, HEALTH)]
            )
        changed = self._take(nodes, health, now)
        for family, read in ((NODE, nodes), (HEALTH, health)):
            self._revisions[family.name] = max([self._revisions[family.name], *(stored.revision for stored in read)])
        self.looks_done = look
        return changed

    def _begin_anew(self) -> None:
        """The store is in another life: what was read in the one before is nobody's record any more, however high its
        revision. Who was heard lately is not forgotten for that."""
        self.nodes.clear()
        self.health.clear()
        self._revisions = {NODE.name: 0, HEALTH.name: 0}

    def note(self, node: Stored[NodeRecord], health: Stored[HealthRecord], now: datetime) -> None:
        """What has just been read or committed, so that the next decision does not rest on older news. It is no reason to pass
        over what changed before it and has not been read yet."""
        self._fresh |= self._take((node,), (health,), now)

    async def reread(self, now: datetime) -> None:
        """A further look within a pass: what it finds is `taken` by the next. Raises `StoreError`."""
        self._fresh |= await self.refresh(now)

    def taken(self) -> set[str]:
        """Nodes of which something was noted since the last call."""
        fresh, self._fresh = self._fresh, set()
        return fresh

    def _take(
        self, nodes: Iterable[Stored[NodeRecord]], health: Iterable[Stored[HealthRecord]], now: datetime
    ) -> set[str]:
        changed: set[str] = set()
        for stored in nodes:
            known = self.nodes.get(stored.record.node)
            if known is None or stored.revision > known.revision:
                self.nodes[stored.record.node] = stored
                changed.add(stored.record.node)
        for verdict in health:
            before = self.health.get(verdict.record.node)
            if before is None or verdict.revision > before.revision:
                self.health[verdict.record.node] = verdict
                changed.add(verdict.record.node)
        for name in changed:
            self._index(name, now)
        return changed

    def _index(self, name: str, now: datetime) -> None:
        stored = self.nodes.get(name)
        if stored is None or ended(stored.record):
            self._untrack(name)
            return
        node = stored.record
        tracked = self.tracked.get(name)
        if tracked is None or tracked.generation != node.generation or tracked.pool != node.pool:
            self._untrack(name)
            tracked = self.tracked[name] = Tracked(name, node.pool, node.generation, now)
        watched = node.phase in WATCHED and not node.powered_off
        if watched and not tracked.watched:
            tracked.since = now
        tracked.watched = watched
        (self.watched[node.pool].add if watched else self.watched[node.pool].discard)(name)
        health = self.health.get(name)
        tracked.attention = watched and _needs_hearing(node, None if health is None else health.record)

    def _untrack(self, name: str) -> None:
        tracked = self.tracked.pop(name, None)
        if tracked is not None:
            self.watched[tracked.pool].discard(name)

    def _forget(self, names: set[str]) -> None:
        for name in names:
            self._untrack(name)
            self.nodes.pop(name, None)
            self.health.pop(name, None)


def _needs_hearing(node: NodeRecord, health: HealthRecord | None) -> bool:
    """Whether a heartbeat may change what is thought of the node."""
    if health is None or health.generation != node.generation or health.silent_since is not None:
        return True
    agent = health.entities.get(AGENT)
    if agent is None or agent.status != HealthStatus.HEALTHY:
        return True
    return node.registration is not None and node.registration.boot_id != health.boot_id
