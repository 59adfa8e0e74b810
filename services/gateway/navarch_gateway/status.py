"""How the control plane itself is: who holds what, what waits where, what is in force. Read now and then, shown from there."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version

import structlog
from msgspec import structs

from navarch_api import types as t
from navarch_common.bus.base import BusError
from navarch_common.copies import CopyReport, living
from navarch_common.model.cluster import META, SafeMode
from navarch_common.model.leak import LEAK, LeakRecord
from navarch_common.model.node import ENDED, NODE
from navarch_common.run import Deps
from navarch_common.store.base import Lease, StoreError
from navarch_common.store.meta import heard_since
from navarch_gateway import leaks, views
from navarch_gateway.known import Known
from navarch_gateway.proposal import held_text

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
    outbox_oldest_s: float | None = None
    backlog: tuple[t.Backlog, ...] = ()
    safe_mode: t.SafeMode | None = None
    leaks: tuple[LeakRecord, ...] | None = None
    """None: not known."""
    leases: tuple[Lease, ...] = ()
    copies: tuple[CopyReport, ...] = ()
    warnings: tuple[str, ...] = ()


async def look(deps: Deps, before: Backstage | None, warnings: tuple[str, ...]) -> Backstage:
    """Looks behind the scenes. What does not answer keeps its old value, where that is about the store, or is unknown."""
    found = replace(before, as_of=deps.clock.now()) if before else Backstage(as_of=deps.clock.now())
    found = replace(found, generation=deps.config.current.generation, warnings=warnings)
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            meta = await deps.store.get(META.key())
            oldest = await deps.store.outbox(limit=1)
            found = replace(
                found,
                outbox_events=await deps.store.outbox_length(),
                outbox_oldest_s=round(oldest[0].age_s, 3) if oldest else None,
                copies=tuple(await living(deps.store)),
                leases=tuple(await deps.store.leases()),
                safe_mode=await _safe_mode(deps, meta.record.safe_mode) if meta else None,
                leaks=tuple(stored.record for stored in await deps.store.records(LEAK)),
            )
    except (StoreError, TimeoutError) as error:
        log.warning("the store could not be asked", error=str(error))
    return replace(found, backlog=await _backlog(deps))


async def _safe_mode(deps: Deps, safe: SafeMode | None) -> t.SafeMode | None:
    if safe is None:
        return None
    nodes = [stored.record for stored in await deps.store.records(NODE)]
    expected = [node for node in nodes if node.instance is not None and node.phase not in ENDED]
    beats = await deps.store.beats([node.node for node in expected])
    unheard = (
        node.node
        for node, beat in zip(expected, beats, strict=True)
        if not heard_since(node, beat, safe.since)
    )  # fmt: skip
    return t.SafeMode(since=safe.since, code=safe.code, reason=safe.reason, waits_for=tuple(sorted(unheard)))


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
    guards = [*known.freezes(now), *known.holds(now)] if known else []
    members = _members(deps, behind)
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
        outbox_oldest_s=behind.outbox_oldest_s,
        safe_mode=behind.safe_mode,
        leaks=None if behind.leaks is None else leaks.count(behind.leaks),
        guards=tuple(views.guard_view(guard) for guard in guards),
        leases=tuple(
            t.LeaseView(name=held.name, owner=held.owner, expires_at=held.expires_at, fence=held.fence)
            for held in behind.leases
        ),
        copies=_by_service(members),
        members=members,
        verdicts_suspended={
            copy.instance: str(why) for copy in members if (why := copy.facts.get("verdicts_suspended"))
        },
        backlog=behind.backlog,
        services={name: dict(said) for name, said in services.items()},
        warnings=(*behind.warnings, *_held_config(known)),
        as_of=known.as_of if known else behind.as_of,
    )


def _held_config(known: Known | None) -> tuple[str, ...]:
    held = known.held_config if known else None
    return () if held is None else (held_text(held),)


def _members(deps: Deps, behind: Backstage) -> tuple[t.CopyView, ...]:
    """Copies that say that they live, those that hold a lease without saying so, and this one."""
    holds: dict[tuple[str, str], list[str]] = {}
    for held in behind.leases:
        service, _, work = held.name.partition("/")
        holds.setdefault((service, held.owner), []).append(work)
    said = {(report.service, report.instance): report for report in behind.copies}
    names = sorted({*holds, *said, ("gateway", deps.instance)})
    return tuple(_member(*name, said.get(name), holds.get(name, ())) for name in names)


def _member(service: str, instance: str, report: CopyReport | None, holds: Sequence[str]) -> t.CopyView:
    view = t.CopyView(service=service, instance=instance, host=_host(instance), holds=tuple(sorted(holds)))
    if report is None:
        return view
    return structs.replace(
        view,
        version=report.version,
        since=report.since,
        at=report.at,
        ready=report.ready,
        config_generation=report.config_generation,
        facts=dict(report.facts),
        results=tuple(
            t.LoopResult(
                name=last.name, at=last.at, took_s=last.took_s, outcome=last.outcome, error=last.error,
                failures=last.failures, counts=last.counts,
            )
            for last in report.results
        ),
    )  # fmt: skip


def _host(instance: str) -> str:
    """A copy's name is host, pid and something random."""
    host, *rest = instance.rsplit("-", 2)
    return host if len(rest) == 2 else ""


def _by_service(members: Sequence[t.CopyView]) -> dict[str, tuple[str, ...]]:
    services = sorted({copy.service for copy in members})
    return {name: tuple(copy.instance for copy in members if copy.service == name) for name in services}
