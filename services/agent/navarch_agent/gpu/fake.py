"""A simulated driver: GPUs whose identity follows from the node's id and whose readings wander plausibly.

It ships with the product (providers `local` and `fake`) and is as unkind as a real one on demand: it can be missing,
hang, or lose a GPU. Idle at start.
"""

from __future__ import annotations

import hashlib
import random
import uuid

import msgspec
from msgspec.structs import replace

from navarch_agent.gpu.base import Details, DriverState, GpuDetail, Inventory, Sample
from navarch_common.model.gpu import Gpu, GpuSample

DRIVER_VERSION = "570.133.20"
GPU_NAME = "NVIDIA H100 80GB HBM3 (simulated)"
MEMORY_TOTAL_BYTES = 80 * 1024**3

_SLOTS = (
    "0000:07:00",
    "0000:18:00",
    "0000:2a:00",
    "0000:3b:00",
    "0000:86:00",
    "0000:9a:00",
    "0000:ab:00",
    "0000:db:00",
)
"""Where the GPUs of an 8-GPU machine sit. More than eight repeat the slots in the next PCI domain."""
_WELL = GpuDetail(
    index=0,
    recovery_action=0,
    ecc_enabled=True,
    ecc_corrected=0,
    ecc_uncorrected=0,
    ecc_uncorrected_ever=0,
    remapped_rows=0,
    remap_pending=False,
    remap_failed=False,
    temperature_memory_c=48.0,
    slowdown_c=90.0,
    memory_max_c=95.0,
    throttle=0,
    clock_sm_mhz=1980,
    clock_sm_max_mhz=1980,
    power_limit_w=700.0,
    nvlinks=18,
    nvlinks_up=18,
    nvlink_errors=0,
    pcie_generation=5,
    pcie_generation_max=5,
    pcie_width=16,
    pcie_width_max=16,
    pcie_replays=0,
    fabric_state=3,
    fabric_status=0,
)
"""What an H100 of an 8-GPU machine reads when all is well."""


class FakeGpuDriver:
    """A `GpuDriver` that simulates `gpu_count` GPUs of the node `node`. Readings are drawn from `rng`."""

    def __init__(self, node: str, rng: random.Random, *, gpu_count: int = 8) -> None:
        self._rng = rng
        self._identity = tuple(_identity(node, index) for index in range(gpu_count))
        self._readings = [_resting(index, rng) for index in range(gpu_count)]
        self._turn = 0
        self._lost: set[int] = set()
        self._pinned_c: dict[int, float] = {}
        self._changed: dict[int, dict[str, float | None]] = {}
        self._details: tuple[GpuDetail, ...] | None = None
        """As they are; None where they are to be made anew."""
        self._state = DriverState.OK
        self._reason = ""

    async def inventory(self) -> Inventory:
        if self._state is not DriverState.OK:
            return Inventory(state=self._state, reason=self._reason)
        return Inventory(state=DriverState.OK, driver=DRIVER_VERSION, gpus=self._identity)

    async def sample(self) -> Sample:
        if self._state is not DriverState.OK:
            return Sample(state=self._state, reason=self._reason)
        self._wander()
        return Sample(state=DriverState.OK, gpus=tuple(self._readings), lost=tuple(sorted(self._lost)))

    async def details(self) -> Details:
        if self._state is not DriverState.OK:
            return Details(state=self._state, reason=self._reason)
        if self._details is None:
            self._details = tuple(map(self._detail, self._identity))
        return Details(state=DriverState.OK, gpus=self._details)

    async def close(self) -> None:
        """Nothing is held."""

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that the machine has, whatever the driver says."""
        return self._identity

    def work(self, process_count: int = 1) -> None:
        """Let that many processes hold every GPU that is there; 0 lets all go."""
        for index, reading in enumerate(self._readings):
            if index not in self._lost:
                self._readings[index] = replace(reading, process_count=process_count)
        for _ in self._readings:
            self._wander()

    def pin_temperature(self, index: int, temperature_c: float | None) -> None:
        """Make a GPU read `temperature_c` until it is unpinned by None."""
        if temperature_c is None:
            self._pinned_c.pop(index, None)
        else:
            self._pinned_c[index] = temperature_c
        self._readings[index] = self._moved(self._readings[index])

    def change(self, index: int, **details: float | None) -> None:
        """Make a GPU's details read so from now on, as the fields of `GpuDetail` are called.

        Raises `msgspec.ValidationError` for what no driver could read.
        """
        changed = {**self._changed.get(index, {}), **details}
        msgspec.convert({"index": index, **changed}, GpuDetail)
        self._changed[index] = changed
        self._details = None

    def restore(self) -> None:
        """Let all details read again as at the start."""
        self._changed.clear()
        self._details = None

    def lose(self, index: int) -> None:
        """Let a GPU fall off the bus: the driver still counts it and can read nothing of it."""
        self._lost.add(index)
        self._details = None
        self._readings[index] = GpuSample(index=index)

    def pretend(self, state: DriverState, reason: str = "") -> None:
        """Be missing, hung or broken from now on; `OK` ends it."""
        self._state = state
        self._reason = reason or {
            DriverState.MISSING: "no driver is loaded (simulated)",
            DriverState.HUNG: "nvmlDeviceGetTemperature on GPU 0 did not return within 10 s (simulated)",
        }.get(state, "the driver answers with errors (simulated)")

    def _detail(self, gpu: Gpu) -> GpuDetail:
        if gpu.index in self._lost:
            return GpuDetail(index=gpu.index, lost=True)
        return replace(_WELL, index=gpu.index, **self._changed.get(gpu.index, {}))

    def _wander(self) -> None:
        """Move one GPU's readings a step; each has its turn, so that a fleet of thousands costs little."""
        if not self._readings:
            return
        self._turn = (self._turn + 1) % len(self._readings)
        if self._turn not in self._lost:
            self._readings[self._turn] = self._moved(self._readings[self._turn])

    def _moved(self, reading: GpuSample) -> GpuSample:
        rng = self._rng
        if reading.index in self._lost:
            return reading
        busy = bool(reading.process_count)
        utilization = _toward(reading.utilization_ratio, 0.93 if busy else 0.0, 0.05 if busy else 0.0, rng, 1.0)
        temperature = _toward(reading.temperature_c, 66.0 if busy else 31.0, 1.5, rng, 110.0)
        memory = 0.82 if busy else 0.006
        return GpuSample(
            index=reading.index,
            utilization_ratio=round(utilization, 3),
            memory_used_bytes=int(MEMORY_TOTAL_BYTES * (memory + rng.random() * 0.002)),
            temperature_c=self._pinned_c.get(reading.index, round(temperature, 1)),
            power_w=round(_toward(reading.power_w, 640.0 if busy else 72.0, 6.0, rng, 700.0), 1),
            process_count=reading.process_count,
        )


def _toward(value: float | None, target: float, spread: float, rng: random.Random, most: float) -> float:
    """Go half of the way to `target`, and a random bit beside it."""
    start = target if value is None else value
    return min(max(start + (target - start) / 2 + rng.uniform(-spread, spread), 0.0), most)


def _resting(index: int, rng: random.Random) -> GpuSample:
    return GpuSample(
        index=index,
        utilization_ratio=0.0,
        memory_used_bytes=int(MEMORY_TOTAL_BYTES * 0.006),
        temperature_c=round(rng.uniform(28.0, 35.0), 1),
        power_w=round(rng.uniform(65.0, 78.0), 1),
        process_count=0,
    )


def _identity(node: str, index: int) -> Gpu:
    digest = hashlib.sha256(f"{node}/{index}".encode()).digest()
    domain, slot = divmod(index, len(_SLOTS))
    return Gpu(
        index=index,
        uuid=f"GPU-{uuid.UUID(bytes=digest[:16])}",
        serial=str(1_650_000_000_000 + int.from_bytes(digest[16:20], "big")),
        pci=f"{domain:04x}{_SLOTS[slot][4:]}",
        name=GPU_NAME,
        memory_total_bytes=MEMORY_TOTAL_BYTES,
    )
