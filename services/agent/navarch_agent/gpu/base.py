"""What the agent asks of a GPU driver, and the four answers that it may get.

A driver never raises for what the machine does: *there is no driver*, *it hangs* and *it answers nonsense* are values,
because each of them is something that the control plane must hear. It never invents a GPU and never a reading: what
could not be read is None.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec

from navarch_common.model.gpu import Gpu, GpuSample


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


class GpuDriver(Protocol):
    """One machine's GPUs. Each call ends within the adapter's deadline, whatever the driver does."""

    async def inventory(self) -> Inventory:
        """Ask who the GPUs are. Their order and indices are the driver's."""
        ...

    async def sample(self) -> Sample:
        """Read every GPU once."""
        ...

    async def close(self) -> None:
        """Let go of the driver. May be called twice; afterwards no call is made."""
        ...
