"""Freeze, hold, and how both end: what the guard's record says next. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import structs

from navarch_common.events.base import Event
from navarch_common.events.kinds import Frozen, OperatorAction, Unfrozen
from navarch_common.guards import (
    freeze_key,
    held_text,
    hold_key,
    is_in_force,
    next_number,
    standing,
    target_of,
    until_text,
)
from navarch_common.model.pool import Guard
from navarch_gateway.asks import FreezeAsk, HoldAsk, ReleaseAsk, UnfreezeAsk
from navarch_gateway.refusal import Refused, conflict

HOLDS_MAX = 1000
"""Holds in force at once: all guards together travel as one message of the bus."""


def freeze(guards: Sequence[Guard], ask: FreezeAsk, actor: str, now: datetime) -> Guard:
    """The freeze as it is to be written. Its number is above every number before it."""
    return Guard(
        name=freeze_key(ask.pool).name,
        active=True,
        level=ask.level,
        pool=ask.pool,
        number=next_number(guards),
        actor=actor,
        reason=ask.reason,
        at=now,
        until=None if ask.for_s is None else now + timedelta(seconds=ask.for_s),
    )


def unfreeze(guards: Sequence[Guard], ask: UnfreezeAsk, actor: str, now: datetime) -> Guard:
    """The freeze as lifted. Raises `Refused` where there is none to lift."""
    holding = standing(guards, now)
    mine = next((guard for guard in holding if guard.pool == ask.pool), None)
    if mine is None:
        scope = f"pool {ask.pool}" if ask.pool else "the cluster"
        others = [f"pool {guard.pool}" if guard.pool else "the whole cluster" for guard in holding]
        hint = f"; frozen: {', '.join(others)}" if others else ""
        raise conflict("not-frozen", f"{scope} is not frozen by itself{hint}")
    return _lifted(mine, next_number(guards), ask.reason, actor, now)


def hold(guards: Sequence[Guard], ask: HoldAsk, actor: str, now: datetime, *, pool: str, node: str = "") -> Guard:
    """The hold as it is to be written, on `node` or on all of `pool`. Raises `Refused` where there are too many."""
    if len(standing(guards, now, "hold")) >= HOLDS_MAX:
        raise Refused(429, "too-many-holds", f"{HOLDS_MAX} holds are in force; hold the pools instead of their nodes")
    return Guard(
        name=hold_key(node=node, pool=pool).name,
        active=True,
        kind="hold",
        pool=pool,
        node=node or None,
        number=next_number(guards),
        actor=actor,
        reason=ask.reason,
        at=now,
        until=now + timedelta(seconds=ask.for_s),
    )


def release(guards: Sequence[Guard], ask: ReleaseAsk, actor: str, now: datetime) -> Guard:
    """The hold as lifted. Raises `Refused` where there is none to lift, saying what else holds."""
    names = {hold_key(node=ask.target).name, hold_key(pool=ask.target).name}
    holding = standing(guards, now, "hold")
    mine = next((guard for guard in holding if guard.name in names), None)
    if mine is None:
        held = ", ".join(target_of(guard) for guard in holding[:5])
        raise conflict("not-held", f"{ask.target} is not held by itself" + (f"; held: {held}" if held else ""))
    return _lifted(mine, next_number(guards), ask.reason, actor, now)


def _lifted(guard: Guard, number: int, reason: str, actor: str, now: datetime) -> Guard:
    return structs.replace(
        guard, active=False, number=number, actor=actor, reason=reason or f"lifted by {actor}", at=now, until=None
    )


def event_of(guard: Guard, cluster: str) -> Event:
    """What tells of a guard that was just changed."""
    if guard.kind == "hold":
        return _hold_event(guard, cluster)
    pool = guard.pool or ""
    scope = f"pool {guard.pool}" if guard.pool else "the cluster"
    if not guard.active:
        reason = f"{guard.actor} lifted the freeze of {scope}: {guard.reason}"
        return Unfrozen(at=guard.at, cluster=cluster, pool=pool, reason=reason, code="unfrozen", actor=guard.actor)
    reason = f"{guard.actor} froze {scope} (level {guard.level}){until_text(guard)}: {guard.reason}"
    return Frozen(
        at=guard.at, cluster=cluster, pool=pool, reason=reason, code="frozen", actor=guard.actor, level=guard.level
    )


def _hold_event(guard: Guard, cluster: str) -> OperatorAction:
    verb = "hold" if guard.active else "release"
    text = held_text(guard) if guard.active else f"{guard.actor} released {target_of(guard)}: {guard.reason}"
    return OperatorAction(
        at=guard.at, cluster=cluster, pool=guard.pool or "", node=guard.node or "", reason=text[:1024], code=verb,
        actor=guard.actor, action=verb,
    )  # fmt: skip


def restored_event(guard: Guard, cluster: str, now: datetime) -> Event | None:
    """What tells that the store has a guard again which it had lost, or never had; None where it forbids nothing."""
    if not is_in_force(guard, now):
        return None
    event = event_of(guard, cluster)
    return structs.replace(event, at=now, reason=f"{event.reason} (written again: the store had not kept it)"[:1024])
