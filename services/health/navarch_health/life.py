"""Whether a machine lives, as its record tells: heard, silent, gone, booted again.

Each function takes the record and the node and returns the change to commit, or None where there is nothing to change.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from msgspec import structs

from navarch_common.model.base import Reason
from navarch_common.model.health import AGENT, EntityVerdict, Evidence, HealthRecord, HealthStatus
from navarch_common.model.node import NodeRecord
from navarch_health.fold import BOOTS_MAX
from navarch_health.verdict import MACHINE, WATCHED, Change, Context, on_its_way_out, settle

REPAIRED_BY_BOOT: Final = frozenset({"none", "restart_app", "reset_gpu", "reboot_node"})

_DRIVER_TROUBLE: Final = {
    "missing": "there is no GPU driver",
    "hung": "the GPU driver does not answer",
    "unknown": "the GPU driver's answers cannot be used",
}


def heard(record: HealthRecord, node: NodeRecord, boot_id: str, driver_state: str, context: Context) -> Change | None:
    """A heartbeat came. Takes back a suspicion from silence, and with a driver that answers makes an unknown node
    healthy. It takes back nothing else: a failed node stays failed, however well it reports."""
    if node.phase not in WATCHED:
        return None
    entities = dict(record.entities)
    silent = record.silent_since
    machine = entities.get(MACHINE)
    if machine is not None and machine.status == HealthStatus.SUSPECT:
        del entities[MACHINE]
        silent = None
    registered = node.registration is not None and node.registration.boot_id == boot_id
    if driver_state == "ok":
        if registered and not _is_well(entities.get(AGENT)):
            reason = "the agent reports and its GPU driver answers"
            entities[AGENT] = EntityVerdict(
                status=HealthStatus.HEALTHY, code="passed", reason=reason, since=context.now
            )
    elif AGENT not in entities or entities[AGENT].code != f"driver-{_known(driver_state)}":
        entities[AGENT] = _driver_trouble(entities.get(AGENT), driver_state, context)
    if entities == record.entities and silent == record.silent_since:
        return None
    draft = structs.replace(record, entities=entities, silent_since=silent)
    if silent is None and record.silent_since is not None:
        away = (context.now - record.silent_since).total_seconds()
        told = _told("heard-again", f"heard again after {away:.0f} s of silence", context)
        return settle(record, draft, node, context, told=told)
    return settle(record, draft, node, context)


def fell_silent(
    record: HealthRecord, node: NodeRecord, last_heard: datetime, context: Context, *, timeout_s: float
) -> Change | None:
    """No heartbeat for a whole timeout: suspect. That wakes the provisioner, which asks the provider.

    A status that another copy has only just found rests on what that copy heard: it stands for a timeout, or two copies of
    which one hears the node and one does not would contradict each other as fast as they can commit.
    """
    if record.silent_since is not None or MACHINE in record.entities:
        return None
    if (context.now - record.since).total_seconds() < timeout_s:
        return None
    silent_s = (context.now - last_heard).total_seconds()
    reason = f"no heartbeat for {silent_s:.0f} s (expected within {timeout_s:.0f} s); its provider is asked next"
    verdict = EntityVerdict(
        status=HealthStatus.SUSPECT,
        code="silence",
        reason=reason,
        since=context.now,
        boot_id=record.boot_id,
        evidence=(_evidence("liveness", "silence", reason, context),),
    )
    draft = structs.replace(record, entities={**record.entities, MACHINE: verdict}, silent_since=last_heard)
    return settle(record, draft, node, context)


def gone(record: HealthRecord, node: NodeRecord, context: Context) -> Change | None:
    """The provider says that the machine is no longer there. Nothing is left to drain."""
    instance = node.instance
    name = "its machine" if instance is None else f"machine {instance.instance_id}"
    provider = "the provider" if instance is None else f"provider {instance.provider}"
    reason = f"{provider} says that {name} no longer exists, and it is silent"
    return _dead(record, node, "provider-gone", reason, context, source="provider", takes_work=True)


def silent_too_long(record: HealthRecord, node: NodeRecord, context: Context, *, deadline_s: float) -> Change | None:
    """Silent up to the long deadline, unanswered probes included, while the provider says that the machine runs."""
    since = record.silent_since or context.now
    silent_s = (context.now - since).total_seconds()
    reason = f"no heartbeat and no answer to a probe for {silent_s:.0f} s, over the deadline of {deadline_s:.0f} s"
    return _dead(record, node, "silence", reason, context, source="liveness", takes_work=False)


def booted(record: HealthRecord, node: NodeRecord, context: Context) -> Change | None:
    """Another boot of the same machine has registered. What a reboot or less repairs goes, and the node is unknown until
    its agent reports a full pass. What asks for another machine stays, and so does everything once a failed node is on
    its way out: its replacement may be half made."""
    registration = node.registration
    if registration is None or registration.generation != record.generation or registration.boot_id == record.boot_id:
        return None
    sequences = {registration.boot_id: 0, **record.sequences}
    if record.boot_id:
        sequences.setdefault(record.boot_id, 0)
    for boot in [boot for boot in sequences if boot != registration.boot_id][: max(0, len(sequences) - BOOTS_MAX)]:
        del sequences[boot]
    draft = structs.replace(record, boot_id=registration.boot_id, sequences=sequences)
    if not record.boot_id:
        return settle(record, draft, node, context)
    entities = {key: verdict for key, verdict in record.entities.items() if key != AGENT}
    if not on_its_way_out(record, node):
        entities = {
            key: verdict
            for key, verdict in entities.items()
            if key == MACHINE or verdict.action not in REPAIRED_BY_BOOT or verdict.boot_id == registration.boot_id
        }
    gone_codes = sorted({v.code for k, v in record.entities.items() if k not in entities and k != AGENT})
    repaired = f"; repaired by it: {', '.join(gone_codes)}" if gone_codes else ""
    told = _told("booted", f"the machine has booted again{repaired}", context)
    return settle(record, structs.replace(draft, entities=entities), node, context, told=told)


def calmed(record: HealthRecord, node: NodeRecord, context: Context) -> Change | None:
    """Readings and rates that were not seen again for as long as their rules say."""
    due = {key for key, v in record.entities.items() if v.clears_at is not None and v.clears_at <= context.now}
    due = {key for key in due if record.entities[key].status != HealthStatus.UNHEALTHY}
    if not due or node.phase not in WATCHED:
        return None
    codes = ", ".join(sorted(record.entities[key].code for key in due))
    entities = {key: verdict for key, verdict in record.entities.items() if key not in due}
    told = _told("calmed", f"not seen again in time: {codes}", context)
    return settle(record, structs.replace(record, entities=entities), node, context, told=told)


def calms_at(record: HealthRecord) -> datetime | None:
    """When `calmed` has something to do next."""
    times = (v.clears_at for v in record.entities.values() if v.status != HealthStatus.UNHEALTHY)
    return min((at for at in times if at is not None), default=None)


def _dead(
    record: HealthRecord, node: NodeRecord, code: str, reason: str, context: Context, *, source: str, takes_work: bool
) -> Change | None:
    standing = record.entities.get(MACHINE)
    if standing is not None and standing.status == HealthStatus.UNHEALTHY:
        return None
    earlier = () if standing is None else standing.evidence
    verdict = EntityVerdict(
        status=HealthStatus.UNHEALTHY,
        action="drain_and_replace",
        rule="liveness",
        code=code,
        reason=reason,
        since=context.now,
        takes_work=takes_work,
        boot_id=record.boot_id,
        evidence=(*earlier, _evidence(source, code, reason, context))[-16:],
    )
    return settle(record, structs.replace(record, entities={**record.entities, MACHINE: verdict}), node, context)


def _driver_trouble(before: EntityVerdict | None, driver_state: str, context: Context) -> EntityVerdict:
    """A node that was well is suspect; one that never was stays unknown. Neither is ever healthy on a missing driver."""
    state = _known(driver_state)
    never_well = before is None or before.status == HealthStatus.UNKNOWN
    return EntityVerdict(
        status=HealthStatus.UNKNOWN if never_well else HealthStatus.SUSPECT,
        code=f"driver-{state}",
        reason=f"{_DRIVER_TROUBLE[state]}: nothing is known of its GPUs",
        since=context.now,
    )


def _known(driver_state: str) -> str:
    return driver_state if driver_state in _DRIVER_TROUBLE else "unknown"


def _is_well(verdict: EntityVerdict | None) -> bool:
    return verdict is not None and verdict.status == HealthStatus.HEALTHY


def _evidence(source: str, code: str, text: str, context: Context) -> Evidence:
    return Evidence(at=context.now, source=source, code=code, text=text)


def _told(code: str, text: str, context: Context) -> Reason:
    return Reason(at=context.now, code=code, text=text[:1000], actor="health", trace=context.trace)
