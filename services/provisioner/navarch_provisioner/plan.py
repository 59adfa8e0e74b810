"""What a pool needs next: the one decision of the provisioner. Pure.

`plan` looks at everything that is known of a pool and says, for each node, at most one step, each with its reason and
all it rests on; and what the rest waits for. It is asked again after every change, so each step may be small. What
`navarch plan` shows is this very value.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from msgspec import structs

from navarch_common.events import kinds
from navarch_common.model.base import AnyKey, Reason, Record
from navarch_common.model.cluster import COMMAND
from navarch_common.model.health import HealthStatus
from navarch_common.model.node import ENDED, NODE, NodeRecord, Phase
from navarch_common.model.pool import SUPPLY, SupplyRecord
from navarch_provisioner import (
    breaker,
    budget,
    changes,
    commands,
    drain,
    gates,
    lifecycle,
    limits,
    replacement,
    sizing,
    supply,
    wishes,
)
from navarch_provisioner.answers import conclude
from navarch_provisioner.news import Changed, Why, enter, tell_pool
from navarch_provisioner.steps import HOUSEKEEPING, Blocked, Call, Plan, Step
from navarch_provisioner.view import NodeView, PoolView, inbox_key, rest_of

FREE = Why("unblocked", "nothing is waited for")
HEALTHY_ENOUGH = (HealthStatus.HEALTHY, HealthStatus.DEGRADED)
Decision = Step | Blocked | None


def plan(pool: PoolView, now: datetime) -> Plan:
    """The next steps, in the order in which to take them."""
    if pool.supply is None and pool.config is not None:
        return Plan((_open_books(pool),))
    turned = breaker.next_step(pool, now) or changes.answers_due(pool, now)
    if turned is not None:
        return Plan((turned,))
    steps: list[Step] = []
    blocked: list[Blocked] = []
    ids = iter(pool.fresh_ids)
    written: set[str] = set()
    for view in sorted(pool.nodes.values(), key=_urgency):
        if view.node in written:
            continue
        decision = _restrained(pool, view, _next(pool, view, now, ids), now)
        if isinstance(decision, Step):
            steps.append(decision)
            written |= _written([decision])
            pool = _after(pool, decision)
        elif isinstance(decision, Blocked):
            blocked.append(decision)
    size_steps, size_blocked = _size(pool, now, ids)
    steps += [step for step in size_steps if step.node not in written]
    steps = [_resting_on_holds(pool, step) for step in steps]
    blocked += size_blocked
    steps += _refunds(pool)
    pool_written = any(SUPPLY.key(pool.pool) in step.put for step in steps)
    steps += _notes(pool, blocked, _written(steps), now, pool_written=pool_written)
    return Plan(tuple(steps), tuple(blocked))


def _restrained(pool: PoolView, view: NodeView, decision: Decision, now: datetime) -> Decision:
    """Under `observe` and `approve` a broken node that is not replaced is cordoned all the same."""
    if not isinstance(decision, Step):
        return decision
    taken = changes.restrain(pool, decision, now)
    broken = view.phase is Phase.ACTIVE and view.failed
    if isinstance(taken, Blocked) and broken and replacement.HEALTH not in view.record.cordons:
        return replacement.cordon(pool, view, replacement.why_failed(view), now)
    return taken


def _resting_on_holds(pool: PoolView, step: Step) -> Step:
    """A hold that comes in between makes the commit conflict."""
    if step.act in HOUSEKEEPING or step.node not in pool.nodes or not step.writes:
        return step
    return replace(step, expect={**step.expect, **pool.expect_hold(step.node)})


def _written(steps: list[Step]) -> set[str]:
    """Nodes that a step is about or writes: one step for each in a pass."""
    return {step.node for step in steps} | {key.name for step in steps for key in step.put if key.family is NODE}


def _urgency(view: NodeView) -> tuple[int, datetime, str]:
    """Failures first, then in the order of birth: what frees or takes a place comes before what counts them."""
    return (0 if view.failed else 1), view.record.created_at, view.node


def _open_books(pool: PoolView) -> Step:
    why = Why("first-seen", f"pool {pool.pool} is provisioned from now on")
    record = SupplyRecord(pool=pool.pool, config_generation=pool.config_generation)
    return Step("note", "", why, expect=pool.expect_supply(), put={SUPPLY.key(pool.pool): record})


def _after(pool: PoolView, step: Step) -> PoolView:
    """The pool as the next decision must see it, so that two of them don't spend the same place."""
    nodes = dict(pool.nodes)
    for key, record in step.put.items():
        if isinstance(record, NodeRecord):
            view = nodes.get(key.name)
            nodes[key.name] = replace(view, record=record) if view is not None else NodeView(record, 0)
    replacing = pool.replacing | {place.holder for place in step.spend if place.bucket == budget.bucket(pool.pool)}
    lately = pool.replaced_lately | {
        place.holder for place in step.spend if place.bucket == budget.hourly_bucket(pool.pool)
    }
    given_back = {place.holder for place in step.refund if place.bucket == budget.bucket(pool.pool)}
    spent = dict(pool.spent)
    for place in step.spend:
        spent[place.bucket] = spent.get(place.bucket, frozenset()) | {place.holder}
    for refund in step.refund:
        spent[refund.bucket] = spent.get(refund.bucket, frozenset()) - {refund.holder}
    supply_record = step.put.get(SUPPLY.key(pool.pool), pool.supply)
    assert supply_record is None or isinstance(supply_record, SupplyRecord)
    return replace(
        pool, nodes=nodes, replacing=replacing - given_back, replaced_lately=lately, spent=spent, supply=supply_record
    )


# --- one node ---


def _next(pool: PoolView, view: NodeView, now: datetime, ids: Iterator[str]) -> Decision:
    """The next step for one node."""
    if view.inbox is not None and view.inbox.reports:
        return _fold(pool, view, now)
    if view.phase in ENDED:
        return _after_life(pool, view, now)
    if view.record.powered_off and view.phase not in lifecycle.UNPROVEN:
        return _power_on(pool, view, now)
    if view.node in pool.in_flight:
        return None
    wished = _wish(pool, view, now, ids) if wishes.next_wish(view) is not None else None
    if isinstance(wished, Step):
        return wished
    # A wish that must wait holds up nothing else: what it waits for may be the very next step of the node itself.
    decision = _BY_PHASE[view.phase](pool, view, now, ids)
    if isinstance(decision, Step) or wished is None:
        return decision if decision is not None else commands.due(pool, view, now)
    return wished


def _power_on(pool: PoolView, view: NodeView, now: datetime) -> Decision:
    """Off by our own hand: until it runs again, nothing else is said or done about it."""
    if view.node in pool.in_flight or _rests(pool, view, now, "power-on"):
        return None
    return Step(
        "power-on", view.node, Why("powered-off", "a clean stop powered it off: it boots again"), call="power-on"
    )


def _wish(pool: PoolView, view: NodeView, now: datetime, ids: Iterator[str]) -> Decision:
    wish = wishes.next_wish(view)
    assert wish is not None
    if wish.verb != "replace" or wish.expires_at <= now or view.phase in wishes.GIVEN_UP:
        return wishes.decide(pool, view, wish, now)
    if view.phase is Phase.ACTIVE and view.failed and (wish.force or gates.held(pool, view, now) is None):
        return None  # It is about to be replaced anyway, and the wish is answered with that.
    if view.phase is not Phase.ACTIVE:
        text = f"only an active node can be replaced; it is {view.phase.value}"
        return wishes.refuse(view, wish, f"not-active-{wishes.slug(view)}", text, now)
    if view.record.replaced_by is not None:
        return wishes.refuse(view, wish, "already-replacing", f"{view.record.replaced_by} replaces it", now)
    return replacement.wished(pool, view, wish, now, ids)


def _fold(pool: PoolView, view: NodeView, now: datetime) -> Step:
    """What its agent reported becomes part of its record; results become part of the commands."""
    assert view.inbox is not None
    timeout = pool.config.registration_timeout if pool.config is not None else None
    changed = lifecycle.fold(view.record, view.inbox, pool.cluster, now, timeout)
    expect: dict[AnyKey, int] = {view.key: view.revision, inbox_key(view.node): view.inbox_revision}
    put: dict[AnyKey, Record] = {view.key: changed.record}
    for report in view.inbox.reports:
        command = pool.commands.get(report.command_id)
        if report.kind == "command-result" and command is not None and not command.result:
            expect[COMMAND.key(command.id)] = pool.command_revisions[command.id]
            put[COMMAND.key(command.id)] = lifecycle.settle_command(command, report)
    why = Why("reported", f"{len(view.inbox.reports)} reports of its agent", "agent")
    return Step("fold", view.node, why, expect=expect, put=put, delete=(inbox_key(view.node),), emit=changed.events)


def _after_life(pool: PoolView, view: NodeView, now: datetime) -> Decision:
    """Its wishes are answered; after four weeks its record goes, and what belonged to it."""
    wish = wishes.next_wish(view)
    if wish is not None:
        return wishes.decide(pool, view, wish, now)
    end = view.record.terminated_at or view.record.phase_since
    if now - end < pool.settings.timings.keep_ended:
        return None
    expect, commands_left = _commands_of(pool, view)
    why = Why("forgotten", "it ended four weeks ago")
    return Step("forget", view.node, why, expect={view.key: view.revision, **expect}, delete=(view.key, *commands_left))


def _commands_of(pool: PoolView, view: NodeView) -> tuple[dict[AnyKey, int], tuple[AnyKey, ...]]:
    """The commands to a node's agent, with what a commit that deletes them expects."""
    mine = [command.id for command in pool.commands.values() if command.node == view.node]
    return {COMMAND.key(id_): pool.command_revisions[id_] for id_ in mine}, tuple(COMMAND.key(id_) for id_ in mine)


def _rests(pool: PoolView, view: NodeView, now: datetime, call: Call) -> bool:
    return any(pool.resting.get(name, now) > now for name in (view.node, rest_of(view.node, call)))


def _planned(pool: PoolView, view: NodeView, now: datetime, _: Iterator[str]) -> Decision:
    """The intent is durable: the call may be made, if nothing forbids it at this moment."""
    launch = lifecycle.require_launch(view.record)
    if _rests(pool, view, now, "launch"):
        return None
    if sizing.not_needed(pool, view) and gates.no_dropping(pool) is None:
        return sizing.cancel(pool, view, now)
    forbidden = gates.no_call(pool, now, view) or replacement.held_back(pool, view, now)
    if forbidden is not None:
        return Blocked(view.node, forbidden)
    if launch.request.provider not in pool.providers:
        why = Why("provider-unknown", f"provider {launch.request.provider} cannot be reached from here")
        return Blocked(view.node, why)
    stopped = breaker.stops_launch(pool, view, now)
    if stopped is not None:
        return Blocked(view.node, stopped)
    full = limits.no_room(pool, launch.request.provider, launch.request.instance_type, view.node)
    if full is not None:
        return Blocked(view.node, full)
    assert pool.config is not None
    why = Why("launching", f"asks {launch.request.provider} for {launch.request.instance_type or 'a machine'}")
    record = lifecycle.launching(view.record, why, now, pool.config.registration_timeout)
    canary = breaker.taken(pool, view.node, now) if breaker.launches_canaries(pool, view) else {}
    return Step(
        "launch", view.node, why, expect={**view.expect(), **pool.expect_pool(), **(pool.expect_supply() if canary else {})},
        put={view.key: record, **canary},
        spend=limits.launch_places(pool, view.node, launch.request.provider, launch.request.instance_type),
        call="launch", trace=view.record.trace,
    )  # fmt: skip


def _unproven(pool: PoolView, view: NodeView, now: datetime, _: Iterator[str]) -> Decision:
    """A launch was begun and nobody here waits for its answer: first it must be known what came of it."""
    launch = lifecycle.require_launch(view.record)
    why = Why("launch-unknown", f"asks {launch.request.provider} whether its launch made a machine")
    if _rests(pool, view, now, "lookup"):
        return Blocked(view.node, why)
    return Step("lookup", view.node, why, call="lookup", trace=view.record.trace)


def _booting(pool: PoolView, view: NodeView, now: datetime, _: Iterator[str]) -> Decision:
    if view.record.registration is not None:
        # It registered before we knew which machine it is.
        record = enter(view.record, Phase.VALIDATING, Why("registered", "its agent registered"), now)
        return Step(
            "fold", view.node, Why("registered", "its agent registered"), expect=view.expect(), put={view.key: record}
        )
    return _given_up(pool, view, now)


def _validating(pool: PoolView, view: NodeView, now: datetime, ids: Iterator[str]) -> Decision:
    if view.status in HEALTHY_ENOUGH and view.record.registration is not None:
        return _activate(pool, view, now)
    if view.failed:
        # One that was adopted may hold work: it leaves as any node in use does.
        adopted = view.record.launch is None
        return replacement.failed(pool, view, now, ids) if adopted else _reject(pool, view, now)
    if view.verdict is not None and view.verdict.was_well and not view.gone:
        return Blocked(view.node, Why("silent", "it was found healthy and fell silent before it was taken into use"))
    given_up = _given_up(pool, view, now)
    if given_up is not None:
        return _not_proven(pool, view, now) or given_up
    return Blocked(view.node, Why("validating", f"waits for health, which finds it {view.status.value}", "health"))


def _not_proven(pool: PoolView, view: NodeView, now: datetime) -> Blocked | None:
    """Its time is up, and yet nothing was proven against it: nobody was there to judge it; or it is not heard, which is no
    proof before the deadline of silence is over."""
    if view.gone:
        return None
    if pool.unattended:
        why = "its time is up, but health was not there to find it healthy: no copy of it has heard for long enough yet"
        return Blocked(view.node, Why("health-away", why, "health"))
    since = view.record.phase_since
    heard_at = view.work.at if view.work.at is not None and view.work.at >= since else None
    silent_for = now - (heard_at or since)
    spoke = heard_at is not None and silent_for <= pool.settings.heartbeat_timeout
    if spoke or silent_for >= pool.settings.silence_deadline:
        return None
    seconds = silent_for.total_seconds()
    return Blocked(
        view.node, Why("silent", f"it has not been heard for {seconds:.0f} s: its time is up only after more of that")
    )


def _activate(pool: PoolView, view: NodeView, now: datetime) -> Step:
    why = Why("active", f"registered, and found {view.status.value}")
    changed = lifecycle.activated(view.record, pool.cluster, why, now)
    proven, closed = breaker.proven(pool, supply.proven(pool, now), view, now)
    expect, put = supply.writes(pool, proven if proven != pool.supply else None)
    replaced = view.record.replaces
    return Step(
        "activate", view.node, why, expect={**view.expect(), **expect}, put={view.key: changed.record, **put},
        emit=(*changed.events, *closed), refund=budget.refund(pool, replaced) if replaced else (), trace=view.record.trace,
    )  # fmt: skip


def _given_up(pool: PoolView, view: NodeView, now: datetime) -> Decision:
    """A machine that is gone, or too late, before it was ever usable."""
    if pool.safe_mode or pool.config is None:
        return None
    if view.gone:
        why = Why("provider-gone", "its provider says that the machine is gone before it was usable")
        changed = lifecycle.terminated(view.record, pool.cluster, why, now)
        return _failed_start(pool, view, changed, why, now, gone=True)
    why_late = lifecycle.overdue(view.record, now, pool.config.registration_timeout, rebuilt_at=pool.rebuilt_at)
    if why_late is None or not pool.settled(now):
        return None
    if view.node in pool.unread:
        return Blocked(view.node, Why("report-waits", "its time is up, and a report of it waits to be taken in"))
    held = gates.held(pool, view, now)
    if held is not None:
        return Blocked(view.node, held)
    return _failed_start(
        pool, view, lifecycle.registration_timeout(view.record, pool.cluster, why_late, now), why_late, now
    )


def _reject(pool: PoolView, view: NodeView, now: datetime) -> Decision:
    """A new machine that is broken before it took any work goes back at once."""
    why = replacement.why_failed(view)
    forbidden = gates.no_ending(pool, now, view)
    if forbidden is not None:
        return Blocked(view.node, forbidden)
    changed = lifecycle.terminating(view.record, pool.cluster, why, now)
    step = _failed_start(pool, view, changed, why, now)
    return replace(step, act="terminate", call="terminate", expect={**step.expect, **pool.expect_pool()})


def _failed_start(
    pool: PoolView, view: NodeView, changed: Changed, why: Why, now: datetime, *, gone: bool = False
) -> Step:
    """Launches that come to nothing make the next one wait, or a bad image would be launched for ever."""
    record, events = supply.failed(pool, why, now)
    record, opened = breaker.failed_start(pool, record, view.node, now, gone=gone)
    expect, put = supply.writes(pool, record)
    return Step(
        "terminated" if gone else "give-up", view.node, why,
        expect={**view.expect(), **expect}, put={view.key: changed.record, **put},
        emit=(*changed.events, *events, *opened),
        refund=limits.machine_gone(pool, view.record) if gone else (), trace=view.record.trace,
    )  # fmt: skip


def _active(pool: PoolView, view: NodeView, now: datetime, ids: Iterator[str]) -> Decision:
    if view.failed:
        return replacement.failed(pool, view, now, ids)
    held = replacement.HEALTH in view.record.cordons
    verdict = view.verdict
    if verdict is not None and (verdict.status is HealthStatus.UNHEALTHY or verdict.silent_since is not None):
        return _distrusted(pool, view, now, held=held)
    if held and view.status in HEALTHY_ENOUGH:
        return replacement.uncordon(pool, view, now)
    if view.gone:
        return _ask(pool, view, now, Why("gone-unconfirmed", "its provider says that it is gone: health judges"))
    return replacement.wish_under_way(pool, view, now, ids)


def _distrusted(pool: PoolView, view: NodeView, now: datetime, *, held: bool) -> Decision:
    """Silent, or unhealthy in a way that no replacement cures: cordoned, and its provider asked what it knows."""
    verdict = view.verdict
    assert verdict is not None
    silent = verdict.silent_since is not None
    why = Why(verdict.code, verdict.reason or f"health finds it {verdict.status.value}", replacement.HEALTH)
    if not held:
        return replacement.cordon(pool, view, why, now, ask=silent)
    instance = view.record.instance
    if silent and instance is not None and instance.state_at < verdict.since:
        return _ask(pool, view, now, Why("ask-provider", f"silent: asks {instance.provider} whether it still runs"))
    if silent and instance is not None:
        text = (
            f"{instance.provider} says that its machine is {instance.state.value}: health probes it until the deadline"
        )
        why = Why("silent", text, replacement.HEALTH)
    return Blocked(view.node, why)


def _ask(pool: PoolView, view: NodeView, now: datetime, why: Why) -> Decision:
    if _rests(pool, view, now, "ask"):
        return Blocked(view.node, why)
    return Step("ask", view.node, why, call="ask", trace=view.record.trace)


def _draining(pool: PoolView, view: NodeView, now: datetime, ids: Iterator[str]) -> Decision:
    progress = view.record.drain
    assert progress is not None, f"{view.node} drains without a record of it"
    if not progress.then_terminate:
        return _emptying(pool, view, now)
    if progress.cause == sizing.HOLDER:
        return _scaling_down(pool, view, now)
    return replacement.leaving(pool, view, now, ids)


def _emptying(pool: PoolView, view: NodeView, now: datetime) -> Decision:
    """An operator's drain: the node stays, empty and cordoned."""
    if view.failed:
        # The fault takes over: a broken node is not kept because somebody wanted it empty.
        why = replacement.why_failed(view)
        record = enter(view.record, Phase.ACTIVE, why, now, drain=None)
        return Step("cancel", view.node, why, expect=view.expect(), put={view.key: record})
    over = drain.ended(view, pool, now)
    if over is None:
        return Blocked(view.node, drain.held_up(view, pool, now))
    done = drain.done(view, pool, over[0], now, forced=over[1])
    answers = conclude(done.record.answers, "failed" if over[1] else "done", over[0], now)
    record = structs.replace(done.record, phase=Phase.ACTIVE, phase_since=now, answers=answers)
    return Step("drain", view.node, over[0], expect=view.expect(), put={view.key: record}, emit=done.events)


def _scaling_down(pool: PoolView, view: NodeView, now: datetime) -> Decision:
    """Cordoned because it was idle: once a later heartbeat says that it still is, it goes."""
    progress = view.record.drain
    assert progress is not None
    force = pool.config is not None and pool.config.scale_down.force
    idle = drain.proven_idle(view, pool, now, since=progress.since)
    if idle is False and not force:
        return sizing.call_off(pool, view, Why("found-work", f"it found work: {view.work.text}"), now)
    usable = sum(1 for other in pool.living if other.usable and pool.replacement_of(other) is None)
    if pool.desired is not None and usable < pool.target:
        return sizing.call_off(pool, view, Why("wanted-again", f"{sizing.wanted(pool)} now"), now)
    expired = now >= progress.deadline
    if idle is None and expired and not force:
        return sizing.call_off(pool, view, Why("idle-unproven", "nothing was heard of its work in time"), now)
    if idle is not True and not expired:
        return Blocked(view.node, drain.held_up(view, pool, now))
    forbidden = gates.no_disruption(pool, now, view)
    if forbidden is not None:
        return Blocked(view.node, forbidden)
    why = Why("scale-down", f"{sizing.wanted(pool)}, and no process holds its GPUs")
    done = drain.done(view, pool, why, now, forced=idle is not True)
    changed = lifecycle.terminating(done.record, pool.cluster, why, now)
    return Step(
        "terminate", view.node, why, expect={**view.expect(), **pool.expect_pool()}, put={view.key: changed.record},
        emit=(*done.events, *changed.events), call="terminate", trace=view.record.trace,
        cost_per_hour=-wishes.price(view.record),
    )  # fmt: skip


def _timed_out(pool: PoolView, view: NodeView, now: datetime, _: Iterator[str]) -> Decision:
    if view.gone or view.record.instance is None:
        return _ended(pool, view, Why("provider-gone", "its machine is gone"), now)
    if pool.config is None:
        return Blocked(view.node, Why("retiring", f"pool {pool.pool} left the configuration: nothing is terminated"))
    forbidden = gates.no_termination(pool, now) or gates.held(pool, view, now)
    if forbidden is not None:
        return Blocked(view.node, forbidden)
    why = Why("registration-timeout", "it never became usable: its machine is ended")
    changed = lifecycle.terminating(view.record, pool.cluster, why, now)
    return Step(
        "terminate", view.node, why, expect={**view.expect(), **pool.expect_guards()}, put={view.key: changed.record},
        emit=changed.events, call="terminate", trace=view.record.trace,
    )  # fmt: skip


def _terminating(pool: PoolView, view: NodeView, now: datetime, _: Iterator[str]) -> Decision:
    """Decided and not yet done: the call is made, again and again, until the machine is gone."""
    if view.gone or view.record.instance is None:
        successor = view.record.replaced_by
        text = f"its machine is gone; {successor} replaces it" if successor else "its machine is gone"
        return _ended(pool, view, Why("terminated", text), now)
    forbidden = gates.no_termination(pool, now)
    if forbidden is not None:
        return Blocked(view.node, forbidden)
    why = Why("terminating", f"asks {view.record.instance.provider} to end its machine")
    if _rests(pool, view, now, "terminate"):
        return Blocked(view.node, why)
    return Step("terminate", view.node, why, call="terminate", trace=view.record.trace)


def _ended(pool: PoolView, view: NodeView, why: Why, now: datetime) -> Step:
    """The end of a node. Its place in the budget goes back with it, unless its replacement is still on its way."""
    changed = lifecycle.terminated(view.record, pool.cluster, why, now)
    expect, commands_left = _commands_of(pool, view)
    return Step(
        "terminated", view.node, why, expect={**view.expect(), **expect},
        put={view.key: changed.record}, delete=commands_left, emit=changed.events,
        refund=(*replacement.refund_unless_coming(pool, view), *limits.machine_gone(pool, view.record)),
        trace=view.record.trace,
    )  # fmt: skip


def _kept(pool: PoolView, view: NodeView, now: datetime, _: Iterator[str]) -> Decision:  # noqa: ARG001
    """Quarantined or under repair: nobody but an operator moves it."""
    return None


_BY_PHASE = {
    Phase.PLANNED: _planned,
    Phase.LAUNCHING: _unproven,
    Phase.LAUNCH_UNKNOWN: _unproven,
    Phase.BOOTING: _booting,
    Phase.VALIDATING: _validating,
    Phase.ACTIVE: _active,
    Phase.DRAINING: _draining,
    Phase.REGISTRATION_TIMEOUT: _timed_out,
    Phase.TERMINATING: _terminating,
    Phase.REPAIRING: _kept,
    Phase.QUARANTINED: _kept,
}


# --- the pool as a whole ---


def _size(pool: PoolView, now: datetime, ids: Iterator[str]) -> tuple[list[Step], list[Blocked]]:
    up = sizing.scale_up(pool, now, ids)
    if isinstance(up, Blocked):
        return [], [up]
    if up and pool.config is not None and pool.config.automation != "act":
        up = [changes.merged(up)]
    steps, blocked = (up, []) if up else sizing.surplus(pool, now)
    taken = [changes.restrain(pool, step, now) for step in steps]
    waiting = [decision for decision in taken if isinstance(decision, Blocked)]
    return [decision for decision in taken if isinstance(decision, Step)], [*blocked, *waiting]


def _refunds(pool: PoolView) -> list[Step]:
    """The net below the budget: places whose holder needs them no more."""
    why = Why("budget-returned", "its replacement is no longer under way")
    steps = [Step("refund", holder, why, refund=budget.refund(pool, holder)) for holder in budget.leftovers(pool)]
    why = Why("place-returned", "its machine is gone")
    steps += [Step("refund", node, why, refund=refund) for node, refund in limits.leftovers(pool)]
    why = Why("counted", "its machine was there before the limit")
    return steps + [Step("count", node, why, spend=spend) for node, spend in limits.uncounted(pool)]


def _notes(
    pool: PoolView, blocked: list[Blocked], touched: set[str], now: datetime, *, pool_written: bool
) -> list[Step]:
    """What is waited for becomes part of the records, so that `navarch explain` can say it."""
    steps = []
    reasons = {block.node: block.why for block in blocked}
    for view in pool.nodes.values():
        if view.node in touched or view.phase in ENDED or view.node in pool.in_flight:
            continue
        why, before = reasons.get(view.node), view.record.blocked
        if _same(why, before):
            continue
        record = structs.replace(view.record, blocked=why.reason(now) if why else None)
        steps.append(Step("note", view.node, why or FREE, expect={view.key: view.revision}, put={view.key: record}))
    # A step before has changed the pool's record: what is noted then is decided anew on it.
    return [*steps, *([] if pool_written else _note_pool(pool, reasons.get(""), blocked, now))]


def _limits_reached(blocked: list[Blocked]) -> dict[str, Why]:
    return {block.why.limit: block.why for block in blocked if block.why.limit}


def _same(why: Why | None, before: Reason | None) -> bool:
    if why is None or before is None:
        return why is None and before is None
    return (why.code, why.text[:1024]) == (before.code, before.text)


def _note_pool(pool: PoolView, why: Why | None, blocked: list[Blocked], now: datetime) -> list[Step]:
    if pool.supply is None:
        return []
    reached, told = _limits_reached(blocked), pool.supply.limits
    held = [block.change for block in blocked if block.change is not None]
    record, events = changes.note_held(pool, pool.supply, held, now)
    if _same(why, record.blocked) and set(told) == set(reached) and record == pool.supply:
        return []
    record = structs.replace(
        record,
        blocked=why.reason(now) if why else None,
        limits={key: told.get(key, now) for key in sorted(reached)},
    )
    events += tuple(
        tell_pool(kinds.LimitReached, pool.pool, pool.cluster, found, now, limit=key)
        for key, found in sorted(reached.items())
        if key not in told
    )
    return [
        Step("note", "", why or FREE, expect=pool.expect_supply(), put={SUPPLY.key(pool.pool): record}, emit=events)
    ]
