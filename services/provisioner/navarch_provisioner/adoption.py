"""What a provider's complete list says about our records, and about machines that no record knows. Pure.

Another installation's machines are not ours to judge. A machine with our tags and no record is adopted while records
are being rebuilt (safe mode), and called leaked otherwise. A node whose machine is not listed is not called gone for
that: it is asked for by id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from navarch_common.events import kinds
from navarch_common.model.node import ENDED, Instance, NodeRecord, Phase
from navarch_provisioner.bootstrap import provider_id
from navarch_provisioner.cloud.base import Machine
from navarch_provisioner.lifecycle import UNPROVEN
from navarch_provisioner.news import Changed, Why, enter, tell
from navarch_provisioner.view import NodeView, PoolView


@dataclass(frozen=True, slots=True)
class Sighting:
    """A machine that no record explains."""

    machine: Machine
    provider: str
    first_at: datetime
    count: int = 1
    told: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """What one complete list of one provider means for one pool."""

    seen: tuple[tuple[NodeView, Machine], ...] = ()
    """Nodes whose machine is there, where the provider says something else of it than the record."""
    unlisted: tuple[NodeView, ...] = ()
    """Nodes whose machine is not listed: to be asked for by id."""
    newborn: tuple[NodeView, ...] = ()
    """Nodes whose machine is too young to be missed; a provider that is asked may still say that it is gone."""
    found: tuple[tuple[NodeView, Machine], ...] = ()
    """Launches of unknown outcome whose machine is there."""
    strays: tuple[Machine, ...] = field(default=())
    """Machines with our tags that no living record explains."""


def compare(pool: PoolView, provider: str, machines: Sequence[Machine], now: datetime) -> Findings:
    """Holds a complete list of `provider` against the records of `pool`."""
    ours = [m for m in machines if m.tags.installation == pool.installation and m.tags.pool == pool.pool]
    by_id = {machine.instance_id: machine for machine in ours}
    seen, found = [], []
    unlisted: list[NodeView] = []
    newborn: list[NodeView] = []
    explained: set[str] = set()
    for view in pool.living:
        instance = view.record.instance
        if instance is not None and instance.provider == provider:
            machine = by_id.get(instance.instance_id)
            explained.add(instance.instance_id)
            if machine is None:
                if not view.gone and not view.record.powered_off:
                    (newborn if _fresh(pool, instance, now) else unlisted).append(view)
            elif machine.state is not instance.state or machine.address != instance.address:
                seen.append((view, machine))
        elif view.phase in UNPROVEN and view.record.launch and view.record.launch.request.provider == provider:
            token = view.record.launch.request.token
            match = min((m for m in ours if m.tags.intent == token), key=lambda m: m.launched_at, default=None)
            if match is not None:
                explained.add(match.instance_id)
                found.append((view, match))
    strays = tuple(machine for machine in ours if machine.instance_id not in explained and not is_ending(machine))
    return Findings(tuple(seen), tuple(unlisted), tuple(newborn), tuple(found), strays)


def is_ending(machine: Machine) -> bool:
    return machine.state.value in ("stopping", "gone")


def _fresh(pool: PoolView, instance: Instance, now: datetime) -> bool:
    return now - instance.launched_at < pool.settings.timings.newborn_grace


def adopt(pool: PoolView, provider: str, machine: Machine, now: datetime, why: Why | None = None) -> Changed | None:
    """A node for a machine of ours that has no record; None where there is one that knows its machine, or has ended.

    It gets no launch and so no deadline: it may be full of work, and nobody remembers what it was promised. A record that
    is still an intent was written before its machine was made: the store has forgotten the launch.
    """
    view = pool.nodes.get(machine.tags.node)
    if view is not None and (not is_intent(view.record) or view.record.generation != machine.tags.generation):
        return None
    why = why or Why("adopted", f"machine {machine.instance_id} at {provider} carries our tags and had no record")
    record = node_of(pool, provider, machine, why, now)
    if view is not None:
        # What was approved was its launch: that it ends is another question, for it may hold work by now.
        record = enter(
            view.record, Phase.BOOTING, why, now, instance=record.instance, launch=None, approved="", by_force=False
        )
    event = tell(
        kinds.NodeLaunched, record, pool.cluster, why, now,
        provider=provider, region=machine.region, instance_type=machine.instance_type,
        instance_id=machine.instance_id, provider_id=provider_id(pool.cluster, record.node),
        price_per_hour=machine.price_per_hour,
    )  # fmt: skip
    return Changed(record, (event,))


def is_intent(record: NodeRecord) -> bool:
    """Whether the record knows of no machine yet."""
    return record.phase is Phase.PLANNED or record.phase in UNPROVEN


def node_of(pool: PoolView, provider: str, machine: Machine, why: Why, now: datetime) -> NodeRecord:
    """What a machine's tags say of its node."""
    tags = machine.tags
    return NodeRecord(
        node=tags.node,
        pool=tags.pool,
        generation=tags.generation,
        phase=Phase.BOOTING,
        phase_since=now,
        created_at=machine.launched_at,
        instance=Instance(
            provider=provider,
            instance_id=machine.instance_id,
            provider_id=provider_id(pool.cluster, tags.node),
            instance_type=machine.instance_type,
            region=machine.region,
            zone=machine.zone,
            address=machine.address,
            price_per_hour=machine.price_per_hour,
            state=machine.state,
            state_at=now,
            launched_at=machine.launched_at,
        ),
        reasons=(why.reason(now),),
    )


def sight(
    before: Mapping[str, Sighting], provider: str, strays: Sequence[Machine], now: datetime
) -> dict[str, Sighting]:
    """The strays of `provider` after one more list; what is no longer there is forgotten."""
    after = {id_: sighting for id_, sighting in before.items() if sighting.provider != provider}
    for machine in strays:
        known = before.get(machine.instance_id)
        after[machine.instance_id] = (
            Sighting(machine, provider, now)
            if known is None or known.provider != provider
            else Sighting(machine, provider, known.first_at, known.count + 1, known.told)
        )
    return after


def leaked(sightings: Mapping[str, Sighting], grace: timedelta, now: datetime) -> list[Sighting]:
    """Those seen at least twice, over the whole grace, and not told of yet."""
    return [
        sighting
        for sighting in sightings.values()
        if not sighting.told and sighting.count >= 2 and now - sighting.first_at >= grace
    ]


def may_collect(pool: PoolView, sighting: Sighting) -> NodeView | None:
    """The record that proves a leaked machine to be ours and useless: its node has ended, or runs on another machine.

    None where there is no such record: a machine that nobody remembers may be full of work, and is only reported.
    """
    view = pool.nodes.get(sighting.machine.tags.node)
    if view is None or view.record.generation != sighting.machine.tags.generation:
        return None
    if view.phase in ENDED:
        return view
    instance = view.record.instance
    return view if instance is not None and instance.instance_id != sighting.machine.instance_id else None
