"""`navarch events`: what happened, and what happens now."""

from typing import Annotated

import typer

from navarch_api import types as t
from navarch_cli.output import Column, cell, clock, console, show_data, show_line, show_list
from navarch_cli.session import Output, Session, command
from navarch_cli.times import moment

EVENT_COLUMNS: tuple[Column[t.EventItem], ...] = (
    Column("AT", lambda event: clock(event.at)),
    Column("EVENT", lambda event: event.kind),
    Column("POOL", lambda event: event.pool, spare=5),
    Column("NODE", lambda event: event.node),
    Column("BY", lambda event: event.actor, spare=4),
    Column("CODE", lambda event: event.code, wide=True, spare=7),
    Column("ID", lambda event: event.id, wide=True, spare=8),
    Column("REASON", lambda event: event.reason, flexible=True),
)


def register(app: typer.Typer) -> None:
    command(app, "events")(events)


def events(
    session: Session,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens; Ctrl-C ends it.")] = False,
    pool: Annotated[str | None, typer.Option("--pool", "-p", help="Only this pool.")] = None,
    node: Annotated[str | None, typer.Option("--node", help="Only this node.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="node.failed, or node.* for all of a kind.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="How far back: 2h, or a time.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many, the newest.")] = 100,
) -> None:
    """What happened, oldest first. With `-o json --follow` one event a line, as it was sent."""
    start = moment(since) if since else None
    with session.client() as client:
        if follow:
            for event in client.follow_events(pool=pool, node=node, type=kind, since=start):
                _line(event, session.output)
            return
        found = client.events(pool=pool, node=node, type=kind, since=start, limit=limit)
    if session.output in (Output.JSON, Output.YAML):
        show_data(found.items, session.output)
        return
    items = [t.EventItem.of(raw) for raw in found.items]
    show_list(items, EVENT_COLUMNS, lambda event: event.id, session.output, "no events match")
    if found.truncated:
        typer.echo(f"navarch: there are more than {limit}: these are the newest; see --limit and --since", err=True)


def _line(event: t.EventItem, output: Output) -> None:
    if output in (Output.JSON, Output.YAML):
        show_line(event.raw)
    elif output is Output.NAME:
        print(event.id, flush=True)
    else:
        where = event.node or event.pool or "-"
        line = cell(f"{clock(event.at)}  {event.kind:<22} {where:<28} {event.reason}")
        console().print(line, soft_wrap=True)
