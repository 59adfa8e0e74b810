"""Operators at bad moments: they wish, freeze, hold and approve; and when the storm is over they tidy up after themselves.

What they order is written down in `Orders`, what they wish about a node in the truth. They speak to whichever gateway is
alive, and an answer may be lost on its way to them, so what counts for them is counted before they ask.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from navarch_common.bus.base import BusError
from navarch_common.errors import NavarchError
from navarch_common.model.leak import LEAK
from navarch_common.model.node import ENDED, NODE, Phase
from navarch_common.model.pool import POOL, SUPPLY
from navarch_gateway.asks import (
    ChangeAsk,
    FreezeAsk,
    HoldAsk,
    LeakAsk,
    LeaveSafeModeAsk,
    NodeAsk,
    PoolAsk,
    ReleaseAsk,
    UnfreezeAsk,
)
from navarch_provisioner.breaker import STARTS
from navarch_sim.virtual.air import WORLD, later
from navarch_sim.virtual.ground import Ground
from navarch_sim.virtual.options import Options
from navarch_sim.virtual.orders import Orders
from navarch_sim.virtual.plane import GatewayIndoors, Plane

OPERATOR = "operator:sim"
OPERATOR_WAITS_S = 60.0
"""Until what was to mend itself has: whoever can be heard in safe mode has been."""
APPROVER_LOOKS_S = 5.0
COMING_OR_GOING = frozenset({Phase.BOOTING, Phase.VALIDATING, Phase.DRAINING})
"""Where a node stays for moments only, and few faults find it."""

Last = Callable[[float, str, Callable[[], None], Callable[[], None]], None]
"""How long something is in force, its name, how it begins and ends."""


class Operators:
    """Those of one run."""

    def __init__(
        self, ground: Ground, rng: random.Random, options: Options, plane: Plane, orders: Orders, last: Last
    ) -> None:
        self._loop, self._rng, self._options, self._plane = ground.loop, rng, options, plane
        self._stores, self._sky, self._truth = ground.stores, ground.sky, ground.truth
        self._coverage, self._history = ground.coverage, ground.history
        self._orders, self._last = orders, last
        self.calm_since_s = float("inf")
        self._held_once: dict[str, None] = {}
        self._takings_back: list[asyncio.Task[None]] = []

    def _gateway(self) -> GatewayIndoors | None:
        open_now = [one for one in self._plane.running("gateway") if isinstance(one, GatewayIndoors)]
        return self._rng.choice(open_now) if open_now else None

    async def ask(self, act: Callable[[GatewayIndoors], Awaitable[Any]]) -> bool:
        """An operator asks a gateway; whether it was accepted."""
        gateway = self._gateway()
        if gateway is None:
            return False
        try:
            async with asyncio.timeout(15.0):
                await act(gateway)
        except (NavarchError, TimeoutError, BusError):
            return False
        return True

    # --- wishes ---

    async def wish(self) -> None:
        """At a bad moment."""
        living = [
            record
            for record in self._stores.all_of(NODE)
            if record.phase not in (Phase.TERMINATED, Phase.LAUNCH_FAILED)
        ]
        if not living:
            return
        record = self._rng.choice(living)
        verb: Any = self._rng.choice(
            ("cordon", "uncordon", "drain", "replace", "terminate", "scale", "pause", "resume")
        )
        self._coverage.met("wish")
        if verb in ("scale", "pause", "resume"):
            pool = self._rng.choice(self._options.pools)
            nodes = self._rng.randint(1, 2 * pool.nodes) if verb == "scale" else None
            self._history.note("wish", f"{verb} {pool.name} {nodes or ''}")
            await self.ask(lambda g: g.fleet.acts.wish_pool(pool.name, PoolAsk(verb=verb, nodes=nodes), OPERATOR))
            return
        await self._wish_for(record.node, verb, force=self._rng.random() < 0.3)

    async def wish_in_passing(self) -> None:
        """At the worst moment: a machine boots, or work leaves it."""
        able = [record for record in self._stores.all_of(NODE) if record.phase in COMING_OR_GOING]
        if able:
            self._coverage.met("wish-in-passing")
            verb = self._rng.choice(("terminate", "terminate", "uncordon", "replace"))
            await self._wish_for(self._rng.choice(able).node, verb, force=self._rng.random() < 0.7)

    async def _wish_for(self, node: str, verb: Any, *, force: bool) -> None:
        self._history.note("wish", f"{verb} {node}{' by force' if force else ''}")
        self._truth.of(node).wishes.add(verb)
        await self.ask(lambda g: g.fleet.acts.wish_node(node, NodeAsk(verb=verb, force=force), OPERATOR))

    # --- orders ---

    async def freeze(self) -> None:
        pool = self._rng.choice([None, *(pool.name for pool in self._options.pools)])
        level: Any = self._rng.choice(("terminate", "launch", "all"))
        await self.freeze_for(self._rng.uniform(5.0, 40.0), pool, level)

    async def freeze_for(self, seconds: float, pool: str | None, level: Any) -> None:
        """One pool, or all. Not where it is frozen already."""
        if (pool or "") in self._orders.frozen:
            return
        ask = FreezeAsk(level=level, pool=pool, reason="the storm")
        if not await self.ask(lambda g: g.fleet.acts.freeze(ask, OPERATOR)):
            return
        self._history.note("freeze", f"{pool or 'all'} {level}")
        self._orders.freeze(pool or "", level, self._loop.time())

        async def thaw() -> None:
            await self.ask(lambda g: g.fleet.acts.unfreeze(UnfreezeAsk(pool=pool), OPERATOR))

        def end() -> None:
            self._orders.frozen.pop(pool or "", None)
            self._history.note("thaw", pool or "all")
            self._takings_back.append(self._loop.create_task(thaw(), name="storm/thaw"))

        self._last(seconds, "freeze", lambda: None, end)

    async def hold(self) -> None:
        """Keeps automation away from one node, or from a pool."""
        nodes = [
            record.node for record in self._stores.all_of(NODE) if record.phase in (Phase.ACTIVE, *COMING_OR_GOING)
        ]
        pools = [pool.name for pool in self._options.pools]
        target = self._rng.choice(nodes if nodes and self._rng.random() < 0.7 else pools)
        seconds = self._rng.uniform(10.0, 60.0)
        if target in self._orders.held:
            return
        self._held_once[target] = None
        if not await self.ask(lambda g: g.fleet.acts.hold(HoldAsk(target=target, reason="the storm"), OPERATOR)):
            return
        self._history.note("hold", target)
        self._orders.hold(target, self._loop.time())

        def end() -> None:
            self._orders.held.pop(target, None)
            self._history.note("release", target)
            self._takings_back.append(self._loop.create_task(self._release(target), name="storm/release"))

        self._last(seconds, "hold", lambda: None, end)

    async def _release(self, target: str) -> None:
        await self.ask(lambda g: g.fleet.acts.release(ReleaseAsk(target=target), OPERATOR))

    def keep_approving(self) -> None:
        """Where a pool waits for operators, one looks now and then and approves what waits; most of it, at last all."""
        if any(pool.automation == "approve" for pool in self._options.pools):
            later(APPROVER_LOOKS_S, self.keep_approving)
            self._loop.create_task(self._approve(), name="operators/approve", context=WORLD.copy())

    async def _approve(self) -> None:
        for record in self._stores.all_of(SUPPLY):
            for change in record.changes:
                if change.id in self._orders.approved and self._rng.random() < 0.5:
                    continue  # It was heard, or it was not: who knows.
                if self._rng.random() < 0.3 and self.calm_since_s == float("inf"):
                    continue
                self._orders.approved.add(change.id)
                said = ChangeAsk(verb="approve")
                await self.ask(lambda g, i=change.id, a=said: g.fleet.acts.wish_change(i, a, OPERATOR))  # type: ignore[misc]

    # --- the end ---

    async def tidy_up(self) -> None:
        """They take back what they did, and what was begun for them before comes to its end: cordons, pauses."""
        self.calm_since_s = self._loop.time()
        for pool in self._options.pools:
            while not await self._wish_for_pool(pool.name, PoolAsk(verb="resume")):
                await asyncio.sleep(2.0)
        while True:
            # An answer may have been lost either way: what was asked for is asked for again until it is so.
            for name in (None, *(pool.name for pool in self._options.pools)):
                lift = UnfreezeAsk(pool=name)
                await self.ask(lambda g, a=lift: g.fleet.acts.unfreeze(a, OPERATOR))  # type: ignore[misc]
            for record in self._stores.all_of(NODE):
                if any(holder.startswith("operator") for holder in record.cordons) and record.phase is Phase.ACTIVE:
                    wish = NodeAsk(verb="uncordon")
                    await self.ask(lambda g, n=record.node, a=wish: g.fleet.acts.wish_node(n, a, OPERATOR))  # type: ignore[misc]
            for target in self._held_once:
                await self._release(target)
            if self._loop.time() - self.calm_since_s >= OPERATOR_WAITS_S:
                await self._give_up_the_mute()
                await self._adopt_the_forgotten()
                await self._close_what_nothing_closes()
            await asyncio.sleep(20.0)

    async def _give_up_the_mute(self) -> None:
        """Machines that will never speak keep a small fleet in safe mode until an operator, who has waited for the others
        and looked at these, confirms. One that was adopted has no time to register or to prove itself: who looked at it, or
        at one without a driver, ends it, too."""
        useless = self._sky.doomed | self._sky.bare
        mute = [machine for machine in self._sky.on() if machine.instance_id in useless]
        if mute:
            leave = LeaveSafeModeAsk(reason="what has not been heard never boots")
            await self.ask(lambda g: g.fleet.steering.leave_safe_mode(leave, OPERATOR))
            named = {machine.request.node for machine in mute}
            for record in self._stores.all_of(NODE):
                if record.node in named and record.launch is None and record.phase in (Phase.BOOTING, Phase.VALIDATING):
                    await self._wish_for(record.node, "terminate", force=True)

    async def _wish_for_pool(self, pool: str, ask: PoolAsk) -> bool:
        return await self.ask(lambda g: g.fleet.acts.wish_pool(pool, ask, OPERATOR))

    async def _adopt_the_forgotten(self) -> None:
        """A store that went back while the bus was away, too, has nobody to tell it so: a machine that only it knew of is
        reported as a leak. Who reads that adopts it."""
        reported = [r for r in self._stores.all_of(LEAK) if r.kind == "unrecorded" and r.fate == "report"]
        if reported:
            ask = LeakAsk(machines=tuple(f"{record.provider}/{record.instance_id}" for record in reported))
            await self.ask(lambda g: g.fleet.steering.wish("adopt", ask, OPERATOR))

    async def _close_what_nothing_closes(self) -> None:
        """A breaker that opened because machines failed to start closes with one that starts. Where a pool has more nodes
        than it needs none will, and none of the others goes: who is told of it, and finds nothing wrong any more, closes it.
        """
        for supply in self._stores.all_of(SUPPLY):
            size = next((record for record in self._stores.all_of(POOL) if record.pool == supply.pool), None)
            living = [r for r in self._stores.all_of(NODE) if r.pool == supply.pool and r.phase not in ENDED]
            spare = size is not None and len(living) > size.desired and all(r.phase is Phase.ACTIVE for r in living)
            if spare and supply.breaker is not None and supply.breaker.code == STARTS:
                await self._wish_for_pool(supply.pool, PoolAsk(verb="close-breaker"))
