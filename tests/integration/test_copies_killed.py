"""Three copies of what works on pools, as processes: they share, and what a dead or stopped one held moves on."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.servers import Servers
from navarch_api import types as t
from navarch_api.client import Client
from navarch_common.store.redis import RedisStore
from support.apart import Apart, apart

pytestmark = [pytest.mark.long, pytest.mark.integration, pytest.mark.slow]

SERVICES = ("provisioner", "autoscaler")
POOLS = tuple(f"pool-{n}" for n in range(6))
CONFIG = """
cluster: {name}
bus: {{prefix: {name}}}
server: {{http_address: '127.0.0.1:0', address: '127.0.0.1:0'}}
providers: {{local: {{type: local}}}}
pools:
""" + "\n".join(f"  {pool}: {{{{provider: local, instance_type: any, min_nodes: 0, max_nodes: 3}}}}" for pool in POOLS)


@pytest.fixture
def services(tmp_path: Path, servers: Servers, unique: str) -> Iterator[Apart]:
    with apart(tmp_path, servers, CONFIG.format(name=unique)) as services:
        services.start("gateway")
        for copy in range(3):
            for service in SERVICES:
                services.spawn(service, copy)
        yield services


def status(services: Apart) -> t.ClusterStatus:
    with Client(services.http, timeout_s=5.0) as client:
        return client.status()


def shares(services: Apart) -> dict[str, dict[str, str]]:
    """By service, who holds each pool."""
    found: dict[str, dict[str, str]] = {service: {} for service in SERVICES}
    for lease in status(services).leases:
        service, _, pool = lease.name.partition("/")
        found[service][pool] = lease.owner
    return found


def even(services: Apart, copies: int) -> dict[str, dict[str, str]]:
    """Who holds what once every pool is held and no copy has two more than another; empty before."""
    found = shares(services)
    for service, pools in (("provisioner", {*POOLS, "_fleet"}), ("autoscaler", set(POOLS))):
        counts = [list(found[service].values()).count(owner) for owner in set(found[service].values())]
        if set(found[service]) != pools or len(counts) != copies or max(counts) - min(counts) > 1:
            return {}
    return found


def owned_by(services: Apart, service: str, copy: int) -> str:
    """The name of a copy's process, which has its pid in it."""
    pid = services.processes[f"{service}-{copy}"].pid
    return next(one.instance for one in status(services).members if f"-{pid}-" in one.instance)


async def until_taken_over(redis_url: str, cluster: str, dead: set[str]) -> float:
    """How long it takes, in seconds, until living copies hold every pool."""
    store, began = RedisStore(redis_url, cluster=cluster), time.monotonic()
    try:
        async with asyncio.timeout(30):
            while True:
                held = [lease for lease in await store.leases() if lease.owner not in dead]
                if len(held) == 2 * len(POOLS) + 1:
                    return time.monotonic() - began
                await asyncio.sleep(0.02)
    finally:
        await store.close()


def test_three_copies_share_the_pools_and_a_dead_ones_move_alone(
    services: Apart, servers: Servers, unique: str
) -> None:
    before = services.until(lambda: even(services, 3), "even shares")
    dead = {service: owned_by(services, service, 1) for service in SERVICES}
    for service in SERVICES:
        services.kill(service, 1)
    took_s = asyncio.run(until_taken_over(servers.redis.url, unique, set(dead.values())))
    print(f"every pool of the killed copies is held again after {took_s:.2f} s")
    after = services.until(lambda: even(services, 2), "even shares of two")
    for service in SERVICES:
        moved = {pool for pool, owner in after[service].items() if owner != before[service][pool]}
        assert moved == {pool for pool, owner in before[service].items() if owner == dead[service]}
    assert len(status(services).copies["provisioner"]) == 2


def test_a_stopped_copy_loses_its_pools_and_shares_again_when_it_goes_on(services: Apart) -> None:
    services.until(lambda: even(services, 3), "even shares")
    stopped = services.processes["provisioner-2"].pid
    os.kill(stopped, signal.SIGSTOP)
    try:
        services.until(lambda: set(shares(services)["provisioner"].values()) and even_two(services), "shares of two")
    finally:
        os.kill(stopped, signal.SIGCONT)
    services.until(lambda: even(services, 3), "even shares of three again")
    assert "lease given up" in services.log("provisioner-2").read_text()


def even_two(services: Apart) -> bool:
    held = shares(services)["provisioner"]
    return len(held) == len(POOLS) + 1 and len(set(held.values())) == 2
