"""The whole control plane in one process: servers, connections, services, machines; begun and ended in this order.

What comes in: a configuration and a data directory that is held. What goes out: `runtime.json` while everything is
ready. It owns no records.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from navarch_common.config.load import Loaded
from navarch_common.errors import NavarchError
from navarch_common.run import Deps, RunningService, Surroundings, open_deps, run_beside
from navarch_controlplane.composition import Composition, compose
from navarch_controlplane.embedded.datadir import DataDir, Runtime, started_at
from navarch_controlplane.embedded.servers import EmbeddedServers
from navarch_controlplane.power import power_off
from navarch_controlplane.settings import ControlPlaneSettings

_LOOK_S = 0.02

log = structlog.get_logger(__name__)


class NotReady(NavarchError):
    """A service did not become ready in time; the message names it."""


class ControlPlane:
    """One run of the control plane."""

    def __init__(
        self,
        own: Loaded,
        config_file: Path,
        settings: ControlPlaneSettings,
        data_dir: DataDir,
        environ: Mapping[str, str],
        announce: Callable[[Runtime], None],
        *,
        insecure: bool = False,
    ) -> None:
        """`announce` is called once, when everything is ready. The data directory is locked by the caller."""
        self._own, self._config_file, self._settings = own, config_file, settings
        self._data_dir, self._environ, self._announce = data_dir, environ, announce
        self._insecure = insecure
        self._opened, self._stop = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Until cancelled, which is a clean stop. Raises what stopped a service, `NotReady`, `ChildFailed`.

        A stop that comes while everything is being opened waits for that: there may be machines of a control plane that
        was killed, and they can be powered off only by whoever reaches their records.
        """
        life = asyncio.create_task(self._live(), name="control plane")
        try:
            await asyncio.shield(life)
        except asyncio.CancelledError:
            if life.cancelled():
                raise
            self._stop.set()
            await self._opened_or_given_up(life)
            await asyncio.wait({life})
            if not life.cancelled() and (error := life.exception()) is not None:
                raise error from None
            raise

    async def _opened_or_given_up(self, life: asyncio.Task[None]) -> None:
        opened = asyncio.create_task(self._opened.wait(), name="opened")
        await asyncio.wait({life, opened}, timeout=self._settings.open_patience_s, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if not self._opened.is_set():
            life.cancel()

    async def _live(self) -> None:
        self._data_dir.remove_runtime()
        try:
            async with self._surroundings() as around, open_deps(None, around, first_config_wait_s=0) as deps:
                composition = compose(deps, around, self._config_file, self._data_dir.path)
                self._opened.set()
                try:
                    await self._serve(deps, composition, around)
                    await self._power_off(composition)
                finally:
                    await composition.providers.close()
        finally:
            self._data_dir.remove_runtime()

    @asynccontextmanager
    async def _surroundings(self) -> AsyncIterator[Surroundings]:
        """With the addresses of NATS and Redis, which are started here where none are given."""
        nats_url, redis_url = self._settings.nats_url, self._settings.redis_url
        servers = EmbeddedServers(
            self._data_dir, self._environ, random.Random(), nats=not nats_url, redis=not redis_url
        )
        async with servers.running() as ours:
            yield Surroundings(
                own=self._own,
                env=self._environ,
                data_dir=self._data_dir.path,
                nats_url=nats_url or ours.nats or "",
                redis_url=redis_url or ours.redis or "",
                insecure=self._insecure,
            )

    async def _serve(self, deps: Deps, composition: Composition, around: Surroundings) -> None:
        """Runs the services until one fails or we are to stop; does not wait for one that is slow to stop."""
        if self._stop.is_set():
            return
        services = asyncio.create_task(self._services(deps, composition, around), name="services")
        stopping = asyncio.create_task(self._stop.wait(), name="stopping")
        try:
            await asyncio.wait({services, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            failed = services.done()
            services.cancel()
            _, slow = await asyncio.wait({services}, timeout=self._settings.services_stop_timeout_s)
            if slow:
                log.warning("services are slow to stop, going on", after_s=self._settings.services_stop_timeout_s)
        if failed:
            services.result()

    async def _services(self, deps: Deps, composition: Composition, around: Surroundings) -> None:
        work = {name: service.run() for name, service in composition.services.items()}
        relay = deps.relay()
        await run_beside(deps, "control-plane", {**work, "announce": self._tell_when_ready(composition, around)}, relay)

    async def _tell_when_ready(self, composition: Composition, around: Surroundings) -> None:
        await self._until_ready(composition.services)
        runtime = Runtime(
            http=composition.gateway.http_url, grpc=f"grpc://{composition.gateway.grpc_address}", nats=around.nats_url, redis=around.redis_url,
            pid=os.getpid(), started_at=started_at(os.getpid()) or 0.0,
        )  # fmt: skip
        self._data_dir.write_runtime(runtime)
        log.info("ready", http=runtime.http, grpc=runtime.grpc, nats=runtime.nats)
        self._announce(runtime)

    async def _until_ready(self, services: Mapping[str, RunningService]) -> None:
        try:
            async with asyncio.timeout(self._settings.ready_timeout_s):
                while not all(service.ready for service in services.values()):
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            waiting = ", ".join(name for name, service in services.items() if not service.ready)
            raise NotReady(
                f"not ready after {self._settings.ready_timeout_s:g} s: {waiting}; the log says more"
            ) from None

    async def _power_off(self, composition: Composition) -> None:
        try:
            async with asyncio.timeout(self._settings.power_off_timeout_s):
                count = await power_off(composition.provisioner_deps, composition.providers)
        except (NavarchError, TimeoutError) as error:
            log.error(
                "machines could not be powered off; the next start adopts them", error=str(error) or "no time left"
            )
        else:
            log.info("machines powered off", count=count)
