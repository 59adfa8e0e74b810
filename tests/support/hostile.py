"""A hostile world, out of one seed: kills and pauses of everything that Navarch consists of, bad networks, faults of
machines, demand that goes up and down. It keeps count of what it did, and knows for each process whether it died by our
hand.
"""

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import nats
from nats.aio.client import Client as NatsClient

from fixtures.clusters import RedisGroup
from fixtures.process import Server
from fixtures.servers import Servers
from fixtures.weather import Weather
from navarch_common.model.node import NODE, NodeRecord, Phase
from navarch_common.store.base import StoreError
from navarch_common.store.redis import RedisStore
from support.apart import Apart
from support.clouds import Machines

SERVICES = ("gateway", "health", "autoscaler", "provisioner")
START_GRACE_S = 25.0
"""A process that finds no servers when it starts may end, and is started again; later it may not."""
PAUSES_S = (0.5, 2.0, 7.0)
"""The last is longer than a lease lives."""

Copy = tuple[str, int]


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

    @property
    def failures(self) -> int:
        """Failures of machines, so far."""
        return sum(self.counts[f"machine {act}"] for act in ("xid", "death", "stillbirth"))


class Hostile:
    """The faults. `rage` for as long as wanted, then `relent`."""

    def __init__(
        self,
        services: Apart,
        servers: Servers,
        machines: Machines,
        store: RedisStore,
        *,
        prefix: str,
        pool: str,
        seed: int,
        copies: int,
        network: Weather | None = None,
    ) -> None:
        self.services, self.servers, self.machines, self._store = services, servers, machines, store
        self._prefix, self._pool, self._network = prefix, pool, network
        self._seed = seed
        self.copies: list[Copy] = [(service, copy) for service in SERVICES for copy in range(copies)]
        self.deeds = Deeds()
        self.down: set[object] = set()
        """What we have killed or hung, and not yet repaired."""
        self._repairs: list[asyncio.Task[None]] = []
        self._started: dict[Copy, float] = {}
        self._nats: NatsClient | None = None
        self._weather: dict[str, float] = {}

    # --- the plan ---

    async def rage(
        self, seconds: float, demands: tuple[int, ...], weather: dict[str, float], failures: int = 0
    ) -> None:
        """Attacks from all sides for so long; or, where `failures` says how many, until so many machines have failed.
        Each side has its own dice, so that none changes what another throws."""
        self._weather = weather
        await self.machines.weather(**weather)
        sides = [
            self._kill_all_the_time(random.Random(self._seed)),
            self._change_demand(random.Random(self._seed + 2), demands),
            self._watch(),
        ]
        if self._network is not None:
            sides.append(self._spoil_networks(random.Random(self._seed + 3), self._network))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                attackers = [asyncio.create_task(side) for side in sides]
                try:
                    breaking = asyncio.create_task(self._break_machines(random.Random(self._seed + 1), failures))
                    attackers.append(breaking)
                    # One that ends by itself has crashed, but for the one that breaks machines until they are enough.
                    done, _ = await asyncio.wait(attackers, return_when=asyncio.FIRST_COMPLETED)
                    for attacker in done:
                        attacker.result()
                finally:
                    for attacker in attackers:
                        attacker.cancel()
                    await asyncio.gather(*attackers, return_exceptions=True)

    async def relent(self, demand: int) -> None:
        """Everything is repaired, the weather is fine, and the last word on demand is said."""
        for repair in self._repairs:
            await repair
        for part in self.servers.parts.values():
            part.resume()
        self.servers.start()
        for name in self._network.names if self._network else ():
            self._network.fine(name)  # type: ignore[union-attr]
        self._restart_the_dead()
        await self.machines.weather(**dict.fromkeys(self._weather, 0.0))
        async with asyncio.timeout(30):
            while not await self.say_demand(demand):
                await asyncio.sleep(0.2)

    async def close(self) -> None:
        for repair in self._repairs:
            repair.cancel()
        if self._nats is not None:
            await self._nats.close()

    # --- processes ---

    async def _kill_all_the_time(self, dice: random.Random) -> None:
        while True:
            act = dice.choices(
                (self._kill_some_copy, self._pause_some_copy, self._kill_some_server, self._pause_some_server),
                (5, 4, 3, 2),
            )[0]
            act(dice)
            await asyncio.sleep(dice.uniform(1.0, 4.0))

    def _kill_some_copy(self, dice: random.Random) -> None:
        self.kill_copy(dice.choice(self.copies), dice.uniform(0.1, 1.0))

    def kill_copy(self, copy: Copy, rest_s: float) -> None:
        if copy in self.down or self.services.processes[_name(copy)].poll() is not None:
            return
        self.services.kill(*copy)
        self._count("kill", copy[0])
        self._later(copy, rest_s, lambda: self.start(copy))

    def _pause_some_copy(self, dice: random.Random) -> None:
        self.pause_copy(dice.choice(self.copies), dice.choice(PAUSES_S))

    def pause_copy(self, copy: Copy, rest_s: float) -> None:
        process = self.services.processes.get(_name(copy))
        if copy in self.down or process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGSTOP)
        self._count("pause", copy[0])
        self._later(copy, rest_s, lambda: process.send_signal(signal.SIGCONT))

    def _kill_some_server(self, dice: random.Random) -> None:
        self.kill_server(self._victim(dice), dice.uniform(0.0, 4.0))

    def kill_server(self, name: str, rest_s: float) -> None:
        """kill -9, and started again later, as a supervisor does."""
        if not name:
            return
        server = self.servers.parts[name]
        server.kill()
        self._count("kill", _kind(name))
        self._later(name, rest_s, getattr(server, "launch", server.start))

    def _pause_some_server(self, dice: random.Random) -> None:
        self.pause_server(self._victim(dice), dice.uniform(0.5, 5.0))

    def pause_server(self, name: str, rest_s: float) -> None:
        if not name:
            return
        server: Server = self.servers.parts[name]
        if not getattr(server, "running", True):
            return
        server.pause()
        self._count("pause", _kind(name))
        self._later(name, rest_s, server.resume)

    def _victim(self, dice: random.Random) -> str:
        """One server. Of three NATS servers seldom two at once: then nothing goes on until one is back. Of two Redis
        never the second while the first is not a whole replica again: nobody promises to survive that, and Sentinels
        would promote what has forgotten everything. The same goes for Sentinels, of whom two must agree."""
        name, both = dice.choice(sorted(self.servers.parts)), dice.random() < 0.1
        kind = _kind(name)
        fellow_down = any(_kind(str(other)) == kind for other in self.down)
        if name in self.down or (fellow_down and not (both and kind == "nats")):
            return ""
        return "" if kind == "redis" and not self._redis_whole() else name

    def _redis_whole(self) -> bool:
        group = self.servers.redis
        return not isinstance(group, RedisGroup) or group.replicated()

    def _redis_down(self) -> bool:
        return any(_kind(str(one)) == "redis" for one in self.down)

    def _later(self, who: object, rest_s: float, repair: Callable[[], object]) -> None:
        async def wait() -> None:
            await asyncio.sleep(rest_s)
            repair()
            self.down.discard(who)

        self.down.add(who)
        self._repairs = [task for task in self._repairs if not task.done()]
        self._repairs.append(asyncio.get_running_loop().create_task(wait()))

    def start_all(self) -> None:
        for copy in self.copies:
            self.start(copy)

    def start(self, copy: Copy) -> None:
        self._started[copy] = time.monotonic()
        self.services.spawn(*copy)

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """What ends by itself is started again meanwhile."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self) -> None:
        while True:
            self._restart_the_dead()
            await asyncio.sleep(0.2)

    def _restart_the_dead(self) -> None:
        """As a supervisor does."""
        for copy in self.copies:
            process = self.services.processes.get(_name(copy))
            if copy in self.down or process is None or (status := process.poll()) is None:
                continue
            lived_s = time.monotonic() - self._started.get(copy, 0.0)
            self._count("restart", copy[0])
            if lived_s > START_GRACE_S or status != 1:
                tail = self.services.log(_name(copy)).read_text()[-600:]
                self.deeds.surprises.append(f"{_name(copy)} ended with {status} after {lived_s:.1f} s: {tail}")
            self.start(copy)

    # --- networks ---

    async def _spoil_networks(self, dice: random.Random, network: Weather) -> None:
        while True:
            await asyncio.sleep(dice.uniform(2.0, 10.0))
            name, lasts_s = dice.choice(network.names), dice.uniform(0.3, 5.0)
            slow = dice.uniform(0.02, 0.3)
            how = dice.choice(("slow", "drop", "swallow", "no replies", "half close", "replication"))
            if _kind(name) == "redis" and (self._redis_down() or not self._redis_whole()):
                continue
            self.down.add(f"{name}'s network")
            match how:
                case "slow":
                    network.slow(name, slow)
                case "drop":
                    network.drop(name)
                case "swallow":
                    network.swallow(name)
                case "no replies":
                    network.swallow(name, replies_only=True)
                case "half close":
                    network.half_close(name)
                case _:
                    network.cut_replication(name)
            self._count("network", how)
            await asyncio.sleep(lasts_s)
            network.fine(name)
            self.down.discard(f"{name}'s network")

    # --- machines ---

    async def _break_machines(self, dice: random.Random, enough: int) -> None:
        """Until so many have failed; 0 is never."""
        while not enough or self.deeds.failures < enough:
            await asyncio.sleep(dice.uniform(0.3, 1.0))
            act = dice.choices(("xid", "death", "stillbirth", "work"), (4, 2, 1, 2))[0]
            await self.break_machine(act, dice)

    async def break_machine(self, act: str, dice: random.Random) -> str:
        """Breaks some node's hardware, and returns the node; empty where none could be broken, or perhaps was."""
        with suppress(StoreError, OSError, httpx.HTTPError, nats.errors.Error, TimeoutError):
            wanted = (Phase.BOOTING, Phase.VALIDATING) if act == "stillbirth" else (Phase.ACTIVE,)
            able = await self.able(*wanted)
            if not able:
                return ""
            node = dice.choice(able)
            if act in ("death", "stillbirth"):
                await self._end_machine(node, certain=act == "death")
            else:
                await self._inject(node, act)
            self._count("machine", act)
            return node.node
        return ""

    async def able(self, *phases: Phase) -> list[NodeRecord] | None:
        """Nodes with a machine that we have not broken; None where the store does not answer."""
        try:
            async with asyncio.timeout(5):
                nodes = [stored.record for stored in await self._store.records(NODE, self._pool)]
        except (StoreError, TimeoutError):
            return None
        touched = self.deeds.broken | self.deeds.perhaps
        return [node for node in nodes if node.phase in phases and node.node not in touched and node.instance]

    async def _end_machine(self, node: NodeRecord, *, certain: bool) -> None:
        self.deeds.perhaps.add(node.node)
        if await self.machines.end(node) and certain:
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
            if await self.say_demand(dice.choice(demands)):
                self._count("demand", "change")
            await asyncio.sleep(dice.uniform(2.0, 6.0))

    async def say_demand(self, jobs: int) -> bool:
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
                self.servers.nats.direct_url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.1,
                ping_interval=2, pending_size=0, error_cb=_ignore, allow_reconnect=True, connect_timeout=1,
            )  # fmt: skip
        return self._nats

    def _count(self, deed: str, whom: str) -> None:
        self.deeds.counts[f"{deed} {whom}"] += 1


def _name(copy: Copy) -> str:
    return f"{copy[0]}-{copy[1]}"


def _kind(part: str) -> str:
    """`nats` of `nats-2`."""
    return part.partition("-")[0]


async def _ignore(_: Exception) -> None:
    """Reconnecting is the client's business."""


@asynccontextmanager
async def hostile_to(
    services: Apart,
    servers: Servers,
    machines: Machines,
    *,
    cluster: str,
    pool: str,
    seed: int,
    copies: int = 3,
    network: Weather | None = None,
) -> AsyncIterator[Hostile]:
    store = RedisStore(servers.redis.url, cluster=cluster)
    hostile = Hostile(
        services, servers, machines, store, prefix=cluster, pool=pool, seed=seed, copies=copies, network=network
    )
    try:
        yield hostile
    finally:
        await hostile.close()
        await store.close()
