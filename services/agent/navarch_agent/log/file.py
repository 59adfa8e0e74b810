"""A kernel log in a plain file: what a simulated machine's kernel prints, or what a syslog daemon writes.

inotify wakes the reader within a millisecond; once a second it also looks at size and inode, for what inotify does not
tell: a truncated or replaced file, an overflowing watch queue, a filesystem without inotify. A line counts once its
newline is there. Where reading stands is known by inode, offset and the bytes before it, because inode numbers are used
again at once and a file may be rewritten in place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import NamedTuple

import inotify_simple

from navarch_agent.log.base import KernelLogUnavailable, KernelRecord
from navarch_common.clock import Clock

LINE_BYTES_MAX = 8192 + 64
"""What is kept of a longer line: enough for its parser to see that it is too long."""
_CHUNK_BYTES = 65_536
_WITNESS_BYTES = 32
_PLACE = re.compile(r"(?P<inode>\d{1,20})/(?P<offset>\d{1,18})/(?P<base>\d{1,18})/(?P<witness>(?:[0-9a-f]{2}){0,32})")
_EVENTS = (
    inotify_simple.flags.MODIFY
    | inotify_simple.flags.ATTRIB
    | inotify_simple.flags.MOVE_SELF
    | inotify_simple.flags.DELETE_SELF
)


class FileKernelLog:
    """A `KernelLog` over the file at `path`, which may come later.

    All that it holds counts as printed in this boot, but for what lies before the place that reading resumes from: a
    place of an earlier boot is where this one begins.
    """

    def __init__(self, clock: Clock, boot_id: str, path: Path, *, sweep_s: float = 1.0) -> None:
        self._clock = clock
        self._boot_id = boot_id
        self._path = path
        self._sweep_s = sweep_s

    async def records(self, place: str = "") -> AsyncGenerator[KernelRecord, None]:
        with contextlib.closing(_Watch()) as watch, contextlib.closing(_Tail(self._path, place)) as tail:
            while True:
                watch.follow(self._path)
                for line in tail.lines():
                    yield KernelRecord(
                        sequence=line.sequence,
                        at=self._clock.now(),
                        text=line.text,
                        boot_id=self._boot_id,
                        place=line.place,
                    )
                await watch.wait(self._sweep_s)


class _Line(NamedTuple):
    text: str
    sequence: int
    place: str


class _Tail:
    """Reads complete lines of a file that grows, is truncated, or is replaced.

    A line's sequence is the count of bytes before it, those of truncated and replaced files included.
    """

    def __init__(self, path: Path, place: str) -> None:
        self._path = path
        self._place = place
        self._fd: int | None = None
        self._inode = 0
        self._base = 0  # bytes of files before this one
        self._offset = 0  # of the first byte that was not read
        self._witness = b""  # the bytes before it
        self._line = b""  # the beginning of a line whose newline is not there yet

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def lines(self) -> Iterator[_Line]:
        """Yield every line that is complete by now and was not yielded before."""
        while self._fd is not None or self._open():
            yield from self._read_on()
            if not self._replaced():
                return
            self.close()
            self._start_over()

    def _open(self) -> bool:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise KernelLogUnavailable(f"the kernel log {self._path} cannot be opened: {error.strerror}") from error
        self._inode = os.fstat(self._fd).st_ino
        if match := _PLACE.fullmatch(self._place):
            self._offset, self._base = int(match["offset"]), int(match["base"])
            self._witness = bytes.fromhex(match["witness"])
            if int(match["inode"]) != self._inode:
                self._start_over()
        self._place = ""
        return True

    def _start_over(self) -> None:
        self._base += self._offset
        self._offset = 0
        self._line = self._witness = b""

    def _read_on(self) -> Iterator[_Line]:
        while chunk := self._chunk():
            *complete, rest = chunk.split(b"\n")
            for part in complete:
                sequence = self._base + self._offset - len(self._line)
                text = self._take(part + b"\n")
                self._line = b""
                yield _Line(text, sequence, f"{self._inode}/{self._offset}/{self._base}/{self._witness.hex()}")
            self._take(rest)

    def _chunk(self) -> bytes:
        assert self._fd is not None
        try:
            if self._rewritten(self._fd):
                self._start_over()
            return os.pread(self._fd, _CHUNK_BYTES, self._offset)
        except OSError as error:
            raise KernelLogUnavailable(f"the kernel log {self._path} cannot be read: {error.strerror}") from error

    def _take(self, part: bytes) -> str:
        """Move on by `part`, and return the line as far as it is known."""
        self._offset += len(part)
        self._witness = (self._witness + part)[-_WITNESS_BYTES:]
        self._line = (self._line + part)[:LINE_BYTES_MAX]
        return self._line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")

    def _rewritten(self, fd: int) -> bool:
        """Tell whether the file is shorter than what was read, or holds other bytes there."""
        before = len(self._witness)
        return before > 0 and os.pread(fd, before, self._offset - before) != self._witness

    def _replaced(self) -> bool:
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return False


class _Watch:
    """Wakes when a file changes; where the machine has no inotify to give, the sweep alone must do."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._watching = -1
        self._inotify: inotify_simple.INotify | None
        try:
            self._inotify = inotify_simple.INotify(nonblocking=True)
        except OSError:
            self._inotify = None
        else:
            asyncio.get_running_loop().add_reader(self._inotify.fileno(), self._drain)

    def follow(self, path: Path) -> None:
        """Watch whatever `path` names now. What changes from here on wakes the next `wait`."""
        self._changed.clear()
        if self._inotify is None:
            return
        with contextlib.suppress(OSError):  # not there yet, or no watch left to give: the sweep will see it
            watching = self._inotify.add_watch(path, _EVENTS)
            if self._watching not in (-1, watching):
                with contextlib.suppress(OSError):
                    self._inotify.rm_watch(self._watching)
            self._watching = watching

    async def wait(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    def close(self) -> None:
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fileno())
            self._inotify.close()

    def _drain(self) -> None:
        assert self._inotify is not None
        self._inotify.read(timeout=0)
        self._changed.set()
