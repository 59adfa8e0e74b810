"""What is: nodes, instances, pools, guards, the configuration. The same functions underneath both doors.

Lists come from the cache, single things from the store itself.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib.metadata import version

from navarch_api import types as t
from navarch_common.config.problems import ConfigError
from navarch_common.model.base import Reason
from navarch_common.model.cluster import CONFIG
from navarch_common.model.node import ENDED, NodeRecord
from navarch_common.model.wish import Answer, PoolVerb, Wish
from navarch_common.run import Deps
from navarch_common.store.base import Stored
from navarch_gateway import views
from navarch_gateway.asks import ConfigAsk, EventQuery, NodeQuery, Page, read_id, read_node_query
from navarch_gateway.cache import Cache
from navarch_gateway.direct import READ_TIMEOUT_S, Direct, NodeRead
from navarch_gateway.explain import ITEMS_MAX, explain_node, explain_pool
from navarch_gateway.history import History, filters_of
from navarch_gateway.known import Known
from navarch_gateway.refusal import invalid, not_found
from navarch_gateway.selection import one_page, provider_of, select_nodes
from navarch_gateway.takings import is_too_much
from navarch_gateway.weighing import weigh
from navarch_gateway.wishes import is_final, open_of

SUCCESSOR_TELLS = ("planned", "launched", "launch-failed", "active", "registration-timeout")
"""Of a replacement's own life, what belongs to the story of the node that it replaces."""

CLOCKS_APART = timedelta(minutes=1)
"""The bus knows when an event was stored by its own clock, the event when it happened by its service's."""


class Reads:
    """Answers questions. Raises `Refused`, and what the ports raise where they don't answer."""

    def __init__(self, deps: Deps, cache: Cache, direct: Direct, history: History) -> None:
        self._deps, self._cache, self._direct, self._history = deps, cache, direct, history

    async def nodes(self, query: NodeQuery, page: Page) -> t.NodeList:
        known = self._cache.known()
        read_node_query(query, t.STATUSES, t.HEALTHS)
        chosen, token = _page(select_nodes(known, query), page)
        beats = await self._direct.beats([stored.record.node for stored in chosen])
        items = tuple(
            views.node_view(node := stored.record, stored.revision, known.health_of(node.node), beats.get(node.node))
            for stored in chosen
        )
        return t.NodeList(items=items, next_page_token=token, as_of=known.as_of)

    async def node(self, node: str) -> t.NodeDetail:
        read = await self._node(node)
        facts = read.facts
        wishes = open_of(facts, read.as_of)
        return views.node_detail(facts.node, read.revision, facts.health, read.beat, facts.work, wishes, read.as_of)

    async def instances(self, pool: str, provider: str, page: Page) -> t.InstanceList:
        known = self._cache.known()
        query = read_node_query(NodeQuery(pool=pool, provider=provider), t.STATUSES, t.HEALTHS)
        living = [
            stored
            for stored in known.nodes.values()
            if stored.record.instance is not None
            and stored.record.phase not in ENDED
            and query.pool in ("", stored.record.pool)
            and query.provider in ("", provider_of(stored.record))
        ]
        chosen, token = _page(living, page)
        items = tuple(
            views.instance_view(node, node.instance, known.status_of(node).value)
            for stored in chosen
            if (node := stored.record).instance is not None
        )
        return t.InstanceList(items=items, next_page_token=token, as_of=known.as_of)

    def pools(self) -> t.PoolList:
        known, config, now = self._cache.known(), self._deps.config.current.config, self._deps.clock.now()
        items = tuple(views.pool_view(pool, known, config, now) for pool in known.pool_names(config))
        return t.PoolList(items=items, as_of=known.as_of)

    def pool(self, pool: str) -> t.PoolStatus:
        known, config = self._cache.known(), self._deps.config.current.config
        self.check_pool(pool, known)
        return views.pool_status(pool, known, config, self._deps.clock.now())

    def check_pool(self, pool: str, known: Known | None = None) -> None:
        """Raises `Refused` where there is no such pool."""
        names = (known or self._cache.known()).pool_names(self._deps.config.current.config)
        if read_id(pool, "pool") not in names:
            raise not_found("pool", pool, names)

    async def node_wish(self, node: str, request_id: str) -> t.WishState:
        facts = (await self._node(node)).facts
        wish = next((wish for wish in (facts.wishes.wishes if facts.wishes else ()) if wish.id == request_id), None)
        return _wish_state(request_id, wish, facts.node.answers.get(request_id))

    async def pool_wish(self, pool: str, request_id: str) -> t.WishState:
        self.check_pool(pool)
        known = self._cache.known()
        verbs: tuple[PoolVerb, ...] = ("scale", "pause", "resume", "close-breaker")
        reads = [await self._direct.pool(pool, verb) for verb in verbs]
        asked = [read.latest.wish for read in reads if read.latest]
        asked += await self._direct.wishes_about_changes(pool)
        wish = next((wish for wish in asked if wish.id == request_id), None)
        record = reads[0].record or (known.pools[pool].record if pool in known.pools else None)
        answers = {**(record.answers if record else {}), **await self._direct.supply_answers(pool)}
        return _wish_state(request_id, wish, answers.get(request_id))

    def changes(self) -> t.ChangeList:
        """What waits for an operator's word, or is only said, in all pools."""
        known, config = self._cache.known(), self._deps.config.current.config
        return t.ChangeList(items=views.change_views(known, config), as_of=known.as_of)

    async def explain_node(self, node: str, query: EventQuery) -> t.Explanation:
        read = await self._node(node)
        record, health = read.facts.node, read.facts.health
        filters = [*filters_of(self._deps.subjects, EventQuery(node=node))]
        if record.replaced_by:
            stem = f"{self._deps.subjects.prefix}.events.node"
            filters += [f"{stem}.{what}.*.{record.replaced_by}" for what in SUCCESSOR_TELLS]
        since = (query.since or record.created_at) - CLOCKS_APART
        events, complete = await self._history.events_of(filters, since, ITEMS_MAX)
        items, blocked = explain_node(
            record, health, read.supply, read.facts.guards, events, query.since, self._deps.clock.now()
        )
        summary = views.node_view(record, read.revision, health, read.beat)
        return _explanation(items, blocked, complete=complete, as_of=read.as_of, about=summary)

    async def explain_pool(self, pool: str, query: EventQuery) -> t.Explanation:
        known, now = self._cache.known(), self._deps.clock.now()
        self.check_pool(pool, known)
        filters = filters_of(self._deps.subjects, EventQuery(pool=pool))
        since = (query.since or now - timedelta(days=1)) - CLOCKS_APART
        events, complete = await self._history.events_of(filters, since, ITEMS_MAX)
        items, blocked = explain_pool(pool, known, events, query.since, now)
        summary = views.pool_view(pool, known, self._deps.config.current.config, now)
        return _explanation(items, blocked, complete=complete, as_of=known.as_of, about=summary)

    async def guards(self) -> t.GuardList:
        now = self._deps.clock.now()
        found = await self._direct.guards()
        return t.GuardList(items=tuple(views.guard_view(stored.record) for stored in found), as_of=now)

    async def config(self) -> t.Config:
        async with asyncio.timeout(READ_TIMEOUT_S):
            stored = await self._deps.store.get(CONFIG.key("current"))
        if stored is None:
            raise not_found("configuration", "current")
        found = stored.record
        return t.Config(
            generation=found.generation,
            sha256=found.sha256,
            text=found.text,
            author=found.author,
            source=found.source,
            at=found.at,
        )

    async def preview_config(self, ask: ConfigAsk) -> t.ConfigPreview:
        """What a configuration would take out of the fleet, were it proposed now. Nothing is proposed, and no value of it
        is shown: this gateway's environment stands in it."""
        async with asyncio.timeout(READ_TIMEOUT_S):
            stored = await self._deps.store.get(CONFIG.key("current"))
        old = self._deps.config.current
        try:
            loaded = await self._deps.config.load(ask.text, ask.source)
        except ConfigError as error:
            raise invalid("bad-config", str(error)[:4096]) from error
        weighed = await weigh(self._deps, old.config.pools, loaded.config.pools)
        return t.ConfigPreview(
            generation=old.generation,
            in_force=stored is not None and stored.record.sha256 == loaded.sha256,
            takings=tuple(views.taking_view(one) for one in weighed.takings),
            retires=tuple(sorted(set(old.config.pools) - set(loaded.config.pools))),
            held=any(is_too_much(one) for one in weighed.takings),
        )

    def version(self) -> t.Version:
        return t.Version(
            version=version("navarch-gateway"), cluster=self._deps.cluster, installation=self._deps.installation
        )

    async def _node(self, node: str) -> NodeRead:
        """Raises `Refused`; a name that is like another's says so."""
        return await self._direct.node(read_id(node, "node"), similar=self._cache.similar)


def _page(stored: Sequence[Stored[NodeRecord]], page: Page) -> tuple[Sequence[Stored[NodeRecord]], str]:
    return one_page(stored, [item.record.node for item in stored], page)


def _wish_state(request_id: str, wish: Wish | None, answer: Answer | None) -> t.WishState:
    if wish is None and answer is None:
        raise not_found("wish", request_id)
    return t.WishState(
        request_id=request_id,
        state="answered" if is_final(answer) else "open",
        wish=views.wish_view(wish) if wish else None,
        answer=views.answer_view(answer) if answer else None,
    )


def _explanation(
    items: list[t.ExplainItem],
    blocked: Reason | None,
    *,
    complete: bool,
    as_of: datetime,
    about: t.Node | t.Pool,
) -> t.Explanation:
    return t.Explanation(
        node=about.node if isinstance(about, t.Node) else "",
        pool=about.pool,
        status=about.status if isinstance(about, t.Node) else "",
        reason=about.reason,
        items=tuple(items[:ITEMS_MAX]),
        blocked=views.reason_view(blocked),
        complete=complete and len(items) <= ITEMS_MAX,
        as_of=as_of,
    )
