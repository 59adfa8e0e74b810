"""Freeze and unfreeze: what the guard's record says next. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from navarch_common.events.kinds import Frozen, Unfrozen
from navarch_common.model.base import Key
from navarch_common.model.pool import GUARD, Guard
from navarch_gateway.asks import FreezeAsk, UnfreezeAsk
from navarch_gateway.known import standing
from navarch_gateway.refusal import conflict


def guard_key(pool: str | None) -> Key[Guard]:
    return GUARD.key("freeze") if pool is None else GUARD.key("freeze", pool)


def freeze(guards: Sequence[Guard], ask: FreezeAsk, actor: str, now: datetime) -> Guard:
    """The freeze as it is to be written. Its number is above every number before it."""
    return Guard(
        name=guard_key(ask.pool).name,
        active=True,
        level=ask.level,
        pool=ask.pool,
        number=_next(guards),
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
    return Guard(
        name=mine.name,
        active=False,
        level=mine.level,
        pool=mine.pool,
        number=_next(guards),
        actor=actor,
        reason=ask.reason or f"lifted by {actor}",
        at=now,
    )


def event_of(guard: Guard, cluster: str) -> Frozen | Unfrozen:
    pool = guard.pool or ""
    scope = f"pool {guard.pool}" if guard.pool else "the cluster"
    if not guard.active:
        reason = f"{guard.actor} lifted the freeze of {scope}: {guard.reason}"
        return Unfrozen(at=guard.at, cluster=cluster, pool=pool, reason=reason, code="unfrozen", actor=guard.actor)
    until = f" until {guard.until:%Y-%m-%d %H:%M} UTC" if guard.until else ""
    reason = f"{guard.actor} froze {scope} (level {guard.level}){until}: {guard.reason}"
    return Frozen(
        at=guard.at, cluster=cluster, pool=pool, reason=reason, code="frozen", actor=guard.actor, level=guard.level
    )


def _next(guards: Sequence[Guard]) -> int:
    return max((guard.number for guard in guards), default=0) + 1
