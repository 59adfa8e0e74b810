"""What each strategy wants, by table; the numbers of the reference's own tests among them."""

from datetime import UTC, datetime

import pytest

from navarch_autoscaler.strategies.base import Demand, PoolInputs, UnknownStrategy, Utilization, strategy
from navarch_autoscaler.strategies.queue import queue
from navarch_autoscaler.strategies.reactive import reactive
from navarch_common.config.autoscaling import ExternalAutoscaling, QueueAutoscaling, ReactiveAutoscaling

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def inputs(
    desired: int = 5,
    *,
    demand: Demand | None = None,
    utilization: Utilization | None = None,
    usable: int | None = None,
    coming: int = 0,
) -> PoolInputs:
    return PoolInputs(
        pool="training",
        now=NOW,
        min_nodes=1,
        max_nodes=10,
        desired=desired,
        usable=desired if usable is None else usable,
        coming=coming,
        demand=demand,
        utilization=utilization,
    )


@pytest.mark.parametrize(
    ("percent", "target"),
    [(85, 6), (15, 4), (50, 5), (80, 5), (20, 5), (100, 6), (0, 4)],
    ids=["over", "under", "between", "exactly-up", "exactly-down", "full", "idle"],
)
def test_reactive_moves_one_node_strictly_beyond_its_thresholds(percent: int, target: int) -> None:
    opinion = reactive(ReactiveAutoscaling(), inputs(utilization=Utilization(percent / 100, 5)))
    assert opinion.target == target
    assert f"{percent} %" in opinion.reason


def test_reactive_has_no_opinion_without_readings() -> None:
    assert reactive(ReactiveAutoscaling(), inputs()).target is None


def test_reactive_waits_for_nodes_that_are_still_coming() -> None:
    opinion = reactive(ReactiveAutoscaling(), inputs(6, usable=5, coming=1, utilization=Utilization(0.95, 5)))
    assert (opinion.target, opinion.code) == (6, "waiting-for-coming")


def test_a_silent_node_makes_the_utilization_incomplete() -> None:
    assert not reactive(ReactiveAutoscaling(), inputs(utilization=Utilization(0.1, 4, silent=1))).fresh


@pytest.mark.parametrize(("depth", "target"), [(50, 5), (5, 1), (0, 0), (200, 20), (11, 2), (40, 4), (1, 1)], ids=str)
def test_queue_rounds_up_to_whole_nodes(depth: int, target: int) -> None:
    opinion = queue(QueueAutoscaling(jobs_per_node=10), inputs(demand=Demand(depth, 1)))
    assert opinion.target == target


def test_queue_with_no_jobs_per_node_is_switched_off() -> None:
    assert queue(QueueAutoscaling(jobs_per_node=0), inputs(demand=Demand(50, 1))).target is None


def test_queue_has_no_opinion_while_nobody_reports() -> None:
    opinion = queue(QueueAutoscaling(), inputs())
    assert (opinion.target, opinion.code) == (None, "no-demand-data")


def test_a_strategy_that_is_not_installed_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownStrategy, match="'tides' is not installed; installed: queue, reactive"):
        strategy(ExternalAutoscaling(strategy="tides"))
