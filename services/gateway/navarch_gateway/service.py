"""The gateway's shell: keeps what is known fresh, serves both doors, brings the configuration file into force, and takes
answered wishes out of the records.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import structlog

from navarch_api import types as t
from navarch_common.bus.base import BusError
from navarch_common.copies import Member, Presence
from navarch_common.reconcile import Reconciler, ReconcileResult
from navarch_common.run import Deps
from navarch_common.store.base import Conflict
from navarch_gateway import gauges
from navarch_gateway.acts import Acts
from navarch_gateway.cache import Cache
from navarch_gateway.config_keeper import ConfigKeeper
from navarch_gateway.direct import Direct
from navarch_gateway.fleet import Fleet
from navarch_gateway.forward import Forward
from navarch_gateway.guarded import Guarded
from navarch_gateway.history import History
from navarch_gateway.http.app import Probes, make_app
from navarch_gateway.http.server import bind, serve_http
from navarch_gateway.postmaster import Postmaster
from navarch_gateway.proposer import Proposer
from navarch_gateway.prune import pruned_change_wishes, pruned_node_wishes, pruned_pool_wishes
from navarch_gateway.reads import Reads
from navarch_gateway.rpc.server import GrpcServer, serve_grpc
from navarch_gateway.settings import GatewaySettings
from navarch_gateway.status import Backstage, ServicesStatus, cluster_status, look
from navarch_gateway.steering import Steering

log = structlog.get_logger(__name__)

REFRESH = timedelta(seconds=1)
LOOK = timedelta(seconds=2)
PRUNE = timedelta(seconds=15)
GUARD = timedelta(seconds=1)
EVENT_PAUSE_S = 0.05
"""Events come in bursts: the records are read once for all that came within this."""


class GatewayService:
    """One copy of the gateway. Any number may run: none keeps state."""

    def __init__(self, deps: Deps, settings: GatewaySettings, services: ServicesStatus | None = None) -> None:
        """`services` tells what the other services of this process say of themselves, for `navarch status`."""
        self._deps, self._settings = deps, settings
        self._services = services
        self._cache = Cache(deps.store, deps.clock)
        self._direct = Direct(deps.store, deps.clock)
        self._behind: Backstage | None = None
        self._warnings: tuple[str, ...] = ()
        self._refresher = Reconciler("gateway", self._refresh, REFRESH, deps.clock, deps.metrics, step_limit_s=30.0)
        self._looker = Reconciler("gateway-look", self._look, LOOK, deps.clock, deps.metrics, step_limit_s=30.0)
        self._guarded = Guarded(deps)
        self._guard_keeper = Reconciler(
            "gateway-guards", self._guarded.keep, GUARD, deps.clock, deps.metrics, step_limit_s=30.0
        )
        self._pruner = Reconciler("gateway-prune", self._prune, PRUNE, deps.clock, deps.metrics)
        self._presence = Presence(deps, "gateway", Member(lambda: self.ready, self._results, self._facts))
        self._proposer = _proposer(deps, settings)
        self._grpc: GrpcServer | None = None
        self._waking: asyncio.TimerHandle | None = None
        self.http_url = ""
        """Where the HTTP door is; empty until it is open."""
        self.grpc_address = ""
        history = History(deps.bus, deps.subjects, deps.clock)
        reads = Reads(deps, self._cache, self._direct, history)
        self.fleet = Fleet(
            reads=reads,
            acts=Acts(deps, self._cache, self._direct, history, self._guarded),
            steering=Steering(deps),
            forward=Forward(deps, self._direct),
            history=history,
            postmaster=Postmaster(deps),
            cache=self._cache,
            clock=deps.clock,
            metrics=deps.metrics,
            status=self._cluster_status,
            pools=lambda: tuple(deps.config.current.config.pools),
        )
        deps.metrics.before_render(self._measure)
        self.app = make_app(self.fleet, Probes(lambda: self.ready, self._said, deps.metrics.render))

    @property
    def ready(self) -> bool:
        """It knows what is there, both doors are open, and what it knows is not too old to be shown."""
        return self._cache.fresh and bool(self.http_url) and bool(self.grpc_address)

    def status(self) -> dict[str, object]:
        return {
            "http": self.http_url,
            "grpc": self.grpc_address,
            "refresh": self._refresher.last,
            "look": self._looker.last,
            "prune": self._pruner.last,
            "guards": self._guard_keeper.last,
            "config_error": self._proposer.last_error if self._proposer else "",
        }

    def _results(self) -> list[tuple[str, ReconcileResult | None]]:
        loops = (self._refresher, self._looker, self._pruner)
        return [(loop.name, loop.last) for loop in loops]

    def _facts(self) -> dict[str, str | int | float | bool | None]:
        return {"http": self.http_url, "grpc": self.grpc_address}

    async def run(self) -> None:
        """Until cancelled. Raises `PortTaken` where a door cannot open, `ConfigError` where the first file is wrong."""
        settings = self._settings
        with bind(settings.http_host, settings.http_port) as sock:
            if self._proposer is not None:
                await self._proposer.first()
                await self._deps.config.refresh()
            async with serve_grpc(self.fleet, settings.grpc_host, settings.grpc_port) as self._grpc:
                self.grpc_address = _joined(settings.grpc_host, self._grpc.port)
                self.http_url = f"http://{_joined(settings.http_host, sock.getsockname()[1])}"
                log.info("doors open", http=self.http_url, grpc=self.grpc_address)
                try:
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self.work(), name="gateway-work")
                        tasks.create_task(serve_http(self.app, sock), name="gateway-http")
                        tasks.create_task(ConfigKeeper(self._deps).run(), name="gateway-config-keeper")
                        if self._proposer is not None:
                            tasks.create_task(self._proposer.run(), name="gateway-config")
                finally:
                    self.http_url = self.grpc_address = ""

    async def work(self) -> None:
        """What goes on behind the doors, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._presence.run(), name="gateway-presence")
            tasks.create_task(self._refresher.run(), name="gateway-refresh")
            tasks.create_task(self._looker.run(), name="gateway-look")
            tasks.create_task(self._pruner.run(), name="gateway-prune")
            tasks.create_task(self._guard_keeper.run(), name="gateway-guards")
            tasks.create_task(self._follow_events(), name="gateway-events")

    async def _refresh(self) -> None:
        await self._cache.refresh()
        if self._grpc is not None:
            await self._grpc.set_serving(self.ready)

    async def _look(self) -> None:
        if self._behind is None:
            self._warnings = tuple(await self._deps.store.check())
        self._behind = await look(self._deps, self._behind, self._warnings)

    async def _prune(self) -> dict[str, int]:
        """Takes answered wishes out. Its condition: no wish stays in a record after its owner has given the final answer."""
        if not self._cache.fresh:
            return {"pruned": 0, "conflicts": 0}
        known, now = self._cache.known(), self._deps.clock.now()
        commits = [
            *pruned_node_wishes(known, now),
            *pruned_pool_wishes(known, now),
            *pruned_change_wishes(known, now),
        ]
        conflicts = 0
        for commit in commits:
            try:
                await self._deps.committer.commit(commit)
            except Conflict:
                conflicts += 1  # seen again on the next pass
        return {"pruned": len(commits) - conflicts, "conflicts": conflicts}

    async def _follow_events(self) -> None:
        """An event tells that records changed. While the bus is away the period does."""
        while True:
            try:
                async with self._deps.bus.subscribe(self._deps.subjects.events) as events:
                    about_the_whole = f"{self._deps.subjects.prefix}.events.cluster."
                    async for event in events:
                        self._wake_soon()
                        if event.subject.startswith(about_the_whole):
                            self._looker.wake()
                return
            except BusError as error:
                log.warning("events are not heard", error=str(error))
                await asyncio.sleep(1.0)

    def _wake_soon(self) -> None:
        if self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(EVENT_PAUSE_S, self._wake)

    def _wake(self) -> None:
        self._waking = None
        self._refresher.wake()

    def _cluster_status(self) -> t.ClusterStatus:
        behind = self._behind or Backstage(as_of=self._deps.clock.now())
        services: dict[str, Mapping[str, object]] = {"gateway": self.status()}
        if self._services is not None:
            services |= self._services()
        return cluster_status(self._deps, self._cache.latest, behind, services, ready=self.ready)

    def _said(self) -> dict[str, object]:
        return {
            "ready": self.ready,
            "instance": self._deps.instance,
            "config_generation": self._deps.config.current.generation,
            "gateway": self.status(),
        }

    def _measure(self) -> None:
        """Gauges of what is known now; none of what is not."""
        if self._cache.latest is not None and self._behind is not None:
            gauges.put(
                self._deps.metrics, gauges.state_gauges(self._cache.latest, self._behind, self._deps.clock.now())
            )


def _proposer(deps: Deps, settings: GatewaySettings) -> Proposer | None:
    if (proposal := settings.proposal) is None:
        return None
    return Proposer(deps, proposal.path, proposal.env, insecure=proposal.insecure)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
