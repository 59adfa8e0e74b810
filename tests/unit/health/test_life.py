"""Heard, silent, gone, booted again: what clears a verdict, and above all what does not."""

from __future__ import annotations

import pytest
from msgspec import structs

from navarch_common.events.kinds import NodeFailed, NodeRecovered, NodeSuspect
from navarch_common.model.health import HealthRecord
from navarch_common.model.node import Drain, NodeRecord, Phase
from navarch_health import life
from navarch_health.fold import Limits, fold_report
from navarch_health.policy import default_policy
from support.health_world import (
    BOOT,
    STATUS,
    T0,
    context,
    node,
    observation,
    record,
    registration,
    report,
    seconds,
    xid,
)


def healthy() -> HealthRecord:
    change = life.heard(record(), node(), BOOT, "ok", context())
    assert change is not None
    return change.record


def silent(at: float = 15.0) -> HealthRecord:
    change = life.fell_silent(healthy(), node(), T0, context(at), timeout_s=15)
    assert change is not None
    return change.record


def with_xid(code: int, held: HealthRecord | None = None) -> HealthRecord:
    folded = fold_report(held or healthy(), node(), report(xid(code)), default_policy().judge, Limits(), context())
    assert folded.change is not None
    return folded.change.record


def test_a_node_is_unknown_until_a_registered_agent_reports_a_driver_that_answers() -> None:
    fresh = record()
    assert fresh.status == STATUS.UNKNOWN
    assert life.heard(fresh, node(registration=None), BOOT, "ok", context()) is None, "not registered"
    assert life.heard(fresh, node(), "another-boot", "ok", context()) is None, "another boot than registered"
    change = life.heard(fresh, node(), BOOT, "ok", context())
    assert change is not None
    assert change.record.status == STATUS.HEALTHY
    assert change.class_changed
    assert change.events == ()


def test_what_another_copy_has_just_heard_is_not_contradicted_by_one_that_did_not() -> None:
    heard = life.heard(silent(), node(), BOOT, "ok", context(37))
    assert heard is not None
    assert life.fell_silent(heard.record, node(), T0, context(37), timeout_s=15) is None
    assert life.fell_silent(heard.record, node(), T0, context(51), timeout_s=15) is None
    assert life.fell_silent(heard.record, node(), T0, context(52), timeout_s=15) is not None


@pytest.mark.parametrize("state", ["missing", "hung", "unknown", "nonsense"])
def test_a_node_without_a_driver_is_never_healthy(state: str) -> None:
    change = life.heard(record(), node(), BOOT, state, context())
    assert change is not None
    assert change.record.status == STATUS.UNKNOWN
    assert "driver" in change.record.reason
    lost = life.heard(healthy(), node(), BOOT, state, context())
    assert lost is not None
    assert lost.record.status == STATUS.SUSPECT
    assert isinstance(lost.events[0], NodeSuspect)
    back = life.heard(lost.record, node(), BOOT, "ok", context())
    assert back is not None
    assert back.record.status == STATUS.HEALTHY


def test_a_heartbeat_that_tells_nothing_new_changes_nothing() -> None:
    assert life.heard(healthy(), node(), BOOT, "ok", context(99)) is None


def test_silence_makes_suspect_and_a_heartbeat_takes_it_back() -> None:
    change = life.fell_silent(healthy(), node(), T0, context(16), timeout_s=15)
    assert change is not None
    (event,) = change.events
    assert isinstance(event, NodeSuspect)
    assert (event.cause, event.silent_s) == ("silence", 16.0)
    assert change.record.silent_since == T0
    assert life.fell_silent(change.record, node(), T0, context(17), timeout_s=15) is None
    back = life.heard(change.record, node(), BOOT, "ok", context(60))
    assert back is not None
    assert back.record.status == STATUS.HEALTHY
    assert back.record.silent_since is None
    assert isinstance(back.events[0], NodeRecovered)
    assert any("heard again after 60 s" in reason.text for reason in back.record.reasons)


def test_a_heartbeat_takes_back_silence_and_nothing_else() -> None:
    condemned = with_xid(79, silent())
    change = life.heard(condemned, node(), BOOT, "ok", context(60))
    assert change is not None
    assert change.record.silent_since is None
    assert change.record.status == STATUS.UNHEALTHY
    assert change.events == ()


def test_what_failed_by_silence_stays_failed_when_it_is_heard_again() -> None:
    failed = life.silent_too_long(silent(), node(), context(315), deadline_s=300)
    assert failed is not None
    (event,) = failed.events
    assert isinstance(event, NodeFailed)
    assert (event.cause, len(event.gpus)) == ("silence", 8)
    assert not failed.record.takes_work
    assert life.heard(failed.record, node(), BOOT, "ok", context(320)) is None


def test_the_providers_word_fails_at_once_and_takes_the_work() -> None:
    change = life.gone(silent(), node(), context(17))
    assert change is not None
    (event,) = change.events
    assert isinstance(event, NodeFailed)
    assert event.cause == "provider-gone"
    assert event.evidence[0].code == "silence"
    assert change.record.takes_work
    assert life.gone(change.record, node(), context(18)) is None


@pytest.mark.parametrize("phase", [Phase.TERMINATING, Phase.TERMINATED, Phase.LAUNCH_FAILED, Phase.BOOTING])
def test_nothing_is_taken_back_from_a_machine_that_is_to_go(phase: Phase) -> None:
    assert life.heard(silent(), node(phase=phase), BOOT, "ok", context(60)) is None


REBOOTED = node(registration=registration("boot-two"))


@pytest.mark.parametrize("code", [48, 94, 95, 119, 63, 167, 4711])
def test_a_new_boot_takes_what_a_reboot_repairs_and_asks_for_a_full_pass(code: int) -> None:
    change = life.booted(with_xid(code), REBOOTED, context(60))
    assert change is not None
    assert change.record.status == STATUS.UNKNOWN
    assert change.class_changed
    assert change.record.failure_id == ""
    back = life.heard(change.record, REBOOTED, "boot-two", "ok", context(65))
    assert back is not None
    assert back.record.status == STATUS.HEALTHY
    assert any(f"xid-{code}" in reason.text for reason in back.record.reasons)


@pytest.mark.parametrize("code", [79, 64, 54])
def test_no_boot_takes_a_verdict_that_asks_for_another_machine(code: int) -> None:
    change = life.booted(with_xid(code), REBOOTED, context(60))
    assert change is not None
    assert change.record.status == STATUS.UNHEALTHY
    assert change.record.boot_id == "boot-two"
    assert change.record.failure_id == with_xid(code).failure_id
    assert life.booted(change.record, REBOOTED, context(61)) is None


@pytest.mark.parametrize(
    "leaving",
    [
        node(registration=registration("boot-two"), replaced_by="training-bbbbbbb"),
        node(
            registration=registration("boot-two"),
            drain=Drain(cause="fault", actor="provisioner", since=T0, deadline=T0),
        ),
        node(registration=registration("boot-two"), phase=Phase.TERMINATING),
    ],
    ids=["replaced", "drained", "terminating"],
)
def test_no_boot_takes_a_verdict_that_is_acted_on(leaving: NodeRecord) -> None:
    change = life.booted(with_xid(119), leaving, context(60))
    assert change is not None
    assert change.record.status == STATUS.UNHEALTHY


def test_an_agent_that_restarts_in_the_same_boot_clears_nothing() -> None:
    condemned = with_xid(119)
    again = node(registration=structs.replace(registration(), at=T0 + seconds(60)))
    assert life.booted(condemned, again, context(60)) is None
    assert life.heard(condemned, again, BOOT, "ok", context(61)) is None


def test_a_reading_goes_after_its_time_and_a_fatal_verdict_never() -> None:
    hot = report(observation(event_type="thermal", gpu_index=1, metrics={"temperature": 88}))
    folded = fold_report(healthy(), node(), hot, default_policy().judge, Limits(), context())
    assert folded.change is not None
    degraded = folded.change.record
    assert degraded.status == STATUS.DEGRADED
    assert life.calms_at(degraded) == T0 + seconds(300)
    assert life.calmed(degraded, node(), context(299)) is None
    calm = life.calmed(degraded, node(), context(300))
    assert calm is not None
    assert calm.record.status == STATUS.HEALTHY
    assert isinstance(calm.events[0], NodeRecovered)
    assert life.calmed(with_xid(79), node(), context(1e9)) is None
    assert life.calms_at(with_xid(79)) is None
