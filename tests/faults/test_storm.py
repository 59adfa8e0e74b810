"""One fault of each kind, one after the other, and a machine that breaks under each: nothing is lost, doubled or wrongly
ended. Two copies of each service, three NATS servers, a Redis with its replica and Sentinels. The long and random version
is `make chaos`.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest

from fixtures.clusters import NatsCluster, RedisGroup
from fixtures.servers import nats_binary, redis_binary
from navarch_provisioner.settings import Timings
from support.storm import Storm, storm_in

NODES = 6
TOLD_WITHIN_S = 60.0
pytestmark = [
    pytest.mark.long,
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(nats_binary() is None or redis_binary() is None, reason="clusters need the servers' binaries"),
]


async def test_each_part_may_fail_and_no_failure_is_lost_and_no_machine_doubled(tmp_path: Path) -> None:
    async with (
        storm_in(tmp_path, seed=1, least=NODES, most=2 * NODES, copies=2) as storm,
        subscriber(storm, "traveller") as traveller,
        subscriber(storm, "sloth") as sloth,
        storm.hostile.supervised(),
    ):
        await sloth.hear_without_acknowledging()
        for what, begin, act in STORY:
            await storm.until_active(NODES // 2)
            began = time.monotonic()
            end = begin(storm)
            victim = await break_some_machine(storm, act)
            if what in MUTE:
                await asyncio.sleep(OUTAGE_S)
            else:
                await told(storm, victim, what)
            end()
            await told(storm, victim, what)
            print(f"{what}: {victim} {act}, told, after {time.monotonic() - began:.1f} s")
        await storm.hostile.relent(NODES)
        wrong = await storm.judge(NODES, within_s=60.0)
        assert not wrong, "\n".join(wrong)
        # Who was away all the time, and who never acknowledged anything, are told of the same failures all the same.
        assert storm.hostile.deeds.broken <= await traveller.failures()
        assert len(storm.hostile.deeds.broken) == len(STORY)


OUTAGE_S = 6.0
Begin = Callable[[Storm], Callable[[], object]]
"""Lets something fail, and returns what repairs it."""


def nothing(_: Storm) -> Callable[[], object]:
    return lambda: None


def kill_copy_of(service: str) -> Begin:
    def begin(storm: Storm) -> Callable[[], object]:
        copy = (service, storm.holder(service))
        storm.hostile.down.add(copy)
        storm.services.kill(*copy)
        return lambda: (storm.hostile.start(copy), storm.hostile.down.discard(copy))

    return begin


def stop_the_holder(storm: Storm) -> Callable[[], object]:
    """SIGSTOP, for longer than its lease lives; then it wakes up and believes what it believed."""
    lease_s = Timings().lease_ttl.total_seconds()
    storm.hostile.pause_copy(("provisioner", storm.holder("provisioner")), lease_s + 2)
    return lambda: None


def kill_all_of(service: str) -> Begin:
    def begin(storm: Storm) -> Callable[[], object]:
        copies = [copy for copy in storm.hostile.copies if copy[0] == service]
        for copy in copies:
            storm.hostile.down.add(copy)
            storm.services.kill(*copy)

        def end() -> None:
            for copy in copies:
                storm.hostile.start(copy)
                storm.hostile.down.discard(copy)

        return end

    return begin


def nats_of(storm: Storm) -> NatsCluster:
    assert isinstance(storm.servers.nats, NatsCluster)
    return storm.servers.nats


def kill_nats_leader(storm: Storm) -> Callable[[], object]:
    leader = nats_of(storm).parts[nats_of(storm).leader(storm.subjects.stream("EVENTS"))]
    leader.kill()
    return leader.start


def hang_nats_leader(storm: Storm) -> Callable[[], object]:
    leader = nats_of(storm).parts[nats_of(storm).leader(storm.subjects.stream("REPORTS"))]
    leader.pause()
    return leader.resume


def lose_quorum(storm: Storm) -> Callable[[], object]:
    two = list(nats_of(storm).parts.values())[:2]
    for server in two:
        server.kill()
    return lambda: [server.start() for server in two]


def kill_redis_primary(storm: Storm) -> Callable[[], object]:
    group = storm.servers.redis
    assert isinstance(group, RedisGroup)
    primary = group.redis[group.primary()]
    primary.kill()
    return primary.start


def slow_redis(storm: Storm) -> Callable[[], object]:
    """Half a second for each operation."""
    for name in ("redis-0", "redis-1"):
        storm.network.slow(name, 0.25)
    return lambda: [storm.network.fine(name) for name in ("redis-0", "redis-1")]


STORY: list[tuple[str, Begin, str]] = [
    ("nothing else", nothing, "xid"),
    ("a copy of health killed", kill_copy_of("health"), "xid"),
    ("the provisioner that holds the pool killed", kill_copy_of("provisioner"), "xid"),
    ("the autoscaler that holds the pool killed", kill_copy_of("autoscaler"), "death"),
    ("the provisioner that holds the pool hung for longer than its lease", stop_the_holder, "xid"),
    ("the leader of the events killed", kill_nats_leader, "death"),
    ("the leader of the reports hung", hang_nats_leader, "death"),
    ("two NATS servers of three killed", lose_quorum, "death"),
    ("Redis slow", slow_redis, "xid"),
    ("the primary Redis killed", kill_redis_primary, "xid"),
    ("all copies of health killed", kill_all_of("health"), "xid"),
]
MUTE = frozenset({"two NATS servers of three killed", "all copies of health killed"})
"""Faults under which nobody can tell of a failure before they end."""


async def break_some_machine(storm: Storm, act: str) -> str:
    dice = random.Random(len(storm.hostile.deeds.broken))
    async with asyncio.timeout(TOLD_WITHIN_S):
        while not (victim := await storm.hostile.break_machine(act, dice)):
            await asyncio.sleep(0.2)
    return victim


async def told(storm: Storm, victim: str, what: str) -> None:
    """Waits until the failure is known outside."""
    deadline = time.monotonic() + TOLD_WITHIN_S
    while victim not in storm.outsider.failures():
        assert time.monotonic() < deadline, f"{what}: nobody was told that {victim} failed"
        await asyncio.sleep(0.1)


class Subscriber:
    """A durable consumer of somebody else's, as it is before it hears anything."""

    def __init__(self, storm: Storm, name: str) -> None:
        self._servers, self._subjects, self._name = storm.servers.nats.direct_url.split(","), storm.subjects, name

    async def subscribe(self) -> None:
        client = await nats.connect(self._servers)
        await self._pull(client)
        await client.close()

    async def hear_without_acknowledging(self) -> None:
        client = await nats.connect(self._servers)
        await (await self._pull(client)).fetch(1000, timeout=5)
        await client.close()

    async def failures(self) -> set[str]:
        """Nodes of whose failure it is told now, after having been away."""
        client = await nats.connect(self._servers)
        events = await self._pull(client)
        found: set[str] = set()
        while (await events.consumer_info()).num_pending:
            for message in await events.fetch(1000, timeout=5):
                event = json.loads(message.data)
                if event["type"] == "node.failed.v1":
                    found.add(event["node"])
                await message.ack()
        await client.close()
        return found

    async def _pull(self, client: nats.NATS) -> nats.js.JetStreamContext.PullSubscription:
        stream = client.jetstream(timeout=5)
        return await stream.pull_subscribe(
            self._subjects.events, durable=self._name, stream=self._subjects.stream("EVENTS")
        )


@asynccontextmanager
async def subscriber(storm: Storm, name: str) -> AsyncIterator[Subscriber]:
    made = Subscriber(storm, name)
    await made.subscribe()
    yield made
