"""The breaker of a pool: when so much fails that it cannot be the machines' fault, we stop taking machines out. Pure.

It opens when more nodes are unhealthy than `disruption.max_unhealthy`, or when several machines in a row came to nothing
before they were usable. Open, it stops what automation destroys: no node is drained, replaced or ended. Health's cordons
go on, and so does what an operator asks for; a machine that its provider says is gone is refilled. Where new machines are
what fails, they are launched one at a time.

After a pause one replacement is let through, the *canary*, and a new one after a longer pause where it fails. Its success
closes the breaker. So does an operator, or nodes that are well again. Where the pool has nodes enough without the failed
ones, or they were replaced before it opened, nothing takes their place: then one of them goes in each turn, until no more
are unhealthy than may be.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from msgspec import structs

from navarch_common.events import kinds
from navarch_common.events.base import Event
from navarch_common.model.base import AnyKey
from navarch_common.model.health import HealthStatus
from navarch_common.model.node import COMING, Phase
from navarch_common.model.pool import SUPPLY, VERDICTS, Breaker, SupplyRecord
from navarch_common.model.wish import POOL_WISH, Outcome
from navarch_provisioner.answers import answer
from navarch_provisioner.news import Why, note_supply, tell_pool
from navarch_provisioner.steps import Step
from navarch_provisioner.view import NodeView, PoolView

STARTS_MAX = 3
"""Machines in a row that came to nothing before they were usable: so many open the breaker."""
_UNDER_WAY = COMING | {Phase.DRAINING, Phase.TERMINATING}
"""A canary that comes, or one that goes without a replacement."""
UNHEALTHY, STARTS = "too-many-unhealthy", "starts-failing"
OPEN = "breaker-open"


def is_open(pool: PoolView) -> Breaker | None:
    return pool.supply.breaker if pool.supply is not None else None


# --- what it stops ---


def stops(pool: PoolView, node: NodeView | None, now: datetime, *, canary: bool = False) -> Why | None:
    """Why automation may not take `node` out now, or None. `canary`: it failed and would be replaced, or go without, which
    is let through in its turn. What an operator asked for is not automation's."""
    breaker = is_open(pool)
    if breaker is None or (node is not None and _is_excepted(breaker, node)):
        return None
    if canary and _its_turn(pool, breaker, now):
        return None
    return _why(pool, breaker, now)


def stops_launch(pool: PoolView, node: NodeView, now: datetime) -> Why | None:
    """Why an intent is not launched now, or None: where new machines are what fails, one at a time shows whether they
    still do."""
    breaker = is_open(pool)
    if breaker is None or breaker.code != STARTS or node.node == breaker.canary or _is_operators(pool, node):
        return None
    return None if _its_turn(pool, breaker, now) else _why(pool, breaker, now)


def launches_canaries(pool: PoolView, node: NodeView) -> bool:
    """Whether the launch of `node` is itself what is tried."""
    breaker = is_open(pool)
    return breaker is not None and breaker.code == STARTS and not _is_operators(pool, node)


def _is_excepted(breaker: Breaker, node: NodeView) -> bool:
    record = node.record
    return (
        record.by_force
        or bool(record.replacement_reason)
        or (bool(breaker.canary) and breaker.canary in (record.replaced_by, record.node))
    )


def _is_operators(pool: PoolView, node: NodeView) -> bool:
    """Whether it is the replacement that an operator asked for."""
    other = pool.nodes.get(node.record.replaces or "")
    return node.record.by_force or (other is not None and bool(other.record.replacement_reason))


def _its_turn(pool: PoolView, breaker: Breaker, now: datetime) -> bool:
    """Whether a canary may be let through: none is on its way, and the pause is over."""
    canary = pool.nodes.get(breaker.canary)
    return now >= breaker.retry_at and (canary is None or canary.phase not in _UNDER_WAY)


def _why(pool: PoolView, breaker: Breaker, now: datetime) -> Why:
    canary = pool.nodes.get(breaker.canary)
    if canary is not None and canary.phase in _UNDER_WAY:
        then = f"its canary {canary.node} is {canary.phase.value.replace('_', ' ')}"
    elif now < breaker.retry_at:
        then = f"a canary is let through at {breaker.retry_at:%H:%M:%S} UTC"
    else:
        then = "a canary is let through next"
    return Why(OPEN, f"the breaker is open: {breaker.reason}; {then}")


# --- how it opens ---


def unhealthy(pool: PoolView) -> list[NodeView]:
    """Nodes that count: found unhealthy since the breaker was last closed, and still there as far as anyone knows."""
    since = pool.supply.breaker_closed_at if pool.supply is not None else None
    return [
        view
        for view in pool.living
        if view.phase in (Phase.ACTIVE, Phase.DRAINING)
        and view.verdict is not None
        and view.status is HealthStatus.UNHEALTHY
        and not view.gone
        and (since is None or (view.verdict.failed_at or view.verdict.since) > since)
    ]


def next_step(pool: PoolView, now: datetime) -> Step | None:
    """The step that opens or closes the breaker by what there is to see, or by an operator's word; None where it stays."""
    if pool.supply is None or pool.config is None:
        return None
    breaker = pool.supply.breaker
    asked = _asked_to_close(pool, now)
    if asked is not None:
        return asked
    count, most = len(unhealthy(pool)), pool.config.disruption.max_unhealthy.of(max(pool.target, 1))
    if breaker is None and count > most:
        names = ", ".join(view.node for view in unhealthy(pool)[:5])
        text = f"{count} of {pool.target} nodes are unhealthy, disruption.max_unhealthy is {most}: {names}"
        record, event = _opened(pool, pool.supply, Why(UNHEALTHY, text), now, unhealthy=count)
        return _step(pool, record, (event,), Why(UNHEALTHY, text))
    if breaker is not None and breaker.code == UNHEALTHY and count <= most:
        why = Why("well-again", f"{count} nodes are unhealthy, no more than disruption.max_unhealthy allows")
        record, event = _closed(pool, pool.supply, why, now)
        return _step(pool, record, (event,), why)
    return None


def failed_start(
    pool: PoolView, record: SupplyRecord, node: str, now: datetime, *, gone: bool = False
) -> tuple[SupplyRecord, tuple[Event, ...]]:
    """`record` after one more machine that came to nothing before it was usable. `gone`: its provider took it away, which
    says nothing of those to come."""
    count = record.failed_starts + (0 if gone else 1)
    record = structs.replace(record, failed_starts=count)
    breaker = record.breaker
    if breaker is not None and breaker.canary == node:
        pause = _pause(pool, breaker.tries)
        return structs.replace(record, breaker=structs.replace(breaker, canary="", retry_at=now + pause)), ()
    if breaker is None and count >= STARTS_MAX and not gone:
        text = f"{count} machines in a row came to nothing before they were usable, {node} last"
        opened, event = _opened(pool, record, Why(STARTS, text), now, failed_starts=count)
        return opened, (event,)
    return record, ()


def _opened(
    pool: PoolView, record: SupplyRecord, why: Why, now: datetime, *, unhealthy: int = 0, failed_starts: int = 0
) -> tuple[SupplyRecord, Event]:
    breaker = Breaker(since=now, code=why.code, reason=why.text[:1024], retry_at=now + _pause(pool, 0))
    event = tell_pool(
        kinds.PoolBreakerOpened, pool.pool, pool.cluster, why, now, unhealthy=unhealthy, failed_starts=failed_starts
    )
    return note_supply(record, why, now, breaker=breaker), event


def _pause(pool: PoolView, tries: int) -> timedelta:
    timings = pool.settings.timings
    return min(timings.breaker_pause * (1 << min(tries, 10)), timings.breaker_pause_max)


# --- the canary, and how it closes ---


def taken(pool: PoolView, node: str, now: datetime) -> dict[AnyKey, SupplyRecord]:
    """What the step that lets `node` through as the canary writes; nothing while the breaker is closed. The step must
    expect the supply record."""
    breaker = is_open(pool)
    if breaker is None or pool.supply is None or breaker.canary == node:
        return {}
    tries = breaker.tries + 1
    let_through = structs.replace(breaker, canary=node, tries=tries, retry_at=now + _pause(pool, tries))
    return {SUPPLY.key(pool.pool): structs.replace(pool.supply, breaker=let_through)}


def proven(
    pool: PoolView, record: SupplyRecord, view: NodeView, now: datetime
) -> tuple[SupplyRecord, tuple[Event, ...]]:
    """`record` after `view` became usable."""
    record = structs.replace(record, failed_starts=0)
    breaker = record.breaker
    if breaker is None or (breaker.code != STARTS and breaker.canary != view.node):
        return record, ()
    why = Why("canary-usable", f"{view.node} became usable")
    closed, event = _closed(pool, record, why, now)
    return closed, (event,)


def _closed(pool: PoolView, record: SupplyRecord, why: Why, now: datetime) -> tuple[SupplyRecord, Event]:
    event = tell_pool(kinds.PoolBreakerClosed, pool.pool, pool.cluster, why, now)
    return note_supply(record, why, now, breaker=None, breaker_closed_at=now, failed_starts=0), event


def _asked_to_close(pool: PoolView, now: datetime) -> Step | None:
    """The answer to an operator who wants it closed; None where nobody asked or was answered already."""
    wish = pool.close_wish.wish if pool.close_wish is not None else None
    if wish is None or pool.supply is None or wish.id in pool.supply.answers:
        return None
    supply = pool.supply
    events: tuple[Event, ...] = ()
    outcome: Outcome = "done"
    if wish.expires_at <= now:
        said, outcome = Why("expired", "nobody could act on it in time", wish.actor), "expired"
    elif supply.breaker is None:
        said = Why("not-open", "the breaker is closed already", wish.actor)
    else:
        text = f"{wish.actor} closed it" + (f": {wish.reason}" if wish.reason else "")
        said = Why("closed-by-operator", text, wish.actor)
        supply, event = _closed(pool, supply, said, now)
        events = (event,)
    supply = structs.replace(supply, answers=answer(supply.answers, wish.id, outcome, said, now))
    step = _step(pool, supply, events, said)
    return replace(step, expect={**step.expect, POOL_WISH.key(pool.pool, "close-breaker"): pool.close_wish_revision})


def _step(pool: PoolView, record: SupplyRecord, events: tuple[Event, ...], why: Why) -> Step:
    return Step(
        "breaker", "", why,
        expect={**pool.expect_supply(), VERDICTS.key(pool.pool): pool.verdicts_revision},
        put={SUPPLY.key(pool.pool): record}, emit=events,
    )  # fmt: skip
