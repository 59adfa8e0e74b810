"""A provisioner that dies between any two lines: the next one finishes the work, with one machine for each intent."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from fixtures.world import World, make_world
from navarch_common.events import decode_event
from navarch_common.model.health import HEALTH, HealthStatus
from navarch_common.model.node import Phase
from navarch_common.store.memory import MemoryStore
from navarch_provisioner.cloud.registry import Providers
from navarch_provisioner.service import ProvisionerService
from support.provisioner_world import MemoryCloud, Rig


class Fate:
    """Counts the moments between two effects, and stops everything for good at one of them."""

    def __init__(self, moment: int) -> None:
        self.left = moment
        self.struck = asyncio.Event()

    async def moment(self) -> None:
        if self.struck.is_set():
            await asyncio.Event().wait()
        if self.left == 0:
            self.struck.set()
            await asyncio.Event().wait()
        self.left -= 1


class Mortal:
    """A connection to the store, or to the cloud, of a process that dies at a given moment: right before an effect, or
    right after it and before its answer is heard."""

    def __init__(self, inner: Any, fate: Fate, deadly: frozenset[str]) -> None:
        self._inner, self._fate, self._deadly = inner, fate, deadly

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name not in self._deadly or not inspect.iscoroutinefunction(attribute):
            return attribute
        return self._wrapped(attribute)

    def _wrapped(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._fate.moment()
            result = await method(*args, **kwargs)
            await self._fate.moment()
            return result

        return call


def mortal_rig(world: World, fate: Fate, cloud: MemoryCloud) -> Rig:
    rig = Rig(world, own=True, cloud=cloud, instance="mortal")
    store = Mortal(rig.deps.store, fate, frozenset({"commit"}))
    deps = replace(rig.deps, store=store).named("provisioner")  # type: ignore[arg-type]
    reached = Mortal(cloud, fate, frozenset({"launch", "find", "terminate", "get"}))
    rig.service = ProvisionerService(deps, rig.service.settings, providers=Providers(None, {"cloud": reached}))
    return rig


async def neighbours(rig: Rig, *, hurry: bool) -> None:
    """Agents register and beat, health finds them healthy; in a hurry two minutes pass quickly: enough for every proof,
    and no agent comes too late for it."""
    registered: set[str] = set()
    turns = 0
    while True:
        turns += 1
        for record in await rig.nodes():
            if record.phase is Phase.BOOTING and record.node not in registered:
                registered.add(record.node)
                await rig.register(record.node)
            if record.phase is Phase.VALIDATING and await rig.world.store.get(HEALTH.key(record.node)) is None:
                await rig.judge(record.node, HealthStatus.HEALTHY)
            if record.phase in (Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING):
                await rig.beat(record.node)
        await rig.wake()
        rig.world.advance(2 if hurry and turns < 60 else 0.2)
        await asyncio.sleep(0.01)


async def story(rig: Rig, failed: list[str]) -> None:
    """Two nodes come, one fails, another takes its place."""
    await rig.reach(lambda rs: sum(r.phase is Phase.ACTIVE for r in rs) >= 2 or failed, "two active nodes", 20)
    if not failed:
        failed.append((await rig.nodes(Phase.ACTIVE))[0].node)
        rig.world.advance(2)
    judged = await rig.world.store.get(HEALTH.key(failed[0]))
    if judged is None or judged.record.status is not HealthStatus.UNHEALTHY:
        # Whoever told it before may have been killed between choosing the node and breaking it.
        await rig.fail(failed[0])
    await rig.reach(
        lambda rs: (
            sum(r.phase is Phase.ACTIVE for r in rs) == 2
            and any(r.node == failed[0] and r.phase is Phase.TERMINATED for r in rs)
        ),
        "two active nodes again, and the failed one gone",
        20,
    )


async def die(world: World, fate: Fate, cloud: MemoryCloud, failed: list[str]) -> bool:
    """Tells the story until fate strikes. True where it was over before."""
    rig = mortal_rig(world, fate, cloud)
    tasks = [
        asyncio.ensure_future(rig.service.run()),
        asyncio.ensure_future(neighbours(rig, hurry=False)),
        asyncio.ensure_future(story(rig, failed)),
    ]
    struck = asyncio.ensure_future(fate.struck.wait())
    done, _ = await asyncio.wait([*tasks, struck], return_when=asyncio.FIRST_COMPLETED)
    over = struck not in done
    # Killed: what it still wants to say reaches nobody.
    store = rig.deps.store
    assert isinstance(store, MemoryStore)
    await store.close()
    for task in (*tasks, struck):
        task.cancel()
    await asyncio.gather(*tasks, struck, return_exceptions=True)
    return over


@pytest.mark.parametrize("part", range(4))
async def test_one_machine_for_each_intent_whenever_the_provisioner_is_killed(part: int) -> None:
    moment, over = part, False
    while not over:
        world = await make_world(seed=moment)
        cloud, failed = MemoryCloud(world.clock), list[str]()
        await Rig(world, cloud=cloud).desire(2)
        over = await die(world, Fate(moment), cloud, failed)
        world.advance(6)
        if not over:
            await finish(world, cloud, failed, moment)
        check(cloud, moment)
        waiting = [decode_event(entry.data) for entry in await world.store.outbox()]
        told = {event.id: event for event in (*await world.events(), *waiting)}.values()
        ends = [event.node for event in told if event.KIND == "node.terminated"]
        assert ends == failed, f"killed at moment {moment}: an end was not told, or told twice"
        await world.close()
        moment += 4
    assert moment > 30, "the story has more moments than that"


async def finish(world: World, cloud: MemoryCloud, failed: list[str], moment: int) -> None:
    """The next copy tells the story to its end."""
    rig = Rig(world, cloud=cloud, own=True, instance="heir")
    try:
        async with rig.running():
            helpers = asyncio.ensure_future(neighbours(rig, hurry=True))
            try:
                await story(rig, failed)
            finally:
                helpers.cancel()
                await asyncio.gather(helpers, return_exceptions=True)
    except* AssertionError as group:
        raise AssertionError(f"killed at moment {moment}: {group.exceptions}") from group


def check(cloud: MemoryCloud, moment: int) -> None:
    tokens = [request.token for request in cloud.made]
    assert len(tokens) == len(set(tokens)) == 3, f"killed at moment {moment}: machines were made for {tokens}"
    assert len(cloud.machines) == 2, f"killed at moment {moment}: {sorted(cloud.machines)} are there"
