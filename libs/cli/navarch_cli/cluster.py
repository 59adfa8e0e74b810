"""Commands about the whole: freeze and hold, what the next pass would do, how the control plane is, completion."""

import sys
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script

from navarch_api import types as t
from navarch_api.errors import ClientError
from navarch_cli.output import (
    Column,
    ago,
    clock,
    console,
    counted,
    held_text,
    pairs,
    show_data,
    show_list,
    span,
    table,
)
from navarch_cli.session import WRONG, Failure, Output, Session, command
from navarch_cli.times import seconds

PLAN_COLUMNS: tuple[Column[t.PlanStep], ...] = (
    Column("POOL", lambda step: step.pool),
    Column("ACT", lambda step: step.act),
    Column("NODE", lambda step: step.node),
    Column("$/H", lambda step: _delta(step.cost_per_hour_delta), right=True),
    Column("REASON", lambda step: step.reason, flexible=True),
)
BLOCKED_COLUMNS: tuple[Column[t.PlanBlocked], ...] = (
    Column("POOL", lambda wait: wait.pool),
    Column("NODE", lambda wait: wait.node),
    Column("BLOCKED", lambda wait: wait.reason, flexible=True),
)
TAKING_COLUMNS: tuple[Column[t.Taking], ...] = (
    Column("POOL", lambda taking: taking.pool),
    Column("NODES", lambda taking: taking.nodes, right=True),
    Column("OF", lambda taking: taking.of, right=True),
    Column("WHICH", lambda taking: ", ".join(taking.named) or "idle ones", flexible=True),
    Column("WHY", lambda taking: taking.why, flexible=True),
)
NAMED_NODES = 3
"""So many are named in a sentence."""
LEASE_COLUMNS: tuple[Column[t.LeaseView], ...] = (
    Column("WORK", lambda lease: lease.name),
    Column("HELD BY", lambda lease: lease.owner),
    Column("FENCE", lambda lease: lease.fence, wide=True),
)
COPY_COLUMNS: tuple[Column[t.CopyView], ...] = (
    Column("SERVICE", lambda copy: copy.service),
    Column("COPY", lambda copy: copy.instance),
    Column("HOST", lambda copy: copy.host, wide=True),
    Column("UP", lambda copy: ago(copy.since), right=True),
    Column("READY", lambda copy: "yes" if copy.ready else "no" if copy.at else None),
    Column("VERSION", lambda copy: copy.version, spare=4),
    Column("CONFIG", lambda copy: copy.config_generation or None, wide=True),
    Column("HOLDS", lambda copy: ", ".join(copy.holds), flexible=True, spare=1),
    Column("LAST PASS", lambda copy: _last_pass(copy), flexible=True),  # noqa: PLW0108 - it stands below
)
LOOP_COLUMNS: tuple[Column[tuple[t.CopyView, t.LoopResult]], ...] = (
    Column("COPY", lambda row: row[0].instance),
    Column("LOOP", lambda row: row[1].name),
    Column("LAST", lambda row: ago(row[1].at), right=True),
    Column("TOOK", lambda row: f"{row[1].took_s * 1000:.0f} ms", right=True),
    Column("OUTCOME", lambda row: row[1].outcome),
    Column("COUNTS", lambda row: ", ".join(f"{name} {count}" for name, count in row[1].counts.items()), flexible=True),
    Column("ERROR", lambda row: row[1].error, flexible=True),
)
LEVELS = ("terminate", "launch", "all")
SHELLS = ("bash", "zsh", "fish", "powershell")


def register(app: typer.Typer) -> None:
    command(app, "freeze")(freeze)
    command(app, "unfreeze")(unfreeze)
    command(app, "hold")(hold)
    command(app, "release")(release)
    command(app, "plan")(plan)
    command(app, "status")(status)
    command(app, "version")(version)
    command(app, "completion")(completion)


def _delta(dollars: float | None) -> str | None:
    return None if dollars is None else f"{dollars:+.2f}"


def freeze(
    session: Session,
    reason: Annotated[str, typer.Option("--reason", help="Why. Everyone who is refused reads it.")],
    level: Annotated[str, typer.Option("--level", help="What is forbidden: terminate, launch or all.")] = "all",
    pool: Annotated[str | None, typer.Option("--pool", "-p", help="Only in this pool.")] = None,
    lasts: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="Until then; default: until unfrozen.")
    ] = None,
) -> None:
    """The kill switch: no machine is launched or terminated. Cordons, verdicts and alarms go on."""
    if level not in LEVELS:
        raise Failure(f"--level {level!r} is not one of {', '.join(LEVELS)}", WRONG)
    for_s = seconds(lasts) if lasts else None
    with session.client() as client:
        guard = client.freeze(reason=reason, level=level, pool=pool, for_s=for_s)  # type: ignore[arg-type]
    _show_guard(guard, session, "frozen" if level == "all" else f"frozen: no {level}")


def unfreeze(
    session: Session,
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
    pool: Annotated[str | None, typer.Option("--pool", "-p", help="Only the freeze of this pool.")] = None,
) -> None:
    """Lifts a freeze."""
    with session.client() as client:
        guard = client.unfreeze(reason=reason, pool=pool)
    _show_guard(guard, session, "no longer frozen")


def hold(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="NODE|POOL", help="The node's or the pool's id.")],
    reason: Annotated[str, typer.Option("--reason", help="Why. Everyone who is refused reads it.")],
    lasts: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long.")] = "4h",
) -> None:
    """Keeps automation away: no drain, replacement, termination or resize. Health's cordons and alarms go on.

    An operator's own terminate or replace is refused too, unless forced or released.
    """
    with session.client() as client:
        guard = client.hold(target, reason=reason, for_s=seconds(lasts))
    _show_guard(guard, session, f"held until {clock(guard.until)}" if guard.until else "held")


def release(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="NODE|POOL", help="The node's or the pool's id.")],
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
) -> None:
    """Ends a hold."""
    with session.client() as client:
        guard = client.release(target, reason=reason)
    _show_guard(guard, session, "no longer held")


def _forbidden(guard: t.Guard) -> str:
    return "nothing is launched or terminated" if guard.level == "all" else f"no {guard.level}"


def _show_guard(guard: t.GuardAccepted, session: Session, said: str) -> None:
    if session.output in (Output.JSON, Output.YAML):
        show_data(guard, session.output)
    else:
        told = f"event {guard.event_id}" if guard.event_id else "its event follows when the store is back"
        print(f"{guard.node or guard.pool or 'the cluster'} is {said}, {told}")


def plan(
    session: Session,
    pool: Annotated[str | None, typer.Argument(metavar="[POOL]", help="Only this pool.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="What this configuration would take out.")
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 2 when something would change.")] = False,
) -> None:
    """What the next pass would do and what it would cost. Acts on nothing.

    With --config: which nodes the configuration in FILE would take out of the running fleet, and whether it would come
    into force at once or wait for `navarch approve`. Variables in it are those of the gateway.
    """
    if config is not None:
        if pool is not None:
            raise Failure("--config is about all pools: name none", WRONG)
        _plan_config(session, config, exit_code=exit_code)
        return
    with session.client() as client:
        found = client.plan(pool)
    if session.output in (Output.JSON, Output.YAML):
        show_data(found, session.output)
    else:
        show_list(
            found.steps, PLAN_COLUMNS, lambda step: step.node or step.pool, session.output, "nothing would change"
        )
        if found.blocked and session.output is not Output.NAME:
            console().print()
            console().print(table(found.blocked, BLOCKED_COLUMNS, wide=True))
    if exit_code and found.changes:
        raise typer.Exit(2)


def _plan_config(session: Session, file: Path, *, exit_code: bool) -> None:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file} cannot be read: {error}", WRONG) from error
    with session.client() as client:
        found = client.preview_config(text, source="<stdin>" if str(file) == "-" else file.name)
    if session.output in (Output.JSON, Output.YAML):
        show_data(found, session.output)
    else:
        show_list(
            found.takings, TAKING_COLUMNS, lambda taking: taking.pool, session.output, "no node would be taken out"
        )
        if session.output is not Output.NAME:
            print(*_config_verdict(found), sep="\n")
    if exit_code and found.takings:
        raise typer.Exit(2)


def _config_verdict(found: t.ConfigPreview) -> list[str]:
    said = [f"pool {pool} leaves the file: it is retired, and nothing of it is terminated" for pool in found.retires]
    if found.in_force:
        return [*said, f"it is in force, as generation {found.generation}"]
    if found.held:
        return [
            *said,
            "it would wait for `navarch approve`: at most one node in twenty of a pool, or one, goes unasked",
        ]
    return [*said, f"it would come into force at once, as generation {found.generation + 1}"]


def status(session: Session) -> None:
    """How the control plane itself is: its copies and what each did last, who works on what, what waits.

    `-o wide` adds the last pass of every loop of every copy, and the fences of the leases.
    """
    with session.client() as client:
        found = client.status()
    if session.output in (Output.JSON, Output.YAML):
        show_data(found, session.output)
        return
    out = console()
    out.print(
        pairs(
            [
                ("Cluster", found.cluster),
                ("Installation", found.installation),
                ("Version", found.version),
                ("Ready", "yes" if found.ready else "no"),
                ("Configuration", f"generation {found.config_generation}"),
                (
                    "Bus",
                    f"connected, lost {counted(found.bus_disconnects, 'time')}"
                    if found.bus_connected
                    else "not connected",
                ),
                ("Outbox", _outbox(found)),
                ("Reports", _backlog(found.backlog)),
                ("Safe mode", _safe_mode(found.safe_mode)),
                ("Leaked", _leaked(found.leaks)),
                (
                    "Frozen",
                    "; ".join(
                        f"{g.pool or 'all pools'}, {_forbidden(g)}, by {g.actor}: {g.reason}"
                        for g in found.guards
                        if g.kind == "freeze"
                    ),
                ),
                ("Held", held_text(found.guards)),
                *(("Suspended", f"{copy}: {why}") for copy, why in found.verdicts_suspended.items()),
                *(("Warning", warning) for warning in found.warnings),
            ]
        )
    )
    wide = session.output is Output.WIDE
    out.print()
    out.print(table(found.members, COPY_COLUMNS, wide=wide))
    if found.leases:
        out.print()
        out.print(table(found.leases, LEASE_COLUMNS, wide=wide))
    if wide:
        out.print()
        out.print(table([(copy, last) for copy in found.members for last in copy.results], LOOP_COLUMNS, wide=wide))


def _outbox(found: t.ClusterStatus) -> str | None:
    if found.outbox_events is None:
        return None
    oldest = f", the oldest for {span(found.outbox_oldest_s)}" if found.outbox_oldest_s is not None else ""
    return f"{counted(found.outbox_events, 'event')} waiting{oldest}"


def _backlog(backlog: Sequence[t.Backlog]) -> str:
    waiting = ("unknown" if one.pending is None else str(one.pending) for one in backlog)
    return ", ".join(f"{one.consumer} {count}" for one, count in zip(backlog, waiting, strict=True))


def _last_pass(copy: t.CopyView) -> str | None:
    """The worst of a copy's loops, or how long ago the latest of them was."""
    failed = [last for last in copy.results if last.outcome == "failed"]
    if failed:
        worst = max(failed, key=lambda last: last.failures)
        return f"{worst.name} failed {counted(worst.failures, 'time')}: {worst.error}"
    latest = max((last.at for last in copy.results), default=None)
    return None if latest is None else f"done {ago(latest)} ago"


def _safe_mode(safe: t.SafeMode | None) -> str | None:
    if safe is None:
        return None
    said = f"for {ago(safe.since)}: {safe.reason}"
    if not safe.waits_for:
        return said
    named = ", ".join(safe.waits_for[:NAMED_NODES])
    more = f" and {len(safe.waits_for) - NAMED_NODES} more" if len(safe.waits_for) > NAMED_NODES else ""
    return f"{said}. Not heard since: {named}{more}. Where they are lost, `navarch safe-mode leave` ends it"


def _leaked(leaks: t.LeakCount | None) -> str | None:
    if leaks is None or not (leaks.instances or leaks.foreign):
        return None
    said = [f"{counted(leaks.instances, 'machine')}, {leaks.dollars_per_hour:.2f} $/h: see `navarch gc --dry-run`"]
    if leaks.foreign:
        said.append(f"{counted(leaks.foreign, 'machine')} of another installation under our cluster's name")
    return "; ".join(said if leaks.instances else said[1:])


def version(session: Session) -> None:
    """This client's version, and the server's where one answers."""
    mine = installed_version("navarch-cli")
    server: t.Version | None = None
    try:
        with session.client() as client:
            server = client.version()
    except ClientError:
        server = None
    if session.output in (Output.JSON, Output.YAML):
        show_data({"client": mine, "server": server}, session.output)
        return
    print(f"client {mine}")
    print(
        f"server {server.version}, cluster {server.cluster}" if server else f"server: none answers at {session.server}"
    )


def completion(
    session: Session,  # noqa: ARG001 - every command has one
    shell: Annotated[str, typer.Argument(help=f"One of {', '.join(SHELLS)}.")],
) -> None:
    """Prints the script that completes commands in a shell.

    `navarch completion bash > ~/.navarch-completion`, and source that from `~/.bashrc`.
    """
    if shell not in SHELLS:
        raise Failure(f"{shell!r} is not one of {', '.join(SHELLS)}", WRONG)
    print(get_completion_script(prog_name="navarch", complete_var="_NAVARCH_COMPLETE", shell=shell))
