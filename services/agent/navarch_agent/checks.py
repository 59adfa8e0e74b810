"""What was seen, as observations for the health policy to judge. Pure: kernel lines and readings in, observations out.

The agent judges nothing. It leaves out what tells of no fault, and thins out what repeats itself, so that a machine
that prints ten thousand lines a second does not drown its own news.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime, timedelta
from enum import IntEnum

from navarch_agent.gpu.base import Sample
from navarch_agent.log.base import KernelRecord
from navarch_common.events.messages import REJECTED, Observation
from navarch_common.model.gpu import Gpu
from navarch_common.xid import KernelFault

MESSAGE_LENGTH_MAX = 2048
SEQUENCE_MAX = 2**53

HOT_C = 85.0
"""From here on a temperature is reported with every health check: where the usual policies begin to warn."""
COOL_C = 82.0
"""Below it a hot GPU counts as cool again, and is reported once more, so that its judge hears of it."""

_DRIVER_ERRORS = frozenset({"gpu_lost", "gpu_lost_probe", "rm_init_failed", "gsp_boot_failed"})
_NO_FAULT = frozenset({"sxid_detail", "gpu_identity", "gpu_serial", "gpu_probe_head", "nfs_ok"})
"""Known lines that tell of no fault of their own: second rows, and who is who."""


class Importance(IntEnum):
    """What goes first when a spool is full: the lowest."""

    NOTE = 0
    READING = 1
    FAULT = 2
    LIFECYCLE = 3


def from_kernel(
    fault: KernelFault, record: KernelRecord, gpus: tuple[Gpu, ...], source: str = "kernel-log"
) -> Observation | None:
    """Return what `record`, parsed as `fault`, tells a policy; None where it tells of no fault of its own.

    A PCI id that is none of `gpus` is reported all the same.
    """
    if fault.kind in _NO_FAULT:
        return None
    gpu = next((gpu for gpu in gpus if gpu.pci == fault.pci), None) if fault.pci else None
    event_type, system = _vocabulary(fault)
    return Observation(
        at=record.at,
        event_type=event_type,
        system=system,
        code=fault.code,
        pci=fault.pci or "",
        gpu_index=-1 if gpu is None else gpu.index,
        gpu_uuid="" if gpu is None else gpu.uuid,
        gpu_serial="" if gpu is None else gpu.serial,
        gpu_instance="" if fault.gpu_instance is None else str(fault.gpu_instance),
        message=fault.message[:MESSAGE_LENGTH_MAX],
        metrics=_metrics(fault),
        source=source,
        kernel_sequence=min(record.sequence, SEQUENCE_MAX),
    )


def importance(observation: Observation) -> Importance:
    """Rank an observation for the spool."""
    if observation.event_type in ("xid", "sxid", "driver_error"):
        return Importance.FAULT
    return Importance.NOTE if observation.event_type in ("kernel", REJECTED) else Importance.READING


def rejected(subject: str, error: str, count: int, at: datetime) -> Observation:
    """Messages to this agent that could not be used and were dropped: health tells of them, and judges nobody by them."""
    message = f"{subject[:200]}: {error}"[:1000]
    return Observation(at=at, event_type=REJECTED, source="bus", message=message, metrics={"count": count})


def heat(
    sample: Sample, hot: frozenset[int], gpus: tuple[Gpu, ...], at: datetime
) -> tuple[tuple[Observation, ...], frozenset[int]]:
    """Return an observation for each GPU that is hot or has just cooled down, and which are hot now.

    A GPU that could not be read stays as it was: unknown is not cool.
    """
    observations, now_hot = [], set(hot)
    for reading in sample.gpus:
        if reading.temperature_c is None:
            continue
        was_hot = reading.index in hot
        if reading.temperature_c >= (COOL_C if was_hot else HOT_C):
            now_hot.add(reading.index)
        elif was_hot:
            now_hot.discard(reading.index)
        else:
            continue
        observations.append(_thermal(reading.index, reading.temperature_c, gpus, at))
    return tuple(observations), frozenset(now_hot)


def kernel_log_unavailable(reason: str, at: datetime) -> Observation:
    """Say that the kernel's log cannot be read: what it would have told is unknown."""
    return Observation(
        at=at,
        event_type="kernel",
        message=reason[:MESSAGE_LENGTH_MAX],
        metrics={"kind": "kernel_log_unavailable"},
        source="agent",
    )


class Damper:
    """Thins out what repeats itself: of one kind of thing, `FAULT_BURST` in 5 s, or `NOTE_BURST` in a minute.

    Nothing is ever silenced wholly, and what was left out is counted on the next one that passes.
    """

    FAULT_BURST, FAULT_WINDOW = 10, timedelta(seconds=5)
    NOTE_BURST, NOTE_WINDOW = 3, timedelta(seconds=60)
    KEYS_MAX = 512

    def __init__(self) -> None:
        self._windows: dict[Hashable, tuple[datetime, int]] = {}

    def admit(self, fault: KernelFault, at: datetime) -> int | None:
        """Return how many of the same kind were left out before this one, or None where this one is left out too."""
        key = _kind_of_thing(fault)
        known = fault.code is not None or fault.kind in _DRIVER_ERRORS
        burst, window = (self.FAULT_BURST, self.FAULT_WINDOW) if known else (self.NOTE_BURST, self.NOTE_WINDOW)
        since, count = self._windows.pop(key, (at, 0))
        left_out = 0
        if not since <= at < since + window:
            left_out, since, count = max(count - burst, 0), at, 0
        while len(self._windows) >= self.KEYS_MAX:
            self._windows.pop(next(iter(self._windows)))
        self._windows[key] = (since, count + 1)
        return left_out if count < burst else None


def _kind_of_thing(fault: KernelFault) -> Hashable:
    """Tell faults apart by all that a judge would: a new recovery action is always news."""
    return (
        fault.kind,
        fault.code,
        fault.pci,
        fault.gpu_instance,
        fault.recovery_action,
        fault.reset_required,
        fault.drain_and_reset_required,
        fault.fatal,
        fault.link,
        fault.previous_xid,
    )


def _vocabulary(fault: KernelFault) -> tuple[str, str]:
    if fault.kind == "xid":
        return "xid", "DCGM_HEALTH_WATCH_DRIVER"
    if fault.kind == "sxid":
        return "sxid", "DCGM_HEALTH_WATCH_NVSWITCH"
    if fault.kind in _DRIVER_ERRORS:
        return "driver_error", "DCGM_HEALTH_WATCH_DRIVER"
    return "kernel", ""


def _metrics(fault: KernelFault) -> dict[str, float | int | str | bool]:
    """Everything that the line said beside its message, by the names that policies use."""
    said: dict[str, float | int | str | bool | None] = {
        "kind": fault.kind,
        "xid_code": fault.code if fault.kind == "xid" else None,
        "sxid_code": fault.code if fault.kind == "sxid" else None,
        "compute_instance": fault.compute_instance,
        "pid": fault.pid,
        "process_name": fault.process_name,
        "previous_xid": fault.previous_xid,
        "recovery_action": fault.recovery_action,
        "reset_required": fault.reset_required,
        "drain_and_reset_required": fault.drain_and_reset_required,
        "fatal": fault.fatal,
        "link_id": fault.link,
        "truncated": fault.truncated or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _thermal(index: int, temperature_c: float, gpus: tuple[Gpu, ...], at: datetime) -> Observation:
    gpu = next((gpu for gpu in gpus if gpu.index == index), Gpu(index=index))
    return Observation(
        at=at,
        event_type="thermal",
        system="DCGM_HEALTH_WATCH_THERMAL",
        pci=gpu.pci,
        gpu_index=index,
        gpu_uuid=gpu.uuid,
        gpu_serial=gpu.serial,
        message=f"GPU {index} is at {temperature_c:g} degrees Celsius",
        metrics={"temperature": temperature_c},
        source="gpu-driver",
    )
