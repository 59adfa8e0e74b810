"""Reads a driver that may take its time, without making anyone wait for it."""

from __future__ import annotations

import asyncio

from navarch_agent.gpu.base import Details, DriverState, GpuDriver, Inventory, Sample
from navarch_common.model.gpu import Gpu

_NOT_READ = Sample(state=DriverState.UNKNOWN, reason="the driver was not read yet")


class DriverWatch:
    """The newest that is known of one driver.

    `sample` takes `grace_s` at most; None waits for the answer, for simulated drivers that answer at once.
    """

    STALE_S = 30.0
    """An older reading is no reading."""

    def __init__(self, driver: GpuDriver, *, grace_s: float | None = 0.5) -> None:
        self._driver = driver
        self._grace_s = grace_s
        self._reading: asyncio.Task[None] | None = None
        self._thorough: asyncio.Task[Details] | None = None
        self._last = _NOT_READ
        self._last_at_s = 0.0
        self.inventory = Inventory(state=DriverState.UNKNOWN, reason="the driver was not asked yet")
        """The last answer to who the GPUs are."""
        self.gpus: tuple[Gpu, ...] = ()
        """The GPUs that the driver last named: they don't vanish because it hangs."""
        self.version = ""
        """The driver's version, likewise."""
        self.identified = asyncio.Event()
        """Set once the driver has answered, whatever it said."""

    async def sample(self, tasks: asyncio.TaskGroup) -> Sample:
        """Return the newest reading, or one that says why there is none."""
        if self._grace_s is None:
            return await self._driver.sample()
        if self._reading is None or self._reading.done():
            self._reading = tasks.create_task(self._read(), name="driver-sample")
        await asyncio.wait((self._reading,), timeout=self._grace_s)
        age_s = asyncio.get_running_loop().time() - self._last_at_s
        if self._last is not _NOT_READ and age_s > self.STALE_S:
            return Sample(state=DriverState.UNKNOWN, reason=f"the driver has not answered for {age_s:.0f} s")
        return self._last

    async def details(self, tasks: asyncio.TaskGroup) -> Details | None:
        """Begin a thorough reading where none is under way, and return the one that has come to its end since the last
        call; None where none has."""
        if self._grace_s is None:
            return await self._driver.details()
        if self._thorough is None:
            self._thorough = tasks.create_task(self._driver.details(), name="driver-details")
        if not self._thorough.done():
            return None
        details, self._thorough = self._thorough.result(), None
        return details

    async def identify(self) -> bool:
        """Ask the driver who its GPUs are. Tells whether it named others than before."""
        self.inventory = await self._driver.inventory()
        before = (self.version, self.gpus)
        if self.inventory.state is DriverState.OK:
            self.version, self.gpus = self.inventory.driver, self.inventory.gpus
        self.identified.set()
        return (self.version, self.gpus) != before

    async def _read(self) -> None:
        self._last = await self._driver.sample()
        self._last_at_s = asyncio.get_running_loop().time()
