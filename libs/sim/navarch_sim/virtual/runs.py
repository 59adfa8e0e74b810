"""Many seeds, on as many cores as there are: what came of them, together."""

import gc
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog

from navarch_sim.virtual.checks import Violation
from navarch_sim.virtual.coverage import is_meant
from navarch_sim.virtual.plants import PLANTS
from navarch_sim.virtual.seed import Report, add, run_seed

MET_OFTEN = 20
"""So often each pair of an edge and a fault should have met in 10,000 seeds."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A seed that broke a promise."""

    seed: int
    invariant: str
    at_s: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What `navarch sim seeds -o json` prints."""

    seeds: int
    """How many were run."""
    violations: tuple[Found, ...]
    coverage: dict[str, Any]
    simulated_s: float
    wall_s: float


class Tally:
    """Adds reports up."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.reports = 0
        self.failed: list[Report] = []
        self._simulated_s = 0.0
        self._faults: Counter[str] = Counter()
        self._edges: dict[str, Counter[str]] = {}

    def take(self, report: Report) -> None:
        self.reports += 1
        self._simulated_s += report.simulated_s
        self._faults.update(report.faults)
        add(self._edges, report.edges)
        if report.violation is not None:
            self.failed.append(report)

    def summary(self) -> Summary:
        self.failed.sort(key=lambda report: report.seed)
        return Summary(
            seeds=self.reports,
            violations=tuple(_found(report.seed, report.violation) for report in self.failed if report.violation),
            coverage=coverage(self._faults, self._edges),
            simulated_s=round(self._simulated_s, 3),
            wall_s=round(time.perf_counter() - self._started, 3),
        )


def _found(seed: int, violation: Violation) -> Found:
    return Found(seed=seed, invariant=violation.invariant, at_s=round(violation.at_s, 3))


def coverage(faults: Counter[str], edges: dict[str, Counter[str]]) -> dict[str, Any]:
    """By edge of a node's life, how often it was walked (`total`) and how often it met each fault. Of the pairs that mean
    something and both of which occurred: how many there are, how many met less than `MET_OFTEN` times, and which never."""
    told = {edge: {fault or "total": n for fault, n in counts.items()} for edge, counts in edges.items()}
    pairs = [(edge, fault) for edge in sorted(edges) for fault in sorted(faults) if is_meant(edge, fault)]
    unseen = [[edge, fault] for edge, fault in pairs if not edges[edge][fault]]
    rare = sum(1 for edge, fault in pairs if edges[edge][fault] < MET_OFTEN)
    return {
        "faults": dict(sorted(faults.items())), "edges": dict(sorted(told.items())), "pairs": len(pairs), "rare": rare,
        "unseen": unseen,
    }  # fmt: skip


def run_seeds(seeds: range, *, jobs: int, plant: str = "", story: bool = True) -> Generator[Report, None, None]:
    """Reports as they come. With a plant, nothing new is begun after the first broken promise."""
    if jobs == 1 or len(seeds) == 1:
        be_quiet()
        for seed in seeds:
            report = _one(seed, plant, story)
            yield report
            if plant and report.violation is not None:
                return
        return
    yield from _side_by_side(seeds, jobs, plant, story)


def _side_by_side(seeds: range, jobs: int, plant: str, story: bool) -> Generator[Report, None, None]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare) as workers:
        left = iter(seeds)
        under_way: set[Future[Report]] = set()
        over = False
        try:
            while True:
                with _ctrl_c_put_off():
                    while not over and len(under_way) < 2 * jobs and (seed := next(left, None)) is not None:
                        under_way.add(workers.submit(_one, seed, plant, story))
                if not under_way:
                    return
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    report = future.result()
                    over = over or (bool(plant) and report.violation is not None)
                    yield report
                if over:
                    for future in under_way:
                        future.cancel()
                    under_way = {future for future in under_way if not future.cancelled()}
        finally:
            workers.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _ctrl_c_put_off() -> Iterator[None]:
    """A worker that is started now inherits that Ctrl-C is not for it: one that came before it was prepared would end it, and
    with it the whole pool. The parent hears of one right after."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _one(seed: int, plant: str, story: bool) -> Report:
    return run_seed(seed, plant=PLANTS[plant].plant() if plant else None, story=story)


def _prepare() -> None:
    """What a process does before its first seed. What has been imported is nobody's garbage: looking through it anew after
    each seed took a tenth of the time."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    be_quiet()
    gc.freeze()


def _end_with_parent() -> None:
    """A command that is killed tells its workers nothing, and they would stay."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only workers are prepared"
    parent.join()
    os._exit(1)


def be_quiet() -> None:
    """Services log every decision; a simulated world has its history instead."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def cores() -> int:
    return len(os.sched_getaffinity(0))
