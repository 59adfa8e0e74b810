"""How long a control plane that ran before takes until it serves again, its three machines booting.

The ceiling is what it cannot do without, one after the other: an interpreter that imports it, and the two servers.
"""

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from bench.plane import plane
from bench.report import Figure, percentile
from navarch_api.types import Node
from navarch_controlplane.embedded.datadir import DataDir
from navarch_controlplane.embedded.servers import EmbeddedServers

ROUNDS = 5
CONFIG = """
providers: {here: {type: local}}
pools: {training: {provider: here, instance_type: h100-8x, min_nodes: 3, max_nodes: 3}}
"""


async def run() -> list[Figure]:
    bare, took = [], []
    with tempfile.TemporaryDirectory(prefix="navarch-bench-") as directory:
        async with plane(CONFIG, directory=directory) as running:
            await running.until(_all_active, "3 active nodes")
        for _ in range(ROUNDS):
            bare.append(await _bare())
            began = time.perf_counter()
            async with plane(CONFIG, directory=directory) as running:
                took.append(time.perf_counter() - began)
                await running.until(_all_active, "3 active nodes")
    return [
        Figure(
            bench="start", what="second start", value=percentile(took, 50), unit="s", ceiling=percentile(bare, 50),
            goal="< 5 s", note=f"n={ROUNDS}, most {max(took):.1f}",
        )
    ]  # fmt: skip


def _all_active(nodes: list[Node]) -> bool:
    return sum(node.status == "active" for node in nodes) >= 3


async def _bare() -> float:
    """Seconds until what every start begins with is there."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import navarch_controlplane.composition")
    await process.wait()
    with tempfile.TemporaryDirectory(prefix="navarch-bench-") as directory:
        data_dir = DataDir(Path(directory) / "data")
        with data_dir.lock("bench", "now"):
            async with EmbeddedServers(data_dir, {}, random.Random()).running():
                return time.perf_counter() - began
