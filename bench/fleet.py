"""A whole control plane under 10,000 heartbeats a second from simulated machines: what it holds, and how fast it still sees.

1,100 machines of the fake cloud speak every 100 ms, while GPUs fall off the bus of some of them. What is timed begins with an
outside client's request to break the machine and ends with `node.failed` at an outside subscriber. The ceiling is the bare
chain of `bench.chain` over the same servers, under the same heartbeats.
"""

import asyncio
import json
import re
import sys
import time

import httpx
import nats
from nats.aio.msg import Msg

from bench.chain import bare_chain
from bench.plane import Plane, plane
from bench.report import Figure, latency

NODES, INTERVAL_MS = 1_100, 100
GOAL_A_SECOND = 10_000.0
FAILURES = 100
CONFIG = f"""
server: {{heartbeat_interval: {INTERVAL_MS}ms, heartbeat_timeout: 5s}}
providers: {{cloud: {{type: fake, boot_time: 0s}}}}
pools:
  training:
    provider: cloud
    instance_type: h100-8x
    min_nodes: {NODES}
    max_nodes: {NODES + 100}
    health: {{auto_replace: false}}
"""


async def run() -> list[Figure]:
    async with plane(CONFIG) as running:
        nodes = await running.until(
            lambda nodes: sum(node.status == "active" for node in nodes) >= NODES, f"{NODES} active nodes", 600.0
        )
        await asyncio.sleep(5.0)
        before = await _counted(running)
        started = time.perf_counter()
        ceiling = await bare_chain(running, count=100)
        seen = await _break(running, [node.node for node in nodes[:FAILURES]])
        await asyncio.sleep(max(0.0, 20.0 - (time.perf_counter() - started)))
        took = time.perf_counter() - started
        after = await _counted(running)
    held = (after["navarch_heartbeats_total"] - before["navarch_heartbeats_total"]) / took
    lost = after["navarch_bus_dropped_messages_total"] - before["navarch_bus_dropped_messages_total"]
    note = f"{NODES} machines every {INTERVAL_MS} ms, {lost:.0f} dropped, over {took:.0f} s"
    rate = Figure(
        bench="fleet", what="heartbeats held", value=held, unit="/s", ceiling=GOAL_A_SECOND, better="more",
        goal=f">= {GOAL_A_SECOND:,.0f}/s", note=note,
    )  # fmt: skip
    return [rate, *latency("fleet", "break request to outside subscriber", seen, ceiling, ("", "< 100 ms"))]


async def _counted(running: Plane) -> dict[str, float]:
    async with httpx.AsyncClient(timeout=10.0) as client:
        text = (await client.get(f"{running.http}/metrics")).text
    names = ("navarch_heartbeats_total", "navarch_bus_dropped_messages_total")
    found = {name: re.search(rf"^{name} (\S+)", text, re.MULTILINE) for name in names}
    return {name: float(match[1]) if match else 0.0 for name, match in found.items()}


async def _break(running: Plane, nodes: list[str]) -> list[float]:
    """Lets a GPU fall off the bus of one machine after the other; returns how long each `node.failed` took, in seconds."""
    arrived: dict[str, float] = {}
    outside = await nats.connect(running.nats)

    async def heard(message: Msg) -> None:
        arrived.setdefault(message.subject.rsplit(".", 1)[-1], time.perf_counter())

    await outside.subscribe("navarch.events.node.failed.>", cb=heard)
    await outside.flush()
    asked: dict[str, float] = {}
    for node in nodes:
        asked[node] = time.perf_counter()
        answer = await outside.request(
            f"navarch.inject.{node}", json.dumps({"verb": "xid", "code": 79, "gpu": 3}).encode(), timeout=5
        )
        assert json.loads(answer.data)["ok"], answer.data
        await asyncio.sleep(0.1)
    try:
        async with asyncio.timeout(10.0):
            while len(arrived) < len(nodes):
                await asyncio.sleep(0.01)
    except TimeoutError:
        print(f"  {len(nodes) - len(arrived)} failures never arrived", file=sys.stderr)
    await outside.close()
    return [arrived[node] - asked[node] for node in nodes if node in arrived]
