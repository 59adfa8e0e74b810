"""What the provisioner says to a workload scheduler, and what it asks.

What it promises, and every adapter keeps: each call may be made again and changes nothing then; `is_drained` answers
True only on proof. The provisioner tells again after every restart, so an adapter need not remember.
"""

from typing import Protocol

from navarch_common.errors import NavarchError
from navarch_common.model.node import NodeRecord
from navarch_provisioner.view import Work


class SchedulerUnavailable(NavarchError):
    """The scheduler does not answer, or refuses: told again later. No machine waits for it longer than its deadline."""


class WorkloadNotifier(Protocol):
    """One scheduler."""

    async def cordon(self, node: NodeRecord, reason: str) -> None:
        """No new work there. Raises `SchedulerUnavailable`."""
        ...

    async def uncordon(self, node: NodeRecord) -> None: ...

    async def drain(self, node: NodeRecord, reason: str) -> None:
        """The work there must go."""
        ...

    async def is_drained(self, node: NodeRecord, heard: Work) -> bool | None:
        """Whether no work is left; None where that is not known. `heard` is what the node's own heartbeats say."""
        ...

    async def close(self) -> None: ...
