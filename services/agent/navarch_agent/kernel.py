"""Follows the kernel's log: each line that tells of a fault becomes a report, in the same step as the log's place.

A second witness may tell of faults too (`witnessed`); what both saw is reported once.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing

import structlog

from navarch_agent import checks
from navarch_agent.driver_watch import DriverWatch
from navarch_agent.log.base import KernelLogUnavailable, KernelRecord
from navarch_agent.parts import Parts
from navarch_agent.reporter import Reporter
from navarch_agent.sxid_details import SxidDetails
from navarch_agent.witnesses import KERNEL_LOG, Witnesses
from navarch_common.events.messages import Observation
from navarch_common.xid import KernelFault, parse_line

log = structlog.get_logger("navarch.agent.kernel")


class KernelWatch:
    """Reads one kernel log for ever. `driver` knows which GPU a PCI id is."""

    RETRY_S = 30.0
    IDENTIFY_S = 2.0
    """What was printed before the start waits that long for the GPUs' names, and no longer: a sick driver may never tell."""
    PLACE_EVERY = 256
    """Lines of no interest after which the place is noted all the same."""
    BREATHE_EVERY = 64
    """Lines after which other tasks get their turn, however fast the kernel prints."""

    def __init__(self, parts: Parts, reporter: Reporter, driver: DriverWatch) -> None:
        self._parts = parts
        self._reporter = reporter
        self._driver = driver
        self._damper = checks.Damper()
        self._witnesses = Witnesses()
        self._details = SxidDetails()
        self._unavailable = ""
        self._place = parts.spool.place
        self.lost = 0
        """Records that the kernel overwrote before they were read."""

    async def identified(self) -> None:
        """Wait for the GPUs' names, `IDENTIFY_S` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.IDENTIFY_S):
                await self._driver.identified.wait()

    async def run(self) -> None:
        """Follow until cancelled; a log that cannot be read is reported, and tried again."""
        await self.identified()
        while True:
            try:
                await self._follow()
            except KernelLogUnavailable as error:
                self._note_unavailable(str(error))
                await asyncio.sleep(self.RETRY_S)
            finally:
                self._parts.spool.note_place(self._place)

    async def _follow(self) -> None:
        count = 0
        async with aclosing(self._parts.kernel_log.records(self._place)) as records:
            async for record in records:
                self._unavailable = ""
                self._take(record)
                count += 1
                if count % self.PLACE_EVERY == 0:
                    self._parts.spool.note_place(self._place)
                if count % self.BREATHE_EVERY == 0:
                    await asyncio.sleep(0)

    def witnessed(self, record: KernelRecord, source: str) -> None:
        """Report what another witness than the kernel's log saw, where the log did not tell of it."""
        if (fault := parse_line(record.text)) is not None:
            self._tell(fault, record, source)

    def count_lost(self, record: KernelRecord) -> None:
        if record.lost:
            self.lost += record.lost
            log.warning("the kernel overwrote records before they were read", lost=record.lost, lost_in_all=self.lost)

    def _take(self, record: KernelRecord) -> None:
        self._place = record.place
        self.count_lost(record)
        if (fault := parse_line(record.text)) is not None:
            self._tell(fault, record, KERNEL_LOG)

    def _tell(self, fault: KernelFault, record: KernelRecord, source: str) -> None:
        if fault.kind == "sxid_detail":
            if (more := self._details.fold(fault, record.at, source)) is not None:
                self._report(record, fault, more, 0)
            return
        observation = checks.from_kernel(fault, record, self._driver.gpus, source)
        if observation is None or not self._witnesses.is_news(fault, record.at, source):
            return
        left_out = self._damper.admit(fault, record.at)
        if left_out is not None:
            self._report(record, fault, observation, left_out)
        self._details.reported(fault, None if left_out is None else observation, source)

    def _report(self, record: KernelRecord, fault: KernelFault, observation: Observation, left_out: int) -> None:
        if left_out:
            observation.metrics["left_out"] = left_out
        with self._parts.telemetry.span(
            "kernel-line", kind=fault.kind, code=fault.code or 0, pci=fault.pci or ""
        ) as span:
            self._reporter.health(observation, trace=span.traceparent, place=record.place or None)
        log.info(
            "kernel fault",
            kind=fault.kind,
            code=fault.code,
            pci=fault.pci,
            gpu=observation.gpu_index,
            text=fault.message[:200],
            trace=span.traceparent,
        )

    def _note_unavailable(self, reason: str) -> None:
        if reason != self._unavailable:
            self._unavailable = reason
            log.error("kernel log not readable: its faults are unknown here", reason=reason)
            self._reporter.health(checks.kernel_log_unavailable(reason, self._parts.clock.now()))
