"""What is to be done about machines that no living record explains. Pure.

A machine is called leaked at its second sighting, once a grace period is over; one list may have been made in the middle
of a launch. It is told of once. With `gc: terminate` what a record proves to be useless is ended; a machine that nobody
remembers may be full of work, and is ended, or adopted, only by an operator who names it. A hold keeps what we would end by ourselves. Another installation's
machines are shown and never touched.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from navarch_common.events.audit import Audit
from navarch_common.events.base import Event
from navarch_common.events.kinds import InstanceCollected, InstanceLeaked
from navarch_common.ids import is_id
from navarch_common.model.base import AnyKey
from navarch_common.model.leak import Fate, LeakKind, LeakRecord, LeakWish, leak_key, leak_wishes_key
from navarch_common.model.node import ENDED, NODE
from navarch_common.store.base import ABSENT, Stored
from navarch_provisioner import adoption, gates
from navarch_provisioner.adoption import Sighting
from navarch_provisioner.cloud.base import Machine, Tags
from navarch_provisioner.news import ACTOR, Why, tell_pool
from navarch_provisioner.steps import Step
from navarch_provisioner.view import NodeView, PoolView

SEEN_OFTEN = 2
"""Sightings beyond this are not counted: each would be a write."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is on record of the machines that a pool's records don't explain, and what operators want done with them."""

    leaks: Mapping[str, Stored[LeakRecord]]
    """By instance id, those of one provider."""
    wishes: Sequence[LeakWish] = ()
    wishes_revision: int = ABSENT


@dataclass(frozen=True, slots=True)
class Decision:
    """One machine's next step, and whether it is to be ended once that is durable."""

    step: Step | None
    """None: nothing has changed."""
    end: Machine | None = None


def decide(pool: PoolView, provider: str, known: Known, strays: Sequence[Machine], now: datetime) -> list[Decision]:
    """What a complete list means for each machine of `pool` that is a stray, or was one."""
    before = {id_: sighting_of(stored.record) for id_, stored in known.leaks.items()}
    after = adoption.sight(before, provider, strays, now)
    decisions = [_seen(pool, known, sighting, now) for _, sighting in sorted(after.items())]
    decisions += [_gone(pool, stored, now) for id_, stored in sorted(known.leaks.items()) if id_ not in after]
    return decisions


def _seen(pool: PoolView, known: Known, sighting: Sighting, now: datetime) -> Decision:
    machine, provider = sighting.machine, sighting.provider
    stored = known.leaks.get(machine.instance_id)
    wish = _wish_about(known.wishes, f"{provider}/{machine.instance_id}", now)
    node = pool.nodes.get(machine.tags.node)
    kind = kind_of(pool, sighting)
    fate, why = _fate(pool, sighting, kind, wish, now)
    key = leak_key(provider, machine.instance_id)
    expect: dict[AnyKey, int] = {key: stored.revision if stored else ABSENT}
    if wish is not None:
        expect[leak_wishes_key()] = known.wishes_revision
    if fate == "adopt":
        changed = adoption.adopt(pool, provider, machine, now, why)
        assert changed is not None, "only a machine without a record is adopted"
        expect |= {NODE.key(changed.record.node): ABSENT, **pool.expect_guards()}
        delete = (key,) if stored else ()
        put = {NODE.key(changed.record.node): changed.record}
        return Decision(
            Step(
                "fold",
                machine.tags.node,
                why,
                expect=expect,
                put=put,
                delete=delete,
                emit=(*changed.events, _entry("adopt", pool, sighting, why, now)),
            )
        )
    told_at = stored.record.told_at if stored else None
    events: tuple[Event, ...] = ()
    if told_at is None and fate != "wait":
        told_at, events = now, (_event(InstanceLeaked, pool, sighting, why, now),)
    record = record_of(sighting, kind, fate, why, told_at=told_at, asked=wish.id if wish else "")
    again = fate == "collect"
    if again and (stored is None or stored.record.fate != "collect"):
        events = (*events, _entry("collect", pool, sighting, why, now))
    if again:
        expect |= {NODE.key(machine.tags.node): node.revision if node else ABSENT, **pool.expect_guards()}
    if stored is not None and stored.record == record and not again:
        return Decision(None)
    return Decision(Step("note", "", why, expect=expect, put={key: record}, emit=events), machine if again else None)


def _fate(pool: PoolView, sighting: Sighting, kind: LeakKind, wish: LeakWish | None, now: datetime) -> tuple[Fate, Why]:
    node, actor = sighting.machine.tags.node, wish.actor if wish else ACTOR
    there = f"machine {sighting.machine.instance_id} at {sighting.provider} carries our tags, and {_proof(pool, kind, node)}"
    if wish is not None and wish.verb == "adopt":
        if kind == "unrecorded" and is_id(node):
            said = f": {wish.reason}" if wish.reason else ""
            return "adopt", Why("adopted", f"{wish.actor} adopts {sighting.machine.instance_id}{said}", wish.actor)
        return "report", Why("not-adopted", f"{there}: it cannot be adopted", actor)
    young = now - sighting.first_at < pool.settings.timings.leak_grace
    if sighting.count < SEEN_OFTEN or (young and wish is None):
        return "wait", Why("seen", f"{there}; it is called leaked when it has been so for a while")
    if wish is None and (kind == "unrecorded" or not pool.settings.collect_leaks):
        return "report", Why("leaked", there)
    forbidden = gates.no_termination(pool, now) or (gates.held_name(pool, node, now) if wish is None else None)
    if forbidden is not None:
        return "report", Why(forbidden.code, f"{there}; it is not ended: {forbidden.text}", actor)
    said = f"; {wish.actor} wants it ended{f': {wish.reason}' if wish.reason else ''}" if wish else ""
    return "collect", Why("leaked", f"{there}{said}", actor)


def _proof(pool: PoolView, kind: LeakKind, node: str) -> str:
    if kind == "ended":
        return f"its node is {pool.nodes[node].phase.value}"
    return "its node runs on another machine" if kind == "duplicate" else "it has no record"


def _gone(pool: PoolView, stored: Stored[LeakRecord], now: datetime) -> Decision:
    """It is explained by now, or no longer there: it is nobody's business any more. What we ended is told of."""
    record = stored.record
    why = Why("explained", f"machine {record.instance_id} at {record.provider} is explained, or gone")
    events: tuple[Event, ...] = ()
    if record.fate == "collect":
        why = Why("collected", f"machine {record.instance_id} at {record.provider} was leaked, was ended, and is gone")
        events = (_event(InstanceCollected, pool, sighting_of(record), why, now),)
    return Decision(Step("note", "", why, expect={stored.key: stored.revision}, delete=(stored.key,), emit=events))


def kind_of(pool: PoolView, sighting: Sighting) -> LeakKind:
    proof: NodeView | None = adoption.may_collect(pool, sighting)
    if proof is not None:
        return "ended" if proof.phase in ENDED else "duplicate"
    return "unrecorded"


def foreign(
    provider: str,
    machines: Iterable[Machine],
    installation: str,
    known: Mapping[str, Stored[LeakRecord]],
    now: datetime,
) -> tuple[dict[AnyKey, LeakRecord], tuple[AnyKey, ...]]:
    """Records to write and to delete, for machines at `provider` that carry another installation. They are shown to
    whoever looks, once each, and never touched."""
    theirs = {
        machine.instance_id: machine
        for machine in machines
        if machine.tags.installation != installation and not adoption.is_ending(machine)
    }
    put: dict[AnyKey, LeakRecord] = {}
    for id_, machine in sorted(theirs.items()):
        if id_ not in known:
            why = Why("foreign", f"it belongs to installation {machine.tags.installation}: it is not ours to touch")
            put[leak_key(provider, id_)] = record_of(Sighting(machine, provider, now), "foreign", "leave", why)
    delete = tuple(stored.key for id_, stored in sorted(known.items()) if id_ not in theirs)
    return put, delete


def _wish_about(wishes: Sequence[LeakWish], machine: str, now: datetime) -> LeakWish | None:
    """The newest one counts."""
    return next((wish for wish in reversed(wishes) if machine in wish.machines and wish.expires_at > now), None)


def sighting_of(record: LeakRecord) -> Sighting:
    tags = Tags("", record.installation, record.pool, record.node, record.generation, record.intent)
    machine = Machine(
        record.instance_id, "", tags, record.state, record.instance_type, record.region, record.zone, record.address,
        record.price_per_hour, record.launched_at,
    )  # fmt: skip
    return Sighting(machine, record.provider, record.first_at, record.sightings, record.told_at is not None)


def record_of(
    sighting: Sighting, kind: LeakKind, fate: Fate, why: Why, *, told_at: datetime | None = None, asked: str = ""
) -> LeakRecord:
    machine = sighting.machine
    return LeakRecord(
        provider=sighting.provider,
        instance_id=machine.instance_id,
        kind=kind,
        installation=machine.tags.installation,
        pool=machine.tags.pool,
        node=machine.tags.node,
        generation=machine.tags.generation,
        intent=machine.tags.intent,
        instance_type=machine.instance_type,
        region=machine.region,
        zone=machine.zone,
        address=machine.address,
        price_per_hour=machine.price_per_hour,
        state=machine.state,
        launched_at=machine.launched_at,
        first_at=sighting.first_at,
        sightings=min(sighting.count, SEEN_OFTEN),
        told_at=told_at,
        fate=fate,
        code=why.code,
        text=why.text[:1024],
        asked=asked,
    )


def _entry(act: str, pool: PoolView, sighting: Sighting, why: Why, now: datetime) -> Audit:
    """What was decided about the machine, in the books: once, however often its call is made."""
    after = {"provider": sighting.provider, "instance_id": sighting.machine.instance_id}
    return Audit(
        at=now, cluster=pool.cluster, pool=pool.pool, node=sighting.machine.tags.node if act == "adopt" else "",
        reason=why.text[:1024], code=why.code, actor=why.actor, action=act,
        result="done" if act == "adopt" else "begun", after=after,
    )  # fmt: skip


def _event(
    kind: type[InstanceLeaked] | type[InstanceCollected], pool: PoolView, sighting: Sighting, why: Why, now: datetime
) -> Event:
    machine = sighting.machine
    return tell_pool(
        kind, pool.pool, pool.cluster, why, now,
        provider=sighting.provider, instance_id=machine.instance_id, price_per_hour=machine.price_per_hour,
    )  # fmt: skip
