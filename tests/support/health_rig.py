"""A copy of health over a store and a bus in memory, whose time passes when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace

from msgspec import structs

from fixtures.world import World
from navarch_common.clock import Clock
from navarch_common.events import encode
from navarch_common.events.messages import HealthReport, Heartbeat
from navarch_common.model.health import HEALTH, HealthRecord
from navarch_common.model.node import NODE, NodeRecord
from navarch_common.store.base import Stored
from navarch_health.service import OBSERVE_S, HealthService
from navarch_health.settings import HealthSettings
from support.deps import make_deps, running, until
from support.health_world import BOOT, T0, heartbeat

CONFIG = """
providers: {local: {type: local}}
pools:
  training: {provider: local, instance_type: h100-8x, min_nodes: 1, max_nodes: 100}
"""
REPORTS = "NAVARCH_REPORTS"


class Rig:
    """What a test does to health, and what it sees of it."""

    def __init__(
        self,
        world: World,
        *,
        text: str = CONFIG,
        instance: str = "copy-1",
        own: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """`own`: connections of its own, as another process has. `clock` is this copy's own; None is the world's."""
        deps = make_deps(world, "health", text, instance=instance)
        deps = replace(deps, clock=clock or deps.clock)
        if own:
            store, bus = world.another_process()
            deps = replace(deps, store=store, bus=bus).named("health")
        self.world, self.deps = world, deps
        self.monotonic_s = 0.0
        settings = HealthSettings.of(deps.config.current.config)
        self.service = HealthService(deps, settings, monotonic_s=lambda: self.monotonic_s)
        self.sequence = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        async with running(self.service):
            await until(lambda: self.service.ready, "health is ready")
            yield self

    async def step(self) -> dict[str, int]:
        """One pass of the watch, after what was published has been heard."""
        await asyncio.sleep(0.005)
        await self.service._hearing._write_batch()
        return await self.service._watch.step()

    async def pass_time(self, seconds: float, beating: Iterable[str] = (), *, deaf: bool = False) -> None:
        """Time passes in small steps; nodes in `beating` send a heartbeat each five seconds; the watch looks each second."""
        names = list(beating)
        for tick in range(round(seconds / OBSERVE_S)):
            self.world.advance(OBSERVE_S)
            self.monotonic_s += OBSERVE_S
            self.service._observer.note(self.deps.clock.now(), self.monotonic_s, self.deps.bus.status)
            if tick % round(5 / OBSERVE_S) == 0:
                for name in names:
                    await self.beat(name)
            if tick % round(1 / OBSERVE_S) == 0 and not deaf:
                await self.step()
        await self.step()

    async def beat(self, name: str, **fields: object) -> Heartbeat:
        self.sequence += 1
        beat = heartbeat(name, sequence=self.sequence, at=self.world.clock.now(), **fields)
        await self.world.bus.publish(f"navarch.heartbeat.{name}", encode(beat))
        return beat

    async def report(self, said: HealthReport, *, msg_id: str = "") -> None:
        subject = f"navarch.reports.{said.node}.health"
        unique = msg_id or f"{said.node}-{said.generation}-{said.boot_id}-{said.sequence}"
        await self.world.bus.publish_durable(subject, encode(said), msg_id=unique)

    async def health(self, name: str) -> HealthRecord:
        stored = await self.world.store.get(HEALTH.key(name))
        assert stored is not None, f"nothing is thought of {name}"
        return stored.record

    async def becomes(self, name: str, status: str) -> HealthRecord:
        found: Stored[HealthRecord] | None = None
        for _ in range(2000):
            found = await self.world.store.get(HEALTH.key(name))
            if found is not None and found.record.status == status:
                return found.record
            await asyncio.sleep(0.002)
        raise AssertionError(f"{name} never became {status}; the record is {found}")

    async def settled(self) -> None:
        """Every report has been acknowledged."""
        for _ in range(2000):
            if not await self.world.bus.pending(REPORTS, "health"):
                return
            await asyncio.sleep(0.002)
        raise AssertionError("reports still wait")

    async def edit(self, name: str, **fields: object) -> NodeRecord:
        """What the provisioner writes into the node's record."""
        stored = await self.world.store.get(NODE.key(name))
        assert stored is not None
        record = structs.replace(stored.record, **fields)
        await self.world.plant((NODE.key(name), record))
        return record


__all__ = ["BOOT", "CONFIG", "REPORTS", "T0", "Rig"]
