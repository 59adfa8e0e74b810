"""Folds one health report into a node's record: observations become episodes, episodes are judged, the worst wins.

Folding the same report again changes nothing, and neither does the order of reports. Faults of applications (rules
whose result is healthy) leave their episodes and no verdict, however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import structs

from navarch_common.events.messages import HealthReport, Observation
from navarch_common.model.base import Reason
from navarch_common.model.health import EntityVerdict, Evidence, HealthRecord, HealthStatus
from navarch_common.model.node import NodeRecord
from navarch_common.xid.catalogue import Severity
from navarch_common.xid.lines import escape_control
from navarch_health import episodes as folding
from navarch_health.facts import DRIVER_VERDICT, ENDED, READINGS, Subject, facts_of, subject_of
from navarch_health.policy import Facts, Judge, Judgement, Rule
from navarch_health.verdict import ENTITIES_MAX, NODE, Change, Context, on_its_way_out, settle, worse

BOOTS_MAX: Final = 8
"""How many boots' sequences are kept."""
TEXT_MAX: Final = 1000
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the pool's settings say of readings."""

    unhealthy_after: int = 2
    """Consecutive unhealthy readings of a polled check that condemn."""
    reading_gap: timedelta = timedelta(minutes=3)
    """Readings further apart than this are not consecutive."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One observation with all that it is judged by."""

    observation: Observation
    subject: Subject
    facts: Facts
    report: HealthReport
    node: NodeRecord
    context: Context

    @property
    def is_reading(self) -> bool:
        return self.observation.event_type in READINGS

    @property
    def has_ended(self) -> bool:
        return self.observation.metrics.get(ENDED) is True

    @property
    def is_drivers_word(self) -> bool:
        return self.subject.code == DRIVER_VERDICT


@dataclass(slots=True)
class Folded:
    """What came of a report."""

    change: Change | None
    """None: it said nothing new."""
    xids: list[str] = field(default_factory=list)
    """Xids that were new, for the counter: their codes, `unlisted` for those that no catalogue knows."""
    shadow: list[str] = field(default_factory=list)
    rule_errors: list[str] = field(default_factory=list)


def fold_report(
    before: HealthRecord,
    node: NodeRecord,
    report: HealthReport,
    judge: Judge,
    limits: Limits,
    context: Context,
) -> Folded:
    """`before` is of the node's generation, and so is `report`: the shell saw to it."""
    folded = Folded(None)
    draft, told = before, None
    gpus = () if node.registration is None else node.registration.gpus
    past = _is_past(before, node, report.boot_id)
    for place, seen in enumerate(report.observations):
        observation = _in_time(seen)
        subject = subject_of(observation, gpus)
        line = folding.Line(
            entity=subject.entity,
            code=subject.code,
            boot_id=report.boot_id,
            at=observation.at,
            number=folding.line_number(report.sequence, place),
        )
        known = folding.fold(draft.episodes, line)
        if known is draft.episodes:
            continue
        overtaken = (subject.lasting or subject.code == DRIVER_VERDICT) and _is_overtaken(draft, line)
        opened = len(known) != len(draft.episodes)
        draft = structs.replace(draft, episodes=known)
        facts = facts_of(observation, subject, node, draft, folding.of(known, subject.entity, subject.code))
        sighting = Sighting(observation, subject, facts, report, node, context)
        judgement = judge(facts)
        _count(folded, subject, judgement)
        if past and (judgement.rule is None or judgement.rule.action != "drain_and_replace"):
            continue  # the reboot since then has repaired it, or it was never more than a note
        if not overtaken:
            draft = _judged(draft, sighting, judgement.rule, limits)
        if opened:
            told = _reason(observation, subject, judgement, context)
    if draft is before:
        return folded
    folded.change = settle(before, _with_sequence(draft, report), node, context, told=told)
    return folded


def _judged(draft: HealthRecord, sighting: Sighting, rule: Rule | None, limits: Limits) -> HealthRecord:
    """`draft` with what `rule` makes of the sighting: worse, calmer, or as it was."""
    key = sighting.subject.verdict_key
    standing = draft.entities.get(key)
    if sighting.has_ended or rule is None or rule.result == "healthy":
        return draft if standing is None else _taken_back(draft, key, standing, sighting)
    if standing is None and len(draft.entities) >= ENTITIES_MAX - 4:
        key, standing = NODE, draft.entities.get(NODE)
    verdict = _verdict(rule, sighting)
    if sighting.is_reading:
        verdict = _read(verdict, standing, sighting.observation, rule, limits)
    elif sighting.is_drivers_word and not on_its_way_out(draft, sighting.node):
        standing = None  # the driver's newest word replaces its earlier one
    merged = verdict if standing is None else worse(standing, verdict)
    if verdict.clears_at is not None and merged.clears_at is not None:
        merged = structs.replace(merged, clears_at=max(merged.clears_at, verdict.clears_at))
    if sighting.is_reading:
        merged = structs.replace(merged, readings=verdict.readings, read_at=verdict.read_at)
    return structs.replace(draft, entities={**draft.entities, key: merged})


def _taken_back(draft: HealthRecord, key: str, standing: EntityVerdict, sighting: Sighting) -> HealthRecord:
    """The driver takes back its own word, and an agent says that a condition is over; a calm reading breaks a row of
    bad ones. Nothing else is taken back here."""
    if (sighting.is_drivers_word or sighting.has_ended) and not on_its_way_out(draft, sighting.node):
        return structs.replace(draft, entities={k: v for k, v in draft.entities.items() if k != key})
    if sighting.is_reading and standing.readings:
        calm = structs.replace(standing, readings=0, read_at=sighting.observation.at)
        return structs.replace(draft, entities={**draft.entities, key: calm})
    return draft


def _verdict(rule: Rule, sighting: Sighting) -> EntityVerdict:
    observation, code, now = sighting.observation, sighting.subject.code, sighting.context.now
    text = escape_control(observation.message)[:TEXT_MAX]
    sequence = sighting.report.sequence
    seen = Evidence(at=observation.at, source=observation.source, code=code, text=text, sequence=sequence)
    return EntityVerdict(
        status=HealthStatus(rule.result),
        action=rule.action,
        rule=rule.name,
        code=code,
        reason=_sentence(sighting, rule)[:TEXT_MAX],
        since=now,
        takes_work=rule.takes_work,
        boot_id=sighting.report.boot_id,
        clears_at=None if rule.clears_after is None else now + rule.clears_after,
        evidence=(seen,),
    )


def _read(
    verdict: EntityVerdict, standing: EntityVerdict | None, observation: Observation, rule: Rule, limits: Limits
) -> EntityVerdict:
    """A polled check condemns by its consecutive unhealthy readings; until then it degrades, for all to see."""
    if rule.result != "unhealthy":
        return structs.replace(verdict, readings=0, read_at=observation.at)
    before, read_at = (0, None) if standing is None else (standing.readings, standing.read_at)
    follows = read_at is not None and abs(observation.at - read_at) <= limits.reading_gap
    readings = before + 1 if follows else 1
    needed = limits.unhealthy_after if rule.after is None else 1
    if readings >= needed:
        return structs.replace(verdict, readings=readings, read_at=observation.at)
    return structs.replace(
        verdict,
        status=HealthStatus.DEGRADED,
        action="none",
        reason=f"{verdict.reason} (reading {readings} of {needed} in a row that condemn)"[:TEXT_MAX],
        clears_at=verdict.since + limits.reading_gap,
        readings=readings,
        read_at=observation.at,
    )


def _in_time(observation: Observation) -> Observation:
    """The same at a time that one can reckon with: in UTC where it has no zone, within the century where it is absurd."""
    at = observation.at if observation.at.tzinfo is not None else observation.at.replace(tzinfo=UTC)
    if EARLIEST <= at <= LATEST:
        return observation if at is observation.at else structs.replace(observation, at=at)
    return structs.replace(observation, at=EARLIEST if at < EARLIEST else LATEST)


def _is_overtaken(record: HealthRecord, line: folding.Line) -> bool:
    """A later word of the same is known already. Of what can be taken back the highest sequence wins."""
    own = (e for e in record.episodes if (e.entity, e.code, e.boot_id) == (line.entity, line.code, line.boot_id))
    return any(number > line.number for episode in own for number in episode.seen)


def _is_past(record: HealthRecord, node: NodeRecord, boot_id: str) -> bool:
    """Whether a boot is known to be over: another one has registered since. An unheard-of boot is not past but news."""
    current = "" if node.registration is None else node.registration.boot_id
    return bool(current) and boot_id != current and boot_id in record.sequences and record.boot_id == current


def _with_sequence(record: HealthRecord, report: HealthReport) -> HealthRecord:
    highest = max(report.sequence, record.sequences.get(report.boot_id, 0))
    sequences = {**record.sequences, report.boot_id: highest}
    if len(sequences) > BOOTS_MAX:
        keep = {record.boot_id, report.boot_id}
        others = [boot for boot in sequences if boot not in keep]
        for boot in others[: len(sequences) - BOOTS_MAX]:
            del sequences[boot]
    return structs.replace(record, sequences=sequences, boot_id=record.boot_id or report.boot_id)


def _count(folded: Folded, subject: Subject, judgement: Judgement) -> None:
    if subject.catalogue is not None and subject.code.startswith("xid-"):
        known = subject.catalogue.severity != Severity.UNCLASSIFIED
        folded.xids.append(str(subject.catalogue.code) if known else "unlisted")
    folded.shadow.extend(judgement.shadow)
    folded.rule_errors.extend(judgement.errors)


def _where(subject: Subject, observation: Observation) -> str:
    if subject.gpu is not None:
        return f"GPU {subject.gpu.index} ({subject.gpu.pci})" if subject.gpu.pci else f"GPU {subject.gpu.index}"
    if subject.entity.startswith("gpu:"):
        return f"the GPU at {observation.pci or subject.entity[4:]}, which is not in the node's inventory"
    return subject.entity.replace(":", " ")


def _what(subject: Subject, observation: Observation) -> str:
    if subject.catalogue is None:
        said = escape_control(observation.message)[:200]
        return f"{observation.event_type}: {said}" if said else observation.event_type
    kind = "Xid" if subject.code.startswith("xid-") else "SXid"
    return f"{kind} {subject.catalogue.code}, {subject.catalogue.name}"


def _sentence(sighting: Sighting, rule: Rule) -> str:
    observation, subject = sighting.observation, sighting.subject
    times = sighting.facts.history["episodes"]
    again = f", episode {times}" if isinstance(times, int) and times > 1 else ""
    injected = " (injected)" if observation.injected else ""
    return f"{_what(subject, observation)} on {_where(subject, observation)}{again}{injected}; rule {rule.name}"


def _reason(observation: Observation, subject: Subject, judgement: Judgement, context: Context) -> Reason:
    """What `explain` prints of a new episode, those of applications included: so that they are seen to be ignored."""
    rule = judgement.rule
    verdict = "no rule matches" if rule is None else f"rule {rule.name} says {rule.result}"
    if observation.metrics.get(ENDED) is True:
        verdict = "this is over"
    elif rule is not None and rule.action != "none":
        verdict += f", {rule.action.replace('_', ' ')}"
    text = f"{_what(subject, observation)} on {_where(subject, observation)}: {verdict}"
    return Reason(at=context.now, code=subject.code, text=text[:TEXT_MAX], actor="health", trace=context.trace)
