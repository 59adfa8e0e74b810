"""One run of one seed: calm, storm, and calm again until desired is actual; or until a promise is broken."""

import asyncio
import random
import time
import traceback
from collections import Counter
from contextlib import AbstractContextManager, nullcontext

import msgspec

from navarch_common.bus.memory import MemoryServer
from navarch_common.config.installed import Installed
from navarch_common.config.load import load_text
from navarch_common.events.subjects import Subjects
from navarch_sim.virtual.air import WORLD, Air, later
from navarch_sim.virtual.checks import Checks, Violation
from navarch_sim.virtual.clock import SimClock
from navarch_sim.virtual.coverage import Coverage
from navarch_sim.virtual.ground import Ground
from navarch_sim.virtual.history import History
from navarch_sim.virtual.loop import Livelock, SimLoop, abandon, no_collections
from navarch_sim.virtual.options import Options, draw
from navarch_sim.virtual.orders import Orders
from navarch_sim.virtual.plane import QUICK, Plane
from navarch_sim.virtual.sky import Build, Sky
from navarch_sim.virtual.storage import SimStoreServer
from navarch_sim.virtual.storm import Storm
from navarch_sim.virtual.truth import Truth

GPU_COUNT = 2
SETTLED_FOR_S = 10.0
SETTLE_WITHIN_S = 900.0
"""Once nothing goes wrong: the longest backoff is five minutes, the longest deadline of a drain one."""
LOOK_S = 2.5


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one seed."""

    seed: int
    options: Options
    violation: Violation | None
    simulated_s: float
    wall_s: float
    callbacks: int
    digest: str
    """Of the whole history: the same seed has the same."""
    faults: dict[str, int]
    edges: dict[str, dict[str, int]]
    history: tuple[str, ...]
    """Of a run that broke a promise: what happened, line by line."""


class World:
    """Everything that there is in one run."""

    def __init__(self, loop: SimLoop, seed: int, options: Options) -> None:
        dice = random.Random(f"world/{seed}")

        def part() -> random.Random:
            return random.Random(dice.getrandbits(64))

        self.loop, self.options = loop, options
        own = load_text(options.config(), "navarch.yaml", {}, available=Installed())
        clock, coverage, truth, subjects = SimClock(loop), Coverage(loop), Truth(), Subjects()
        air = Air(part(), coverage.met)
        buses = MemoryServer(clock)
        buses.faults.rng = part()
        build = Build(heartbeat_s=options.heartbeat_s, gpu_count=GPU_COUNT, boot_s=options.boot_s)
        sky = Sky(clock, part(), air, buses, subjects, build)
        sky.made_with = coverage.made_with
        sky.condemn = lambda node, why: truth.condemn(node, why, loop.time())
        self.ground = Ground(
            loop, clock, subjects, air, SimStoreServer(clock), buses, sky, truth, coverage, History(loop)
        )
        orders = Orders()
        self.checks = Checks(self.ground, own.config, orders)
        self.plane = Plane(self.ground, part(), own, QUICK, self._crashed)
        self.storm = Storm(self.ground, part(), options, self.plane, self.checks, orders)
        loop.set_exception_handler(self._unhandled)

    def start(self) -> "asyncio.Task[None]":
        """Clouds and processes; the task is the machines' connection."""
        sky = self.loop.create_task(self.ground.sky.run(), name="sky", context=WORLD.copy())
        self.plane.staff(self.options.copies, self.options.together)
        return sky

    async def run(self) -> None:
        """Ends early where a promise is broken."""
        sky = self.start()
        story = self.loop.create_task(self._story(), name="story")
        while not story.done() and self.checks.first is None and not sky.done():
            await asyncio.wait({story}, timeout=LOOK_S)
            self.checks.listen()
        if self.checks.first is None:
            await story

    async def _story(self) -> None:
        later(3.0, self.storm.keep_saying)
        self.storm.operators.keep_approving()
        await asyncio.sleep(self.options.calm_s)
        await self.storm.rage()
        operators = self.loop.create_task(self.storm.operators.tidy_up(), name="operators")
        await self._settle()
        operators.cancel()

    async def _settle(self) -> None:
        deadline_s, since_s = self.loop.time() + SETTLE_WITHIN_S, None
        while True:
            self.checks.listen()
            missing = next(self.checks.unsettled(), None)
            if missing is None:
                since_s = self.loop.time() if since_s is None else since_s
                if self.loop.time() - since_s >= SETTLED_FOR_S:
                    return
            else:
                since_s = None
                if self.loop.time() >= deadline_s:
                    self.checks.fail(*missing)
                    return
            await asyncio.sleep(LOOK_S)

    def _crashed(self, who: str, error: BaseException) -> None:
        where = "".join(traceback.format_exception(error)[-3:]).strip()
        self.checks.fail("no-crash", f"{who}: {type(error).__name__}: {error}\n{where}")

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception):
            self._crashed(str(context.get("message", "")), error)


def loop_of(seed: int) -> SimLoop:
    """The loop that a seed runs in."""
    return SimLoop(random.Random(f"loop/{seed}"))


def run_seed(
    seed: int,
    *,
    options: Options | None = None,
    plant: AbstractContextManager[object] | None = None,
    story: bool = True,
) -> Report:
    """Runs one seed to its end. `plant` is entered around it; without `story` a broken promise is told without its
    history."""
    with no_collections(), plant or nullcontext():
        return _run(seed, options or draw(seed), story=story)


def _run(seed: int, options: Options, *, story: bool) -> Report:
    started = time.perf_counter()
    loop = loop_of(seed)
    world = World(loop, seed, options)
    try:
        loop.run_until_complete(world.run())
    except Livelock as error:
        world.checks.fail("no-crash", f"the world stands still: {error}")
    finally:
        abandon(loop)
    violation = world.checks.first
    return Report(
        seed=seed,
        options=options,
        violation=violation,
        simulated_s=loop.time(),
        wall_s=time.perf_counter() - started,
        callbacks=loop.callbacks,
        digest=world.ground.history.digest,
        faults=dict(sorted(world.ground.coverage.faults.items())),
        edges={edge: dict(sorted(counts.items())) for edge, counts in sorted(world.ground.coverage.counts.items())},
        history=tuple(world.ground.history.lines()) if violation is not None and story else (),
    )


def add(total: dict[str, Counter[str]], edges: dict[str, dict[str, int]]) -> None:
    """Adds one run's coverage to that of others."""
    for edge, counts in edges.items():
        total.setdefault(edge, Counter()).update(counts)
