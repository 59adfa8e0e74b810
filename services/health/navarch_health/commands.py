"""`navarch policy`: check a health policy, and see what it makes of an event, before it is anybody's."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from navarch_cli.output import Column, show_list
from navarch_cli.session import WRONG, Failure, Session, command
from navarch_common.events.messages import Observation
from navarch_common.model.health import Episode, HealthRecord, HealthStatus
from navarch_common.model.node import NodeRecord, Phase
from navarch_health.episodes import EPISODES_PER_CODE, FOLD
from navarch_health.facts import facts_of, subject_of
from navarch_health.policy import POLICY_BYTES_MAX, Policy, PolicyError, default_policy, load_policy

policy = typer.Typer(
    name="policy",
    help="Check health policies, and try them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
_File = Annotated[Path, typer.Argument(metavar="FILE", help="The file; - reads standard input.", show_default=False)]


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy makes of one event."""

    code: str
    """`xid-79`, `thermal`, or the kernel line's kind."""
    entity: str
    rule: str
    """The rule that decides; empty where none matches, which is healthy."""
    result: str
    action: str
    takes_work: bool
    shadow: tuple[str, ...]
    """Rules in shadow mode that would have decided."""
    errors: tuple[str, ...]
    """Rules whose condition could not be evaluated, and did not match."""


_COLUMNS = (
    Column[Tried]("EVENT", lambda tried: tried.code),
    Column[Tried]("ENTITY", lambda tried: tried.entity),
    Column[Tried]("RESULT", lambda tried: tried.result),
    Column[Tried]("ACTION", lambda tried: tried.action),
    Column[Tried]("RULE", lambda tried: tried.rule or "none matches"),
    Column[Tried]("SHADOW", lambda tried: ", ".join(tried.shadow)),
    Column[Tried]("NOT EVALUATED", lambda tried: ", ".join(tried.errors)),
)


@policy.command("check")
def check_command(file: _File) -> None:
    """Say whether FILE can come into force. Every mistake is a line: file, line, column, rule, what is wrong."""
    for line in summary(_loaded(file)):
        typer.echo(line)


@command(policy, "test")
def try_command(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file; - reads standard input, `default` is the built-in one.")
    ],
    events: Annotated[
        list[str],
        typer.Option(
            "--event", metavar="JSON", help="""As an agent reports it: '{"event_type": "xid", "code": 79}'."""
        ),
    ],
    episode: Annotated[
        int,
        typer.Option("--episode", min=1, max=EPISODES_PER_CODE, help="As if each had come so often already."),
    ] = 1,
) -> None:
    """Say what FILE makes of events: which rule decides, with what result, and what it asks for.

    The events are judged one by one, on an active node without labels. Exit status 1 where FILE cannot come into force.
    """
    loaded = default_policy() if str(file) == "default" else _loaded(file)
    tried = [_tried(loaded, _observation(text, number), episode) for number, text in enumerate(events, start=1)]
    show_list(tried, _COLUMNS, lambda one: one.rule or "none", session.output, "")


def _observation(text: str, number: int) -> Observation:
    try:
        said: Any = msgspec.json.decode(text)
        if isinstance(said, dict):
            said = {"at": datetime.now(UTC).isoformat(), **said}
        seen = msgspec.convert(said, Observation)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Failure(f"--event {number} is no event as agents report them: {error}", WRONG) from None
    known = Observation.__struct_fields__
    if unknown := [key for key in said if key not in known]:
        raise Failure(f"--event {number} has no key {unknown[0]!r:.80}; expected of {', '.join(known)}", WRONG)
    return seen


def _tried(loaded: Policy, seen: Observation, count: int) -> Tried:
    node = NodeRecord(
        node="test-aaaaaaa", pool="test", generation=1, phase=Phase.ACTIVE, phase_since=seen.at, created_at=seen.at
    )
    record = HealthRecord(
        node=node.node, pool=node.pool, generation=1, status=HealthStatus.HEALTHY, since=seen.at, reason="tried"
    )
    subject = subject_of(seen, ())
    episodes = tuple(
        Episode(
            entity=subject.entity, code=subject.code, first_at=at, last_at=at, count=place, sequence=place, boot_id="test"
        )
        for place in range(1, count + 1)
        for at in (seen.at - (count - place) * 2 * FOLD,)
    )  # fmt: skip
    judged = loaded.judge(facts_of(seen, subject, node, record, episodes))
    rule = judged.rule
    return Tried(
        code=subject.code,
        entity=subject.entity,
        rule="" if rule is None else rule.name,
        result="healthy" if rule is None else rule.result,
        action="none" if rule is None else rule.action,
        takes_work=rule is not None and rule.takes_work,
        shadow=judged.shadow,
        errors=judged.errors,
    )


def summary(loaded: Policy) -> list[str]:
    """What a checked policy says, a line for each rule."""
    lines = [f"ok: {loaded.name}, {len(loaded.rules)} rules"]
    for number, rule in enumerate(loaded.rules, start=1):
        what = rule.result if rule.action == "none" else f"{rule.result}, {rule.action}"
        if rule.after is not None and rule.after > 1:
            what += f", from episode {rule.after} on"
        lines.append(f"{number:3}  {rule.name}: {what}{' (shadow)' if rule.shadow else ''}")
    return lines + [f"warning: {warning}" for warning in loaded.warnings]


def _loaded(file: Path) -> Policy:
    """The policy, or every mistake as a line and exit status 1."""
    try:
        return _load(file)
    except PolicyError as error:
        typer.echo(str(error), err=True)
        count = len(error.problems)
        mistakes = "mistake" if count == 1 else "mistakes"
        typer.echo(f"{file}: {count} {mistakes}; nothing was changed", err=True)
        raise typer.Exit(1) from None
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"{file}: cannot be read: {error}", err=True)
        raise typer.Exit(1) from None


def _load(file: Path) -> Policy:
    if str(file) == "-":
        return load_policy(sys.stdin.read(POLICY_BYTES_MAX + 1), "<stdin>")
    return load_policy(file.read_text(encoding="utf-8"), str(file))
