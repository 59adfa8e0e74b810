"""An append-only file of checksummed lines that survives kill -9, torn writes and power loss.

A line is `CRC32 JSON`. What was torn is left out when the file is read, and counted. Opening rewrites the file with
what is still needed, so that it always ends in a whole line.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from navarch_common.errors import NavarchError


class JournalHeld(NavarchError):
    """Another process has the directory's journal open."""


class Journal:
    """The file `journal` in a directory of its own. One process at a time holds it, by a lock on `lock`.

    Raises `JournalHeld`, and OSError where the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = directory / "journal"
        self._directory = directory
        self._lock = _locked(directory / "lock")
        self._fd = -1
        self.damaged = 0
        """Lines that could not be read back."""
        self.size = 0

    def read(self) -> Iterator[bytes]:
        """Yield every whole line's JSON, oldest first."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return
        for line in raw.split(b"\n"):
            payload = line[9:]
            if line[:9] == _checksum(payload) + b" ":
                yield payload
            elif line:
                self.damaged += 1

    def rewrite(self, payloads: Iterable[bytes]) -> None:
        """Replace the file's content in one step: a crash leaves the old or the new, whole."""
        fresh = self._path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            raw = b"".join(map(_line, payloads))
            _write_all(fd, raw)
            os.fsync(fd)
            fresh.replace(self._path)
            self._sync_directory()
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.size = fd, len(raw)

    def append(self, payload: bytes) -> None:
        """Hand one line to the kernel: from here on it survives this process. Raises OSError (a full disk)."""
        line = _line(payload)
        _write_all(self._fd, line)
        self.size += len(line)

    async def sync(self) -> None:
        """Return when all that was appended survives a power loss too. A slow disk stops nothing else."""
        fd = os.dup(self._fd)
        try:
            await asyncio.to_thread(os.fsync, fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go. May be called twice."""
        for fd in (self._fd, self._lock):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fd = self._lock = -1

    def _sync_directory(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _checksum(payload: bytes) -> bytes:
    return b"%08x" % zlib.crc32(payload)


def _line(payload: bytes) -> bytes:
    # The newline before the line ends whatever a failed write left half-written.
    return b"\n" + _checksum(payload) + b" " + payload + b"\n"


def _write_all(fd: int, raw: bytes) -> None:
    view = memoryview(raw)
    while view:
        view = view[os.write(fd, view) :]


def _locked(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise JournalHeld(
            f"another agent already works in {path.parent}: stop it, or use another --data-dir"
        ) from error
    return fd
