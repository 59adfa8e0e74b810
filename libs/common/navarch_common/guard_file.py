"""The file in which each process keeps the guards, so that a freeze outlives the store and the bus together."""

import asyncio
import os
from pathlib import Path
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

FILE_NAME = "guards.json"


class GuardFile(Protocol):
    """One small file. What cannot be read or written is logged: it is the third of three places."""

    async def read(self) -> bytes | None:
        """What it holds; None where there is none, or it cannot be read."""
        ...

    async def write(self, data: bytes) -> None:
        """Whole or not at all."""
        ...


class NoGuardFile:
    """For a process without a data directory."""

    async def read(self) -> bytes | None:
        return None

    async def write(self, data: bytes) -> None:
        """Nowhere to write to."""


class MemoryGuardFile:
    """A file that outlives the copies it is given to."""

    def __init__(self) -> None:
        self.data: bytes | None = None

    async def read(self) -> bytes | None:
        return self.data

    async def write(self, data: bytes) -> None:
        self.data = data


class DiskGuardFile:
    """`DATA_DIR/guards.json`. The services of one machine share it: each replaces it whole."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / FILE_NAME

    async def read(self) -> bytes | None:
        try:
            return await asyncio.to_thread(self._file.read_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("the file of guards cannot be read", file=str(self._file), error=str(error))
            return None

    async def write(self, data: bytes) -> None:
        try:
            await asyncio.to_thread(self._replace, data)
        except OSError as error:
            log.warning("the file of guards cannot be written", file=str(self._file), error=str(error))

    def _replace(self, data: bytes) -> None:
        """On the disk before it takes the old one's place: a power cut leaves one of the two."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        half = self._file.with_name(f".{FILE_NAME}.{os.getpid()}")
        with half.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        half.replace(self._file)
