"""One pass over one pool: rank of wishes, pauses, holds and strategies; what is written and what is told."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from navarch_autoscaler.sizing import Sizing, first_record, size
from navarch_autoscaler.strategies.base import Demand, Found, PoolInputs, strategy
from navarch_common.config.autoscaling import QueueAutoscaling
from navarch_common.config.pools import PoolConfig
from navarch_common.config.units import Share
from navarch_common.model.pool import Guard, Pause, PoolRecord
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
    hold: Guard | None = None,
    found: int | None = None,
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
        found=None if found is None else Found(found, NOW - timedelta(seconds=60)),
    )
    chosen = strategy(config.autoscaling) if config.autoscaling else None
    return size(before, config, chosen, inputs, wishes, cluster="default", generation=0, hold=hold)


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


HOLD = Guard(
    name="hold/pool/training", active=True, kind="hold", pool="training", number=1, actor="operator:ada", reason="audit",
    at=NOW,
)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "config", "queue"),
    [
        pytest.param(record(3), QUEUED, 90, id="demand"),
        pytest.param(record(3), structs.replace(QUEUED, min_nodes=5), None, id="a new minimum"),
        pytest.param(record(12), PLAIN, None, id="a new maximum"),
    ],
)
def test_a_held_pool_keeps_its_size_whatever_asks_for_another(
    before: PoolRecord, config: PoolConfig, queue: int | None
) -> None:
    free, held = sized(before, config, queue=queue), sized(before, config, queue=queue, hold=HOLD)
    assert free.record.desired != before.desired
    assert held.record.desired == before.desired
    assert held.record.limited is not None
    assert (held.record.limited.code, "audit" in held.record.limited.text) == ("held", True)


def test_an_operators_size_for_a_held_pool_is_refused_and_a_pause_is_not() -> None:
    scaled = sized(record(3), PLAIN, wish("scale", nodes=5), hold=HOLD).record
    assert (scaled.desired, scaled.answers["w1"].outcome, scaled.answers["w1"].code) == (3, "refused", "held")
    assert sized(record(3), PLAIN, wish("pause"), hold=HOLD).record.paused is not None


@pytest.mark.parametrize("config", [PLAIN, QUEUED], ids=["kept at its size", "sized by a queue nobody tells of"])
def test_after_a_loss_what_was_found_again_is_wanted(config: PoolConfig) -> None:
    after = sized(record(1), config, found=4)
    assert (after.record.desired, after.record.code) == (4, "safe-mode")
    again = sized(after.record, config, found=4)
    assert (again.record.desired, again.changed) == (4, False)


def test_what_was_found_again_is_wanted_within_the_bounds_and_never_lowers_what_is_wanted() -> None:
    assert sized(record(1), PLAIN, found=40).record.desired == 10
    assert sized(record(5), PLAIN, found=2).record.desired == 5


def test_what_was_raised_for_a_machine_that_is_gone_after_all_is_lowered_again() -> None:
    raised = sized(record(1), PLAIN, found=5)
    assert sized(raised.record, PLAIN, found=4).record.desired == 4
    assert sized(raised.record, PLAIN, found=0).record.desired == 1


def test_fresh_demand_says_what_is_wanted_of_what_was_found_again() -> None:
    assert sized(record(1), QUEUED, queue=20, found=6).record.desired == 2


def test_an_operator_says_what_is_wanted_of_what_was_found_again() -> None:
    lower = sized(record(1), PLAIN, wish("scale", nodes=2), found=6)
    assert lower.record.desired == 2
    assert sized(lower.record, PLAIN, found=6).record.desired == 2
