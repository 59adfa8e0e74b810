"""Who an agent is, and the names that follow from it: on every message, in every message id."""

from __future__ import annotations

from typing import Literal

import msgspec

ReportKind = Literal["health", "lifecycle"]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One boot of one generation of one node."""

    node: str
    pool: str
    generation: int
    boot_id: str

    def message_id(self, kind: ReportKind, sequence: int) -> str:
        """Name a report for ever: published again under the same id it is stored once."""
        return f"{self.node}-{self.generation}-{self.boot_id}-{kind}-{sequence}"
