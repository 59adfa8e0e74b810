"""What is known of a GPU: who it is, and what it reads right now."""

from typing import Annotated

from msgspec import Meta, Struct

from navarch_common.model.base import Count, Name, Pci, Ratio

GPUS_MAX = 64
GpuIndex = Annotated[int, Meta(ge=0, le=1023)]


class Gpu(Struct, frozen=True, kw_only=True):
    """A GPU's identity. Bound to the board by `serial`, to the chip by `uuid`, to the slot by `pci`."""

    index: GpuIndex
    uuid: Name = ""
    serial: Name = ""
    pci: Pci = ""
    name: Name = ""
    memory_total_bytes: Annotated[int, Meta(ge=0, le=2**50)] = 0


class GpuSample(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One GPU's readings. None means that it could not be read: unknown, never zero and never healthy."""

    index: GpuIndex
    utilization_ratio: Ratio | None = None
    memory_used_bytes: Annotated[int, Meta(ge=0, le=2**50)] | None = None
    temperature_c: Annotated[float, Meta(ge=-100.0, le=300.0)] | None = None
    power_w: Annotated[float, Meta(ge=0.0, le=10_000.0)] | None = None
    process_count: Count | None = None
    """Processes that hold the GPU. 0 on every GPU is the proof that a node is idle."""


GpuSamples = Annotated[tuple[GpuSample, ...], Meta(max_length=GPUS_MAX)]
Gpus = Annotated[tuple[Gpu, ...], Meta(max_length=GPUS_MAX)]


def is_idle(samples: tuple[GpuSample, ...]) -> bool | None:
    """True when every GPU says that no process holds it, False when one says otherwise, None when that is not known."""
    if any(sample.process_count for sample in samples):
        return False
    if not samples or any(sample.process_count is None for sample in samples):
        return None
    return True
