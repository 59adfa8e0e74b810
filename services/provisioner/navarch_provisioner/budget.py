"""How much may be out of service by our own hand, at once and per hour. Pure.

A place in a budget is held by the node that is to be replaced, so the same replacement, planned twice, takes it once.
The commit that plans it takes the place; the commit that makes the replacement active, or ends the need for one, gives
it back. `leftovers` is only a net.
"""

from datetime import timedelta

from navarch_common.model.node import COMING, Phase
from navarch_common.store.base import Refund, Spend
from navarch_provisioner import limits
from navarch_provisioner.news import Why
from navarch_provisioner.view import NodeView, PoolView

HOUR = timedelta(hours=1)


def bucket(pool: str) -> str:
    return f"replace/{pool}"


def hourly_bucket(pool: str) -> str:
    return f"replace-hour/{pool}"


def concurrent_limit(pool: PoolView) -> int:
    """Nodes that may be out of service by our hand, or being replaced, at once. At least one: none would mean never."""
    assert pool.config is not None
    limit = pool.config.disruption.max_unavailable.of(pool.target)
    if pool.config.surge.enabled and pool.config.surge_max.of(pool.target):
        limit = min(limit, pool.config.surge_max.of(pool.target))
    return max(limit, 1)


def exhausted(pool: PoolView, view: NodeView, *, hourly: bool) -> Why | None:
    """Why `view` cannot be replaced now, or None where its place is free or already its own."""
    assert pool.config is not None
    limit = concurrent_limit(pool)
    if view.node not in pool.replacing and len(pool.replacing) >= limit:
        names = ", ".join(sorted(pool.replacing)[:5])
        text = f"{len(pool.replacing)} being replaced, as many as max_unavailable and surge allow: {names}"
        return Why("budget-exhausted", text)
    per_hour = pool.config.disruption.max_per_hour
    if hourly and view.node not in pool.replaced_lately and len(pool.replaced_lately) >= per_hour:
        return Why(
            "hourly-budget-exhausted",
            f"{len(pool.replaced_lately)} nodes were replaced within an hour; disruption.max_per_hour is {per_hour}",
        )
    return limits.no_replacement(pool, view) if hourly else None


def spend(pool: PoolView, view: NodeView, *, hourly: bool) -> tuple[Spend, ...]:
    """The places that replacing `view` takes."""
    assert pool.config is not None
    places = [Spend(bucket(pool.pool), view.node, concurrent_limit(pool))]
    if hourly:
        places.append(Spend(hourly_bucket(pool.pool), view.node, pool.config.disruption.max_per_hour, HOUR))
        places += limits.replacement_places(pool, view)
    return tuple(places)


def refund(pool: PoolView, holder: str) -> tuple[Refund, ...]:
    """Gives back the place among the concurrent ones; the hour's is given back by time alone."""
    return (Refund(bucket(pool.pool), holder),) if holder in pool.replacing else ()


def leftovers(pool: PoolView) -> list[str]:
    """Holders whose replacement is neither under way nor still to come: their places go back."""
    return sorted(holder for holder in pool.replacing if not _under_way(pool, holder))


def _under_way(pool: PoolView, holder: str) -> bool:
    view = pool.nodes.get(holder)
    if view is not None and view.phase in (Phase.ACTIVE, Phase.DRAINING, Phase.TERMINATING):
        # The place went back when the replacement became active; until there is one, its need for one holds it.
        successor = pool.replacement_of(view)
        if successor is None:
            return view.record.replaced_by is not None or view.phase is not Phase.ACTIVE
        return successor.phase in COMING
    return any(other.record.replaces == holder and _comes(other) for other in pool.living)


def _comes(successor: NodeView) -> bool:
    """Not one that was adopted and is broken: it needs a place of its own before it can go, and would wait for this one."""
    broken = successor.phase is Phase.VALIDATING and successor.record.launch is None and successor.failed
    return successor.phase in COMING and not broken
