"""What is asked for, made durable: a wish and the event that tells of it, in one commit. Guards: see `guarded`.

Each act reads what it rests on, decides, and commits expecting just that; where something changed in between, it reads
and decides again.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
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
from navarch_common.model.node import ENDED, NodeRecord, Phase
from navarch_common.model.pool import Guard
from navarch_common.model.wish import CHANGE_WISH, NODE_WISHES, POOL_WISH, ChangeWish, PoolWish
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT, Commit, Conflict
from navarch_gateway import guards, wishes
from navarch_gateway.asks import (
    ChangeAsk,
    EventQuery,
    FreezeAsk,
    HoldAsk,
    NodeAsk,
    PoolAsk,
    ReleaseAsk,
    UnfreezeAsk,
    read_id,
)
from navarch_gateway.audits import entry_of
from navarch_gateway.cache import Cache
from navarch_gateway.direct import Direct
from navarch_gateway.guarded import Guarded
from navarch_gateway.history import History, filters_of
from navarch_gateway.refusal import conflict, not_found, unavailable
from navarch_gateway.spoken import Spoken

log = structlog.get_logger(__name__)
T = TypeVar("T")

ATTEMPTS = 8
"""How often an act is decided again because something it rests on has changed meanwhile."""


class Acts:
    """Commits what is asked. Raises `Refused`, and what the ports raise: then the outcome is not known."""

    def __init__(self, deps: Deps, cache: Cache, direct: Direct, history: History, guarded: Guarded) -> None:
        self._deps, self._cache, self._direct, self._history = deps, cache, direct, history
        self._guarded, self._spoken = guarded, Spoken(deps)

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
            self._check_named(ask.pool, "pool")
        return await self._guarded.change(lambda known, now: guards.freeze(known, ask, actor, now))

    async def unfreeze(self, ask: UnfreezeAsk, actor: str) -> t.GuardAccepted:
        return await self._guarded.change(lambda known, now: guards.unfreeze(known, ask, actor, now))

    async def hold(self, ask: HoldAsk, actor: str) -> t.GuardAccepted:
        """On a node where one has that name, else on the pool of that name."""
        known_nodes = self._cache.latest.nodes if self._cache.latest else {}
        node = known_nodes.get(ask.target)
        if node is not None:
            _check_may_be_held(node.record)
        else:
            self._check_named(ask.target, "node or pool")
        pool, name = (ask.target, "") if node is None else (node.record.pool, ask.target)
        return await self._guarded.change(lambda known, now: guards.hold(known, ask, actor, now, pool=pool, node=name))

    async def release(self, ask: ReleaseAsk, actor: str) -> t.GuardAccepted:
        return await self._guarded.change(lambda known, now: guards.release(known, ask, actor, now))

    def _check_named(self, pool: str, what: str) -> None:
        """Guards are changed while the store is away, too: then by what was known last."""
        config, known = self._deps.config.current.config, self._cache.latest
        pools = known.pool_names(config) if known else sorted(config.pools)
        if read_id(pool, what) not in pools:
            raise not_found(what, pool, [*pools, *self._cache.similar(pool)])

    # --- changes ---

    async def preview_change_wish(self, name: str, ask: ChangeAsk) -> t.WishPreview:
        if (held := await self._spoken.about(read_id(name, "change"))) is not None:
            return await self._spoken.preview(held, ask)
        facts = self._change_facts(name)
        would = wishes.check_change_wish(facts, ask)
        return t.WishPreview(verb=ask.verb, node=facts.node.node if facts.node else "", pool=facts.pool, would=would)

    async def wish_change(self, name: str, ask: ChangeAsk, actor: str) -> t.WishAccepted:
        """Approves or cancels a change that waits, be it the configuration, or stops the replacement of a node."""
        request_id = ask.request_id or new_token(self._deps.rng)

        async def attempt() -> t.WishAccepted:
            if (held := await self._spoken.about(read_id(name, "change"))) is not None:
                if held.record.request_id == request_id:
                    return await self._repeated(request_id, ask.verb, "")
                return await self._spoken.say(held, ask, request_id, actor)
            facts, now = self._change_facts(name), self._deps.clock.now()
            key = CHANGE_WISH.key(name)
            stored = await self._direct.change_wish(name)
            facts = replace(facts, latest=stored.record if stored else None)
            if wishes.earlier(facts, request_id, ask.verb):
                return await self._repeated(request_id, ask.verb, facts.pool, facts.node.node if facts.node else "")
            wishes.check_change_wish(facts, ask)
            node = facts.node.node if facts.change is None and facts.node is not None else ""
            if node:
                await self._hold_for_good(facts.pool, node, ask, actor)
            wish = wishes.wish_of(ask, request_id, actor, now)
            event = wishes.event_of(wish, self._deps.cluster, facts.pool, node)
            if facts.change is not None:
                event = structs.replace(event, reason=f"{event.reason} ({facts.name}: {facts.change.text})"[:1024])
            record = ChangeWish(pool=facts.pool, change=name, node=node, wish=wish)
            revision = await self._commit({key: stored.revision if stored else ABSENT}, key, record, event)
            return _accepted(event, revision, node=node, pool=facts.pool)

        return await self._decided(attempt)

    async def _hold_for_good(self, pool: str, node: str, ask: ChangeAsk, actor: str) -> None:
        """First the hold: a node whose replacement was stopped must not be replaced again a moment later."""
        why = HoldAsk(target=node, reason=ask.reason or f"{actor} stopped its replacement")

        def hold(known: Sequence[Guard], now: datetime) -> Guard:
            return structs.replace(guards.hold(known, why, actor, now, pool=pool, node=node), until=None)

        await self._guarded.change(hold)

    def _change_facts(self, name: str) -> wishes.ChangeFacts:
        """Raises `Refused` where neither a change nor a node has that name."""
        known, config = self._cache.known(), self._deps.config.current.config
        for pool, stored in known.supply.items():
            change = next((one for one in stored.record.changes if one.id == read_id(name, "change")), None)
            if change is not None:
                return wishes.ChangeFacts(pool, name, config.pools.get(pool), change=change, supply=stored.record)
        node = known.nodes.get(name)
        if node is None:
            waiting = [one.id for stored in known.supply.values() for one in stored.record.changes]
            waiting += [known.held_config.change] if known.held_config else []
            raise not_found("change that waits, or node", name, [*waiting, *self._cache.similar(name)])
        pool = node.record.pool
        supply = known.supply[pool].record if pool in known.supply else None
        return wishes.ChangeFacts(pool, name, config.pools.get(pool), node=node.record, supply=supply)

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
            supply=known.supply[pool].record if pool in known.supply else None,
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
        before = await self._deps.store.get(key)
        with self._deps.telemetry.span("wish", code=event.code, pool=event.pool, node=event.node) as span:
            entry = entry_of(event, before.record if before is not None else None, record)
            told = tuple(structs.replace(one, trace_id=span.trace_id) for one in (event, entry))
            commit = Commit(expect=expect, put={key: record}, emit=told, trace=span.traceparent)
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


def _check_may_be_held(node: NodeRecord) -> None:
    """What is on its way out for good cannot be kept."""
    if node.phase in ENDED or node.phase is Phase.TERMINATING:
        raise conflict(
            "terminating" if node.phase is Phase.TERMINATING else "terminated",
            f"{node.node} is {node.phase.value}: that is never taken back, and a hold would keep nothing",
        )


def _accepted(event: OperatorAction, revision: int, node: str = "", pool: str = "") -> t.WishAccepted:
    return t.WishAccepted(
        request_id=event.request_id,
        event_id=event_id(revision, 0),
        revision=revision,
        verb=event.action,
        node=node,
        pool=pool or event.pool,
    )
