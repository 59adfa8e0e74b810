"""A process that starts while the servers of the bus have no leader yet."""

import pytest

from fixtures.world import World, make_world
from navarch_common.bus.base import BusError, BusTimeout, BusUnavailable, StreamRefused
from navarch_common.run import Deps, once_the_bus_answers
from support.deps import make_deps
from support.provisioner_world import CONFIG


@pytest.fixture
async def world() -> World:
    return await make_world()


class Attempt:
    """Fails so often with each of these errors, then succeeds."""

    def __init__(self, deps: Deps, *errors: BusError) -> None:
        self.deps, self.errors, self.made = deps, list(errors), 0

    async def __call__(self) -> Deps:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.deps


async def test_it_waits_for_a_bus_that_has_no_leader_yet(world: World) -> None:
    deps = make_deps(world, "health", CONFIG)
    attempt = Attempt(deps, BusTimeout("no answer in time"), BusUnavailable("no leader"))
    assert await once_the_bus_answers(attempt, pause_s=0.01) is deps
    assert attempt.made == 3


async def test_it_says_why_it_does_not_start_once_it_has_waited_long_enough(world: World) -> None:
    attempt = Attempt(make_deps(world, "health", CONFIG), *[BusTimeout("no answer in time")] * 100)
    with pytest.raises(BusTimeout, match="no answer in time"):
        await once_the_bus_answers(attempt, patience_s=0.05, pause_s=0.01)
    assert 2 < attempt.made < 20


async def test_what_waiting_cannot_mend_ends_it_at_once(world: World) -> None:
    attempt = Attempt(make_deps(world, "health", CONFIG), StreamRefused("more replicas than servers"))
    with pytest.raises(StreamRefused):
        await once_the_bus_answers(attempt, pause_s=0.01)
    assert attempt.made == 1
