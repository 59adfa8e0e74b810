"""What must not be lost between two starts of an agent: reports until the bus has them, and where the agent stands.

Beside the reports it keeps the sequence of this boot, the place in the kernel's log, and which commands are done. A
report and what it rests on (its sequence, its place, its command) are one line of the journal: after a crash either
all of it happened or nothing. Without a journal it is the same thing in memory, for simulated fleets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
import structlog

from navarch_agent.journal import Journal

log = structlog.get_logger("navarch.agent.spool")


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One report that waits for its acknowledgement."""

    id: str
    """Its message id: published again under the same id it is stored once."""
    subject: str
    data: bytes
    importance: int = 0
    topic: str = ""
    """A newer report on the same topic makes this one pointless; empty: none does."""
    trace: str = ""


class DoneCommand(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command that must not be done twice, and what came of it."""

    id: str
    outcome: Literal["done", "failed", "refused", "expired"]
    text: str = ""


class _Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the journal: all of it is true, or none."""

    boot_id: str | None = None
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    place: str | None = None
    put: Entry | None = None
    done: DoneCommand | None = None
    acknowledged: str | None = None
    dropped: int | None = None


class Spool:
    """Reports in the order in which they were made, bounded in count and bytes.

    When it is full the oldest of the least important goes, and is counted. A disk that refuses a write is logged and
    counted, and the report lives on in memory: it may still be published.
    """

    ENTRIES_MAX = 4096
    BYTES_MAX = 16 << 20
    DONE_MAX = 1024
    _COMPACT_BYTES = 1 << 20

    def __init__(self, boot_id: str, journal: Journal | None = None, *, first_sequence: int = 1) -> None:
        """Take up what `journal` holds. A boot that it doesn't know counts its reports from `first_sequence`."""
        self._journal = journal
        self._entries: dict[str, Entry] = {}
        self._bytes = 0
        self._done: dict[str, DoneCommand] = {}
        self._boot_id = ""
        self._sequence = 0
        self.place = ""
        """Where reading the kernel's log goes on."""
        self.dropped = 0
        """Reports that were given up because the spool was full."""
        self.write_failures = 0
        if journal is not None:
            for payload in journal.read():
                self._replay(payload)
        if self._boot_id != boot_id:
            self._boot_id, self._sequence = boot_id, max(first_sequence - 1, 0)
        if journal is not None:
            self._compact()

    @property
    def count(self) -> int:
        """How many reports wait."""
        return len(self._entries)

    @property
    def durable(self) -> bool:
        return self._journal is not None

    @property
    def last_sequence(self) -> int:
        return self._sequence

    def put(self, entry: Entry, *, sequence: int, place: str | None = None, done: DoneCommand | None = None) -> None:
        """Keep `entry` until it is acknowledged, and note in the same step what it rests on."""
        self._take(_Line(sequence=sequence, place=place, put=entry, done=done))
        self._make_room()

    def acknowledge(self, entry_id: str) -> None:
        """Forget a report: the bus has it. Unknown ids are ignored."""
        if entry_id in self._entries:
            self._take(_Line(acknowledged=entry_id))

    def note_place(self, place: str) -> None:
        """Move on in the kernel's log without a report."""
        if place != self.place:
            self._take(_Line(place=place))

    def use_sequence(self, sequence: int) -> None:
        """Note that a report which is not kept here took this number, so that the next start does not use it again."""
        self._take(_Line(sequence=sequence))

    def done(self, command_id: str) -> DoneCommand | None:
        """Return what came of a command that was done before."""
        return self._done.get(command_id)

    def waiting(self) -> list[Entry]:
        """Return what is to be published: the most important first, of these the oldest."""
        return sorted(self._entries.values(), key=lambda entry: -entry.importance)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._entries

    async def sync(self) -> None:
        """Return when all of it survives a power loss."""
        if self._journal is not None:
            try:
                await self._journal.sync()
            except OSError as error:
                self._failed(error)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _take(self, line: _Line) -> None:
        self._apply(line)
        if self._journal is None:
            return
        try:
            self._journal.append(msgspec.json.encode(line))
            if self._journal.size > self._COMPACT_BYTES + 3 * self._bytes:
                self._compact()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.write_failures += 1
        log.warning(
            "spool not written: reports are kept in memory only", error=str(error), failures=self.write_failures
        )

    def _replay(self, payload: bytes) -> None:
        try:
            self._apply(msgspec.json.decode(payload, type=_Line))
        except msgspec.DecodeError as error:
            # A later release may have written what this one doesn't know: keep the rest.
            log.warning("spool line not understood, left out", error=str(error))

    def _apply(self, line: _Line) -> None:
        if line.boot_id is not None:
            self._boot_id = line.boot_id
        if line.sequence is not None:
            self._sequence = max(line.sequence, self._sequence)
        if line.place is not None:
            self.place = line.place
        if line.dropped is not None:
            self.dropped = line.dropped
        if line.put is not None:
            if line.put.topic:
                for old in [entry.id for entry in self._entries.values() if entry.topic == line.put.topic]:
                    self._forget(old)
            self._forget(line.put.id)
            self._entries[line.put.id] = line.put
            self._bytes += len(line.put.data)
        if line.done is not None:
            self._done[line.done.id] = line.done
            while len(self._done) > self.DONE_MAX:
                self._done.pop(next(iter(self._done)))
        if line.acknowledged is not None:
            self._forget(line.acknowledged)

    def _forget(self, entry_id: str) -> None:
        if entry := self._entries.pop(entry_id, None):
            self._bytes -= len(entry.data)

    def _make_room(self) -> None:
        while len(self._entries) > self.ENTRIES_MAX or (self._bytes > self.BYTES_MAX and len(self._entries) > 1):
            victim = min(self._entries.values(), key=lambda entry: entry.importance)
            self._take(_Line(acknowledged=victim.id, dropped=self.dropped + 1))

    def _compact(self) -> None:
        assert self._journal is not None
        self._journal.rewrite(msgspec.json.encode(line) for line in self._lines())

    def _lines(self) -> Iterator[_Line]:
        yield _Line(boot_id=self._boot_id, sequence=self._sequence, place=self.place, dropped=self.dropped)
        for done in self._done.values():
            yield _Line(done=done)
        for entry in self._entries.values():
            yield _Line(put=entry)
