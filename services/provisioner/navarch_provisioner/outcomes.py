"""What the answer of a cloud, or its absence, makes of a node. Pure.

A refusal proves that nothing was made, so another offer may be tried. A call without an answer proves nothing: the
machine is looked up by its token, and until it is proven absent neither a second call nor another offer comes into
question. Each function returns the step to commit, or None where the answer changes nothing.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from msgspec import structs

from navarch_common.model.node import ENDED, NodeRecord, Phase, ProviderState
from navarch_provisioner import bootstrap, lifecycle, limits, placement, sizing, supply
from navarch_provisioner.cloud.base import CloudError, Machine, NotFound
from navarch_provisioner.lifecycle import UNPROVEN
from navarch_provisioner.news import Why, note
from navarch_provisioner.placement import Offer
from navarch_provisioner.steps import Call, Step
from navarch_provisioner.view import NodeView, PoolView


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cloud call ended."""

    call: Call
    node: str
    token: str = ""
    """The launch it was about: an answer about an earlier attempt says nothing of this one."""
    machine: Machine | None = None
    error: CloudError | None = None
    """A refusal: nothing was done."""
    unknown: str = ""
    """Why nobody knows what came of it."""
    withheld: Why | None = None
    """It was forbidden at the last moment and not made."""
    certain: bool = False
    """`lookup` and `ask`: the cloud is certain that there is no machine."""
    ended: bool = False
    """`launch` and `lookup`: the cloud is certain that the machine of this launch is no more. Its token is used up: asked
    again it would answer with the same machine for ever."""
    at: datetime | None = field(default=None)


def settle(pool: PoolView, view: NodeView, outcome: Outcome, now: datetime) -> Step | None:
    """The step that makes an outcome durable."""
    if view.phase in ENDED:
        return None
    if outcome.call in ("launch", "lookup"):
        if view.phase not in UNPROVEN or lifecycle.require_launch(view.record).request.token != outcome.token:
            return None
        return _launch(pool, view, outcome, now)
    if outcome.call == "power-on":
        return _powered_on(pool, view, outcome, now)
    return _looked_at(pool, view, outcome, now)


def _launch(pool: PoolView, view: NodeView, outcome: Outcome, now: datetime) -> Step | None:
    if outcome.machine is not None:
        return _made(pool, view, outcome.machine, now, found=outcome.call == "lookup")
    if outcome.withheld is not None:
        record = lifecycle.withdrawn(view.record, outcome.withheld, now)
        return _write(view, record, outcome.withheld)
    if outcome.ended:
        provider = lifecycle.require_launch(view.record).request.provider
        return _given_up(
            pool, view, Why("provider-gone", f"{provider} made its machine, and says that it is gone"), now
        )
    if outcome.call == "lookup":
        return _not_found(pool, view, now) if outcome.certain else _unknown(view, outcome, now)
    if outcome.error is not None:
        return _refused(pool, view, outcome.error, now)
    return _unknown(view, outcome, now)


def _write(view: NodeView, record: NodeRecord, why: Why) -> Step:
    return Step("fold", view.node, why, expect={view.key: view.revision}, put={view.key: record})


def _made(pool: PoolView, view: NodeView, machine: Machine, now: datetime, *, found: bool) -> Step:
    how = "was found at" if found else "was made by"
    launch = lifecycle.require_launch(view.record)
    why = Why("found" if found else "launched", f"machine {machine.instance_id} {how} {launch.request.provider}")
    changed = lifecycle.launched(view.record, machine, pool.cluster, why, now)
    expect, put = supply.writes(pool, supply.delivered(pool, now))
    return Step(
        "fold", view.node, why, expect={view.key: view.revision, **expect}, put={view.key: changed.record, **put},
        emit=changed.events, trace=view.record.trace,
    )  # fmt: skip


def _unknown(view: NodeView, outcome: Outcome, now: datetime) -> Step | None:
    text = outcome.unknown or (str(outcome.error) if outcome.error else "no answer")
    if view.phase is Phase.LAUNCH_UNKNOWN:
        return None
    why = Why("launch-unknown", f"it is not known whether the launch made a machine: {text}")
    return _write(view, lifecycle.unknown(view.record, why, now), why)


def _not_found(pool: PoolView, view: NodeView, now: datetime) -> Step | None:
    """Not there: proof only once the call, wherever it was made, can no longer have an effect."""
    launch = lifecycle.require_launch(view.record)
    began = launch.called_at or view.record.phase_since
    if not view.record.powered_off and now < began + pool.settings.timings.proof_after:
        if view.phase is Phase.LAUNCH_UNKNOWN:
            return None
        why = Why("launch-unknown", "the copy that launched it is gone, and no machine is there yet")
        return _write(view, lifecycle.unknown(view.record, why, now), why)
    why = Why("nothing-made", f"{launch.request.provider} has no machine of this launch: it is asked again")
    return _write(view, lifecycle.ask_again(view.record, why, now), why)


def _refused(pool: PoolView, view: NodeView, error: CloudError, now: datetime) -> Step:
    """The provider said no, and so made nothing: the next offer is another attempt, or the launch has failed."""
    launch = lifecycle.require_launch(view.record)
    refused = offer_of(view)
    why = Why(error.code, f"{refused.name} refused: {error}"[:500])
    if pool.config is not None:
        found = placement.offers(pool.config, [other.record for other in pool.living])
        tried = frozenset({refused.name})
        offer = placement.choose(found, pool.providers, pool.cooling, now, tried=tried)
        if offer is not None and launch.attempt < max(len(found), 1) * 2:
            request = bootstrap.launch_request(
                pool, view.node, offer, generation=view.record.generation, attempt=launch.attempt + 1
            )
            step = _write(view, lifecycle.try_elsewhere(view.record, request, why, now), why)
            return replace(step, refund=limits.moved(pool, view.record, offer.provider))
    return _given_up(pool, view, why, now)


def _given_up(pool: PoolView, view: NodeView, why: Why, now: datetime) -> Step:
    """The launch came to nothing, by the provider's own word. The pool plans anew, after a pause that grows."""
    changed = lifecycle.launch_failed(view.record, pool.cluster, why, now)
    missing = max(pool.target - sizing.occupied(pool) + 1, 1)
    record, events = supply.failed(pool, why, now, missing=missing)
    supply_expect, put = supply.writes(pool, record)
    return Step(
        "give-up", view.node, why, expect={view.key: view.revision, **supply_expect}, put={view.key: changed.record, **put},
        emit=(*changed.events, *events), refund=limits.machine_gone(pool, view.record), trace=view.record.trace,
    )  # fmt: skip


def offer_of(view: NodeView) -> Offer:
    request = lifecycle.require_launch(view.record).request
    return Offer(request.provider, request.instance_type, request.region, request.zone)


def _looked_at(pool: PoolView, view: NodeView, outcome: Outcome, now: datetime) -> Step | None:
    """What a provider said of a machine, after a termination or on demand."""
    instance = view.record.instance
    if instance is None:
        return None
    state = ProviderState.GONE if outcome.certain else outcome.machine.state if outcome.machine else None
    if state is None:
        return None
    if outcome.call == "ask" and outcome.machine is None and newborn(pool, view, now):
        state = ProviderState.UNKNOWN
    if outcome.call == "terminate" and state is ProviderState.STOPPING and view.phase is Phase.TERMINATING:
        state = ProviderState.GONE  # The cloud has accepted the end: it will not run again.
    address = outcome.machine.address if outcome.machine else instance.address
    said = structs.replace(instance, state=state, state_at=now, address=address)
    why = Why(
        f"provider-says-{state.value}", f"{instance.provider} says that machine {instance.instance_id} is {state.value}"
    )
    record = note(view.record, why, now, instance=said, blocked=view.record.blocked)
    if state is instance.state:
        record = structs.replace(view.record, instance=said)
        if outcome.call == "terminate":
            return None
    return Step("fold", view.node, why, expect={view.key: view.revision}, put={view.key: record})


def newborn(pool: PoolView, view: NodeView, now: datetime) -> bool:
    """Made so recently, and never heard of, that its provider may not know it yet: not finding it proves nothing, while a
    provider that says that it is gone knows it."""
    instance = view.record.instance
    young = instance is not None and now - instance.launched_at < pool.settings.timings.newborn_grace
    return young and view.record.registration is None


def _powered_on(pool: PoolView, view: NodeView, outcome: Outcome, now: datetime) -> Step | None:
    """It boots, or there is nothing to boot: health judges that. Anything else is tried again."""
    if outcome.unknown or outcome.withheld or not view.record.powered_off:
        return None
    if isinstance(outcome.error, NotFound):
        why = Why("power-on-failed", f"it could not be booted again: {outcome.error}"[:500])
    elif outcome.error is not None:
        why = Why("power-on-refused", f"it boots again later: {outcome.error}"[:500])
        told = view.record.reasons[-1:] and view.record.reasons[-1].code == why.code
        return None if told else _write(view, note(view.record, why, now), why)
    else:
        why = Why("powered-on", "its machine boots again after the clean stop")
    timeout = pool.config.registration_timeout if pool.config is not None else None
    return _write(view, lifecycle.boots_again(view.record, why, now, timeout), why)
