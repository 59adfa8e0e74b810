"""What the agent asks of a kernel log: every record once, in order, with a place to resume from and losses counted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Protocol

import msgspec

from navarch_common.errors import NavarchError


class KernelLogUnavailable(NavarchError):
    """The log cannot be read: it is missing, or not ours to read. What it would have told is unknown, not fine."""


class KernelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record that the kernel printed in this boot."""

    sequence: int
    """Rises within a boot: the kernel's own number, or how many bytes lie before the line."""
    at: datetime
    """When the kernel printed it, where the log tells; else when it was read."""
    text: str
    """The message, without its newline, at most 8 KiB and a marker. Prefixes that a file's lines carry are left on."""
    boot_id: str
    lost: int = 0
    """Records between this one and the one before that were overwritten before we could read them."""
    place: str
    """Give it back as `place` when the log is opened again, and reading goes on after this record."""


class KernelLog(Protocol):
    """The log of one machine. Read by one reader at a time."""

    def records(self, place: str = "") -> AsyncGenerator[KernelRecord, None]:
        """Yield what came after `place` (from the beginning of this boot where it is empty), then wait for more.

        A place that the log no longer knows means the beginning of what it holds of this boot. Never ends by itself.
        Raises `KernelLogUnavailable`; asking again later may do better. Close the generator (`aclosing`) when done.
        """
        ...
