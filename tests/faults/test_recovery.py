"""How long it takes until a failure is told and acted on, when the part that should have done it is killed right before.

`make chaos-recovery` measures it and prints it: three copies of each service, three NATS servers, a Redis with its replica
and Sentinels, machines that are processes. Times differ from machine to machine, so only what happened is asserted: the
failure is told to a subscriber outside, one replacement is launched, and the books are in order afterwards.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis

from fixtures.clusters import NatsCluster, RedisGroup, until
from navarch_common.model.node import NODE, NodeRecord, Phase
from navarch_common.store.base import StoreError
from navarch_common.store.redis import RedisStore
from support.storm import POOL, Storm, storm_in

ROUNDS = int(os.environ.get("NAVARCH_RECOVERY_ROUNDS") or 3)
NODES = 6
LINE = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
WITHIN_S = 60.0
pytestmark = [
    pytest.mark.skipif("NAVARCH_RECOVERY_ROUNDS" not in os.environ, reason="`make chaos-recovery` measures it"),
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
]

Kill = Callable[[Storm], Callable[[], None]]
"""Kills something, and returns what repairs it."""


def copy_of(service: str) -> Kill:
    """The copy that does the work: the holder of the pool's lease, where there is one."""

    def kill(storm: Storm) -> Callable[[], None]:
        copy = (service, storm.holder(service))
        storm.services.kill(*copy)
        return lambda: storm.hostile.start(copy)

    return kill


def nats_leader_of(stream: str) -> Kill:
    def kill(storm: Storm) -> Callable[[], None]:
        cluster = storm.servers.nats
        assert isinstance(cluster, NatsCluster)
        leader = cluster.parts[cluster.leader(storm.subjects.stream(stream))]
        leader.kill()
        return leader.start

    return kill


def redis_primary(storm: Storm) -> Callable[[], None]:
    group = storm.servers.redis
    assert isinstance(group, RedisGroup)
    until(group.replicated, "a replica that follows")  # without one there is nobody to take over
    primary = group.redis[group.primary()]
    primary.kill()
    return primary.start


def nothing(_: Storm) -> Callable[[], None]:
    return lambda: None


KILLS: dict[str, tuple[Kill, str]] = {
    "nothing": (nothing, ""),
    "health": (copy_of("health"), "< 5 s"),
    "provisioner, the holder of the pool": (copy_of("provisioner"), "< 5 s"),
    "autoscaler, the holder of the pool": (copy_of("autoscaler"), "< 5 s"),
    "gateway": (copy_of("gateway"), "< 5 s"),
    "NATS, leader of the reports": (nats_leader_of("REPORTS"), "< 10 s"),
    "NATS, leader of the events": (nats_leader_of("EVENTS"), "< 10 s"),
    "Redis, the primary": (redis_primary, "< 5 s"),
}


async def test_whatever_is_killed_a_failure_right_then_is_told_and_acted_on(tmp_path: Path) -> None:
    async with storm_in(tmp_path, seed=1, least=NODES, most=2 * NODES, provider="local") as storm:
        print(f"\n{'killed':38} {'told, s':>20} {'launched, s':>20}   goal   (least, median, most of {ROUNDS})")
        for what, (kill, goal) in KILLS.items():
            told, launched = [], []
            for _ in range(ROUNDS):
                one, other = await recovery(storm, kill)
                told.append(one)
                launched.append(other)
                await storm.until_quiet(90.0, say=lambda _: None)
            print(f"{what:38} {spread(told):>20} {spread(launched):>20}   {goal}", flush=True)
        wrong = await storm.judge(NODES, within_s=60.0)
    assert not wrong, "\n".join(wrong)


async def test_a_flushed_store_means_safe_mode_and_no_act_on_any_machine(tmp_path: Path) -> None:
    async with storm_in(tmp_path, seed=1, least=NODES, most=2 * NODES, provider="local") as storm:
        print(f"\n{'':38} {'safe mode, s':>20} {'left, s':>20}   goal   (least, median, most of {ROUNDS})")
        entered, left, acts = [], [], 0
        for _ in range(ROUNDS):
            before, heard = machines(storm), len(storm.outsider.heard)
            began = time.monotonic()
            await asyncio.to_thread(flush, storm)
            entered.append(await storm.told("cluster.safe-mode-entered", heard) - began)
            left.append(await storm.told("cluster.safe-mode-left", heard) - began)
            acts += len(machines(storm) ^ before)
            await storm.until_quiet(60.0, say=lambda _: None)
            assert machines(storm) == before
        print(
            f"{'Redis flushed':38} {spread(entered):>20} {spread(left):>20}   < 5 s   {acts} acts on machines",
            flush=True,
        )
        wrong = await storm.judge(NODES, within_s=60.0)
    assert not wrong, "\n".join(wrong)


def flush(storm: Storm) -> None:
    group = storm.servers.redis
    assert isinstance(group, RedisGroup)
    with closing(Redis(port=group.redis[group.primary()].port)) as redis:
        redis.flushall()


def machines(storm: Storm) -> set[tuple[str, str]]:
    """Every machine that was ever made, and how it stands."""
    return {(made.request.token, str(made.power)) for made in storm.machines.made()}


def spread(values: list[float]) -> str:
    return f"{min(values):.2f} {statistics.median(values):.2f} {max(values):.2f}"


async def recovery(storm: Storm, kill: Kill) -> tuple[float, float]:
    """Seconds from the failure to its event outside, and to the launch of its replacement. What was killed is repaired
    only afterwards."""
    store = RedisStore(storm.servers.redis.url, cluster=storm.cluster)
    try:
        victim = min(
            stored.record.node for stored in await store.records(NODE, POOL) if stored.record.phase is Phase.ACTIVE
        )
        repair = await asyncio.to_thread(kill, storm)
        began, began_at = time.monotonic(), time.time()
        with (storm.directory / "data" / "instances" / victim / "kmsg").open("a") as kmsg:
            kmsg.write(LINE)
        storm.hostile.deeds.broken.add(victim)
        storm.hostile.deeds.counts["machine xid"] += 1
        async with asyncio.timeout(WITHIN_S):
            launched_at = await launch_of_its_replacement(storm, store, victim)
            while victim not in storm.outsider.failures():
                await asyncio.sleep(0.02)
        repair()
        return storm.outsider.failures()[victim] - began, launched_at - began_at
    finally:
        await store.close()


async def launch_of_its_replacement(storm: Storm, store: RedisStore, victim: str) -> float:
    """When the provider was asked for it, by the wall's clock."""
    while True:
        try:
            nodes: list[NodeRecord] = [stored.record for stored in await store.records(NODE, POOL)]
        except StoreError:
            nodes = []
        successors = {node.node for node in nodes if node.replaces == victim}
        for machine in await asyncio.to_thread(storm.machines.made):
            if machine.request.node in successors:
                return machine.launched_at.timestamp()
        await asyncio.sleep(0.05)
