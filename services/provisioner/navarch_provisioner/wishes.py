"""What operators and schedulers ask of one node, and what comes of it. Pure.

A wish is answered in the node's own record: `accepted` while it is under way, then `done`, `refused`, `failed` or
`expired`. A refusal says what to do instead.
"""

from datetime import datetime

from msgspec import structs

from navarch_common.events import kinds
from navarch_common.model.node import ENDED, Cordon, NodeRecord, Phase
from navarch_common.model.wish import Outcome, Wish
from navarch_provisioner import drain, gates, lifecycle
from navarch_provisioner.answers import answer, conclude
from navarch_provisioner.news import Why, enter, note, tell
from navarch_provisioner.steps import Blocked, Step
from navarch_provisioner.view import NodeView, PoolView

GIVEN_UP = ENDED | {Phase.TERMINATING, Phase.REGISTRATION_TIMEOUT}


def accepted(view: NodeView, verb: str) -> Wish | None:
    """The wish of this verb that is under way."""
    for wish in view.open_wishes:
        if wish.verb == verb and wish.id in view.record.answers:
            return wish
    return None


def next_wish(view: NodeView) -> Wish | None:
    """The oldest wish that has no answer at all."""
    return next((wish for wish in view.open_wishes if wish.id not in view.record.answers), None)


def decide(pool: PoolView, view: NodeView, wish: Wish, now: datetime) -> Step | Blocked:
    """What becomes of a wish that was not answered yet. `replace` alone is decided in `replacement`."""
    if wish.expires_at <= now:
        return _say(view, wish, "expired", Why("expired", "nobody could act on it in time", wish.actor), now)
    if view.phase in GIVEN_UP:
        return _on_the_way_out(view, wish, now)
    if wish.verb == "cordon":
        return _cordon(pool, view, wish, now)
    if wish.verb == "uncordon":
        return _uncordon(pool, view, wish, now)
    if wish.verb == "drain":
        return _drain(pool, view, wish, now)
    if wish.verb == "terminate":
        return _terminate(pool, view, wish, now)
    return _say(view, wish, "refused", Why("unknown-verb", f"no node can be asked to {wish.verb}", wish.actor), now)


def refuse(view: NodeView, wish: Wish, code: str, text: str, now: datetime) -> Step:
    return _say(view, wish, "refused", Why(code, text, wish.actor), now)


def _say(view: NodeView, wish: Wish, outcome: Outcome, why: Why, now: datetime) -> Step:
    answers = answer(view.record.answers, wish.id, outcome, why, now)
    record = structs.replace(view.record, answers=answers)
    said = Why(why.code, f"{wish.actor} asked to {wish.verb} it: {why.text}", wish.actor)
    if view.phase not in ENDED:
        record = note(record, said, now, blocked=record.blocked)
    return Step("answer", view.node, said, expect=view.expect(), put={view.key: record})


def _on_the_way_out(view: NodeView, wish: Wish, now: datetime) -> Step:
    if wish.verb == "terminate":
        outcome: Outcome = "done" if view.phase in ENDED else "accepted"
        return _say(view, wish, outcome, Why(f"already-{slug(view)}", f"it is {view.phase} already"), now)
    return refuse(view, wish, f"already-{slug(view)}", f"it is {view.phase} already", now)


def slug(view: NodeView) -> str:
    return view.phase.value.replace("_", "-")


def asked(wish: Wish) -> str:
    """`operator:ada asked to drain it: fan noise`."""
    return f"{wish.actor} asked to {wish.verb} it" + (f": {wish.reason}" if wish.reason else "")


def _why(wish: Wish, code: str) -> Why:
    return Why(code, asked(wish), wish.actor)


def _cordon(pool: PoolView, view: NodeView, wish: Wish, now: datetime) -> Step:
    why = _why(wish, "cordoned")
    held = view.record.cordons.get(wish.actor)
    if held is not None and not wish.reason:
        text = "it takes no new work already: the cordon that you hold stays as it is"
        return _say(view, wish, "done", Why("already-cordoned", text, wish.actor), now)
    cordons = {**view.record.cordons, wish.actor: Cordon(reason=wish.reason or why.text, at=now)}
    answers = answer(view.record.answers, wish.id, "done", Why("cordoned", "it takes no new work", wish.actor), now)
    record = note(view.record, why, now, cordons=cordons, answers=answers, blocked=view.record.blocked)
    event = tell(kinds.NodeCordoned, record, pool.cluster, why, now, holder=wish.actor)
    return Step("cordon", view.node, why, expect=view.expect(), put={view.key: record}, emit=(event,))


def is_operators(holder: str) -> bool:
    """Cordons that people and schedulers set: any of them may lift another's, none may lift an automation's."""
    return holder.startswith(("operator", "kubernetes", "slurm"))


def _uncordon(pool: PoolView, view: NodeView, wish: Wish, now: datetime) -> Step:
    """Lifts what operators hold, and calls off a drain that an operator asked for. What health holds stays."""
    why = _why(wish, "uncordoned")
    stays = {holder: cordon for holder, cordon in view.record.cordons.items() if not is_operators(holder)}
    still = f"still cordoned by {', '.join(sorted(stays))}" if stays else "it takes work again"
    draining = view.phase is Phase.DRAINING and view.record.drain is not None and not view.record.drain.then_terminate
    answers = answer(view.record.answers, wish.id, "done", Why("uncordoned", still, wish.actor), now)
    if draining:
        called_off = Why("uncordoned", "called off by uncordon", wish.actor)
        answers = conclude(answers, "failed", called_off, now)
        record = enter(view.record, Phase.ACTIVE, why, now, cordons=stays, drain=None, answers=answers)
    else:
        record = note(view.record, why, now, cordons=stays, answers=answers, blocked=view.record.blocked)
    lifted = sorted(set(view.record.cordons) - set(stays))
    events = tuple(
        tell(kinds.NodeUncordoned, record, pool.cluster, why, now, holder=holder, still_held_by=tuple(sorted(stays)))
        for holder in lifted
    )
    return Step("uncordon", view.node, why, expect=view.expect(), put={view.key: record}, emit=events)


def _drain(pool: PoolView, view: NodeView, wish: Wish, now: datetime) -> Step:
    if view.phase is not Phase.ACTIVE:
        text = f"only an active node can be drained; it is {view.phase}"
        return refuse(view, wish, f"not-active-{slug(view)}", text, now)
    why = _why(wish, "draining")
    answers = answer(view.record.answers, wish.id, "accepted", Why("draining", "waiting for its work to leave"), now)
    cordons = {**view.record.cordons, wish.actor: Cordon(reason=wish.reason or why.text, at=now)}
    base = structs.replace(view.record, cordons=cordons, answers=answers)
    changed = drain.begin(base, "operator", pool, why, now, then_terminate=False)
    return Step("drain", view.node, why, expect=view.expect(), put={view.key: changed.record}, emit=changed.events)


def _terminate(pool: PoolView, view: NodeView, wish: Wish, now: datetime) -> Step | Blocked:
    why = _why(wish, "terminate-wished")
    if view.phase is Phase.PLANNED:
        kept = gates.no_dropping(pool)
        if kept is not None:
            return Blocked(view.node, kept)
        given_up = lifecycle.launch_failed(
            structs.replace(view.record, answers=answer(view.record.answers, wish.id, "accepted", why, now)),
            pool.cluster, Why("cancelled", why.text, wish.actor), now,
        )  # fmt: skip
        return Step(
            "give-up", view.node, why, expect=view.expect(), put={view.key: given_up.record}, emit=given_up.events
        )
    if not lifecycle.may_follow(view.phase, Phase.TERMINATING):
        return Blocked(view.node, Why("launch-unknown", "it must first be known whether its launch made a machine"))
    if view.phase in (Phase.ACTIVE, Phase.DRAINING) and not wish.force and not view.gone:
        busy = _busy(view, pool, now)
        if busy is not None:
            return refuse(view, wish, busy.code, busy.text, now)
    held = None if wish.force else gates.held(pool, view, now)
    if held is not None:
        return refuse(view, wish, held.code, f"{held.text}; release it, or use --force", now)
    forbidden = gates.no_termination(pool, now)
    if forbidden is not None:
        return Blocked(view.node, forbidden)
    answers = answer(view.record.answers, wish.id, "accepted", Why("terminating", "its machine is being ended"), now)
    changed = lifecycle.terminating(structs.replace(view.record, answers=answers), pool.cluster, why, now)
    return Step(
        "terminate", view.node, why,
        expect={**view.expect(), **pool.expect_guards()}, put={view.key: changed.record}, emit=changed.events,
        cost_per_hour=-price(view.record),
    )  # fmt: skip


def _busy(view: NodeView, pool: PoolView, now: datetime) -> Why | None:
    idle = drain.proven_idle(view, pool, now)
    if idle:
        return None
    if idle is None:
        return Why("not-known-idle", "nothing was heard of its work lately; --force terminates it all the same")
    return Why("busy", f"it is busy: {view.work.text or 'work is running'}; drain it first, or use --force")


def price(record: NodeRecord) -> float:
    """What its machine costs an hour, as far as its provider told."""
    return record.instance.price_per_hour or 0.0 if record.instance else 0.0
