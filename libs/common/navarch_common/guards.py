"""What is forbidden now: freezes and holds, wherever they were read. Pure.

A *freeze* forbids launches, terminations or both, in the whole cluster or in one pool. A *hold* keeps automation away
from one node or one pool. Each change of either carries a number above all numbers before it, and is kept in three
places: the store, the bus, and a file of each process. Of one guard the highest number that can be read wins, so a store
that was lost or rolled back lifts nothing.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from navarch_common.ids import Id
from navarch_common.model.base import Key
from navarch_common.model.pool import GUARD, Guard

GUARDS_MAX = 4096
KEEP_LIFTED = timedelta(days=30)
"""So long a lifted or expired hold is remembered: an older file that still has it in force must not bring it back."""


class GuardSet(Struct, frozen=True, kw_only=True):
    """All guards, as the bus and the file keep them."""

    guards: Annotated[tuple[Guard, ...], Meta(max_length=GUARDS_MAX)] = ()


def encode(guards: Iterable[Guard]) -> bytes:
    return msgspec.json.encode(GuardSet(guards=tuple(guards)))


def decode(data: bytes) -> tuple[Guard, ...]:
    """Raises `ValueError` for what is no set of guards."""
    try:
        return msgspec.json.decode(data, type=GuardSet).guards
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no set of guards: {error}") from error


def freeze_key(pool: str | None = None) -> Key[Guard]:
    """The freeze of the cluster, or of one pool."""
    return GUARD.key("freeze") if pool is None else GUARD.key("freeze", pool)


def hold_key(*, node: str = "", pool: str = "") -> Key[Guard]:
    """The hold on a node, or on a pool: the first of them that is named."""
    return GUARD.key("hold", "node", node) if node else GUARD.key("hold", "pool", pool)


def keys_of_pool(pool: str) -> tuple[Key[Guard], ...]:
    """The guards that bind all of a pool."""
    return freeze_key(), freeze_key(pool), hold_key(pool=pool)


def newest(*sources: Iterable[Guard]) -> tuple[Guard, ...]:
    """Of each guard the one with the highest number, by name.

    Two copies that could not hear each other may have given out one number twice: then what forbids more wins.
    """
    best: dict[str, Guard] = {}
    for source in sources:
        for guard in source:
            known = best.get(guard.name)
            if known is None or _rank(guard) > _rank(known):
                best[guard.name] = guard
    return tuple(best[name] for name in sorted(best))


def _rank(guard: Guard) -> tuple[int, bool, bool, bool, datetime, str]:
    return guard.number, guard.active, guard.level == "all", guard.until is None, guard.at, guard.actor


def next_number(guards: Iterable[Guard]) -> int:
    return max((guard.number for guard in guards), default=0) + 1


def is_in_force(guard: Guard, now: datetime) -> bool:
    return guard.active and (guard.until is None or guard.until > now)


def standing(guards: Iterable[Guard], now: datetime, kind: Literal["freeze", "hold"] = "freeze") -> list[Guard]:
    """Those of one kind that are in force at `now`, the newest first."""
    holding = [guard for guard in guards if guard.kind == kind and is_in_force(guard, now)]
    return sorted(holding, key=lambda guard: -guard.number)


def remembered(guards: Iterable[Guard], now: datetime) -> tuple[Guard, ...]:
    """Without holds that are over for so long that nobody can still take them for being in force."""
    return tuple(guard for guard in guards if not _is_forgotten(guard, now))


def _is_forgotten(guard: Guard, now: datetime) -> bool:
    over_since = guard.until if guard.active else guard.at
    return guard.kind == "hold" and over_since is not None and now - over_since > KEEP_LIFTED


def forbids(guards: Iterable[Guard], act: Literal["launch", "terminate"], pool: str, now: datetime) -> Guard | None:
    """The freeze that forbids `act` in `pool` at `now`, or None."""
    for guard in guards:
        if guard.kind != "freeze" or not is_in_force(guard, now):
            continue
        if guard.pool is not None and guard.pool != pool:
            continue
        if guard.level in ("all", act):
            return guard
    return None


def hold_on(guards: Iterable[Guard], pool: str, node: str | None, now: datetime) -> Guard | None:
    """The hold that keeps automation away from `node` of `pool`, its pool's included; of the pool alone where `node` is
    None."""
    for guard in guards:
        if guard.kind != "hold" or not is_in_force(guard, now):
            continue
        if guard.node is None and guard.pool == pool:
            return guard
        if guard.node is not None and guard.node == node:
            return guard
    return None


def target_of(guard: Guard) -> Id:
    """What a guard is about, as people call it: a node, a pool, or the cluster (empty)."""
    return guard.node or guard.pool or ""


def until_text(guard: Guard) -> str:
    return f" until {guard.until:%Y-%m-%d %H:%M} UTC" if guard.until else ""


def held_text(guard: Guard) -> str:
    """`training is held by operator:ada until 2026-01-01 04:00 UTC: counting fans`."""
    what = f"pool {guard.pool}" if guard.node is None else guard.node
    return f"{what} is held by {guard.actor}{until_text(guard)}: {guard.reason}"
