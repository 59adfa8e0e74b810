"""Both servers together: their ports, their start, their supervision, their end."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from navarch_controlplane.embedded.binaries import find_nats, find_redis
from navarch_controlplane.embedded.child import Child, ChildFailed, ChildSpec
from navarch_controlplane.embedded.datadir import DataDir, Ports, choose_port, port_is_free
from navarch_controlplane.embedded.nats import nats_spec
from navarch_controlplane.embedded.redis import redis_spec

_TRIES = 3
"""Somebody may take a port between our look and the server's start."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServerAddresses:
    """Where the servers listen; None for one that is not ours to run."""

    nats: str | None
    redis: str | None


class EmbeddedServers:
    """The servers that are wanted, as children. The data directory is held by the caller for as long as they run."""

    def __init__(
        self,
        data_dir: DataDir,
        environ: Mapping[str, str],
        rng: random.Random,
        *,
        nats: bool = True,
        redis: bool = True,
    ) -> None:
        self._data_dir, self._environ, self._rng = data_dir, environ, rng
        self._wanted = {"redis": redis, "nats": nats}
        self._children: dict[str, Child] = {}

    @property
    def children(self) -> Mapping[str, Child]:
        """By `nats` and `redis`."""
        return self._children

    @property
    def addresses(self) -> ServerAddresses:
        nats, redis = self._children.get("nats"), self._children.get("redis")
        return ServerAddresses(
            nats=f"nats://127.0.0.1:{nats.spec.port}" if nats else None,
            redis=f"redis://127.0.0.1:{redis.spec.port}/0" if redis else None,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ServerAddresses]:
        """Starts the servers, keeps them running, and stops them at the end. Raises `ChildFailed`, `ServerNotFound`."""
        ports = self._data_dir.read_ports()
        supervisors: list[asyncio.Task[None]] = []
        try:
            await self._start_all(ports)
            self._data_dir.write_ports(ports)
            supervisors = [
                asyncio.create_task(child.supervise(), name=f"supervise {child.spec.name}")
                for child in self._children.values()
            ]
            yield self.addresses
        finally:
            for task in supervisors:
                task.cancel()
            await asyncio.gather(*supervisors, return_exceptions=True)
            await self._stop()

    def kill(self) -> None:
        """Ends the servers at once, without waiting."""
        for child in self._children.values():
            child.kill()

    async def _start_all(self, ports: Ports) -> None:
        """Both at once: half of a start is Python and the servers waiting for the disk."""
        try:
            async with asyncio.TaskGroup() as starting:
                for name, wanted in self._wanted.items():
                    if wanted:
                        starting.create_task(self._start(name, ports), name=f"start {name}")
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # What stopped the other one says nothing more.

    async def _start(self, name: str, ports: Ports) -> None:
        kept: int = getattr(ports, name)
        for attempt in range(_TRIES):
            port = self._port(name, kept if attempt == 0 else 0, ports)
            setattr(ports, name, port)
            child = Child(self._spec(name, port), self._data_dir.lock_descriptor)
            try:
                await child.start()
            except ChildFailed:
                if attempt == _TRIES - 1 or port_is_free(port):
                    raise
                log.warning("port was taken meanwhile, choosing another", server=name, port=port)
            else:
                self._children[name] = child
                return

    def _port(self, name: str, kept: int, ports: Ports) -> int:
        if kept and port_is_free(kept):
            return kept
        port = choose_port(self._rng, taken={ports.nats, ports.redis})
        if kept:
            log.warning(
                "the server's port is taken by another program, choosing another", server=name, was=kept, port=port
            )
        return port

    def _spec(self, name: str, port: int) -> ChildSpec:
        make: Callable[[Path, Path, int], ChildSpec] = nats_spec if name == "nats" else redis_spec
        find = find_nats if name == "nats" else find_redis
        return make(find(self._environ), self._data_dir.path / name, port)

    async def _stop(self) -> None:
        for name in ("nats", "redis"):  # Reports wait in the bus's files; the store is the last to go.
            if child := self._children.get(name):
                await child.stop()
