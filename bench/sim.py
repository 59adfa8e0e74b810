"""How fast the simulator goes: seeds a second on all cores, and a thousand quiet nodes against the clock.

The ceiling is the simulator's own loop with nothing in it but the same number of callbacks, half of them timers.
"""

import asyncio
import random
import time

from bench.report import Figure
from navarch_sim.virtual.endurance import endure, lose, quiet
from navarch_sim.virtual.loop import SimLoop
from navarch_sim.virtual.runs import be_quiet, cores, run_seeds

SEEDS = range(1, 101)
NODES, SECONDS, DAY_S = 1_000, 120.0, 86_400.0
GOAL_SEEDS_A_SECOND, GOAL_DAY_MINUTES = 5.0, 5.0


async def run() -> list[Figure]:
    return await asyncio.to_thread(_run)  # each world is a loop of its own


def _run() -> list[Figure]:
    be_quiet()
    began = time.perf_counter()
    reports = list(run_seeds(SEEDS, jobs=cores()))
    took = time.perf_counter() - began
    broken = sum(report.violation is not None for report in reports)
    callbacks = sum(report.callbacks for report in reports)
    bare = callbacks / cores() * _callback_s()
    seeds = Figure(
        bench="sim", what="seeds", value=len(reports) / took, unit="/s", ceiling=len(reports) / bare, better="more",
        goal=f">= {GOAL_SEEDS_A_SECOND:g}/s", note=f"{broken} of {len(reports)} broken, {callbacks / len(reports):.0f} callbacks a seed",
    )  # fmt: skip
    passed: list[tuple[float, float]] = []

    def look(now_s: float) -> bool:
        passed.append((now_s, time.perf_counter()))
        return True

    came = endure(1, quiet(NODES), SECONDS, lose(0.01), look)
    (from_s, began), (to_s, ended) = passed[0], passed[-1]
    day = Figure(
        bench="sim", what=f"a day of {NODES} nodes", value=(ended - began) / (to_s - from_s) * DAY_S / 60, unit="min",
        goal=f"< {GOAL_DAY_MINUTES:g} min", note=f"from {to_s - from_s:.0f} s of it; {came.ended} ended",
    )  # fmt: skip
    return [seeds, day]


def _callback_s(count: int = 200_000) -> float:
    """What one callback costs that does nothing, in seconds."""
    loop = SimLoop(random.Random(1))
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left > 0:
            if left % 2:
                loop.call_later(0.001, step)
            else:
                loop.call_soon(step)
        else:
            loop.stop()

    began = time.perf_counter()
    for _ in range(10):
        loop.call_soon(step)
    loop.run_forever()
    loop.close()
    return (time.perf_counter() - began) / count
