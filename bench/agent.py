"""What one agent costs its machine at default periods, with eight GPUs: share of a core, and resident memory."""

import asyncio

import psutil

from bench.plane import plane
from bench.report import Figure

CONFIG = """
providers: {local: {type: local}}
pools:
  training: {provider: local, instance_type: h100-8x, min_nodes: 1, max_nodes: 1}
"""
WATCH_S = 60.0


async def run() -> list[Figure]:
    async with plane(CONFIG) as running:
        (node,) = await running.until(lambda nodes: [n.status for n in nodes] == ["active"], "one active node")
        await asyncio.sleep(5.0)
        pid = int((running.data_dir / "instances" / node.node / "pid").read_text())
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        before = sum(sum(process.cpu_times()[:2]) for process in processes)
        await asyncio.sleep(WATCH_S)
        after = sum(sum(process.cpu_times()[:2]) for process in processes)
        rss = sum(process.memory_info().rss for process in processes)
    share = (after - before) / WATCH_S * 100
    note = f"{len(processes)} process(es), over {WATCH_S:g} s"
    return [
        Figure(bench="agent", what="share of one core", value=share, unit="%", ceiling=None, goal="< 1 %", note=note),
        Figure(
            bench="agent", what="resident memory", value=rss / 1e6, unit="MB", ceiling=None, goal="< 60 MB", note=note
        ),
    ]
