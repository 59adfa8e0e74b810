"""`automation: observe` and `approve`: what is decided and not done, or not done yet. Pure.

`plan` decides as ever. Then each step that one pays for or works on is looked at once more: under `observe` it is only
said; under `approve` it becomes a *change* with an id that stays the same as long as the reason for it does, and waits
until an operator approves just that one. What follows from an approved change (its launch, its drain, its end) needs no
further word, and what operators ask for themselves none at all. Health's cordons go on.

The same operators cancel a change that waits, or a replacement whose failed node is not being ended yet.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from msgspec import structs

from navarch_common.events import kinds
from navarch_common.events.base import Event
from navarch_common.model.base import AnyKey, Record
from navarch_common.model.node import NODE, NodeRecord, Phase
from navarch_common.model.pool import CHANGES_MAX, SUPPLY, Change, SupplyRecord
from navarch_common.model.wish import CHANGE_WISH, ChangeWish, Outcome
from navarch_provisioner import budget, gates, lifecycle
from navarch_provisioner.answers import answer
from navarch_provisioner.news import Why, enter, note, tell, tell_pool
from navarch_provisioner.steps import Blocked, Step
from navarch_provisioner.view import NodeView, PoolView

GATED = frozenset({"drain", "give-up", "launch", "plan", "replace", "retire", "terminate"})
"""Steps that one pays for or works on."""
CANCELLED_MAX = 64
_WOULD = {
    "drain": "drain {node}", "give-up": "give {node} up", "launch": "launch {node}", "plan": "launch {count}",
    "replace": "replace {node}", "retire": "end {node} without a replacement", "terminate": "terminate {node}",
}  # fmt: skip


def change_of(pool: PoolView, step: Step) -> Change:
    """The change that a step is. Its id is the same for as long as what it rests on is."""
    view = pool.nodes.get(step.node)
    made = sum(1 for key in step.put if key.family is NODE and key.name not in pool.nodes)
    if view is None:
        about = f"{step.act}/{made}/{pool.target}/{len(pool.living)}"
        would = _WOULD[step.act].format(count=f"{made} node{'s' if made != 1 else ''}", node="")
    else:
        about = f"{step.act}/{view.node}/{view.record.generation}/{view.record.replaced_by or ''}/{_failure(view)}"
        would = _WOULD[step.act].format(node=view.node, count="")
    digest = hashlib.sha256(f"{pool.pool}/{about}".encode()).hexdigest()
    return Change(
        id=f"c-{digest[:10]}", act=step.act, node=view.node if view else "", text=f"{would}: {step.why.text}"[:1024]
    )


def _failure(view: NodeView) -> str:
    return view.verdict.failure_id if view.failed and view.verdict is not None else ""


def restrain(pool: PoolView, step: Step, now: datetime) -> Step | Blocked:
    """The step where it may be taken, with the approval that it uses up; or what it waits for."""
    mode = pool.config.automation if pool.config is not None else "act"
    if mode == "act" or not _is_gated(pool, step, mode):
        return step
    change = change_of(pool, step)
    about = step.node if step.node in pool.nodes else ""
    if mode == "observe":
        return Blocked(about, Why("automation-observe", f"automation is observe: it would {change.text}"), change)
    if pool.supply is not None and change.id in pool.supply.cancelled:
        return Blocked(about, Why("change-cancelled", f"an operator cancelled {change.id}: {change.text}"))
    asked = _asked(pool, change.id)
    if asked is None or asked.wish.verb != "approve" or asked.wish.expires_at <= now:
        return Blocked(about, Why("approval", f"waits for `navarch approve {change.id}`: {change.text}"), change)
    return _approved(pool, step, change, asked, now)


def _is_gated(pool: PoolView, step: Step, mode: str) -> bool:
    if step.act not in GATED or step.why.actor.startswith(("operator", "kubernetes", "slurm")):
        return False
    view = pool.nodes.get(step.node)
    if view is None:
        return True
    if view.record.approved or view.phase is Phase.TERMINATING:
        return False
    if step.act == "drain":
        return view.phase is not Phase.DRAINING  # what drains already only gets on with it
    if step.act == "give-up" and view.phase is Phase.PLANNED:
        return False  # an intent costs nothing
    # A machine that never took any work is not kept at our cost until somebody looks. Of one that was adopted nobody knows.
    young = view.phase in (Phase.BOOTING, Phase.VALIDATING, Phase.REGISTRATION_TIMEOUT)
    never_used = young and view.record.launch is not None
    return not (mode == "approve" and never_used)


def _asked(pool: PoolView, change: str) -> ChangeWish | None:
    """The open wish about a change."""
    asked = pool.change_wishes.get(change)
    if asked is None or pool.supply is None or asked.wish.id in pool.supply.answers:
        return None
    return asked


def _approved(pool: PoolView, step: Step, change: Change, asked: ChangeWish, now: datetime) -> Step:
    said = Why("approved", f"{asked.wish.actor} approved {change.id}: {change.text}", asked.wish.actor)
    put: dict[AnyKey, Record] = {
        key: structs.replace(record, approved=change.id) if isinstance(record, NodeRecord) else record
        for key, record in step.put.items()
    }
    key = SUPPLY.key(pool.pool)
    base = put.get(key, pool.supply)
    assert isinstance(base, SupplyRecord)
    put[key] = structs.replace(base, answers=answer(base.answers, asked.wish.id, "done", said, now))
    return replace(
        step, put=put, expect={**step.expect, **pool.expect_supply(), **_expect_wish(pool, change.id)},
    )  # fmt: skip


def _expect_wish(pool: PoolView, change: str) -> dict[AnyKey, int]:
    return {CHANGE_WISH.key(change): pool.change_wish_revisions.get(change, 0)}


def merged(steps: Sequence[Step]) -> Step:
    """Launches that belong together, as one commit: so that one approval lets just them through."""
    first = steps[0]
    return replace(
        first,
        expect={key: revision for step in steps for key, revision in step.expect.items()},
        put={key: record for step in steps for key, record in step.put.items()},
        emit=tuple(event for step in steps for event in step.emit),
        spend=tuple(place for step in steps for place in step.spend),
    )


# --- what is shown ---


def note_held(
    pool: PoolView, record: SupplyRecord, held: Iterable[Change], now: datetime
) -> tuple[SupplyRecord, tuple[Event, ...]]:
    """`record` with the changes that wait now, and what tells of those that are new."""
    before = {change.id: change for change in record.changes}
    fresh = {change.id: change for change in held}
    kept = tuple(
        before.get(id_) or structs.replace(change, since=now) for id_, change in sorted(fresh.items())[:CHANGES_MAX]
    )
    if [change.id for change in kept] == [change.id for change in record.changes]:
        return record, ()
    approve = pool.config is not None and pool.config.automation == "approve"
    events = tuple(
        tell_pool(
            kinds.PoolChangeHeld, pool.pool, pool.cluster,
            Why("approval", f"waits for `navarch approve {change.id}`: {change.text}"), now,
            change=change.id, act=change.act, about=change.node,
        )
        for change in kept
        if change.id not in before and approve
    )  # fmt: skip
    return structs.replace(record, changes=kept), events


# --- what operators say of changes ---


def answers_due(pool: PoolView, now: datetime) -> Step | None:
    """The answer to one wish about a change: a cancellation, or an approval that came too late or to nothing. None where
    no wish waits for one."""
    ids = {change.id for change in pool.supply.changes} if pool.supply is not None else set()
    for name in sorted(pool.change_wishes):
        asked = _asked(pool, name)
        if asked is None:
            continue
        wish = asked.wish
        if wish.expires_at <= now:
            return _say(pool, asked, "expired", Why("expired", "nobody could act on it in time", wish.actor), now)
        if wish.verb == "cancel":
            return _cancel(pool, asked, ids, now)
        if name not in ids:
            said = Why(
                "no-such-change", f"{name} waits for nothing any more: what it rested on has changed", wish.actor
            )
            return _say(pool, asked, "refused", said, now)
    return None


def _say(pool: PoolView, asked: ChangeWish, outcome: Outcome, why: Why, now: datetime) -> Step:
    assert pool.supply is not None
    record = structs.replace(pool.supply, answers=answer(pool.supply.answers, asked.wish.id, outcome, why, now))
    return Step(
        "answer", "", why, expect={**pool.expect_supply(), **_expect_wish(pool, asked.change)},
        put={SUPPLY.key(pool.pool): record},
    )  # fmt: skip


def _cancel(pool: PoolView, asked: ChangeWish, held: set[str], now: datetime) -> Step:
    view = pool.nodes.get(asked.node)
    if asked.change in held:
        why = Why("cancelled", f"{asked.wish.actor} cancelled {asked.change}", asked.wish.actor)
        step = _say(pool, asked, "done", why, now)
        record = step.put[SUPPLY.key(pool.pool)]
        assert isinstance(record, SupplyRecord)
        cancelled = dict(
            sorted({**record.cancelled, asked.change: now}.items(), key=lambda item: item[1])[-CANCELLED_MAX:]
        )
        return replace(step, put={SUPPLY.key(pool.pool): structs.replace(record, cancelled=cancelled)})
    if view is None or view.record.replaced_by is None or view.phase not in (Phase.ACTIVE, Phase.DRAINING):
        text = f"{asked.node or asked.change} has no replacement under way that could still be stopped"
        return _say(pool, asked, "failed", Why("too-late", text, asked.wish.actor), now)
    return _stop_replacement(pool, view, asked, now)


def _stop_replacement(pool: PoolView, view: NodeView, asked: ChangeWish, now: datetime) -> Step:
    """The failed node stays, cordoned; its replacement is dropped, or, where it is, or may be, a machine already, one node more."""
    wish = asked.wish
    why = Why(
        "cancelled", f"{wish.actor} stopped its replacement" + (f": {wish.reason}" if wish.reason else ""), wish.actor
    )
    said = _say(pool, asked, "done", Why("cancelled", f"{view.node} is kept, cordoned", wish.actor), now)
    kept = enter(
        view.record, Phase.ACTIVE, why, now, drain=None, replaced_by=None, replacement_reason="", approved="",
        by_force=False,
    )  # fmt: skip
    expect, put = {**view.expect(), **said.expect}, {view.key: kept, **said.put}
    events: tuple[Event, ...] = ()
    successor = pool.replacement_of(view)
    if successor is not None:
        expect[successor.key] = successor.revision
        if successor.phase is Phase.PLANNED and gates.no_dropping(pool) is None:
            dropped = lifecycle.launch_failed(successor.record, pool.cluster, why, now)
            put[successor.key], events = dropped.record, dropped.events
        else:
            put[successor.key] = note(successor.record, why, now, replaces=None, blocked=successor.record.blocked)
    event = tell(
        kinds.NodeReplacementCancelled, kept, pool.cluster, why, now, replaced_by=view.record.replaced_by or ""
    )
    return Step(
        "cancel", view.node, why, expect=expect, put=put, emit=(event, *events), refund=budget.refund(pool, view.node)
    )
