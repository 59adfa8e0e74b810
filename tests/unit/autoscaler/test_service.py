"""The autoscaler as a whole, over a store and a bus in memory: what wakes it, what it writes, what it refuses."""

import asyncio
from datetime import datetime, timedelta

import pytest
from msgspec import structs

from fixtures.records import node_record
from fixtures.world import World
from navarch_autoscaler.main import build
from navarch_autoscaler.metrics.nats import LOOK_S, NatsQueueDepths
from navarch_autoscaler.service import AutoscalerService
from navarch_common.bus.memory import MemoryServer
from navarch_common.clock import ManualClock
from navarch_common.events.codec import encode
from navarch_common.events.kinds import MessageRejected, PoolResized
from navarch_common.events.messages import Heartbeat
from navarch_common.guards import hold_key
from navarch_common.model.base import Key
from navarch_common.model.cluster import META, SafeMode
from navarch_common.model.gpu import GpuSample
from navarch_common.model.node import NODE, Phase
from navarch_common.model.pool import POOL, PoolRecord
from navarch_common.model.wish import POOL_WISH, PoolWish, Wish
from navarch_common.rejects import Rejects
from navarch_common.store.base import Beat, Stored
from support import guards
from support.deps import make_deps, running, until, without_bus
from support.provisioner_pools import instance

QUEUED = """
providers: {local: {type: local}}
pools:
  training: {provider: local, instance_type: h100-8x, min_nodes: 3, max_nodes: 10, cooldown: 0s,
             autoscaling: {type: queue, jobs_per_node: 10}}
"""
REACTIVE = QUEUED.replace("type: queue, jobs_per_node: 10", "type: reactive").replace("cooldown: 0s", "cooldown: 5m")
KEY: Key[PoolRecord] = POOL.key("training")


def service_of(world: World, text: str = QUEUED, instance: str = "copy-1") -> AutoscalerService:
    deps = make_deps(world, "autoscaler", text, instance=instance)
    return build(deps, deps.config.current.config)


class Watch:
    """The pool's record, read again and again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stored: Stored[PoolRecord] | None = None

    async def desired(self, count: int) -> PoolRecord:
        for _ in range(2000):
            self.stored = await self.world.store.get(KEY)
            if self.stored is not None and self.stored.record.desired == count:
                return self.stored.record
            await asyncio.sleep(0.002)
        raise AssertionError(f"desired never became {count}; the record is {self.stored}")


async def test_a_new_pool_gets_its_minimum(world: World) -> None:
    async with running(service_of(world)):
        record = await Watch(world).desired(3)
    assert record.code == "first-seen"


@pytest.mark.parametrize("over", [False, True], ids=["in safe mode", "safe mode is over, and not known here yet"])
async def test_only_in_safe_mode_a_machine_that_is_there_counts_as_found_again(world: World, over: bool) -> None:
    stored = await world.store.get(META.key())
    assert stored is not None
    safe = SafeMode(since=world.clock.now(), code="store-rolled-back", reason="it was rolled back")
    await world.plant((META.key(), structs.replace(stored.record, safe_mode=safe)))
    await world.life.step()
    assert world.life.record.safe_mode is not None
    named = [f"training-{number}" for number in range(5)]
    nodes = [structs.replace(node_record(name), instance=instance(name)) for name in named]
    await world.plant(*((NODE.key(node.node), node) for node in nodes))
    if over:
        await world.plant((META.key(), structs.replace(stored.record, safe_mode=None)))
    async with running(service_of(world)):
        record = await Watch(world).desired(3 if over else 5)
    assert record.code == ("first-seen" if over else "safe-mode")


async def test_a_published_depth_of_forty_makes_four_nodes_and_tells_of_it(world: World) -> None:
    async with running(service_of(world)):
        await Watch(world).desired(3)
        await world.bus.publish("navarch.metrics.queue.training", b"40")
        await Watch(world).desired(4)
    resized = [event for event in await world.events("pool.resized") if isinstance(event, PoolResized)]
    assert [(event.before, event.after, event.actor) for event in resized] == [(3, 4, "autoscaler")]


async def test_what_was_said_before_it_started_is_remembered(world: World) -> None:
    await world.bus.publish_durable("navarch.metrics.queue.training.slurm", b'{"queue_depth": 55}', msg_id="1")
    async with running(service_of(world)):
        await Watch(world).desired(6)


async def test_what_was_said_while_the_bus_was_away_is_read_afterwards(world: World) -> None:
    _, others = world.another_process()
    async with running(service_of(world)):
        watch = Watch(world)
        await others.publish("navarch.metrics.queue.training", b"60")
        await watch.desired(6)
        world.bus.lose_connection()
        world.advance(1)
        await others.publish("navarch.metrics.queue.training", b"40")
        await asyncio.sleep(0.02)
        await watch.desired(6)
        world.bus.restore_connection()
        await watch.desired(4)


async def test_a_word_that_was_heard_is_not_heard_again_when_it_is_read(world: World) -> None:
    ahead = ManualClock(world.clock.now() + timedelta(seconds=5))
    bus = MemoryServer(ahead).connect()
    await bus.ensure_streams(world.subjects.streams())
    rejects = Rejects(make_deps(world, "autoscaler", QUEUED), service="autoscaler")
    woken: list[str] = []
    depths = NatsQueueDepths(
        bus, world.subjects, world.clock, rejects, knows=lambda pool: pool == "training", wake=woken.append
    )
    tasks = [asyncio.ensure_future(depths.run()), asyncio.ensure_future(depths.keep_up())]
    await asyncio.sleep(0.01)
    await bus.publish("navarch.metrics.queue.training", b"90")
    await until(lambda: woken, "the word is heard")
    heard = depths.demand("training", world.clock.now())
    assert heard is not None
    bus.lose_connection()
    bus.restore_connection()
    await asyncio.sleep(2 * LOOK_S)
    after = depths.demand("training", world.clock.now())
    assert after is not None
    assert after.heard_at == heard.heard_at
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await bus.close()


async def test_sources_are_added_up(world: World) -> None:
    async with running(service_of(world)):
        await Watch(world).desired(3)
        await world.bus.publish("navarch.metrics.queue.training.slurm", b"25")
        await world.bus.publish("navarch.metrics.queue.training.ray", b'{"queue_depth": 20}')
        await Watch(world).desired(5)


@pytest.mark.parametrize(
    ("subject", "data", "says"),
    [
        ("navarch.metrics.queue.training", b"NaN", "malformed"),
        ("navarch.metrics.queue.training", b"-1", ">= 0"),
        ("navarch.metrics.queue.training", b"1e300", "dropped"),
        ("navarch.metrics.queue.training", b"9" * 5000, "5000 bytes"),
        ("navarch.metrics.queue.training", b"\xff\xfe", "dropped"),
        ("navarch.metrics.queue.nowhere", b"40", "'nowhere' is not in the configuration"),
        ("navarch.metrics.queue.TRAINING", b"40", "not a valid id"),
        ("navarch.metrics.queue.training.a.b", b"40", "more tokens"),
        ("navarch.metrics.queue.training.é", b"40", "not a valid id"),
    ],
)
async def test_nonsense_is_told_of_and_dropped(world: World, subject: str, data: bytes, says: str) -> None:
    async with running(service_of(world)):
        await Watch(world).desired(3)
        await world.bus.publish(subject, data)
        await world.bus.publish("navarch.metrics.queue.training", b"40")
        await Watch(world).desired(4)
    rejected = [event for event in await world.events("cluster.message-rejected") if isinstance(event, MessageRejected)]
    assert len(rejected) == 1
    assert says in rejected[0].reason


async def test_a_source_that_fell_silent_keeps_the_pool_from_shrinking(world: World) -> None:
    async with running(service_of(world)):
        watch = Watch(world)
        await world.bus.publish("navarch.metrics.queue.training.slurm", b"30")
        await world.bus.publish("navarch.metrics.queue.training.ray", b"20")
        await watch.desired(5)
        world.advance(100)
        await world.bus.publish("navarch.metrics.queue.training.ray", b"10")
        async with asyncio.timeout(5):
            while not (limited := (await watch.desired(5)).limited):
                await asyncio.sleep(0.002)
        assert limited.code == "stale-input"
        await world.bus.publish("navarch.metrics.queue.training.slurm", b"30")
        await watch.desired(4)


def scale(now: datetime, nodes: int) -> tuple[Key[PoolWish], PoolWish]:
    wish = Wish(
        id="r1", verb="scale", actor="operator:ada", at=now, expires_at=now + timedelta(hours=1), nodes=nodes
    )  # fmt: skip
    return POOL_WISH.key("training", "scale"), PoolWish(pool="training", wish=wish)


async def test_an_operators_scale_is_answered(world: World) -> None:
    now = world.clock.now()
    await world.plant(scale(now, 7))
    async with running(service_of(world)):
        record = await Watch(world).desired(7)
    assert record.answers["r1"].outcome == "done"


async def test_a_second_copy_leaves_a_held_pool_alone_and_takes_it_when_it_is_free(world: World) -> None:
    lease = await world.store.acquire("autoscaler/training", "someone-else", timedelta(seconds=5))
    assert lease is not None
    service = service_of(world)
    async with running(service):
        await until(lambda: service.ready, "the first pass")
        assert await world.store.get(KEY) is None
        await world.store.release(lease)
        await Watch(world).desired(3)


async def test_a_fenced_copy_writes_nothing(world: World) -> None:
    service = service_of(world)
    async with running(service):
        await Watch(world).desired(3)
        world.advance(60)
        assert await world.store.acquire("autoscaler/training", "someone-else", timedelta(hours=1)) is not None
        await world.bus.publish("navarch.metrics.queue.training", b"90")
        await until(lambda: not service.status()["pools_held"], "the lease is known to be lost")
        stored = await world.store.get(KEY)
        assert stored is not None
        assert stored.record.desired == 3


async def test_reactive_follows_utilization_from_heartbeats(world: World) -> None:
    nodes = [structs.replace(node_record(f"training-{n}"), phase=Phase.ACTIVE) for n in range(3)]
    await world.plant(*((NODE.key(node.node), node) for node in nodes))
    now = world.clock.now()
    beats = []
    for node in nodes:
        heartbeat = Heartbeat(
            node=node.node, pool="training", generation=1, boot_id="b", sequence=1, at=now, interval_s=5,
            driver_state="ok", gpus=tuple(GpuSample(index=i, utilization_ratio=0.97, process_count=1) for i in range(8)),
        )  # fmt: skip
        beats.append(Beat(node.node, "training", now, now + timedelta(seconds=15), encode(heartbeat)))
    await world.store.write_beats(beats)
    async with running(service_of(world, REACTIVE)):
        record = await Watch(world).desired(4)
    assert "97 %" in record.reason


async def test_a_pool_that_is_held_is_not_resized_until_it_is_released(world: World) -> None:
    async with running(service_of(world)):
        await Watch(world).desired(3)
        await world.plant((hold_key(pool="training"), guards.hold(1, until=None)))
        await world.bus.publish("navarch.metrics.queue.training", b"90")
        await asyncio.sleep(0.2)
        watch = Watch(world)
        record = await watch.desired(3)
        assert record.limited is not None
        assert record.limited.code == "held"
        await world.plant((hold_key(pool="training"), guards.hold(2, active=False)))
        await world.bus.publish("navarch.metrics.queue.training", b"91")
        await watch.desired(7)


async def test_while_it_is_not_known_whether_a_pool_is_held_it_is_not_resized(world: World) -> None:
    service = service_of(world)
    config = service._deps.config.current.config.pools["training"]
    async with running(service):
        await Watch(world).desired(3)
        with without_bus(service._deps):
            service._deps.store_word.enough = False
            service._guards._beside_until_s = 0.0
            await world.plant(scale(world.clock.now(), 7))
            assert not await service._size("training", config)
        assert (await Watch(world).desired(3)).answers == {}
        service._guards._beside_until_s = 0.0
        assert await service._size("training", config)
        await Watch(world).desired(7)


async def test_a_hold_that_only_the_bus_has_kept_holds_the_size(world: World) -> None:
    service = service_of(world)
    await service._guards.publish([guards.hold(1, until=None)])
    async with running(service):
        await Watch(world).desired(3)
        await world.bus.publish("navarch.metrics.queue.training", b"90")
        await asyncio.sleep(0.2)
        assert (await Watch(world).desired(3)).limited is not None
