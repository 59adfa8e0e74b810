"""Machines that run beside us go with us: a clean stop powers them off, the next start boots them again.

The condition that is kept: a node whose machine we power off carries `powered_off` in its record before, so that whoever
reads the record never takes its silence for a failure. A launch in the air carries it too: whether a machine came of it is
looked up at the next start, when none can come of it any more. The provisioner's plan boots what is off, and takes the
mark away. What runs is asked of the providers, not of the records: a stop leaves no process, whatever was under way.
After a kill nothing was marked and nothing was powered off: those machines live on and are adopted.
"""

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime

import structlog

from navarch_common.model.node import NODE, NodeRecord, Phase
from navarch_common.run import Deps
from navarch_common.store.base import Commit, Conflict, Stored
from navarch_provisioner import lifecycle
from navarch_provisioner.cloud.base import CloudError, HostedHere
from navarch_provisioner.cloud.registry import Providers
from navarch_provisioner.news import Why

_PER_COMMIT = 100
_LOOKS = 3
"""A service that is slow to stop may still write; by then it has."""
RUNNING = frozenset({Phase.BOOTING, Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING, Phase.REPAIRING, Phase.QUARANTINED})
"""Phases in which a machine runs and is meant to be there tomorrow. Those on their way out are ended by the next start."""
_WHY = Why(
    "powered-off", "the control plane stops in good order and powers off the machines that run beside it; its next start boots them"
)  # fmt: skip

Marked = tuple[Stored[NodeRecord], NodeRecord]
"""A node as it was read, and as it is to be written."""

log = structlog.get_logger(__name__)


def to_power_off(nodes: Sequence[Stored[NodeRecord]], hosted_here: Collection[str], now: datetime) -> list[Marked]:
    """The nodes whose machines go with us, with the record that says so. `hosted_here` names providers."""
    return [
        (stored, lifecycle.powered_off(stored.record, _WHY, now))
        for stored in nodes
        if not stored.record.powered_off and _runs_at(stored.record) in hosted_here
    ]


def _runs_at(record: NodeRecord) -> str | None:
    """The provider at which a node has, or may have, a machine that is wanted."""
    if record.phase in RUNNING and record.instance is not None:
        return record.instance.provider
    if record.phase in lifecycle.UNPROVEN:
        return lifecycle.require_launch(record).request.provider
    return None


async def power_off(deps: Deps, providers: Providers) -> int:
    """Marks the nodes whose machines run on this computer, then powers those machines off; returns how many nodes.

    `deps` are the provisioner's, which owns the records, and whose service has ended. Raises `StoreError`, and
    `CloudError` where a provider could not do it; others have.
    """
    hosted = providers.hosted_here
    marked = await _mark(deps, hosted.keys())
    done = await asyncio.gather(*(_shut_down(each, deps.cluster) for each in hosted.values()), return_exceptions=True)
    for error in done:
        if isinstance(error, BaseException):
            raise error
    return marked


async def _mark(deps: Deps, hosted_here: Collection[str]) -> int:
    """Commits the marks, until there is nothing to mark. Raises `Conflict` where others go on changing what we mark."""
    count = 0
    for look in range(_LOOKS):
        nodes = to_power_off(await deps.store.records(NODE), hosted_here, deps.clock.now())
        try:
            for start in range(0, len(nodes), _PER_COMMIT):
                await _put(deps, nodes[start : start + _PER_COMMIT])
                count += len(nodes[start : start + _PER_COMMIT])
        except Conflict as conflict:
            log.warning("a node changed while its machine was to be powered off", conflict=str(conflict))
            if look == _LOOKS - 1:
                raise
        else:
            break
    return count


async def _put(deps: Deps, nodes: Sequence[Marked]) -> None:
    await deps.committer.commit(
        Commit(
            expect={stored.key: stored.revision for stored, _ in nodes},
            put={stored.key: record for stored, record in nodes},
        )
    )


async def _shut_down(providers: Sequence[HostedHere], cluster: str) -> None:
    """The machines of one entry of the configuration, and of what it said before."""
    errors: list[CloudError] = []
    for provider in reversed(providers):
        try:
            await provider.shut_down(cluster)
        except CloudError as error:
            errors.append(error)
    if errors:
        raise errors[0]
