"""A long time in a large world where little goes wrong: what must not happen while nothing is the matter.

A day of a thousand nodes, an hour of bad air, a zone that falls silent at once: no machine is replaced that only could
not be heard.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from navarch_common.events.codec import decode_event
from navarch_sim.virtual.air import later
from navarch_sim.virtual.loop import abandon, no_collections
from navarch_sim.virtual.options import Options, Pool
from navarch_sim.virtual.seed import World, loop_of

READY_WITHIN_S = 1800.0


class Endured(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    nodes: int
    lasted_s: float
    """Simulated seconds since all nodes were active."""
    simulated_s: float
    wall_s: float
    heartbeats: int
    """That health heard and counted."""
    events: dict[str, int]
    """By kind, what was told once all nodes were active."""
    made: int
    """Machines that were made in all."""
    ended: int
    """Machines that were ended by a call."""
    digest: str
    """Of all that happened: the same for the same seed and world."""
    violation: str

    @property
    def unharmed(self) -> bool:
        """No machine more than at first, none ended, nobody called failed, no promise broken."""
        failed = self.events.get("node.failed", 0)
        return (self.made, self.ended, failed, self.violation) == (self.nodes, 0, 0, "")


POOL_NODES = 50
LOOK_S = 60.0
"""Simulated seconds between two looks at what came of it so far."""
Look = Callable[[float], bool]
"""Told how many simulated seconds have passed since all were active; False ends it."""


def quiet(nodes: int, *, zones: int = 3, heartbeat_s: float = 10.0) -> Options:
    """Pools of fifty nodes at most, one process with all services, and no faults."""
    names = tuple(f"zone-{letter}" for letter in "abcdefgh"[:zones])
    sizes = [min(POOL_NODES, nodes - first) for first in range(0, nodes, POOL_NODES)]
    return Options(
        copies={},
        together=1,
        pools=tuple(
            Pool(name=f"pool-{number}", nodes=size, queue=False, surge=True, zones=names)
            for number, size in enumerate(sizes)
        ),
        calm_s=0.0,
        storm_s=0.0,
        heartbeat_s=heartbeat_s,
        boot_s=5.0,
        latency_s=0.0,
    )


def endure(
    seed: int,
    options: Options,
    seconds: float,
    begin: Callable[[World], None] = lambda _: None,
    look: Look = lambda _: True,
) -> Endured:
    """Lets all nodes become active, then lets `begin` change the world, then lets `seconds` pass, or fewer where `look`
    says so or a promise is broken."""
    with no_collections():
        return _endured(seed, options, seconds, begin, look)


def _endured(seed: int, options: Options, seconds: float, begin: Callable[[World], None], look: Look) -> Endured:
    loop = loop_of(seed)
    world = World(loop, seed, options)
    started = time.perf_counter()
    try:
        heard, since, active_at_s = loop.run_until_complete(_endure(world, seconds, begin, look))
        events = _told_since(world, since)
    finally:
        abandon(loop)
    moments = world.ground.history.moments
    effects = Counter(moment.text.rpartition(" ")[2] for moment in moments if moment.kind == "cloud")
    broken = world.checks.first
    return Endured(
        nodes=sum(pool.nodes for pool in options.pools),
        lasted_s=loop.time() - active_at_s,
        simulated_s=loop.time(),
        wall_s=time.perf_counter() - started,
        heartbeats=heard,
        events=events,
        made=effects["made"],
        ended=effects["ended"],
        digest=world.ground.history.digest,
        violation="" if broken is None else f"{broken.invariant}: {broken.text}",
    )


async def _endure(world: World, seconds: float, begin: Callable[[World], None], look: Look) -> tuple[int, int, float]:
    """Heartbeats heard, the last event before it began, and when that was."""
    world.start()
    async with asyncio.timeout(READY_WITHIN_S):
        while next(world.checks.unsettled(), None) is not None:
            await asyncio.sleep(10.0)
            world.checks.listen()
    since = world.ground.buses.streams[world.ground.subjects.stream("EVENTS")].last_sequence
    began_s = world.loop.time()
    begin(world)
    while (left_s := began_s + seconds - world.loop.time()) > 0 and world.checks.first is None:
        await asyncio.sleep(min(LOOK_S, left_s))
        world.checks.listen()
        if not look(world.loop.time() - began_s):
            break
    heard = [service.status()["heartbeats"] for service in world.plane.running("health")]
    return sum(int(str(count)) for count in heard), since, began_s


def _told_since(world: World, since: int) -> dict[str, int]:
    stream = world.ground.buses.streams[world.ground.subjects.stream("EVENTS")]
    told = Counter(decode_event(message.data).KIND for message in stream.select((), since))
    return dict(sorted(told.items()))


def lose(ratio: float, seconds: float | None = None) -> Callable[[World], None]:
    """From now on, or for so long, that part of all core messages is lost."""

    def begin(world: World) -> None:
        world.ground.air.loss = ratio
        if seconds is not None:
            later(seconds, setattr, world.ground.air, "loss", 0.0)

    return begin


def silence_zone(zone: str, seconds: float) -> Callable[[World], None]:
    """A minute from now every machine of a zone falls silent at once."""

    def begin(world: World) -> None:
        def fall_silent() -> None:
            for machine in world.ground.sky.on():
                if machine.request.zone == zone:
                    plug = world.ground.sky.plugs[machine.instance_id]
                    plug.machine.simulation.silence(world.loop.time() + seconds)

        later(60.0, fall_silent)

    return begin
