"""No scheduler: nobody is told, and a node is drained when its own heartbeats say that no process holds any GPU."""

from navarch_common.model.node import NodeRecord
from navarch_provisioner.view import Work


class NoopNotifier:
    """For pools whose work Navarch knows only by what runs on the GPUs."""

    async def cordon(self, node: NodeRecord, reason: str) -> None:
        """Nobody is told: the cordon stands in the record, where whoever places work can read it."""

    async def uncordon(self, node: NodeRecord) -> None:
        """Nobody is told."""

    async def drain(self, node: NodeRecord, reason: str) -> None:
        """Nobody is told."""

    async def is_drained(self, node: NodeRecord, heard: Work) -> bool | None:  # noqa: ARG002 - the port's signature
        return heard.idle

    async def close(self) -> None:
        """Nothing is open."""
