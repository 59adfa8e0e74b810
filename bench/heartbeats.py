"""Heartbeats that one `navarch-health` process sustains, with real NATS and Redis beside it on the same cores.

Sustained: at most one in a thousand lost, and the last one counted within a second of its sending. The ceiling is a bare
receive-decode-write loop under the same flood. The highest rate of each is found by halving the interval.
"""

import asyncio
import json
import random
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import redis.asyncio

from bench.plane import BIN, free_port
from bench.report import Figure
from navarch_common.events.subjects import Subjects
from navarch_common.model.node import NODE, NodeRecord, Phase, Registration
from navarch_common.store.base import Commit
from navarch_common.store.redis import RedisStore
from navarch_controlplane.embedded.datadir import DataDir
from navarch_controlplane.embedded.servers import EmbeddedServers

NODES = 2_000
PROBE_S = 4.0
LOWEST, HIGHEST, STEPS = 10_000.0, 300_000.0, 6
CONFIG = """
providers: {local: {type: local}}
pools:
  training: {provider: local, instance_type: h100-8x, min_nodes: 0, max_nodes: 100000}
"""
Count = Callable[[], Awaitable[int]]


class Flood:
    """Sends rounds of heartbeats and asks whether all were heard."""

    def __init__(self, nats_url: str, nodes_file: Path, heard: Count) -> None:
        self._nats_url, self._nodes_file, self._heard = nats_url, nodes_file, heard
        self._first = 1

    async def sustained(self) -> float:
        """The highest rate that is kept up with, a second."""
        low, high, best = LOWEST, HIGHEST, 0.0
        for _ in range(STEPS):
            rate = (low * high) ** 0.5
            sent_rate, kept_up = await self._probe(rate)
            print(f"  {rate:,.0f}/s asked, {sent_rate:,.0f}/s sent: {'kept up' if kept_up else 'not'}", file=sys.stderr)
            if kept_up:
                low, best = rate, max(best, sent_rate)
            else:
                high = rate
            await asyncio.sleep(1.5)
        return best

    async def _probe(self, rate: float) -> tuple[float, bool]:
        before = await self._heard()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.flood", self._nats_url, "--nodes", str(self._nodes_file),
            "--rate", str(rate), "--seconds", str(PROBE_S), "--first", str(self._first),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
        await asyncio.sleep(1.0)
        said = json.loads(out)
        self._first += said["sent"] // NODES + 2
        heard = await self._heard() - before
        return said["sent"] / said["seconds"], heard >= said["sent"] * 0.999


async def run() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="navarch-bench-") as directory:
        data_dir = DataDir(Path(directory) / "data")
        with data_dir.lock("bench", "now"):
            async with EmbeddedServers(data_dir, {}, random.Random()).running() as servers:
                assert servers.nats is not None
                assert servers.redis is not None
                return await _measure(Path(directory), servers.nats, servers.redis)


async def _measure(directory: Path, nats_url: str, redis_url: str) -> list[Figure]:
    nodes = [f"training-{number:06d}" for number in range(NODES)]
    nodes_file = directory / "nodes"
    nodes_file.write_text("\n".join(nodes))
    async with _bare(nats_url, redis_url) as heard:
        ceiling = await Flood(nats_url, nodes_file, heard).sustained()
    async with _health(directory, nats_url, redis_url, nodes) as heard:
        value = await Flood(nats_url, nodes_file, heard).sustained()
    return [
        Figure(
            bench="heartbeats", what="sustained by one health process", value=value, unit="/s", ceiling=ceiling,
            goal="ratio >= 0.6", better="more", note=f"{NODES} nodes, 8 GPUs each",
        )
    ]  # fmt: skip


@asynccontextmanager
async def _bare(nats_url: str, redis_url: str) -> AsyncIterator[Count]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.bare", nats_url, redis_url)
    store = redis.asyncio.from_url(redis_url)
    try:
        async with asyncio.timeout(10):
            while await store.get("bench:heard") is None:
                await asyncio.sleep(0.1)

        async def heard() -> int:
            return int(await store.get("bench:heard") or 0)

        yield heard
    finally:
        process.terminate()
        await process.wait()
        await store.aclose()


@asynccontextmanager
async def _health(directory: Path, nats_url: str, redis_url: str, nodes: list[str]) -> AsyncIterator[Count]:
    file, port = directory / "navarch.yaml", free_port()
    file.write_text(CONFIG)
    # The gateway commits the first configuration; health waits for it.
    gateway = await _service("navarch-gateway", file, directory, free_port(), nats_url, redis_url)
    health = await _service("navarch-health", file, directory, port, nats_url, redis_url)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5.0) as client:
            async with asyncio.timeout(60):
                while not await _ready(client):
                    await asyncio.sleep(0.2)
            gateway.terminate()
            await gateway.wait()
            await _plant(redis_url, nodes)
            await asyncio.sleep(3.0)

            async def heard() -> int:
                text = (await client.get("/metrics")).text
                found = re.search(r"^navarch_heartbeats_total (\S+)", text, re.MULTILINE)
                return int(float(found[1])) if found else 0

            yield heard
    finally:
        for process in (health, gateway):
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def _service(
    name: str, file: Path, directory: Path, port: int, nats_url: str, redis_url: str
) -> asyncio.subprocess.Process:
    log = (directory / f"{name}.log").open("wb")
    return await asyncio.create_subprocess_exec(
        str(BIN / name), "--config", str(file), "--data-dir", str(directory / "services"), "--log-level", "warning",
        "--metrics-addr", f"127.0.0.1:{port}", stdout=log, stderr=log,
        env={"PATH": "/usr/bin:/bin", "NAVARCH_NATS_URL": nats_url, "NAVARCH_REDIS_URL": redis_url},
    )  # fmt: skip


async def _ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def _plant(redis_url: str, nodes: list[str]) -> None:
    """Active nodes, as if they had been launched and had registered."""
    now = datetime.now(UTC)
    store = RedisStore(redis_url, cluster="default", subjects=Subjects())
    for start in range(0, len(nodes), 200):
        records = [
            NodeRecord(
                node=node, pool="training", generation=1, phase=Phase.ACTIVE, phase_since=now, created_at=now,
                active_at=now, registration=Registration(at=now, boot_id="boot", generation=1, driver_state="ok"),
            )
            for node in nodes[start : start + 200]
        ]  # fmt: skip
        await store.commit(Commit(put={NODE.key(record.node): record for record in records}))
    await store.close()
