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


class Breaker(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why automation takes no node out of a pool, and what is tried meanwhile. A record has it while it is open."""

    since: datetime
    code: Code
    """`too-many-unhealthy` or `starts-failing`."""
    reason: Text
    canary: Name = ""
    """The node that was let through last: its success closes the breaker."""
    tries: Count = 0
    retry_at: datetime
    """No canary before then."""


CHANGES_MAX = 256


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What automation would do and does not do, or not yet: `automation: observe` or `approve`."""

    id: Id
    """Stays the same as long as the reason for it does."""
    act: Code
    node: Name = ""
    """Empty where it is about the pool as a whole."""
    text: Text
    since: datetime | None = None


class SupplyRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """How supply goes in a pool: failed launches, backoff, what the next step waits for. Written by the provisioner alone."""

    pool: Id
    launch_failures: Count = 0
    """Launches that failed in a row."""
    retry_at: datetime | None = None
    """No launch before then."""
    exhausted_since: datetime | None = None
    """Every provider of the pool refused for want of capacity."""
    failed_starts: Count = 0
    """Machines in a row that came to nothing before they were usable."""
    breaker: Breaker | None = None
    breaker_closed_at: datetime | None = None
    """Failures before then were seen, and did not keep it open."""
    changes: Annotated[tuple[Change, ...], Meta(max_length=CHANGES_MAX)] = ()
    """What waits for an operator, or is only said."""
    cancelled: Annotated[dict[Id, datetime], Meta(max_length=64)] = {}
    """Changes that an operator does not want."""
    answers: Answers = {}
    """What came of wishes that the provisioner grants for the pool as a whole, by request id."""
    limits: Annotated[dict[Text, datetime], Meta(max_length=64)] = {}
    """Limits of the configuration that keep it from what it wants, each since when."""
    swept_at: datetime | None = None
    """When all providers of the pool last gave a complete list."""
    blocked: Reason | None = None
    reasons: tuple[Reason, ...] = ()
    config_generation: Revision = 0


class VerdictsMarker(Record, frozen=True, kw_only=True, omit_defaults=True):
    """Renewed by every commit that changes a verdict's class in the pool. Expected by scale-down and terminate."""

    pool: Id


FreezeLevel = Literal["terminate", "launch", "all"]
GuardKind = Literal["freeze", "hold"]


class Guard(Record, frozen=True, kw_only=True, omit_defaults=True):
    """What is forbidden now, by whom, why, until when. What follows from it is decided in `navarch_common.guards`.

    A release that knows no holds takes one for a freeze of its pool: too much, never too little.
    """

    name: Name
    """`freeze`, `freeze/<pool>`, `hold/pool/<pool>`, `hold/node/<node>`."""
    active: bool
    kind: GuardKind = "freeze"
    level: FreezeLevel = "all"
    pool: Id | None = None
    """The pool that it is about, or whose node."""
    node: Id | None = None
    """A hold on one node."""
    number: Revision = 0
    """Rises with each change of any guard; the highest that can be read wins."""
    actor: Actor
    reason: Text
    at: datetime
    until: datetime | None = None


POOL = Family("pool", PoolRecord, "autoscaler", pool_of=lambda record: record.pool)
SUPPLY = Family("supply", SupplyRecord, "provisioner", pool_of=lambda record: record.pool)
VERDICTS = Family("verdicts", VerdictsMarker, "health", pool_of=lambda record: record.pool)
GUARD: Family[Guard] = Family("guard", Guard, "gateway")
