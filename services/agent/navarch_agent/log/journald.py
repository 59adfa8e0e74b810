"""The kernel's lines in systemd's journal, for machines where `/dev/kmsg` is not ours to read: `journalctl` as a child.

Facts about journalctl that shaped this file: `--follow` alone begins ten lines before the end, so `--no-tail`; without
`--all` a long field is null; text that is no UTF-8 comes as a list of bytes; with `--output=json` it says nothing of
missing files and exits 0, so we look for ourselves. `--dmesg` is `--boot _TRANSPORT=kernel`, written out here because
journald says in a record of its own how many lines the kernel overwrote before it could read them. Users can write
into the journal, but no field whose name begins with an underscore: `_TRANSPORT` says who spoke.

journald gathers what is new for a quarter of a second before it wakes its readers (0.35 s from the kernel to us, measured
with systemd 252): where both can be read, `/dev/kmsg` is the better log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import structlog

from navarch_agent.log.base import KernelLogUnavailable, KernelRecord
from navarch_agent.log.file import LINE_BYTES_MAX
from navarch_common.clock import Clock

log = structlog.get_logger("navarch.agent.journald")

JOURNALD: Literal["journald"] = "journald"
"""Names the journal where otherwise a path names a kernel log."""
RECORD_BYTES_MAX = 256 << 10
"""A longer record is given up and counted as lost. The kernel's own are below 8 KiB, as a list of bytes below 40."""
_CHUNK_BYTES = 65_536
_MISSED = "e9bf28e6e834481bb6f48f548ad13606"
"""journald's id of the record that tells of lost kernel lines (SD_MESSAGE_JOURNAL_MISSED in sd-messages.h)."""
_MATCHES = ("_TRANSPORT=kernel", "+", "_TRANSPORT=driver", f"MESSAGE_ID={_MISSED}")
_COUNT = re.compile(r"Missed (\d{1,18}) kernel messages")
_CURSOR = re.compile(
    r"s=[0-9a-f]{32};i=(?P<number>[0-9a-f]{1,16});b=[0-9a-f]{32};m=[0-9a-f]{1,16};t=[0-9a-f]{1,16};x=[0-9a-f]{1,16}"
)


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a journal record that we read. A field that a record has twice is a list."""

    cursor: str = msgspec.field(name="__CURSOR")
    transport: Any = msgspec.field(name="_TRANSPORT", default=None)
    boot_id: Any = msgspec.field(name="_BOOT_ID", default="")
    usec: Any = msgspec.field(name="_SOURCE_MONOTONIC_TIMESTAMP", default=None)
    received_usec: Any = msgspec.field(name="__MONOTONIC_TIMESTAMP", default=None)
    identifier: Any = msgspec.field(name="SYSLOG_IDENTIFIER", default=None)
    message_id: Any = msgspec.field(name="MESSAGE_ID", default=None)
    message: Any = msgspec.field(name="MESSAGE", default=None)


_DECODER = msgspec.json.Decoder(_Entry)


class Journald:
    """A `KernelLog` over `journalctl --follow`.

    A journalctl that dies is started again where it stood; one that dies again and again without a word is a log that
    cannot be read. `kernel_boot_id` is the kernel's own id of this boot: records of another are left out (empty:
    journalctl alone sees to it). The rest is as with `Kmsg`.
    """

    BACKOFF_S = (0.25, 0.5, 1.0, 2.0, 4.0)
    LOOK_TIMEOUT_S = 10.0
    KILL_WAIT_S = 1.0

    def __init__(
        self,
        clock: Clock,
        boot_id: str,
        *,
        uptime_s: Callable[[], float],
        kernel_boot_id: str = "",
        command: str = "journalctl",
    ) -> None:
        self._clock = clock
        self._boot_id = boot_id
        self._uptime_s = uptime_s
        self._kernel_boot_id = kernel_boot_id.replace("-", "")
        self._command = command

    async def records(self, place: str = "") -> AsyncGenerator[KernelRecord, None]:
        cursor = _cursor_in(place, self._boot_id)
        booted_at = self._clock.now() - timedelta(seconds=self._uptime_s())
        silent_deaths = lost = 0
        while True:
            await self._look()
            told = False
            async with aclosing(self._lines(cursor)) as lines:
                async for line in lines:
                    entry = None if line is None else _decoded(line)
                    if entry is None:
                        # journalctl's own remarks are no records, and nothing is lost with them.
                        lost += line is None or line.startswith(b"{")
                    elif entry.transport == "driver":
                        lost += _missed(entry)
                    elif self._is_news(entry, cursor):
                        cursor, told = entry.cursor, True
                        yield self._record(entry, booted_at, lost)
                        lost = 0
            silent_deaths = 0 if told else silent_deaths + 1
            if silent_deaths > len(self.BACKOFF_S):
                raise KernelLogUnavailable(f"{self._command} --follow ended {silent_deaths} times without a record")
            in_s = self.BACKOFF_S[max(silent_deaths - 1, 0)]
            log.warning("journalctl ended, starting it again where it stood", in_s=in_s)
            await asyncio.sleep(in_s)

    def _is_news(self, entry: _Entry, cursor: str) -> bool:
        if entry.transport != "kernel" or (self._kernel_boot_id and entry.boot_id != self._kernel_boot_id):
            return False
        # When journald moves records from /run to /var they get another number there, and "after" may mean "from".
        return not cursor or cursor.partition(";b=")[2] != entry.cursor.partition(";b=")[2]

    def _record(self, entry: _Entry, booted_at: datetime, lost: int) -> KernelRecord:
        match = _CURSOR.fullmatch(entry.cursor)
        assert match is not None
        return KernelRecord(
            sequence=int(match["number"], 16),
            at=self._printed_at(entry, booted_at),
            text=_text(entry),
            boot_id=self._boot_id,
            lost=lost,
            place=f"{JOURNALD}/{self._boot_id}/{entry.cursor}",
        )

    def _printed_at(self, entry: _Entry, booted_at: datetime) -> datetime:
        for usec in (entry.usec, entry.received_usec):
            if isinstance(usec, str) and re.fullmatch(r"\d{1,16}", usec):
                return min(booted_at + timedelta(microseconds=int(usec)), self._clock.now())
        return self._clock.now()

    async def _look(self) -> None:
        """Make sure that there is a journal of this boot: an absent one would look like a kernel that says nothing."""
        child = await self._start("--boot", "--lines=1", errors=PIPE)
        try:
            async with asyncio.timeout(self.LOOK_TIMEOUT_S):
                found, complaint = await child.communicate()
        except TimeoutError:
            raise KernelLogUnavailable(f"{self._command} found nothing out in {self.LOOK_TIMEOUT_S:g} s") from None
        finally:
            await self._end(child)
        said = complaint[-1000:].decode("utf-8", "backslashreplace").strip()
        if child.returncode != 0:
            raise KernelLogUnavailable(f"{self._command} ended with {child.returncode}: {said or 'no reason given'}")
        if not found.strip():
            raise KernelLogUnavailable(
                "the journal that we may read holds nothing of this boot: the agent needs to be root or in the group "
                "systemd-journal, and in a container the host's journal and /etc/machine-id"
            )

    async def _lines(self, cursor: str) -> AsyncGenerator[bytes | None, None]:
        """Yield journalctl's lines until it ends; None for one that was too long."""
        after = [f"--after-cursor={cursor}"] if cursor else []
        child = await self._start("--boot", "--all", "--follow", "--no-tail", *after, *_MATCHES, errors=DEVNULL)
        assert child.stdout is not None
        pieces = Pieces(RECORD_BYTES_MAX)
        try:
            while chunk := await child.stdout.read(_CHUNK_BYTES):
                for line in pieces.add(chunk):
                    yield line
        finally:
            await self._end(child)

    async def _start(self, *arguments: str, errors: int) -> Process:
        command = [self._command, "--output=json", "--no-pager", *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            return await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=PIPE, stderr=errors, env=environment
            )
        except OSError as error:
            raise KernelLogUnavailable(f"{self._command} cannot be run: {error.strerror}") from error

    async def _end(self, child: Process) -> None:
        """Kill it where it still lives. One that waits for a disk may outlive that; we don't wait for it."""
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.KILL_WAIT_S):
                await child.wait()


class Pieces:
    """Puts lines together from what a pipe yields, in bounded memory."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.rest = b""
        """The beginning of a line whose newline is not there yet, as far as it is kept."""

    def add(self, chunk: bytes) -> list[bytes | None]:
        """Return the lines that end in `chunk`; None for each that is longer than the bound."""
        *complete, rest = (self.rest + chunk).split(b"\n")
        self.rest = rest[: self._bytes_max + 1]  # one more than is allowed: what was cut stays too long
        return [line if len(line) <= self._bytes_max else None for line in complete]


def _cursor_in(place: str, boot_id: str) -> str:
    """The cursor in a place of ours in this boot; empty for any other."""
    cursor = place.removeprefix(f"{JOURNALD}/{boot_id}/")
    return cursor if _CURSOR.fullmatch(cursor) else ""


def _decoded(line: bytes) -> _Entry | None:
    try:
        entry = _DECODER.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    return entry if _CURSOR.fullmatch(entry.cursor) else None


def _missed(entry: _Entry) -> int:
    match = _COUNT.match(_plain(entry.message)) if entry.message_id == _MISSED else None
    return int(match[1]) if match else 0


def _text(entry: _Entry) -> str:
    """The line as the kernel's log has it: what a process wrote into that log keeps the process's name."""
    text, identifier = _plain(entry.message), _plain(entry.identifier)
    if identifier not in ("", "kernel"):
        text = f"{identifier}: {text}"
    return text[:LINE_BYTES_MAX]


def _plain(value: Any) -> str:
    """A field's text: a string, or a list of bytes; of a field that comes twice, the first."""
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, list):
        try:
            return bytes(value).decode("utf-8", "backslashreplace")
        except (TypeError, ValueError):
            return ""
    return value if isinstance(value, str) else ""
