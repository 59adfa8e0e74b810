"""What forbids a launch or a termination right now. Pure. Asked when a step is planned, and again right before the call.

Unknown forbids: a meta record that cannot be read is safe mode. A hold keeps automation away; it does not stop what was
decided before it, since `terminating` is never left, nor what an operator asks for by force.
"""

from datetime import datetime
from typing import Literal

from navarch_common.guards import forbids, held_text, hold_on, until_text
from navarch_common.model.cluster import MetaRecord
from navarch_common.model.pool import Guard
from navarch_provisioner import breaker
from navarch_provisioner.news import Why
from navarch_provisioner.view import NodeView, PoolView

OUTBOX_MAX = 1000
"""Over so many events that nobody has heard of yet, nothing is launched and nobody is drained who need not be."""


def forbidden(
    guards: tuple[Guard, ...], meta: MetaRecord | None, act: Literal["launch", "terminate"], pool: str, now: datetime
) -> Why | None:
    """Freeze and safe mode, or None. The last question before every cloud call."""
    if meta is None:
        return Why("safe-mode", "it is not known whether safe mode is on: the cluster's own record cannot be read")
    if meta.safe_mode is not None:
        return Why("safe-mode", f"safe mode: {meta.safe_mode.reason}")
    if act == "launch" and meta.first_look:
        return Why("first-look", "a first start: nothing is launched before every provider has told what it has")
    guard = forbids(guards, act, pool, now)
    if guard is not None:
        return Why("frozen", f"{guard.actor} froze {guard.pool or 'the cluster'}{until_text(guard)}: {guard.reason}")
    return None


def _forbidden(view: PoolView, act: Literal["launch", "terminate"], now: datetime) -> Why | None:
    return forbidden(view.guards, view.meta, act, view.pool, now) or _unguarded(view)


def _unguarded(view: PoolView) -> Why | None:
    if not view.unguarded:
        return None
    return Why("guards-unreadable", f"it is not known what operators forbid: {view.unguarded}"[:300])


def held(view: PoolView, node: NodeView | None, now: datetime) -> Why | None:
    """The hold on `node` or on its pool, or None; on the pool alone where `node` is None."""
    if node is not None and node.record.by_force:
        return None
    return held_name(view, node.node if node else None, now)


def held_name(view: PoolView, node: str | None, now: datetime) -> Why | None:
    """As `held`, for a node that may have no record any more."""
    guard = hold_on(view.guards, view.pool, node, now)
    return Why("held", held_text(guard)) if guard is not None else _unguarded(view)


def no_call(view: PoolView, now: datetime, node: NodeView | None = None) -> Why | None:
    """Why an intent that is on record may not be acted on, or None. A backoff delays new intents alone."""
    return _forbidden(view, "launch", now) or held(view, node, now) or _out_of_hand(view) or _backlog(view)


def no_launch(view: PoolView, now: datetime, replaces: NodeView | None = None) -> Why | None:
    """Why nothing may be launched by ourselves, or None. `replaces` is what the new node would take the place of."""
    return no_call(view, now, replaces) or _backing_off(view, now)


def no_dropping(view: PoolView) -> Why | None:
    """Why an intent that was never launched, as far as its record knows, may not be dropped, or None."""
    return Why("safe-mode", "safe mode: the store may have forgotten its launch") if view.safe_mode else None


def no_termination(view: PoolView, now: datetime) -> Why | None:
    """Why nothing may be terminated, or None. Binds what is under way and what operators ask for, too."""
    return _forbidden(view, "terminate", now)


def no_disruption(view: PoolView, now: datetime, node: NodeView | None = None, *, replaced: bool = False) -> Why | None:
    """Why `node`, or where it is None any, may not be taken out by ourselves, or None. `replaced`: another takes its place."""
    return no_ending(view, now, node) or breaker.stops(view, node, now, canary=replaced)


def no_ending(view: PoolView, now: datetime, node: NodeView | None = None) -> Why | None:
    """Why a machine that never took any work may not be ended by ourselves, or None. No breaker keeps it."""
    return no_termination(view, now) or held(view, node, now) or _out_of_hand(view) or _backlog(view)


def floor(view: PoolView, node: NodeView) -> Why | None:
    """Why a usable node may not be taken out by ourselves: too few would be left. A broken one is missed by nobody."""
    if view.config is None or not node.usable:
        return None
    left = sum(1 for other in view.living if other.usable and other.node != node.node)
    if left >= view.config.min_nodes:
        return None
    return Why(
        "floor", f"{left} usable node{'s' if left != 1 else ''} would be left; min_nodes is {view.config.min_nodes}"
    )


def _out_of_hand(view: PoolView) -> Why | None:
    if view.config is None:
        return Why(
            "retiring", f"pool {view.pool} left the configuration: nothing is launched and nothing is terminated"
        )
    return None


def _backlog(view: PoolView) -> Why | None:
    if view.outbox_waiting > OUTBOX_MAX:
        return Why("outbox-full", f"more than {OUTBOX_MAX} events wait to be published: the bus is behind or away")
    return None


def _backing_off(view: PoolView, now: datetime) -> Why | None:
    supply = view.supply
    if supply is not None and supply.retry_at is not None and supply.retry_at > now:
        count = supply.launch_failures
        return Why("backoff", f"{count} launch{'es' if count != 1 else ''} failed in a row: waiting before the next")
    return None
