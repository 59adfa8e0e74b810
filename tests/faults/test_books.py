"""The judge of the chaos, judged: each wrong that it looks for is found when it is there, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from fixtures.records import node_record
from navarch_common.model.health import HealthRecord, HealthStatus
from navarch_common.model.node import LaunchRequest, Phase
from navarch_sim.fake_cloud.world import FakeMachine
from support.books import Books, Told, headline, violations
from support.hostile import Deeds

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WELL, FAILED, SHRUNK = "training-well", "training-failed", "training-shrunk"


def machine(node: str, *, on: bool, instance: str = "") -> FakeMachine:
    request = LaunchRequest(
        node=node, pool="training", cluster="test", installation="i", generation=1, provider="cloud",
        instance_type="h100-8x", token=f"t-{instance or node}",
    )  # fmt: skip
    return FakeMachine(
        instance_id=instance or node, request=request, gpu_count=8, launched_at=NOW, boot_id="b", booted_at=NOW,
        power="on" if on else "ended",
    )  # fmt: skip


def told(kind: str, name: str, rev: int, **fields: object) -> Told:
    event = {"type": f"{kind}.v1", "id": f"{rev}-0", "node": name, "rev": rev, "reason": "", "at": NOW.isoformat()}
    return Told(rev, {**event, **fields})


def good() -> tuple[Books, Deeds]:
    books = Books(
        desired=1,
        machines=[machine(WELL, on=True), machine(FAILED, on=False), machine(SHRUNK, on=False)],
        nodes={
            WELL: node_record(WELL),
            FAILED: node_record(FAILED, phase=Phase.TERMINATED),
            SHRUNK: node_record(SHRUNK, phase=Phase.TERMINATED),
        },
        health={
            WELL: HealthRecord(node=WELL, pool="training", generation=1, status=HealthStatus.HEALTHY, since=NOW),
        },
        told=[
            told("node.failed", FAILED, 1, failure_id="f1"),
            told("node.draining", SHRUNK, 2, cause="scale-down"),
            told("node.terminated", FAILED, 3),
            told("node.terminated", SHRUNK, 4),
        ],
        outbox=0,
    )
    books.heard = {one.id for one in books.told}
    return books, Deeds(broken={FAILED})


def test_where_all_is_well_nothing_is_said() -> None:
    assert violations(*good()) == []


@pytest.mark.parametrize(("entered_at", "failure", "is_wrong"), [(5, "f1", False), (5, "f2", True), (9, "f1", True)])
def test_a_failure_may_be_told_again_where_the_store_went_back_in_between(
    entered_at: int, failure: str, is_wrong: bool
) -> None:
    books, deeds = good()
    books.told += [
        told("cluster.safe-mode-entered", "", entered_at),
        told("node.failed", FAILED, 8, failure_id=failure),
    ]
    books.heard = {one.id for one in books.told}
    assert bool([wrong for wrong in violations(books, deeds) if "failed 2 times" in wrong]) is is_wrong


def test_the_same_event_may_come_twice() -> None:
    books, deeds = good()
    books.told.append(books.told[0])
    assert violations(books, deeds) == []


Wrong = Callable[[Books, Deeds], object]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda b, d: b.machines.append(machine(WELL, on=True, instance="two")), "2 machines live for training-well"),
        (lambda b, d: b.machines.append(machine(FAILED, on=False, instance="two")), "2 machines were made for"),
        (lambda b, d: b.machines.append(machine("training-x", on=True)), "its record is missing"),
        (lambda b, d: b.machines.pop(0), "is active and has no machine"),
        (lambda b, d: b.told.pop(0), "was broken and never failed"),
        (lambda b, d: b.told.append(told("node.failed", FAILED, 9, failure_id="f2")), "failed 2 times"),
        (lambda b, d: b.told.append(told("node.failed", WELL, 9, failure_id="f2")), "failed and was not broken"),
        (lambda b, d: b.told.append(told("node.failed", WELL, 9, failure_id="f1")), "2 events tell of failure f1"),
        (lambda b, d: b.told.pop(1), "nothing was wrong with it"),
        (lambda b, d: d.busy.update({SHRUNK: NOW - timedelta(seconds=9)}), "ended as idle"),
        (lambda b, d: b.told.append(told("node.active", FAILED, 0)), "came after node.terminated"),
        (lambda b, d: b.heard.discard("1-0"), "the subscriber was never told: "),
        (lambda b, d: b.heard.discard("4-0"), "never told of node.terminated 4-0"),
        (lambda b, d: b.told.append(told("node.terminated", FAILED, 9)), "node.terminated was told 2 times"),
        (lambda b, d: setattr(b, "outbox", 1), "outbox 1"),
        (lambda b, d: setattr(b, "desired", 2), "1 of 2 nodes"),
        (lambda b, d: b.budgets.update({"replace/training": [FAILED]}), "still astir"),
        (lambda b, d: b.pending.update({"REPORTS/health": (0, 1)}), "still astir"),
        (lambda b, d: setattr(b, "reports", 1), "never taken"),
        (lambda b, d: d.surprises.append("health-0 ended"), "health-0 ended"),
    ],
)
def test_each_wrong_is_found(wrong: Wrong, says: str) -> None:
    books, deeds = good()
    wrong(books, deeds)
    assert any(says in violation for violation in violations(books, deeds)), violations(books, deeds)


def test_the_headline_counts_each_kind_of_wrong() -> None:
    books, deeds = good()
    deeds.counts.update({"machine xid": 1, "kill nats": 2})
    assert headline(books, deeds, 7.4) == (
        "1 failures (1 xid, 0 death, 0 stillbirth) under 2 faults: 0 duplicate launches, 0 leaks, 0 missing node.failed, "
        "0 healthy nodes terminated, back at desired 7 s after the last fault"
    )
    books.machines += [machine(FAILED, on=True, instance="two"), machine("training-x", on=False)]
    books.told.pop(0)
    assert "1 duplicate launches, 1 leaks, 1 missing node.failed, 1 healthy" in headline(books, deeds, 0)


def test_a_node_that_is_not_healthy_keeps_it_from_being_quiet() -> None:
    books, _ = good()
    sick = structs.replace(books.health[WELL], status=HealthStatus.SUSPECT)
    assert "suspect" in replace(books, health={WELL: sick}).quiet()
