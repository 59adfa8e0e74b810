"""Everything that Navarch consists of, in the numbers of production and in a hostile world: three copies of each service,
three NATS servers, a Redis with its replica and Sentinels, networks that can be spoiled, machines, a subscriber from outside.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from fixtures.clusters import RedisGroup, make_cluster
from fixtures.servers import Servers, unique_name
from fixtures.weather import Weather, weather
from navarch_common.events.subjects import Subjects
from navarch_common.model.node import Phase
from navarch_common.store.redis import RedisStore
from navarch_common.store.redis_commit import Names
from support.apart import Apart, apart
from support.books import Books, headline, numbers, read_books, violations
from support.clouds import FakeCloud, LocalMachines, Machines, fake_cloud_in
from support.hostile import Hostile, hostile_to
from support.outsider import Outsider, outsider

POOL = "training"
CONFIG = """
cluster: {name}
bus: {{prefix: {name}, replicas: {replicas}}}
server:
  http_address: '127.0.0.1:0'
  address: '127.0.0.1:0'
  heartbeat_interval: 1s
  autoscale_interval: 1s
  silence_deadline: 2m
providers:
  cloud: {provider}
pools:
  training:
    provider: cloud
    instance_type: h100-8x
    min_nodes: {least}
    max_nodes: {most}
    cooldown: 0s
    max_step_up: 20
    autoscaling: {{type: queue, jobs_per_node: 1}}
    scale_down: {{idle_after: 2s}}
    disruption: {{max_unavailable: 50%, max_per_hour: 100000, max_unhealthy: 100%}}
"""


@dataclass
class Storm:
    directory: Path
    cluster: str
    servers: Servers
    network: Weather
    machines: Machines
    services: Apart
    hostile: Hostile
    outsider: Outsider
    least: int

    @property
    def subjects(self) -> Subjects:
        return Subjects(self.cluster)

    def holder(self, service: str) -> int:
        """Which copy of a service holds the pool; the first where none needs to."""
        with closing(Redis(port=self._primary_port(), socket_timeout=2.0)) as redis:
            held = redis.hget(Names(self.cluster).leases, f"{service}/{POOL}")
        pids = {
            self.services.processes[f"{service}-{copy}"].pid: copy
            for name, copy in self.hostile.copies
            if name == service
        }
        owner = held.decode().split(" ", 2)[2] if isinstance(held, bytes) else ""
        return next((copy for pid, copy in pids.items() if f"-{pid}-" in owner), 0)

    def _primary_port(self) -> int:
        group = self.servers.redis
        assert isinstance(group, RedisGroup)
        return group.redis[group.primary()].port

    async def until_quiet(self, within_s: float, *, say: Callable[[str], None] = print) -> Books:
        """Waits until nothing goes on any more, for two seconds; or as long as one may wait, and returns what there is."""
        store = RedisStore(self.servers.redis.url, cluster=self.cluster)
        began, since, last = time.monotonic(), None, ""
        try:
            while True:
                books: Books | None = None
                try:
                    books = await self._read(store)
                except Exception as error:  # noqa: BLE001 - servers come back, streams come into being
                    astir = repr(error)
                else:
                    astir = books.quiet() or ("too few" if books.desired < self.least else "")
                    if not astir and books.heard is not None and {one.id for one in books.told} - books.heard:
                        astir = "the subscriber has not heard everything"
                since = None if astir else since or time.monotonic()
                if astir != last:
                    say(f"{time.monotonic() - began:6.1f} s: {astir or 'quiet'}")
                    last = astir
                if books is not None and since is not None and time.monotonic() - since > 2:
                    return books
                if time.monotonic() - began > within_s:
                    assert books is not None, astir
                    return books
                await asyncio.sleep(0.5)
        finally:
            await store.close()

    async def until_active(self, count: int, within_s: float = 60.0) -> None:
        """Waits for so many nodes in service that we have not broken."""
        deadline = time.monotonic() + within_s
        while (able := await self.hostile.able(Phase.ACTIVE)) is None or len(able) < count:
            assert time.monotonic() < deadline, f"{count} nodes in service are wanted, there are {able}"
            await asyncio.sleep(0.2)

    async def told(self, kind: str, after: int, within_s: float = 60.0) -> float:
        """When the subscriber was first told of such an event, of those behind the first `after` that it heard."""
        deadline = time.monotonic() + within_s
        while True:
            for at, event in self.outsider.heard[after:]:
                if event["type"] == f"{kind}.v1":
                    return at
            assert time.monotonic() < deadline, f"nobody was told of {kind}"
            await asyncio.sleep(0.02)

    async def _read(self, store: RedisStore) -> Books:
        books = await read_books(
            self.machines, store, nats_url=self.servers.nats.direct_url, redis_url=self.servers.redis.url,
            cluster=self.cluster, pool=POOL,
        )  # fmt: skip
        books.heard = self.outsider.ids
        return books

    async def judge(self, demand: int, *, within_s: float) -> list[str]:
        """The last word on demand has been said: waits for quiet, prints what happened, and says what was wrong."""
        began = time.monotonic()
        books = await self.until_quiet(within_s)
        quiet_s = time.monotonic() - began - 2
        (self.directory / "events.jsonl").write_text("".join(f"{json.dumps(one.event)}\n" for one in books.told))
        print(numbers(books, self.hostile.deeds))
        print(headline(books, self.hostile.deeds, quiet_s))
        wrong = violations(books, self.hostile.deeds)
        if books.desired != demand:
            wrong.append(f"{demand} nodes are needed, as the last word on demand says, not {books.desired}")
        return wrong + self._ending()

    def _ending(self) -> list[str]:
        """Ends everything in good order, and says what was not good about it, now or before."""
        statuses = {**self.services.stop_all(), "cloud": self.machines.stop()}
        wrong = [f"{name} ended with {status}" for name, status in statuses.items() if status]
        logs = [self.services.log(f"{service}-{copy}") for service, copy in self.hostile.copies]
        if isinstance(self.machines, FakeCloud):
            logs.append(self.machines.log)
        for log in logs:
            found = re.search(r"^.*(?:crashed|Traceback|\[error|never awaited).*$", log.read_text(), re.MULTILINE)
            if found:
                wrong.append(f"{log.name}: {log.read_text()[found.start() :][:3000]}")
        return wrong


@asynccontextmanager
async def storm_in(
    directory: Path, *, seed: int, least: int, most: int, copies: int = 3, provider: str = "fake"
) -> AsyncIterator[Storm]:
    """Everything running, and the pool at its least size. Everything is gone afterwards, whatever happened."""
    name = unique_name()
    with ExitStack() as stack:
        network = stack.enter_context(weather())
        servers = make_cluster(directory / "servers", network)
        stack.callback(servers.stop)
        servers.start()
        machines: Machines
        if provider == "local":
            machines = LocalMachines(directory / "data")
        else:
            machines = stack.enter_context(fake_cloud_in(directory / "cloud", "--boot-time", "0.3", seed=seed))
        config = CONFIG.format(name=name, replicas=3, provider=machines.provider, least=least, most=most)
        services = stack.enter_context(apart(directory, servers, config))
        async with (
            hostile_to(services, servers, machines, cluster=name, pool=POOL, seed=seed, copies=copies, network=network)
            as hostile,
            outsider(servers.nats.direct_url, name) as listening,
        ):  # fmt: skip
            storm = Storm(directory, name, servers, network, machines, services, hostile, listening, least)
            hostile.start_all()
            async with hostile.supervised():
                await storm.until_quiet(90.0)
            yield storm
