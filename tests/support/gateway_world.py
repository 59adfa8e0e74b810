"""A gateway over a store and a bus in memory, with a small fleet in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import msgspec

from fixtures.world import World, make_world
from navarch_api.client import AsyncClient
from navarch_common.clock import ManualClock
from navarch_common.config.load import Loaded, load_text
from navarch_common.events.messages import Heartbeat
from navarch_common.in_force import ConfigWatch
from navarch_common.metrics import Metrics
from navarch_common.model.gpu import Gpu, GpuSample
from navarch_common.model.health import HEALTH, HealthRecord, HealthStatus
from navarch_common.model.node import (
    NODE,
    Cordon,
    Instance,
    Launch,
    LaunchRequest,
    NodeRecord,
    Phase,
    ProviderState,
    Registration,
)
from navarch_common.model.pool import POOL, PoolRecord
from navarch_common.run import Deps
from navarch_common.store.base import Beat
from navarch_common.telemetry import Telemetry
from navarch_gateway.service import GatewayService
from navarch_gateway.settings import GatewaySettings

CONFIG = """
providers:
  here: {type: local}
  sky: {type: aws, region: us-east-1}
pools:
  training: {provider: here, instance_type: h100-8x, min_nodes: 1, max_nodes: 5}
  burst: {provider: here, instance_type: h100-8x, min_nodes: 0, max_nodes: 9, autoscaling: {type: queue, jobs_per_node: 10}}
"""
START = ManualClock().now()


def loaded(text: str = CONFIG) -> Loaded:
    return load_text(text, "navarch.yaml", {})


def node(name: str = "n1", **fields: Any) -> NodeRecord:
    pool, provider = fields.pop("pool", "training"), fields.pop("provider", "here")
    request = LaunchRequest(
        node=name, pool=pool, cluster="test", installation="installation", generation=1, provider=provider,
        instance_type="h100-8x", token=f"token-{name}",
    )  # fmt: skip
    instance = Instance(
        provider=provider, instance_id=f"i-{name}", provider_id=f"navarch://test/{name}", instance_type="h100-8x",
        region="lab", state=ProviderState.RUNNING, state_at=START, launched_at=START, price_per_hour=2.5,
    )  # fmt: skip
    said = Registration(
        at=START, boot_id="boot", generation=1, hostname=f"host-{name}", driver_state="ok",
        gpus=tuple(Gpu(index=index, uuid=f"GPU-{name}-{index}") for index in range(8)),
    )  # fmt: skip
    known = {
        "generation": 1, "phase": Phase.ACTIVE, "phase_since": START, "created_at": START, "active_at": START,
        "launch": Launch(request=request, intended_at=START, deadline=START + timedelta(minutes=10)),
        "instance": instance, "registration": said,
    }  # fmt: skip
    return NodeRecord(node=name, pool=pool, **(known | fields))


def health(name: str = "n1", status: HealthStatus = HealthStatus.HEALTHY, **fields: Any) -> HealthRecord:
    known = {"pool": "training", "generation": 1, "since": START, "status": status}
    return HealthRecord(node=name, **(known | fields))


def pool_record(name: str = "training", **fields: Any) -> PoolRecord:
    known = {"desired": 3, "actor": "autoscaler", "code": "kept", "reason": "kept at 3 nodes"}
    return PoolRecord(pool=name, **(known | fields))


def beat(name: str = "n1", *, processes: int | None = 0, due_in_s: float = 15.0, generation: int = 1) -> Beat:
    said = Heartbeat(
        node=name, generation=generation, boot_id="boot", sequence=1, at=START, pool="training", interval_s=5.0, driver_state="ok",
        gpus=tuple(GpuSample(index=index, utilization_ratio=0.5, process_count=processes) for index in range(8)),
    )  # fmt: skip
    return Beat(
        node=name,
        pool="training",
        at=START,
        due_at=START + timedelta(seconds=due_in_s),
        sample=msgspec.json.encode(said),
    )


FLEET: dict[str, tuple[NodeRecord, HealthRecord | None]] = {
    "n1": (node("n1", labels={"team": "vision"}), health("n1")),
    "n2": (node("n2"), health("n2")),
    "n3": (
        node("n3", cordons={"health": Cordon(reason="GPU 3 fell off the bus", at=START)}),
        health("n3", HealthStatus.UNHEALTHY, reason="Xid 79 on GPU 3", code="xid-79", action="drain_and_replace"),
    ),
    "n4": (node("n4", phase=Phase.BOOTING, active_at=None, registration=None, replaces="n3"), None),
    "n5": (node("n5", phase=Phase.TERMINATED, terminated_at=START), None),
    "n6": (node("n6", provider="sky", pool="burst"), health("n6", pool="burst")),
    "n7": (node("n7", pool="burst", cordons={"operator:ada": Cordon(reason="upgrade", at=START)}), None),
}
"""n1 is idle, n2 busy, n3 broken, n4 coming to replace it, n5 gone; n6 is real and of another pool, n7 cordoned by ada."""


@dataclass(slots=True)
class GatewayWorld:
    """One gateway, asked without a socket."""

    world: World
    deps: Deps
    service: GatewayService
    http: httpx.AsyncClient
    client: AsyncClient

    async def refresh(self) -> None:
        """What the gateway does each second."""
        await self.service._refresh()
        await self.service._look()

    async def get(self, path: str, **params: Any) -> Any:
        response = await self.http.get(f"/api/v1{path}", params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def refused(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The problem that a request is answered with."""
        response = await self.http.request(method, f"/api/v1{path}", **options)
        assert response.headers["content-type"] == "application/problem+json", response.text
        problem: dict[str, Any] = response.json()
        assert problem["status"] == response.status_code
        return problem


async def answering(gateway: GatewayWorld, subject: str, reply: bytes) -> "asyncio.Task[None]":
    """Answers each request on `subject` with `reply`, until cancelled."""
    listening = asyncio.Event()

    async def serve() -> None:
        async with gateway.world.bus.subscribe(subject) as requests:
            listening.set()
            async for request in requests:
                await gateway.world.bus.reply(request, reply)

    task = asyncio.create_task(serve())
    await listening.wait()
    return task


def make_deps(world: World, config: str = CONFIG) -> Deps:
    own = loaded(config)
    return Deps(
        store=world.store,
        bus=world.bus,
        committer=world.committer("gateway"),
        clock=world.clock,
        rng=world.rng,
        subjects=world.subjects,
        cluster=world.cluster,
        life=world.life,
        config=ConfigWatch(world.store, world.bus, world.subjects, own, {}),
        telemetry=Telemetry(world.rng),
        metrics=Metrics(),
        instance="copy-1",
    )


async def plant_fleet(world: World) -> None:
    for record, verdict in FLEET.values():
        await world.plant((NODE.key(record.node), record))
        if verdict is not None:
            await world.plant((HEALTH.key(record.node), verdict))
    await world.plant((POOL.key("training"), pool_record()), (POOL.key("burst"), pool_record("burst", desired=2)))
    await world.store.write_beats([beat("n1"), beat("n2", processes=1)])


@asynccontextmanager
async def gateway_world(*, fleet: bool = True) -> AsyncIterator[GatewayWorld]:
    world = await make_world()
    deps = make_deps(world)
    if fleet:
        await plant_fleet(world)
    service = GatewayService(deps, GatewaySettings("127.0.0.1", 0, "127.0.0.1", 0))
    transport = httpx.ASGITransport(app=service.app, raise_app_exceptions=True)
    http = httpx.AsyncClient(transport=transport, base_url="http://gateway")
    client = AsyncClient("http://gateway", actor="operator:ada", transport=transport)
    made = GatewayWorld(world, deps, service, http, client)
    if fleet:
        await made.refresh()
    try:
        yield made
    finally:
        await http.aclose()
        await client.close()
        await world.close()
