"""Commands about machines that no record explains, and about safe mode, which begins where records may be missing."""

import sys
import time
from typing import Annotated, Literal

import typer

from navarch_api import types as t
from navarch_api.client import Client
from navarch_cli.output import Column, ago, console, counted, show_data, show_list, span
from navarch_cli.session import (
    NOT_DONE,
    REFUSALS,
    REFUSED,
    TIMED_OUT,
    WRONG,
    Failure,
    Output,
    Session,
    command,
    complain,
)
from navarch_cli.times import seconds

LEAK_COLUMNS: tuple[Column[t.Leak], ...] = (
    Column("PROVIDER", lambda leak: leak.provider),
    Column("INSTANCE", lambda leak: leak.instance_id),
    Column("NODE", lambda leak: leak.node),
    Column("POOL", lambda leak: leak.pool, wide=True, spare=2),
    Column("KIND", lambda leak: leak.kind),
    Column("TYPE", lambda leak: leak.instance_type, wide=True, spare=3),
    Column("SINCE", lambda leak: ago(leak.since)),
    Column("$/H", lambda leak: None if leak.price_per_hour is None else f"{leak.price_per_hour:.2f}", right=True),
    Column("WOULD", lambda leak: leak.would),
    Column("REASON", lambda leak: leak.reason, flexible=True, spare=1),
)
USELESS = ("ended", "duplicate")
"""Kinds of which a record proves that nothing works on them."""
POLL_S = 0.5

Machines = Annotated[list[str] | None, typer.Argument(metavar="INSTANCE", help="Instance ids, or PROVIDER/INSTANCE.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Why = Annotated[str, typer.Option("--reason", help="Why; it is shown wherever the effect is.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]
Patience = Annotated[str, typer.Option("--wait-timeout", metavar="DURATION", help="How long to wait.")]

safe_mode_app = typer.Typer(
    name="safe-mode",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Safe mode: nothing is launched or terminated while records may be missing.",
)


def register(app: typer.Typer) -> None:
    command(app, "gc")(gc)
    command(app, "adopt")(adopt)
    command(safe_mode_app, "leave")(leave)
    app.add_typer(safe_mode_app)


def gc(
    session: Session,
    machines: Machines = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is leaked and what would happen.")] = False,
    yes: Yes = False,
    reason: Why = "",
    wait: Wait = True,
    patience: Patience = "2m",
) -> None:
    """Ends leaked machines: those that carry our tags and that no living record explains.

    Without names, those of which a record proves that nothing works on them. A machine that nobody remembers may be full
    of work: it is ended only where it is named, and may be adopted instead.
    """
    with session.client() as client:
        found = client.leaks()
        if dry_run:
            _show(found, session)
            return
        chosen = _named(found, machines) if machines else [leak for leak in found.items if leak.kind in USELESS]
        if not chosen:
            others = sum(leak.kind == "unrecorded" for leak in found.items)
            hint = f"; {counted(others, 'machine')} without a record must be named to be ended" if others else ""
            print(f"nothing to collect{hint}")
            return
        _ask("end", chosen, yes=yes)
        _do(client, session, "gc", chosen, reason, wait=wait, patience_s=seconds(patience))


def adopt(
    session: Session,
    machines: Machines = None,
    every: Annotated[bool, typer.Option("--all", help="Every machine of ours that has no record.")] = False,
    installation: Annotated[
        str | None,
        typer.Option("--installation", metavar="ID", help="In safe mode: take this installation over as ours."),
    ] = None,
    yes: Yes = False,
    reason: Why = "",
    wait: Wait = True,
    patience: Patience = "2m",
) -> None:
    """Makes machines ours that no record tells of: each becomes a node.

    Without names, in safe mode: takes over the installation whose machines were found under our cluster's name.
    """
    if sum((bool(machines), every, installation is not None)) > 1:
        raise Failure("name machines, or --all, or --installation: one of the three", WRONG)
    with session.client() as client:
        found = client.leaks()
        if not machines and not every:
            _take_over(client, session, found, installation, yes=yes, reason=reason)
            return
        chosen = _named(found, machines) if machines else [leak for leak in found.items if leak.kind == "unrecorded"]
        if not chosen:
            print("nothing to adopt")
            return
        _ask("adopt", chosen, yes=yes)
        _do(client, session, "adopt", chosen, reason, wait=wait, patience_s=seconds(patience))


def leave(
    session: Session,
    reason: Annotated[str, typer.Option("--reason", help="Why it is safe. Everyone who looks later reads it.")],
    yes: Yes = False,
) -> None:
    """Ends safe mode on your word: launches and terminations are allowed again.

    Machines that were not found again stay as they are; those of another installation are left to whoever they belong to.
    """
    if not reason.strip():
        raise Failure("--reason must say something", WRONG)
    with session.client() as client:
        if not yes:
            safe = client.status().safe_mode
            known = f", which is on for {ago(safe.since)} ({safe.reason})" if safe else ""
            _confirm(f"leave safe mode{known}", "leave it")
        done = client.leave_safe_mode(reason=reason)
    if session.output in (Output.JSON, Output.YAML):
        show_data(done, session.output)
    else:
        print(f"safe mode is left, event {done.event_id}")


def _show(found: t.LeakList, session: Session) -> None:
    if session.output in (Output.JSON, Output.YAML):
        show_data(found.items, session.output)
        return
    show_list(found.items, LEAK_COLUMNS, _name, session.output, "nothing is leaked")
    leaked = [leak for leak in found.items if leak.leaked_at is not None]
    if leaked and session.output is not Output.NAME:
        console().print(f"\n{counted(len(leaked), 'machine')} leaked, {found.dollars_per_hour:.2f} $/h")


def _name(leak: t.Leak) -> str:
    return f"{leak.provider}/{leak.instance_id}"


def _named(found: t.LeakList, names: list[str]) -> list[t.Leak]:
    """The server checks once more; here the question can name what it is about."""
    chosen = []
    for name in dict.fromkeys(names):
        matches = [leak for leak in found.items if name in (_name(leak), leak.instance_id)]
        if not matches:
            raise Failure(f"no leaked machine is named {name}; `navarch gc --dry-run` lists them")
        if len(matches) > 1:
            raise Failure(f"{name} is the name of several: say which of {', '.join(map(_name, matches))}", WRONG)
        chosen += matches
    return chosen


def _ask(verb: str, chosen: list[t.Leak], *, yes: bool) -> None:
    if yes:
        return
    names = ", ".join(f"{_name(leak)} ({leak.kind})" for leak in chosen[:5])
    _confirm(f"{verb} {names}{f' and {len(chosen) - 5} more' if len(chosen) > 5 else ''}", verb)


def _confirm(what: str, verb: str) -> None:
    if not sys.stdin.isatty():
        raise Failure(f"{what}: add --yes to {verb} without being asked", WRONG)
    if not typer.confirm(f"{what}?"):
        raise Failure("nothing was done", NOT_DONE)


def _do(
    client: Client,
    session: Session,
    verb: Literal["adopt", "gc"],
    chosen: list[t.Leak],
    reason: str,
    *,
    wait: bool,
    patience_s: float,
) -> None:
    accepted = client.wish_leaks(verb, [_name(leak) for leak in chosen], reason=reason)
    said = "adopted" if verb == "adopt" else "ended"
    plainly = session.output in (Output.TABLE, Output.WIDE)
    if plainly and not wait:
        print(f"asked for, event {accepted.event_id}: {', '.join(accepted.machines)}")
    worst = _await(client, accepted, said, patience_s, plainly=plainly) if wait else 0
    if session.output is Output.NAME:
        print(*accepted.machines, sep="\n")
    elif not plainly:
        show_data(accepted, session.output)
    if worst:
        raise typer.Exit(worst)


def _await(client: Client, accepted: t.LeakWishAccepted, said: str, patience_s: float, *, plainly: bool) -> int:
    """Waits until each machine is no longer leaked, or was refused. Returns the worst exit status."""
    open_, worst, deadline = set(accepted.machines), 0, time.monotonic() + patience_s
    while open_:
        there = {_name(leak): leak for leak in client.leaks().items}
        for name in sorted(open_):
            leak = there.get(name)
            if leak is None:
                open_.discard(name)
                if plainly:
                    print(f"{name}: {said}")
            elif leak.asked == accepted.request_id and leak.would == "report":
                open_.discard(name)
                complain(f"{name}: not {said}: {leak.reason}")
                worst = max(worst, REFUSED if leak.code in REFUSALS else NOT_DONE)
        if open_ and time.monotonic() > deadline:
            complain(f"{', '.join(sorted(open_))}: not {said} after {span(patience_s)}; it stays asked for")
            return max(worst, TIMED_OUT)
        if open_:
            time.sleep(POLL_S)
    return worst


def _take_over(
    client: Client, session: Session, found: t.LeakList, installation: str | None, *, yes: bool, reason: str
) -> None:
    known = sorted({leak.installation for leak in found.items if not leak.ours})
    if installation is None:
        if not known:
            raise Failure("no other installation's machines were found; name machines to adopt, or say --all")
        if len(known) > 1:
            raise Failure(f"machines of {', '.join(known)} were found: say which with --installation ID", WRONG)
        [installation] = known
    count = sum(leak.installation == installation for leak in found.items)
    if not yes:
        _confirm(f"take over installation {installation} with {counted(count, 'machine')}", "take it over")
    done = client.adopt_installation(installation, reason=reason)
    if session.output in (Output.JSON, Output.YAML):
        show_data(done, session.output)
    else:
        print(f"installation {done.installation} is ours, event {done.event_id}; its machines become nodes now")
