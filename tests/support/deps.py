"""What a service is given, in memory: `Deps` over a `World`, with a configuration written as YAML."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from fixtures.world import World
from navarch_common.bus.memory import MemoryBus
from navarch_common.config.load import load_text
from navarch_common.in_force import ConfigWatch
from navarch_common.metrics import Metrics
from navarch_common.model.base import Service
from navarch_common.run import Deps, RunningService
from navarch_common.store.memory import MemoryStore
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


@contextmanager
def without_bus(deps: Deps) -> Iterator[None]:
    """The process has no connection to the bus while the block runs."""
    bus = deps.bus
    assert isinstance(bus, MemoryBus)
    bus.lose_connection()
    yield
    bus.restore_connection()


@contextmanager
def cut_off(deps: Deps) -> Iterator[None]:
    """Nothing of the process reaches anyone while the block runs, neither the bus nor the store."""
    store = deps.store
    assert isinstance(store, MemoryStore)
    with without_bus(deps):
        store.unavailable = True
        yield
        store.unavailable = False


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
