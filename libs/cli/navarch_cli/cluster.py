"""Commands about the whole: freeze and unfreeze, what the next pass would do, how the control plane is, completion."""

from importlib.metadata import version as installed_version
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script

from navarch_api import types as t
from navarch_api.errors import ClientError
from navarch_cli.output import Column, ago, console, counted, pairs, show_data, show_list, table
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
LEASE_COLUMNS: tuple[Column[t.LeaseView], ...] = (
    Column("WORK", lambda lease: lease.name),
    Column("HELD BY", lambda lease: lease.owner),
)
LEVELS = ("terminate", "launch", "all")
SHELLS = ("bash", "zsh", "fish", "powershell")


def register(app: typer.Typer) -> None:
    command(app, "freeze")(freeze)
    command(app, "unfreeze")(unfreeze)
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


def _forbidden(guard: t.Guard) -> str:
    return "nothing is launched or terminated" if guard.level == "all" else f"no {guard.level}"


def _show_guard(guard: t.GuardAccepted, session: Session, said: str) -> None:
    if session.output in (Output.JSON, Output.YAML):
        show_data(guard, session.output)
    else:
        print(f"{guard.pool or 'the cluster'} is {said}, event {guard.event_id}")


def plan(
    session: Session,
    pool: Annotated[str | None, typer.Argument(metavar="[POOL]", help="Only this pool.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 2 when something would change.")] = False,
) -> None:
    """What the next pass would do and what it would cost. Acts on nothing."""
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


def status(session: Session) -> None:
    """How the control plane itself is: copies, who works on what, what waits."""
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
                ("Outbox", None if found.outbox_events is None else f"{counted(found.outbox_events, 'event')} waiting"),
                (
                    "Safe mode",
                    f"for {ago(found.safe_mode.since)}: {found.safe_mode.reason}" if found.safe_mode else None,
                ),
                (
                    "Frozen",
                    "; ".join(
                        f"{g.pool or 'all pools'}, {_forbidden(g)}, by {g.actor}: {g.reason}"
                        for g in found.guards
                        if g.active
                    ),
                ),
                *(("Backlog", f"{b.consumer}: {b.pending} in {b.stream}") for b in found.backlog if b.pending),
                *(("Warning", warning) for warning in found.warnings),
            ]
        )
    )
    if found.leases:
        out.print()
        out.print(table(found.leases, LEASE_COLUMNS, wide=False))


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
