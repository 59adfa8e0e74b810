"""A service's whole process, over a real NATS and a real Redis."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from fixtures.servers import Servers
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.config.load import load_text
from navarch_common.run import Surroundings, UsageError, open_deps

pytestmark = pytest.mark.integration

SERVICE = """
import asyncio, sys
from navarch_common.run import run_service

class Service:
    def __init__(self, deps, config):
        self.ready, self.deps = False, deps
    async def run(self):
        self.ready = True
        try:
            async with self.deps.bus.subscribe("test.end") as ends:
                async for _ in ends:
                    return
        finally:
            print("tidied", flush=True)
    def status(self):
        return {"pools": 1}

sys.exit(run_service("gateway", Service))
"""


def config(cluster: str, prefix: str) -> str:
    return f"""
cluster: {cluster}
bus: {{prefix: {prefix}}}
providers: {{local: {{type: local}}}}
pools: {{training: {{provider: local, instance_type: h100-8x, min_nodes: 1, max_nodes: 9}}}}
"""


async def test_a_service_becomes_ready_tells_of_itself_and_stops_on_a_signal(
    servers: Servers, unique: str, tmp_path: Path
) -> None:
    (tmp_path / "navarch.yaml").write_text(config(unique, unique))
    (tmp_path / "service.py").write_text(SERVICE)
    environ = {**os.environ, "NAVARCH_NATS_URL": servers.nats.url, "NAVARCH_REDIS_URL": servers.redis.url}
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "service.py", "--config", "navarch.yaml", "--metrics-addr", f"127.0.0.1:{port}",
        cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            status = await ready(client)
            assert status["gateway"] == {"pools": 1}
            assert status["bus"]["connected"] is True
            assert 'service="gateway"' in (await client.get("/metrics")).text
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(15):
                out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert out == b"tidied\n"
    finally:
        if process.returncode is None:
            process.kill()


async def ready(client: httpx.AsyncClient) -> dict[str, dict[str, object]]:
    async with asyncio.timeout(30):
        while True:
            try:
                answer = await client.get("/readyz")
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 200:
                status: dict[str, dict[str, object]] = answer.json()
                return status
            await asyncio.sleep(0.05)


def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def test_two_copies_start_together_and_agree_on_whose_the_store_is(servers: Servers, unique: str) -> None:
    around = Surroundings(
        load_text(config(unique, unique), "t", {}), {}, nats_url=servers.nats.url, redis_url=servers.redis.url
    )

    async def installation() -> str:
        async with open_deps(None, around, first_config_wait_s=0) as deps:
            assert deps.named("health").committer is not deps.committer
            assert deps.config.current.generation == 0
            return deps.installation

    assert len(set(await asyncio.gather(installation(), installation(), installation()))) == 1


async def test_an_address_that_is_missing_is_named(unique: str) -> None:
    around = Surroundings(load_text(config(unique, unique), "t", {}), {})
    with pytest.raises(UsageError, match=r"bus\.url.*NAVARCH_NATS_URL"):
        async with open_deps("health", around):
            pass


async def test_events_reach_an_outsider_of_the_same_prefix(servers: Servers, unique: str) -> None:
    around = Surroundings(
        load_text(config(unique, unique), "t", {}), {}, nats_url=servers.nats.url, redis_url=servers.redis.url
    )
    async with open_deps("gateway", around, first_config_wait_s=0) as deps:
        outside = await JetStreamBus.connect(servers.nats.url, name="outside", rng=random.Random(1))
        try:
            ack = await outside.publish_durable(deps.subjects.queue_depth("training"), b"73", msg_id="1")
            assert ack.stream == deps.subjects.stream("METRICS")
        finally:
            await outside.close()
