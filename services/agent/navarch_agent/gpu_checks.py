"""What a GPU driver's readings tell a policy. Pure: readings in, observations out; this keeps what it saw before.

Figures that only rise (errors, replays) tell by how much they rose; what lasts is followed until it is over. Limits and
their sources stand beside them. Nothing is judged here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from navarch_agent.conditions import Conditions, Figures
from navarch_agent.gpu.base import Details, DriverState, GpuDetail, Sample
from navarch_common.events.messages import Observation
from navarch_common.model.gpu import Gpu

HELD_DOWN: Final = {0x8: "hw_slowdown", 0x40: "hw_thermal_slowdown", 0x80: "hw_power_brake"}
"""NVML's bits for what the hardware itself does to the clocks; the others (idle, power cap, settings) are ordinary."""
HELD_DOWN_WINDOW: Final = timedelta(minutes=10)
HELD_DOWN_RATIO: Final = 0.6
"""In so many of the readings of the window, as gpud has it; and in three at least."""
ECC_CORRECTED_WINDOW: Final = timedelta(hours=1)
ECC_CORRECTED_MANY: Final = 100
PAGES_RETIRED_MANY: Final = 60
"""Of the 64 that a GPU before Ampere can retire; DCGM fails one at 63."""
FABRIC_PATIENCE: Final = timedelta(minutes=10)
"""So long a fabric may take to come up."""
REPLAYS_PER_LANE_MINUTE: Final = {1: 0.15, 2: 0.3, 3: 0.48, 4: 0.96, 5: 1.92, 6: 3.84}
"""By PCIe generation; those of DCGM, which grow with the rate."""
BUSY_RATIO: Final = 0.2
"""From this utilization on a PCIe link should have left its sleep."""
FABRIC_COMPLETED: Final = 3
RECOVERY: Final = {
    0: "none",
    1: "reset of the GPU",
    2: "reboot of the node",
    3: "drain of its peers",
    4: "drain and reset",
    5: "recovery of the IMEX domain",
    6: "reset of its bus",
    7: "reboot of the system",
}
"""The driver's verdicts, in the numbers that Xid 154 prints too."""
_SYSTEMS: Final = {
    "memory": "DCGM_HEALTH_WATCH_MEM",
    "ecc_dbe": "DCGM_HEALTH_WATCH_MEM",
    "ecc_sbe": "DCGM_HEALTH_WATCH_MEM",
    "nvlink": "DCGM_HEALTH_WATCH_NVLINK",
    "pcie": "DCGM_HEALTH_WATCH_PCIE",
    "clocks": "DCGM_HEALTH_WATCH_THERMAL",
    "xid": "DCGM_HEALTH_WATCH_DRIVER",
    "driver_error": "DCGM_HEALTH_WATCH_DRIVER",
}


class GpuChecks:
    """Follows the GPUs of one machine through one life of the agent."""

    def __init__(self) -> None:
        self._conditions = Conditions()
        self._before: dict[str, tuple[datetime, GpuDetail]] = {}
        """By GPU, its last details that were read."""
        self._corrected: dict[str, deque[tuple[datetime, int]]] = {}
        """By GPU, when how many corrected errors were counted, newest last."""
        self._held_down: dict[str, deque[tuple[datetime, int]]] = {}
        self._links: dict[str, int] = {}
        """By make, the most links that any GPU had up at once."""
        self._fabric_since: dict[str, datetime] = {}

    def tell_again(self) -> None:
        """What lasts is told again with the next look."""
        self._conditions.tell_again()

    def on_sample(self, sample: Sample, gpus: tuple[Gpu, ...], at: datetime) -> list[Observation]:
        """What a heartbeat's readings tell: which GPUs are lost. A driver that does not answer tells nothing of them."""
        if sample.state is not DriverState.OK:
            return []
        return [seen for gpu in gpus if gpu.index in sample.lost for seen in self._lost(gpu, at)]

    def on_details(self, details: Details, sample: Sample, gpus: tuple[Gpu, ...], at: datetime) -> list[Observation]:
        """What a thorough reading tells."""
        stuck = details.state is DriverState.HUNG
        told = self._conditions.follow(
            ("", "nvml_hangs"),
            None if details.state in (DriverState.MISSING, DriverState.UNKNOWN) else stuck,
            at,
            lambda message, metrics: _observation("driver_error", None, at, message, {**metrics, "kind": "nvml_hangs"}),
            f"the driver hangs: {details.reason}" if stuck else "the driver hangs",
        )
        busy = {one.index: one.utilization_ratio or 0.0 for one in sample.gpus}
        for detail in details.gpus:
            gpu = next((one for one in gpus if one.index == detail.index), None)
            if gpu is not None:
                told += self._of(gpu, detail, busy.get(gpu.index, 0.0), at)
        return told

    def _of(self, gpu: Gpu, detail: GpuDetail, busy: float, at: datetime) -> Iterator[Observation]:
        if detail.lost:
            yield from self._lost(gpu, at)
            return
        known = self._before.get(_key(gpu))
        self._before[_key(gpu)] = (at, detail)
        before = None if known is None else known[1]
        yield from self._recovery(gpu, detail, before, at)
        yield from self._memory(gpu, detail, before, at)
        yield from self._clocks(gpu, detail, at)
        yield from self._nvlinks(gpu, detail, before, at)
        if known is not None:
            yield from self._pcie_replays(gpu, detail, *known, at)
        yield from self._pcie(gpu, detail, busy, at)
        yield from self._fabric(gpu, detail, at)

    def _lost(self, gpu: Gpu, at: datetime) -> list[Observation]:
        """It is never found again by itself: a GPU that comes back after this has been reset, or the machine booted."""
        return self._follow(gpu, "driver_error", "gpu_lost", True, at, "the driver has lost the GPU")

    def _recovery(self, gpu: Gpu, detail: GpuDetail, before: GpuDetail | None, at: datetime) -> Iterator[Observation]:
        """The driver's own verdict, as if the kernel had printed its Xid 154: whoever misses the line still hears of it."""
        action = detail.recovery_action
        if action is None or action == (0 if before is None else before.recovery_action):
            return
        asks = RECOVERY.get(action, f"an action that has no name here ({action})")
        figures = {"recovery_action": action, "xid_code": 154}
        yield _observation("xid", gpu, at, f"the driver's recovery action is now {action}: {asks}", figures, code=154)

    def _memory(self, gpu: Gpu, detail: GpuDetail, before: GpuDetail | None, at: datetime) -> Iterator[Observation]:
        wrong = detail.ecc_uncorrected
        figures: dict[str, float | int | str | bool] = {"ecc_dbe_count": wrong or 0}
        if detail.recovery_action is not None:
            figures["recovery_action"] = detail.recovery_action
        yield from self._follow(
            gpu, "ecc_dbe", "", None if wrong is None else wrong > 0, at,
            f"{wrong} uncorrectable memory error{'s' * (wrong != 1)} since its last reset", figures, amount=wrong or 0,
        )  # fmt: skip
        yield from self._follow(
            gpu, "memory", "remap_failed", detail.remap_failed, at, "a memory row could not be remapped"
        )
        yield from self._follow(
            gpu, "memory", "remap_pending", detail.remap_pending, at, "a memory row is remapped at the next reset"
        )
        yield from self._follow(
            gpu, "memory", "retirement_pending", detail.retirement_pending, at,
            "a memory page is retired at the next reset",
        )  # fmt: skip
        pages = detail.retired_pages
        yield from self._follow(
            gpu, "memory", "pages_retired", None if pages is None else pages >= PAGES_RETIRED_MANY, at,
            f"{pages} memory pages are retired, of 64 at most", {"retired_pages": pages or 0},
        )  # fmt: skip
        yield from self._corrected_errors(gpu, detail, before, at)

    def _corrected_errors(
        self, gpu: Gpu, detail: GpuDetail, before: GpuDetail | None, at: datetime
    ) -> Iterator[Observation]:
        counted = detail.ecc_corrected
        if counted is None or before is None or before.ecc_corrected is None:
            return
        seen = self._corrected.setdefault(_key(gpu), deque())
        if (more := counted - before.ecc_corrected) > 0:
            seen.append((at, more))
        while seen and at - seen[0][0] > ECC_CORRECTED_WINDOW:
            seen.popleft()
        many = sum(count for _, count in seen)
        yield from self._follow(
            gpu, "ecc_sbe", "", many > ECC_CORRECTED_MANY, at,
            f"{many} corrected memory errors within an hour", {"ecc_sbe_count": many},
        )  # fmt: skip

    def _clocks(self, gpu: Gpu, detail: GpuDetail, at: datetime) -> Iterator[Observation]:
        if detail.throttle is None:
            return
        seen = self._held_down.setdefault(_key(gpu), deque())
        seen.append((at, detail.throttle))
        while at - seen[0][0] >= HELD_DOWN_WINDOW:
            seen.popleft()
        for bit, kind in HELD_DOWN.items():
            count = sum(1 for _, bits in seen if bits & bit)
            holds = count >= 3 and count >= HELD_DOWN_RATIO * len(seen)
            clock = "" if detail.clock_sm_mhz is None else f"; its SM clock is {detail.clock_sm_mhz} MHz"
            yield from self._follow(
                gpu, "clocks", kind, holds, at,
                f"the hardware held its clocks down in {count} of {len(seen)} readings ({kind.replace('_', ' ')}){clock}",
                {"readings": count, "of": len(seen)},
            )  # fmt: skip
        hot = _at_least(detail.temperature_memory_c, detail.memory_max_c)
        yield from self._follow(
            gpu, "clocks", "memory_hot", hot, at,
            f"its memory is at {detail.temperature_memory_c} degrees Celsius, its limit is {detail.memory_max_c}",
            {"temperature": detail.temperature_memory_c or 0.0},
        )  # fmt: skip

    def _nvlinks(self, gpu: Gpu, detail: GpuDetail, before: GpuDetail | None, at: datetime) -> Iterator[Observation]:
        up = detail.nvlinks_up
        if up is None:
            return
        # GPUs of one make on one machine are wired alike.
        most = self._links[gpu.name] = max(up, self._links.get(gpu.name, 0))
        yield from self._follow(
            gpu, "nvlink", "nvlink_down", up < most, at,
            f"{most - up} of {most} NVLinks {'is' if most - up == 1 else 'are'} down", {"up": up, "of": most},
            amount=most - up,
        )  # fmt: skip
        if detail.nvlink_errors is None or before is None or before.nvlink_errors is None:
            return
        if (more := detail.nvlink_errors - before.nvlink_errors) > 0:
            said = f"{more} replays and recoveries on its NVLinks since the last reading"
            yield _observation("nvlink", gpu, at, said, {"kind": "nvlink_errors", "errors": more})

    def _pcie_replays(
        self, gpu: Gpu, detail: GpuDetail, then: datetime, before: GpuDetail, at: datetime
    ) -> Iterator[Observation]:
        minutes = (at - then) / timedelta(minutes=1)
        if detail.pcie_replays is None or before.pcie_replays is None or minutes <= 0:
            return
        lanes, generation = detail.pcie_width or 16, detail.pcie_generation or 1
        rate = (detail.pcie_replays - before.pcie_replays) / minutes / lanes
        limit = REPLAYS_PER_LANE_MINUTE.get(generation, REPLAYS_PER_LANE_MINUTE[6])
        yield from self._follow(
            gpu, "pcie", "pcie_replays", rate > limit, at,
            f"{rate:.2f} PCIe replays per lane and minute, over {limit:g} at generation {generation}",
            {"rate": rate, "limit": limit},
        )  # fmt: skip

    def _pcie(self, gpu: Gpu, detail: GpuDetail, busy: float, at: datetime) -> Iterator[Observation]:
        width, width_max = detail.pcie_width, detail.pcie_width_max
        narrow = None if width is None or not width_max else 0 < width < width_max
        yield from self._follow(
            gpu, "pcie", "pcie_width", narrow, at, f"its PCIe link has {width} lanes of {width_max}",
            {"width": width or 0, "max": width_max or 0},
        )  # fmt: skip
        speed, speed_max = detail.pcie_generation, detail.pcie_generation_max
        slow = None if speed is None or not speed_max else 0 < speed < speed_max
        if slow and busy < BUSY_RATIO:
            slow = None  # an idle link sleeps at a lower rate
        yield from self._follow(
            gpu, "pcie", "pcie_generation", slow, at, f"its PCIe link runs at generation {speed} of {speed_max} under load",
            {"generation": speed or 0, "max": speed_max or 0},
        )  # fmt: skip

    def _fabric(self, gpu: Gpu, detail: GpuDetail, at: datetime) -> Iterator[Observation]:
        if not detail.fabric_state:
            return
        since = self._fabric_since.setdefault(_key(gpu), at)
        if detail.fabric_state == FABRIC_COMPLETED:
            wrong = None if detail.fabric_status is None else detail.fabric_status > 0
            del self._fabric_since[_key(gpu)]
        else:
            wrong = at - since >= FABRIC_PATIENCE
        yield from self._follow(
            gpu, "fabric", "fabric_not_ready", wrong, at,
            f"its NVLink fabric is not ready (state {detail.fabric_state}, status {detail.fabric_status})",
            {"state": detail.fabric_state, "status": detail.fabric_status or 0},
        )  # fmt: skip

    def _follow(
        self, gpu: Gpu, event_type: str, kind: str, holds: bool | None, at: datetime, message: str,
        figures: Figures | None = None, *, amount: float = 0.0,
    ) -> list[Observation]:  # fmt: skip
        def tell(message: str, metrics: Figures) -> Observation:
            named = {**metrics, "kind": kind} if kind else metrics
            return _observation(event_type, gpu, at, message, named)

        return self._conditions.follow((_key(gpu), event_type, kind), holds, at, tell, message, figures, amount=amount)


def _observation(
    event_type: str, gpu: Gpu | None, at: datetime, message: str, metrics: Figures, code: int | None = None
) -> Observation:
    who = Gpu(index=0) if gpu is None else gpu
    return Observation(
        at=at,
        event_type=event_type,
        system=_SYSTEMS.get(event_type, ""),
        code=code,
        pci=who.pci,
        gpu_index=-1 if gpu is None else gpu.index,
        gpu_uuid=who.uuid,
        gpu_serial=who.serial,
        message=message,
        metrics=dict(metrics),
        source="gpu-driver",
    )


def _key(gpu: Gpu) -> str:
    return gpu.uuid or gpu.pci or str(gpu.index)


def _at_least(value: float | None, limit: float | None) -> bool | None:
    return None if value is None or not limit else value >= limit
