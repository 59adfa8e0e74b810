"""`navarch audit`: who did what, why, and what came of it."""

from typing import Annotated

import typer

from navarch_api import types as t
from navarch_cli.output import Column, clock, show_list
from navarch_cli.session import Output, Session, command
from navarch_cli.times import moment

AUDIT_COLUMNS: tuple[Column[t.AuditEntry], ...] = (
    Column("AT", lambda entry: clock(entry.at)),
    Column("WHO", lambda entry: entry.actor),
    Column("DID", lambda entry: entry.action),
    Column("RESULT", lambda entry: entry.result, spare=3),
    Column("POOL", lambda entry: entry.pool, spare=5),
    Column("NODE", lambda entry: entry.node),
    Column("CHANGED", lambda entry: _changed(entry), wide=True, flexible=True),  # noqa: PLW0108 - it stands below
    Column("REQUEST", lambda entry: entry.request_id, wide=True),
    Column("WHY", lambda entry: entry.reason, flexible=True),
)


def register(app: typer.Typer) -> None:
    command(app, "audit")(audit)


def audit(
    session: Session,
    since: Annotated[str | None, typer.Option("--since", help="How far back: 2h, or a time.")] = None,
    actor: Annotated[
        str | None, typer.Option("--actor", help="Only what this one did: operator:ada, provisioner, gateway.")
    ] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this: terminate, freeze, launch…")] = None,
    node: Annotated[str | None, typer.Option("--node", help="Only about this node.")] = None,
    pool: Annotated[str | None, typer.Option("--pool", "-p", help="Only about this pool.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=5000, help="At most so many, the newest.")] = 100,
) -> None:
    """Who did what to which machine and why, people and Navarch itself, oldest first. Kept for 400 days."""
    start = moment(since) if since else None
    with session.client() as client:
        found = client.audit(actor=actor, action=action, node=node, pool=pool, since=start, limit=limit)
    show_list(found.items, AUDIT_COLUMNS, lambda entry: entry.id, session.output, "no entries match")
    if found.truncated and session.output in (Output.TABLE, Output.WIDE):
        typer.echo(f"navarch: there are more than {limit}: these are the newest; see --limit and --since", err=True)


def _changed(entry: t.AuditEntry) -> str:
    names = sorted({*entry.before, *entry.after})
    return ", ".join(f"{name}: {entry.before.get(name, '-')} → {entry.after.get(name, '-')}" for name in names)
