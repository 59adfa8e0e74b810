"""What the default policy makes of an agent's news of its host: degraded while it lasts, and never worth a machine."""

from __future__ import annotations

from typing import Any

import pytest

from navarch_common.events.kinds import NodeDegraded, NodeRecovered
from navarch_common.events.messages import HealthReport
from navarch_common.model.health import HealthRecord
from navarch_health.fold import Limits, fold_report
from navarch_health.life import calmed, calms_at, heard
from navarch_health.policy import default_policy
from navarch_health.verdict import Change
from support.health_world import BOOT, STATUS, T0, context, node, observation, record, report, seconds, xid

HOUR = 3600.0
RULES = {
    "disk_full": "host-disk-full",
    "inodes_full": "host-disk-full",
    "read_only": "host-read-only",
    "memory_pressure": "host-memory-pressure",
    "stuck_processes": "host-processes-stuck",
    "zombies": "host-zombies",
    "port_down": "host-port-down",
    "port_flapping": "host-port-unsteady",
    "port_errors": "host-port-unsteady",
    "fabric_manager_down": "host-fabric-manager-down",
    "peermem_missing": "host-peermem-gone",
    "clock_unsynchronized": "host-clock",
    "host_look_hangs": "host-look-hangs",
}


def healthy() -> HealthRecord:
    change = heard(record(), node(), BOOT, "ok", context())
    assert change is not None
    return change.record


def said(kind: str, sequence: int, *, ended: bool = False, at: float = 0.0, **metrics: Any) -> HealthReport:
    words = {"kind": kind, "ended": ended, **metrics}
    return report(
        observation(at, event_type="host", source="host", message=f"{kind} on this host", metrics=words),
        sequence=sequence,
    )


def fold(before: HealthRecord, of: HealthReport, at: float = 1.0) -> Change | None:
    return fold_report(before, node(), of, default_policy().judge, Limits(), context(at)).change


def after(before: HealthRecord, *reports: HealthReport) -> HealthRecord:
    for one in reports:
        change = fold(before, one)
        before = before if change is None else change.record
    return before


@pytest.mark.parametrize("kind", RULES)
def test_each_kind_degrades_the_node_until_it_is_over(kind: str) -> None:
    change = fold(healthy(), said(kind, 1, was_loaded=True))
    assert change is not None
    (event,) = change.events
    assert isinstance(event, NodeDegraded)
    assert (event.rule, event.action, event.cause) == (RULES[kind], "none", kind)
    assert f"{kind} on this host" in event.reason
    over = fold(change.record, said(kind, 2, ended=True, at=60.0))
    assert over is not None
    assert over.record.status == STATUS.HEALTHY
    assert isinstance(over.events[0], NodeRecovered)


@pytest.mark.parametrize("kind", RULES)
def test_what_is_told_no_more_goes_by_itself_and_not_before_it_would_have_been_told_again(kind: str) -> None:
    degraded = after(healthy(), said(kind, 1, was_loaded=True))
    due = calms_at(degraded)
    assert due is not None
    assert due > T0 + seconds(HOUR + 600)
    assert calmed(degraded, node(), context(HOUR + 600)) is None
    change = calmed(degraded, node(), context((due - T0).total_seconds()))
    assert change is not None
    assert change.record.status == STATUS.HEALTHY


@pytest.mark.parametrize("kind", RULES)
def test_no_number_of_them_is_worth_a_machine(kind: str) -> None:
    held = after(healthy(), *(said(kind, n, at=HOUR * n, was_loaded=True) for n in range(1, 60)))
    assert (held.status, held.action) == (STATUS.DEGRADED, "none")


def test_no_rule_about_the_host_asks_for_anything() -> None:
    rules = [rule for rule in default_policy().rules if '"host"' in rule.condition]
    assert {rule.name for rule in rules} == set(RULES.values())
    assert {(rule.result, rule.action) for rule in rules} == {("degraded", "none")}
    assert all(rule.description for rule in rules)


def test_one_that_is_over_takes_back_no_other_and_no_fault() -> None:
    held = after(healthy(), said("disk_full", 1), said("port_down", 2), said("disk_full", 3, ended=True))
    assert (held.status, held.code) == (STATUS.DEGRADED, "port_down")
    failed = after(held, report(xid(79), sequence=4), said("port_down", 5, ended=True))
    assert (failed.status, failed.code) == (STATUS.UNHEALTHY, "xid-79")


def test_the_end_wins_in_whatever_order_they_come() -> None:
    late = after(healthy(), said("disk_full", 2, ended=True, at=60.0), said("disk_full", 1))
    assert late.status == STATUS.HEALTHY


@pytest.mark.parametrize(
    "words",
    [
        {"kind": "peermem_missing", "ended": False, "was_loaded": False},
        {"kind": "peermem_missing", "ended": False},
        {"kind": "something_new", "ended": False},
        {"kind": "\x00" * 80},
        {},
    ],
    ids=["never loaded", "nothing said of it", "a kind that is not known", "rubbish", "no kind"],
)
def test_a_note_and_what_nobody_knows_are_kept_and_held_against_nobody(words: dict[str, Any]) -> None:
    held = after(healthy(), report(observation(event_type="host", source="host", metrics=words)))
    assert held.status == STATUS.HEALTHY
    assert len(held.episodes) == 1
