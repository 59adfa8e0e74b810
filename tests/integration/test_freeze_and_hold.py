"""Freezes and holds over real processes, real NATS and real Redis: what they forbid stays forbidden when both are lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
import redis

from fixtures.servers import Servers
from navarch_api.client import Client
from navarch_api.types import NodeDetail
from support.apart import Apart, apart
from support.fleet import BIN, environment

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SERVICES = ("gateway", "health", "autoscaler", "provisioner")
LINE = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
CONFIG = """
cluster: {name}
bus: {{prefix: {name}}}
server: {{http_address: '127.0.0.1:0', address: '127.0.0.1:0', heartbeat_interval: 300ms}}
providers: {{local: {{type: local}}}}
pools:
  training: {{provider: local, instance_type: h100-8x, min_nodes: 3, max_nodes: 6}}
"""


@pytest.fixture
def services(tmp_path: Path, killable_servers: Servers, unique: str) -> Iterator[Apart]:
    with apart(tmp_path, killable_servers, CONFIG.format(name=unique)) as services:
        for service in SERVICES:
            services.start(service)
        services.start("provisioner", copy=1)
        services.until_active(3)
        yield services


def ask(services: Apart) -> Client:
    return Client(services.http, actor="operator:ada", timeout_s=10)


def navarch(services: Apart, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "navarch"), *arguments], env={**environment(), "NAVARCH_SERVER": services.http}, text=True,
        capture_output=True, timeout=30, check=False,
    )  # fmt: skip


def detail(services: Apart, node: str) -> NodeDetail:
    with ask(services) as client:
        return client.node(node)


def breaks(services: Apart, node: str) -> None:
    with (services.data_dir / "instances" / node / "kmsg").open("a") as kmsg:
        kmsg.write(LINE)


def dies(services: Apart, node: str) -> None:
    os.kill(int((services.data_dir / "instances" / node / "pid").read_text()), signal.SIGKILL)


def lose_the_bus_memory(servers: Servers, prefix: str) -> None:
    """What its disk is gone with: every stream and bucket of this cluster."""

    async def delete() -> None:
        client = await nats.connect(servers.nats.url)
        stream = client.jetstream()
        for name in await stream.streams_info():
            if prefix.upper() in (name.config.name or "").upper():
                await stream.delete_stream(name.config.name or "")
        await client.close()

    asyncio.run(delete())


def lose_the_store(servers: Servers) -> None:
    with redis.Redis.from_url(servers.redis.url) as client:
        client.flushall()


def restart_all(services: Apart) -> None:
    services.log("gateway-0").unlink()  # its address is looked for there
    for service in SERVICES:
        services.start(service)


def kill_all(services: Apart) -> None:
    for name in list(services.processes):
        service, _, copy = name.rpartition("-")
        services.kill(service, int(copy))


def is_frozen(services: Apart) -> bool:
    with ask(services) as client:
        return any(guard.active and guard.kind == "freeze" for guard in client.status().guards)


def test_a_held_node_is_cordoned_and_kept_until_it_is_released(services: Apart) -> None:
    broken = min(services.active())
    held = navarch(services, "hold", broken, "--for", "1h", "--reason", "counting fans")
    assert held.returncode == 0, held.stderr
    assert f"{broken} is held until" in held.stdout
    breaks(services, broken)
    services.until(lambda: detail(services, broken).cordons, "the cordon of health")
    time.sleep(2.0)
    kept = detail(services, broken)
    assert (kept.phase, kept.replaced_by) == ("active", None)
    assert kept.blocked is not None
    assert kept.blocked.code == "held"
    refused = navarch(services, "terminate", broken, "--yes")
    assert refused.returncode == 4
    assert f"{broken} is held by operator:" in refused.stderr
    assert "counting fans; release it, or use --force" in refused.stderr
    assert "Held" in navarch(services, "status").stdout
    released = navarch(services, "release", broken)
    assert released.returncode == 0, released.stderr
    services.until(lambda: broken not in {node.node for node in services.nodes()}, "the failed node gone")
    services.until_active(3)
    assert services.machines() == 3


def test_a_freeze_outlives_a_lost_redis_and_then_a_lost_nats_and_then_both_at_once(
    services: Apart, killable_servers: Servers, unique: str
) -> None:
    file = services.data_dir / "guards.json"
    with ask(services) as client:
        client.freeze(reason="smoke in row 4")
    services.until(file.exists, "the file of guards", within_s=2.0)

    kill_all(services)
    lose_the_store(killable_servers)
    restart_all(services)
    services.until(lambda: is_frozen(services), "the freeze, kept by the bus")

    kill_all(services)
    lose_the_bus_memory(killable_servers, unique)
    restart_all(services)
    services.until(lambda: is_frozen(services), "the freeze, kept by the store")

    kill_all(services)
    lose_the_store(killable_servers)
    lose_the_bus_memory(killable_servers, unique)
    assert json.loads(file.read_text())["guards"][0]["reason"] == "smoke in row 4"
    restart_all(services)
    services.until(lambda: is_frozen(services), "the freeze, kept by the file alone")

    assert services.machines() == 3


def test_a_freeze_can_be_made_while_redis_hangs_and_holds_when_it_is_back(
    services: Apart, killable_servers: Servers
) -> None:
    killable_servers.redis.pause()
    try:
        with ask(services) as client:
            assert client.freeze(reason="the store hangs").event_id == ""
    finally:
        killable_servers.redis.resume()
    services.until(lambda: is_frozen(services), "the freeze in the store")
    victim = min(services.active())
    dies(services, victim)
    services.until(lambda: detail(services, victim).phase == "terminated", "the death noticed")
    time.sleep(2.0)
    assert services.machines() == 2, "nothing is launched under a freeze"
    with ask(services) as client:
        client.unfreeze()
    services.until_active(3)
