"""What a GPU's readings tell: what begins, lasts and ends, what rises, and what is not known and so tells nothing."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from navarch_agent.conditions import AGAIN
from navarch_agent.gpu import DriverState, Sample
from navarch_agent.gpu.base import Details, GpuDetail
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_agent.gpu_checks import HELD_DOWN_WINDOW, GpuChecks
from navarch_common.events import decode, encode
from navarch_common.events.messages import HealthReport, Observation
from navarch_common.model.gpu import Gpu, GpuSample

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
GPUS = (
    Gpu(index=0, uuid="GPU-0", serial="100", pci="0000:07:00", name="H100"),
    Gpu(index=1, uuid="GPU-1", serial="101", pci="0000:3b:00", name="H100"),
)
IDLE = Sample(state=DriverState.OK, gpus=(GpuSample(index=0, utilization_ratio=0.0),))
BUSY = Sample(state=DriverState.OK, gpus=(GpuSample(index=0, utilization_ratio=0.9),))


def well() -> GpuDetail:
    driver = FakeGpuDriver("training-a", random.Random(1), gpu_count=1)
    return asyncio.run(driver.details()).gpus[0]


class Seen:
    """One machine's checks, looked at once a minute."""

    def __init__(self) -> None:
        self.checks, self.at = GpuChecks(), NOW

    def reads(self, sample: Sample = IDLE, state: DriverState = DriverState.OK, **changed: object) -> list[Observation]:
        """What GPU 0 reading so tells, a minute after the look before."""
        self.at += MINUTE
        gpus = (replace(well(), **changed),) if state is DriverState.OK else ()
        return self.checks.on_details(Details(state=state, reason="stuck", gpus=gpus), sample, GPUS, self.at)


def told(observations: list[Observation]) -> list[tuple[str, object]]:
    return [(one.event_type, one.metrics.get("ended")) for one in observations]


def test_a_well_gpu_tells_nothing() -> None:
    seen = Seen()
    assert seen.reads() == []
    assert seen.reads(BUSY) == []


LASTING = {
    "remap pending": ({"remap_pending": True}, "memory", "remap_pending"),
    "remap failed": ({"remap_failed": True}, "memory", "remap_failed"),
    "retirement pending": ({"retirement_pending": True}, "memory", "retirement_pending"),
    "pages retired": ({"retired_pages": 61}, "memory", "pages_retired"),
    "uncorrectable errors": ({"ecc_uncorrected": 2}, "ecc_dbe", None),
    "a link that never came up, beside one that has": ({"nvlinks_up": 17}, "nvlink", "nvlink_down"),
    "narrow": ({"pcie_width": 8}, "pcie", "pcie_width"),
    "fabric failed": ({"fabric_status": 5}, "fabric", "fabric_not_ready"),
    "hot memory": ({"temperature_memory_c": 96.0}, "clocks", "memory_hot"),
}


@pytest.mark.parametrize("case", LASTING)
def test_a_condition_is_told_when_it_begins_once_an_hour_and_when_it_is_over(case: str) -> None:
    changed, event_type, kind = LASTING[case]
    seen = Seen()
    assert seen.reads() == []
    (began,) = seen.reads(**changed)
    assert (began.event_type, began.metrics.get("kind"), began.metrics["ended"]) == (event_type, kind, False)
    assert (began.gpu_index, began.gpu_uuid, began.gpu_serial, began.pci) == (0, "GPU-0", "100", "0000:07:00")
    assert began.source == "gpu-driver"
    assert seen.reads(**changed) == []
    seen.at += AGAIN
    assert told(seen.reads(**changed)) == [(event_type, False)]
    unknown = dict.fromkeys(changed)
    assert seen.reads(**unknown) == [], "what cannot be read is not over"
    assert told(seen.reads(retired_pages=0, retirement_pending=False)) == [(event_type, True)]
    assert seen.reads() == []


def test_what_lasts_is_told_again_where_it_may_have_been_forgotten() -> None:
    seen = Seen()
    seen.reads(remap_pending=True)
    seen.checks.tell_again()
    assert told(seen.reads(remap_pending=True)) == [("memory", False)]
    assert seen.reads(remap_pending=True) == []


def test_more_uncorrectable_errors_are_told_at_once_and_as_many_are_not() -> None:
    seen = Seen()
    assert [one.metrics["ecc_dbe_count"] for one in seen.reads(ecc_uncorrected=1)] == [1]
    assert seen.reads(ecc_uncorrected=1) == []
    (more,) = seen.reads(ecc_uncorrected=3)
    assert (more.metrics["ecc_dbe_count"], more.metrics["recovery_action"]) == (3, 0)
    assert "3 uncorrectable memory errors" in more.message
    seen = Seen()
    (undecided,) = seen.reads(ecc_uncorrected=1, recovery_action=None)
    assert "recovery_action" not in undecided.metrics, "a driver without verdicts says none"


def test_the_drivers_verdict_is_told_when_it_changes_and_when_it_is_taken_back() -> None:
    seen = Seen()
    assert seen.reads(recovery_action=0) == []
    (reset,) = seen.reads(recovery_action=1)
    assert (reset.event_type, reset.code, reset.metrics["recovery_action"]) == ("xid", 154, 1)
    assert seen.reads(recovery_action=1) == []
    assert seen.reads(recovery_action=None) == [], "a reading that fails takes nothing back"
    (reboot,) = seen.reads(recovery_action=2)
    assert "reboot" in reboot.message
    (none,) = seen.reads(recovery_action=0)
    assert none.metrics["recovery_action"] == 0
    (strange,) = Seen().reads(recovery_action=99)
    assert "no name here (99)" in strange.message


def test_corrected_errors_are_told_by_how_many_there_are_in_an_hour() -> None:
    seen = Seen()
    assert seen.reads(ecc_corrected=1_000_000) == [], "counted before we looked"
    assert seen.reads(ecc_corrected=1_000_100) == []
    (many,) = seen.reads(ecc_corrected=1_000_101)
    assert (many.event_type, many.metrics["ecc_sbe_count"]) == ("ecc_sbe", 101)
    assert seen.reads(ecc_corrected=1_000_101) == []
    seen.at += timedelta(hours=1)
    assert told(seen.reads(ecc_corrected=1_000_102)) == [("ecc_sbe", True)]
    assert seen.reads(ecc_corrected=5) == [], "a reset begins the count anew"


def test_clocks_that_the_hardware_holds_down_now_and_then_are_no_news() -> None:
    seen = Seen()
    for turn in range(60):
        assert seen.reads(throttle=0x40 if turn % 2 else 0) == []
    for _ in range(30):
        assert seen.reads(throttle=0x4 | 0x1) == [], "a power cap and idleness are ordinary"


def test_clocks_that_stay_down_are_told_of_and_end_when_they_are_free_again() -> None:
    seen = Seen()
    assert seen.reads(throttle=0x80) == []
    assert seen.reads(throttle=0x80) == []
    (braked,) = seen.reads(throttle=0x80, clock_sm_mhz=345)
    assert braked.metrics["kind"] == "hw_power_brake"
    assert "3 of 3 readings" in braked.message
    assert "345 MHz" in braked.message
    free = [one for _ in range(HELD_DOWN_WINDOW // MINUTE) for one in seen.reads()]
    assert told(free) == [("clocks", True)]


def test_a_narrow_link_counts_always_and_a_slow_one_only_under_load() -> None:
    seen = Seen()
    assert seen.reads(IDLE, pcie_generation=1) == []
    (slow,) = seen.reads(BUSY, pcie_generation=1)
    assert slow.metrics["kind"] == "pcie_generation"
    assert seen.reads(IDLE, pcie_generation=1) == [], "asleep, it proves nothing"
    assert told(seen.reads(IDLE, pcie_generation=5)) == [("pcie", True)]


def test_replays_count_by_lane_and_minute_and_generation() -> None:
    seen = Seen()
    seen.reads(pcie_replays=100)
    assert seen.reads(pcie_replays=100 + 30) == [], "1.88 per lane and minute is under the limit of generation 5"
    (many,) = seen.reads(pcie_replays=130 + 31)
    assert many.metrics["kind"] == "pcie_replays"
    assert told(seen.reads(pcie_replays=161)) == [("pcie", True)]
    assert seen.reads(pcie_replays=3) == [], "a reset begins the count anew"


def test_link_errors_are_told_by_how_many_came_since_the_last_reading() -> None:
    seen = Seen()
    assert seen.reads(nvlink_errors=40) == []
    (errors,) = seen.reads(nvlink_errors=42)
    assert (errors.metrics["kind"], errors.metrics["errors"]) == ("nvlink_errors", 2)
    assert "ended" not in errors.metrics
    assert seen.reads(nvlink_errors=42) == []


def test_a_gpu_whose_peers_have_more_links_up_has_lost_some() -> None:
    checks = GpuChecks()
    whole, lame = well(), replace(well(), index=1, nvlinks_up=16)
    (down,) = checks.on_details(Details(state=DriverState.OK, gpus=(whole, lame)), IDLE, GPUS, NOW)
    assert (down.gpu_index, down.metrics["up"], down.metrics["of"]) == (1, 16, 18)


def test_a_fabric_that_comes_up_has_its_time() -> None:
    seen = Seen()
    for _ in range(10):
        assert seen.reads(fabric_state=2) == []
    (late,) = seen.reads(fabric_state=2)
    assert late.metrics["kind"] == "fabric_not_ready"
    assert told(seen.reads(fabric_state=3)) == [("fabric", True)]
    assert seen.reads(fabric_state=0, fabric_status=9) == [], "no fabric, no failure of one"


def test_a_lost_gpu_is_told_with_the_first_reading_and_only_once() -> None:
    checks = GpuChecks()
    lost = Sample(state=DriverState.OK, gpus=(GpuSample(index=1),), lost=(1,))
    (gone,) = checks.on_sample(lost, GPUS, NOW)
    assert (gone.event_type, gone.metrics["kind"], gone.gpu_uuid) == ("driver_error", "gpu_lost", "GPU-1")
    assert checks.on_sample(lost, GPUS, NOW) == []
    assert (
        checks.on_details(Details(state=DriverState.OK, gpus=(GpuDetail(index=1, lost=True),)), lost, GPUS, NOW) == []
    )
    assert checks.on_sample(Sample(state=DriverState.OK), GPUS, NOW) == [], "nothing but a reset finds it again"


@pytest.mark.parametrize("state", [DriverState.MISSING, DriverState.HUNG, DriverState.UNKNOWN])
def test_a_driver_that_does_not_answer_loses_no_gpu_and_ends_nothing(state: DriverState) -> None:
    seen = Seen()
    seen.reads(remap_failed=True)
    assert seen.checks.on_sample(Sample(state=state, lost=(0, 1)), GPUS, NOW) == []
    assert [one.metrics["kind"] for one in seen.reads(state=state)] == (["nvml_hangs"] * (state is DriverState.HUNG))
    assert seen.reads(state=state) == []
    after = seen.reads(remap_failed=True)
    assert told(after) == [("driver_error", True)] * (state is DriverState.HUNG)


def test_a_gpu_that_could_not_be_named_is_not_told_of() -> None:
    details = Details(state=DriverState.OK, gpus=(GpuDetail(index=7, remap_failed=True),))
    assert GpuChecks().on_details(details, IDLE, GPUS, NOW) == []


numbers = st.none() | st.integers(0, 2**53 - 1)
flags = st.none() | st.booleans()
degrees = st.none() | st.floats(-100, 300)
DETAILS = st.builds(
    GpuDetail, index=st.just(0), lost=st.booleans(), recovery_action=numbers, ecc_corrected=numbers,
    ecc_uncorrected=numbers, remap_pending=flags, remap_failed=flags, retired_pages=numbers, retirement_pending=flags,
    temperature_memory_c=degrees, memory_max_c=degrees, throttle=numbers, clock_sm_mhz=numbers, nvlinks_up=numbers,
    nvlink_errors=numbers, pcie_generation=numbers, pcie_generation_max=numbers, pcie_width=numbers,
    pcie_width_max=numbers, pcie_replays=numbers, fabric_state=numbers, fabric_status=numbers,
)  # fmt: skip


@given(st.lists(st.tuples(DETAILS, st.integers(0, 7200)), max_size=8))
def test_whatever_a_driver_reads_can_be_reported(readings: list[tuple[GpuDetail, int]]) -> None:
    checks, at = GpuChecks(), NOW
    for detail, later_s in readings:
        at += timedelta(seconds=later_s)
        for one in checks.on_details(Details(state=DriverState.OK, gpus=(detail,)), BUSY, GPUS, at):
            report = HealthReport(
                node="a", pool="training", generation=1, boot_id="b", sequence=1, at=at, observations=(one,)
            )
            assert decode(encode(report), HealthReport) == report
