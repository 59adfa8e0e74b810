"""Three gateways behind a real haproxy: one is killed in the middle of a stream of events, and the client misses nothing."""

import asyncio
import json
import os
import random
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from fixtures.records import pool_resized
from fixtures.servers import Servers
from navarch_api.client import AsyncClient
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.clock import SystemClock
from navarch_common.events.subjects import Subjects
from navarch_common.store.base import Commit
from navarch_common.store.committer import Committer
from navarch_common.store.redis import RedisStore
from support.apart import Apart, apart
from support.fleet import BIN, environment

pytestmark = [pytest.mark.long, pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
CONFIG = """
cluster: {name}
bus: {{prefix: {name}}}
server: {{http_address: '127.0.0.1:${{GATEWAY_PORT}}', address: '127.0.0.1:0'}}
providers: {{local: {{type: local}}}}
pools: {{training: {{instance_type: any, min_nodes: 0, max_nodes: 3}}}}
"""
COUNT = 400


class Behind:
    """Gateways, each with a port of its own, and haproxy in front."""

    def __init__(self, services: Apart, ports: list[int], url: str) -> None:
        self._services, self._ports, self.url = services, ports, url

    def kill(self, number: int) -> None:
        self._services.kill("gateway", number)

    def start(self, number: int) -> None:
        os.environ["GATEWAY_PORT"] = str(self._ports[number])
        self._services.start("gateway", number)


@pytest.fixture
def behind(tmp_path: Path, servers: Servers, unique: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    monkeypatch.setenv("GATEWAY_PORT", "set for each gateway")
    if HAPROXY is None:
        pytest.skip("haproxy is not installed: scripts/install-haproxy does that as root on Debian")
    ports = [quiet_port() for _ in range(4)]
    bind, *addresses = (f"127.0.0.1:{port}" for port in ports)
    names = {f"NAVARCH_GATEWAY_{number}": address for number, address in enumerate(addresses, 1)}
    proxy = subprocess.Popen(
        [HAPROXY, "-db", "-f", str(ROOT / "deploy" / "haproxy.cfg")],
        env={**os.environ, **names, "NAVARCH_BIND": bind}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with apart(tmp_path, servers, CONFIG.format(name=unique)) as services:
            made = Behind(services, ports[1:], f"http://{bind}")
            for number in range(3):
                made.start(number)
            services.until(lambda: answers(f"http://{bind}/readyz"), "haproxy serves")
            yield made
    finally:
        proxy.kill()
        proxy.wait(timeout=10)


def quiet_port() -> int:
    """A free port below those from which connections are made: haproxy's own look at a gateway that is away could otherwise
    be given that gateway's port, and keep it."""
    while True:
        port = random.randint(20_000, 31_999)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@asynccontextmanager
async def committer(servers: Servers, name: str) -> AsyncIterator[Committer]:
    """Something that happens in the cluster: events through a commit, as every service makes them."""
    subjects = Subjects(name)
    store = RedisStore(servers.redis.url, cluster=name, subjects=subjects)
    bus = await JetStreamBus.connect(servers.nats.url, name="test", rng=random.Random(1))
    try:
        yield Committer(store, bus, subjects, writer=None, clock=SystemClock())
    finally:
        await bus.close()
        await store.close()


async def happen(making: Committer, done: asyncio.Event) -> list[str]:
    """Events, one after the other, until `done` and for a while after. Returns their ids."""
    told: list[str] = []
    while len(told) < COUNT or not done.is_set():
        revision = await making.commit(Commit(emit=(pool_resized(f"p-{len(told)}"),)))
        told.append(f"{revision:016d}-0")
        await asyncio.sleep(0.01)
    return told


async def kill_until_broken(behind: Behind, broken: asyncio.Event) -> None:
    """Kills one gateway after the other, each back before the next, until the followed stream broke: then the one that
    served it was killed."""
    for number in range(3):
        await asyncio.to_thread(behind.kill, number)
        try:
            async with asyncio.timeout(3):
                await broken.wait()
                return
        except TimeoutError:
            await asyncio.to_thread(behind.start, number)
    raise AssertionError("all gateways were killed, and the stream did not break")


async def test_a_client_whose_gateway_is_killed_resumes_through_another_without_gap_or_repeat(
    behind: Behind, servers: Servers, unique: str
) -> None:
    heard: list[str] = []
    broke: list[str] = []
    broken = asyncio.Event()

    def note(why: str) -> None:
        broke.append(why)
        broken.set()

    async def follow() -> None:
        async with AsyncClient(behind.url, timeout_s=5) as client:
            async for item in client.follow_events(type="pool.resized", on_break=note):
                heard.append(item.id)  # noqa: PERF401 - an endless stream is no list

    following = asyncio.create_task(follow())
    async with committer(servers, unique) as making:
        await asyncio.sleep(1.0)  # it follows, and has heard nothing yet
        happening = asyncio.create_task(happen(making, broken))
        await asyncio.sleep(0.5)
        await kill_until_broken(behind, broken)
        told = await happening
    async with asyncio.timeout(30):
        while len(heard) < len(told):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    following.cancel()
    assert heard == told
    print(f"{len(told)} events heard in order, over {len(broke)} breaks")


async def test_a_stream_that_breaks_before_its_first_event_misses_nothing_that_happens_meanwhile(
    behind: Behind, servers: Servers, unique: str
) -> None:
    broken = asyncio.Event()
    follower = await asyncio.create_subprocess_exec(
        str(BIN / "navarch"), "-s", behind.url, "events", "--follow", "--type", "pool.resized", "-o", "json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert follower.stdout is not None
    assert follower.stderr is not None
    said: list[bytes] = []

    async def listen(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            said.append(line)
            broken.set()

    listening = asyncio.create_task(listen(follower.stderr))
    try:
        async with committer(servers, unique) as making:
            await asyncio.sleep(3.0)
            await kill_until_broken(behind, broken)
            revision = await making.commit(Commit(emit=(pool_resized("p-1"),)))
            async with asyncio.timeout(30):
                line = json.loads(await follower.stdout.readline())
        assert line["id"] == f"{revision:016d}-0"
        assert b"taken up again where it broke" in said[0]
    finally:
        listening.cancel()
        follower.kill()
        await follower.wait()
