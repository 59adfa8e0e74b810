"""The clouds: their machines with the real agents in them, and the way to their control planes.

The rules are those of the fake cloud (`navarch_sim.fake_cloud.world`), the same that its process serves; here they are
reached over bad air, and machines never boot, die young, boot again, or come back from the dead.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

from navarch_agent.commands import Periods
from navarch_agent.gpu.base import DriverState
from navarch_agent.identity import Identity
from navarch_agent.simulated import SimulatedFleet, SimulatedMachine
from navarch_common.bus.memory import MemoryServer
from navarch_common.clock import Clock
from navarch_common.events.subjects import Subjects
from navarch_common.model.node import LaunchRequest, ProviderState
from navarch_provisioner.cloud.base import (
    CloudError,
    InvalidLaunch,
    Machine,
    NoCapacity,
    NotFound,
    Tags,
    Throttled,
    UnknownOutcome,
    Upstream,
)
from navarch_provisioner.cloud.fake_wire import Order, Weather
from navarch_sim.fake_cloud.hosts import settings_of
from navarch_sim.fake_cloud.world import FakeMachine, World
from navarch_sim.virtual.air import WORLD, Air, later
from navarch_sim.virtual.network import SimBus

T = TypeVar("T")


@dataclass(slots=True)
class Forecast:
    """What the clouds' own control planes do wrong. Ratios are chances for each call, or each machine."""

    boot_s: float = 10.0
    refused: float = 0.0
    """Throttled, or failed without having done anything."""
    lost_reply: float = 0.0
    """Done, and the connection breaks."""
    lost_request: float = 0.0
    """Not done, and the connection breaks."""
    hangs: float = 0.0
    """Of the two before: no word at all, until the caller gives up."""
    slow: float = 0.0
    slow_s: float = 20.0
    """Shorter than the time after which the product takes a call for dead."""
    partial: float = 0.0
    """Of lists: cut off in the middle, which an adapter must notice."""
    stale: float = 0.0
    stale_s: float = 60.0
    """Of lists: as it was some time ago."""
    stillborn: float = 0.0
    """Of machines: never boot."""
    weak: float = 0.0
    """Of machines: die within a minute of their first boot."""
    bare: float = 0.0
    """Of machines: come from an image without a GPU driver."""
    exhausted: set[str] = field(default_factory=set)
    """Zones without room."""
    dark: set[str] = field(default_factory=set)
    """Zones that nothing reaches."""


@dataclass(slots=True)
class Plug:
    """One boot of one machine."""

    machine: SimulatedMachine
    task: "asyncio.Task[None]"
    boot_id: str


@dataclass(frozen=True, slots=True)
class Build:
    """How machines of this world are made."""

    heartbeat_s: float
    gpu_count: int
    boot_s: float


class Sky:
    """All clouds of one world. `effects` hears of what their control planes did."""

    def __init__(
        self, clock: Clock, rng: random.Random, air: Air, buses: MemoryServer, subjects: Subjects, build: Build
    ) -> None:
        self.forecast = Forecast(boot_s=build.boot_s)
        self.effects: list[Callable[[str, FakeMachine], None]] = []
        """Told `made`, `ended` (by a call), `died`, `booted`, and of which machine."""
        self.calls: list[Callable[[str, str], None]] = []
        """Told the name of each call that begins, and the pool that it is about; empty where it is about all."""
        self.condemn: Callable[[str, str], None] = _nobody_cares
        """Told of nodes whose machine is lost, and why."""
        self.made_with: Callable[[str, str], None] = _nobody_cares
        """Told of the fault that a machine was made with, and of its node."""
        self._clock, self._rng, self._air, self._met = clock, rng, air, air.met
        self._gpu_count = build.gpu_count
        self.world = World(clock, rng, self._changed, weather=Weather(boot_time_s=build.boot_s))
        self.machines: dict[str, FakeMachine] = {}
        self.ended_at: dict[str, float] = {}
        """By machine, the loop's time at which it ended."""
        self.plugs: dict[str, Plug] = {}
        self.doomed: set[str] = set()
        self.bare: set[str] = set()
        """Machines that will never boot, whatever their cloud says of them."""
        self._periods = Periods(heartbeat_s=build.heartbeat_s)
        self.bus = SimBus(buses, air)
        self.fleet = SimulatedFleet(self.bus, subjects, clock=clock)
        self._by_call = False

    async def run(self) -> None:
        await self.fleet.run()

    # --- machines ---

    def machine_of(self, node: str) -> list[FakeMachine]:
        """Those of a node that take up room."""
        return [one for one in self.machines.values() if one.request.node == node and one.power != "ended"]

    def on(self) -> list[FakeMachine]:
        return [one for one in self.machines.values() if one.power == "on"]

    def die(self, instance_id: str) -> None:
        """Its host burns down."""
        self.world.fail(instance_id)

    def reboot(self, instance_id: str) -> None:
        machine = self.machines[instance_id]
        self.world.crashed(instance_id, machine.boot_id)

    def plug_of(self, node: str) -> Plug | None:
        return next((self.plugs[m.instance_id] for m in self.machine_of(node) if m.instance_id in self.plugs), None)

    def _changed(self, machine: FakeMachine) -> None:
        before = self.machines.get(machine.instance_id)
        self.machines[machine.instance_id] = machine
        if machine.power == "ended" and (before is None or before.power != "ended"):
            self.ended_at[machine.instance_id] = asyncio.get_running_loop().time()
        plug = self.plugs.get(machine.instance_id)
        if plug is not None and (machine.power != "on" or plug.boot_id != machine.boot_id):
            del self.plugs[machine.instance_id]
            self._unplug(plug, graceful=machine.graceful)
        what = "booted"
        if before is None:
            what = "made"
            self._born(machine)
        elif machine.power == "ended":
            what = "ended" if self._by_call else "died"
        if machine.power == "on" and (before is None or before.boot_id != machine.boot_id):
            delay_s = max(0.0, (machine.booted_at - self._clock.now()).total_seconds())
            later(delay_s, self._boot, machine.instance_id, machine.boot_id)
        for hear in self.effects:
            hear(what, machine)

    def _born(self, machine: FakeMachine) -> None:
        forecast, rng = self.forecast, self._rng
        if rng.random() < forecast.stillborn:
            self.doomed.add(machine.instance_id)
            self.made_with("never-boots", machine.request.node)
            self.condemn(machine.request.node, "never boots")
        elif rng.random() < forecast.weak:
            later(forecast.boot_s + rng.uniform(0.0, 60.0), self._die_young, machine.instance_id)
        elif forecast.bare and rng.random() < forecast.bare:
            self.bare.add(machine.instance_id)
            self.made_with("no-driver", machine.request.node)
            self.condemn(machine.request.node, "has no driver")

    def _die_young(self, instance_id: str) -> None:
        if self.machines[instance_id].power == "on":
            self.made_with("dies-young", self.machines[instance_id].request.node)
            self.condemn(self.machines[instance_id].request.node, "died young")
            self.die(instance_id)

    def _boot(self, instance_id: str, boot_id: str) -> None:
        machine = self.machines[instance_id]
        if machine.power == "on" and machine.boot_id == boot_id and instance_id not in self.doomed:
            self.plugs[instance_id] = self.plug_in(machine)

    def plug_in(self, machine: FakeMachine) -> Plug:
        """Power for a machine: its agent runs."""
        settings = settings_of(machine)
        identity = Identity(
            node=settings.node, pool=settings.pool, generation=settings.generation, boot_id=machine.boot_id
        )
        rng = random.Random(self._rng.getrandbits(64))
        simulated = self.fleet.machine(identity, rng, periods=self._periods, gpu_count=self._gpu_count)
        if machine.instance_id in self.bare:
            simulated.driver.pretend(DriverState.MISSING)
        task = asyncio.get_running_loop().create_task(
            simulated.run(), name=f"machine/{machine.request.node}", context=WORLD.copy()
        )
        return Plug(simulated, task, machine.boot_id)

    def pull(self, plug: Plug) -> None:
        """Cuts the power of a machine that no cloud knows any more."""
        self._unplug(plug, graceful=False)

    def _unplug(self, plug: Plug, *, graceful: bool) -> None:
        if not graceful:
            plug.machine.pull_the_plug()
        plug.task.cancel()

    # --- control planes ---

    def ask(
        self, name: str, act: Callable[[], T], *, zone: str = "", pool: str = "", effect: bool = False
    ) -> "asyncio.Future[T]":
        """Sends one call; the future has its answer, if there ever is one."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        for hear in self.calls:
            hear(name, pool)
        forecast, air = self.forecast, self._air

        def arrive() -> None:
            if zone and zone in forecast.dark:
                return
            if self._strikes(forecast.refused, "cloud-refuses"):
                error: CloudError = self._rng.choice(
                    [Throttled("too many calls", retry_after_s=1.0), Upstream("the control plane is unwell")]
                )
                later(air.travel_s(), _answer, answer, None, error)
                return
            if effect and self._strikes(forecast.lost_request, "launch-lost"):
                self._break(answer, name)
                return
            result, failure = None, None
            try:
                self._by_call = True
                result = act()
            except CloudError as refusal:
                failure = refusal
            finally:
                self._by_call = False
            if effect and self._strikes(forecast.lost_reply, "launch-reply-lost"):
                self._break(answer, name)
                if isinstance(result, Machine) and forecast.weak and self._rng.random() < forecast.weak:
                    later(self._rng.uniform(0.0, 10.0), self._die_young, result.instance_id)
                return
            later(air.travel_s(), _answer, answer, result, failure)

        delay_s = air.travel_s()
        if self._strikes(forecast.slow, "slow-cloud"):
            delay_s += self._rng.uniform(0.0, forecast.slow_s)
        later(delay_s, arrive)
        return answer

    def _break(self, answer: "asyncio.Future[T]", name: str) -> None:
        if self._rng.random() >= self.forecast.hangs:
            later(self._air.travel_s(), _answer, answer, None, UnknownOutcome(f"the connection broke during {name}"))

    def _strikes(self, ratio: float, fault: str) -> bool:
        if ratio <= 0 or self._rng.random() >= ratio:
            return False
        self._met(fault)
        return True

    def launch(self, request: LaunchRequest) -> Machine:
        if request.zone in self.forecast.exhausted:
            self._met("stock-out")
            raise NoCapacity(f"no room in {request.zone}", scope="zone", ttl=timedelta(seconds=20))
        return self.world.launch(Order(request=request, gpu_count=self._gpu_count))

    def listed(self, cluster: str, provider: str) -> list[Machine]:
        if self._strikes(self.forecast.partial, "partial-list"):
            raise Upstream("the list ended in the middle")
        if self._strikes(self.forecast.stale, "stale-list"):
            return self._as_of(cluster, provider, self.forecast.stale_s)
        return self.world.machines(cluster, provider)

    def _as_of(self, cluster: str, provider: str, age_s: float) -> list[Machine]:
        """The list as it was: without what was made since, and with what has ended since."""
        then_s = asyncio.get_running_loop().time() - age_s
        then = self._clock.now() - timedelta(seconds=age_s)
        found = []
        for machine in self.machines.values():
            request = machine.request
            if request.cluster != cluster or request.provider != provider or machine.launched_at > then:
                continue
            if machine.power == "ended" and self.ended_at[machine.instance_id] <= then_s:
                continue
            told = self.world.get(machine.instance_id)
            found.append(replace(told, state=ProviderState.RUNNING) if told.state is ProviderState.GONE else told)
        return found


def _nobody_cares(one: str, other: str) -> None:
    """Until somebody does."""


def _answer(answer: "asyncio.Future[T]", result: T | None, error: CloudError | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)  # type: ignore[arg-type]


class SimCloud:
    """A `CloudProvider`: one account at one of the sky's clouds."""

    def __init__(self, name: str, sky: Sky) -> None:
        self._name, self._sky = name, sky

    @property
    def name(self) -> str:
        return self._name

    async def launch(self, request: LaunchRequest) -> Machine:
        return await self._sky.ask(
            "launch", lambda: self._sky.launch(request), zone=request.zone, pool=request.pool, effect=True
        )

    async def find(self, token: str) -> Machine | None:
        return await self._one("find", lambda: self._sky.world.by_token(token))

    async def list_machines(self, cluster: str) -> Sequence[Machine]:
        return await self._sky.ask("list", lambda: self._sky.listed(cluster, self._name))

    async def get(self, instance_id: str) -> Machine | None:
        return await self._one("get", lambda: self._sky.world.get(instance_id))

    async def terminate(self, instance_id: str, tags: Tags) -> None:
        def end() -> None:
            self._sky.world.terminate(instance_id, tags)

        await self._sky.ask("terminate", end, pool=tags.pool, effect=True)

    async def power_off(self, instance_id: str, tags: Tags) -> None:  # noqa: ARG002 - the port says so
        raise InvalidLaunch("this cloud has no such switch")

    async def power_on(self, instance_id: str, tags: Tags) -> None:  # noqa: ARG002 - the port says so
        raise InvalidLaunch("this cloud has no such switch")

    async def close(self) -> None:
        """It outlives everyone."""

    async def _one(self, name: str, act: Callable[[], Machine]) -> Machine | None:
        try:
            return await self._sky.ask(name, act)
        except NotFound:
            return None
