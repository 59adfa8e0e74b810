"""From the line in a machine's kernel log to `node.failed` at an outside subscriber.

Ceiling: the bare chain over the same NATS and Redis with the same durability: a JetStream publish, a pull, one Lua call
that writes as many keys as a commit, a JetStream publish, a core subscriber. What Navarch adds is the kernel log, the
agent's spool on disk, decoding, the policy, the verdict, and the processes between.
"""

import asyncio
import time
import uuid

import nats
import redis.asyncio
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from bench.plane import Plane, plane
from bench.report import Figure, latency
from navarch_api.types import Node

NODES = 20
ROUNDS = 5
CONFIG = f"""
providers: {{local: {{type: local}}}}
pools:
  training:
    provider: local
    instance_type: h100-8x
    min_nodes: {NODES}
    max_nodes: {NODES}
    health: {{auto_replace: false}}
"""
LINE = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
_COMMIT = """
local rev = redis.call('INCR', KEYS[1])
for i = 2, 8 do redis.call('SET', KEYS[i], ARGV[1]) end
redis.call('ZADD', KEYS[9], rev, KEYS[2])
redis.call('XADD', KEYS[10], '*', 'd', ARGV[1])
return rev
"""


async def run() -> list[Figure]:
    async with plane(CONFIG) as running:
        seen: list[float] = []
        ceiling: list[float] = []
        for number in range(ROUNDS):
            nodes = await running.until(lambda nodes: sum(map(_fit, nodes)) >= NODES, f"{NODES} healthy nodes", 180.0)
            await asyncio.sleep(3.0)  # the machine's two cores have just started twenty processes
            ceiling += await bare_chain(running, count=40)
            seen += await fail(running, [node.node for node in nodes if _fit(node)])
            if number + 1 < ROUNDS:
                await _renew(running)
        return latency("chain", "kernel line to outside subscriber", seen, ceiling, ("< 10 ms", "< 50 ms"))


def _fit(node: Node) -> bool:
    return node.status == "active" and node.health == "healthy"


async def fail(running: Plane, nodes: list[str], gap_s: float = 0.1) -> list[float]:
    """Breaks one node after the other; returns how long each `node.failed` took, in seconds."""
    arrived: dict[str, float] = {}
    outside = await nats.connect(running.nats)

    async def heard(message: Msg) -> None:
        arrived.setdefault(message.subject.rsplit(".", 1)[-1], time.perf_counter())

    await outside.subscribe("navarch.events.node.failed.>", cb=heard)
    await outside.flush()
    printed: dict[str, float] = {}
    for node in nodes:
        with (running.data_dir / "instances" / node / "kmsg").open("a") as kmsg:
            printed[node] = time.perf_counter()
            kmsg.write(LINE)
        await asyncio.sleep(gap_s)
    async with asyncio.timeout(10.0):
        while len(arrived) < len(nodes):
            await asyncio.sleep(0.01)
    await outside.close()
    return [arrived[node] - printed[node] for node in nodes]


async def _renew(running: Plane) -> None:
    """Ends every failed machine, so that the pool is filled with new ones."""
    for node in await running.nodes():
        if node.status == "unhealthy":
            await running.client.wish_node(node.node, "terminate", force=True, reason="next round")
    await running.until(lambda nodes: not any(node.status == "unhealthy" for node in nodes), "failed nodes gone")


async def bare_chain(running: Plane, count: int) -> list[float]:
    """The ceiling, in seconds a round."""
    name = f"BENCH_{uuid.uuid4().hex}"
    subject = name.lower()
    client, outside = await nats.connect(running.nats), await nats.connect(running.nats)
    store = redis.asyncio.from_url(running.redis)
    commit = store.register_script(_COMMIT)
    keys = [f"{{bench}}:{subject}:{number}" for number in range(10)]
    js = client.jetstream()
    await js.add_stream(StreamConfig(name=name, subjects=[f"{subject}.>"], duplicate_window=3600))
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def heard(_: Msg) -> None:
        arrived.put_nowait(time.perf_counter())

    await outside.subscribe(f"{subject}.event", cb=heard)
    await outside.flush()
    consumer = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, filter_subject=f"{subject}.report")
    pull = await js.pull_subscribe(f"{subject}.report", durable="bench", stream=name, config=consumer)
    payload = b"x" * 751
    took = []

    async def work() -> None:
        for _ in range(count):
            (message,) = await pull.fetch(1, timeout=10)
            await commit(keys=keys, args=[payload])
            await js.publish(f"{subject}.event", payload, headers={"Nats-Msg-Id": uuid.uuid4().hex})
            await message.ack()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(work())
        for _ in range(count):
            started = time.perf_counter()
            await js.publish(f"{subject}.report", payload, headers={"Nats-Msg-Id": uuid.uuid4().hex})
            took.append(await arrived.get() - started)
    await js.delete_stream(name)
    await store.delete(*keys)
    await store.aclose()
    await client.close()
    await outside.close()
    return took
