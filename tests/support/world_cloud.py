"""The fake cloud's own rules behind a provider in memory: its weather, without its process."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import structs

from navarch_common.clock import Clock
from navarch_common.model.node import LaunchRequest
from navarch_provisioner.cloud.base import Machine, NotFound, Tags, UnknownOutcome, Upstream
from navarch_provisioner.cloud.fake_wire import Order
from navarch_sim.fake_cloud.world import FakeMachine, World

T = TypeVar("T")


class WorldCloud:
    """A cloud that outlives every copy of the provisioner, and is as hostile as its weather."""

    name = "cloud"

    def __init__(self, clock: Clock, seed: int = 1) -> None:
        self.kept: dict[str, FakeMachine] = {}
        """Every machine that was ever made, as it is now."""
        self.calls: Counter[str] = Counter()
        self.world = World(clock, random.Random(seed), self._changed)

    def _changed(self, machine: FakeMachine) -> None:
        self.kept[machine.instance_id] = machine

    def weather(self, **changes: object) -> None:
        self.world.weather = structs.replace(self.world.weather, **changes)

    def on(self) -> list[FakeMachine]:
        return [machine for machine in self.kept.values() if machine.power == "on"]

    async def launch(self, request: LaunchRequest) -> Machine:
        return await self._call("launch", lambda: self.world.launch(Order(request=request)), effect=True)

    async def find(self, token: str) -> Machine | None:
        return await self._one(lambda: self.world.by_token(token))

    async def list_machines(self, cluster: str) -> Sequence[Machine]:
        return await self._call("list", lambda: self.world.listing(cluster).complete())

    async def get(self, instance_id: str) -> Machine | None:
        return await self._one(lambda: self.world.get(instance_id))

    async def terminate(self, instance_id: str, tags: Tags) -> None:
        await self._call("terminate", lambda: self.world.terminate(instance_id, tags), effect=True)

    async def power_off(self, instance_id: str, tags: Tags) -> None:
        await self._call("power-off", lambda: self.world.power_off(instance_id, tags), effect=True)

    async def power_on(self, instance_id: str, tags: Tags) -> None:
        await self._call("power-on", lambda: self.world.power_on(instance_id, tags), effect=True)

    async def close(self) -> None:
        """It outlives everyone."""

    async def _one(self, act: Callable[[], Machine]) -> Machine | None:
        try:
            return await self._call("ask", act)
        except NotFound:
            return None

    async def _call(self, name: str, act: Callable[[], T], *, effect: bool = False) -> T:
        self.calls[name] += 1
        broken = UnknownOutcome if effect else Upstream
        await asyncio.sleep(0)
        if self.world.loses_request():
            raise broken("the connection broke before the call was carried out")
        if (error := self.world.bad_luck(launching=name == "launch")) is not None:
            raise error
        answer = act()
        await asyncio.sleep(0)
        if self.world.loses_reply():
            raise broken("the connection broke after the call was carried out")
        return answer
