"""Emptying a node before it goes: when a drain begins, when it is over, and when it is called off. Pure.

Over means proven idle by evidence newer than the drain, or past its deadline, or that the fault already took the work.
Silence proves nothing: a node that is not heard of is waited for until the deadline.
"""

from datetime import datetime, timedelta

from msgspec import structs

from navarch_common.events import kinds
from navarch_common.model.node import Drain, NodeRecord, Phase
from navarch_provisioner.news import Changed, Why, enter, note, tell
from navarch_provisioner.view import NodeView, PoolView

DEADLINES = {
    "fault": timedelta(minutes=15),
    "operator": timedelta(hours=24),
    "replace": timedelta(days=7),
    "scale-down": timedelta(minutes=10),
}
"""How long work may take to leave, where the pool's `drain.deadline` does not say. A broken node waits for checkpoints;
a healthy one that an operator wants replaced is not worth anybody's work."""
GRACE_MIN = timedelta(seconds=1)


def deadline(pool: PoolView, cause: str, now: datetime) -> datetime:
    configured = pool.config.drain.deadline if pool.config else None
    return now + (DEADLINES[cause] if configured is None else max(configured, GRACE_MIN))


def begin(
    record: NodeRecord, cause: str, pool: PoolView, why: Why, now: datetime, *, then_terminate: bool = True
) -> Changed:
    """`record` draining."""
    until = deadline(pool, cause, now)
    progress = Drain(cause=cause, actor=why.actor, since=now, deadline=until, then_terminate=then_terminate)
    draining = enter(record, Phase.DRAINING, why, now, drain=progress)
    seconds = (until - now).total_seconds()
    return Changed(
        draining, (tell(kinds.NodeDraining, draining, pool.cluster, why, now, cause=cause, deadline_s=seconds),)
    )


def proven_idle(view: NodeView, pool: PoolView, now: datetime, *, since: datetime | None = None) -> bool | None:
    """Whether no work is on the node, by evidence that is fresh, and newer than `since`; None where that is not known."""
    work = view.work
    if work.idle is None or work.at is None:
        return None
    if now - work.at > pool.settings.heartbeat_timeout or (since is not None and work.at <= since):
        return None
    return work.idle


def ended(view: NodeView, pool: PoolView, now: datetime) -> tuple[Why, bool] | None:
    """Why a drain is over, and whether work was still there (or may have been); None while it is not."""
    progress = view.record.drain
    if progress is None:
        return None
    if view.gone:
        return Why("machine-gone", "its machine is gone, and its work with it"), False
    if progress.cause == "fault" and view.failed and view.verdict is not None and view.verdict.takes_work:
        return Why("work-lost", "the fault already took its work: nothing is left to wait for"), False
    idle = proven_idle(view, pool, now, since=progress.since)
    if idle:
        return Why("drained", "no process holds any of its GPUs"), False
    if now >= progress.deadline and pool.settled(now):
        left = view.work.text if idle is False else "nothing was heard of its work lately"
        return Why("drain-deadline", f"the deadline passed while work was still there: {left}"), True
    return None


def done(view: NodeView, pool: PoolView, why: Why, now: datetime, *, forced: bool) -> Changed:
    """The record of a drain that is over."""
    assert view.record.drain is not None
    skipped = why.code in ("work-lost", "machine-gone")
    progress = structs.replace(view.record.drain, drained_at=now, skipped=skipped, blocked_by="")
    drained = note(view.record, why, now, drain=progress)
    return Changed(drained, (tell(kinds.NodeDrained, drained, pool.cluster, why, now, skipped=skipped, forced=forced),))


def held_up(view: NodeView, pool: PoolView, now: datetime) -> Why:
    """What a drain waits for."""
    progress = view.record.drain
    idle = proven_idle(view, pool, now, since=progress.since if progress else None)
    if idle is False:
        return Why("busy", f"its work has not left yet: {view.work.text or 'work is running'}")
    return Why("work-unknown", "no heartbeat has told yet whether work is left")
