"""The control plane: every service in several copies, each in a process of its own that may be killed or stalled.

It is the production code with another composition root: `deps_over` and `run_beside` build and run a process just as
`navarch_common.run` does for the real one; connections, clouds and clocks are the world's. A supervisor starts again
what has ended.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from navarch_autoscaler.service import AutoscalerService
from navarch_autoscaler.settings import AutoscalerSettings
from navarch_common.config.load import Loaded
from navarch_common.errors import NavarchError
from navarch_common.guard_file import MemoryGuardFile
from navarch_common.model.base import Service
from navarch_common.process import leaves
from navarch_common.run import Deps, RunningService, Surroundings, deps_over, run_beside
from navarch_common.telemetry import Telemetry
from navarch_gateway.service import GatewayService
from navarch_gateway.settings import GatewaySettings
from navarch_health.service import HealthService
from navarch_health.settings import HealthSettings
from navarch_provisioner.cloud.registry import Providers
from navarch_provisioner.service import ProvisionerService
from navarch_provisioner.settings import ProvisionerSettings, Timings
from navarch_sim.virtual.air import WORLD, later
from navarch_sim.virtual.ground import Ground
from navarch_sim.virtual.network import SimBus
from navarch_sim.virtual.process import SimProcess
from navarch_sim.virtual.sky import SimCloud
from navarch_sim.virtual.storage import SimStore

SERVICES: Final[tuple[Service, ...]] = ("health", "provisioner", "autoscaler", "gateway")
RESTART_S: Final = (0.5, 5.0)
"""How long the supervisor takes."""


class Crash(Exception):
    """A service ended with an error that nobody expects of it."""


class GatewayIndoors(GatewayService):
    """A gateway whose doors stay shut: there is no network to open them to. Operators of this world are inside."""

    async def run(self) -> None:
        await self.work()


class Copy:
    """One place for a process: its lives come one after the other."""

    def __init__(self, plane: "Plane", name: str, services: tuple[Service, ...]) -> None:
        self._plane, self.name, self.services = plane, name, services
        self.life = 0
        self.process: SimProcess | None = None
        self.bus: SimBus | None = None
        self.running: Mapping[Service, RunningService] = {}
        self.deps: Deps | None = None
        self._guard_file = MemoryGuardFile()
        """On its disk: it outlives every life."""
        self._graves: list[object] = []

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.process.dead

    def start(self) -> None:
        self.life += 1
        instance = f"{self.name}-life{self.life}"
        process = self.process = SimProcess(self.name, instance, self.kill)
        self.bus = SimBus(self._plane.ground.buses, self._plane.ground.air)
        task = process.start(self._live(instance, self.bus), instance)
        # A callback that belongs to the world: the end of a process is noticed by others.
        task.add_done_callback(self._ended, context=WORLD.copy())

    def kill(self, *, back_after_s: float | None = None) -> None:
        """`kill -9`, and the supervisor notices: soon, or only after a given time."""
        if not self.alive:
            return
        assert self.process is not None
        assert self.bus is not None
        self.process.kill()
        self.bus.cut()
        self._graves.append((self.process, self.bus, self.running, self.deps))
        self.running, self.deps = {}, None
        self._plane.ground.history.note("kill", self.process.instance)
        delay_s = self._plane.rng.uniform(*RESTART_S) if back_after_s is None else back_after_s
        later(delay_s, self._start_again, self.life)

    def _start_again(self, life: int) -> None:
        if life == self.life:
            self.start()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if self.process is None or task not in self.process.tasks or self.process.dead:
            return
        errors = [] if task.cancelled() or task.exception() is None else leaves(task.exception())  # type: ignore[arg-type]
        unexpected = [error for error in errors if not isinstance(error, NavarchError)]
        text = "; ".join(f"{type(error).__name__}: {error}"[:200] for error in errors) or "without an error"
        self._plane.ground.history.note("exit", f"{self.process.instance} {text}")
        if unexpected:
            self._plane.crashed(self.process.instance, unexpected[0])
        self.kill()

    async def _live(self, instance: str, bus: SimBus) -> None:
        plane = self._plane
        rng = random.Random(plane.rng.getrandbits(64))
        store = SimStore(plane.ground.stores, plane.ground.subjects, plane.ground.air)
        around = Surroundings(plane.own, {})
        alone = self.services[0] if len(self.services) == 1 else None
        deps = await deps_over(
            alone,
            around,
            store=store,
            bus=bus,
            subjects=plane.ground.subjects,
            rng=rng,
            telemetry=Telemetry(rng),
            instance=instance,
            first_config_wait_s=0.0,
        )
        deps = replace(deps, guard_file=self._guard_file)
        running = {service: plane.build(service, deps.named(service)) for service in self.services}
        self.deps, self.running = deps, running
        work: dict[str, Coroutine[Any, Any, None]] = {
            service: service_of.run() for service, service_of in running.items()
        }
        await run_beside(deps, alone or "control-plane", work, deps.relay())


class Plane:
    """All copies of all services."""

    def __init__(
        self,
        ground: Ground,
        rng: random.Random,
        own: Loaded,
        timings: Timings,
        crashed: Callable[[str, BaseException], None],
    ) -> None:
        """`own` is the configuration of every process; `crashed` hears of errors that nobody expects of a service."""
        self.ground, self.rng, self.own, self.crashed = ground, rng, own, crashed
        self._timings = timings
        self.copies: list[Copy] = []

    def staff(self, counts: Mapping[str, int], together: int) -> None:
        """Processes of one service each, so many of each; or `together` processes with all of them in each."""
        apart = [
            Copy(self, f"{service}-{n}", (service,)) for service in SERVICES for n in range(counts.get(service, 0))
        ]
        self.copies = [Copy(self, f"plane-{n}", SERVICES) for n in range(together)] or apart
        for copy in self.copies:
            later(self.rng.uniform(0.0, 1.0), copy.start)

    def of(self, service: Service) -> list[Copy]:
        return [copy for copy in self.copies if service in copy.services]

    def running(self, service: Service) -> list[RunningService]:
        """Those that have come to life and not died since."""
        return [copy.running[service] for copy in self.of(service) if copy.alive and service in copy.running]

    def build(self, service: Service, deps: Deps) -> RunningService:
        config = deps.config.current.config
        match service:
            case "health":
                return HealthService(deps, HealthSettings.of(config))
            case "autoscaler":
                return AutoscalerService(deps, AutoscalerSettings.of(config))
            case "provisioner":
                clouds = {name: SimCloud(name, self.ground.sky) for name in config.providers}
                settings = ProvisionerSettings.of(config, nats_url="nats://simulated", timings=self._timings)
                return ProvisionerService(deps, settings, data_dir=Path("nowhere"), providers=Providers(None, clouds))
            case _:
                return GatewayIndoors(deps, GatewaySettings.of(config))


QUICK = Timings(
    sweep_period=timedelta(seconds=30),
    leak_grace=timedelta(seconds=60),
    breaker_pause=timedelta(seconds=30),
    breaker_pause_max=timedelta(seconds=120),
)
"""The production rhythm, with less patience for leaks and bad images: a run lasts minutes, not days."""
