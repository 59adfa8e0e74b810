"""What a service is given, in memory: `Deps` over a `World`, with a configuration written as YAML."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fixtures.world import World
from navarch_common.config.load import load_text
from navarch_common.in_force import ConfigWatch
from navarch_common.metrics import Metrics
from navarch_common.model.base import Service
from navarch_common.run import Deps, RunningService
from navarch_common.telemetry import Telemetry


def make_deps(world: World, service: Service, text: str, *, instance: str = "copy-1") -> Deps:
    """The configuration `text` is in force as this process's own file: generation 0."""
    own = load_text(text, "navarch.yaml", {})
    return Deps(
        store=world.store,
        bus=world.bus,
        committer=world.committer(service),
        clock=world.clock,
        rng=world.rng,
        subjects=world.subjects,
        cluster=world.cluster,
        life=world.life,
        config=ConfigWatch(world.store, world.bus, world.subjects, own, {}),
        telemetry=Telemetry(world.rng),
        metrics=Metrics(),
        instance=instance,
    )


@asynccontextmanager
async def running(service: RunningService) -> AsyncIterator[None]:
    """The service runs while the block does; its crash is the test's failure."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(service.run(), name="service under test")
        yield
        task.cancel()


async def until(condition: Callable[[], object], what: str, timeout_s: float = 5.0) -> None:
    """Waits, a few turns of the loop at a time, until `condition` holds."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"waited {timeout_s:g} s in vain: {what}") from None
