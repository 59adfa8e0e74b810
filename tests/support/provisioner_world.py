"""A copy of the provisioner over a store, a bus and a cloud in memory: what a test does to it, and what it sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from msgspec import structs

from fixtures.world import World
from navarch_common.clock import Clock
from navarch_common.events import encode
from navarch_common.events.messages import Heartbeat, Registered
from navarch_common.model.gpu import Gpu, GpuSample
from navarch_common.model.health import HEALTH, HealthRecord, HealthStatus
from navarch_common.model.node import NODE, LaunchRequest, NodeRecord, Phase, ProviderState, Registration
from navarch_common.model.pool import POOL, VERDICTS, PoolRecord, VerdictsMarker
from navarch_common.model.wish import NODE_WISHES, NodeWishes, Wish
from navarch_common.store.base import Beat
from navarch_provisioner.cloud.base import CloudError, InvalidLaunch, Machine, NotFound, Tags, UnknownOutcome
from navarch_provisioner.cloud.registry import Providers
from navarch_provisioner.service import ProvisionerService
from navarch_provisioner.settings import ProvisionerSettings, Timings
from support.deps import make_deps, running, until

POOL_NAME = "training"
CONFIG = """
providers: {cloud: {type: fake}}
pools:
  training: {provider: cloud, instance_type: h100-8x, min_nodes: 1, max_nodes: 20, scale_down: {idle_after: 60s}}
"""
QUICK = Timings(
    reconcile_period=timedelta(seconds=0.05),
    sweep_period=timedelta(seconds=0.05),
    report_patience=timedelta(seconds=0.5),
    command_repeat=timedelta(seconds=0.05),
)
"""Real time passes quickly; the clock's time passes when the test says so."""


@dataclass
class MemoryCloud:
    """A cloud that outlives every copy of the provisioner. Atomic in tokens, like a good one; as unreliable as it is told."""

    clock: Clock
    name: str = "cloud"
    machines: dict[str, Machine] = field(default_factory=dict)
    by_token: dict[str, str] = field(default_factory=dict)
    requests: dict[str, LaunchRequest] = field(default_factory=dict)
    made: list[LaunchRequest] = field(default_factory=list)
    """Every machine that was ever made, in order."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    terminated: list[str] = field(default_factory=list)
    lose: int = 0
    """How many of the next launches take effect and lose their reply."""
    drop: int = 0
    """How many of the next launches are lost before they take effect."""
    refuse: list[CloudError] = field(default_factory=list)
    list_error: CloudError | None = None
    pause: Callable[[str], Any] | None = None
    """Awaited in the middle of each call, named by its operation."""

    async def _turn(self, operation: str, about: str) -> None:
        self.calls.append((operation, about))
        await asyncio.sleep(0)
        if self.pause is not None:
            waited = self.pause(operation)
            if waited is not None:
                await waited

    async def launch(self, request: LaunchRequest) -> Machine:
        await self._turn("launch", request.node)
        if self.refuse:
            raise self.refuse.pop(0)
        if self.drop:
            self.drop -= 1
            raise UnknownOutcome("the connection broke before the request was sent")
        known = self.by_token.get(request.token)
        if known is None:
            machine = self._make(request)
        else:
            if self.requests[request.token] != request:
                raise InvalidLaunch("the token was used with other parameters")
            machine = self.machines[known]
        await asyncio.sleep(0)
        if self.lose:
            self.lose -= 1
            raise UnknownOutcome("the connection broke after the request was sent")
        return machine

    def _make(self, request: LaunchRequest) -> Machine:
        instance_id = f"i-{len(self.made):04d}"
        machine = Machine(
            instance_id=instance_id,
            provider_id=f"navarch://{request.cluster}/{request.node}",
            tags=Tags(
                request.cluster, request.installation, request.pool, request.node, request.generation, request.token
            ),
            state=ProviderState.RUNNING,
            instance_type=request.instance_type,
            region=request.region,
            zone=request.zone,
            address="10.0.0.1",
            price_per_hour=2.0,
            launched_at=self.clock.now(),
        )
        self.machines[instance_id], self.by_token[request.token] = machine, instance_id
        self.requests[request.token] = request
        self.made.append(request)
        return machine

    async def find(self, token: str) -> Machine | None:
        await self._turn("find", token)
        return self.machines.get(self.by_token.get(token, ""))

    async def list_machines(self, cluster: str) -> Sequence[Machine]:
        await asyncio.sleep(0)
        if self.list_error is not None:
            raise self.list_error
        return [machine for machine in self.machines.values() if machine.tags.cluster == cluster]

    async def get(self, instance_id: str) -> Machine | None:
        await self._turn("get", instance_id)
        return self.machines.get(instance_id)

    async def terminate(self, instance_id: str, tags: Tags) -> None:
        await self._turn("terminate", instance_id)
        machine = self.machines.get(instance_id)
        if machine is None:
            return
        if (machine.tags.node, machine.tags.generation) != (tags.node, tags.generation):
            raise NotFound(f"{instance_id} carries other tags")
        del self.machines[instance_id]
        self.terminated.append(tags.node)
        await asyncio.sleep(0)

    async def power_off(self, instance_id: str, tags: Tags) -> None:
        await self._turn("power_off", instance_id)

    async def power_on(self, instance_id: str, tags: Tags) -> None:
        await self._turn("power_on", instance_id)

    async def close(self) -> None:
        """It outlives everyone."""

    def vanish(self, node: str) -> None:
        """The machine is gone, and nobody here ended it."""
        self.machines = {id_: machine for id_, machine in self.machines.items() if machine.tags.node != node}

    def of(self, node: str) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.tags.node == node]


class Rig:
    """What a test does to the provisioner, and what it sees of it."""

    def __init__(
        self,
        world: World,
        *,
        text: str = CONFIG,
        instance: str = "copy-1",
        own: bool = False,
        cloud: MemoryCloud | None = None,
        timings: Timings = QUICK,
    ) -> None:
        deps = make_deps(world, "provisioner", text, instance=instance)
        if own:
            store, bus = world.another_process()
            deps = replace(deps, store=store, bus=bus).named("provisioner")
        self.world, self.deps = world, deps
        self.cloud = cloud or MemoryCloud(world.clock)
        settings = ProvisionerSettings.of(deps.config.current.config, nats_url="nats://here", timings=timings)
        self.service = ProvisionerService(deps, settings, providers=Providers(None, {self.cloud.name: self.cloud}))
        self._reported = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Rig]:
        async with running(self.service):
            await until(lambda: self.service.ready, "the provisioner is ready")
            yield self

    # --- the others' part ---

    async def desire(self, count: int, pool: str = POOL_NAME) -> None:
        record = PoolRecord(pool=pool, desired=count, actor="autoscaler", code="test", reason="the test wants it")
        await self.world.plant((POOL.key(pool), record))
        await self.wake()

    async def wake(self, pool: str = POOL_NAME) -> None:
        await self.world.bus.publish(self.world.subjects.wake("provisioner", pool), b"")

    async def register(self, node: str, *, boot: str = "boot-1", generation: int = 1) -> None:
        now = self.world.clock.now()
        registration = Registration(
            at=now, boot_id=boot, generation=generation, hostname=node, driver="570.1", driver_state="ok",
            gpus=(Gpu(index=0, uuid="GPU-0", pci="0000:3b:00"),),
        )  # fmt: skip
        self._reported += 1
        message = Registered(
            node=node, generation=generation, boot_id=boot, sequence=self._reported, at=now, pool=POOL_NAME,
            registration=registration,
        )  # fmt: skip
        await self.world.bus.publish_durable(
            self.world.subjects.report(node, "lifecycle"), encode(message), msg_id=f"{node}-{boot}-{self._reported}"
        )

    async def judge(self, node: str, status: HealthStatus, **fields: Any) -> None:
        """Health's verdict, as health would commit it."""
        now = self.world.clock.now()
        record = HealthRecord(
            **{"node": node, "pool": POOL_NAME, "generation": 1, "status": status, "since": now, **fields}
        )
        marker = VerdictsMarker(pool=POOL_NAME)
        await self.world.plant((HEALTH.key(node), record), (VERDICTS.key(POOL_NAME), marker))
        await self.wake()

    async def fail(self, node: str, code: str = "xid-79", **fields: Any) -> None:
        values: dict[str, Any] = {
            "action": "drain_and_replace",
            "code": code,
            "reason": f"{code} on GPU 3",
            "failure_id": f"f-{node}",
            "failed_at": self.world.clock.now(),
            "trace": f"00-{'a' * 32}-{'b' * 16}-01",
        }
        await self.judge(node, HealthStatus.UNHEALTHY, **{**values, **fields})

    async def beat(self, node: str, processes: int | None = 0) -> None:
        now = self.world.clock.now()
        heartbeat = Heartbeat(
            node=node, generation=1, boot_id="boot-1", sequence=1, at=now, pool=POOL_NAME, interval_s=5.0,
            driver_state="ok", gpus=(GpuSample(index=0, process_count=processes),),
        )  # fmt: skip
        due = now + timedelta(seconds=15)
        await self.world.store.write_beats([Beat(node, POOL_NAME, now, due, encode(heartbeat))])

    async def wish(
        self, node: str, verb: str, *, force: bool = False, id_: str = "w1", actor: str = "operator:ann"
    ) -> None:
        now = self.world.clock.now()
        wish = Wish(
            id=id_, verb=verb, actor=actor, reason="because", at=now, expires_at=now + timedelta(hours=1), force=force,
        )  # type: ignore[arg-type]  # fmt: skip
        key = NODE_WISHES.key(node)
        stored = await self.world.store.get(key)
        before = stored.record.wishes if stored else ()
        await self.world.plant((key, NodeWishes(node=node, pool=POOL_NAME, wishes=(*before, wish))))
        await self.wake()

    # --- what is there ---

    async def nodes(self, *phases: Phase) -> list[NodeRecord]:
        stored = await self.world.store.records(NODE)
        records = [one.record for one in stored]
        return sorted((r for r in records if not phases or r.phase in phases), key=lambda r: (r.created_at, r.node))

    async def node(self, name: str) -> NodeRecord:
        stored = await self.world.store.get(NODE.key(name))
        assert stored is not None
        return stored.record

    async def reach(self, condition: Callable[[list[NodeRecord]], object], what: str, timeout_s: float = 5.0) -> None:
        """Waits until `condition` holds of all node records."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition(records := await self.nodes()):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            seen = [(r.node, r.phase.value, r.blocked.text if r.blocked else "") for r in records]
            raise AssertionError(f"waited {timeout_s:g} s in vain: {what}; there are {seen}") from None

    async def phase(self, node: str, *phases: Phase) -> NodeRecord:
        """Waits until the node is in one of `phases`."""
        wanted = " or ".join(phase.value for phase in phases)
        await self.reach(lambda rs: any(r.node == node and r.phase in phases for r in rs), f"{node} is {wanted}")
        return await self.node(node)

    async def grow(self, count: int) -> list[str]:
        """`count` active, healthy, idle nodes."""
        await self.desire(count)
        await self.reach(
            lambda rs: sum(r.phase in (Phase.BOOTING, Phase.VALIDATING, Phase.ACTIVE) for r in rs) >= count, "machines"
        )
        for record in await self.nodes(Phase.BOOTING):
            await self.bring_up(record.node)
        await self.reach(lambda rs: sum(r.phase is Phase.ACTIVE for r in rs) >= count, f"{count} active nodes")
        return [record.node for record in await self.nodes(Phase.ACTIVE)]

    async def bring_up(self, node: str) -> None:
        """Its agent registers and beats, and health finds it healthy."""
        await self.register(node)
        await self.phase(node, Phase.VALIDATING)
        await self.beat(node)
        await self.judge(node, HealthStatus.HEALTHY)
        await self.phase(node, Phase.ACTIVE)

    async def pass_time(self, seconds: float, *beating: str) -> None:
        """Time passes, five seconds at a time; `beating` are heard of, idle."""
        for _ in range(max(round(seconds / 5), 1)):
            self.world.advance(5)
            for node in beating:
                await self.beat(node)
            await self.wake()
            await asyncio.sleep(0.02)


def changed(record: NodeRecord, **fields: Any) -> NodeRecord:
    return structs.replace(record, **fields)
