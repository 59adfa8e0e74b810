"""Commands about pools."""

from typing import Annotated

import typer

from navarch_api import types as t
from navarch_api.client import Client
from navarch_api.errors import TimedOut
from navarch_cli.output import Column, ago, as_dict, clock, console, held_text, pairs, show_data, show_list, span, table
from navarch_cli.session import NOT_DONE, TIMED_OUT, Failure, Output, Session, command
from navarch_cli.times import seconds

PoolName = Annotated[str, typer.Argument(metavar="POOL", help="The pool's id.")]
ReasonText = Annotated[str, typer.Option("--reason", help="Why; it is shown wherever the effect is.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it has been decided.")]


def _state(pool: t.Pool) -> str:
    states = [
        word
        for word, holds in (
            ("retiring", pool.retiring),
            ("frozen", pool.frozen),
            ("held", pool.held),
            ("paused", pool.paused),
        )
        if holds
    ]
    return ", ".join(states) or "running"


POOL_COLUMNS: tuple[Column[t.Pool], ...] = (
    Column("POOL", lambda pool: pool.pool),
    Column("DESIRED", lambda pool: pool.desired, right=True),
    Column("ACTIVE", lambda pool: pool.active, right=True),
    Column("PROVISIONING", lambda pool: pool.provisioning, right=True, spare=5),
    Column("UNHEALTHY", lambda pool: pool.unhealthy, right=True, spare=4),
    Column("CORDONED", lambda pool: pool.cordoned, right=True, wide=True, spare=11),
    Column("DRAINING", lambda pool: pool.draining, right=True, wide=True, spare=12),
    Column("MIN", lambda pool: pool.min_nodes, right=True, spare=3),
    Column("MAX", lambda pool: pool.max_nodes, right=True, spare=2),
    Column("SIZED BY", lambda pool: pool.autoscaling or "operator", spare=7),
    Column("STATE", _state),
    Column("$/H", lambda pool: pool.dollars_per_hour, right=True, wide=True, spare=13),
    Column("REASON", lambda pool: pool.reason, flexible=True, spare=1),
)
OPINION_COLUMNS: tuple[Column[t.Opinion], ...] = (
    Column("STRATEGY", lambda opinion: opinion.strategy),
    Column("WANTS", lambda opinion: "no opinion" if opinion.target is None else opinion.target, right=True),
    Column("DATA", lambda opinion: "fresh" if opinion.fresh else "not complete"),
    Column("REASON", lambda opinion: opinion.reason, flexible=True),
)

CHANGE_COLUMNS: tuple[Column[t.Change], ...] = (
    Column("CHANGE", lambda change: change.id),
    Column("POOL", lambda change: change.pool),
    Column("NODE", lambda change: change.node),
    Column("WAITS", lambda change: ago(change.since)),
    Column("WOULD", lambda change: change.text, flexible=True),
)

pool_app = typer.Typer(
    name="pool", no_args_is_help=True, rich_markup_mode=None, help="One pool: its size and its state."
)


def register(app: typer.Typer) -> None:
    command(app, "pools")(pools)
    command(pool_app, "status")(status)
    command(pool_app, "scale")(scale)
    command(pool_app, "pause")(pause)
    command(pool_app, "resume")(resume)
    command(pool_app, "close-breaker")(close_breaker)
    app.add_typer(pool_app)


def pools(session: Session) -> None:
    """All pools, with what they should have and what they have."""
    with session.client() as client:
        items = client.pools().items
    show_list(items, POOL_COLUMNS, lambda pool: pool.pool, session.output, "no pools are configured")


def status(session: Session, pool: PoolName) -> None:
    """One pool: each strategy's opinion, what limits it, and what it waits for."""
    with session.client() as client:
        found = client.pool(pool)
    if session.output is Output.NAME:
        print(found.pool)
        return
    if session.output in (Output.JSON, Output.YAML):
        show_data(found, session.output)
        return
    supply = found.supply
    out = console()
    out.print(
        pairs(
            [
                ("Pool", found.pool),
                ("State", _state(found)),
                ("Desired", found.desired if found.desired is not None else "not decided yet"),
                ("Reason", found.reason),
                ("Active", f"{found.active}, and {found.provisioning} on the way"),
                ("Out of use", f"{found.unhealthy} unhealthy, {found.cordoned} cordoned, {found.draining} draining"),
                ("Bounds", f"{found.min_nodes} to {found.max_nodes}"),
                ("Sized by", found.autoscaling or "operators: no autoscaling is configured"),
                ("Scaled", f"{ago(found.scaled_at)} ago, by {found.actor}" if found.scaled_at else None),
                ("Held until", clock(found.hold_until) if found.hold_until else None),
                (
                    "Paused",
                    f"by {found.pause.actor}: {found.pause.reason or 'no reason given'}" if found.pause else None,
                ),
                ("Automation", found.automation if found.automation not in ("", "act") else None),
                ("Breaker", _breaker(supply.breaker) if supply and supply.breaker else None),
                (
                    "Limits",
                    "; ".join(f"{limit.key} reached for {ago(limit.since)}" for limit in supply.limits)
                    if supply
                    else None,
                ),
                ("Limited", found.limited.text if found.limited else None),
                ("Blocked", supply.blocked.text if supply and supply.blocked else None),
                ("Exhausted", f"for {ago(supply.exhausted_since)}" if supply and supply.exhausted_since else None),
                (
                    "Frozen",
                    "; ".join(f"{g.level} by {g.actor}: {g.reason}" for g in found.guards if g.kind == "freeze"),
                ),
                ("Held", held_text(found.guards)),
            ]
        )
    )
    if found.changes:
        out.print()
        out.print(table(found.changes, CHANGE_COLUMNS, wide=True))
    if found.opinions:
        out.print()
        out.print(table(found.opinions, OPINION_COLUMNS, wide=True))


def _breaker(breaker: t.Breaker) -> str:
    then = f"canary {breaker.canary}" if breaker.canary else f"a canary at {clock(breaker.retry_at)}"
    return f"open for {ago(breaker.since)}: {breaker.reason}; {then}"


def scale(
    session: Session,
    pool: PoolName,
    nodes: Annotated[int, typer.Option("--nodes", "-n", min=0, max=1_000_000, help="How many nodes.")],
    hold: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="DURATION", help="How long it holds on an autoscaled pool; default one cooldown."
        ),
    ] = None,
    reason: ReasonText = "",
    dry_run: DryRun = False,
    wait: Wait = False,
) -> None:
    """Sets how many nodes a pool should have, within its bounds."""
    for_s = seconds(hold) if hold else None
    with session.client() as client:
        if dry_run:
            _show_preview(client.preview_pool_wish(pool, "scale", nodes=nodes, for_s=for_s, reason=reason), session)
            return
        accepted = client.wish_pool(pool, "scale", nodes=nodes, for_s=for_s, reason=reason)
        _show_accepted(client, accepted, f"scale to {nodes}", session, wait=wait)


def pause(
    session: Session, pool: PoolName, reason: ReasonText = "", dry_run: DryRun = False, wait: Wait = False
) -> None:
    """Stops sizing the pool. Healing goes on."""
    _wish(session, pool, "pause", reason, dry_run=dry_run, wait=wait)


def resume(
    session: Session, pool: PoolName, reason: ReasonText = "", dry_run: DryRun = False, wait: Wait = False
) -> None:
    """Sizes the pool again."""
    _wish(session, pool, "resume", reason, dry_run=dry_run, wait=wait)


def close_breaker(
    session: Session, pool: PoolName, reason: ReasonText = "", dry_run: DryRun = False, wait: Wait = False
) -> None:
    """Closes the breaker of a pool: failed nodes are replaced again, within the budget."""
    _wish(session, pool, "close-breaker", reason, dry_run=dry_run, wait=wait)


def _wish(session: Session, pool: str, verb: t.PoolVerb, reason: str, *, dry_run: bool, wait: bool) -> None:
    with session.client() as client:
        if dry_run:
            _show_preview(client.preview_pool_wish(pool, verb, reason=reason), session)
            return
        _show_accepted(client, client.wish_pool(pool, verb, reason=reason), verb, session, wait=wait)


def _show_preview(preview: t.WishPreview, session: Session) -> None:
    if session.output in (Output.JSON, Output.YAML):
        show_data(preview, session.output)
    else:
        print(preview.would)


def _show_accepted(client: Client, accepted: t.WishAccepted, what: str, session: Session, *, wait: bool) -> None:
    result = as_dict(accepted)
    answer = None
    if session.output in (Output.TABLE, Output.WIDE):
        print(f"{accepted.pool}: {what} asked for, event {accepted.event_id}")
    if wait:
        try:
            answer = client.wait_for_wish(accepted.request_id, pool=accepted.pool, timeout_s=session.timeout_s).answer
        except TimedOut as error:
            text = f"{accepted.pool}: not decided after {span(session.timeout_s)}; it stays asked for"
            raise Failure(text, TIMED_OUT) from error
        result["answer"] = as_dict(answer) if answer else None
    if session.output in (Output.JSON, Output.YAML):
        show_data(result, session.output)
    elif session.output is Output.NAME:
        print(accepted.pool)
    elif answer is not None and answer.outcome == "done":
        print(f"{accepted.pool}: {answer.reason}")
    if answer is not None and answer.outcome != "done":
        raise Failure(f"{accepted.pool}: {answer.outcome}: {answer.reason}", NOT_DONE)
