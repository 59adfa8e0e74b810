"""What the agent asks of a GPU driver, and the four answers that it may get.

A driver never raises for what the machine does: *there is no driver*, *it hangs* and *it answers nonsense* are values,
because each of them is something that the control plane must hear. It never invents a GPU and never a reading: what
could not be read is None.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from navarch_common.model.base import Count
from navarch_common.model.gpu import Gpu, GpuIndex, GpuSample

Celsius = Annotated[float, Meta(ge=-100.0, le=300.0)]


class DriverState(StrEnum):
    """Whether what a driver said can be believed."""

    OK = "ok"
    MISSING = "missing"
    """No driver or no driver library on this machine. Nothing is known of any GPU."""
    HUNG = "hung"
    """It did not answer within its deadline. That is evidence of its own."""
    UNKNOWN = "unknown"
    """It answered with an error, or not in a form that we understand."""


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """Which GPUs this machine has. `gpus` is empty unless `state` is `OK`."""

    state: DriverState
    reason: str = ""
    """Why it isn't `OK`, in a sentence."""
    driver: str = ""
    """The driver's version."""
    gpus: tuple[Gpu, ...] = ()


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of every GPU. `gpus` is empty unless `state` is `OK`; a GPU that is lost has no readings."""

    state: DriverState
    reason: str = ""
    gpus: tuple[GpuSample, ...] = ()
    lost: tuple[int, ...] = ()
    """The indices of GPUs of which the driver says that they are lost."""


class GpuDetail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is read of one GPU once in a health-check period. None: it could not be read, or this GPU has no such thing."""

    index: GpuIndex
    lost: bool = False
    """The driver says that the GPU is lost."""
    recovery_action: Count | None = None
    """The driver's own verdict, in the numbers of Xid 154: 0 none, 1 reset, 2 reboot, 3 drain peers, 4 drain and reset."""
    ecc_enabled: bool | None = None
    ecc_corrected: Count | None = None
    """Since the driver was loaded or the GPU reset."""
    ecc_uncorrected: Count | None = None
    ecc_uncorrected_ever: Count | None = None
    """Since the board was made."""
    remapped_rows: Count | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    retired_pages: Count | None = None
    retirement_pending: bool | None = None
    temperature_memory_c: Celsius | None = None
    slowdown_c: Celsius | None = None
    """The core temperature from which the hardware slows down."""
    memory_max_c: Celsius | None = None
    throttle: Count | None = None
    """NVML's bits of why the clocks are lower than they could be."""
    clock_sm_mhz: Count | None = None
    clock_sm_max_mhz: Count | None = None
    power_limit_w: Annotated[float, Meta(ge=0.0, le=10_000.0)] | None = None
    nvlinks: Count | None = None
    """Links that answer, whether they are up or not."""
    nvlinks_up: Count | None = None
    nvlink_errors: Count | None = None
    """Replays and recoveries of all links, since the driver was loaded."""
    pcie_generation: Count | None = None
    pcie_generation_max: Count | None = None
    pcie_width: Count | None = None
    pcie_width_max: Count | None = None
    pcie_replays: Count | None = None
    fabric_state: Count | None = None
    """0 not supported, 1 not started, 2 in progress, 3 completed."""
    fabric_status: Count | None = None
    """0: the fabric came up well; otherwise NVML's error."""


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """One thorough reading of every GPU. `gpus` is empty unless `state` is `OK`."""

    state: DriverState
    reason: str = ""
    gpus: tuple[GpuDetail, ...] = ()


class GpuDriver(Protocol):
    """One machine's GPUs. Each call ends within the adapter's deadline, whatever the driver does."""

    async def inventory(self) -> Inventory:
        """Ask who the GPUs are. Their order and indices are the driver's."""
        ...

    async def sample(self) -> Sample:
        """Read every GPU once."""
        ...

    async def details(self) -> Details:
        """Read every GPU thoroughly: what changes seldom, and costs more."""
        ...

    async def close(self) -> None:
        """Let go of the driver. May be called twice; afterwards no call is made."""
        ...
