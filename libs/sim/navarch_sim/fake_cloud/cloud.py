"""One cloud, put together: its world, its memory on disk, its hosts. What `http` calls."""

import asyncio
import random
from pathlib import Path

import structlog

from navarch_common.clock import Clock
from navarch_provisioner.cloud.base import CloudError, Machine, Tags
from navarch_provisioner.cloud.fake_wire import Forecast, MachineList, Order, Weather
from navarch_sim.fake_cloud.hosts import Hosts, settings_of
from navarch_sim.fake_cloud.ledger import Ledger
from navarch_sim.fake_cloud.world import FakeMachine, World

log = structlog.get_logger("navarch.fake_cloud")

_TIDY_S = 60.0
_SETTLE_S = 0.2


class Cloud:
    """A cloud whose machines are as durable as its disk. `open` it, `run` it, `close` it."""

    def __init__(self, directory: Path, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._hosts = Hosts(clock, rng, self)
        self._ledger = Ledger(directory / "cloud.db", self._hosts.apply)
        self._world = World(clock, rng, self._ledger.put)
        self.leaving = asyncio.Event()
        """Set when the cloud was told to end itself."""

    async def open(self, forecast: Forecast) -> None:
        """Takes up what is on disk: machines that were on boot again, as after a power cut."""
        machines, weather = await self._ledger.open()
        self._world = World(self._clock, self._rng, self._ledger.put, machines, weather)
        self._forecast(forecast)
        self._world.everything_boots()
        log.info("cloud opens", machines=self._world.existing, on=self._world.on)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._ledger.run(), name="ledger")
                tasks.create_task(self._hosts.run(), name="hosts")
                tasks.create_task(self._tidy(), name="tidy")
                tasks.create_task(self._settle(), name="settle")
        finally:
            await self._ledger.close()

    async def launch(self, order: Order) -> Machine:
        machine = FakeMachine(
            instance_id="", request=order.request, gpu_count=order.gpu_count,
            launched_at=self._clock.now(), boot_id="checked", booted_at=self._clock.now(),
        )  # fmt: skip
        settings_of(machine)
        await self._dawdle()
        made = self._world.launch(order)
        await self._ledger.settled()
        return made

    async def by_token(self, token: str) -> Machine:
        await self._dawdle()
        machine = self._world.by_token(token)
        await self._ledger.settled()
        return machine

    async def get(self, instance_id: str) -> Machine:
        await self._dawdle()
        machine = self._world.get(instance_id)
        await self._ledger.settled()
        return machine

    async def machines(self, cluster: str, provider: str) -> MachineList:
        await self._dawdle()
        listing = self._world.listing(cluster, provider)
        await self._ledger.settled()
        return listing

    async def terminate(self, instance_id: str, tags: Tags) -> None:
        await self._dawdle()
        self._world.terminate(instance_id, tags)
        await self._ledger.settled()

    async def power_off(self, instance_id: str, tags: Tags) -> None:
        """Returns when the machine is off, so that whoever stops the bus next cuts off no goodbye."""
        await self._dawdle()
        self._world.power_off(instance_id, tags)
        await self._ledger.settled()
        await self._hosts.gone(instance_id)

    async def shut_down(self, cluster: str, provider: str) -> bool:
        """Powers all of them off at once, also what a late call makes meanwhile. Tells whether the cloud's process ends,
        which it does when no machine is on."""
        while off := self._world.shut_down(cluster, provider):
            await self._ledger.settled()
            await self._hosts.all_gone(off)
        return self.leave()

    async def power_on(self, instance_id: str, tags: Tags) -> None:
        await self._dawdle()
        self._world.power_on(instance_id, tags)
        await self._ledger.settled()

    async def fail(self, instance_id: str) -> None:
        self._world.fail(instance_id)
        await self._ledger.settled()

    async def reboot(self, instance_id: str) -> None:
        self._world.reboot(instance_id)
        await self._ledger.settled()

    async def return_(self, instance_id: str) -> None:
        self._world.return_(instance_id)
        await self._ledger.settled()

    async def twin(self, instance_id: str) -> Machine:
        twin = self._world.twin(instance_id)
        await self._ledger.settled()
        return twin

    def leave(self) -> bool:
        """Ends the cloud's process unless a machine is on. Tells whether it ends."""
        if self._world.on == 0:
            self.leaving.set()
        return self.leaving.is_set()

    @property
    def weather(self) -> Weather:
        return self._world.weather

    async def change_weather(self, forecast: Forecast) -> Weather:
        """From now on, and after the next start."""
        self._forecast(forecast)
        await self._ledger.settled()
        return self._world.weather

    def loses_request(self) -> bool:
        return self._world.loses_request()

    def bad_luck(self, *, launching: bool) -> CloudError | None:
        return self._world.bad_luck(launching=launching)

    def loses_reply(self) -> bool:
        return self._world.loses_reply()

    def is_dark(self, instance_id: str) -> bool:
        return self._world.is_dark(instance_id)

    def stopped(self, instance_id: str, boot_id: str) -> None:
        self._world.stopped(instance_id, boot_id)

    def crashed(self, instance_id: str, boot_id: str) -> None:
        self._world.crashed(instance_id, boot_id)

    def _forecast(self, forecast: Forecast) -> None:
        weather = forecast.over(self._world.weather)
        if weather != self._world.weather:
            self._world.weather = weather
            self._ledger.put_weather(weather)
            log.info("the weather changes", weather=weather)

    async def _dawdle(self) -> None:
        if slowness_s := self._world.slowness_s():
            await asyncio.sleep(slowness_s)

    async def _settle(self) -> None:
        while True:
            self._world.settle()
            await asyncio.sleep(_SETTLE_S)

    async def _tidy(self) -> None:
        while True:
            self._ledger.forget(self._world.forget())
            await asyncio.sleep(_TIDY_S)
