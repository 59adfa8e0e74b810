"""Sizing one pool: what is known and `now` go in, the pool record as it should be and what to tell of it come out. Pure.

Order of rank: a hold on the pool, an open wish of an operator, a pause, an operator's hold, then the pool's strategy under the limiter.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import structs

from navarch_autoscaler.limits import Limits, Sized, already_raised, limit
from navarch_autoscaler.strategies.base import PoolInputs, Strategy
from navarch_common.config.pools import PoolConfig
from navarch_common.config.units import format_duration
from navarch_common.events.base import Event
from navarch_common.events.kinds import PoolPaused, PoolResized, PoolResumed
from navarch_common.guards import held_text
from navarch_common.model.base import Reason, with_reason
from navarch_common.model.pool import Guard, Opinion, Pause, PoolRecord
from navarch_common.model.wish import Answer, Outcome, Wish

ANSWERS_KEPT = 32
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sizing:
    """The record as it should be now, and the events that tell what changed. `changed` False: leave it alone."""

    record: PoolRecord
    events: tuple[Event, ...]
    changed: bool


def first_record(pool: str, config: PoolConfig, generation: int, now: datetime) -> PoolRecord:
    """The record of a pool that the configuration has just brought."""
    text = f"new in the configuration: starts with min_nodes {config.min_nodes}"
    reason = Reason(at=now, code="first-seen", text=text, actor="autoscaler")
    return PoolRecord(
        pool=pool,
        desired=config.min_nodes,
        actor="autoscaler",
        code="first-seen",
        reason=text,
        reasons=(reason,),
        config_generation=generation,
    )


def size(
    before: PoolRecord,
    config: PoolConfig,
    strategy: Strategy | None,
    inputs: PoolInputs,
    wishes: tuple[Wish, ...],
    *,
    cluster: str,
    generation: int,
    hold: Guard | None = None,
) -> Sizing:
    """One pass over one pool. `strategy` None: the pool has no autoscaling and is kept at its desired count. Under a
    `hold` its size stays as it is, whatever strategies, bounds and wishes say."""
    now = inputs.now
    record = before
    for wish in sorted(wishes, key=lambda wish: wish.at):
        if wish.id not in record.answers:
            record = _grant(record, wish, config, now, hold)
    record = _apply_strategy(record, config, strategy, inputs, hold)
    if hold is None:
        record = _keep_found(record, config, inputs)
    record = structs.replace(record, config_generation=generation)
    return Sizing(record, _events(before, record, now, cluster), _says_more(before, record))


def _grant(record: PoolRecord, wish: Wish, config: PoolConfig, now: datetime, hold: Guard | None = None) -> PoolRecord:
    if wish.expires_at <= now:
        return _answer(record, wish, now, "expired", "expired", "the wish expired before anyone could act on it")
    why = f": {wish.reason}" if wish.reason else ""
    if wish.verb == "pause":
        paused = record.paused or Pause(actor=wish.actor, reason=wish.reason, at=now)
        record = structs.replace(record, paused=paused)
        return _answer(record, wish, now, "done", "paused", "sizing is paused; healing goes on")
    if wish.verb == "resume":
        record = structs.replace(record, paused=None, hold_until=None)
        return _answer(record, wish, now, "done", "resumed", "sizing goes on")
    if hold is not None:
        return _answer(record, wish, now, "refused", "held", f"{held_text(hold)}; release it first")
    if wish.nodes is None or not config.min_nodes <= wish.nodes <= config.max_nodes:
        text = f"{wish.nodes} is outside min_nodes {config.min_nodes} .. max_nodes {config.max_nodes}"
        return _answer(record, wish, now, "refused", "out-of-bounds", text)
    hold_until = None
    until = ""
    if config.autoscaling is not None:
        hold_until = wish.hold_until or now + max(config.cooldown, timedelta(minutes=1))
        until = f", held until {hold_until:%H:%M:%S} UTC"
    text = f"{wish.actor} scaled the pool to {wish.nodes}{until}{why}"
    record = structs.replace(
        _desire(record, wish.nodes, "operator-scale", text, wish.actor, now), hold_until=hold_until
    )
    return _answer(record, wish, now, "done", "scaled", f"desired is {wish.nodes}{until}")


def _apply_strategy(
    record: PoolRecord,
    config: PoolConfig,
    strategy: Strategy | None,
    inputs: PoolInputs,
    hold: Guard | None = None,
) -> PoolRecord:
    now = inputs.now
    inputs = replace(inputs, desired=record.desired)
    opinions: tuple[Opinion, ...] = ()
    if strategy is not None and config.autoscaling is not None:
        opinions = (strategy(config.autoscaling, inputs),)
    record = structs.replace(record, opinions=opinions)
    if hold is not None:
        reason = Reason(at=hold.at, code="held", text=held_text(hold)[:1024], actor="autoscaler")
        return structs.replace(record, limited=reason)
    opinion = opinions[0] if opinions else Opinion(strategy="none", code="none", reason="kept at its desired count")
    held = _held(record, now)
    sized = limit(_silenced(opinion) if held else opinion, inputs, _limits(record, config))
    limited = held if held is not None else _limited(sized, now)
    if sized.desired != record.desired:
        text = opinion.reason if opinion.target is not None and not held else sized.limit_reason
        code = opinion.code if opinion.target is not None and not held else sized.limit
        if sized.limit and text != sized.limit_reason:
            text = f"{text}; {sized.limit_reason}"
        again = record.raised_from is not None and already_raised(inputs, record.raised_at)
        raised_from = record.raised_from if again else record.desired
        record = _desire(record, sized.desired, code, text, "autoscaler", now, raised_from)
    if record.hold_until is not None and record.hold_until <= now:
        record = structs.replace(record, hold_until=None)
    return structs.replace(record, limited=limited)


def _keep_found(record: PoolRecord, config: PoolConfig, inputs: PoolInputs) -> PoolRecord:
    """After the records were lost, every machine that is found again is wanted until fresh demand, or an operator, says
    otherwise: what was wanted before is forgotten, and machines at work must not go for that."""
    found = inputs.found
    if found is None or any(opinion.target is not None for opinion in record.opinions):
        return record
    asked_since = record.scaled_at is not None and record.scaled_at >= found.since
    if record.paused is not None or (asked_since and record.actor.startswith("operator")):
        return record
    wanted = min(max(found.nodes, config.min_nodes), config.max_nodes)
    # What was raised for a machine that turns out to be gone is lowered again.
    if wanted == record.desired or (wanted < record.desired and record.code != "safe-mode"):
        return record
    text = (
        f"safe mode: {found.nodes} machines were found again, and are kept until demand or an operator says otherwise"
    )
    return _desire(record, wanted, "safe-mode", text, "autoscaler", inputs.now)


def _silenced(opinion: Opinion) -> Opinion:
    """Heard, shown, and not acted on."""
    return structs.replace(opinion, target=None)


def _held(record: PoolRecord, now: datetime) -> Reason | None:
    if record.paused is not None:
        why = f": {record.paused.reason}" if record.paused.reason else ""
        return Reason(
            at=record.paused.at, code="paused", text=f"paused by {record.paused.actor}{why}", actor="autoscaler"
        )
    if record.hold_until is not None and record.hold_until > now:
        return Reason(
            at=record.scaled_at or now,
            code="operator-hold",
            text=f"an operator's size of {record.desired} holds until {record.hold_until:%H:%M:%S} UTC",
            actor="autoscaler",
        )
    return None


def _limits(record: PoolRecord, config: PoolConfig) -> Limits:
    return Limits(
        cooldown=config.cooldown,
        max_step_up=config.max_step_up,
        scaled_at=record.scaled_at,
        raised_at=record.raised_at,
        raised_from=record.raised_from,
    )


def _limited(sized: Sized, now: datetime) -> Reason | None:
    if not sized.limit:
        return None
    return Reason(at=now, code=sized.limit, text=sized.limit_reason, actor="autoscaler")


def _desire(
    record: PoolRecord, desired: int, code: str, text: str, actor: str, now: datetime, raised_from: int | None = None
) -> PoolRecord:
    raised = desired > record.desired
    reason = Reason(at=now, code=code, text=f"{record.desired} → {desired}: {text}"[:1024], actor=actor)
    return structs.replace(
        record,
        desired=desired,
        actor=actor,
        code=code,
        reason=text[:1024],
        scaled_at=now if desired != record.desired else record.scaled_at,
        raised_at=now if raised else record.raised_at,
        raised_from=(record.desired if raised_from is None else raised_from) if raised else record.raised_from,
        reasons=with_reason(record.reasons, reason),
    )


def _answer(record: PoolRecord, wish: Wish, now: datetime, outcome: Outcome, code: str, text: str) -> PoolRecord:
    answers = {**record.answers, wish.id: Answer(at=now, outcome=outcome, code=code, reason=text)}
    newest = dict(sorted(answers.items(), key=lambda item: item[1].at)[-ANSWERS_KEPT:])
    return structs.replace(record, answers=newest)


def _events(before: PoolRecord, after: PoolRecord, now: datetime, cluster: str) -> tuple[Event, ...]:
    common: dict[str, Any] = {"at": now, "cluster": cluster, "pool": after.pool}
    events: list[Event] = []
    if before.desired != after.desired:
        events.append(
            PoolResized(
                **common,
                before=before.desired,
                after=after.desired,
                reason=after.reason,
                code=after.code,
                actor=after.actor,
            )
        )
    if after.paused is not None and before.paused is None:
        reason = after.paused.reason or "sizing is paused"
        events.append(PoolPaused(**common, reason=reason, code="paused", actor=after.paused.actor))
    if before.paused is not None and after.paused is None:
        held = format_duration(timedelta(seconds=round((now - before.paused.at).total_seconds())))
        events.append(PoolResumed(**common, reason=f"sizing goes on after {held}", code="resumed", actor="autoscaler"))
    return tuple(events)


def _says_more(before: PoolRecord, after: PoolRecord) -> bool:
    """Whether the record is worth a write: anything but the wording of an unchanged opinion or limit."""
    return _gist(before) != _gist(after)


def _gist(record: PoolRecord) -> PoolRecord:
    opinions = tuple(structs.replace(opinion, reason="") for opinion in record.opinions)
    limited = None
    if record.limited is not None:
        limited = structs.replace(record.limited, text="", at=_NEVER)
    return structs.replace(record, opinions=opinions, limited=limited)
