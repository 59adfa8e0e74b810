"""One pass over one pool: rank of wishes, pauses, holds and strategies; what is written and what is told."""

from datetime import UTC, datetime, timedelta

import pytest

from navarch_autoscaler.sizing import Sizing, first_record, size
from navarch_autoscaler.strategies.base import Demand, PoolInputs, strategy
from navarch_common.config.autoscaling import QueueAutoscaling
from navarch_common.config.pools import PoolConfig
from navarch_common.config.units import Share
from navarch_common.model.pool import Pause, PoolRecord
from navarch_common.model.wish import Wish

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLAIN = PoolConfig(provider="local", min_nodes=1, max_nodes=10)
QUEUED = PoolConfig(provider="local", min_nodes=1, max_nodes=10, autoscaling=QueueAutoscaling(jobs_per_node=10))


def record(desired: int = 3, **fields: object) -> PoolRecord:
    return PoolRecord(pool="training", desired=desired, actor="autoscaler", code="x", reason="y", **fields)  # type: ignore[arg-type]


def wish(verb: str, *, nodes: int | None = None, ident: str = "w1", age_s: int = 1, lives_s: int = 600) -> Wish:
    at = NOW - timedelta(seconds=age_s)
    return Wish(
        id=ident,
        verb=verb,  # type: ignore[arg-type]
        actor="operator:ada",
        reason="maintenance",
        at=at,
        expires_at=at + timedelta(seconds=lives_s),
        nodes=nodes,
    )


def sized(
    before: PoolRecord,
    config: PoolConfig,
    *wishes: Wish,
    queue: int | None = None,
    now: datetime = NOW,
    heard_at: datetime | None = None,
) -> Sizing:
    inputs = PoolInputs(
        pool="training",
        now=now,
        min_nodes=config.min_nodes,
        max_nodes=config.max_nodes,
        desired=before.desired,
        usable=before.desired,
        coming=0,
        demand=None if queue is None else Demand(queue, 1, heard_at=heard_at),
        utilization=None,
    )
    found = strategy(config.autoscaling) if config.autoscaling else None
    return size(before, config, found, inputs, wishes, cluster="default", generation=0)


def test_a_new_pool_starts_with_its_minimum() -> None:
    assert first_record("training", PLAIN, 1, NOW).desired == 1


def test_forty_queued_jobs_make_four_nodes() -> None:
    result = sized(record(3), QUEUED, queue=40)
    assert result.record.desired == 4
    assert [(event.before, event.after) for event in result.events] == [(3, 4)]  # type: ignore[attr-defined]
    assert "40 queued" in result.record.reason


def test_a_pool_without_autoscaling_keeps_its_desired_count() -> None:
    result = sized(record(3), PLAIN, queue=400)
    assert (result.record.desired, result.changed, result.events) == (3, False, ())


def test_an_unchanged_opinion_is_not_written_again() -> None:
    first = sized(record(4), QUEUED, queue=40)
    assert first.changed
    assert not sized(first.record, QUEUED, queue=39, now=NOW + timedelta(seconds=9)).changed


def test_an_operator_scales_a_plain_pool_for_good() -> None:
    result = sized(record(3), PLAIN, wish("scale", nodes=7))
    assert (result.record.desired, result.record.actor, result.record.hold_until) == (7, "operator:ada", None)
    assert result.record.answers["w1"].outcome == "done"


def test_an_operator_scales_without_regard_to_cooldown() -> None:
    assert sized(record(3, scaled_at=NOW), PLAIN, wish("scale", nodes=7)).record.desired == 7


def test_an_operators_size_of_an_autoscaled_pool_holds_for_one_cooldown() -> None:
    result = sized(record(3), QUEUED, wish("scale", nodes=7), queue=10)
    assert result.record.desired == 7
    assert result.record.hold_until == NOW + timedelta(minutes=5)
    assert result.record.limited is not None
    assert result.record.limited.code == "operator-hold"
    later = sized(result.record, QUEUED, queue=10, now=NOW + timedelta(minutes=5))
    assert (later.record.desired, later.record.hold_until) == (1, None)


@pytest.mark.parametrize("nodes", [0, 11, None])
def test_a_size_outside_the_bounds_is_refused_naming_them(nodes: int | None) -> None:
    answer = sized(record(3), PLAIN, wish("scale", nodes=nodes)).record.answers["w1"]
    assert answer.outcome == "refused"
    assert "min_nodes 1 .. max_nodes 10" in answer.reason


def test_a_wish_is_granted_once() -> None:
    first = sized(record(3), PLAIN, wish("scale", nodes=7)).record
    lowered = sized(first, PLAIN, wish("scale", nodes=2, ident="w2"))
    assert sized(lowered.record, PLAIN, wish("scale", nodes=7)).record.desired == 2


def test_an_expired_wish_is_answered_and_not_granted() -> None:
    result = sized(record(3), PLAIN, wish("scale", nodes=7, age_s=700))
    assert (result.record.desired, result.record.answers["w1"].outcome) == (3, "expired")


def test_a_paused_pool_is_not_sized_and_says_so() -> None:
    result = sized(record(3), QUEUED, wish("pause"), queue=90)
    assert result.record.desired == 3
    assert result.record.limited is not None
    assert result.record.limited.code == "paused"
    assert [event.KIND for event in result.events] == ["pool.paused"]


def test_a_paused_pool_is_still_kept_at_its_minimum() -> None:
    paused = record(0, paused=Pause(actor="operator:ada", reason="", at=NOW))
    assert sized(paused, QUEUED).record.desired == 1


def test_resume_lets_the_strategies_speak_again() -> None:
    paused = record(3, paused=Pause(actor="operator:ada", reason="", at=NOW - timedelta(minutes=2)))
    result = sized(paused, QUEUED, wish("resume"), queue=40)
    assert (result.record.desired, result.record.paused) == (4, None)
    assert [event.KIND for event in result.events] == ["pool.resized", "pool.resumed"]


def test_only_the_newest_answers_are_kept() -> None:
    wishes = [wish("scale", nodes=2 + n % 3, ident=f"w{n}", age_s=100 - n) for n in range(50)]
    assert len(sized(record(3), PLAIN, *wishes).record.answers) <= 32


def test_one_message_raises_a_pool_by_one_step_however_often_it_is_looked_at() -> None:
    config = PoolConfig(
        provider="local", min_nodes=1, max_nodes=50, autoscaling=QueueAutoscaling(jobs_per_node=10),
        cooldown=timedelta(0), max_step_up=Share(2),
    )  # fmt: skip
    heard, current, sizes = NOW, record(1), []
    for minute in range(6):
        now = NOW + timedelta(minutes=minute)
        heard = now if minute == 3 else heard
        current = sized(current, config, queue=400, now=now + timedelta(seconds=1), heard_at=heard).record
        sizes.append(current.desired)
    assert sizes == [3, 3, 3, 5, 5, 5]
