"""Commands about nodes: list, get, instances, explain, and what one may ask of a node."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.live import Live

from navarch_api import types as t
from navarch_api.client import Client
from navarch_api.errors import ApiError, ClientError, TimedOut
from navarch_cli.output import Column, ago, as_dict, clock, console, pairs, show_data, show_line, show_list, span, table
from navarch_cli.session import (
    NOT_DONE,
    TIMED_OUT,
    WRONG,
    Failure,
    Output,
    Session,
    about,
    command,
    complain,
    status_of,
)
from navarch_cli.times import moment, seconds

NodeName = Annotated[str, typer.Argument(metavar="NODE", help="The node's id.")]
NodeNames = Annotated[list[str] | None, typer.Argument(metavar="NODE...", help="Node ids.", show_default=False)]
Selector = Annotated[
    list[str] | None,
    typer.Option("--selector", "-l", metavar="KEY=VALUE", help="All nodes with this label; may be repeated."),
]
ReasonText = Annotated[str, typer.Option("--reason", help="Why; it is shown wherever the effect is.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it has happened.")]
WaitTimeout = Annotated[
    str, typer.Option("--wait-timeout", metavar="DURATION", help="How long --wait waits; then the exit status is 3.")
]
Force = Annotated[bool, typer.Option("--force", help="Also where work is running.")]


def _unheard(node: t.Node) -> str | None:
    """Instead of a time. The heartbeats of a terminated node are forgotten, which is not to say that there were none."""
    return None if node.status == "terminated" else "never"


NODE_COLUMNS: tuple[Column[t.Node], ...] = (
    Column("NODE", lambda node: node.node),
    Column("POOL", lambda node: node.pool, spare=2),
    Column("STATUS", lambda node: node.status),
    Column("HEALTH", lambda node: node.health),
    Column("PROVIDER", lambda node: node.provider, spare=9),
    Column("TYPE", lambda node: node.instance_type, spare=8),
    Column("GPUS", lambda node: node.gpus, right=True, spare=7),
    Column("HEARTBEAT", lambda node: ago(node.last_heartbeat) or _unheard(node), right=True, spare=3),
    Column("AGE", lambda node: ago(node.created_at), right=True, spare=4),
    Column("PHASE", lambda node: node.phase, wide=True, spare=5),
    Column("REGION", lambda node: node.region, wide=True, spare=15),
    Column("ZONE", lambda node: node.zone, wide=True, spare=14),
    Column("INSTANCE", lambda node: node.instance_id, wide=True, spare=10),
    Column("HOSTNAME", lambda node: node.hostname, wide=True, spare=13),
    Column("$/H", lambda node: node.price_per_hour, wide=True, right=True, spare=16),
    Column("REPLACES", lambda node: node.replaces, wide=True, spare=6),
    Column("REASON", lambda node: node.reason, flexible=True, spare=1),
)
INSTANCE_COLUMNS: tuple[Column[t.Instance], ...] = (
    Column("INSTANCE", lambda item: item.instance_id),
    Column("PROVIDER", lambda item: item.provider, spare=6),
    Column("NODE", lambda item: item.node, spare=2),
    Column("POOL", lambda item: item.pool, spare=4),
    Column("STATUS", lambda item: item.status, spare=3),
    Column("STATE", lambda item: item.state),
    Column("TYPE", lambda item: item.instance_type, spare=8),
    Column("AGE", lambda item: ago(item.launched_at), right=True, spare=5),
    Column("REGION", lambda item: item.region, wide=True),
    Column("ZONE", lambda item: item.zone, wide=True),
    Column("ADDRESS", lambda item: item.address, wide=True),
    Column("SAID", lambda item: ago(item.state_at), wide=True, right=True),
    Column("$/H", lambda item: item.price_per_hour, right=True, spare=9),
)


def register(app: typer.Typer) -> None:
    command(app, "list")(list_nodes)
    command(app, "nodes", hidden=True)(list_nodes)
    command(app, "get")(get)
    command(app, "instances")(instances)
    command(app, "explain")(explain)
    command(app, "cordon")(cordon)
    command(app, "uncordon")(uncordon)
    command(app, "drain")(drain)
    command(app, "replace")(replace)
    command(app, "terminate")(terminate)


def list_nodes(
    session: Session,
    pool: Annotated[str | None, typer.Option("--pool", "-p", help="Only this pool.")] = None,
    provider: Annotated[str | None, typer.Option("--provider", help="Only this provider.")] = None,
    region: Annotated[str | None, typer.Option("--region", help="Only this region.")] = None,
    status: Annotated[str | None, typer.Option("--status", help=f"One of {', '.join(t.STATUSES)}.")] = None,
    health: Annotated[str | None, typer.Option("--health", help=f"One of {', '.join(t.HEALTHS)}.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Repeatable.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing changes.")] = False,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Terminated nodes too.")] = False,
) -> None:
    """Nodes, with their status and health. `navarch nodes` is the same."""
    status = _word("--status", status, t.STATUSES)
    health = _word("--health", health, t.HEALTHS)
    labels = _labels(label or [])
    with session.client() as client:

        def read() -> tuple[t.Node, ...]:
            return client.nodes(
                pool=pool,
                provider=provider,
                region=region,
                status=status,
                health=health,
                labels=labels,
                terminated=everything or status == "terminated",
            ).items

        if watch:
            _watch(read, session.output)
        else:
            show_list(read(), NODE_COLUMNS, lambda node: node.node, session.output, "no nodes match")


def _watch(read: Callable[[], Sequence[t.Node]], output: Output) -> None:
    """On a terminal a table that keeps itself up to date; elsewhere one line for each node that changed."""
    if sys.stdout.isatty() and output in (Output.TABLE, Output.WIDE):
        with Live(console=console(), auto_refresh=False, screen=False) as live:
            while True:
                live.update(table(read(), NODE_COLUMNS, wide=output is Output.WIDE), refresh=True)
                time.sleep(1.0)
    seen: dict[str, tuple[str, str]] = {}
    while True:
        for node in read():
            if seen.get(node.node) != (node.status, node.health):
                seen[node.node] = (node.status, node.health)
                if output in (Output.JSON, Output.YAML):
                    show_line(node)
                else:
                    print(f"{node.node}\t{node.status}\t{node.health}\t{node.reason}", flush=True)
        time.sleep(1.0)


def get(
    session: Session,
    node: NodeName,
    history: Annotated[bool, typer.Option("--history", help="Its recorded reasons too.")] = False,
    evidence: Annotated[bool, typer.Option("--evidence", help="What each verdict rests on.")] = False,
) -> None:
    """All that is known of one node."""
    with session.client() as client:
        detail = client.node(node)
    if session.output is Output.NAME:
        print(detail.node)
    elif session.output in (Output.JSON, Output.YAML):
        show_data(detail, session.output)
    else:
        _sheet(detail, history=history, evidence=evidence)


def _sheet(node: t.NodeDetail, *, history: bool, evidence: bool) -> None:
    out = console()
    registration, sample, instance = node.registration, node.sample, node.instance
    out.print(
        pairs(
            [
                ("Node", node.node),
                ("Pool", node.pool),
                ("Status", node.status),
                ("Health", node.health),
                ("Reason", node.reason),
                ("Blocked", node.blocked.text if node.blocked else None),
                ("Phase", f"{node.phase}, for {ago(node.phase_since)}" if node.phase_since else node.phase),
                ("Cordoned by", ", ".join(f"{c.holder} ({c.reason})" for c in node.cordons)),
                ("Draining", _drain(node.drain)),
                ("Replaces", node.replaces),
                ("Replaced by", node.replaced_by),
                ("Provider", _provider(node)),
                ("Instance", f"{instance.instance_id}, {instance.state}" if instance else None),
                ("Created", f"{clock(node.created_at)} ({ago(node.created_at)} ago)"),
                ("Hostname", node.hostname),
                ("Address", node.address),
                ("Driver", f"{registration.driver} ({registration.driver_state})" if registration else None),
                ("Boot id", registration.boot_id if registration else None),
                ("Heartbeat", f"{ago(node.last_heartbeat)} ago" if node.last_heartbeat else _unheard(node)),
                ("Idle", {True: "yes", False: "no", None: "not known"}[sample.idle] if sample else None),
                ("Labels", ", ".join(f"{key}={value}" for key, value in sorted(node.labels.items()))),
            ]
        )
    )
    if registration and registration.gpus:
        readings = {reading.index: reading for reading in sample.gpus} if sample else {}
        out.print()
        out.print(table(registration.gpus, _gpu_columns(readings), wide=True))
    detail = node.health_detail
    if detail and (verdicts := [v for v in detail.verdicts if v.status != "healthy" or evidence]):
        out.print()
        out.print(table(verdicts, VERDICT_COLUMNS, wide=True))
        for verdict in verdicts if evidence else []:
            for item in verdict.evidence:
                out.print(pairs([(f"  {verdict.entity}", f"{clock(item.at)} {item.source}: {item.text}")]))
    if history and node.reasons:
        out.print()
        out.print(table(node.reasons, REASON_COLUMNS, wide=True))


VERDICT_COLUMNS: tuple[Column[t.Verdict], ...] = (
    Column("ENTITY", lambda verdict: verdict.entity),
    Column("VERDICT", lambda verdict: verdict.status),
    Column("ACTION", lambda verdict: verdict.action, spare=1),
    Column("RULE", lambda verdict: verdict.rule, spare=3),
    Column("SINCE", lambda verdict: ago(verdict.since), right=True, spare=2),
    Column("REASON", lambda verdict: verdict.reason, flexible=True),
)
REASON_COLUMNS: tuple[Column[t.Reason], ...] = (
    Column("AT", lambda reason: clock(reason.at)),
    Column("BY", lambda reason: reason.actor, spare=1),
    Column("CODE", lambda reason: reason.code, spare=2),
    Column("WHAT", lambda reason: reason.text, flexible=True),
)


def _gpu_columns(readings: dict[int, t.GpuReading]) -> tuple[Column[t.Gpu], ...]:
    def reading(gpu: t.Gpu, show: Callable[[t.GpuReading], object]) -> object:
        found = readings.get(gpu.index)
        return None if found is None else show(found)

    return (
        Column("GPU", lambda gpu: gpu.index, right=True),
        Column("PCI", lambda gpu: gpu.pci),
        Column("NAME", lambda gpu: gpu.name, spare=4),
        Column("UUID", lambda gpu: gpu.uuid, spare=5),
        Column("SERIAL", lambda gpu: gpu.serial, spare=6),
        Column("UTIL", lambda gpu: reading(gpu, lambda r: _percent(r.utilization_ratio)), right=True),
        Column("°C", lambda gpu: reading(gpu, lambda r: _whole(r.temperature_c)), right=True),
        Column("W", lambda gpu: reading(gpu, lambda r: _whole(r.power_w)), right=True, spare=1),
        Column("PROCESSES", lambda gpu: reading(gpu, lambda r: r.process_count), right=True),
    )


def _percent(ratio: float | None) -> str | None:
    return None if ratio is None else f"{ratio * 100:.0f} %"


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"


def _drain(drain: t.Drain | None) -> str | None:
    if drain is None:
        return None
    if drain.drained_at is not None:
        return "done, skipped: the fault had taken the work" if drain.skipped else f"done {ago(drain.drained_at)} ago"
    waits = f", held by {drain.blocked_by}" if drain.blocked_by else ""
    return f"for {ago(drain.since)} ({drain.cause}), until {clock(drain.deadline)} at most{waits}"


def _provider(node: t.Node) -> str:
    place = "/".join(part for part in (node.region, node.zone) if part)
    return " ".join(part for part in (node.provider, node.instance_type, place) if part)


def instances(
    session: Session,
    pool: Annotated[str | None, typer.Option("--pool", "-p", help="Only this pool.")] = None,
    provider: Annotated[str | None, typer.Option("--provider", help="Only this provider.")] = None,
) -> None:
    """Machines that are paid for."""
    with session.client() as client:
        items = client.instances(pool=pool, provider=provider).items
    show_list(items, INSTANCE_COLUMNS, lambda item: item.instance_id, session.output, "no instances")


def _explain_columns(about: str) -> tuple[Column[t.ExplainItem], ...]:
    def why(item: t.ExplainItem) -> str:
        return f"{item.node}: {item.text}" if item.node and item.node != about else item.text

    return (
        Column("AT", lambda item: clock(item.at)),
        Column("AGO", lambda item: ago(item.at), right=True, spare=3),
        Column("BY", lambda item: item.actor, spare=2),
        Column("WHAT", lambda item: item.event or item.code, spare=1),
        Column("WHY", why, flexible=True),
    )


def explain(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NODE|POOL", help="A node's or a pool's id.")],
    since: Annotated[str | None, typer.Option("--since", help="How far back: 2h, or a time.")] = None,
) -> None:
    """Why a node or pool is as it is: decisions with reasons, newest first, and what the next step waits for."""
    start = moment(since) if since else None
    with session.client() as client:
        try:
            story = client.explain_node(name, since=start)
        except ApiError as error:
            if error.status != 404:
                raise
            story = _explain_pool(client, name, start)
    if session.output in (Output.JSON, Output.YAML):
        show_data(story, session.output)
        return
    out = console()
    out.print(
        pairs(
            [
                ("Node" if story.node else "Pool", story.node or story.pool),
                ("Status", story.status),
                ("Because", story.reason),
                ("Blocked", story.blocked.text if story.blocked else None),
            ]
        )
    )
    out.print()
    if story.items:
        out.print(table(story.items, _explain_columns(story.node), wide=True))
    else:
        print("nothing is recorded in that time")
    if not story.complete:
        complain("the story is not complete: some events could not be read, or there are more than are shown")


def _explain_pool(client: Client, name: str, since: str | None) -> t.Explanation:
    try:
        return client.explain_pool(name, since=since)
    except ApiError as error:
        if error.status != 404:
            raise
        raise Failure(
            f"there is no node or pool {name!r}; `navarch list --all` and `navarch pools` show them"
        ) from error


def cordon(
    session: Session,
    nodes: NodeNames = None,
    selector: Selector = None,
    reason: ReasonText = "",
    dry_run: DryRun = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "5m",
) -> None:
    """No new work on these nodes, until they are uncordoned."""
    _ask_for(session, "cordon", nodes, selector, reason=reason, dry_run=dry_run, wait=wait, patience=wait_timeout)


def uncordon(
    session: Session,
    nodes: NodeNames = None,
    selector: Selector = None,
    reason: ReasonText = "",
    dry_run: DryRun = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "5m",
) -> None:
    """Lifts operators' cordons. Cordons of others (health, scale-down) stay."""
    _ask_for(session, "uncordon", nodes, selector, reason=reason, dry_run=dry_run, wait=wait, patience=wait_timeout)


def drain(
    session: Session,
    nodes: NodeNames = None,
    selector: Selector = None,
    reason: ReasonText = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "1h",
) -> None:
    """Cordons nodes and waits for their work to end. The machines stay."""
    _ask_for(
        session, "drain", nodes, selector, reason=reason, dry_run=dry_run, yes=yes, wait=wait, patience=wait_timeout
    )


def replace(
    session: Session,
    nodes: NodeNames = None,
    selector: Selector = None,
    reason: ReasonText = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    force: Force = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "1h",
) -> None:
    """Launches another machine for each node, then drains and terminates it."""
    _ask_for(
        session, "replace", nodes, selector, reason=reason, dry_run=dry_run, yes=yes, force=force, wait=wait,
        patience=wait_timeout,
    )  # fmt: skip


def terminate(
    session: Session,
    nodes: NodeNames = None,
    selector: Selector = None,
    reason: ReasonText = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    force: Force = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "1h",
) -> None:
    """Ends these nodes' machines. A busy one needs --force; the pool's size decides whether others follow."""
    _ask_for(
        session, "terminate", nodes, selector, reason=reason, dry_run=dry_run, yes=yes, force=force, wait=wait,
        patience=wait_timeout,
    )  # fmt: skip


_GRAVE = frozenset({"drain", "replace", "terminate"})


def _ask_for(
    session: Session,
    verb: t.NodeVerb,
    names: list[str] | None,
    selector: list[str] | None,
    *,
    reason: str,
    dry_run: bool,
    wait: bool,
    patience: str,
    yes: bool = False,
    force: bool = False,
) -> None:
    patience_s = seconds(patience)
    with session.client() as client:
        chosen = _chosen(client, names or [], selector or [])
        if dry_run:
            _preview(client, verb, chosen, session.output, reason=reason, force=force)
            return
        if verb in _GRAVE and not yes:
            _confirm(verb, chosen)
        results: list[dict[str, object]] = []
        worst = 0
        for node in chosen:
            try:
                accepted = client.wish_node(node, verb, reason=reason, force=force)
            except ClientError as error:
                complain(about(node, error))
                worst = max(worst, status_of(error))
                continue
            results.append(as_dict(accepted))
            if session.output in (Output.TABLE, Output.WIDE):
                again = " (asked for before)" if accepted.repeated else ""
                print(f"{node}: {verb} asked for, event {accepted.event_id}{again}")
        if wait:
            worst = max(worst, _await(client, verb, results, session.output, patience_s))
        if session.output is Output.NAME:
            print(*(str(result["node"]) for result in results), sep="\n")
        elif session.output in (Output.JSON, Output.YAML):
            show_data(results, session.output)
    if worst:
        raise typer.Exit(worst)


def _chosen(client: Client, names: list[str], selector: list[str]) -> list[str]:
    if bool(names) == bool(selector):
        raise Failure("name nodes, or select them with -l KEY=VALUE: one of the two", WRONG)
    if names:
        return list(dict.fromkeys(names))
    found = [node.node for node in client.nodes(labels=_labels(selector)).items]
    if not found:
        raise Failure(f"no node has the label {' and '.join(selector)}")
    return found


def _preview(client: Client, verb: t.NodeVerb, nodes: list[str], output: Output, *, reason: str, force: bool) -> None:
    previews = [client.preview_node_wish(node, verb, reason=reason, force=force) for node in nodes]
    if output in (Output.JSON, Output.YAML):
        show_data(previews, output)
        return
    for preview in previews:
        print(preview.would)


def _confirm(verb: str, nodes: list[str]) -> None:
    which = ", ".join(nodes[:5]) + (f" and {len(nodes) - 5} more" if len(nodes) > 5 else "")
    if not sys.stdin.isatty():
        raise Failure(f"{verb} of {which}: add --yes to do it without being asked", WRONG)
    if not typer.confirm(f"{verb} {which}?"):
        raise Failure("nothing was done", NOT_DONE)


def _await(client: Client, verb: str, results: list[dict[str, object]], output: Output, patience_s: float) -> int:
    """Waits for each wish's final answer and adds it to its result. Returns the worst exit status."""
    worst = 0
    deadline = time.monotonic() + patience_s
    with console().status(f"waiting for {verb}") if sys.stdout.isatty() else _Silent():
        for result in results:
            node, request_id = str(result["node"]), str(result["request_id"])
            try:
                left_s = max(deadline - time.monotonic(), 0.001)
                state = client.wait_for_wish(request_id, node=node, timeout_s=left_s)
            except TimedOut:
                complain(
                    f"{node}: not done after {span(patience_s)}; it goes on, `navarch explain {node}` tells how far it is"
                )
                worst = max(worst, TIMED_OUT)
                continue
            answer = state.answer
            result["answer"] = as_dict(answer) if answer else None
            if answer is not None and answer.outcome != "done":
                complain(f"{node}: {answer.outcome}: {answer.reason}")
                worst = max(worst, NOT_DONE)
            elif answer is not None and output in (Output.TABLE, Output.WIDE):
                print(f"{node}: {answer.reason or 'done'}")
    return worst


class _Silent:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def _word(option: str, given: str | None, words: Sequence[str]) -> str | None:
    """A status in any case, also as the reference writes it: NODE_STATUS_ACTIVE."""
    if given is None:
        return None
    word = given.lower().removeprefix("node_status_").removeprefix("health_status_")
    if word not in words:
        raise Failure(f"{option} {given!r} is not one of {', '.join(words)}", WRONG)
    return word


def _labels(given: list[str]) -> dict[str, str]:
    labels = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise Failure(f"{pair!r} is not KEY=VALUE", WRONG)
        labels[key] = value
    return labels
