"""`approve` and `cancel`: an operator's word on what automation would do."""

from typing import Annotated

import typer

from navarch_api import types as t
from navarch_api.client import Client
from navarch_api.errors import ClientError, TimedOut
from navarch_cli.output import as_dict, show_data, span
from navarch_cli.session import NOT_DONE, TIMED_OUT, Output, Session, about, command, complain, status_of

Reason = Annotated[str, typer.Option("--reason", help="Why; it is shown wherever the effect is.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it has been decided.")]


def register(app: typer.Typer) -> None:
    command(app, "approve")(approve)
    command(app, "cancel")(cancel)


def approve(
    session: Session,
    changes: Annotated[list[str], typer.Argument(metavar="ID...", help="As `navarch plan` shows them.")],
    reason: Reason = "",
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Lets just these changes through, where `automation: approve` waits for it; or a configuration that would take many nodes.

    What follows from a change (its launch, its drain, its end) needs no further word.
    """
    _say(session, "approve", changes, reason, dry_run=dry_run, wait=wait)


def cancel(
    session: Session,
    changes: Annotated[list[str], typer.Argument(metavar="ID|NODE...", help="A change that waits, or a failed node.")],
    reason: Reason = "",
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Drops a change that waits, or stops the replacement of a node that is not being terminated yet.

    A configuration that is cancelled stays out of force until its file says something else. The node stays, cordoned and held: `navarch release NODE` gives it back to automation.
    """
    _say(session, "cancel", changes, reason, dry_run=dry_run, wait=wait)


def _say(session: Session, verb: t.ChangeVerb, changes: list[str], reason: str, *, dry_run: bool, wait: bool) -> None:
    results: list[dict[str, object]] = []
    worst = 0
    with session.client() as client:
        for change in dict.fromkeys(changes):
            try:
                if dry_run:
                    preview = client.preview_change_wish(change, verb, reason=reason)
                    results.append(as_dict(preview))
                    if session.output in (Output.TABLE, Output.WIDE):
                        print(preview.would)
                    continue
                accepted = client.wish_change(change, verb, reason=reason)
            except ClientError as error:
                complain(about(change, error))
                worst = max(worst, status_of(error))
                continue
            results.append({**as_dict(accepted), "change": change})
            about_a_pool = bool(accepted.pool)  # the configuration is of none, and the word on it is done by now
            if session.output in (Output.TABLE, Output.WIDE):
                done = "asked for" if about_a_pool else "done"
                print(f"{change}: {verb} {done}, event {accepted.event_id}")
            if wait and about_a_pool:
                worst = max(worst, _await(client, change, accepted, session))
    if session.output in (Output.JSON, Output.YAML):
        show_data(results, session.output)
    elif session.output is Output.NAME:
        print(*changes, sep="\n")
    if worst:
        raise typer.Exit(worst)


def _await(client: Client, change: str, accepted: t.WishAccepted, session: Session) -> int:
    try:
        answer = client.wait_for_wish(accepted.request_id, pool=accepted.pool, timeout_s=session.timeout_s).answer
    except TimedOut:
        complain(f"{change}: not decided after {span(session.timeout_s)}; it stays asked for")
        return TIMED_OUT
    if answer is not None and answer.outcome != "done":
        complain(f"{change}: {answer.outcome}: {answer.reason}")
        return NOT_DONE
    if answer is not None and session.output in (Output.TABLE, Output.WIDE):
        print(f"{change}: {answer.reason}")
    return 0
