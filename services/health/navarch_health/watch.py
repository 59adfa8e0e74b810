"""The watch over silence, and over everything else that time and other services' news change in a verdict.

The condition it repairs: every node whose machine may live has a health record of its generation; who is silent is
suspect, and failed once its provider or the long deadline says so; who is heard again is not suspect; what a boot or
time has cleared is cleared. Each pass looks at all nodes that are overdue, changed, or heard with something to tell.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

import structlog
from msgspec import structs

from navarch_common.events.kinds import Alarm
from navarch_common.model.base import AnyKey, Reason, with_reason
from navarch_common.model.health import ALARM, HealthRecord, HealthStatus
from navarch_common.model.node import NodeRecord, ProviderState
from navarch_common.model.pool import VERDICTS
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT, Commit, Conflict, StoreError
from navarch_health import life
from navarch_health.alarms import Causes
from navarch_health.fleet import Fleet, Tracked
from navarch_health.hearing import Hearing
from navarch_health.liveness import MASS_COUNT, Decision, Life, Ruling, rule_on_silence
from navarch_health.observer import Observer
from navarch_health.settings import HealthSettings
from navarch_health.verdict import MACHINE, WATCHED, Change, Context, settle
from navarch_health.verdicts import Decide, UnknownNode, Verdicts

log = structlog.get_logger("navarch.health")

OVERDUE_MAX: Final = 5000
FOLLOW_UPS: Final = 3
SIDE_BY_SIDE: Final = 16
"""Commits under way at once: a thousand suspects must not take a thousand round trips."""
_TOLD: Final = frozenset({"pool-guard", "answers-probes"})
"""Guards that hold back one node's verdict; the others hold back all, and are told once for all."""
_FAILED: Final = HealthStatus.UNHEALTHY


class Watch:
    """One process's watch. `step` is a reconciler's step."""

    def __init__(
        self,
        deps: Deps,
        fleet: Fleet,
        hearing: Hearing,
        verdicts: Verdicts,
        observer: Observer,
        settings: HealthSettings,
        listen: Callable[[], None],
    ) -> None:
        """`listen` has the observer look at clocks and bus: a jump must be known before anyone is judged by the time."""
        self._listen = listen
        self._deps, self._fleet, self._hearing = deps, fleet, hearing
        self._verdicts, self._observer = verdicts, observer
        self.settings = settings
        self._calm_at: dict[str, datetime] = {}
        self._told: dict[str, str] = {}
        self._causes = Causes()
        self._alarms_stand = True
        """An alarm may stand: the records are looked at."""
        self._dark_at: dict[str, datetime] = {}
        """By zone, when it was last dark."""
        self._mass_at: datetime | None = None
        """When too many were last silent at once."""
        self.suspects: frozenset[str] = frozenset()
        """Nodes that are suspect from silence: they are probed."""
        self.suspended = ""
        """Why silence means nothing now; empty where it does."""

    async def step(self) -> dict[str, int]:
        self._listen()
        now = self._deps.clock.now()
        changed = await self._fleet.refresh(now)
        attended, self._hearing.attended = self._hearing.attended, set()
        await self._settle_all(changed | attended | self._calming(changed, now), now)
        for _ in range(FOLLOW_UPS):  # a record just made, or a boot just noted, may have more to say
            if not (fresh := self._fleet.taken()):
                break
            await self._settle_all(fresh | self._calming(fresh, now), now)
        silent = await self._silent(now)
        decided = await self._judge(silent, now)
        return {"nodes": len(self._fleet.tracked), "silent": len(silent), **decided}

    def deaf(self, now: datetime) -> str:
        """Why nothing follows now from what is not heard; empty where something does."""
        if self._hearing.listening_since is None:
            return self._observer.deaf(now) or "heartbeats are not subscribed to"
        if self._hearing.write_failures:
            return self._observer.deaf(now) or "heartbeats cannot be written"
        return self._observer.deaf(now)

    async def _settle_all(self, names: Iterable[str], now: datetime) -> None:
        """Commits what changed for each of these nodes, decided from the cache first so that most cost nothing."""
        due = sorted(name for name in names if self._is_due(name, now))
        await self._side_by_side([(name, self._next) for name in due], create=True)

    def _is_due(self, name: str, now: datetime) -> bool:
        node, health = self._fleet.nodes.get(name), self._fleet.health.get(name)
        if node is None or name not in self._fleet.tracked:
            return False
        context = Context(cluster=self._deps.cluster, now=now)
        if health is None or health.record.generation != node.record.generation:
            return node.record.phase in WATCHED
        return self._next(node.record, health.record, context) is not None

    def _next(self, node: NodeRecord, record: HealthRecord, context: Context) -> Change | None:
        """The first that there is to change: a boot, what was heard, what has calmed down."""
        if (booted := life.booted(record, node, context)) is not None:
            return booted
        tracked = self._fleet.tracked.get(record.node)
        if tracked is not None and self._is_heard(tracked, context.now):
            heard = life.heard(record, node, tracked.boot_id, self._driver_state(tracked, context.now), context)
            if heard is not None:
                return heard
        return life.calmed(record, node, context)

    def _is_heard(self, tracked: Tracked, now: datetime) -> bool:
        return tracked.heard_at is not None and now - tracked.heard_at < self.settings.heartbeat_timeout

    def _driver_state(self, tracked: Tracked, now: datetime) -> str:
        """A driver's trouble counts once it has lasted a whole timeout: an agent that starts has not asked it yet."""
        since = tracked.driver_trouble_since
        if since is None or now - since >= self.settings.heartbeat_timeout:
            return tracked.driver_state
        health = self._fleet.health.get(tracked.node)
        well = health is not None and health.record.status not in (HealthStatus.UNKNOWN, HealthStatus.SUSPECT)
        return "ok" if well else tracked.driver_state

    def _calming(self, changed: set[str], now: datetime) -> set[str]:
        for name in changed:
            health = self._fleet.health.get(name)
            at = None if health is None or name not in self._fleet.tracked else life.calms_at(health.record)
            if at is None:
                self._calm_at.pop(name, None)
            else:
                self._calm_at[name] = at
        return {name for name, at in self._calm_at.items() if at <= now}

    async def _silent(self, now: datetime) -> dict[str, datetime]:
        """Watched nodes whose heartbeat is overdue, by the store's deadlines and our own ears, and when they were last
        heard."""
        timeout = self.settings.heartbeat_timeout
        overdue = dict(await self._deps.store.overdue(now, OVERDUE_MAX))
        strangers = [name for name in overdue if name not in self._fleet.tracked]
        if strangers and self._fleet.loaded:
            await self._deps.store.forget_beats(strangers)
        silent = {}
        for name, due_at in overdue.items():
            tracked = self._fleet.tracked.get(name)
            if tracked is not None and tracked.watched and not self._is_heard(tracked, now):
                own = tracked.heard_at or due_at - timeout
                silent[name] = max(own, due_at - timeout)
        missing = {name: since for name, since in self._never_heard(now).items() if name not in silent}
        for (name, since), beat in zip(missing.items(), await self._deps.store.beats(list(missing)), strict=True):
            if beat is None:
                silent[name] = since
        return silent

    def _never_heard(self, now: datetime) -> dict[str, datetime]:
        """Nodes that we have not heard once since we began to listen: the store may have lost their deadlines."""
        listening = self._hearing.listening_since
        if listening is None:
            return {}
        names = (name for names in self._fleet.watched.values() for name in names)
        unheard = (tracked for name in names if (tracked := self._fleet.tracked[name]).heard_at is None)
        since = {tracked.node: max(listening, tracked.since) for tracked in unheard}
        late = sorted(name for name, began in since.items() if now - began >= self.settings.heartbeat_timeout)
        return {name: since[name] for name in late[:OVERDUE_MAX]}

    async def _judge(self, silent: dict[str, datetime], now: datetime) -> dict[str, int]:
        deaf = self.deaf(now)
        lives, ruling = self._rule(silent, now, deaf)
        self._mass_at = now if ruling.mass else self._mass_at
        self._dark_at |= dict.fromkeys(ruling.dark, now)
        self.suspects = frozenset(one.node for one in lives if one.silent and one.suspect_since is not None)
        self._suspend(deaf, ruling.mass or "; ".join(ruling.dark.values()), now)
        if not deaf:
            await self._alarm(ruling, now)
        self._tell_held(ruling.decisions)
        acts = [d for d in ruling.decisions if d.verdict in ("suspect", "gone") or d.code in _TOLD]
        await self._side_by_side([(d.node, self._acting(d, silent[d.node])) for d in acts])
        if failing := [d.node for d in ruling.decisions if d.verdict == "failed"]:
            await self._give_up(failing, silent, now)
        counts = {"suspect": 0, "failed": 0, "gone": 0, "held": 0}
        for decision in ruling.decisions:
            counts[decision.verdict] += 1
        return counts

    def _rule(self, silent: dict[str, datetime], now: datetime, deaf: str) -> tuple[tuple[Life, ...], Ruling]:
        """What their silence means by what is known now, and of whom it was decided."""
        pools = {tracked.pool for name in silent if (tracked := self._fleet.tracked.get(name)) is not None}
        lives = tuple(self._life(name, silent) for pool in pools for name in sorted(self._fleet.watched[pool]))
        heard_since = max(self._observer.heard_since, self._mass_at or self._observer.heard_since)
        ruling = rule_on_silence(
            lives, now, self.settings.patience, fleet=self._fleet.watched_count, zones=self._zones(lives),
            heard_since=heard_since, deaf=deaf,
        )  # fmt: skip
        return lives, ruling

    async def _give_up(self, failing: list[str], silent: dict[str, datetime], now: datetime) -> None:
        """Fails nodes by their silence alone, each by a commit that rests on its pool's verdicts as they were counted.

        How many of a pool are healthy, and how many have failed, may be another by the hand of another copy since this
        pass looked. So the pools' markers are read, then what has changed, and what still follows is committed.
        """
        tracked = self._fleet.tracked
        pools = {tracked[name].pool for name in failing if name in tracked}
        markers = [VERDICTS.key(pool) for pool in sorted(pools)]
        found = await self._deps.store.get_many(markers)
        rests_on = {
            key: ABSENT if stored is None else stored.revision for key, stored in zip(markers, found, strict=True)
        }
        await self._fleet.reread(now)
        _, ruling = self._rule(silent, now, self.deaf(now))
        for decision in ruling.decisions:
            if decision.verdict != "failed" or decision.node not in tracked:
                continue  # it may end while others are committed
            key = VERDICTS.key(tracked[decision.node].pool)
            if key not in rests_on:
                continue
            done = await self._one(decision.node, self._acting(decision, silent[decision.node]), {key: rests_on[key]})
            if done is None:
                del rests_on[key]  # The pool is counted anew in the next pass.
            else:
                rests_on[key] = self._fleet.health[decision.node].revision

    def _life(self, name: str, silent: dict[str, datetime]) -> Life:
        tracked, health = self._fleet.tracked[name], self._fleet.health.get(name)
        record = None if health is None or health.record.generation != tracked.generation else health.record
        instance = self._fleet.nodes[name].record.instance
        gone = instance is not None and instance.state == ProviderState.GONE
        machine = None if record is None else record.entities.get(MACHINE)
        return Life(
            node=name,
            pool=tracked.pool,
            status=HealthStatus.UNKNOWN if record is None else record.status,
            last_heard=silent.get(name) or tracked.heard_at or tracked.since,
            silent=name in silent,
            suspect_since=None if record is None else record.silent_since,
            suspected_at=None if machine is None else machine.since,
            gone_at=instance.state_at if gone and instance is not None else None,
            failed_by_silence=machine is not None and machine.code == "silence" and machine.status == _FAILED,
            answered_at=tracked.answered_at,
            zone=(zone := self._zone(name)),
            dark_at=self._dark_at.get(zone),
        )

    def _acting(self, decision: Decision, last_heard: datetime) -> Decide:
        timeout_s = self.settings.heartbeat_timeout.total_seconds()
        deadline_s = self.settings.silence_deadline.total_seconds()

        def decide(node: NodeRecord, before: HealthRecord, context: Context) -> Change | None:
            tracked = self._fleet.tracked.get(decision.node)
            if node.phase not in WATCHED or node.powered_off:
                return None
            if tracked is None or tracked.generation != node.generation or self._is_heard(tracked, context.now):
                return None
            match decision.verdict:
                case "suspect":
                    return life.fell_silent(before, node, last_heard, context, timeout_s=timeout_s)
                case "gone":
                    still = node.instance is not None and node.instance.state == ProviderState.GONE
                    return life.gone(before, node, context) if still else None
                case "failed":
                    if before.silent_since is None:
                        return None
                    return life.silent_too_long(before, node, context, deadline_s=deadline_s)
                case "held":
                    return _noted(before, node, decision, context)

        return decide

    def _suspend(self, deaf: str, mass: str, now: datetime) -> None:
        before, self.suspended = self.suspended, deaf or mass
        code = "" if not self.suspended else (self._observer.code(now) or "bus") if deaf else "mass"
        self._deps.metrics.set_all("navarch_verdicts_suspended", {(code,): 1.0} if code else {})
        if self.suspended and not before:
            log.warning("verdicts from silence suspended", why=self.suspended)
        elif before and not self.suspended:
            log.info("silence is judged again", was=before)

    async def _alarm(self, ruling: Ruling, now: datetime) -> None:
        """Tells once of silence that many share, whichever copy is first; and no longer says so when it is over."""
        wanted = {f"zone-silence/{zone}": text for zone, text in ruling.dark.items()}
        if ruling.rest:
            wanted["fleet-silence"] = ruling.rest
        self._causes.note(wanted, now)
        if not wanted and not self._alarms_stand:
            return
        stored = {one.record.name: one for one in await self._deps.store.records(ALARM)}
        known = {name: one.record for name, one in stored.items()}
        self._alarms_stand = any(record.active for record in known.values())
        for due in self._causes.due(wanted, known, now, self.settings.heartbeat_timeout):
            alarm = Alarm(
                at=now, cluster=self._deps.cluster, reason=due.record.reason, code="mass-silence", actor="health"
            )
            key = ALARM.key(*due.name.split("/"))
            expect = {key: stored[due.name].revision if due.name in stored else ABSENT}
            commit = Commit(expect=expect, put={key: due.record}, emit=(alarm,) if due.tell else ())
            try:
                async with asyncio.timeout(5.0):
                    await self._deps.committer.commit(commit)
            except Conflict:
                continue  # another copy was quicker
            log.warning("alarm", name=due.name, raised=due.tell, reason=due.record.reason)
            self._alarms_stand = True

    def _zones(self, lives: tuple[Life, ...]) -> dict[str, int]:
        """How many nodes are watched in each zone in which several are silent."""
        silent = Counter(life.zone for life in lives if life.silent and life.zone)
        asked = {zone for zone, count in silent.items() if count > MASS_COUNT}
        if not asked:
            return {}
        counts = Counter(self._zone(name) for names in self._fleet.watched.values() for name in names)
        return {zone: counts[zone] for zone in asked}

    def _zone(self, name: str) -> str:
        node = self._fleet.nodes.get(name)
        return "" if node is None else zone_of(node.record)

    def _tell_held(self, decisions: tuple[Decision, ...]) -> None:
        """One line for each node and guard, not one for each pass."""
        held = {d.node: d.code for d in decisions if d.verdict == "held" and d.code in _TOLD}
        for decision in decisions:
            if decision.node in held and self._told.get(decision.node) != decision.code:
                log.warning("verdict held back", node=decision.node, code=decision.code, reason=decision.reason)
        self._told = held

    async def _one(
        self, name: str, decide: Decide, rests_on: Mapping[AnyKey, int] | None = None, *, create: bool = False
    ) -> Change | None:
        try:
            with self._deps.telemetry.span("verdict", node=name) as span:
                return await self._verdicts.change(name, decide, span.traceparent, create=create, rests_on=rests_on)
        except (UnknownNode, Conflict) as error:
            log.info("verdict left to the next pass", node=name, why=str(error))
            return None

    async def _side_by_side(self, work: list[tuple[str, Decide]], *, create: bool = False) -> None:
        gate = asyncio.Semaphore(SIDE_BY_SIDE)

        async def one(name: str, decide: Decide) -> None:
            async with gate:
                await self._one(name, decide, create=create)

        if len(work) == 1:
            await one(*work[0])
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, decide in work:
                    tasks.create_task(one(name, decide), name=f"health-verdict-{name}")
        except* (StoreError, TimeoutError) as group:
            # One failure is as good as many: the store is away, and the next pass tries them all again.
            raise group.exceptions[0] from None


def zone_of(node: NodeRecord) -> str:
    """`aws/us-east-1/us-east-1a`; empty where its provider has no zones, or does not tell."""
    instance = node.instance
    if instance is None or not (instance.region or instance.zone):
        return ""
    return "/".join(part for part in (instance.provider, instance.region, instance.zone) if part)


def _noted(record: HealthRecord, node: NodeRecord, decision: Decision, context: Context) -> Change | None:
    """Notes in the record, once, which guard holds its verdict back."""
    if record.reasons and record.reasons[-1].code == decision.code:
        return None
    held = Reason(at=context.now, code=decision.code, text=decision.reason, actor="health", trace=context.trace)
    return settle(record, structs.replace(record, reasons=with_reason(record.reasons, held)), node, context)
