"""The gateway as a process of its own, on a real NATS and a real Redis: its doors, its file, its end."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from navarch_api.client import AsyncClient
from navarch_api.errors import ApiError, Unreachable
from navarch_api.types import EventItem
from navarch_api.v1 import fleet_pb2 as pb
from navarch_api.v1.fleet_pb2_grpc import FleetStub

pytestmark = pytest.mark.integration

CONFIG = """
cluster: {cluster}
bus: {{url: "{nats}", prefix: {cluster}}}
state: {{url: "{redis}"}}
server: {{http_address: "127.0.0.1:{http}", address: "127.0.0.1:{grpc}"}}
providers: {{here: {{type: local}}}}
pools: {{training: {{instance_type: h100-8x, min_nodes: 1, max_nodes: {max_nodes}}}}}
"""


@dataclass
class Gateway:
    process: asyncio.subprocess.Process
    client: AsyncClient
    file: Path
    http: int
    grpc: int

    def write(self, text: str) -> None:
        other = self.file.with_suffix(".new")
        other.write_text(text)
        other.rename(self.file)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def start(file: Path, data_dir: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "navarch_gateway.main", "--config", str(file), "--data-dir", str(data_dir),
        "--metrics-addr", "127.0.0.1:0",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip


async def ended(file: Path, data_dir: Path) -> tuple[int | None, str]:
    """Starts a gateway that cannot, and gives its exit status and what it said. Leaves no process behind."""
    process = await start(file, data_dir)
    try:
        async with asyncio.timeout(30):
            _, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, stderr.decode()


@asynccontextmanager
async def gateway(tmp_path: Path, text: str, http: int, rpc: int) -> AsyncIterator[Gateway]:
    file = tmp_path / "navarch.yaml"
    file.write_text(text)
    process = await start(file, tmp_path / "data")
    client = AsyncClient(f"http://127.0.0.1:{http}", actor="operator:ada", timeout_s=5)
    try:
        async with asyncio.timeout(30):
            while process.returncode is None:
                with suppress(Unreachable, ApiError):
                    if (await client.status()).ready:
                        break
                await asyncio.sleep(0.05)
        yield Gateway(process, client, file, http, rpc)
    finally:
        await client.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_gateway_serves_both_doors_takes_over_its_file_and_stops_cleanly(
    tmp_path: Path, nats_url: str, redis_url: str, unique: str
) -> None:
    http, rpc = free_port(), free_port()
    facts = {"cluster": unique, "nats": nats_url, "redis": redis_url, "http": http, "grpc": rpc}
    async with gateway(tmp_path, CONFIG.format(**facts, max_nodes=5), http, rpc) as served:
        client = served.client
        assert (await client.config()).generation == 1

        events: list[EventItem] = []

        async def follow() -> None:
            async for item in client.follow_events(since="1h"):
                events.append(item)  # noqa: PERF401 - an endless stream is no list

        following = asyncio.create_task(follow())
        accepted = await client.wish_pool("training", "scale", nodes=3, request_id="r1")
        assert (await client.wish_pool("training", "scale", nodes=3, request_id="r1")).event_id == accepted.event_id
        assert (await client.pool_wish("training", "r1")).state == "open"
        with pytest.raises(ApiError, match="over the max_nodes 5"):
            await client.wish_pool("training", "scale", nodes=6)

        async with grpc.aio.insecure_channel(f"127.0.0.1:{rpc}") as channel:
            pool = await FleetStub(channel).GetPool(pb.GetPoolRequest(pool="training"), timeout=5)
            assert pool.max_nodes == 5

        served.write(CONFIG.format(**facts, max_nodes=7))
        await seen(events, "cluster.config-applied", 2)
        assert (await client.config()).generation == 2
        async with asyncio.timeout(5):
            while (await client.pool("training")).max_nodes != 7:
                await asyncio.sleep(0.05)
        served.write(CONFIG.format(**facts, max_nodes=0))
        await seen(events, "cluster.config-rejected", 1)
        assert (await client.config()).generation == 2
        assert accepted.event_id in {item.id for item in events}

        following.cancel()
        loop = asyncio.get_running_loop()
        before = loop.time()
        served.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await served.process.wait() == 0
        assert loop.time() - before < 8


async def seen(events: list[EventItem], kind: str, times: int) -> None:
    async with asyncio.timeout(10):
        while sum(item.kind == kind for item in events) < times:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("door", ["http", "grpc"])
async def test_a_busy_port_ends_the_gateway_with_the_flags_name(
    tmp_path: Path, nats_url: str, redis_url: str, unique: str, door: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = {"http": free_port(), "grpc": free_port()} | {door: taken.getsockname()[1]}
        file = tmp_path / "navarch.yaml"
        file.write_text(CONFIG.format(cluster=unique, nats=nats_url, redis=redis_url, max_nodes=5, **ports))
        returncode, stderr = await ended(file, tmp_path / "data")
    assert returncode == 1
    line = next(line for line in stderr.splitlines() if f"--{door}" in line)
    assert str(ports[door]) in line


async def test_a_wrong_first_file_ends_the_gateway_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "navarch.yaml"
    file.write_text("pools: {training: {max_nodez: 5}}\n")
    returncode, stderr = await ended(file, tmp_path / "data")
    assert returncode == 2
    assert "navarch.yaml:1:" in stderr
    assert "did you mean 'max_nodes'?" in stderr
