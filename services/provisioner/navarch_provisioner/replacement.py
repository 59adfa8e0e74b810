"""A failed node and the one that takes its place. Pure.

The commit that plans a replacement cordons the failed node, begins its drain and takes a place in the budget. The failed
node goes when it is drained and its replacement is active: or earlier, where surge is off, has waited too long, or no
provider has room for one machine more. Nothing goes on a verdict that was taken back.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from msgspec import structs

from navarch_common.events import kinds
from navarch_common.events.base import Event
from navarch_common.model.base import AnyKey, Record
from navarch_common.model.health import HealthStatus
from navarch_common.model.node import COMING, NODE, Cordon, NodeRecord, Phase
from navarch_common.model.wish import Wish
from navarch_common.store.base import Refund
from navarch_provisioner import breaker, budget, drain, gates, lifecycle, limits, sizing
from navarch_provisioner.answers import answer
from navarch_provisioner.news import Changed, Why, enter, note, tell
from navarch_provisioner.steps import Blocked, Step
from navarch_provisioner.view import NodeView, PoolView
from navarch_provisioner.wishes import asked, price, refuse

HEALTH = "health"


def why_failed(view: NodeView) -> Why:
    assert view.verdict is not None
    return Why(view.verdict.code, view.verdict.reason or f"health found it failed: {view.verdict.code}", HEALTH)


def cordon(pool: PoolView, view: NodeView, why: Why, now: datetime, *, ask: bool = False) -> Step:
    """No new work goes there while health does not trust it. Needs no budget, and no freeze forbids it."""
    record, event = _cordoned(view.record, pool, why, now)
    return Step(
        "cordon", view.node, why, expect=view.expect(), put={view.key: record}, emit=(event,),
        call="ask" if ask else None, trace=view.verdict.trace if view.verdict else "",
    )  # fmt: skip


def _cordoned(record: NodeRecord, pool: PoolView, why: Why, now: datetime) -> tuple[NodeRecord, Event]:
    cordons = {**record.cordons, HEALTH: Cordon(reason=why.text[:1024], at=now)}
    cordoned = note(record, why, now, cordons=cordons)
    return cordoned, tell(kinds.NodeCordoned, cordoned, pool.cluster, why, now, holder=HEALTH)


def uncordon(pool: PoolView, view: NodeView, now: datetime) -> Step:
    """Health trusts it again: its own cordon is lifted, whoever else holds one keeps it."""
    why = Why("recovered", f"health finds it {view.status.value} again", HEALTH)
    cordons = {holder: cordon for holder, cordon in view.record.cordons.items() if holder != HEALTH}
    record = note(view.record, why, now, cordons=cordons)
    event = tell(
        kinds.NodeUncordoned, record, pool.cluster, why, now, holder=HEALTH, still_held_by=tuple(sorted(cordons))
    )
    return Step("uncordon", view.node, why, expect=view.expect(), put={view.key: record}, emit=(event,))


# --- a failed node that is still active ---


def failed(pool: PoolView, view: NodeView, now: datetime, ids: Iterator[str]) -> Step | Blocked:
    """What to do about an active node that health found failed. `ids` has one for its replacement."""
    why = why_failed(view)
    step = _gone(pool, view, why, now, ids) if view.gone else _replace(pool, view, why, now, ids)
    if isinstance(step, Blocked) and HEALTH not in view.record.cordons:
        return cordon(pool, view, why, now)
    return step


def _replace(pool: PoolView, view: NodeView, why: Why, now: datetime, ids: Iterator[str]) -> Step | Blocked:
    config = pool.config
    wish = next((wish for wish in view.open_wishes if wish.verb == "replace"), None)
    if config is not None and not config.health.auto_replace and wish is None:
        return Blocked(view.node, Why("auto-replace-off", "the pool does not replace failed nodes by itself"))
    if wish is not None and wish.force:
        view = forced(view)
    too_many = sizing.occupied(pool) > pool.target and pool.desired is not None
    blocked = gates.no_disruption(pool, now, view, replaced=True)
    blocked = blocked or (budget.exhausted(pool, view, hourly=True) if config else None)
    if blocked is not None:
        return Blocked(view.node, blocked)
    successor = pool.replacement_of(view)
    if successor is not None:
        # An operator wanted another before it failed, and it is on its way: a second one would be bought for nothing.
        record, events = _begin(pool, view, why, now, replaced_by=successor.node, wish=wish)
        return _commit(pool, view, record, why, events=events, expect={successor.key: successor.revision})
    if too_many:
        return _retire(pool, view, why, now)
    made = sizing.new_node(pool, why, now, ids, replaces=view, trace=view.verdict.trace if view.verdict else "")
    if isinstance(made, Why):
        return Blocked(view.node, made)
    node = made.record.node
    record, events = _begin(pool, view, why, now, replaced_by=node, wish=wish)
    return _commit(
        pool,
        view,
        record,
        why,
        events=(*events, *made.events),
        extra={NODE.key(node): made.record, **breaker.taken(pool, node, now)},
    )


def _begin(
    pool: PoolView, view: NodeView, why: Why, now: datetime, *, replaced_by: str = "", wish: Wish | None = None
) -> tuple[NodeRecord, tuple[Event, ...]]:
    """The failed node cordoned and draining."""
    record, events = view.record, []
    if HEALTH not in record.cordons:
        record, event = _cordoned(record, pool, why, now)
        events.append(event)
    answers = record.answers
    if wish is not None and wish.id not in answers:
        answers = answer(answers, wish.id, "accepted", Why("replacing", f"replaced by {replaced_by}"), now)
    failure = view.verdict.failure_id if view.verdict else ""
    trace = view.verdict.trace if view.verdict else ""
    record = structs.replace(
        record, replaced_by=replaced_by or None, failure_id=failure, answers=answers, trace=trace or record.trace
    )
    draining = drain.begin(record, "fault", pool, why, now)
    return draining.record, (*events, *draining.events)


def _retire(pool: PoolView, view: NodeView, why: Why, now: datetime) -> Step:
    """More nodes are there than wanted: the failed one goes, and nobody takes its place."""
    text = f"{why.text}; {sizing.wanted(pool)} and there are more, so it is not replaced"
    record, events = _begin(pool, view, Why(why.code, text, HEALTH), now)
    turn: dict[AnyKey, Record] = {**breaker.taken(pool, view.node, now)}
    return _commit(pool, view, record, why, events=events, extra=turn, act_retire=True)


def _commit(
    pool: PoolView, view: NodeView, record: NodeRecord, why: Why,
    *, events: tuple[Event, ...], extra: dict[AnyKey, Record] | None = None, expect: dict[AnyKey, int] | None = None,
    act_retire: bool = False,
) -> Step:  # fmt: skip
    new: dict[AnyKey, Record] = extra or {}
    return Step(
        "retire" if act_retire else "replace", view.node, why,
        expect={
            **view.expect(), **pool.expect_pool(), **dict.fromkeys(new, 0), **pool.expect_supply(), **(expect or {}),
        },
        put={view.key: record, **new}, emit=events, spend=budget.spend(pool, view, hourly=True),
        trace=view.verdict.trace if view.verdict else "",
    )  # fmt: skip


def _gone(pool: PoolView, view: NodeView, why: Why, now: datetime, ids: Iterator[str]) -> Step | Blocked:
    """Its provider says that the machine is no more: nothing to drain, nothing to end, and no budget to ask."""
    if pool.safe_mode:
        return Blocked(view.node, Why("safe-mode", "safe mode: nothing is concluded from what a provider says"))
    ended = lifecycle.terminated(structs.replace(view.record, failure_id=_failure(view)), pool.cluster, why, now)
    record, events = ended.record, list(ended.events)
    new: dict[AnyKey, Record] = {}
    auto = pool.config is not None and pool.config.health.auto_replace
    if auto and sizing.occupied(pool) <= pool.target and pool.replacement_of(view) is None:
        trace = view.verdict.trace if view.verdict else ""
        made = sizing.new_node(pool, why, now, ids, replaces=view, trace=trace)
        if isinstance(made, Changed):
            record = structs.replace(record, replaced_by=made.record.node)
            new = {NODE.key(made.record.node): made.record}
            events += made.events
    return Step(
        "replace" if new else "terminated", view.node, why,
        expect={**view.expect(), **pool.expect_pool(), **pool.expect_supply(), **dict.fromkeys(new, 0)},
        put={view.key: record, **new}, emit=tuple(events),
        refund=(*budget.refund(pool, view.node), *limits.machine_gone(pool, view.record)),
        trace=view.verdict.trace if view.verdict else "",
    )  # fmt: skip


def _failure(view: NodeView) -> str:
    return view.verdict.failure_id if view.verdict else view.record.failure_id


# --- a node on its way out because it failed, or because an operator wants another ---


def leaving(pool: PoolView, view: NodeView, now: datetime, ids: Iterator[str]) -> Step | Blocked:
    """The next step for a node that drains to be terminated: by fault or by an operator's `replace`."""
    progress = view.record.drain
    assert progress is not None
    if progress.cause == "fault" and view.status in (HealthStatus.HEALTHY, HealthStatus.DEGRADED):
        return _call_off(pool, view, now)
    if progress.drained_at is None:
        over = drain.ended(view, pool, now)
        if over is not None:
            done = drain.done(view, pool, over[0], now, forced=over[1])
            return Step(
                "drain", view.node, over[0], expect=view.expect(), put={view.key: done.record}, emit=done.events,
                trace=view.record.trace,
            )  # fmt: skip
    successor = pool.replacement_of(view)
    if successor is None and view.record.replaced_by is not None:
        again = _plan_another(pool, view, now, ids)
        if isinstance(again, Step):
            return again
    if progress.drained_at is None:
        return Blocked(view.node, drain.held_up(view, pool, now))
    waits = surge_wait(pool, view, now) or _busy_again(pool, view, now)
    if waits is not None:
        return Blocked(view.node, waits)
    return _terminate(pool, view, successor, now)


def _busy_again(pool: PoolView, view: NodeView, now: datetime) -> Why | None:
    """A healthy node that was drained and found work again is not ended before its deadline."""
    progress = view.record.drain
    assert progress is not None
    if progress.cause == "fault" or view.failed or view.gone or now >= progress.deadline:
        return None
    return None if drain.proven_idle(view, pool, now) else drain.held_up(view, pool, now)


def surge_wait(pool: PoolView, view: NodeView, now: datetime) -> Why | None:
    """Why a drained node is still kept, or None when it may go."""
    progress = view.record.drain
    assert progress is not None
    if view.record.replaced_by is None:
        return None
    successor = pool.replacement_of(view)
    if successor is not None and (successor.usable if progress.cause == "replace" else successor.phase is Phase.ACTIVE):
        return None
    if progress.cause == "fault" and terminate_first(pool, view, now) is not None:
        return None
    if successor is None:
        return Why("no-replacement", "its replacement came to nothing; it is kept until another is active")
    return _not_there(successor)


def _not_there(successor: NodeView) -> Why:
    state = successor.phase.value.replace("_", " ")
    if successor.phase is Phase.ACTIVE:
        state = f"active and {successor.status.value}"
    return Why("surge", f"its replacement {successor.node} is {state}")


def terminate_first(pool: PoolView, view: NodeView, now: datetime) -> Why | None:
    """Why a faulty node goes before its replacement is there, or None where surge holds."""
    if view.gone:
        return Why("machine-gone", "its machine is gone already")
    if pool.config is None:
        return None
    if not surge_allowed(pool):
        return Why("surge-off", "the pool has no surge: the faulty node goes first")
    progress = view.record.drain
    if progress is not None and now >= progress.since + pool.config.surge.timeout:
        return Why("surge-timeout", "its replacement took too long")
    if pool.supply is not None and pool.supply.exhausted_since is not None:
        return Why("surge-no-room", "no provider has room for one machine more")
    successor = pool.replacement_of(view)
    if successor is not None and successor.phase is Phase.PLANNED and successor.record.launch is not None:
        request = successor.record.launch.request
        full = limits.no_room(pool, request.provider, request.instance_type, successor.node)
        if full is not None:
            return Why("surge-no-room", f"the faulty node goes first: {full.text}")
    return None


def surge_allowed(pool: PoolView) -> bool:
    return pool.config is not None and pool.config.surge.enabled and pool.config.surge_max.of(pool.target) > 0


def held_back(pool: PoolView, view: NodeView, now: datetime) -> Why | None:
    """Why a planned replacement is not launched yet: what it replaces is held, or, without surge, goes first."""
    other = pool.nodes.get(view.record.replaces or "")
    if other is None or other.phase in (Phase.TERMINATED, Phase.LAUNCH_FAILED):
        return None
    held = gates.held(pool, other, now)
    if held is not None and other.phase is not Phase.TERMINATING:
        return held
    if surge_allowed(pool):
        return None
    progress = other.record.drain
    if progress is not None and progress.cause == "replace":
        return None
    if other.phase is Phase.ACTIVE:
        return None
    return Why("terminate-first", f"the pool has no surge: {other.node} goes first")


def _plan_another(pool: PoolView, view: NodeView, now: datetime, ids: Iterator[str]) -> Step | Blocked:
    """The replacement came to nothing. The place in the budget is held already, or is taken again."""
    cause = view.record.drain.cause if view.record.drain else "replace"
    why = why_failed(view) if view.failed else Why("replace", view.record.replacement_reason or "replaced as wished")
    hourly = cause == "fault"
    blocked = gates.no_disruption(pool, now, view, replaced=True) or budget.exhausted(pool, view, hourly=hourly)
    if blocked is not None:
        return Blocked(view.node, blocked)
    made = sizing.new_node(pool, why, now, ids, replaces=view, trace=view.record.trace)
    if isinstance(made, Why):
        return Blocked(view.node, made)
    node = made.record.node
    record = note(
        view.record, Why("replaced-again", f"its replacement came to nothing; {node} is next"), now, replaced_by=node
    )
    key = NODE.key(node)
    return Step(
        "replace", view.node, why,
        expect={**view.expect(), **pool.expect_pool(), **pool.expect_supply(), key: 0},
        put={view.key: record, key: made.record, **({} if cause == "replace" else breaker.taken(pool, node, now))},
        emit=made.events, spend=budget.spend(pool, view, hourly=hourly), trace=view.record.trace,
    )  # fmt: skip


def _terminate(pool: PoolView, view: NodeView, successor: NodeView | None, now: datetime) -> Step | Blocked:
    progress = view.record.drain
    assert progress is not None
    # It began before the breaker opened, and goes as a canary: together with a replacement that is still to come (one that
    # is planned, without surge, waits for this node), else alone. Else nothing might ever close the breaker.
    canary = ""
    if progress.cause == "fault":
        canary = view.node if successor is None or successor.phase is Phase.ACTIVE else successor.node
    forbidden = gates.no_disruption(pool, now, view, replaced=bool(canary))
    if forbidden is not None:
        return Blocked(view.node, forbidden)
    turn = breaker.taken(pool, canary, now) if canary else {}
    if successor is not None and successor.phase is Phase.ACTIVE:
        why = Why("replaced", f"{successor.node} has taken its place")
    else:
        why = terminate_first(pool, view, now) or Why("not-needed", "it failed, and the pool has nodes enough")
    if view.gone:
        ended = lifecycle.terminated(view.record, pool.cluster, why, now)
        refund = (*refund_unless_coming(pool, view), *limits.machine_gone(pool, view.record))
        return Step(
            "terminated", view.node, why, expect=view.expect(), put={view.key: ended.record}, emit=ended.events,
            refund=refund, trace=view.record.trace,
        )  # fmt: skip
    changed = lifecycle.terminating(view.record, pool.cluster, why, now)
    expect = {**view.expect(), **pool.expect_pool()}
    if successor is not None:
        expect[successor.key] = successor.revision
    if turn:
        expect |= pool.expect_supply()
    return Step(
        "terminate", view.node, why, expect=expect, put={view.key: changed.record, **turn}, emit=changed.events,
        call="terminate", trace=view.record.trace, cost_per_hour=-price(view.record),
    )  # fmt: skip


def refund_unless_coming(pool: PoolView, view: NodeView) -> tuple[Refund, ...]:
    """The place that `view` holds in the budget, unless its replacement will give it back when it is active."""
    successor = pool.replacement_of(view)
    return () if successor is not None and successor.phase in COMING else budget.refund(pool, view.node)


def _call_off(pool: PoolView, view: NodeView, now: datetime) -> Step | Blocked:
    """The verdict was taken back in time: it stays. An intent to replace it that was never launched is dropped."""
    successor = pool.replacement_of(view)
    kept = gates.no_dropping(pool) if successor is not None and successor.phase is Phase.PLANNED else None
    if kept is not None:
        return Blocked(view.node, kept)
    why = Why("recovered", f"health finds it {view.status.value} again: it is kept", HEALTH)
    cordons = {holder: cordon for holder, cordon in view.record.cordons.items() if holder != HEALTH}
    record = enter(
        view.record, Phase.ACTIVE, why, now, cordons=cordons, drain=None, replaced_by=None, by_force=False, approved=""
    )
    events: list[Event] = [
        tell(kinds.NodeUncordoned, record, pool.cluster, why, now, holder=HEALTH, still_held_by=tuple(sorted(cordons)))
    ]
    expect, put = view.expect(), {view.key: record}
    if successor is not None and successor.phase is Phase.PLANNED:
        dropped = lifecycle.launch_failed(successor.record, pool.cluster, Why("not-needed", why.text, HEALTH), now)
        expect[successor.key] = successor.revision
        put[successor.key] = dropped.record
        events += dropped.events
    return Step(
        "cancel", view.node, why, expect=expect, put=put, emit=tuple(events), refund=budget.refund(pool, view.node)
    )


# --- an operator's wish ---


def wished(pool: PoolView, view: NodeView, wish: Wish, now: datetime, ids: Iterator[str]) -> Step | Blocked:
    """Begins what an operator's `replace` of a node that has not failed asks for: first another, then this one goes."""
    why = Why("replace-wished", asked(wish), wish.actor)
    view = replace(view, record=structs.replace(view.record, approved=wish.id))
    if wish.force:
        view = forced(view)
    held = gates.held(pool, view, now)
    if held is not None:
        return refuse(view, wish, held.code, f"{held.text}; release it, or use --force", now)
    blocked = gates.no_ending(pool, now, view)
    if blocked is None and pool.config is not None and not wish.force:
        blocked = budget.exhausted(pool, view, hourly=False)
    if blocked is not None:
        return Blocked(view.node, blocked)
    made = sizing.new_node(pool, why, now, ids, replaces=view)
    if isinstance(made, Why):
        return Blocked(view.node, made)
    node = made.record.node
    answers = answer(view.record.answers, wish.id, "accepted", Why("replacing", f"{node} will take its place"), now)
    cordons = {**view.record.cordons, wish.actor: Cordon(reason=wish.reason or why.text, at=now)}
    record = note(
        view.record, why, now, cordons=cordons, answers=answers, replaced_by=node, replacement_reason=why.text
    )
    cordoned = tell(kinds.NodeCordoned, record, pool.cluster, why, now, holder=wish.actor)
    key = NODE.key(node)
    return Step(
        "replace", view.node, why,
        expect={**view.expect(), **pool.expect_pool(), **pool.expect_supply(), key: 0},
        put={view.key: record, key: made.record}, emit=(cordoned, *made.events),
        spend=() if wish.force else budget.spend(pool, view, hourly=False),
    )  # fmt: skip


def forced(view: NodeView) -> NodeView:
    """As an operator's force makes of it: no hold binds it from now on."""
    return replace(view, record=structs.replace(view.record, by_force=True))


def wish_under_way(pool: PoolView, view: NodeView, now: datetime, ids: Iterator[str]) -> Step | Blocked | None:
    """The next step of a `replace` that was accepted, for a node that is still active; None where there is none."""
    if view.record.replaced_by is None:
        return None
    successor = pool.replacement_of(view)
    if successor is None:
        return _plan_another(pool, view, now, ids)
    if not successor.usable:
        return Blocked(view.node, _not_there(successor))
    forbidden = gates.no_disruption(pool, now, view)
    if forbidden is not None:
        return Blocked(view.node, forbidden)
    low = gates.floor(pool, view)
    if low is not None:
        return Blocked(view.node, low)
    why = Why("replaced", f"{successor.node} is active and takes its place")
    changed = drain.begin(view.record, "replace", pool, why, now)
    expect = {**view.expect(), **pool.expect_pool(), successor.key: successor.revision}
    return Step("drain", view.node, why, expect=expect, put={view.key: changed.record}, emit=changed.events)
