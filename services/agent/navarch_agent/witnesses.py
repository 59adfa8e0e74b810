"""Which witness told of a fault, so that what two of them saw is told once. Pure.

The kernel's log and the driver's tracepoints tell of the same Xids and SXids. One sighting of the one cancels one of
the other, so that a third fault which only one of them saw is still told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from datetime import datetime, timedelta

from navarch_common.xid import KernelFault

KERNEL_LOG = "kernel-log"
TRACEPOINT = "tracepoint"


class Witnesses:
    """Remembers what was told in the last seconds, within bounds."""

    WINDOW = timedelta(seconds=5)
    """Both witnesses date by the kernel's clock; a log in a file is dated when it is read."""
    KEYS_MAX = 256
    SIGHTINGS_MAX = 64

    def __init__(self) -> None:
        self._told: dict[Hashable, deque[tuple[datetime, str]]] = {}

    def is_news(self, fault: KernelFault, at: datetime, source: str) -> bool:
        """Take note of what `source` saw. False where another told of it already."""
        if fault.code is None:
            return True
        # The driver's new verdict on a GPU is another fact than its last one. What else a line says is no part of the
        # key: the tracepoint names no GPU instance.
        key = (fault.kind, fault.code, fault.pci, fault.recovery_action)
        told = self._told.pop(key, None) or deque(maxlen=self.SIGHTINGS_MAX)
        same = next((one for one in told if one[1] != source and abs(at - one[0]) <= self.WINDOW), None)
        if same is None:
            told.append((at, source))
        else:
            told.remove(same)
        while len(self._told) >= self.KEYS_MAX:
            self._told.pop(next(iter(self._told)))
        self._told[key] = told
        return same is None
