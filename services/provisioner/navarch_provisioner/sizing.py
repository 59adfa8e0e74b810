"""From desired to actual: how many nodes are missing, and which are too many. Pure.

Every node that may have a machine holds one place, from the intent on: a booting node counts once, and a failed one
keeps its place until its replacement has taken it. Scale-down takes only what is proven idle.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from msgspec import structs

from navarch_common.events import kinds
from navarch_common.model.node import LEAVING, Cordon, NodeRecord, Phase
from navarch_common.words import counted
from navarch_provisioner import bootstrap, drain, gates, lifecycle, limits, placement
from navarch_provisioner.news import Changed, Why, enter, tell
from navarch_provisioner.steps import Blocked, Step
from navarch_provisioner.view import NodeView, PoolView
from navarch_provisioner.wishes import is_operators, price

HOLDER = "scale-down"
UNDER_WAY = frozenset({Phase.PLANNED, Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN})
SCALE_DOWN_AT_ONCE = 10
"""Nodes of one pool that scale-down drains at the same time."""


def holds_place(pool: PoolView, view: NodeView) -> bool:
    """Whether a living node counts towards the desired count."""
    record = view.record
    if record.phase in LEAVING or pool.replacement_of(view) is not None:
        return False
    progress = record.drain
    if record.phase is Phase.DRAINING and progress is not None and progress.then_terminate:
        # Its replacement came to nothing and another will be planned: until then it keeps the place.
        return progress.cause != "scale-down" and record.replaced_by is not None
    return True


def wanted(pool: PoolView) -> str:
    """`1 node is wanted`, `3 nodes are wanted`."""
    return f"{counted(pool.target, 'node')} {'is' if pool.target == 1 else 'are'} wanted"


def occupied(pool: PoolView) -> int:
    return sum(1 for view in pool.living if holds_place(pool, view))


def new_node(
    pool: PoolView, why: Why, now: datetime, ids: Iterator[str], *, replaces: NodeView | None = None, trace: str = ""
) -> Changed | Why:
    """A planned node on the best offer there is, or why there can be none. Takes one of `ids` only for a node it makes."""
    forbidden = gates.no_launch(pool, now, None if replaces is not None and replaces.gone else replaces)
    if forbidden is not None:
        return forbidden
    assert pool.config is not None
    found = placement.offers(pool.config, [view.record for view in pool.living])
    offer = placement.choose(found, pool.providers, pool.cooling, now)
    if offer is None:
        names = ", ".join(offer.name for offer in found) or "none"
        return Why("no-offer", f"no provider can be asked now: {names} refused lately or cannot be reached")
    # A failed machine goes first where there is no room for one more: then its place is its replacement's.
    in_place = replaces is not None and replaces.failed
    full = limits.no_room(pool, offer.provider, offer.instance_type, in_place=in_place)
    if full is not None:
        return full
    node = next(ids, None)
    if node is None:
        return Why("next-pass", "one pass plans only so many nodes; the next one goes on")
    request = bootstrap.launch_request(pool, node, offer)
    made = lifecycle.planned(
        request, why, now, pool.config.registration_timeout, replaces=replaces.node if replaces else "", trace=trace
    )
    if replaces is None:
        return made
    carried = structs.replace(made.record, by_force=replaces.record.by_force, approved=replaces.record.approved)
    return replace(made, record=carried)


def scale_up(pool: PoolView, now: datetime, ids: Iterator[str]) -> list[Step] | Blocked:
    """Plans what is missing, as many at once as may be under way."""
    if pool.desired is None and pool.config is not None:
        return Blocked("", Why("no-desired-count", "nobody has said yet how many nodes it should have"))
    have = occupied(pool)
    missing = pool.target - have
    if missing <= 0:
        return []
    why = Why("scale-up", f"{wanted(pool)} and {have or 'none'} {'is' if have == 1 else 'are'} there or on the way")
    room = pool.settings.timings.launch_concurrency - sum(1 for view in pool.living if view.phase in UNDER_WAY)
    if room <= 0:
        return Blocked("", Why("launches-under-way", "as many launches as may be at once are under way"))
    steps: list[Step] = []
    for _ in range(min(missing, room)):
        made = new_node(pool, why, now, ids)
        if isinstance(made, Why):
            return steps or Blocked("", made)
        steps.append(plan_step(pool, made, why))
        pool = with_node(pool, made.record)
    return steps


def with_node(pool: PoolView, record: NodeRecord) -> PoolView:
    """The pool as it will be once `record` is in it, so that the next decision counts it."""
    return replace(pool, nodes={**pool.nodes, record.node: NodeView(record, 0)})


def plan_step(pool: PoolView, made: Changed, why: Why) -> Step:
    key = NodeView(made.record, 0).key
    return Step(
        "plan", made.record.node, why,
        expect={key: 0, **pool.expect_pool(), **pool.expect_supply()}, put={key: made.record}, emit=made.events,
    )  # fmt: skip


# --- too many ---


def surplus(pool: PoolView, now: datetime) -> tuple[list[Step], list[Blocked]]:
    """Takes away nodes that are not wanted and proven idle. Intents, which cost nothing yet, are dropped before."""
    excess = occupied(pool) - pool.target
    if excess <= 0 or pool.desired is None:
        return [], []
    forbidden = gates.no_disruption(pool, now)
    if forbidden is not None:
        return [], [Blocked("", forbidden)]
    victims, why = choose_victims(pool, now, excess)
    steps = [_take(pool, view, now) for view in victims]
    return steps, [Blocked("", why)] if why is not None else []


def choose_victims(pool: PoolView, now: datetime, excess: int) -> tuple[list[NodeView], Why | None]:
    """Up to `excess` nodes that may go, the least useful first, and why there are fewer."""
    assert pool.config is not None
    usable = sum(1 for view in pool.living if view.usable and pool.replacement_of(view) is None)
    # What is still on its way does not serve yet, so only usable nodes above the target may go, never below the floor.
    spare = min(excess, usable - max(pool.target, pool.config.min_nodes))
    draining = sum(1 for view in pool.living if _leaves_by_scale_down(view))
    room = min(spare, SCALE_DOWN_AT_ONCE - draining)
    if room <= 0:
        return [], Why("floor", "fewer usable nodes than wanted would be left") if spare <= 0 else None
    candidates = sorted((view for view in pool.living if _may_go(pool, view, now)), key=_usefulness)
    if len(candidates) < room:
        idle_after = pool.config.scale_down.idle_after.total_seconds()
        text = f"{excess} nodes are too many, and only {len(candidates)} are proven idle for {idle_after:g} s"
        return candidates, Why("none-idle", text)
    return candidates[:room], None


def idle_look(pool: PoolView, now: datetime) -> datetime | None:
    """When to look at the heartbeats of a pool with nodes too many again; None where none is too many.

    That is when the next node has been idle for long enough, and never later than a heartbeat may be: a longer gap could
    have held work that nobody saw, and its idleness would begin anew.
    """
    if pool.config is None or pool.desired is None or occupied(pool) <= pool.target:
        return None
    idle_after = pool.config.scale_down.idle_after
    proven = [view.work.idle_since + idle_after for view in pool.living if view.work.idle_since is not None]
    return min([now + pool.settings.heartbeat_timeout, *(time for time in proven if time > now)])


def _leaves_by_scale_down(view: NodeView) -> bool:
    progress = view.record.drain
    return view.phase in (Phase.DRAINING, Phase.TERMINATING) and progress is not None and progress.cause == HOLDER


def _may_go(pool: PoolView, view: NodeView, now: datetime) -> bool:
    """Failed nodes are replaced, never scaled down; a silent or unknown one is left alone."""
    assert pool.config is not None
    if not view.usable or view.open_wishes or pool.replacement_of(view) is not None or is_awaited(pool, view):
        return False
    if gates.held(pool, view, now) is not None:
        return False
    if pool.config.scale_down.force:
        return True
    since = view.work.idle_since
    if drain.proven_idle(view, pool, now) is not True or since is None:
        return False
    return now - since >= pool.config.scale_down.idle_after


def is_awaited(pool: PoolView, view: NodeView) -> bool:
    """Whether a node that is still there waits to be terminated until this one has taken its place."""
    other = pool.nodes.get(view.record.replaces or "")
    return other is not None and other.record.replaced_by == view.node and other.phase in (Phase.ACTIVE, Phase.DRAINING)


def _usefulness(view: NodeView) -> tuple[bool, bool, datetime, str]:
    """What operators cordoned goes first, then what is degraded, then the longest idle."""
    cordoned = any(is_operators(holder) for holder in view.record.cordons)
    idle_since = view.work.idle_since or view.record.phase_since
    return not cordoned, view.status.value != "degraded", idle_since, view.node


def not_needed(pool: PoolView, view: NodeView) -> bool:
    """Whether an intent that was not launched yet is one too many. A replacement is its failed node's business."""
    return view.record.replaces is None and pool.desired is not None and occupied(pool) > pool.target


def cancel(pool: PoolView, view: NodeView, now: datetime) -> Step:
    why = Why("not-needed", f"{wanted(pool)} and there are more; it was never launched")
    changed = lifecycle.launch_failed(view.record, pool.cluster, why, now)
    return Step(
        "give-up", view.node, why, expect={**view.expect(), **pool.expect_pool()}, put={view.key: changed.record},
        emit=changed.events, refund=limits.machine_gone(pool, view.record),
    )  # fmt: skip


def _take(pool: PoolView, view: NodeView, now: datetime) -> Step:
    since = view.work.idle_since
    text = f"{wanted(pool)}, and no process held its GPUs since {since:%H:%M:%S}" if since else "forced"
    why = Why("scale-down", text)
    cordons = {**view.record.cordons, HOLDER: Cordon(reason=why.text, at=now)}
    changed = drain.begin(structs.replace(view.record, cordons=cordons), HOLDER, pool, why, now)
    cordoned = tell(kinds.NodeCordoned, changed.record, pool.cluster, why, now, holder=HOLDER)
    return Step(
        "drain", view.node, why, expect={**view.expect(), **pool.expect_pool()}, put={view.key: changed.record},
        emit=(cordoned, *changed.events), cost_per_hour=-price(view.record),
    )  # fmt: skip


def call_off(pool: PoolView, view: NodeView, why: Why, now: datetime) -> Step:
    """A scale-down that is no longer right: the node found work, or is wanted again."""
    cordons = {holder: cordon for holder, cordon in view.record.cordons.items() if holder != HOLDER}
    record = enter(view.record, Phase.ACTIVE, why, now, cordons=cordons, drain=None, approved="")
    event = tell(
        kinds.NodeUncordoned, record, pool.cluster, why, now, holder=HOLDER, still_held_by=tuple(sorted(cordons))
    )
    return Step("cancel", view.node, why, expect=view.expect(), put={view.key: record}, emit=(event,))
