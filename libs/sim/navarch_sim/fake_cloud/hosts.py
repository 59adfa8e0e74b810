"""Where machines run: one task each, around the very agent that real machines have.

The condition that is kept: a machine that is on and not mute has one task, of its latest boot; any other has none. Machines that
speak to the same servers share one connection, made when the first of them boots.
"""

import asyncio
import os
import random
import ssl
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from navarch_agent.commands import Periods
from navarch_agent.identity import Identity
from navarch_agent.settings import AgentSettings, SettingsError, parse
from navarch_agent.simulated import SimulatedFleet, SimulatedMachine
from navarch_common.bus.base import Bus, BusUnavailable
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.clock import Clock
from navarch_common.events.subjects import Subjects
from navarch_common.telemetry import Telemetry
from navarch_provisioner.cloud.base import InvalidLaunch
from navarch_sim.fake_cloud.world import FakeMachine

log = structlog.get_logger("navarch.fake_cloud")

_CRASH_PAUSE_S = 1.0
_RECONNECT_S = (0.5, 15.0)
GOODBYE_S = 4.0
"""An agent takes three seconds at most."""


class Listener(Protocol):
    """Who is told of what machines do by themselves, and knows what the world does to them."""

    def is_dark(self, instance_id: str) -> bool:
        """Whether the machine is cut off from the network."""
        ...

    def stopped(self, instance_id: str, boot_id: str) -> None: ...
    def crashed(self, instance_id: str, boot_id: str) -> None: ...


class _Route(NamedTuple):
    """The servers that a machine speaks to, and how."""

    server: str
    prefix: str
    credentials: Path | None
    tls_ca: Path | None


class _Socket:
    """Where a machine is plugged in."""

    def __init__(self, boot_id: str) -> None:
        self.boot_id = boot_id
        self.machine: SimulatedMachine | None = None
        """None until it has booted."""
        self.task: asyncio.Task[None] | None = None

    def unplug(self, *, graceful: bool) -> None:
        if self.machine is not None and not graceful:
            self.machine.pull_the_plug()
        if self.task is not None:
            self.task.cancel()


def settings_of(machine: FakeMachine) -> AgentSettings:
    """What the machine's agent is told. Raises `InvalidLaunch` where the request's environment makes no sense."""
    request = machine.request
    environ: Mapping[str, str] = {
        **request.agent_env,
        "NAVARCH_AGENT_NODE_ID": request.node,
        "NAVARCH_AGENT_POOL": request.pool,
        "NAVARCH_AGENT_GENERATION": str(request.generation),
        "NAVARCH_AGENT_DRIVER": "fake",
        "NAVARCH_AGENT_GPU_COUNT": str(machine.gpu_count),
        "NAVARCH_AGENT_BOOT_ID": machine.boot_id,
    }
    try:
        return parse([], environ)
    except SettingsError as error:
        raise InvalidLaunch(f"agent_env of {request.node}: {error}") from error


class Hosts:
    """Runs machines. `apply` may be called before `run` and at any time."""

    def __init__(self, clock: Clock, rng: random.Random, listener: Listener) -> None:
        self._clock = clock
        self._rng = rng
        self._listener = listener
        self._telemetry = Telemetry.open("agent", rng, None, os.environ)
        self._sockets: dict[str, _Socket] = {}
        self._leaving: dict[str, _Socket] = {}
        self._fleets: dict[_Route, asyncio.Future[SimulatedFleet]] = {}
        self._early: list[FakeMachine] = []
        self._links: asyncio.TaskGroup | None = None
        self._machines: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled; then every machine shuts down in good order, and after them their connections.

        Raises `BusUnavailable` when a connection was closed for good: then the whole cloud must begin anew.
        """
        try:
            async with asyncio.TaskGroup() as self._links, asyncio.TaskGroup() as self._machines:
                for machine in self._early:
                    self.apply(machine)
                self._early.clear()
                await asyncio.Event().wait()
        finally:
            await self._telemetry.close()

    def apply(self, machine: FakeMachine) -> None:
        """Lets the machine's task be what the machine is now."""
        if self._machines is None:
            self._early.append(machine)
            return
        name = machine.instance_id
        socket = self._sockets.get(name)
        if socket is not None and (machine.power != "on" or socket.boot_id != machine.boot_id):
            self._leaving[name] = self._sockets.pop(name)
            socket.unplug(graceful=machine.graceful)
            socket = None
        if machine.power == "on" and socket is None and not machine.mute:
            socket = self._sockets[name] = _Socket(machine.boot_id)
            socket.task = self._machines.create_task(
                self._live(machine, socket), name=f"machine:{machine.request.node}"
            )

    async def gone(self, instance_id: str) -> None:
        """Returns when the machine's latest boot, which was ended, has said goodbye, or has had the time for it."""
        await self.all_gone([instance_id])

    async def all_gone(self, instance_ids: Iterable[str]) -> None:
        """The same for many, within the time that one has."""
        sockets = [self._leaving[name] for name in instance_ids if name in self._leaving]
        goodbyes = {socket.task for socket in sockets if socket.task is not None}
        if goodbyes:
            await asyncio.wait(goodbyes, timeout=GOODBYE_S)

    async def _live(self, machine: FakeMachine, socket: _Socket) -> None:
        try:
            await asyncio.sleep(max(0.0, (machine.booted_at - self._clock.now()).total_seconds()))
            settings = settings_of(machine)
            fleet = await asyncio.shield(self._fleet(settings))
            identity = Identity(
                node=settings.node, pool=settings.pool, generation=settings.generation, boot_id=settings.boot_id
            )
            periods = Periods(
                heartbeat_s=settings.heartbeat_interval_s, health_check_s=settings.health_check_interval_s
            )
            rng = random.Random(self._rng.getrandbits(64))
            socket.machine = fleet.machine(
                identity, rng, periods=periods, gpu_count=machine.gpu_count,
                unreachable=partial(self._listener.is_dark, machine.instance_id),
            )  # fmt: skip
            await socket.machine.run()
        except Exception as error:
            log.error("machine crashed, it boots again", node=machine.request.node, error=repr(error), exc_info=error)
            await asyncio.sleep(_CRASH_PAUSE_S)
            self._listener.crashed(machine.instance_id, machine.boot_id)
        else:
            log.info("machine shut itself down", node=machine.request.node)
            self._listener.stopped(machine.instance_id, machine.boot_id)
        finally:
            if self._leaving.get(machine.instance_id) is socket:
                del self._leaving[machine.instance_id]

    def _fleet(self, settings: AgentSettings) -> asyncio.Future[SimulatedFleet]:
        """The machines on one connection, once there is one."""
        assert self._links is not None
        route = _Route(settings.server, settings.subject_prefix, settings.credentials, settings.tls_ca)
        if route not in self._fleets:
            fleet = self._fleets[route] = asyncio.get_running_loop().create_future()
            self._links.create_task(self._link(settings, fleet), name=f"link:{route.prefix}")
        return self._fleets[route]

    async def _link(self, settings: AgentSettings, connected_fleet: asyncio.Future[SimulatedFleet]) -> None:
        bus = await self._connected(settings)
        try:
            subjects = Subjects(settings.subject_prefix)
            fleet = SimulatedFleet(bus, subjects, clock=self._clock, telemetry=self._telemetry)
            connected_fleet.set_result(fleet)
            await fleet.run()
        finally:
            await bus.close()

    async def _connected(self, settings: AgentSettings) -> Bus:
        """A connection to the machines' servers, however long that takes."""
        backoff_s = _RECONNECT_S[0]
        while True:
            try:
                tls = ssl.create_default_context(cafile=str(settings.tls_ca)) if settings.tls_ca else None
                return await JetStreamBus.connect(
                    settings.server,
                    name="navarch-fake-cloud",
                    rng=self._rng,
                    credentials=settings.credentials,
                    tls=tls,
                )
            except (BusUnavailable, OSError) as error:
                log.warning("machines are not connected, trying again", why=str(error), in_s=backoff_s)
            await asyncio.sleep(backoff_s * self._rng.uniform(0.5, 1.0))
            backoff_s = min(backoff_s * 2, _RECONNECT_S[1])
