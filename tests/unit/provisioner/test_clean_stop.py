"""What a clean stop leaves in a node's record, and what the next start makes of it."""

from datetime import timedelta
from typing import Any

import pytest

from navarch_common.model.node import NODE, NodeRecord, Phase
from navarch_provisioner import lifecycle, outcomes
from navarch_provisioner.cloud.base import CloudError, NotFound, Throttled, Upstream
from navarch_provisioner.news import Why
from navarch_provisioner.outcomes import Outcome
from navarch_provisioner.plan import plan
from support.provisioner_pools import T0, at, node, pool

WHY = Why("powered-off", "stop")
LATE = 100_000.0
"""Long after every deadline that was set before the stop."""


def settled(phase: Phase, outcome_fields: dict[str, Any], now_s: float) -> NodeRecord | None:
    """The record of node `a`, which was powered off in `phase`, after a call's outcome."""
    view = node("a", phase)
    marked = node("a", phase, powered_off=True, launch=view.record.launch)
    token = lifecycle.require_launch(view.record).request.token
    outcome = Outcome(**{"node": "a", "token": token, **outcome_fields})
    step = outcomes.settle(pool(marked), marked, outcome, at(now_s))
    if step is None:
        return None
    record = step.put[NODE.key("a")]
    assert isinstance(record, NodeRecord)
    return record


@pytest.mark.parametrize("phase", [Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN])
def test_a_launch_that_a_clean_stop_cut_off_is_looked_up_before_anything_is_booted(phase: Phase) -> None:
    [step] = [step for step in plan(pool(node("a", phase, powered_off=True)), at(1)).steps if step.node == "a"]
    assert step.act == "lookup"


@pytest.mark.parametrize("phase", [Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN])
def test_where_a_clean_stop_left_no_machine_the_same_launch_is_asked_for_at_once(phase: Phase) -> None:
    record = settled(phase, {"call": "lookup", "certain": True}, 1)
    assert record is not None
    assert (record.phase, record.powered_off) == (Phase.PLANNED, False)


def test_without_a_clean_stop_not_finding_a_machine_right_after_the_call_is_no_proof() -> None:
    view = node("a", Phase.LAUNCHING)
    token = lifecycle.require_launch(view.record).request.token
    step = outcomes.settle(pool(view), view, Outcome("lookup", "a", token, certain=True), at(1))
    assert step is not None
    record = step.put[NODE.key("a")]
    assert isinstance(record, NodeRecord)
    assert record.phase is Phase.LAUNCH_UNKNOWN


@pytest.mark.parametrize("phase", [Phase.BOOTING, Phase.VALIDATING])
def test_a_machine_that_was_off_while_it_booted_has_its_time_to_register_once_more(phase: Phase) -> None:
    record = settled(phase, {"call": "power-on"}, LATE)
    assert record is not None
    assert not record.powered_off
    assert lifecycle.overdue(record, at(LATE + 1), timedelta(minutes=10)) is None
    assert lifecycle.overdue(record, at(LATE + 601), timedelta(minutes=10)) is not None


def test_an_active_machine_that_boots_again_is_only_unmarked() -> None:
    record = settled(Phase.ACTIVE, {"call": "power-on"}, LATE)
    assert record is not None
    assert (record.powered_off, record.launch) == (False, node("a").record.launch)


@pytest.mark.parametrize("error", [Throttled("slow down"), Upstream("not now")])
def test_a_machine_that_cannot_be_booted_now_stays_marked_and_says_so_once(error: CloudError) -> None:
    record = settled(Phase.ACTIVE, {"call": "power-on", "error": error}, 1)
    assert record is not None
    assert record.powered_off
    assert record.reasons[-1].code == "power-on-refused"
    view = node("a", powered_off=True, reasons=record.reasons)
    assert outcomes.settle(pool(view), view, Outcome("power-on", "a", error=error), at(2)) is None


def test_a_machine_that_is_not_there_to_boot_is_left_to_the_verdict_of_health() -> None:
    record = settled(Phase.ACTIVE, {"call": "power-on", "error": NotFound("gone")}, 1)
    assert record is not None
    assert not record.powered_off


def test_the_mark_of_a_clean_stop_changes_nothing_else_but_the_reasons() -> None:
    before = node("a").record
    after = lifecycle.powered_off(before, WHY, T0)
    assert after.powered_off
    assert (after.phase, after.phase_since, after.instance) == (before.phase, before.phase_since, before.instance)
