"""Health's shell: hears heartbeats, folds reports, watches over silence, and follows configuration and policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from navarch_common.bus.base import BusError
from navarch_common.copies import Member, Presence
from navarch_common.events.kinds import Alarm
from navarch_common.reconcile import Reconciler
from navarch_common.rejects import Rejects
from navarch_common.run import Deps
from navarch_common.store.base import Commit, StoreError
from navarch_health.fleet import Fleet
from navarch_health.hearing import Hearing
from navarch_health.observer import Observer
from navarch_health.policy_file import PolicyFile, PolicyUnusable
from navarch_health.probing import Probing
from navarch_health.remembering import Remembering
from navarch_health.reports import Reports
from navarch_health.retelling import Retelling
from navarch_health.settings import HealthSettings
from navarch_health.verdicts import Verdicts
from navarch_health.watch import Watch

log = structlog.get_logger("navarch.health")

OBSERVE_S: Final = 0.25
POLICY_S: Final = 5.0
RETELL: Final = timedelta(seconds=15)
REMEMBER: Final = timedelta(seconds=5)


class HealthService:
    """One copy of health. Any number may run: all hear every heartbeat, and share the reports."""

    def __init__(self, deps: Deps, settings: HealthSettings, *, monotonic_s: Callable[[], float] | None = None) -> None:
        """`monotonic_s` is what the wall clock is compared with; None is the event loop's clock."""
        self._deps, self._settings = deps, settings
        self._monotonic_s = monotonic_s or asyncio.get_running_loop().time
        self._rejects = Rejects(deps, service="health")
        self._policy_file = PolicyFile()
        self._fleet = Fleet(deps.store)
        self._verdicts = Verdicts(deps, self._fleet)
        self._hearing = Hearing(deps, self._fleet, settings, self._rejects)
        self._reports = Reports(deps, self._verdicts, self._rejects, self._policy_file.policy)
        self._observer = Observer(deps.clock.now(), self._monotonic_s(), settings.heartbeat_timeout, tick_s=OBSERVE_S)
        self._watch = Watch(deps, self._fleet, self._hearing, self._verdicts, self._observer, settings, self._listen)
        self._probing = Probing(deps, self._fleet, lambda: self._watch.suspects, _probe_pause_s(settings))
        period = timedelta(seconds=settings.tick_s)
        self._reconciler = Reconciler("health", self._watch.step, period, deps.clock, deps.metrics)
        self._retelling = Reconciler(
            "health/retelling", Retelling(deps, self._fleet).step, RETELL, deps.clock, deps.metrics
        )
        self._remembering = Reconciler(
            "health/remembering",
            Remembering(deps, self._fleet, self._verdicts).step,
            REMEMBER,
            deps.clock,
            deps.metrics,
        )
        loops = (self._reconciler, self._retelling, self._remembering)
        member = Member(lambda: self.ready, lambda: [(loop.name, loop.last) for loop in loops], self._facts, self._deaf)
        self._presence = Presence(deps, "health", member)

    @property
    def ready(self) -> bool:
        return self._fleet.loaded and self._hearing.listening_since is not None and self._reports.consuming

    def status(self) -> dict[str, object]:
        return {
            "reconcile": self._reconciler.last,
            "heartbeats": self._hearing.heard,
            "watched_nodes": self._fleet.watched_count,
            "suspects": sorted(self._watch.suspects)[:100],
            "verdicts_suspended": self._watch.suspended,
            "policy": self._reports.policy.name,
            "rule_errors": self._reports.rule_errors,
        }

    def _facts(self) -> dict[str, str | int | float | bool | None]:
        return {
            "verdicts_suspended": self._watch.suspended,
            "watched_nodes": self._fleet.watched_count,
            "suspects": len(self._watch.suspects),
            "policy": self._reports.policy.name,
        }

    def _deaf(self) -> str:
        self._listen()  # a process that has just been resumed must not say what was so before
        return self._watch.deaf(self._deps.clock.now())

    async def run(self) -> None:
        """Until cancelled."""
        await self._take_policy()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._presence.run(), name="health-presence")
            tasks.create_task(self._observe(), name="health-observer")
            tasks.create_task(self._hearing.listen(), name="health-heartbeats")
            tasks.create_task(self._hearing.write(), name="health-beats")
            tasks.create_task(self._reports.run(), name="health-reports")
            tasks.create_task(self._reconciler.run(), name="health-watch")
            tasks.create_task(self._retelling.run(), name="health-retelling")
            tasks.create_task(self._remembering.run(), name="health-remembering")
            tasks.create_task(self._probing.run(), name="health-probes")
            tasks.create_task(self._attend(), name="health-attention")
            tasks.create_task(self._follow(f"{self._deps.subjects.prefix}.events.node.>"), name="health-events")
            tasks.create_task(self._follow(self._deps.subjects.wakes("health")), name="health-wakes")
            tasks.create_task(self._follow_config(), name="health-config")
            tasks.create_task(self._follow_policy(), name="health-policy")

    def _listen(self) -> None:
        self._observer.note(self._deps.clock.now(), self._monotonic_s(), self._deps.bus.status)

    async def _observe(self) -> None:
        while True:
            self._listen()
            self._hearing.count()
            await asyncio.sleep(OBSERVE_S)

    async def _attend(self) -> None:
        """A heartbeat that may change a verdict need not wait for the next pass."""
        while True:
            await self._hearing.wake.wait()
            self._hearing.wake.clear()
            self._reconciler.wake()
            await asyncio.sleep(0.01)

    async def _follow(self, subject: str) -> None:
        """What happens to nodes is a reason to look again. The news itself is in the records."""
        while True:
            try:
                async with self._deps.bus.subscribe(subject) as messages:
                    self._reconciler.wake()
                    async for _ in messages:
                        self._reconciler.wake()
            except BusError as error:
                log.warning("events not followed", subject=subject, error=str(error))
            await asyncio.sleep(1.0)

    async def _follow_config(self) -> None:
        while True:
            in_force = self._deps.config.current
            self._settings = HealthSettings.of(in_force.config)
            self._observer.patience = self._settings.heartbeat_timeout
            self._hearing.take_settings(self._settings)
            self._watch.settings = self._reports.settings = self._settings
            self._probing.pause_s = _probe_pause_s(self._settings)
            self._reconciler.period = timedelta(seconds=self._settings.tick_s)
            await self._take_policy()
            await self._deps.config.wait_change(in_force.generation)

    async def _follow_policy(self) -> None:
        while True:
            await asyncio.sleep(POLICY_S)
            await self._take_policy()

    async def _take_policy(self) -> None:
        try:
            policy = self._policy_file.look(self._settings.policy_path)
        except PolicyUnusable as error:
            log.error("health policy not taken over", in_force=self._reports.policy.name, error=str(error))
            await self._alarm(f"the health policy is not taken over, {self._reports.policy.name} stays: {error}")
            return
        if policy is None:
            return
        self._reports.policy = policy
        log.info("health policy in force", policy=policy.name, rules=len(policy.rules))
        for warning in policy.warnings:
            log.warning("health policy", policy=policy.name, warning=warning)

    async def _alarm(self, text: str) -> None:
        now = self._deps.clock.now()
        alarm = Alarm(at=now, cluster=self._deps.cluster, reason=text[:1000], code="policy-rejected", actor="health")
        try:
            async with asyncio.timeout(5.0):
                await self._deps.committer.commit(Commit(emit=(alarm,)))
        except (StoreError, TimeoutError) as error:
            log.warning("alarm not committed", alarm=text[:200], error=str(error))


def _probe_pause_s(settings: HealthSettings) -> float:
    return max(0.1, settings.heartbeat_timeout.total_seconds() / 3)
