"""A hostile world, out of one seed: kills and pauses of everything that Navarch consists of, faults of machines, demand
that goes up and down. It keeps count of what it did, and knows for each process whether it died by our hand.
"""

import asyncio
import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import nats
from nats.aio.client import Client as NatsClient

from fixtures.process import Server
from fixtures.servers import Servers
from navarch_common.model.node import NODE, NodeRecord, Phase
from navarch_common.store.base import StoreError
from navarch_common.store.redis import RedisStore
from support.apart import Apart
from support.fleet import BIN, environment

COPIES = [(service, copy) for service in ("provisioner", "health", "autoscaler") for copy in range(2)]
GATEWAY = ("gateway", 0)
START_GRACE_S = 15.0
"""A process that finds no servers when it starts may end, and is started again; later it may not."""


class Cloud:
    """A `navarch-fake-cloud` of our own: the world's machines. It is never killed: clouds are not ours."""

    def __init__(self, directory: Path, *weather: str, seed: int) -> None:
        self.directory = directory
        self.directory.mkdir()
        self.log = directory / "cloud.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "navarch-fake-cloud"), "--data-dir", str(directory), "--seed", str(seed), *weather],
                stdout=log, stderr=log, env=environment(),
            )  # fmt: skip
        self.url = self._url()

    def _url(self) -> str:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with suppress(OSError, ValueError):
                return str(json.loads((self.directory / "runtime.json").read_text())["url"])
            time.sleep(0.05)
        raise AssertionError(f"the fake cloud did not say where it listens: {self.log.read_text()}")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=20)

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10)


@contextmanager
def cloud_in(directory: Path, *weather: str, seed: int) -> Iterator[Cloud]:
    cloud = Cloud(directory, *weather, seed=seed)
    try:
        yield cloud
    finally:
        cloud.clean_up()


@dataclass
class Deeds:
    """What was done to the world."""

    counts: Counter[str] = field(default_factory=Counter)
    broken: set[str] = field(default_factory=set)
    """Nodes in service whose hardware we broke for certain."""
    perhaps: set[str] = field(default_factory=set)
    """Nodes that may be broken: the request got no answer, or the machine was not in service."""
    busy: dict[str, datetime] = field(default_factory=dict)
    """Nodes whose GPUs hold work, and since when."""
    surprises: list[str] = field(default_factory=list)
    """Processes that ended without being killed."""


class Hostile:
    """The faults. `rage` for as long as wanted, then `relent`."""

    def __init__(
        self, services: Apart, servers: Servers, cloud: Cloud, store: RedisStore, prefix: str, pool: str, seed: int
    ) -> None:
        self._services, self._servers, self._cloud, self._store = services, servers, cloud, store
        self._prefix, self._pool = prefix, pool
        self._seed = seed
        self.deeds = Deeds()
        self._repairs: list[asyncio.Task[None]] = []
        self._down: set[object] = set()
        self._started: dict[tuple[str, int], float] = {}
        self._http = httpx.AsyncClient(timeout=5.0, trust_env=False)
        self._nats: NatsClient | None = None
        self._weather: dict[str, float] = {}

    # --- the plan ---

    async def rage(self, seconds: float, demands: tuple[int, ...], weather: dict[str, float]) -> None:
        """Attacks from all sides. Each side has its own dice, so that none changes what another throws."""
        self._weather = weather
        await self._change_weather(weather)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as sides:
                sides.create_task(self._kill_all_the_time(random.Random(self._seed)))
                sides.create_task(self._break_machines(random.Random(self._seed + 1)))
                sides.create_task(self._change_demand(random.Random(self._seed + 2), demands))
                sides.create_task(self._watch())

    async def relent(self, demand: int) -> None:
        """Everything is repaired, the weather is fine, and the last word on demand is said."""
        for repair in self._repairs:
            await repair
        self._servers.start()
        self._restart_the_dead()
        await self._change_weather(dict.fromkeys(self._weather, 0.0))
        async with asyncio.timeout(20):
            while not await self._say_demand(demand):
                await asyncio.sleep(0.2)

    async def _change_weather(self, weather: dict[str, float]) -> None:
        (await self._http.patch(f"{self._cloud.url}/v1/weather", json=weather)).raise_for_status()

    async def close(self) -> None:
        for repair in self._repairs:
            repair.cancel()
        await self._http.aclose()
        if self._nats is not None:
            await self._nats.close()

    # --- processes ---

    async def _kill_all_the_time(self, dice: random.Random) -> None:
        while True:
            act = dice.choices(
                (self._kill_copy, self._pause_copy, self._kill_server, self._pause_server), (5, 4, 2, 1)
            )[0]  # fmt: skip
            act(dice)
            await asyncio.sleep(dice.uniform(0.5, 1.5))

    def _kill_copy(self, dice: random.Random) -> None:
        copy, rest_s = dice.choice(COPIES), dice.uniform(0.1, 1.0)
        if copy in self._down:
            return
        self._services.kill(*copy)
        self._count("kill", copy[0])
        self._later(copy, rest_s, lambda: self.start(copy))

    def _pause_copy(self, dice: random.Random) -> None:
        """Sometimes for longer than a lease lasts."""
        copy, rest_s = dice.choice(COPIES), dice.choice((0.5, 2.0, 7.0))
        if copy in self._down:
            return
        process = self._services.processes[f"{copy[0]}-{copy[1]}"]
        if process.poll() is not None:
            return
        process.send_signal(signal.SIGSTOP)
        self._count("pause", copy[0])
        self._later(copy, rest_s, lambda: process.send_signal(signal.SIGCONT))

    def _kill_server(self, dice: random.Random) -> None:
        name, rest_s = dice.choice(("nats", "redis")), dice.uniform(0.0, 2.0)
        server: Server = getattr(self._servers, name)
        if name in self._down:
            return
        server.kill()
        self._count("kill", name)
        self._later(name, rest_s, server.start)

    def _pause_server(self, dice: random.Random) -> None:
        name, rest_s = dice.choice(("nats", "redis")), dice.uniform(0.5, 4.0)
        server: Server = getattr(self._servers, name)
        if name in self._down:
            return
        server.pause()
        self._count("pause", name)
        self._later(name, rest_s, server.resume)

    def _later(self, who: object, rest_s: float, repair: Callable[[], object]) -> None:

        async def wait() -> None:
            await asyncio.sleep(rest_s)
            repair()
            self._down.discard(who)

        self._down.add(who)
        self._repairs = [task for task in self._repairs if not task.done()]
        self._repairs.append(asyncio.get_running_loop().create_task(wait()))

    def start(self, copy: tuple[str, int]) -> None:
        self._started[copy] = time.monotonic()
        self._services.spawn(*copy)

    async def _watch(self) -> None:
        while True:
            self._restart_the_dead()
            await asyncio.sleep(0.2)

    def _restart_the_dead(self) -> None:
        """As a supervisor does."""
        for service, copy in [*COPIES, GATEWAY]:
            process = self._services.processes.get(f"{service}-{copy}")
            if (service, copy) in self._down or process is None or (status := process.poll()) is None:
                continue
            lived_s = time.monotonic() - self._started.get((service, copy), 0.0)
            self._count("restart", service)
            if lived_s > START_GRACE_S or status != 1:
                tail = self._services.log(f"{service}-{copy}").read_text()[-600:]
                self.deeds.surprises.append(f"{service}-{copy} ended with {status} after {lived_s:.1f} s: {tail}")
            self.start((service, copy))

    # --- machines ---

    async def _break_machines(self, dice: random.Random) -> None:
        while True:
            await asyncio.sleep(dice.uniform(0.3, 1.0))
            act = dice.choices(("xid", "death", "stillbirth", "work"), (4, 2, 1, 2))[0]
            with suppress(StoreError, OSError, httpx.HTTPError, nats.errors.Error, TimeoutError):
                await self._break(act, dice)

    async def _break(self, act: str, dice: random.Random) -> None:
        async with asyncio.timeout(3):
            nodes = [stored.record for stored in await self._store.records(NODE, self._pool)]
        wanted = (Phase.BOOTING, Phase.VALIDATING) if act == "stillbirth" else (Phase.ACTIVE,)
        touched = self.deeds.broken | self.deeds.perhaps
        able = [node for node in nodes if node.phase in wanted and node.node not in touched and node.instance]
        if not able:
            return
        node = dice.choice(able)
        if act in ("death", "stillbirth"):
            await self._end_machine(node, certain=act == "death")
        else:
            await self._inject(node, act)
        self._count("machine", act)

    async def _end_machine(self, node: NodeRecord, *, certain: bool) -> None:
        assert node.instance is not None
        self.deeds.perhaps.add(node.node)
        reply = await self._http.post(f"{self._cloud.url}/v1/machines/{node.instance.instance_id}/fail")
        if certain and reply.status_code == 200:
            self.deeds.perhaps.discard(node.node)
            self.deeds.broken.add(node.node)

    async def _inject(self, node: NodeRecord, act: str) -> None:
        what = {"verb": "xid", "code": 79, "gpu": 3} if act == "xid" else {"verb": "busy"}
        if act == "xid":
            self.deeds.perhaps.add(node.node)
        client = await self._client()
        answer = await client.request(f"{self._prefix}.inject.{node.node}", json.dumps(what).encode(), timeout=2)
        assert json.loads(answer.data)["ok"], answer.data
        if act == "xid":
            self.deeds.perhaps.discard(node.node)
            self.deeds.broken.add(node.node)
        else:
            self.deeds.busy[node.node] = datetime.now(UTC)

    # --- demand ---

    async def _change_demand(self, dice: random.Random, demands: tuple[int, ...]) -> None:
        while True:
            if await self._say_demand(dice.choice(demands)):
                self._count("demand", "change")
            await asyncio.sleep(dice.uniform(2.0, 6.0))

    async def _say_demand(self, jobs: int) -> bool:
        payload = json.dumps({"queue_depth": jobs}).encode()
        try:
            async with asyncio.timeout(3):
                stream = (await self._client()).jetstream(timeout=2)
                await stream.publish(f"{self._prefix}.metrics.queue.{self._pool}", payload)
        except (OSError, nats.errors.Error, TimeoutError):
            return False
        return True

    async def _client(self) -> NatsClient:
        if self._nats is None or self._nats.is_closed:
            self._nats = await nats.connect(
                self._servers.nats.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, ping_interval=2,
                pending_size=0, error_cb=_ignore, allow_reconnect=True, connect_timeout=1,
            )  # fmt: skip
        return self._nats

    def _count(self, deed: str, whom: str) -> None:
        self.deeds.counts[f"{deed} {whom}"] += 1


async def _ignore(_: Exception) -> None:
    """Reconnecting is the client's business."""


@asynccontextmanager
async def hostile_to(
    services: Apart, servers: Servers, cloud: Cloud, *, cluster: str, pool: str, seed: int
) -> AsyncIterator[Hostile]:
    store = RedisStore(servers.redis.url, cluster=cluster)
    hostile = Hostile(services, servers, cloud, store, cluster, pool, seed)
    try:
        yield hostile
    finally:
        await hostile.close()
        await store.close()
