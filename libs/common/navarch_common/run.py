"""How a service comes to life: its connections as one value, its probes, its relay, and its end.

`main.py` of each service is a call of `run_service`; the one-process control plane builds one `Deps` for all with
`open_deps`.
"""

import argparse
import asyncio
import os
import random
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import structlog

from navarch_common import log as logs
from navarch_common.bus.base import Bus, BusError, BusTimeout, BusUnavailable
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.clock import Clock, ServerClock
from navarch_common.config import Config
from navarch_common.config.load import Loaded, load_file
from navarch_common.config.problems import ConfigError
from navarch_common.config.schema import TlsConfig
from navarch_common.events.subjects import Subjects
from navarch_common.guard_file import DiskGuardFile, GuardFile, NoGuardFile
from navarch_common.guarding import Guards, StoreWord
from navarch_common.in_force import FIRST_WAIT_S, ConfigWatch
from navarch_common.metrics import Metrics
from navarch_common.model.base import Service
from navarch_common.probes import serve_probes
from navarch_common.process import EXIT_USAGE, UsageError, main
from navarch_common.store.base import StateStore
from navarch_common.store.committer import Committer
from navarch_common.store.meta import Life
from navarch_common.store.redis import RedisStore
from navarch_common.store.redis_connect import RedisTls
from navarch_common.store.relay import Relay
from navarch_common.telemetry import Telemetry

__all__ = [
    "Deps",
    "RunningService",
    "ServiceOptions",
    "Surroundings",
    "UsageError",
    "deps_over",
    "main",
    "open_deps",
    "run_beside",
    "run_service",
    "serve_probes",
]

log = structlog.get_logger()

BUS_WAIT_S = 20.0
"""Servers of the bus elect a leader within ten seconds."""
STREAMS_PERIOD_S = 5.0
"""How often a process makes sure of the streams, though nothing says that one is gone."""
NATS_VARIABLE, REDIS_VARIABLE = "NAVARCH_NATS_URL", "NAVARCH_REDIS_URL"
PROBE_ADDRESSES: Mapping[Service, str] = {
    "health": ":9101",
    "autoscaler": ":9102",
    "provisioner": ":9103",
    "gateway": ":9104",
}
"""Where a service on its own serves its probes, unless `--metrics-addr` says otherwise."""


@dataclass(frozen=True, slots=True)
class Deps:
    """What a service needs of the outside."""

    store: StateStore
    bus: Bus
    committer: Committer
    clock: Clock
    rng: random.Random
    subjects: Subjects
    cluster: str
    life: Life
    config: ConfigWatch
    telemetry: Telemetry
    metrics: Metrics
    instance: str
    """This copy's name: host, pid and something random."""
    left: set[str] = field(default_factory=set)
    """Orders whose events this process's committers have left to its relay."""
    guard_file: GuardFile = field(default_factory=NoGuardFile)
    """Where this process keeps the guards beside the store and the bus."""
    store_word: StoreWord = field(default_factory=StoreWord)

    @property
    def installation(self) -> str:
        """Whose machines are ours, at this moment: an operator may have adopted another installation since."""
        return self.life.installation

    def named(self, service: Service) -> "Deps":
        """The same, as `service`: with its own committer and its own name in traces."""
        committer = Committer(self.store, self.bus, self.subjects, writer=service, clock=self.clock, left=self.left)
        return replace(self, committer=committer, telemetry=self.telemetry.named(service))

    def relay(self) -> Relay:
        """The one that this process runs."""
        return Relay(self.store, self.bus, self.subjects, self.clock, left=self.left)


class RunningService(Protocol):
    """What every control-plane service is."""

    async def run(self) -> None: ...
    @property
    def ready(self) -> bool: ...
    def status(self) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What the command line of one service says."""

    config: Path
    data_dir: Path
    metrics_address: str
    log_level: logs.Level
    insecure: bool


def instance_name(rng: random.Random) -> str:
    return f"{socket.gethostname()[:64]}-{os.getpid()}-{rng.getrandbits(24):06x}"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process was started with."""

    own: Loaded
    """Its own configuration file."""
    env: Mapping[str, str]
    data_dir: Path | None = None
    nats_url: str = ""
    """Wins over the environment, and that over the file."""
    redis_url: str = ""
    insecure: bool = False


@asynccontextmanager
async def open_deps(
    service: Service | None,
    around: Surroundings,
    *,
    first_config_wait_s: float = FIRST_WAIT_S,
) -> AsyncIterator[Deps]:
    """Connects bus and store, checks both, makes sure of streams and meta, and reads the configuration in force.

    `service` None is a process of several: see `Deps.named`. `first_config_wait_s` is 0 for whoever has the gateway in
    it. Raises `UsageError` where an address is missing, `BusError` and `StoreError` where a server cannot be used.
    """
    env, config = around.env, around.own.config
    rng = random.Random()
    subjects = Subjects(config.bus.prefix)
    instance = instance_name(rng)
    nats_url = around.nats_url or env.get(NATS_VARIABLE) or config.bus.url or ""
    redis_url = around.redis_url or env.get(REDIS_VARIABLE) or config.state.url or ""
    for url, key, variable in ((nats_url, "bus.url", NATS_VARIABLE), (redis_url, "state.url", REDIS_VARIABLE)):
        if not url:
            raise UsageError(f"no address: set {key} in the configuration, or {variable}")
    telemetry = Telemetry.open(service or "control-plane", rng, config.telemetry.otlp_endpoint, env)
    tls, replicas = _redis_tls(config.state.tls), config.state.replicas
    store = RedisStore(redis_url, cluster=config.cluster, subjects=subjects, tls=tls, replicas=replicas)
    bus: Bus | None = None
    try:
        bus = await JetStreamBus.connect(
            nats_url,
            name=f"navarch-{service or 'control-plane'} {instance}",
            rng=rng,
            credentials=None if config.bus.credentials is None else Path(config.bus.credentials),
            tls=_bus_tls(config.bus.tls),
        )
        over = partial(
            deps_over,
            service,
            around,
            store=store,
            bus=bus,
            subjects=subjects,
            rng=rng,
            telemetry=telemetry,
            instance=instance,
            first_config_wait_s=first_config_wait_s,
        )
        yield await once_the_bus_answers(over)
    finally:
        await telemetry.close()
        if bus is not None:
            await bus.close()
        await store.close()


async def once_the_bus_answers(
    attempt: Callable[[], Awaitable[Deps]], patience_s: float = BUS_WAIT_S, pause_s: float = 0.5
) -> Deps:
    """`attempt`'s result. While the bus is there and does not answer yet it is made again, for up to `patience_s`: servers
    that have just started, or lost one of them, are without a leader for several seconds. Raises what `attempt` raises."""
    now = asyncio.get_running_loop().time
    began = now()
    while True:
        try:
            return await attempt()
        except (BusTimeout, BusUnavailable) as error:
            if now() - began >= patience_s:
                raise
            log.info("waits for the bus", error=str(error))
        await asyncio.sleep(pause_s)


async def deps_over(  # noqa: PLR0913 - one value is made of all of them
    service: Service | None,
    around: Surroundings,
    *,
    store: StateStore,
    bus: Bus,
    subjects: Subjects,
    rng: random.Random,
    telemetry: Telemetry,
    instance: str,
    first_config_wait_s: float,
) -> Deps:
    """What a service needs, over connections that are open: checks both servers, makes sure of streams and meta, and reads
    the configuration in force. Raises `BusError` and `StoreError` where a server cannot be used."""
    config = around.own.config
    clock = ServerClock(store.now)
    await clock.anchor()
    for sentence in (
        *await store.check(),
        *await bus.ensure_streams(subjects.streams(), replicas=config.bus.replicas),
    ):
        log.warning("weaker than recommended", what=sentence)
    life = Life(
        store,
        bus,
        clock,
        rng,
        cluster=config.cluster,
        installation=config.installation or "",
        data_dir=around.data_dir,
        subjects=subjects,
    )
    await life.open()
    watch = ConfigWatch(store, bus, subjects, around.own, around.env, insecure=around.insecure)
    await watch.open(first_config_wait_s)
    metrics = Metrics()
    metrics.set("navarch_build_info", 1, version=_version(), service=service or "control-plane")
    left: set[str] = set()
    return Deps(
        store=store,
        bus=bus,
        committer=Committer(store, bus, subjects, writer=service, clock=clock, left=left),
        left=left,
        clock=clock,
        rng=rng,
        subjects=subjects,
        cluster=config.cluster,
        life=life,
        config=watch,
        telemetry=telemetry,
        metrics=metrics,
        instance=instance,
        guard_file=NoGuardFile() if around.data_dir is None else DiskGuardFile(around.data_dir),
    )


async def run_beside(deps: Deps, name: str, services: Mapping[str, Coroutine[Any, Any, None]], relay: Relay) -> None:
    """Runs services and what every process runs beside them, until cancelled or one of them fails."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(deps.life.run(), name="life")
        tasks.create_task(deps.config.run(), name="config")
        tasks.create_task(relay.run(), name="relay")
        tasks.create_task(Guards(deps).run(), name="guards")
        tasks.create_task(observe(deps, name), name="observe")
        if isinstance(deps.clock, ServerClock):
            tasks.create_task(deps.clock.run(), name="clock")
        tasks.create_task(keep_streams(deps), name="streams")
        for service, work in services.items():
            tasks.create_task(work, name=service)


def run_service(
    service: Service, build: Callable[[Deps, Config], RunningService], argv: Sequence[str] | None = None
) -> int:
    """The whole of one service's process: command line, connections, probes, relay, service. Returns the exit status."""
    options = _options(service, argv)
    logs.configure(options.log_level, service=service)
    try:
        own = load_file(options.config, os.environ, insecure=options.insecure)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    return main(_serve(service, build, options, own))


async def _serve(
    service: Service, build: Callable[[Deps, Config], RunningService], options: ServiceOptions, own: Loaded
) -> None:
    # A gateway brings the first generation itself, so it must not wait for one.
    wait_s = 0.0 if service == "gateway" else FIRST_WAIT_S
    around = Surroundings(own, os.environ, options.data_dir, insecure=options.insecure)
    async with open_deps(service, around, first_config_wait_s=wait_s) as deps:
        running = build(deps, deps.config.current.config)
        relay = deps.relay()

        def status() -> dict[str, object]:
            return {
                "service": service,
                "instance": deps.instance,
                "config_generation": deps.config.current.generation,
                "bus": deps.bus.status,
                "relay": relay.status,
                "life": deps.life.status,
                service: running.status(),
            }

        def ready() -> bool:
            return running.ready and deps.bus.status.connected

        async with serve_probes(options.metrics_address, ready=ready, status=status, metrics=deps.metrics):
            await run_beside(deps, service, {service: running.run()}, relay)


async def keep_streams(deps: Deps) -> None:
    """Makes the streams again where the bus came back without them: after the loss of its disk, say. What waits in the
    outbox then goes out, and the services tell again what still holds (`told`)."""
    complained: list[str] = []
    error = ""
    while True:
        disconnects = deps.bus.status.disconnects
        replicas = deps.config.current.config.bus.replicas
        try:
            sentences, failed = await deps.bus.ensure_streams(deps.subjects.streams(), replicas=replicas), ""
        except BusError as failure:
            sentences, failed = complained, str(failure)
        if failed and not error:
            log.warning("streams not looked after", error=failed)
        for sentence in sentences:
            if sentence not in complained:
                log.warning("weaker than recommended", what=sentence)
        complained, error = sentences, failed
        for _ in range(round(STREAMS_PERIOD_S)):
            await asyncio.sleep(1.0)
            if deps.bus.status.connected and (failed or deps.bus.status.disconnects != disconnects):
                break


async def observe(deps: Deps, service: str, period_s: float = 5.0) -> None:
    """Keeps the metrics of this process's own connections."""
    disconnects = dropped = 0
    while True:
        status = deps.bus.status
        deps.metrics.count("navarch_bus_disconnects_total", status.disconnects - disconnects)
        deps.metrics.count("navarch_bus_dropped_messages_total", status.dropped - dropped)
        disconnects, dropped = status.disconnects, status.dropped
        deps.metrics.set("navarch_config_generation", deps.config.current.generation, service=service)
        await asyncio.sleep(period_s)


@cache
def _version() -> str:
    return version("navarch-common")


def _options(service: Service, argv: Sequence[str] | None) -> ServiceOptions:
    """Exits with 2 on a command line that is wrong, as argparse does."""
    parser = argparse.ArgumentParser(prog=f"navarch-{service}", allow_abbrev=False)
    parser.add_argument("--config", "-c", type=Path, required=True, metavar="FILE", help="the configuration")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path("navarch-data"),
        metavar="DIR",
        help="shared by the services of one machine",
    )
    parser.add_argument(
        "--metrics-addr",
        default=PROBE_ADDRESSES.get(service, ":0"),
        metavar="HOST:PORT",
        help="where /livez, /readyz and /metrics are served (%(default)s)",
    )
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info")
    parser.add_argument("--insecure", action="store_true", help="as `insecure: true` in the configuration")
    parser.add_argument("--version", action="version", version=f"navarch-{service} {_version()}")
    given = parser.parse_args(argv)
    return ServiceOptions(given.config, given.data_dir, given.metrics_addr, given.log_level, given.insecure)


def _bus_tls(tls: TlsConfig | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
        if tls.cert_file is not None:
            context.load_cert_chain(str(tls.cert_file), None if tls.key_file is None else str(tls.key_file))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"bus.tls: {error}") from error
    return context


def _redis_tls(tls: TlsConfig | None) -> RedisTls | None:
    if tls is None:
        return None
    names = (tls.ca_file, tls.cert_file, tls.key_file)
    return RedisTls(*(None if name is None else str(name) for name in names))
