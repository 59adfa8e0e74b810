"""Why a node or a pool is as it is: events and noted reasons as one story, newest first, and what blocks the next step.

Pure. A reason that an event tells too is shown once: the event has an id, a time that others saw, and a trace.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from navarch_api import types as t
from navarch_common.events.base import Event
from navarch_common.guards import held_text, hold_on, standing
from navarch_common.model.base import Reason
from navarch_common.model.health import HealthRecord
from navarch_common.model.node import ENDED, NodeRecord
from navarch_common.model.pool import Guard, SupplyRecord
from navarch_gateway.known import Known

ITEMS_MAX = 200
SAME_WITHIN = timedelta(seconds=10)
"""A reason is noted in the commit that emits its event, but its clock may have been read a little earlier."""


def story(events: Iterable[Event], reasons: Iterable[Reason], since: datetime | None = None) -> list[t.ExplainItem]:
    """Events and reasons, newest first, each once."""
    told: dict[str, Event] = {event.id: event for event in events}
    items = [_of_event(event) for event in told.values()]
    spoken = {(event.reason, event.at) for event in told.values()}
    said: set[tuple[str, str, datetime]] = set()
    for reason in reasons:
        known = (reason.code, reason.text, reason.at)
        if known not in said and not _told(reason, spoken):
            said.add(known)
            items.append(t.ExplainItem(at=reason.at, actor=reason.actor, code=reason.code, text=reason.text))
    chosen = [item for item in items if since is None or item.at >= since]
    return sorted(chosen, key=lambda item: (item.at, item.id), reverse=True)


def explain_node(
    node: NodeRecord,
    health: HealthRecord | None,
    supply: SupplyRecord | None,
    guards: Sequence[Guard],
    events: Sequence[Event],
    since: datetime | None,
    now: datetime,
) -> tuple[list[t.ExplainItem], Reason | None]:
    """The node's story and what its next step waits for."""
    reasons = (*node.reasons, *(health.reasons if health else ()))
    if node.phase in ENDED:
        return story(events, reasons, since), None
    blocked = node.blocked or _forbidden(guards, node.pool, node.node, now)
    if blocked is None and node.launch is not None and node.instance is None and supply is not None:
        blocked = supply.blocked
    return story(events, reasons, since), blocked


def explain_pool(
    pool: str, known: Known, events: Sequence[Event], since: datetime | None, now: datetime
) -> tuple[list[t.ExplainItem], Reason | None]:
    """The pool's story and what keeps it from its size."""
    record, supply = known.pools.get(pool), known.supply.get(pool)
    reasons = (*(record.record.reasons if record else ()), *(supply.record.reasons if supply else ()))
    guards = [stored.record for stored in known.guards.values()]
    blocked = _forbidden(guards, pool, None, now)
    if blocked is None and supply is not None:
        breaker = supply.record.breaker
        text = (
            f"the breaker is open: {breaker.reason}; `navarch pool close-breaker {pool}` closes it" if breaker else ""
        )
        opened = (
            Reason(at=breaker.since, code="breaker-open", text=text[:1024], actor="provisioner") if breaker else None
        )
        blocked = opened or supply.record.blocked
    if blocked is None and record is not None:
        blocked = record.record.limited
    return story(events, reasons, since), blocked


def _told(reason: Reason, spoken: set[tuple[str, datetime]]) -> bool:
    return any(reason.text == text and abs(at - reason.at) <= SAME_WITHIN for text, at in spoken)


def _of_event(event: Event) -> t.ExplainItem:
    kind = f"operator.{action}" if (action := getattr(event, "action", "")) and event.KIND == "operator.action" else ""
    return t.ExplainItem(
        at=event.at,
        actor=event.actor,
        code=event.code,
        text=event.reason,
        event=kind or event.KIND,
        id=event.id,
        node=event.node,
    )


def _forbidden(guards: Sequence[Guard], pool: str, node: str | None, now: datetime) -> Reason | None:
    """The freeze or the hold that stands in the way."""
    for guard in standing(guards, now):
        if guard.pool in (None, pool):
            scope = f"pool {guard.pool}" if guard.pool else "the cluster"
            text = f"{scope} is frozen (level {guard.level}) by {guard.actor}: {guard.reason}"
            return Reason(at=guard.at, code="frozen", text=text[:1024], actor=guard.actor)
    hold = hold_on(guards, pool, node, now)
    return Reason(at=hold.at, code="held", text=held_text(hold)[:1024], actor=hold.actor) if hold else None
