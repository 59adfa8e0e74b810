"""Whether a wish makes sense as things are known: it becomes a record, or is refused with a reason. Pure.

What is refused here is what would surprise the person who asks: a busy node, a frozen pool, a bound. The owner of the
thing wished for looks again when it acts, since things may have changed by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from msgspec import structs

from navarch_common.config import PoolConfig, format_duration
from navarch_common.events.kinds import OperatorAction
from navarch_common.events.messages import Heartbeat
from navarch_common.guards import held_text, hold_on, standing, until_text
from navarch_common.model.gpu import is_idle
from navarch_common.model.health import HealthRecord
from navarch_common.model.node import ENDED, LEAVING, NodeRecord, Phase, ProviderState
from navarch_common.model.pool import Change, Guard, PoolRecord, SupplyRecord
from navarch_common.model.wish import WISHES_MAX, Answer, ChangeWish, NodeVerb, NodeWishes, PoolWish, Wish
from navarch_gateway.asks import ChangeAsk, NodeAsk, PoolAsk
from navarch_gateway.refusal import Refused, conflict, invalid

KEEP_EXPIRED = timedelta(hours=1)
"""An expired wish stays so long for its owner to say so."""
MAY_WORK = frozenset({Phase.ACTIVE, Phase.DRAINING, Phase.REPAIRING, Phase.QUARANTINED})
"""Work may run on such a node: it has been usable."""
_OPERATOR = "operator:"


@dataclass(frozen=True, slots=True)
class Work:
    """What is known of the work on a node: its last heartbeat, and whether the next one is late."""

    sample: Heartbeat | None = None
    at: datetime | None = None
    late: bool = False

    @property
    def idle(self) -> bool | None:
        """None: not known, or no longer."""
        return None if self.sample is None or self.late else is_idle(self.sample.gpus)

    @property
    def busy_gpus(self) -> list[int]:
        return [] if self.sample is None else [gpu.index for gpu in self.sample.gpus if gpu.process_count]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    node: NodeRecord
    health: HealthRecord | None
    wishes: NodeWishes | None
    guards: Sequence[Guard]
    work: Work


@dataclass(frozen=True, slots=True)
class PoolFacts:
    pool: str
    config: PoolConfig | None
    """None where the pool has left the configuration."""
    record: PoolRecord | None
    latest: PoolWish | None
    """The wish of the same verb, if one is there."""
    guards: Sequence[Guard]
    nodes: int
    """Nodes that have not ended."""
    supply: SupplyRecord | None = None


@dataclass(frozen=True, slots=True)
class ChangeFacts:
    """A change that waits, or a node whose replacement is under way: what an operator approves or cancels."""

    pool: str
    name: str
    """The change's id, or the node's."""
    config: PoolConfig | None
    change: Change | None = None
    node: NodeRecord | None = None
    supply: SupplyRecord | None = None
    latest: ChangeWish | None = None


def wish_of(ask: NodeAsk | PoolAsk | ChangeAsk, request_id: str, actor: str, now: datetime) -> Wish:
    return Wish(
        id=request_id,
        verb=ask.verb,
        actor=actor,
        reason=ask.reason,
        at=now,
        expires_at=now + timedelta(seconds=ask.expires_in_s),
        force=ask.force if isinstance(ask, NodeAsk) else False,
        nodes=ask.nodes if isinstance(ask, PoolAsk) else None,
    )


def earlier(facts: NodeFacts | PoolFacts | ChangeFacts, request_id: str, verb: str) -> bool:
    """Whether the same request was accepted before. Raises `Refused` where the id was another request's."""
    open_wishes: Sequence[Wish]
    if isinstance(facts, NodeFacts):
        answers = facts.node.answers
        open_wishes = facts.wishes.wishes if facts.wishes else ()
    else:
        answers = facts.supply.answers if facts.supply else {}
        if isinstance(facts, PoolFacts) and facts.record is not None:
            answers = {**answers, **facts.record.answers}
        open_wishes = (facts.latest.wish,) if facts.latest else ()
    for wish in open_wishes:
        if wish.id == request_id:
            if wish.verb != verb:
                raise conflict("request-id-reused", f"request id {request_id} was used before, to {wish.verb}")
            return True
    return request_id in answers


def check_node_wish(facts: NodeFacts, ask: NodeAsk, now: datetime) -> str:
    """What the wish would do, in a sentence. Raises `Refused` where it makes no sense."""
    _check_phase(facts.node, ask.verb)
    _check_freeze(facts.guards, ask.verb, facts.node.pool, now)
    if ask.verb in ("replace", "terminate") and not ask.force:
        _check_hold(facts.guards, facts.node.pool, facts.node.node, now)
    match ask.verb:
        case "uncordon":
            _check_cordoned(facts)
        case "terminate" if not ask.force:
            _check_idle(facts)
    if facts.wishes is not None and len(open_of(facts, now)) >= WISHES_MAX:
        raise Refused(
            429,
            "too-many-wishes",
            f"{WISHES_MAX} wishes about {facts.node.node} are still unanswered; is its provisioner up?",
        )
    return _would(facts, ask)


def with_wish(facts: NodeFacts, wish: Wish, now: datetime) -> NodeWishes:
    """The record as it is to be written: answered wishes out, the new one in, oldest first."""
    return NodeWishes(node=facts.node.node, pool=facts.node.pool, wishes=(*open_of(facts, now), wish))


def open_of(facts: NodeFacts, now: datetime) -> tuple[Wish, ...]:
    return still_open(facts.wishes.wishes if facts.wishes else (), facts.node, now)


def still_open(wishes: Sequence[Wish], node: NodeRecord | None, now: datetime) -> tuple[Wish, ...]:
    """Wishes that still wait for their final answer. Those that expired long ago, or whose node is gone, wait no more."""
    answers = {} if node is None else node.answers
    gone = node is None or node.phase in ENDED
    return tuple(
        wish
        for wish in wishes
        if not is_final(answers.get(wish.id)) and now < wish.expires_at + (timedelta(0) if gone else KEEP_EXPIRED)
    )


def is_final(answer: Answer | None) -> bool:
    """Done, refused, failed or expired; `accepted` is under way."""
    return answer is not None and answer.outcome != "accepted"


def check_pool_wish(facts: PoolFacts, ask: PoolAsk, wish: Wish, now: datetime) -> tuple[Wish, str]:
    """The wish as it is to be written and what it would do, in a sentence. Raises `Refused` where it makes no sense."""
    if ask.verb != "scale":
        for name, value in (("nodes", ask.nodes), ("for_s", ask.for_s)):
            if value is not None:
                raise invalid("bad-field", f"{name} is for scale alone, and this is {ask.verb}", field=name)
        return wish, _check_breaker(facts) if ask.verb == "close-breaker" else _check_pause(facts, ask)
    if facts.config is None:
        raise conflict(
            "retiring", f"{facts.pool} has left the configuration: nothing is launched or terminated there any more"
        )
    if ask.nodes is None:
        raise invalid("bad-field", "scale needs nodes, the node count that is wanted", field="nodes")
    _check_bounds(facts.pool, facts.config, ask.nodes)
    current = facts.record.desired if facts.record else facts.nodes
    _check_hold(facts.guards, facts.pool, None, now)
    _check_scale_freeze(facts, current, ask.nodes, now)
    if facts.config.autoscaling is None:
        if ask.for_s is not None:
            raise invalid(
                "not-autoscaled",
                f"for_s says when autoscaling takes over again, and {facts.pool} has none",
                field="for_s",
            )
        return wish, f"{facts.pool} goes from {current} to {ask.nodes} nodes and stays there"
    hold = timedelta(seconds=ask.for_s) if ask.for_s is not None else facts.config.cooldown
    until = (
        f"for {format_duration(hold)}, then autoscaling takes over again" if hold else "until autoscaling next looks"
    )
    return structs.replace(
        wish, hold_until=now + hold
    ), f"{facts.pool} goes from {current} to {ask.nodes} nodes {until}"


def event_of(wish: Wish, cluster: str, pool: str, node: str = "") -> OperatorAction:
    """The event that tells of an accepted wish."""
    target = node or pool
    size = f" to {wish.nodes} nodes" if wish.nodes is not None else ""
    force = " by force" if wish.force else ""
    why = f": {wish.reason}" if wish.reason else ""
    return OperatorAction(
        at=wish.at,
        cluster=cluster,
        pool=pool,
        node=node,
        reason=f"{wish.actor} asked to {wish.verb} {target}{size}{force}{why}",
        code=wish.verb,
        actor=wish.actor,
        action=wish.verb,
        request_id=wish.id,
    )


def _check_phase(node: NodeRecord, verb: NodeVerb) -> None:
    if node.phase in ENDED:
        raise conflict("terminated", f"{node.node} has ended ({node.phase.value}); there is nothing left to {verb}")
    if node.phase in LEAVING:
        raise conflict("terminating", f"{node.node} is already being terminated ({node.phase.value})")
    if verb == "drain" and node.phase not in MAY_WORK:
        raise conflict(
            "not-active", f"{node.node} is still {node.phase.value} and holds no work to drain; terminate it instead"
        )
    if verb == "replace" and node.replaced_by is not None:
        raise conflict("already-replaced", f"{node.node} is already being replaced, by {node.replaced_by}")
    if verb == "replace" and node.phase not in MAY_WORK:
        raise conflict(
            "not-active", f"{node.node} is still {node.phase.value}; terminate it instead, and its pool gets another"
        )


_FORBIDDEN: dict[str, tuple[str, ...]] = {
    "drain": ("all",),
    "replace": ("launch", "terminate", "all"),
    "terminate": ("terminate", "all"),
    "scale-up": ("launch", "all"),
    "scale-down": ("terminate", "all"),
}
"""By verb, the levels of a freeze that forbid it. Cordons go on under every freeze."""


def _check_freeze(guards: Sequence[Guard], act: str, pool: str, now: datetime) -> None:
    for guard in standing(guards, now):
        if guard.level in _FORBIDDEN.get(act, ()) and guard.pool in (None, pool):
            scope = f"pool {guard.pool}" if guard.pool else "the cluster"
            raise conflict(
                "frozen",
                f"{act} is forbidden: {scope} is frozen (level {guard.level}) by {guard.actor}{until_text(guard)}: "
                f"{guard.reason}",
            )


def _check_hold(guards: Sequence[Guard], pool: str, node: str | None, now: datetime) -> None:
    guard = hold_on(guards, pool, node, now)
    if guard is not None:
        what = "release it first" if node is None else "release it, or use force"
        raise conflict("held", f"{held_text(guard)}; {what}")


def _check_scale_freeze(facts: PoolFacts, current: int, wanted: int, now: datetime) -> None:
    act: Literal["scale-up", "scale-down"] | None = (
        "scale-up" if wanted > current else "scale-down" if wanted < current else None
    )
    if act is not None:
        _check_freeze(facts.guards, act, facts.pool, now)


def _check_cordoned(facts: NodeFacts) -> None:
    holders = sorted(facts.node.cordons)
    asked = facts.wishes is not None and any(wish.verb == "cordon" for wish in facts.wishes.wishes)
    if asked or any(holder.startswith(_OPERATOR) for holder in holders):
        return
    if not holders:
        raise conflict("not-cordoned", f"{facts.node.node} is not cordoned")
    raise conflict(
        "not-cordoned",
        f"no operator cordoned {facts.node.node}: {', '.join(holders)} did, and lifts it when its reason is gone "
        f"({facts.node.cordons[holders[0]].reason})",
    )


def _check_idle(facts: NodeFacts) -> None:
    """Unknown is never idle; a machine that is gone, or whose fault took the work, holds none."""
    node, work = facts.node, facts.work
    gone = node.instance is not None and node.instance.state is ProviderState.GONE
    lost = facts.health is not None and facts.health.generation == node.generation and facts.health.takes_work
    drained = node.drain is not None and node.drain.drained_at is not None
    if node.phase not in MAY_WORK or gone or lost or drained or work.idle is True:
        return
    if work.idle is False:
        gpus = ", ".join(str(index) for index in work.busy_gpus[:8])
        raise conflict("busy", f"{node.node} is busy: processes hold GPU {gpus}; drain it first, or use force")
    heard = f"its last heartbeat came at {work.at:%H:%M:%S} UTC" if work.at else "it has sent no heartbeat"
    raise conflict(
        "busy",
        f"whether work runs on {node.node} is not known ({heard}, or a GPU could not be read); drain it first, or use force",
    )


def _check_bounds(pool: str, config: PoolConfig, nodes: int) -> None:
    if nodes < config.min_nodes:
        raise invalid(
            "out-of-bounds", f"{nodes} nodes is under the min_nodes {config.min_nodes} of {pool}", field="nodes"
        )
    if nodes > config.max_nodes:
        raise invalid(
            "out-of-bounds", f"{nodes} nodes is over the max_nodes {config.max_nodes} of {pool}", field="nodes"
        )


def _check_breaker(facts: PoolFacts) -> str:
    breaker = facts.supply.breaker if facts.supply else None
    if breaker is None:
        raise conflict("breaker-closed", f"the breaker of {facts.pool} is closed: nothing is stopped by it")
    return f"close the breaker of {facts.pool}, which is open since {breaker.since:%H:%M} UTC: {breaker.reason}"


def check_change_wish(facts: ChangeFacts, ask: ChangeAsk) -> str:
    """What the wish would do, in a sentence. Raises `Refused` where it makes no sense."""
    mode = facts.config.automation if facts.config else "act"
    if facts.change is not None:
        if mode != "approve":
            text = f"automation of {facts.pool} is {mode!r}: {facts.name} waits for nobody's word"
            raise conflict("not-waiting", text)
        return f"{ask.verb} {facts.name}: {facts.change.text}"
    assert facts.node is not None
    name = facts.node.node
    if ask.verb == "approve":
        raise conflict("not-waiting", f"nothing about {name} waits for approval")
    if facts.node.replaced_by is None or facts.node.phase not in (Phase.ACTIVE, Phase.DRAINING):
        raise conflict("not-replacing", f"no replacement of {name} is under way that could still be stopped")
    return (
        f"stop the replacement of {name} by {facts.node.replaced_by}, and hold {name}, cordoned, until it is released"
    )


def _check_pause(facts: PoolFacts, ask: PoolAsk) -> str:
    paused = facts.record.paused if facts.record else None
    if ask.verb == "pause":
        return f"{facts.pool} keeps its size until it is resumed; failed nodes are still replaced"
    if paused is None and not (facts.latest and facts.latest.wish.verb == "pause"):
        return f"{facts.pool} is not paused: nothing changes"
    return f"{facts.pool} is sized again"


def _would(facts: NodeFacts, ask: NodeAsk) -> str:
    name = facts.node.node
    match ask.verb:
        case "cordon":
            return f"keep new work off {name}; what runs there goes on"
        case "uncordon":
            rest = [holder for holder in sorted(facts.node.cordons) if not holder.startswith(_OPERATOR)]
            still = f"; it stays cordoned by {', '.join(rest)}" if rest else ""
            return f"let new work onto {name} again{still}"
        case "drain":
            return f"cordon {name}, wait until no process holds a GPU or the drain's deadline, and leave it cordoned"
        case "replace":
            return f"launch a replacement for {name} in pool {facts.node.pool}, drain {name}, and terminate it"
        case "terminate":
            how = "at once, with whatever runs there" if ask.force else "now that it is idle"
            return f"terminate {name} {how}; its pool {facts.node.pool} launches another if it is then short"
