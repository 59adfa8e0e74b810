"""What is asked for, made durable: a wish or a guard and the event that tells of it, in one commit.

Each act reads what it rests on, decides, and commits expecting just that; where something changed in between, it reads
and decides again.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import structlog
from msgspec import structs

from navarch_api import types as t
from navarch_common.events.base import Event
from navarch_common.events.codec import event_id
from navarch_common.events.kinds import OperatorAction
from navarch_common.ids import new_token
from navarch_common.model.base import AnyKey, Record
from navarch_common.model.pool import GUARD, Guard
from navarch_common.model.wish import NODE_WISHES, POOL_WISH, PoolWish
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT, Commit, Conflict, Stored
from navarch_gateway import guards, views, wishes
from navarch_gateway.asks import EventQuery, FreezeAsk, NodeAsk, PoolAsk, UnfreezeAsk, read_id
from navarch_gateway.cache import Cache
from navarch_gateway.direct import Direct
from navarch_gateway.history import History, filters_of
from navarch_gateway.refusal import not_found, unavailable

log = structlog.get_logger(__name__)
T = TypeVar("T")

ATTEMPTS = 8
"""How often an act is decided again because something it rests on has changed meanwhile."""


class Acts:
    """Commits what is asked. Raises `Refused`, and what the ports raise: then the outcome is not known."""

    def __init__(self, deps: Deps, cache: Cache, direct: Direct, history: History) -> None:
        self._deps, self._cache, self._direct, self._history = deps, cache, direct, history

    async def preview_node_wish(self, node: str, ask: NodeAsk) -> t.WishPreview:
        facts = (await self._direct.node(read_id(node, "node"), self._cache.similar)).facts
        return t.WishPreview(verb=ask.verb, node=node, would=wishes.check_node_wish(facts, ask, self._deps.clock.now()))

    async def wish_node(self, node: str, ask: NodeAsk, actor: str) -> t.WishAccepted:
        read_id(node, "node")
        request_id = ask.request_id or new_token(self._deps.rng)

        async def attempt() -> t.WishAccepted:
            read, now = await self._direct.node(node, self._cache.similar), self._deps.clock.now()
            facts = read.facts
            if wishes.earlier(facts, request_id, ask.verb):
                return await self._repeated(request_id, ask.verb, facts.node.pool, node)
            wishes.check_node_wish(facts, ask, now)
            wish = wishes.wish_of(ask, request_id, actor, now)
            event = wishes.event_of(wish, self._deps.cluster, facts.node.pool, node)
            record = wishes.with_wish(facts, wish, now)
            revision = await self._commit(read.expect, NODE_WISHES.key(node), record, event)
            return _accepted(event, revision, node=node)

        return await self._decided(attempt)

    async def preview_pool_wish(self, pool: str, ask: PoolAsk) -> t.WishPreview:
        facts, _ = await self._pool_facts(pool, ask)
        now = self._deps.clock.now()
        wish = wishes.wish_of(ask, "preview", "operator:anonymous", now)
        return t.WishPreview(verb=ask.verb, pool=pool, would=wishes.check_pool_wish(facts, ask, wish, now)[1])

    async def wish_pool(self, pool: str, ask: PoolAsk, actor: str) -> t.WishAccepted:
        request_id = ask.request_id or new_token(self._deps.rng)

        async def attempt() -> t.WishAccepted:
            (facts, expect), now = await self._pool_facts(pool, ask), self._deps.clock.now()
            if wishes.earlier(facts, request_id, ask.verb):
                return await self._repeated(request_id, ask.verb, pool)
            wish = wishes.wish_of(ask, request_id, actor, now)
            wish, _ = wishes.check_pool_wish(facts, ask, wish, now)
            event = wishes.event_of(wish, self._deps.cluster, pool)
            revision = await self._commit(expect, POOL_WISH.key(pool, ask.verb), PoolWish(pool=pool, wish=wish), event)
            return _accepted(event, revision, pool=pool)

        return await self._decided(attempt)

    async def freeze(self, ask: FreezeAsk, actor: str) -> t.GuardAccepted:
        if ask.pool is not None:
            self._check_pool(ask.pool)
        return await self._guard(ask.pool, lambda known, now: guards.freeze(known, ask, actor, now))

    async def unfreeze(self, ask: UnfreezeAsk, actor: str) -> t.GuardAccepted:
        return await self._guard(ask.pool, lambda known, now: guards.unfreeze(known, ask, actor, now))

    async def _guard(self, pool: str | None, decide: Callable[[list[Guard], datetime], Guard]) -> t.GuardAccepted:
        """Every guard is expected, since the new number is above all of theirs."""

        async def attempt() -> t.GuardAccepted:
            found: list[Stored[Guard]] = await self._direct.guards()
            guard = decide([stored.record for stored in found], self._deps.clock.now())
            key = guards.guard_key(pool)
            expect: dict[AnyKey, int] = {guards.guard_key(None): ABSENT, key: ABSENT}
            expect |= {GUARD.key(stored.key.name): stored.revision for stored in found}
            revision = await self._commit(expect, key, guard, guards.event_of(guard, self._deps.cluster))
            log.info("freeze changed", guard=guard.name, active=guard.active, level=guard.level, actor=guard.actor)
            return t.GuardAccepted(
                **structs.asdict(views.guard_view(guard)), event_id=event_id(revision, 0), revision=revision
            )

        return await self._decided(attempt)

    async def _pool_facts(self, pool: str, ask: PoolAsk) -> tuple[wishes.PoolFacts, dict[AnyKey, int]]:
        self._check_pool(pool)
        read = await self._direct.pool(pool, ask.verb)
        known = self._cache.known()
        facts = wishes.PoolFacts(
            pool=pool,
            config=self._deps.config.current.config.pools.get(pool),
            record=read.record,
            latest=read.latest,
            guards=read.guards,
            nodes=sum(1 for _ in known.living(pool)),
        )
        return facts, read.expect

    def _check_pool(self, pool: str) -> None:
        names = self._cache.known().pool_names(self._deps.config.current.config)
        if read_id(pool, "pool") not in names:
            raise not_found("pool", pool, names)

    async def _repeated(self, request_id: str, verb: str, pool: str, node: str = "") -> t.WishAccepted:
        """The answer to a request that was accepted before: the event that told of it is looked up."""
        query = EventQuery(kind="operator", what=verb, pool=pool, node=node)
        filters = filters_of(self._deps.subjects, query)
        events, _ = await self._history.events_of(filters, None, 1000)
        told = [event for event in events if isinstance(event, OperatorAction) and event.request_id == request_id]
        return t.WishAccepted(
            request_id=request_id,
            event_id=told[-1].id if told else "",
            revision=told[-1].rev if told else 0,
            verb=verb,
            node=node,
            pool=pool,
            repeated=True,
        )

    async def _commit(self, expect: dict[AnyKey, int], key: AnyKey, record: Record, event: Event) -> int:
        with self._deps.telemetry.span("wish", code=event.code, pool=event.pool, node=event.node) as span:
            told = structs.replace(event, trace_id=span.trace_id)
            commit = Commit(expect=expect, put={key: record}, emit=(told,), trace=span.traceparent)
            revision = await self._deps.committer.commit(commit)
        log.info("accepted", kind=event.KIND, code=event.code, actor=event.actor, pool=event.pool, node=event.node)
        return revision

    async def _decided(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for _ in range(ATTEMPTS):
            try:
                return await attempt()
            except Conflict as error:
                log.debug("deciding again", error=str(error))
        raise unavailable("contended", f"what the request rests on changed {ATTEMPTS} times meanwhile; try again")


def _accepted(event: OperatorAction, revision: int, node: str = "", pool: str = "") -> t.WishAccepted:
    return t.WishAccepted(
        request_id=event.request_id,
        event_id=event_id(revision, 0),
        revision=revision,
        verb=event.action,
        node=node,
        pool=pool or event.pool,
    )
