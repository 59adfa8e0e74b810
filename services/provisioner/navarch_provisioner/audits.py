"""What a step, or the answer of a cloud, is in the books: who did what to which node, why, and what changed. Pure."""

from datetime import datetime

from navarch_common.events.audit import Audit, changed, facts
from navarch_common.model.node import NODE, NodeRecord
from navarch_provisioner.news import TEXT_MAX, Why, trace_id_of
from navarch_provisioner.outcomes import Outcome
from navarch_provisioner.steps import Act, Step
from navarch_provisioner.view import PoolView

AUDITED: frozenset[Act] = frozenset(
    {
        "cancel", "cordon", "drain", "give-up", "launch", "plan", "power-on", "replace", "retire", "terminate",
        "terminated", "uncordon",
    }
)  # fmt: skip
"""Acts that change what one pays for or works on; the rest is housekeeping."""
_FACTS = ("phase", "cordons", "replaces", "replaced_by", "failure_id")
_CALLED = frozenset({"launch", "terminate", "power-on"})


def of_step(step: Step, view: PoolView, now: datetime) -> Audit | None:
    """None for housekeeping."""
    if step.act not in AUDITED:
        return None
    before = view.nodes[step.node].record if step.node in view.nodes else None
    after = step.put.get(NODE.key(step.node))
    assert after is None or isinstance(after, NodeRecord)
    was, becomes = changed(_facts(before), _facts(after or before))
    return Audit(
        at=now, cluster=view.cluster, pool=view.pool, node=step.node, reason=step.why.text[:TEXT_MAX], code=step.why.code,
        actor=step.why.actor, trace_id=trace_id_of(step.trace), action=step.act,
        request_id=_answered(before, after), result="begun" if step.call in _CALLED else "done", before=was, after=becomes,
    )  # fmt: skip


def of_outcome(outcome: Outcome, step: Step, view: PoolView, now: datetime) -> Audit | None:
    """What came of a cloud call that spends or destroys. `step` is what makes it durable."""
    if outcome.call not in _CALLED:
        return None
    record = view.nodes[outcome.node].record if outcome.node in view.nodes else None
    machine = {"instance_id": outcome.machine.instance_id} if outcome.machine is not None else {}
    why = outcome.withheld or Why(step.why.code, step.why.text)
    return Audit(
        at=now, cluster=view.cluster, pool=view.pool, node=outcome.node, reason=why.text[:TEXT_MAX], code=why.code,
        actor="provisioner", trace_id=trace_id_of(record.trace if record is not None else ""), action=outcome.call,
        result=_result(outcome), after=machine,
    )  # fmt: skip


def _facts(record: NodeRecord | None) -> dict[str, str]:
    known = facts(record, *_FACTS)
    if record is not None and record.instance is not None:
        known["instance_id"] = record.instance.instance_id
    if record is not None and record.launch is not None:
        known["launch"] = f"{record.launch.request.provider} {record.launch.request.instance_type}"
    return known


def _answered(before: NodeRecord | None, after: NodeRecord | None) -> str:
    """The wish that the step answers."""
    known = before.answers if before is not None else {}
    return next((id_ for id_ in (after.answers if after is not None else {}) if id_ not in known), "")


def _result(outcome: Outcome) -> str:
    if outcome.withheld is not None:
        return "withheld"
    if outcome.unknown:
        return "unknown"
    if outcome.error is not None:
        return "refused"
    if outcome.call == "launch":
        return "made" if outcome.machine is not None else "unknown"
    return "ended" if outcome.certain else "done"
