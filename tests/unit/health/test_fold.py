"""Reports become verdicts: the worst wins, order and repetition do not matter, applications condemn nobody."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from navarch_common.events.kinds import NodeDegraded, NodeFailed, NodeRecovered
from navarch_common.events.messages import HealthReport
from navarch_common.model.health import HEALTH, HealthRecord
from navarch_common.model.node import Drain, NodeRecord, Phase
from navarch_health.fold import Folded, Limits, fold_report
from navarch_health.life import heard
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

LIMITS = Limits()


def fold(before: HealthRecord, said: HealthReport, of: NodeRecord | None = None, at: float = 1.0) -> Folded:
    return fold_report(
        before,
        of or node(),
        said,
        default_policy().judge,
        LIMITS,
        context(at, "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),
    )


def after(before: HealthRecord, *reports: HealthReport, of: NodeRecord | None = None) -> HealthRecord:
    for said in reports:
        change = fold(before, said, of).change
        before = before if change is None else change.record
    return before


def healthy(of: NodeRecord | None = None) -> HealthRecord:
    change = heard(record(of), of or node(), BOOT, "ok", context())
    assert change is not None
    assert change.record.status == STATUS.HEALTHY
    return change.record


def test_a_gpu_off_the_bus_fails_the_node_and_the_event_says_everything() -> None:
    line = xid(79, 0.5, message="pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
    change = fold(healthy(), report(line)).change
    assert change is not None
    assert change.class_changed
    (event,) = change.events
    assert isinstance(event, NodeFailed)
    assert (event.cause, event.rule, event.action, event.entity) == (
        "xid-79",
        "gpu-fell-off-the-bus",
        "drain_and_replace",
        "gpu:GPU-3",
    )
    assert [(g.index, g.uuid, g.serial, g.pci) for g in event.gpus] == [(3, "GPU-3", "S3", "0000:3b:00")]
    assert (event.hostname, event.addresses, event.provider, event.region) == (
        "machine-1",
        ("10.0.0.1",),
        "local",
        "here",
    )
    assert (event.instance_id, event.provider_id, event.generation) == (
        "i-training-aaaaaaa",
        "navarch://test/training-aaaaaaa",
        1,
    )
    assert event.trace_id == "a" * 32
    assert event.evidence[0].text.endswith("GPU has fallen off the bus.")
    verdict = change.record
    assert verdict.status == STATUS.UNHEALTHY
    assert verdict.takes_work
    assert verdict.failure_id == event.failure_id
    assert len(event.failure_id) == 32
    assert "Xid 79" in verdict.reason
    assert "GPU 3 (0000:3b:00)" in verdict.reason
    assert HEALTH.decode(HEALTH.encode(verdict)) == verdict


def test_an_xid_for_an_unknown_pci_address_is_judged_all_the_same() -> None:
    change = fold(healthy(), report(xid(79, pci="0008:01:00"))).change
    assert change is not None
    assert change.record.status == STATUS.UNHEALTHY
    assert "not in the node's inventory" in change.record.reason
    assert "gpu:0008:01:00" in change.record.entities


def test_the_same_report_again_says_nothing_new() -> None:
    failed = after(healthy(), report(xid(79)))
    assert fold(failed, report(xid(79)), at=30.0).change is None


@pytest.mark.parametrize("code", [13, 31, 43, 45, 8, 68])
def test_application_faults_never_condemn_however_many(code: int) -> None:
    held = healthy()
    for sequence in range(1, 60):
        held = after(held, report(*(xid(code, sequence * 60 + n) for n in range(20)), sequence=sequence))
    assert held.status == STATUS.HEALTHY
    assert held.entities.keys() == {"agent"}
    assert any(e.code == f"xid-{code}" and e.count > 50 for e in held.episodes), "and they are counted"
    assert any(f"xid-{code}" == reason.code for reason in held.reasons), "and told"


def test_a_further_fault_of_a_failed_node_is_the_same_failure() -> None:
    failed = after(healthy(), report(xid(119)))
    change = fold(failed, report(xid(79), sequence=2)).change
    assert change is not None
    assert change.events == ()
    assert not change.class_changed
    assert change.record.failure_id == failed.failure_id
    assert change.record.failed_at == failed.failed_at
    assert (change.record.code, change.record.action, change.record.takes_work) == ("xid-79", "drain_and_replace", True)


def test_an_unlisted_code_is_shown_and_degrades_at_most() -> None:
    change = fold(healthy(), report(xid(4711))).change
    assert change is not None
    (event,) = change.events
    assert isinstance(event, NodeDegraded)
    assert (event.rule, event.action) == ("unclassified", "none")
    assert "unlisted Xid" in change.record.reason


def none_word(sequence: int, at: float = 1.0) -> HealthReport:
    said = "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    return report(xid(154, at, message=said), sequence=sequence)


def reset_word(sequence: int, at: float = 0.0) -> HealthReport:
    said = "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)"
    return report(xid(154, at, message=said), sequence=sequence)


def test_the_driver_takes_back_its_own_verdict() -> None:
    condemned = after(healthy(), reset_word(1))
    assert condemned.status == STATUS.UNHEALTHY
    change = fold(condemned, none_word(2)).change
    assert change is not None
    assert change.record.status == STATUS.HEALTHY
    assert isinstance(change.events[0], NodeRecovered)
    assert change.record.failure_id == ""


def test_the_driver_takes_back_nothing_but_its_own() -> None:
    held = after(healthy(), report(xid(48), sequence=1), reset_word(2), none_word(3))
    assert held.status == STATUS.UNHEALTHY
    assert held.code == "xid-48"


def test_the_drivers_newest_word_holds_in_whatever_order_it_comes() -> None:
    in_order = after(healthy(), reset_word(1), none_word(2))
    overtaken = after(healthy(), none_word(2), reset_word(1))
    assert in_order.status == overtaken.status == STATUS.HEALTHY


def test_a_failure_that_is_acted_on_is_not_taken_back() -> None:
    condemned = after(healthy(), reset_word(1))
    leaving = node(phase=Phase.DRAINING, drain=Drain(cause="fault", actor="provisioner", since=T0, deadline=T0))
    assert after(condemned, none_word(2), of=leaving).status == STATUS.UNHEALTHY


def thermal(sequence: int, at: float, celsius: float = 99.0) -> HealthReport:
    said = observation(at, event_type="thermal", gpu_index=2, metrics={"temperature": celsius}, source="nvml")
    return report(said, sequence=sequence)


def test_a_polled_check_condemns_only_by_readings_in_a_row() -> None:
    once = after(healthy(), thermal(1, 0))
    assert once.status == STATUS.DEGRADED
    assert "reading 1 of 2" in once.reason
    twice = after(once, thermal(2, 60))
    assert (twice.status, twice.code) == (STATUS.UNHEALTHY, "thermal")


@pytest.mark.parametrize(
    "between",
    [
        pytest.param([(60, 70.0)], id="a calm reading"),
        pytest.param([(60, 88.0)], id="a warning"),
        pytest.param([], id="a long pause"),
    ],
)
def test_a_row_of_readings_is_broken(between: list[tuple[float, float]]) -> None:
    readings = [(0.0, 99.0), *between, (600.0, 99.0)]
    held = after(healthy(), *(thermal(n, at, celsius) for n, (at, celsius) in enumerate(readings, start=1)))
    assert held.status == STATUS.DEGRADED


def test_the_same_reading_again_is_not_a_second_one() -> None:
    once = after(healthy(), thermal(1, 0))
    assert fold(once, thermal(1, 0)).change is None


def test_what_a_reboot_has_repaired_since_is_only_noted() -> None:
    before = structs.replace(healthy(), boot_id="boot-two", sequences={BOOT: 3, "boot-two": 0})
    rebooted = node(registration=registration("boot-two"))
    assert after(before, report(xid(119), sequence=4), of=rebooted).status == STATUS.HEALTHY
    assert after(before, report(xid(64), sequence=4), of=rebooted).status == STATUS.UNHEALTHY


def test_absurd_times_and_names_harm_nobody() -> None:
    wild = report(
        xid(31, message="\x1b[2J" * 300),
        structs.replace(xid(31), at=datetime.max.replace(tzinfo=UTC)),
        structs.replace(xid(31), at=datetime(1, 1, 1)),  # noqa: DTZ001
        observation(event_type="kernel", metrics={"kind": "Über\n" * 50}),
        observation(event_type="xid", metrics={"xid_code": 10**30}),
        observation(event_type="thermal", metrics={"temperature": float("nan")}),
    )
    change = fold(healthy(), wild).change
    assert change is not None
    encoded = HEALTH.encode(change.record)
    assert HEALTH.decode(encoded).status == STATUS.HEALTHY
    assert b"\\u001b" not in encoded


def test_a_flood_of_invented_devices_is_bounded_and_still_stored() -> None:
    held = healthy()
    for sequence in range(1, 20):
        lines = (xid(79, n, pci=f"{sequence:04x}:{n:02x}:00") for n in range(60))
        held = after(held, report(*lines, sequence=sequence))
    assert len(held.entities) <= 512
    assert HEALTH.decode(HEALTH.encode(held)).status == STATUS.UNHEALTHY


def essence(held: HealthRecord) -> Any:
    return (
        held.status,
        held.action,
        held.code,
        held.takes_work,
        held.episodes,
        {key: (v.status, v.action, v.code, v.rule, v.takes_work, v.evidence) for key, v in held.entities.items()},
        held.sequences,
    )


REPORTS = st.lists(
    st.tuples(st.sampled_from([13, 43, 48, 63, 79, 94, 119, 4711]), st.sampled_from(["0000:3b:00", "0000:39:00", "0008:00:00"]), st.integers(0, 40)),
    min_size=1,
    max_size=7,
)  # fmt: skip


@given(REPORTS, st.randoms(use_true_random=False), st.lists(st.integers(0, 6), max_size=4))
def test_reports_may_come_in_any_order_and_more_than_once(
    seen: list[tuple[int, str, int]], rng: random.Random, repeats: list[int]
) -> None:
    reports = [report(xid(code, at, pci=pci), sequence=n) for n, (code, pci, at) in enumerate(seen, start=1)]
    shuffled = [*reports, *(reports[n] for n in repeats if n < len(reports))]
    rng.shuffle(shuffled)
    assert essence(after(healthy(), *shuffled)) == essence(after(healthy(), *reports))


def test_evidence_is_bounded_and_keeps_what_condemned() -> None:
    held = after(healthy(), report(xid(79, 0), sequence=1))
    for sequence in range(2, 40):
        held = after(held, report(xid(63, 60 * sequence), sequence=sequence))
    evidence = held.entities["gpu:GPU-3"].evidence
    assert len(evidence) == 16
    assert evidence[0].code == "xid-79"


def test_failures_have_ids_of_their_own_and_every_copy_finds_the_same() -> None:
    one = after(healthy(), report(xid(79), sequence=1))
    again = after(healthy(), report(xid(79), sequence=1))
    later = after(healthy(), report(xid(79), sequence=9))
    assert one.failure_id == again.failure_id != later.failure_id
    assert seconds(1)
