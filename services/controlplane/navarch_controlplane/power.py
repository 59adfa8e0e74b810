"""Machines that run beside us go with us: a clean stop powers them off, the next start boots them again.

The condition that is kept: a machine that we powered off carries `powered_off` in its record before it goes, so that
whoever reads the record never takes its silence for a failure. The provisioner's plan boots it, and takes the mark away.
After a kill nothing was marked and nothing was powered off: those machines live on and are adopted.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import structlog
from msgspec import structs

from navarch_common.config import Config
from navarch_common.config.providers import FakeProvider, LocalProvider
from navarch_common.model.base import Reason, with_reason
from navarch_common.model.node import NODE, NodeRecord, Phase
from navarch_common.run import Deps
from navarch_common.store.base import Commit, Conflict, Stored
from navarch_provisioner.bootstrap import tags_of
from navarch_provisioner.cloud.base import CloudError
from navarch_provisioner.cloud.registry import Providers

_AT_ONCE = 64
"""Calls under way at once."""
_PER_COMMIT = 100
RUNNING = frozenset({Phase.BOOTING, Phase.VALIDATING, Phase.ACTIVE, Phase.DRAINING, Phase.REPAIRING, Phase.QUARANTINED})
"""Phases in which a machine runs and is meant to be there tomorrow."""
_WHY = "the control plane stops in good order and powers off the machines that run beside it; its next start boots them"

Marked = tuple[Stored[NodeRecord], NodeRecord]
"""A node as it was read, and as it is to be written."""

log = structlog.get_logger(__name__)


def hosted_here(config: Config) -> frozenset[str]:
    """Names of the providers whose machines run on this computer."""
    return frozenset(
        name
        for name, provider in config.providers.items()
        if isinstance(provider, LocalProvider) or (isinstance(provider, FakeProvider) and provider.url is None)
    )


def to_power_off(nodes: Sequence[Stored[NodeRecord]], config: Config, now: datetime) -> list[Marked]:
    """The nodes whose machines go with us, with the record that says so."""
    names = hosted_here(config)
    return [
        (stored, _marked(stored.record, now))
        for stored in nodes
        if stored.record.phase in RUNNING
        and not stored.record.powered_off
        and stored.record.instance is not None
        and stored.record.instance.provider in names
    ]


def _marked(record: NodeRecord, now: datetime) -> NodeRecord:
    why = Reason(at=now, code="powered-off", text=_WHY, actor="provisioner")
    return structs.replace(record, powered_off=True, reasons=with_reason(record.reasons, why))


async def power_off(deps: Deps, providers: Providers) -> int:
    """Marks the machines that run on this computer, then powers them off; returns how many went.

    `deps` are the provisioner's, which owns the records, and whose service has ended. Raises `StoreError`.
    """
    nodes = await deps.store.records(NODE)
    marked = await _mark(deps, to_power_off(nodes, deps.config.current.config, deps.clock.now()))
    slots = asyncio.Semaphore(_AT_ONCE)
    return sum(await asyncio.gather(*(_switch(deps, providers, record, slots) for record in marked)))


async def _mark(deps: Deps, nodes: Sequence[Marked]) -> list[NodeRecord]:
    """Commits the marks; returns the nodes that have one. A node that somebody changed meanwhile is left running."""
    done: list[NodeRecord] = []
    for start in range(0, len(nodes), _PER_COMMIT):
        chunk = nodes[start : start + _PER_COMMIT]
        if await _put(deps, chunk):
            done.extend(record for _, record in chunk)
        else:
            done.extend([record for stored, record in chunk if await _put(deps, [(stored, record)])])
    return done


async def _put(deps: Deps, nodes: Sequence[Marked]) -> bool:
    try:
        await deps.committer.commit(
            Commit(
                expect={stored.key: stored.revision for stored, _ in nodes},
                put={stored.key: record for stored, record in nodes},
            )
        )
    except Conflict as conflict:
        log.warning("a node changed while its machine was to be powered off", conflict=str(conflict), nodes=len(nodes))
        return False
    return True


async def _switch(deps: Deps, providers: Providers, record: NodeRecord, slots: asyncio.Semaphore) -> bool:
    assert record.instance is not None
    provider = providers.get(record.instance.provider)
    if provider is None:
        return False
    async with slots:
        try:
            await provider.power_off(record.instance.instance_id, tags_of(record, deps.cluster, deps.installation))
        except CloudError as error:
            log.warning("machine not powered off", node=record.node, code=error.code, error=str(error))
            return False
    return True
