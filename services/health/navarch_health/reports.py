"""Health reports in, verdicts out. A report is acknowledged when its verdict is durable, and not before.

All copies share one durable consumer. Reports of one node are handled one after the other within a process, those of
different nodes side by side. A report that cannot be used goes to the dead letters; one of another generation, or about
a node that nobody knows, is dropped and counted, except in safe mode, where the node may yet be adopted.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from typing import Final

import structlog
from msgspec import structs

from navarch_common.bus.base import BusError, Delivery
from navarch_common.dead import DeadLetters
from navarch_common.errors import NavarchError
from navarch_common.events import BadMessage, decode
from navarch_common.events.kinds import NodeFailed
from navarch_common.events.messages import REJECTED, HealthReport
from navarch_common.model.cluster import META
from navarch_common.model.health import HealthRecord
from navarch_common.model.node import NodeRecord, ended
from navarch_common.rejects import Rejects
from navarch_common.run import Deps
from navarch_common.store.base import BadRecord, StoreError
from navarch_health import life
from navarch_health.fold import Folded, fold_report
from navarch_health.policy import Policy
from navarch_health.settings import HealthSettings
from navarch_health.verdict import Change, Context
from navarch_health.verdicts import UnknownNode, Verdicts

log = structlog.get_logger("navarch.health")

LANES: Final = 8
LANE_DEPTH: Final = 64
LATER_S: Final = 1.0
ADOPTION_S: Final = 10.0
"""In safe mode: when a report of an unknown node is looked at again."""
AHEAD_TRIES: Final = 10
"""How often a report of a generation that is not recorded yet is put off."""


class NotOurs(NavarchError):
    """The report is about another machine than the one that the node is now."""


class NotYet(NavarchError):
    """The node's record does not know of this machine yet."""


class Reports:
    """Consumes health reports for one process."""

    def __init__(self, deps: Deps, verdicts: Verdicts, rejects: Rejects, policy: Policy) -> None:
        self._deps, self._verdicts, self._rejects = deps, verdicts, rejects
        self._dead = DeadLetters(deps, "health", deps.subjects.stream("REPORTS"))
        self._lanes: Sequence[asyncio.Queue[Delivery]] = [asyncio.Queue(LANE_DEPTH) for _ in range(LANES)]
        self.policy = policy
        """The policy in force. Replaced whole when another one loads."""
        self.settings = HealthSettings.of(deps.config.current.config)
        self.consuming = False
        self.rule_errors = 0
        """Evaluations that failed, since the start."""

    async def run(self) -> None:
        """Until cancelled, also over outages of the bus. What it has in hand then is given back, for another copy."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for number, lane in enumerate(self._lanes):
                    tasks.create_task(self._work(lane), name=f"health-reports-{number}")
                tasks.create_task(self._consume(), name="health-reports")
        finally:
            for lane in self._lanes:
                while not lane.empty():
                    await self._dead.put_off(lane.get_nowait(), 0.0)

    async def _consume(self) -> None:
        subjects = self._deps.subjects
        while True:
            try:
                async with self._deps.bus.consume(
                    subjects.stream("REPORTS"), "health", subjects.reports("health")
                ) as deliveries:
                    self.consuming = True
                    async for delivery in deliveries:
                        lane = zlib.crc32(delivery.subject.encode()) % LANES
                        await self._lanes[lane].put(delivery)
            except BusError as error:
                log.warning("reports not consumed", error=str(error))
            finally:
                self.consuming = False
            await asyncio.sleep(LATER_S)

    async def _work(self, lane: asyncio.Queue[Delivery]) -> None:
        while True:
            delivery = await lane.get()
            try:
                await self._handle(delivery)
            except asyncio.CancelledError:
                await self._dead.put_off(delivery, 0.0)
                raise
            except BusError as error:
                # Neither acknowledged nor put off: it comes again by itself, and says nothing new then.
                log.warning("report comes again", subject=delivery.subject, error=str(error))
            except Exception as error:
                log.exception("report not handled", subject=delivery.subject, sequence=delivery.sequence)
                await self._dead.failed(delivery, error)

    async def _handle(self, delivery: Delivery) -> None:
        arrived_s = asyncio.get_running_loop().time()
        source = delivery.subject.split(".")[-2]
        try:
            report = decode(delivery.data, HealthReport)
            if report.node != source:
                raise BadMessage(f"a report of node {report.node!r:.80} on the subject of another node")
        except BadMessage as error:
            if await self._dead.undecodable(delivery, error):
                await self._rejects.note(delivery.subject, source, error)
            return
        report = await self._told_of_rejects(report)
        if not report.observations:
            await delivery.ack()
            return
        parent = report.trace or delivery.headers.get("traceparent", "")
        with self._deps.telemetry.span("verdict", parent=parent, node=report.node, pool=report.pool) as span:
            try:
                folded, change = await self._judge(report, span.traceparent, again=delivery.deliveries > 1)
            except (UnknownNode, NotOurs, NotYet) as refusal:
                await self._refuse(delivery, report, refusal)
                return
            except BadRecord as error:
                log.error("verdict cannot be kept", node=report.node, error=str(error))
                await self._dead.failed(delivery, error)
                return
            except (StoreError, TimeoutError) as error:
                log.warning("verdict not known to be durable, report comes again", node=report.node, error=str(error))
                await self._dead.put_off(delivery, LATER_S)
                return
        self._measure(folded, change, asyncio.get_running_loop().time() - arrived_s)
        await delivery.ack()

    async def _told_of_rejects(self, report: HealthReport) -> HealthReport:
        """The report without what an agent says of messages that it dropped: that is told of, and judges nobody."""
        about_bus = [one for one in report.observations if one.event_type == REJECTED]
        for one in about_bus:
            subject, _, error = one.message.partition(": ")
            await self._rejects.note(subject, subject, error, pool=report.pool, node=report.node)
        if not about_bus:
            return report
        return structs.replace(report, observations=tuple(o for o in report.observations if o.event_type != REJECTED))

    async def _judge(self, report: HealthReport, trace: str, *, again: bool) -> tuple[Folded, Change | None]:
        """`again`: it came before, and the commit that it led to may have been unknown."""
        folded = Folded(None)
        boots = False

        def decide(node: NodeRecord, before: HealthRecord, context: Context) -> Change | None:
            nonlocal folded, boots
            _check(report, node)
            booted = life.booted(before, node, context)
            boots = booted is not None
            if boots:
                return booted
            folded = fold_report(before, node, report, self.policy.judge, self.settings.limits(node.pool), context)
            return folded.change

        change = await self._verdicts.change(report.node, decide, trace, settle=again)
        if boots:  # a boot was noted first: it settles what is past
            change = await self._verdicts.change(report.node, decide, trace, settle=again)
        return folded, change

    async def _refuse(self, delivery: Delivery, report: HealthReport, refusal: NavarchError) -> None:
        if isinstance(refusal, UnknownNode) and await self._safe_mode():
            await self._dead.put_off(delivery, ADOPTION_S)
            return
        if isinstance(refusal, NotYet) and delivery.deliveries < AHEAD_TRIES:
            await self._dead.put_off(delivery, LATER_S)
            return
        await self._rejects.note(delivery.subject, report.node, refusal, pool=report.pool, node=report.node)
        await delivery.ack()

    async def _safe_mode(self) -> bool:
        """An unreadable answer counts as yes: then nothing is dropped."""
        try:
            async with asyncio.timeout(5.0):
                meta = await self._deps.store.get(META.key())
        except (StoreError, TimeoutError):
            return True
        return meta is None or meta.record.safe_mode is not None

    def _measure(self, folded: Folded, change: Change | None, took_s: float) -> None:
        metrics = self._deps.metrics
        metrics.count("navarch_reports_total", kind="health")
        for label in folded.xids:
            metrics.count("navarch_xid_errors_total", code=label)
        for name in folded.shadow:
            log.info("a rule in shadow mode would have decided", rule=name)
        if folded.rule_errors:
            self.rule_errors += len(folded.rule_errors)
            log.debug("rules could not be evaluated and did not match", rules=sorted(set(folded.rule_errors)))
        if change is not None and any(isinstance(event, NodeFailed) for event in change.events):
            metrics.observe("navarch_detection_seconds", took_s)


def _check(report: HealthReport, node: NodeRecord) -> None:
    if report.generation < node.generation:
        raise NotOurs(f"generation {report.generation} of node {node.node}, whose generation is {node.generation}")
    if report.generation > node.generation:
        raise NotYet(f"generation {report.generation} of node {node.node}, whose generation is still {node.generation}")
    if ended(node):
        raise NotOurs(f"node {node.node} has ended ({node.phase})")
