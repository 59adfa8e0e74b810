"""How the control plane itself is: who holds what, what waits where, what is in force. Read now and then, shown from there."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version

import structlog

from navarch_api import types as t
from navarch_common.bus.base import BusError
from navarch_common.model.cluster import META, SafeMode
from navarch_common.run import Deps
from navarch_common.store.base import Lease, StoreError
from navarch_gateway import views
from navarch_gateway.known import Known, standing

log = structlog.get_logger(__name__)

READ_TIMEOUT_S = 3.0
CONSUMERS = ("health", "provisioner")
"""Durable consumers of the reports' stream."""

ServicesStatus = Callable[[], Mapping[str, Mapping[str, object]]]
"""What each service in this process says of itself: its `status()` by its name."""


@dataclass(frozen=True, slots=True)
class Backstage:
    """What lies behind the records that people ask for."""

    as_of: datetime
    generation: int = 0
    outbox_events: int | None = None
    backlog: tuple[t.Backlog, ...] = ()
    safe_mode: SafeMode | None = None
    leases: tuple[Lease, ...] = ()
    warnings: tuple[str, ...] = ()


async def look(deps: Deps, before: Backstage | None, warnings: tuple[str, ...]) -> Backstage:
    """Looks behind the scenes. What does not answer keeps its old value, where that is about the store, or is unknown."""
    found = replace(before, as_of=deps.clock.now()) if before else Backstage(as_of=deps.clock.now())
    found = replace(found, generation=deps.config.current.generation, warnings=warnings)
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            meta = await deps.store.get(META.key())
            found = replace(
                found,
                outbox_events=await deps.store.outbox_length(),
                leases=tuple(await deps.store.leases()),
                safe_mode=meta.record.safe_mode if meta else None,
            )
    except (StoreError, TimeoutError) as error:
        log.warning("the store could not be asked", error=str(error))
    return replace(found, backlog=await _backlog(deps))


async def _backlog(deps: Deps) -> tuple[t.Backlog, ...]:
    stream = deps.subjects.stream("REPORTS")
    found: list[t.Backlog] = []
    for consumer in CONSUMERS:
        pending: int | None = None
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                pending = await deps.bus.pending(stream, consumer)
        except (BusError, TimeoutError) as error:
            log.debug("a consumer could not be asked", consumer=consumer, error=str(error))
        found.append(t.Backlog(stream=stream, consumer=consumer, pending=pending))
    return tuple(found)


def cluster_status(
    deps: Deps, known: Known | None, behind: Backstage, services: Mapping[str, Mapping[str, object]], *, ready: bool
) -> t.ClusterStatus:
    now = deps.clock.now()
    guards = standing((stored.record for stored in known.guards.values()), now) if known else []
    safe = behind.safe_mode
    return t.ClusterStatus(
        cluster=deps.cluster,
        installation=deps.installation,
        version=version("navarch-gateway"),
        instance=deps.instance,
        ready=ready,
        config_generation=behind.generation,
        bus_connected=deps.bus.status.connected,
        bus_disconnects=deps.bus.status.disconnects,
        outbox_events=behind.outbox_events,
        safe_mode=t.SafeMode(since=safe.since, code=safe.code, reason=safe.reason) if safe else None,
        guards=tuple(views.guard_view(guard) for guard in guards),
        leases=tuple(
            t.LeaseView(name=held.name, owner=held.owner, expires_at=held.expires_at) for held in behind.leases
        ),
        copies=_copies(deps, behind),
        backlog=behind.backlog,
        services={name: dict(said) for name, said in services.items()},
        warnings=behind.warnings,
        as_of=known.as_of if known else behind.as_of,
    )


def _copies(deps: Deps, behind: Backstage) -> dict[str, tuple[str, ...]]:
    """Copies that hold a lease, and this one."""
    copies: dict[str, set[str]] = {"gateway": {deps.instance}}
    for held in behind.leases:
        copies.setdefault(held.name.partition("/")[0], set()).add(held.owner)
    return {service: tuple(sorted(owners)) for service, owners in sorted(copies.items())}
