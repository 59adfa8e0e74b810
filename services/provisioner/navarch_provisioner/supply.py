"""How supply goes in a pool: failures in a row, waiting longer after each, and saying when nothing is to be had. Pure."""

from datetime import datetime, timedelta

from navarch_common.events import kinds
from navarch_common.events.base import Event
from navarch_common.model.base import AnyKey
from navarch_common.model.pool import SUPPLY, SupplyRecord
from navarch_provisioner.news import Why, note_supply, tell_pool
from navarch_provisioner.placement import WANT_OF_CAPACITY, backoff
from navarch_provisioner.view import PoolView


def current(pool: PoolView) -> SupplyRecord:
    return pool.supply or SupplyRecord(pool=pool.pool)


def failed(pool: PoolView, why: Why, now: datetime, *, missing: int = 0) -> tuple[SupplyRecord, tuple[Event, ...]]:
    """One more launch came to nothing. The first refusal for want of capacity in a row is told to the world."""
    timings = pool.settings.timings
    before = current(pool)
    failures = before.launch_failures + 1
    pause = backoff(failures, timings.backoff_first, timings.backoff_max)
    exhausted = why.code in WANT_OF_CAPACITY
    since = before.exhausted_since or now if exhausted else before.exhausted_since
    after = note_supply(
        before, why, now, launch_failures=failures, retry_at=_later(before.retry_at, now + pause), exhausted_since=since
    )
    if not exhausted or before.exhausted_since is not None:
        return after, ()
    event = tell_pool(
        kinds.PoolExhausted, pool.pool, pool.cluster, why, now, missing=missing, retry_s=pause.total_seconds()
    )
    return after, (event,)


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


def delivered(pool: PoolView, now: datetime) -> SupplyRecord | None:
    """A provider made a machine: there is capacity. None where that is no news."""
    before = current(pool)
    if before.exhausted_since is None:
        return None
    return note_supply(before, Why("capacity-again", "a provider made a machine again"), now, exhausted_since=None)


def proven(pool: PoolView, now: datetime) -> SupplyRecord:
    """A machine became usable: launches work from end to end."""
    before = current(pool)
    if not before.launch_failures and before.retry_at is None and before.exhausted_since is None:
        return before
    why = Why("launches-work", "a node became active: launches work again")
    return note_supply(before, why, now, launch_failures=0, retry_at=None, exhausted_since=None)


def writes(pool: PoolView, record: SupplyRecord | None) -> tuple[dict[AnyKey, int], dict[AnyKey, SupplyRecord]]:
    """What a commit expects and puts for `record`; nothing where it is None."""
    if record is None:
        return {}, {}
    return pool.expect_supply(), {SUPPLY.key(pool.pool): record}


def wait_left(pool: PoolView, now: datetime) -> timedelta:
    """How long the backoff still lasts."""
    supply = pool.supply
    if supply is None or supply.retry_at is None:
        return timedelta(0)
    return max(supply.retry_at - now, timedelta(0))
