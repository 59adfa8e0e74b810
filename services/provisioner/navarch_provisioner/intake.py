"""Takes lifecycle reports off the bus into the inbox of their node. Any copy does, whoever holds the pool.

A report is acknowledged when it is in the inbox, or can never be of use: its generation is over, or its node is unknown.
One that cannot be decoded or kept, or that is broken over again and again, goes to the dead letters. In safe mode an unknown node may be one that is yet to be adopted, and its reports wait on the bus.
"""

import asyncio
from collections.abc import Callable
from typing import Literal

import structlog
from msgspec import structs

from navarch_common.bus.base import BusError, Delivery
from navarch_common.dead import DeadLetters
from navarch_common.events import BadMessage, decode
from navarch_common.events.messages import CommandResult, Leaving, LifecycleReport, Registered
from navarch_common.model.cluster import INBOX, META, InboxRecord, InboxReport
from navarch_common.model.node import ENDED, NODE, NodeRecord
from navarch_common.rejects import Rejects
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT, BadRecord, Commit, Conflict, Stored, StoreError

log = structlog.get_logger(__name__)

REPORTS_MAX = 64
TRIES = 5
AGAIN_S = 2.0
SAFE_MODE_AGAIN_S = 10.0


class Intake:
    """The consumer `provisioner` of the stream of reports."""

    def __init__(self, deps: Deps, wake: Callable[[str], None], patience_s: float) -> None:
        """`wake` is called with the pool whose inbox has something new; a report that is not taken in within
        `patience_s` goes to another copy."""
        self._deps, self._wake, self._patience_s = deps, wake, patience_s
        self._rejects = Rejects(deps, "provisioner")
        self._dead = DeadLetters(deps, "provisioner", deps.subjects.stream("REPORTS"))
        self.taken = 0

    async def run(self) -> None:
        """Until cancelled, over every trouble with the bus."""
        subjects = self._deps.subjects
        while True:
            try:
                async with self._deps.bus.consume(
                    subjects.stream("REPORTS"),
                    "provisioner",
                    subjects.reports("lifecycle"),
                    ack_wait_s=self._patience_s,
                ) as deliveries:
                    async for delivery in deliveries:
                        await self._handle(delivery)
            except BusError as error:
                log.warning("reports cannot be read", error=str(error))
            await asyncio.sleep(1.0)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            async with asyncio.timeout(self._patience_s * 0.8):
                await self._take(delivery)
        except BadRecord as error:
            log.error("report cannot be kept", subject=delivery.subject, error=str(error))
            await self._dead.failed(delivery, error)
        except (StoreError, TimeoutError, BusError) as error:
            log.warning("report comes again", subject=delivery.subject, error=str(error))
            await self._dead.put_off(delivery, AGAIN_S)
        except Exception as error:
            log.exception("report not handled", subject=delivery.subject, sequence=delivery.sequence)
            await self._dead.failed(delivery, error)

    async def _take(self, delivery: Delivery) -> None:
        """Acknowledges only what is in the inbox, or of no use to anybody."""
        try:
            report: LifecycleReport = decode(delivery.data, LifecycleReport)
            named = delivery.subject.split(".")[-2]
            if report.node != named:
                raise BadMessage(f"it says that it is about {report.node}, on the subject of {named}")
        except BadMessage as error:
            if await self._dead.undecodable(delivery, error):
                await self._rejects.note(delivery.subject, _source(delivery), error)
            return
        for _ in range(TRIES):
            stored = await self._deps.store.get(NODE.key(report.node))
            try:
                if why := await self._useless(report, stored):
                    pool = report.pool if stored is None else stored.record.pool
                    await self._reject(delivery, report.node, why, pool=pool, node=report.node)
                    return
                if stored is None:
                    await self._dead.put_off(delivery, SAFE_MODE_AGAIN_S)
                    return
                kept = await self._keep(report, stored)
            except Conflict:
                continue
            if kept:
                await delivery.ack()
                self.taken += 1
                self._deps.metrics.count("navarch_reports_total", kind=_kind(report))
                await self._tell(stored.record.pool)
                return
            break
        await self._dead.put_off(delivery, AGAIN_S)

    async def _keep(self, report: LifecycleReport, node: Stored[NodeRecord]) -> bool:
        """Puts a report into its node's inbox. False where it is full. Raises `Conflict`, `BadRecord` for what can never be
        kept, `StoreError`."""
        key = INBOX.key(report.node)
        inbox = await self._deps.store.get(key)
        before = inbox.record.reports if inbox else ()
        entry = self._entry(report)
        if inbox is not None and any(known.id == entry.id for known in before):
            # Put there by a commit that may yet be forgotten; a commit of what was read counts only when that does.
            await self._deps.committer.commit(Commit(expect={key: inbox.revision}))
            return True
        if len(before) >= REPORTS_MAX:
            return False
        record = InboxRecord(node=report.node, pool=node.record.pool, reports=(*before, entry))
        await self._deps.committer.commit(
            Commit(expect={key: inbox.revision if inbox else ABSENT, node.key: node.revision}, put={key: record})
        )
        return True

    def _entry(self, report: LifecycleReport) -> InboxReport:
        """Times are those of arrival: an agent's clock is shown to people and judges nothing."""
        now = self._deps.clock.now()
        kind = _kind(report)
        return InboxReport(
            id=f"{report.boot_id[:64]}-{kind}-{report.sequence}",
            at=now,
            boot_id=report.boot_id,
            generation=report.generation,
            sequence=report.sequence,
            kind=kind,
            registration=structs.replace(report.registration, at=now, boot_id=report.boot_id)
            if isinstance(report, Registered)
            else None,
            command_id=report.command_id if isinstance(report, CommandResult) else "",
            outcome=report.outcome if isinstance(report, CommandResult) else "",
            text=report.text if isinstance(report, CommandResult) else _reason(report),
        )

    async def _useless(self, report: LifecycleReport, node: Stored[NodeRecord] | None) -> str:
        """Why it can never be of use; empty where it can, or may yet. Raises `Conflict`, `StoreError`.

        A store that has just gone back knows nothing of a node, or another generation of it. Reading does not show that;
        a commit of what was read does.
        """
        if node is None:
            meta = await self._deps.store.get(META.key())
            if meta is None or meta.record.safe_mode is not None:
                return ""
            why, key, revision = "there is no such node", NODE.key(report.node), ABSENT
        else:
            why, key, revision = _useless(report, node.record), node.key, node.revision
        if why:
            await self._deps.committer.commit(Commit(expect={key: revision}))
        return why

    async def _reject(self, delivery: Delivery, source: str, error: object, *, pool: str = "", node: str = "") -> None:
        await self._rejects.note(delivery.subject, source, error, pool=pool, node=node)
        await delivery.ack()

    async def _tell(self, pool: str) -> None:
        self._wake(pool)
        try:
            await self._deps.bus.publish(self._deps.subjects.wake("provisioner", pool), b"")
        except BusError:
            log.debug("holder not woken; it looks by itself", pool=pool)


def _kind(report: LifecycleReport) -> Literal["registered", "command-result", "leaving"]:
    if isinstance(report, Registered):
        return "registered"
    return "command-result" if isinstance(report, CommandResult) else "leaving"


def _reason(report: LifecycleReport) -> str:
    return report.reason if isinstance(report, Leaving) else ""


def _source(delivery: Delivery) -> str:
    return delivery.subject.split(".")[-2] if delivery.subject.count(".") >= 2 else delivery.subject


def _useless(report: LifecycleReport, record: NodeRecord) -> str:
    if report.generation != record.generation:
        return f"it is of generation {report.generation}; the node is at {record.generation}"
    if record.phase in ENDED:
        return f"the node is {record.phase.value}"
    return ""
