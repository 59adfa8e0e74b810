"""What an agent makes of kernel lines and readings: observations that a policy can judge, and no flood of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from navarch_agent.checks import (
    Damper,
    Importance,
    from_kernel,
    heat,
    importance,
    kernel_log_unavailable,
)
from navarch_agent.gpu import DriverState, Sample
from navarch_agent.log import KernelRecord
from navarch_common.events import decode, encode
from navarch_common.events.messages import HealthReport, Observation
from navarch_common.model.gpu import Gpu, GpuSample
from navarch_common.xid import KernelFault, parse_line

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GPUS = (
    Gpu(index=0, uuid="GPU-0", serial="100", pci="0000:07:00"),
    Gpu(index=3, uuid="GPU-3", serial="103", pci="0000:3b:00"),
)
LOST = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def record(text: str, sequence: int = 7) -> KernelRecord:
    return KernelRecord(sequence=sequence, at=NOW, text=text, boot_id="boot", place=f"boot/{sequence}")


def fault(text: str) -> KernelFault:
    parsed = parse_line(text)
    assert parsed is not None, text
    return parsed


def observed(text: str) -> Observation:
    observation = from_kernel(fault(text), record(text), GPUS)
    assert observation is not None, text
    return observation


def test_an_xid_names_its_gpu() -> None:
    observation = observed(LOST)
    assert (observation.event_type, observation.code, observation.pci) == ("xid", 79, "0000:3b:00")
    assert (observation.gpu_index, observation.gpu_uuid, observation.gpu_serial) == (3, "GPU-3", "103")
    assert observation.metrics["xid_code"] == 79
    assert observation.system == "DCGM_HEALTH_WATCH_DRIVER"
    assert observation.at == NOW


def test_an_xid_of_a_gpu_that_nobody_knows_is_reported_all_the_same() -> None:
    observation = observed(LOST.replace("3b", "ff"))
    assert (observation.code, observation.pci, observation.gpu_index, observation.gpu_uuid) == (
        79,
        "0000:ff:00",
        -1,
        "",
    )


@pytest.mark.parametrize(
    ("line", "event_type", "metric", "value"),
    [
        ("NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 94, pid=7, Contained. RST: No, D-RST: Yes", "xid",
         "drain_and_reset_required", True),
        ("NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x1 (Reset) to 0x0 (None)", "xid",
         "recovery_action", 0),
        ("NVRM: Xid (PCI:0000:3b:00): 45, pid=1, name=p, Ch 1 caused by previous Xid 149", "xid", "previous_xid", 149),
        ("nvidia-nvswitch0: SXid (PCI:0000:86:00.0): 20034, Fatal, Link 30 LTSSM Fault Up", "sxid", "fatal", True),
        ("nvidia-nvswitch0: SXid (PCI:0000:86:00.0): 20034, Fatal, Link 30 LTSSM Fault Up", "sxid", "sxid_code", 20034),
        ("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.", "driver_error", "kind", "gpu_lost"),
        ("EXT4-fs (md0): Remounting filesystem read-only", "kernel", "kind", "fs_readonly"),
    ],
)  # fmt: skip
def test_what_a_line_says_reaches_the_policy(line: str, event_type: str, metric: str, value: object) -> None:
    observation = observed(line)
    assert observation.event_type == event_type
    assert observation.metrics[metric] == value


@pytest.mark.parametrize(
    "line",
    [
        "nvidia-nvswitch2: SXid (PCI:0000:07:00.0): 20034, Severity 1 Engine instance 60 Sub-engine instance 00",
        "NVRM: GPU Board Serial Number: 1650124014249",
        "NVRM: GPU at PCI:0000:9b:00: GPU-509665ad-b600-ac93-3616-d754b23d636d",
        "nfs: server 7.247.192.16 OK",
    ],
)
def test_a_line_that_tells_of_no_fault_of_its_own_is_no_observation(line: str) -> None:
    assert from_kernel(fault(line), record(line), GPUS) is None


def test_the_longest_line_still_makes_a_report_that_can_be_read() -> None:
    text = f"NVRM: Xid (PCI:0000:3b:00): 79, pid={'9' * 10}, name={'n' * 15}, " + "\x1b" * 8000
    observation = from_kernel(fault(text), record(text, sequence=2**60), GPUS)
    assert observation is not None
    report = HealthReport(
        node="a", pool="p", generation=1, boot_id="b", sequence=1, at=NOW, observations=(observation,), trace=""
    )
    again = decode(encode(report), HealthReport)
    assert again.observations[0].metrics["truncated"] is True


@pytest.mark.parametrize(
    ("line", "rank"),
    [(LOST, Importance.FAULT), ("EXT4-fs (md0): Remounting filesystem read-only", Importance.NOTE)],
)
def test_a_fault_of_a_gpu_outranks_a_note_of_the_kernel(line: str, rank: Importance) -> None:
    assert importance(observed(line)) is rank


def test_a_log_that_cannot_be_read_is_an_observation() -> None:
    observation = kernel_log_unavailable("permission denied", NOW)
    assert observation.metrics["kind"] == "kernel_log_unavailable"
    assert importance(observation) is Importance.NOTE


# Heat.


def sample(**temperatures: float | None) -> Sample:
    readings = tuple(GpuSample(index=int(name[1:]), temperature_c=value) for name, value in temperatures.items())
    return Sample(state=DriverState.OK, gpus=readings)


@pytest.mark.parametrize(
    ("hot", "reading", "reported", "now_hot"),
    [
        (set(), 84.9, False, set()),
        (set(), 85.0, True, {3}),
        ({3}, 90.0, True, {3}),
        ({3}, 83.0, True, {3}),
        ({3}, 81.9, True, set()),
        ({3}, None, False, {3}),
        (set(), None, False, set()),
    ],
)
def test_heat_is_reported_from_85_degrees_until_it_is_over(
    hot: set[int], reading: float | None, reported: bool, now_hot: set[int]
) -> None:
    observations, hot_after = heat(sample(g3=reading), frozenset(hot), GPUS, NOW)
    assert hot_after == now_hot
    assert [(found.gpu_uuid, found.metrics["temperature"]) for found in observations] == (
        [("GPU-3", reading)] if reported else []
    )


# The damper.


def test_a_storm_of_the_same_line_is_thinned_out_and_counted() -> None:
    damper, xid = Damper(), fault(LOST)
    passed = [damper.admit(xid, NOW + timedelta(milliseconds=number)) for number in range(1000)]
    assert passed == [0] * 10 + [None] * 990
    assert damper.admit(xid, NOW + timedelta(seconds=6)) == 990
    assert damper.admit(xid, NOW + timedelta(seconds=7)) == 0


def test_another_gpu_and_another_verdict_are_news_in_any_storm() -> None:
    damper = Damper()
    for number in range(100):
        damper.admit(fault(LOST), NOW + timedelta(milliseconds=number))
    assert damper.admit(fault(LOST.replace("3b", "5e")), NOW) == 0
    action = "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x0 (None) to 0x{} (X)"
    assert damper.admit(fault(action.format(1)), NOW) == 0
    assert damper.admit(fault(action.format(2)), NOW) == 0


def test_a_storm_of_many_kinds_takes_bounded_memory() -> None:
    damper = Damper()
    for number in range(5000):
        damper.admit(fault(LOST.replace("0000:3b", f"{number:04x}:3b")), NOW)
    assert len(damper._windows) <= Damper.KEYS_MAX


def test_a_clock_that_goes_back_silences_nothing() -> None:
    damper, xid = Damper(), fault(LOST)
    for _ in range(20):
        damper.admit(xid, NOW)
    assert damper.admit(xid, NOW - timedelta(hours=1)) == 10
