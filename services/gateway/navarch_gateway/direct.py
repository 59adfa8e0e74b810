"""Reads single things from the store itself: what a decision rests on, with the revisions that its commit expects."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from navarch_common.clock import Clock
from navarch_common.events.codec import BadMessage, decode
from navarch_common.events.messages import Heartbeat
from navarch_common.guards import hold_key, keys_of_pool
from navarch_common.model.base import AnyKey
from navarch_common.model.health import HEALTH, HealthRecord
from navarch_common.model.node import NODE, NodeRecord
from navarch_common.model.pool import GUARD, POOL, SUPPLY, Guard, PoolRecord, SupplyRecord
from navarch_common.model.wish import (
    CHANGE_WISH,
    NODE_WISHES,
    POOL_WISH,
    Answer,
    ChangeWish,
    NodeWishes,
    PoolVerb,
    PoolWish,
    Wish,
)
from navarch_common.store.base import ABSENT, Beat, StateStore, Stored
from navarch_gateway.refusal import not_found
from navarch_gateway.wishes import NodeFacts, Work

READ_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class NodeRead:
    """One node, and all that was read with it."""

    facts: NodeFacts
    revision: int
    expect: dict[AnyKey, int]
    beat: Beat | None
    supply: SupplyRecord | None
    as_of: datetime


@dataclass(frozen=True, slots=True)
class PoolRead:
    record: PoolRecord | None
    latest: PoolWish | None
    guards: tuple[Guard, ...]
    expect: dict[AnyKey, int]


class Direct:
    """Raises `StoreError` and `TimeoutError` where the store does not answer."""

    def __init__(self, store: StateStore, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def node(self, node: str, similar: Callable[[str], Iterable[str]] = lambda _: ()) -> NodeRead:
        """Raises `Refused` where there is no such node, naming one of the `similar` ones."""
        async with asyncio.timeout(READ_TIMEOUT_S):
            now = self._clock.now()
            stored = await self._store.get(NODE.key(node))
            if stored is None:
                raise not_found("node", node, similar(node))
            pool = stored.record.pool
            keys: list[AnyKey] = [NODE.key(node), HEALTH.key(node), NODE_WISHES.key(node), SUPPLY.key(pool)]
            guards = [*keys_of_pool(pool), hold_key(node=node)]
            found = await self._store.get_many([*keys, *guards])
            beat = (await self._store.beats([node]))[0]
        record, health, wishes, supply = found[:4]
        if record is None:
            raise not_found("node", node)
        facts = NodeFacts(
            node=record.record,
            health=_record(health, HealthRecord),
            wishes=_record(wishes, NodeWishes),
            guards=_guards(found[4:]),
            work=work_of(beat, record.record, now),
        )
        expect = expected([keys[0], keys[1], keys[2], *guards], [record, health, wishes, *found[4:]])
        return NodeRead(facts, record.revision, expect, beat, _record(supply, SupplyRecord), now)

    async def pool(self, pool: str, verb: PoolVerb) -> PoolRead:
        keys: list[AnyKey] = [POOL.key(pool), POOL_WISH.key(pool, verb), *keys_of_pool(pool)]
        async with asyncio.timeout(READ_TIMEOUT_S):
            found = await self._store.get_many(keys)
        return PoolRead(
            record=_record(found[0], PoolRecord),
            latest=_record(found[1], PoolWish),
            guards=_guards(found[2:]),
            expect=expected(keys, found),
        )

    async def guards(self) -> list[Stored[Guard]]:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await self._store.records(GUARD)

    async def wishes_about_changes(self, pool: str) -> list[Wish]:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return [stored.record.wish for stored in await self._store.records(CHANGE_WISH, pool)]

    async def supply_answers(self, pool: str) -> dict[str, Answer]:
        async with asyncio.timeout(READ_TIMEOUT_S):
            stored = await self._store.get(SUPPLY.key(pool))
        return stored.record.answers if stored else {}

    async def change_wish(self, change: str) -> Stored[ChangeWish] | None:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await self._store.get(CHANGE_WISH.key(change))

    async def beats(self, nodes: Sequence[str]) -> dict[str, Beat]:
        async with asyncio.timeout(READ_TIMEOUT_S):
            found = await self._store.beats(nodes)
        return {beat.node: beat for beat in found if beat is not None}


def work_of(beat: Beat | None, node: NodeRecord, now: datetime) -> Work:
    """What the last heartbeat says of the work, unless it was of an earlier machine."""
    if beat is None:
        return Work()
    try:
        sample: Heartbeat = decode(beat.sample, Heartbeat)
    except BadMessage:
        return Work(at=beat.at)
    if sample.generation != node.generation:
        return Work()
    return Work(sample=sample, at=beat.at, late=beat.due_at < now)


def expected(keys: Sequence[AnyKey], found: Sequence[Stored[Any] | None]) -> dict[AnyKey, int]:
    return {key: ABSENT if stored is None else stored.revision for key, stored in zip(keys, found, strict=True)}


def _guards(found: Sequence[Stored[Any] | None]) -> tuple[Guard, ...]:
    return tuple(stored.record for stored in found if stored is not None)


def _record(stored: Stored[Any] | None, of: type[Any]) -> Any:
    assert stored is None or isinstance(stored.record, of)
    return None if stored is None else stored.record
