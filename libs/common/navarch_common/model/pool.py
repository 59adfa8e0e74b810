"""What is known of a pool: how many nodes it should have (autoscaler), how supply goes (provisioner), what is forbidden."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from navarch_common.ids import Id
from navarch_common.model.base import Actor, Code, Count, Family, Name, Reason, Record, Revision, Text, TraceParent
from navarch_common.model.wish import Answers


class Pause(Struct, frozen=True, kw_only=True):
    """Sizing stands still; healing goes on."""

    actor: Actor
    reason: Text
    at: datetime


class Opinion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One strategy's target with its reason. `target` None: no opinion (no data, stale data)."""

    strategy: Name
    target: Count | None = None
    code: Code
    reason: Text
    fresh: bool = True


class PoolRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """How many nodes a pool should have, who says so and why. Written by the autoscaler alone."""

    pool: Id
    desired: Count
    actor: Actor
    code: Code
    reason: Text
    scaled_at: datetime | None = None
    """When desired last changed; cooldown counts from here."""
    raised_at: datetime | None = None
    """When desired was last raised."""
    raised_from: Count | None = None
    """Desired before it was first raised on the demand known then: one message moves it by one step from here."""
    paused: Pause | None = None
    hold_until: datetime | None = None
    """An operator's size holds until then, on a pool with strategies."""
    opinions: Annotated[tuple[Opinion, ...], Meta(max_length=16)] = ()
    limited: Reason | None = None
    """What keeps desired from what the strategies want, or None."""
    reasons: tuple[Reason, ...] = ()
    answers: Answers = {}
    trace: TraceParent = ""
    config_generation: Revision = 0


class SupplyRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """How supply goes in a pool: failed launches, backoff, what the next step waits for. Written by the provisioner alone."""

    pool: Id
    launch_failures: Count = 0
    """Launches that failed in a row."""
    retry_at: datetime | None = None
    """No launch before then."""
    exhausted_since: datetime | None = None
    """Every provider of the pool refused for want of capacity."""
    swept_at: datetime | None = None
    """When all providers of the pool last gave a complete list."""
    blocked: Reason | None = None
    reasons: tuple[Reason, ...] = ()
    config_generation: Revision = 0


class VerdictsMarker(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Renewed by every commit that changes a verdict's class in the pool. Expected by scale-down and terminate."""

    pool: Id


FreezeLevel = Literal["terminate", "launch", "all"]


class Guard(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What is forbidden now, by whom, why, until when."""

    name: Name
    """`freeze` for the whole cluster, `freeze/<pool>` for one pool."""
    active: bool
    level: FreezeLevel = "all"
    pool: Id | None = None
    number: Revision = 0
    """Rises with each freeze and unfreeze; the highest that can be read wins."""
    actor: Actor
    reason: Text
    at: datetime
    until: datetime | None = None


def forbids(guards: tuple[Guard, ...], act: Literal["launch", "terminate"], pool: str, now: datetime) -> Guard | None:
    """The freeze that forbids `act` in `pool` at `now`, or None."""
    for guard in guards:
        if not guard.active or (guard.until is not None and guard.until <= now):
            continue
        if guard.pool is not None and guard.pool != pool:
            continue
        if guard.level in ("all", act):
            return guard
    return None


POOL = Family("pool", PoolRecord, "autoscaler", pool_of=lambda record: record.pool)
SUPPLY = Family("supply", SupplyRecord, "provisioner", pool_of=lambda record: record.pool)
VERDICTS = Family("verdicts", VerdictsMarker, "health", pool_of=lambda record: record.pool)
GUARD: Family[Guard] = Family("guard", Guard, "gateway")
