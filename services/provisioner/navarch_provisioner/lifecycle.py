"""A node's life: which phase follows which, and what reports, the cloud's answers and deadlines make of a record. Pure.

Every function takes the record as it stands and returns the record as it should be; what is told of it comes along as
events. Nothing here decides *whether* a node should live: `plan` does.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from navarch_common.events import kinds
from navarch_common.model.cluster import CommandRecord, InboxRecord, InboxReport
from navarch_common.model.node import (
    ENDED,
    Instance,
    Launch,
    LaunchRequest,
    NodeRecord,
    Phase,
    ProviderState,
)
from navarch_provisioner.answers import conclude
from navarch_provisioner.bootstrap import provider_id
from navarch_provisioner.cloud.base import Machine
from navarch_provisioner.news import Changed, Why, enter, note, tell

FOLLOWS: dict[Phase, frozenset[Phase]] = {
    Phase.PLANNED: frozenset({Phase.LAUNCHING, Phase.BOOTING, Phase.LAUNCH_FAILED}),
    Phase.LAUNCHING: frozenset({Phase.BOOTING, Phase.LAUNCH_UNKNOWN, Phase.PLANNED, Phase.LAUNCH_FAILED}),
    Phase.LAUNCH_UNKNOWN: frozenset({Phase.BOOTING, Phase.PLANNED, Phase.LAUNCH_FAILED}),
    Phase.BOOTING: frozenset({Phase.VALIDATING, Phase.REGISTRATION_TIMEOUT, Phase.TERMINATING, Phase.TERMINATED}),
    Phase.VALIDATING: frozenset(
        {Phase.ACTIVE, Phase.DRAINING, Phase.REGISTRATION_TIMEOUT, Phase.TERMINATING, Phase.TERMINATED}
    ),
    Phase.ACTIVE: frozenset({Phase.DRAINING, Phase.TERMINATING, Phase.TERMINATED}),
    Phase.DRAINING: frozenset({Phase.ACTIVE, Phase.TERMINATING, Phase.TERMINATED}),
    Phase.REGISTRATION_TIMEOUT: frozenset({Phase.TERMINATING, Phase.TERMINATED}),
    Phase.TERMINATING: frozenset({Phase.TERMINATED}),
    Phase.REPAIRING: frozenset({Phase.ACTIVE, Phase.TERMINATING, Phase.TERMINATED}),
    Phase.QUARANTINED: frozenset({Phase.TERMINATING, Phase.TERMINATED}),
    Phase.TERMINATED: frozenset(),
    Phase.LAUNCH_FAILED: frozenset(),
}
"""Which phase may follow which. `terminating` is never left but for `terminated`."""
BOOTS_MAX: Final = 8
"""How many boots' registrations are remembered."""
UNPROVEN = frozenset({Phase.LAUNCHING, Phase.LAUNCH_UNKNOWN})
"""Whether there is a machine is not known."""


def may_follow(before: Phase, after: Phase) -> bool:
    return after in FOLLOWS[before]


def planned(
    request: LaunchRequest, why: Why, now: datetime, timeout: timedelta, *, replaces: str = "", trace: str = ""
) -> Changed:
    """A node that does not exist yet: the intent, written down before any cloud hears of it."""
    launch = Launch(request=request, intended_at=now, deadline=now + timeout)
    cause = why.text if replaces else ""
    if replaces:
        # What is wrong is wrong with the other node, and the sentence must not read otherwise.
        why = Why(why.code, f"replaces {replaces}: {why.text}", why.actor)
    record = NodeRecord(
        node=request.node,
        pool=request.pool,
        generation=request.generation,
        phase=Phase.PLANNED,
        phase_since=now,
        created_at=now,
        launch=launch,
        replaces=replaces or None,
        replacement_reason=cause,
        labels=request.labels,
        reasons=(why.reason(now, trace),),
        trace=trace,
    )
    event = tell(
        kinds.NodePlanned, record, request.cluster, why, now,
        replaces=replaces, provider=request.provider, instance_type=request.instance_type,
    )  # fmt: skip
    return Changed(record, (event,))


def launching(record: NodeRecord, why: Why, now: datetime, timeout: timedelta) -> NodeRecord:
    """The call is about to be made. From here on there may be a machine, whatever happens to us."""
    launch = require_launch(record)
    started = structs.replace(launch, called_at=now, deadline=now + timeout)
    return enter(record, Phase.LAUNCHING, why, now, launch=started)


def withdrawn(record: NodeRecord, why: Why, now: datetime) -> NodeRecord:
    """The call was forbidden at the last moment and was not made: there is certainly no machine."""
    launch = structs.replace(require_launch(record), called_at=None)
    return enter(record, Phase.PLANNED, why, now, launch=launch)


def unknown(record: NodeRecord, why: Why, now: datetime) -> NodeRecord:
    """Nobody knows whether the call made a machine. Nothing is asked for again before that is known."""
    launch = structs.replace(require_launch(record), error=why.text, error_code=why.code)
    return enter(record, Phase.LAUNCH_UNKNOWN, why, now, launch=launch)


def launched(record: NodeRecord, machine: Machine, cluster: str, why: Why, now: datetime) -> Changed:
    """The provider has the machine: by its own answer, or because a lookup found it. Its time to register begins when it was
    made: how long the provider took to make it is not its fault."""
    launch = require_launch(record)
    patience = launch.deadline - (launch.called_at or launch.intended_at)
    launch = structs.replace(launch, deadline=max(launch.deadline, min(machine.launched_at, now) + patience))
    made = enter(record, Phase.BOOTING, why, now, launch=launch, instance=instance_of(record, machine, cluster, now))
    assert made.instance is not None
    event = tell(
        kinds.NodeLaunched, made, cluster, why, now,
        provider=made.instance.provider, region=machine.region, instance_type=machine.instance_type,
        instance_id=machine.instance_id, provider_id=made.instance.provider_id, price_per_hour=machine.price_per_hour,
    )  # fmt: skip
    return Changed(made, (event,))


def instance_of(record: NodeRecord, machine: Machine, cluster: str, now: datetime, provider: str = "") -> Instance:
    """`provider` stands in where no launch is on record."""
    return Instance(
        provider=record.launch.request.provider if record.launch else provider,
        instance_id=machine.instance_id,
        provider_id=provider_id(cluster, record.node),
        instance_type=machine.instance_type,
        region=machine.region,
        zone=machine.zone,
        address=machine.address,
        price_per_hour=machine.price_per_hour,
        state=machine.state,
        state_at=now,
        launched_at=machine.launched_at,
    )


def try_elsewhere(record: NodeRecord, request: LaunchRequest, why: Why, now: datetime) -> NodeRecord:
    """The next attempt, on another offer with another token. Only after proof that the one before made nothing."""
    launch = require_launch(record)
    again = structs.replace(
        launch, request=request, attempt=launch.attempt + 1, called_at=None, error=why.text, error_code=why.code
    )
    return enter(record, Phase.PLANNED, why, now, launch=again)


def ask_again(record: NodeRecord, why: Why, now: datetime) -> NodeRecord:
    """The same attempt once more, with the same token: it is proven that the first call made nothing."""
    launch = structs.replace(require_launch(record), called_at=None, error=why.text, error_code=why.code)
    return enter(record, Phase.PLANNED, why, now, launch=launch, powered_off=False)


def launch_failed(record: NodeRecord, cluster: str, why: Why, now: datetime) -> Changed:
    """Given up, with proof that there is no machine."""
    launch = require_launch(record)
    failed = enter(
        record, Phase.LAUNCH_FAILED, why, now,
        launch=structs.replace(launch, error=why.text, error_code=why.code), terminated_at=now,
        answers=conclude(record.answers, "done", why, now),
    )  # fmt: skip
    event = tell(
        kinds.NodeLaunchFailed, failed, cluster, why, now,
        provider=launch.request.provider, instance_type=launch.request.instance_type, attempt=launch.attempt,
    )  # fmt: skip
    return Changed(failed, (event,))


def registration_timeout(record: NodeRecord, cluster: str, why: Why, now: datetime) -> Changed:
    """The machine was made and never became a node."""
    late = enter(record, Phase.REGISTRATION_TIMEOUT, why, now)
    began = record.launch.intended_at if record.launch else record.created_at
    waited = max((now - began).total_seconds(), 0.0)
    return Changed(late, (tell(kinds.NodeRegistrationTimeout, late, cluster, why, now, waited_s=waited),))


def activated(record: NodeRecord, cluster: str, why: Why, now: datetime) -> Changed:
    """Usable. What it replaced is past: from now on a reason to replace is one to replace this node."""
    active = enter(
        record, Phase.ACTIVE, why, now, active_at=now, approved="", by_force=False, replacement_reason=""
    )  # fmt: skip
    began = record.launch.intended_at if record.launch else record.created_at
    boot = max((now - began).total_seconds(), 0.0)
    event = tell(kinds.NodeActive, active, cluster, why, now, replaces=record.replaces or "", boot_s=boot)
    return Changed(active, (event,))


def terminating(record: NodeRecord, cluster: str, why: Why, now: datetime) -> Changed:
    """Decided for good: committed before the call, and never left, so that a late call by whoever held the pool before
    is still right."""
    ending = enter(record, Phase.TERMINATING, why, now)
    event = tell(
        kinds.NodeTerminating, ending, cluster, why, now,
        provider=record.instance.provider if record.instance else "",
        instance_id=record.instance.instance_id if record.instance else "",
        replaced_by=record.replaced_by or "",
    )  # fmt: skip
    return Changed(ending, (event,))


def terminated(record: NodeRecord, cluster: str, why: Why, now: datetime) -> Changed:
    """The machine is no more."""
    instance = record.instance
    if instance is not None and instance.state is not ProviderState.GONE:
        instance = structs.replace(instance, state=ProviderState.GONE, state_at=now)
    ended = enter(
        record, Phase.TERMINATED, why, now,
        terminated_at=now, instance=instance, powered_off=False, answers=conclude(record.answers, "done", why, now),
    )  # fmt: skip
    event = tell(
        kinds.NodeTerminated, ended, cluster, why, now,
        provider=instance.provider if instance else "",
        instance_id=instance.instance_id if instance else "",
        lived_s=max((now - record.created_at).total_seconds(), 0.0),
    )  # fmt: skip
    return Changed(ended, (event,))


# --- a clean stop, and the start after it ---


def powered_off(record: NodeRecord, why: Why, now: datetime) -> NodeRecord:
    """Its machine goes with us, by our own hand. Of a launch in the air it says: whatever machine it made is off, and from
    then on none is made, so that a lookup which finds none is proof."""
    return note(record, why, now, powered_off=True)


def boots_again(record: NodeRecord, why: Why, now: datetime, timeout: timedelta | None) -> NodeRecord:
    """Its machine was told to boot. One that was not usable yet has its time to register once more, from now."""
    return note(record, why, now, powered_off=False, launch=_with_time(record, now, timeout))


def _with_time(record: NodeRecord, now: datetime, timeout: timedelta | None) -> Launch | None:
    """Its launch, with the whole time to register from now on where it boots again before it was usable."""
    launch = record.launch
    if launch is None or timeout is None or record.phase not in (Phase.BOOTING, Phase.VALIDATING):
        return launch
    return structs.replace(launch, deadline=max(launch.deadline, now + timeout))


# --- what agents report ---


def fold(
    record: NodeRecord, inbox: InboxRecord, cluster: str, now: datetime, timeout: timedelta | None = None
) -> Changed:
    """The record after all reports at hand. Idempotent, and insensitive to their order: the newest registration wins.
    `timeout` is how long a node may take to register."""
    changed = Changed(record)
    for report in sorted(inbox.reports, key=lambda report: (report.at, report.sequence)):
        changed = _fold_one(changed, report, cluster, now, timeout)
    return changed


def _fold_one(changed: Changed, report: InboxReport, cluster: str, now: datetime, timeout: timedelta | None) -> Changed:
    record = changed.record
    if report.generation != record.generation or record.phase in ENDED:
        return changed
    if report.kind == "leaving":
        why = Why("agent-leaving", f"its agent stops in good order: {report.text or 'no reason given'}", "agent")
        # Where it has not registered, as far as we know, its agent was there all the same: the machine boots again.
        launch = _with_time(record, now, timeout)
        return Changed(note(record, why, now, blocked=record.blocked, launch=launch), changed.events)
    if report.kind != "registered" or report.registration is None:
        return changed
    registration = report.registration
    known = record.registration
    if (
        known is not None
        and known.boot_id != report.boot_id
        and report.sequence <= record.boots.get(report.boot_id, -1)
    ):
        return changed  # a delivery of before the boot that runs
    record = structs.replace(record, boots=_with_boot(record.boots, report))
    if known is not None and (known.boot_id == registration.boot_id or known.at > registration.at):
        # The same boot again tells nothing new but perhaps a driver that answers now; an older boot tells nothing.
        if known.boot_id == registration.boot_id and registration.at >= known.at:
            return Changed(structs.replace(record, registration=registration), changed.events)
        return changed
    gpus = len(registration.gpus)
    driver = registration.driver or registration.driver_state
    why = Why(
        "registered" if known is None else "booted-again",
        f"its agent registered from boot {registration.boot_id[:8]} with {gpus} GPUs, driver {driver}",
        "agent",
    )
    phase = record.phase
    if phase in UNPROVEN or phase is Phase.PLANNED:
        # It lives, so there is a machine; which one, only the provider can say. The lookup that is due will find it.
        fresh = note(record, why, now, registration=registration, blocked=record.blocked)
    elif phase is Phase.BOOTING:
        fresh = enter(record, Phase.VALIDATING, why, now, registration=registration)
    else:
        fresh = note(record, why, now, registration=registration, blocked=record.blocked)
    event = tell(
        kinds.NodeRegistered, fresh, cluster, why, now,
        boot_id=registration.boot_id, generation=record.generation, hostname=registration.hostname,
        gpus=registration.gpus,
    )  # fmt: skip
    return Changed(fresh, (*changed.events, event))


def _with_boot(boots: Mapping[str, int], report: InboxReport) -> dict[str, int]:
    newest = max(report.sequence, boots.get(report.boot_id, 0))
    others = {boot: number for boot, number in boots.items() if boot != report.boot_id}
    return {**dict(list(others.items())[1 - BOOTS_MAX :]), report.boot_id: newest}


def settle_command(command: CommandRecord, report: InboxReport) -> CommandRecord:
    """The command with the result that its agent reported. The first result stays."""
    if command.result or report.outcome == "":
        return command
    return structs.replace(command, result=report.outcome, result_text=report.text)


# --- deadlines ---


def overdue(record: NodeRecord, now: datetime, timeout: timedelta, *, rebuilt_at: datetime | None = None) -> Why | None:
    """Why a node that is not usable yet is given up, or None. `rebuilt_at` is when safe mode ended: until then nobody could
    know what the node had said before, so its whole time counts from there. One without a launch on record, which was adopted, has no
    deadline: it may hold work that is worth more than our impatience."""
    if record.launch is None or (rebuilt_at is not None and now < rebuilt_at + timeout):
        return None
    if record.phase is Phase.BOOTING and now >= record.launch.deadline:
        return Why("registration-timeout", f"no agent registered within {_span(timeout)} of its launch")
    if record.phase is Phase.VALIDATING and now >= max(record.launch.deadline, record.phase_since + timeout):
        return Why("validation-timeout", f"its hardware was not found healthy within {_span(timeout)}")
    return None


def _span(duration: timedelta) -> str:
    return f"{duration.total_seconds():g} s"


def require_launch(record: NodeRecord) -> Launch:
    """A node in a phase of launching has a launch; anything else is a broken invariant."""
    assert record.launch is not None, f"{record.node} is {record.phase} and has no launch"
    return record.launch
