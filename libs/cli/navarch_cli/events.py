"""`navarch events`: what happened, and what happens now."""

import sys
from typing import Annotated

import typer

from navarch_api import types as t
from navarch_cli.output import Column, cell, clock, console, show_data, show_line, show_list
from navarch_cli.session import WRONG, Failure, Output, Session, command, complain
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


LETTER_COLUMNS: tuple[Column[t.DeadLetter], ...] = (
    Column("SEQ", lambda letter: letter.sequence, right=True),
    Column("AT", lambda letter: clock(letter.at)),
    Column("CODE", lambda letter: letter.code),
    Column("SUBJECT", lambda letter: letter.subject or f"{letter.stream} {letter.stream_sequence}"),
    Column("TRIES", lambda letter: letter.deliveries or None, right=True, spare=4),
    Column("BY", lambda letter: letter.by, wide=True),
    Column("REPLAYED", lambda letter: letter.replayed_at and clock(letter.replayed_at), spare=3),
    Column("ERROR", lambda letter: letter.error, flexible=True),
    Column("MESSAGE", lambda letter: letter.text, wide=True),
)
REPLAY_COLUMNS: tuple[Column[t.Replayed], ...] = (
    Column("SEQ", lambda one: one.sequence, right=True),
    Column("OUTCOME", lambda one: one.outcome),
    Column("SUBJECT", lambda one: one.subject),
    Column("DETAIL", lambda one: one.detail, flexible=True),
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
    dead: Annotated[
        bool, typer.Option("--dead", help="Messages that nobody could use, instead of what happened.")
    ] = False,
    replay: Annotated[
        str | None, typer.Option("--replay", metavar="SEQ|all", help="With --dead: put these back on their subject.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="With --replay: why.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """What happened, oldest first. With `-o json --follow` one event a line, as it was sent.

    A followed stream that breaks is taken up again behind the last event that was shown, with a line on stderr.
    `--dead` lists messages that could not be used and why; `--dead --replay 7,9` or `--replay all` puts them back.
    """
    if dead:
        if follow or pool or node or kind:
            raise Failure("--dead goes with --since, --limit and --replay alone", WRONG)
        _dead(session, since=since, limit=limit, replay=replay, reason=reason, yes=yes)
        return
    if replay is not None:
        raise Failure("--replay needs --dead: only dead letters can be put back", WRONG)
    start = moment(since) if since else None
    with session.client() as client:
        if follow:
            for event in client.follow_events(pool=pool, node=node, type=kind, since=start, on_break=_broke):
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


def _broke(why: str) -> None:
    complain(f"the stream of events broke ({why}); it is taken up again where it broke")


def _dead(session: Session, *, since: str | None, limit: int, replay: str | None, reason: str, yes: bool) -> None:
    if replay is not None:
        _replay(session, _sequences(replay), reason=reason, yes=yes)
        return
    with session.client() as client:
        found = client.dead_letters(since=moment(since) if since else None, limit=min(limit, 5000))
    show_list(found.items, LETTER_COLUMNS, lambda letter: str(letter.sequence), session.output, "no dead letters")
    if found.truncated and session.output in (Output.TABLE, Output.WIDE):
        typer.echo(f"navarch: there are more than {limit}: these are the newest; see --limit and --since", err=True)


def _sequences(text: str) -> list[int]:
    """`7`, `7,9`, or `all` as none. Raises `Failure`."""
    if text == "all":
        return []
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < len(part) <= 15 and int(part) for part in parts):
        raise Failure(f"--replay {text!r}: expected sequences as SEQ shows them, such as 7 or 7,9, or all", WRONG)
    return [int(part) for part in parts]


def _replay(session: Session, sequences: list[int], *, reason: str, yes: bool) -> None:
    """Exits with 1 where one of them was not put back."""
    which = f"dead letter {', '.join(map(str, sequences))}" if sequences else "every dead letter"
    if not yes:
        if not sys.stdin.isatty():
            raise Failure(f"replay of {which}: add --yes to do it without being asked", WRONG)
        if not typer.confirm(f"Put {which} back on its subject?"):
            raise Failure("nothing was done")
    with session.client() as client:
        done = client.replay_dead_letters(sequences, reason=reason)
    show_list(done.items, REPLAY_COLUMNS, lambda one: str(one.sequence), session.output, "no dead letters to put back")
    if any(one.outcome in ("refused", "unknown") for one in done.items):
        raise typer.Exit(1)


def _line(event: t.EventItem, output: Output) -> None:
    if output in (Output.JSON, Output.YAML):
        show_line(event.raw)
    elif output is Output.NAME:
        print(event.id, flush=True)
    else:
        where = event.node or event.pool or "-"
        line = cell(f"{clock(event.at)}  {event.kind:<22} {where:<28} {event.reason}")
        console().print(line, soft_wrap=True)
