"""What goes wrong: the faults of a seed, each at its own times, and their end.

Whatever is broken here is written down in the truth first. A fault that lasts is a task of its own, so that faults
overlap as they please; when the storm is over everything is repaired, and nothing more happens.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from navarch_agent.inject import xid_line
from navarch_common.model.node import NODE, NodeRecord, Phase
from navarch_common.store.base import Commit
from navarch_common.store.memory import Contents
from navarch_sim.virtual.air import WORLD, later
from navarch_sim.virtual.checks import Checks
from navarch_sim.virtual.ground import Ground
from navarch_sim.virtual.operators import COMING_OR_GOING, Operators
from navarch_sim.virtual.options import MORE_RATES, MORE_RATIOS, RATES, RATIOS, Options
from navarch_sim.virtual.orders import Orders
from navarch_sim.virtual.plane import Plane
from navarch_sim.virtual.process import OWNER, SimProcess
from navarch_sim.virtual.sky import Plug
from navarch_sim.virtual.storage import Applied
from navarch_sim.virtual.truth import Span

SEEN_AFTER_S = 60.0
"""A machine that lives so long after a fatal line must be found failed."""
WORSE = sorted({*RATIOS, *MORE_RATIOS} - {"never-boots", "dies-young"})
AMBUSHERS = sorted({*RATES, *MORE_RATES, *WORSE})
"""What may strike at such a turn: everything but how a machine is made. The former have only a chance each time."""
AMBUSH_S, AMBUSH_CHANCE = 10.0, 0.3
BRINK = timedelta(seconds=5)
FROZEN_OUT_S = 60.0
"""So long a machine has to be given up and to be missed by its provider's list, and so long nothing may end."""


class Storm:
    """The faults of one run."""

    def __init__(
        self, ground: Ground, rng: random.Random, options: Options, plane: Plane, checks: Checks, orders: Orders
    ) -> None:
        self._loop, self._rng, self._options, self._plane = ground.loop, rng, options, plane
        self._checks = checks
        self._subjects, self._air, self._stores, self._buses = ground.subjects, ground.air, ground.stores, ground.buses
        self._sky, self._truth, self._coverage, self._history = (
            ground.sky, ground.truth, ground.coverage, ground.history,
        )  # fmt: skip
        self.operators = Operators(ground, rng, options, plane, orders, self.last)
        self._said = 0
        self._ambushed: dict[tuple[str, Phase], None] = {}
        self._frozen_out_once: dict[str, None] = {}
        self._armed: Counter[str] = Counter()
        """Faults that wait for their moment."""
        self._bus_up_since_s = 0.0
        self._demands: dict[str, int] = {pool.name: 10 * pool.nodes for pool in options.pools if pool.queue}
        self._reports = f"{ground.subjects.prefix}.reports."
        self._over = asyncio.Event()
        self._lasting: list[asyncio.Task[None]] = []
        self._sides: list[asyncio.Task[None]] = []
        """What strikes, until the storm is over."""
        ground.sky.calls.append(self._at_call)
        ground.air.delivered.append(self._at_report)
        ground.stores.before_commit.append(self._at_commit)

    # --- the whole of it ---

    async def rage(self) -> None:
        """Every fault of the seed, until the storm's time is over."""
        for name, ratio in self._options.ratios.items():
            self._set_ratio(name, ratio)
        self._air.latency_s = self._options.latency_s
        self._sides = [
            self._loop.create_task(self._strike_again_and_again(name, rate), name=f"storm/{name}")
            for name, rate in self._options.rates.items()
        ]
        await asyncio.sleep(self._options.storm_s)
        for side in self._sides:
            if side.done():
                side.result()  # A fault that could not be done is a mistake of ours, and no calm.
            side.cancel()
        await asyncio.wait(self._sides) if self._sides else None
        await self._relent()

    async def _strike_again_and_again(self, name: str, per_minute: float) -> None:
        strike = self._strike_of(name)
        while True:
            await asyncio.sleep(self._rng.expovariate(per_minute / 60.0))
            await strike()

    def _strike_of(self, name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        act = name.replace("-", "_")
        strike: Callable[[], Coroutine[Any, Any, None]] = getattr(self, "_" + act, None) or getattr(self.operators, act)
        return strike

    async def _ambush(self) -> None:
        """Where some node's life is about to take a turn that is seldom taken, something goes wrong besides: once for each
        such turn, or it would never be taken."""
        turns = [(record.node, record.phase) for record in self._on_the_brink()]
        fresh = [turn for turn in turns if turn not in self._ambushed]
        self._ambushed.update(dict.fromkeys(fresh))
        self._strike_besides(AMBUSHERS, min(2 * len(fresh), 6))

    def _on_the_brink(self) -> list[NodeRecord]:
        now, patience = self._stores.clock.now(), timedelta(seconds=self._options.registration_s)
        return [record for record in self._stores.all_of(NODE) if _runs_out(record, now, patience)]

    def _strike_besides(self, faults: list[str], count: int) -> None:
        """So many of these, now."""
        for name in self._rng.sample(faults, count):
            if name in WORSE:
                self._worsen(name)
            else:  # Some take their time, and the next must not wait for them.
                self._begin(name, self._strike_of(name)())

    def _begin(self, name: str, strike: Coroutine[Any, Any, None]) -> None:
        self._sides.append(self._loop.create_task(strike, name=f"storm/ambush/{name}"))

    async def _frozen_out(self) -> None:
        """Operators let nothing end while some machine's time runs out, and it is gone before they do again."""
        late = [r for r in self._on_the_brink() if r.phase is not Phase.LAUNCH_UNKNOWN]
        fresh = [r for r in late if r.node not in self._frozen_out_once]
        if fresh:
            record = self._rng.choice(fresh)
            self._frozen_out_once[record.node] = None
            self._begin("frozen-out", self._freeze_out(record))

    async def _freeze_out(self, record: NodeRecord) -> None:
        node, until_s = record.node, self._loop.time() + FROZEN_OUT_S
        await self.operators.freeze_for(FROZEN_OUT_S, record.pool, "terminate")
        given_up = False
        while self._loop.time() < until_s:
            known = next((known for known in self._stores.all_of(NODE) if known.node == node), None)
            if known is not None and known.phase is Phase.REGISTRATION_TIMEOUT:
                given_up = True
                for machine in self._sky.machine_of(node):
                    self._coverage.met("death")
                    self._truth.condemn(node, "death", self._loop.time())
                    self._sky.die(machine.instance_id)
                self._strike_besides(WORSE, 2)
            elif given_up:
                self._strike_besides(AMBUSHERS, 8)
                return
            await asyncio.sleep(1.0)

    def _worsen(self, name: str) -> None:
        """A fault that has a chance each time has a good one for a while."""
        holder, attribute = self._place_of(name)
        drawn = self._options.ratios.get(name, 0.0)
        setattr(holder, attribute, max(drawn, AMBUSH_CHANCE))

        def as_drawn() -> None:
            if not self._over.is_set():
                setattr(holder, attribute, drawn)

        later(AMBUSH_S, as_drawn)

    async def _relent(self) -> None:
        """Everything is repaired."""
        self._history.note("calm", "the storm is over")
        self._over.set()
        self._armed.clear()
        self._air.clear()
        self._sky.forecast = type(self._sky.forecast)(boot_s=self._options.boot_s)
        if self._lasting:
            await asyncio.wait(self._lasting)
        for copy in self._plane.copies:
            if copy.process is not None:
                copy.process.stamp_out()

    def keep_saying(self) -> None:
        """Demand is said again and again, as its source would: stale demand is no demand."""
        for pool, depth in self._demands.items():
            self._say(pool, depth)
        later(20.0, self.keep_saying)

    def last(self, seconds: float, fault: str, begin: Callable[[], None], end: Callable[[], None]) -> None:
        """A fault that is in force for a while, or until the storm is over."""

        async def run() -> None:
            with self._coverage.lasting(fault):
                begin()
                try:
                    async with asyncio.timeout(seconds):
                        await self._over.wait()
                except TimeoutError:
                    pass
                end()

        self._lasting = [task for task in self._lasting if not task.done()]
        # Of the world, also where a process is what it strikes and what has just run.
        self._lasting.append(self._loop.create_task(run(), name=f"storm/{fault}", context=WORLD.copy()))

    def _set_ratio(self, name: str, ratio: float) -> None:
        holder, attribute = self._place_of(name)
        setattr(holder, attribute, ratio)
        if holder is self._sky.forecast:
            self._sky.forecast.hangs = 0.3

    def _place_of(self, name: str) -> tuple[object, str]:
        """Where the chance of a fault is kept."""
        air = {
            "loss": "loss", "duplication": "duplication", "reordering": "reordering", "lost-request": "lost_request",
            "lost-reply": "lost_reply", "lost-ack": "lost_ack", "stale-ack": "late_ack", "late-request": "late_request",
        }  # fmt: skip
        sky = {
            "cloud-refuses": "refused", "launch-reply-lost": "lost_reply", "launch-lost": "lost_request",
            "slow-cloud": "slow", "partial-list": "partial", "stale-list": "stale", "never-boots": "stillborn",
            "dies-young": "weak", "no-driver": "bare",
        }  # fmt: skip
        return (self._air, air[name]) if name in air else (self._sky.forecast, sky[name])

    # --- processes ---

    async def _crash(self) -> None:
        copy = self._rng.choice(self._plane.copies)
        if not copy.alive:
            return
        self._coverage.met("crash")
        assert copy.process is not None
        if self._rng.random() < 0.5:
            copy.kill()
        else:
            copy.process.light_fuse(self._rng.randint(1, 500))

    async def _crash_at_call(self) -> None:
        """The next provisioner that calls a cloud dies somewhere on the way from there to its next rest."""
        self._armed["call"] += 1

    def _at_call(self, name: str, pool: str) -> None:  # noqa: ARG002 - as every hearer is told
        owner = OWNER.get()
        if self._armed["call"] and owner is not None and name in ("launch", "terminate"):
            self._armed["call"] -= 1
            self._coverage.met("crash-at-call")
            owner.light_fuse(self._rng.randint(1, 60))

    async def _crash_at_report(self) -> None:
        """Whoever takes the next report of a kind off the bus dies over it: before its effect is durable, or before it says
        so."""
        self._armed[self._rng.choice(("health", "health", "lifecycle"))] += 1

    def _at_report(self, subject: str) -> None:
        kind = subject.rpartition(".")[2]
        owner = OWNER.get()
        if self._armed[kind] and owner is not None and subject.startswith(self._reports):
            self._armed[kind] -= 1
            self._coverage.met("crash-at-report")
            owner.light_fuse(self._rng.randint(1, self._rng.choice((10, 60))))

    async def _stall_at_commit(self) -> None:
        """SIGSTOP between the decision and the commit: whoever holds a pool wakes up when it may be another's, and sends
        what it was about to send."""
        self._armed["commit"] += 1

    def _at_commit(self, process: SimProcess, commit: Commit) -> bool:
        lease = commit.lease
        if not self._armed["commit"] or lease is None or not lease.name.startswith("provisioner/") or process.stalled:
            return False
        self._armed["commit"] -= 1
        self._history.note("stall", f"{process.instance}, about to commit under {lease.name}")
        process.stall()
        self.last(self._rng.choice((3.0, 8.0, 25.0)), "stall-at-commit", lambda: None, process.resume)
        return True

    async def _service_outage(self) -> None:
        """Every copy of a service dies at once, and stays away for a while."""
        service = self._rng.choice(("health", "health", "provisioner", "autoscaler"))
        seconds = self._rng.uniform(5.0, 60.0)
        copies = [copy for copy in self._plane.copies if service in copy.services and copy.alive]
        self._history.note("server", f"all of {service} is away for {seconds:.0f} s")
        for copy in copies:
            copy.kill(back_after_s=seconds)
        self.last(seconds, "service-outage", lambda: None, lambda: None)

    async def _stall(self) -> None:
        """SIGSTOP; sometimes for longer than a lease lasts."""
        copy = self._rng.choice(self._plane.copies)
        process = copy.process
        if process is None or process.dead or process.stalled:
            return
        self._history.note("stall", process.instance)
        self.last(self._rng.choice((0.5, 3.0, 8.0, 25.0)), "stall", process.stall, process.resume)

    async def _partition(self) -> None:
        copy = self._rng.choice(self._plane.copies)
        bus = copy.bus
        if bus is None or not copy.alive or not bus.inner.connected:
            return
        self._history.note("partition", copy.name)

        def restore() -> None:
            if self._buses.up and copy.bus is bus and copy.alive:
                bus.inner.restore_connection()

        self.last(self._rng.uniform(1.0, 20.0), "partition", bus.inner.lose_connection, restore)

    # --- servers ---

    async def _bus_outage(self) -> None:
        if not self._buses.up:
            return
        self._history.note("server", "the bus is down")
        seconds = self._rng.choice((self._rng.uniform(0.5, 20.0), self._rng.uniform(20.0, 90.0)))

        def back() -> None:
            self._buses.start()
            self._bus_up_since_s = self._loop.time()

        self.last(seconds, "bus-outage", self._buses.stop, back)

    async def _store_outage(self) -> None:
        if not self._stores.up:
            return
        self._history.note("server", "the store is down")
        self._stores.hangs = self._rng.random() < 0.5

        def down() -> None:
            self._stores.up = False

        self.last(self._rng.uniform(0.5, 15.0), "store-outage", down, self._stores.come_back)

    async def _rollback(self) -> None:
        """A failover to a replica that lags behind: the last moments are forgotten, acknowledged or not."""
        await self._go_back("rollback", self._stores.backup(), self._rng.choice((0.1, 1.0, 5.0, 30.0)))

    async def _deep_rollback(self) -> None:
        """A failover to a replica that was cut off long ago: of machines that were made since, nothing is known."""
        await self._go_back("deep-rollback", self._stores.backup(), self._rng.uniform(20.0, 90.0))

    async def _rollback_in_passing(self) -> None:
        """A failover to a replica that has heard of an intent, and of nothing since."""
        intended: asyncio.Future[Contents] = self._loop.create_future()

        def listen(applied: Applied) -> None:
            records = (record for record in applied.commit.put.values() if isinstance(record, NodeRecord))
            if not intended.done() and any(record.phase is Phase.PLANNED for record in records):
                intended.set_result(self._stores.backup())

        self._stores.on_commit.append(listen)
        try:
            async with asyncio.timeout(30.0):
                backup = await intended
        except TimeoutError:
            return
        finally:
            self._stores.on_commit.remove(listen)
        await self._go_back("rollback-in-passing", backup, self._rng.uniform(0.5, 25.0))

    async def _go_back(self, fault: str, backup: Contents, lost_s: float) -> None:
        await asyncio.sleep(lost_s)
        self._coverage.met(fault, forgotten_s=lost_s)
        self._history.note("server", f"the store forgets the last {lost_s:.4g} s")
        self._stores.roll_back(backup)
        self._checks.forget()

    async def _purge(self) -> None:
        stream = self._buses.streams.get(self._subjects.stream("METRICS"))
        if stream is not None:
            self._coverage.met("purge")
            for message in list(stream.select((), 0)):
                stream.remove(message.sequence)

    # --- machines ---

    def _some_active(self) -> tuple[NodeRecord, Plug] | None:
        return self._some(frozenset({Phase.ACTIVE}))

    def _some(self, phases: frozenset[Phase]) -> tuple[NodeRecord, Plug] | None:
        """A node in one of some phases whose machine runs."""
        known = self._stores.all_of(NODE)
        able = [(r, plug) for r in known if r.phase in phases and (plug := self._sky.plug_of(r.node))]
        return self._rng.choice(able) if able else None

    async def _xid(self) -> None:
        """A GPU falls off the bus."""
        if (found := self._some_active()) is None:
            return
        record, plug = found
        self._coverage.met("xid")
        self._break_gpu(record.node, plug)

    async def _xid_burst(self) -> None:
        """What breaks several machines breaks them within moments."""
        for _ in range(self._rng.randint(2, 6)):
            if (found := self._some_active()) is not None:
                self._coverage.met("xid-burst")
                self._break_gpu(found[0].node, found[1])
            await asyncio.sleep(self._rng.uniform(0.0, 1.5))

    async def _xid_in_passing(self) -> None:
        """A GPU is lost while its machine boots, or while work leaves it."""
        if (found := self._some(COMING_OR_GOING)) is not None:
            self._coverage.met("xid-in-passing")
            record, plug = found
            self._truth.condemn(record.node, "xid-79", self._loop.time())
            self._history.note("fault", f"xid 79 on {record.node}, which is {record.phase}")
            plug.machine.kernel.printk(xid_line(79, plug.machine.driver.gpus[0].pci))

    def _break_gpu(self, node: str, plug: Plug) -> None:
        boot = plug.boot_id
        self._history.note("fault", f"xid 79 on {node}")
        self._truth.condemn(node, "xid-79", self._loop.time())
        plug.machine.kernel.printk(xid_line(79, plug.machine.driver.gpus[0].pci))

        def lived() -> None:
            now = self._sky.plug_of(node)
            if now is None or now.boot_id != boot:
                return  # What it had not told yet went down with it: a simulated machine has no disk.
            if self._can_tell(node):
                self._truth.of(node).must_fail = True
            else:
                later(SEEN_AFTER_S, lived)

        later(SEEN_AFTER_S, lived)

    def _can_tell(self, node: str) -> bool:
        """Whether a machine could speak for a while without a break, so that its report must have arrived."""
        now_s = self._loop.time()
        silent = any(span.within(now_s - SEEN_AFTER_S / 2, now_s) for span in self._truth.of(node).silent)
        return self._buses.up and now_s - self._bus_up_since_s > SEEN_AFTER_S / 2 and not silent

    async def _app_xid(self) -> None:
        """An application's own fault: no reason to replace anything."""
        if (found := self._some_active()) is None:
            return
        record, plug = found
        self._coverage.met("app-xid")
        code = self._rng.choice((13, 31, 43))
        self._history.note("fault", f"xid {code} on {record.node}, an application's own")
        plug.machine.kernel.printk(xid_line(code, plug.machine.driver.gpus[0].pci))

    async def _death(self) -> None:
        able = self._sky.on()
        if able:
            machine = self._rng.choice(able)
            self._coverage.met("death")
            self._truth.condemn(machine.request.node, "death", self._loop.time())
            self._sky.die(machine.instance_id)

    async def _death_in_passing(self) -> None:
        """A machine dies while it boots, or while work leaves it."""
        known = [record for record in self._stores.all_of(NODE) if record.phase in COMING_OR_GOING]
        able = [machine for record in known for machine in self._sky.machine_of(record.node) if machine.power == "on"]
        if able:
            machine = self._rng.choice(able)
            self._coverage.met("death-in-passing")
            self._truth.condemn(machine.request.node, "death", self._loop.time())
            self._sky.die(machine.instance_id)

    async def _flap(self) -> None:
        able = [machine for machine in self._sky.on() if machine.instance_id in self._sky.plugs]
        if able:
            machine = self._rng.choice(able)
            self._coverage.met("flap")
            self._truth.of(machine.request.node).silent.append(
                Span(self._loop.time(), self._loop.time() + 2 * self._options.boot_s)
            )
            self._sky.reboot(machine.instance_id)

    async def _silence(self) -> None:
        """The agent says nothing for a while: mostly less than condemns it."""
        if (found := self._some_active()) is None:
            return
        record, plug = found
        beat = self._options.heartbeat_s
        seconds = self._rng.choice((2 * beat, 5 * beat, 8 * beat, 20 * beat))
        self._history.note("fault", f"{record.node} is silent for {seconds:.0f} s")
        self._silent(record.node, plug, seconds, "silence")

    def _silent(self, node: str, plug: Plug, seconds: float, fault: str) -> None:
        now_s = self._loop.time()
        span = Span(now_s - self._options.heartbeat_s)
        self._truth.of(node).silent.append(span)

        def begin() -> None:
            plug.machine.simulation.silence(now_s + seconds)

        def end() -> None:
            plug.machine.simulation.silence(0.0)
            span.end_s = self._loop.time() + self._options.heartbeat_s

        self.last(seconds, fault, begin, end)

    async def _zone_dark(self) -> None:
        zones = self._options.pools[0].zones
        zone = self._rng.choice(zones)
        seconds = self._rng.choice((5.0, 10.0, 30.0)) * self._options.heartbeat_s
        self._history.note("fault", f"{zone} is dark for {seconds:.0f} s")
        for machine in self._sky.on():
            plug = self._sky.plugs.get(machine.instance_id)
            if machine.request.zone == zone and plug is not None:
                self._silent(machine.request.node, plug, seconds, "zone-dark")
        dark = self._sky.forecast.dark
        self.last(seconds, "zone-dark", lambda: dark.add(zone), lambda: dark.discard(zone))

    async def _stock_out(self) -> None:
        zone = self._rng.choice(self._options.pools[0].zones)
        exhausted = self._sky.forecast.exhausted
        self.last(
            self._rng.uniform(10.0, 60.0), "stock-out", lambda: exhausted.add(zone), lambda: exhausted.discard(zone)
        )

    async def _returns(self) -> None:
        """A machine that was ended long ago speaks again, as whoever it was."""
        ended = [machine for machine in self._sky.machines.values() if machine.power == "ended"]
        if not ended:
            return
        machine = self._rng.choice(ended)
        self._history.note("fault", f"{machine.instance_id} of {machine.request.node} is back from the dead")
        plugs: list[Plug] = []
        self.last(
            self._rng.uniform(5.0, 60.0), "returns",
            lambda: plugs.append(self._sky.plug_in(machine)), lambda: self._sky.pull(plugs[0]),
        )  # fmt: skip

    async def _work(self) -> None:
        if (found := self._some_active()) is None:
            return
        record, plug = found
        span = Span(self._loop.time())
        self._truth.of(record.node).busy.append(span)

        def begin() -> None:
            plug.machine.driver.work(1)

        def end() -> None:
            span.end_s = min(span.end_s, self._loop.time())
            if self._truth.busy_since(record.node, self._loop.time()) is None:
                plug.machine.driver.work(0)

        self.last(self._rng.uniform(10.0, 90.0), "work", begin, end)

    # --- people ---

    async def _demand(self) -> None:
        for pool in self._options.pools:
            if pool.queue:
                self._coverage.met("demand")
                self._demands[pool.name] = 10 * self._rng.randint(0, 2 * pool.nodes)
                self._say(pool.name, self._demands[pool.name])

    def _say(self, pool: str, depth: int) -> None:
        if self._buses.up:
            self._said += 1
            headers = {"Nats-Msg-Id": f"demand-{self._said}"}
            self._buses.publish(self._subjects.queue_depth(pool), str(depth).encode(), headers)


def _runs_out(record: NodeRecord, now: datetime, patience: timedelta) -> bool:
    """Whether its time to become usable is nearly up or just over, or nobody knows whether it has a machine."""
    if record.phase in (Phase.LAUNCH_UNKNOWN, Phase.REGISTRATION_TIMEOUT):
        return True
    if record.phase not in (Phase.BOOTING, Phase.VALIDATING) or record.launch is None:
        return False
    due = record.launch.deadline
    if record.phase is Phase.VALIDATING:
        due = max(due, record.phase_since + patience)
    return now >= due - BRINK
