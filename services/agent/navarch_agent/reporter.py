"""Makes reports: numbers them, spools them, wakes the outbox. Whatever goes through here is not lost."""

from __future__ import annotations

from collections import deque

from msgspec import structs

from navarch_agent import checks
from navarch_agent.checks import Importance
from navarch_agent.identity import ReportKind
from navarch_agent.outbox import Outbox
from navarch_agent.parts import Parts
from navarch_agent.spool import DoneCommand, Entry
from navarch_common.events import encode
from navarch_common.events.messages import (
    CommandResult,
    HealthReport,
    Leaving,
    LifecycleReport,
    Observation,
    Registered,
)
from navarch_common.model.node import Registration

FAULTS_MAX = 64
"""So many faults are kept to be reported again."""


class Reporter:
    """The one source of an agent's reports."""

    def __init__(self, parts: Parts, outbox: Outbox) -> None:
        self._identity = parts.identity
        self._spool = parts.spool
        self._subjects = parts.subjects
        self._clock = parts.clock
        self._outbox = outbox
        self._faults: deque[Entry] = deque(maxlen=FAULTS_MAX)
        """The last that were reported since this process began."""
        self._repeats = 0

    def health(self, observation: Observation, *, trace: str = "", place: str | None = None) -> None:
        """Report what was seen; with `place`, the kernel's log is read up to there."""
        identity, sequence = self._identity, self._spool.last_sequence + 1
        report = HealthReport(
            node=identity.node,
            pool=identity.pool,
            generation=identity.generation,
            boot_id=identity.boot_id,
            sequence=sequence,
            at=self._clock.now(),
            observations=(observation,),
            trace=trace,
        )
        entry = Entry(
            id=identity.message_id("health", sequence),
            subject=self._subjects.report(identity.node, "health"),
            data=encode(report),
            importance=checks.importance(observation),
            trace=trace,
        )
        self._spool.put(entry, sequence=sequence, place=place)
        self._outbox.wake()
        if entry.importance >= Importance.FAULT:
            self._faults.append(entry)

    def repeat_faults(self) -> None:
        """Report the faults of this boot again, as they were: whoever took them in may have forgotten them. Who has not
        knows them by their number."""
        self._repeats += 1
        for entry in self._faults:
            if entry.id not in self._spool:
                again = structs.replace(entry, id=f"{entry.id}-{self._repeats}", topic=f"again/{entry.id}")
                self._spool.put(again, sequence=self._spool.last_sequence)
        self._outbox.wake()

    def registered(self, registration: Registration) -> None:
        """Report who we are and what we have; an earlier one that still waits is pointless then."""
        identity, sequence = self._identity, self._spool.last_sequence + 1
        self._lifecycle(
            Registered(
                node=identity.node,
                pool=identity.pool,
                generation=identity.generation,
                boot_id=identity.boot_id,
                sequence=sequence,
                at=self._clock.now(),
                registration=registration,
            ),
            topic="registered",
        )

    def command_result(self, done: DoneCommand, *, trace: str = "") -> None:
        """Report what came of a command, and remember it in the same step."""
        identity, sequence = self._identity, self._spool.last_sequence + 1
        self._lifecycle(
            CommandResult(
                node=identity.node,
                pool=identity.pool,
                generation=identity.generation,
                boot_id=identity.boot_id,
                sequence=sequence,
                at=self._clock.now(),
                command_id=done.id,
                outcome=done.outcome,
                text=done.text,
            ),
            topic=f"command/{done.id}",
            done=done,
            trace=trace,
        )

    async def leaving(self, reason: str) -> None:
        """Say goodbye, once. Not spooled: told after the next start it would be wrong. Raises `BusError`."""
        identity, sequence = self._identity, self._spool.last_sequence + 1
        report = Leaving(
            node=identity.node,
            pool=identity.pool,
            generation=identity.generation,
            boot_id=identity.boot_id,
            sequence=sequence,
            at=self._clock.now(),
            reason=reason,
        )
        self._spool.use_sequence(sequence)
        await self._outbox.publish(self._entry(report, "lifecycle"))

    def _lifecycle(
        self, report: LifecycleReport, *, topic: str, done: DoneCommand | None = None, trace: str = ""
    ) -> None:
        entry = self._entry(report, "lifecycle", topic=topic, trace=trace)
        self._spool.put(entry, sequence=report.sequence, done=done)
        self._outbox.wake()

    def _entry(self, report: LifecycleReport, kind: ReportKind, *, topic: str = "", trace: str = "") -> Entry:
        return Entry(
            id=self._identity.message_id(kind, report.sequence),
            subject=self._subjects.report(self._identity.node, kind),
            data=encode(report),
            importance=Importance.LIFECYCLE,
            topic=topic,
            trace=trace,
        )
