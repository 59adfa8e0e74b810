"""`navarch sim`: the services in a simulated world that goes wrong in every way, seed by seed."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from navarch_cli.output import show_data
from navarch_cli.session import NOT_DONE, WRONG, Failure, Output, Session, command
from navarch_sim.virtual.checks import INVARIANTS
from navarch_sim.virtual.endurance import Endured, endure, lose, quiet, silence_zone
from navarch_sim.virtual.plants import PLANTS
from navarch_sim.virtual.runs import Summary, Tally, be_quiet, cores, run_seeds
from navarch_sim.virtual.seed import Report, World

HISTORY_LINES = 60
"""Of a broken run, the last so many lines are shown; `--history` shows all."""

sim = typer.Typer(
    name="sim",
    help="Run the services in a simulated world, seed by seed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@command(sim, "seeds")
def seeds_command(
    session: Session,
    count: Annotated[int, typer.Argument(metavar="N", min=1, max=10_000_000, help="How many seeds.")],
    first: Annotated[int, typer.Option("--from", metavar="S", min=0, help="The first of them.")] = 1,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", metavar="J", min=1, max=1024, help="Side by side (as many as there are cores)."),
    ] = None,
    plant: Annotated[
        str, typer.Option("--plant", metavar="NAME", help="Plant this bug, and stop at the first seed that finds it.")
    ] = "",
    history: Annotated[bool, typer.Option("--history", help="Show the whole history of a seed that failed.")] = False,
) -> None:
    """Run N seeds: each a world of its own in virtual time, with the real services in it and faults of its own.

    Exit status 1 where a promise was broken; after Ctrl-C what came of those that were run is shown. A seed is the
    same for ever: run it again with `--from S` and N = 1.
    """
    if plant and plant not in PLANTS:
        raise Failure(f"there is no plant {plant!r:.60}: expected one of {', '.join(PLANTS)}", WRONG)
    tally = Tally()
    reports = run_seeds(range(first, first + count), jobs=jobs or cores(), plant=plant)
    with _bar("seeds", count, session.output) as advance, _ctrl_c() as pressed, closing(reports):
        for report in reports:
            tally.take(report)
            advance(1, f"{len(tally.failed)} failed" if tally.failed else "")
            if pressed():
                break
    summary = tally.summary()
    if session.output in {Output.JSON, Output.YAML}:
        show_data(msgspec.to_builtins(summary), session.output)
    else:
        _tell(summary, tally.failed, plant, whole=history)
    if pressed():
        raise KeyboardInterrupt
    if summary.violations:
        raise typer.Exit(NOT_DONE)


@command(sim, "soak")
def soak_command(
    session: Session,
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", min=1, max=100_000, help="How many.")] = 1000,
    hours: Annotated[float, typer.Option("--hours", metavar="H", min=0.01, max=10_000, help="How long.")] = 24.0,
    heartbeat: Annotated[
        float, typer.Option("--heartbeat", metavar="S", min=0.1, max=300, help="Seconds between heartbeats.")
    ] = 10.0,
    loss: Annotated[float, typer.Option("--loss", metavar="P", min=0, max=100, help="Percent that is lost.")] = 0.0,
    silent_zone: Annotated[
        float,
        typer.Option("--silent-zone", metavar="S", min=0, help="A third of them falls silent at once for S seconds."),
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", metavar="SEED", min=0, help="The same seed has the same trace.")] = 1,
) -> None:
    """Run a large, quiet fleet for a long virtual time: no machine may go that is only not heard.

    Exit status 1 where a machine was replaced or called failed, or a promise broken; after Ctrl-C what came of the time so
    far is shown.
    """
    options = quiet(nodes, heartbeat_s=heartbeat)

    def begin(world: World) -> None:
        lose(loss / 100)(world)
        if silent_zone:
            silence_zone(options.pools[0].zones[0], silent_zone)(world)

    seconds = hours * 3600.0
    with _bar("hours", hours, session.output) as advance, _ctrl_c() as pressed:
        passed_s = 0.0

        def look(now_s: float) -> bool:
            nonlocal passed_s
            advance((now_s - passed_s) / 3600, "")
            passed_s = now_s
            return not pressed()

        be_quiet()
        came = endure(seed, options, seconds, begin, look)
    if session.output in {Output.JSON, Output.YAML}:
        show_data(msgspec.to_builtins(came), session.output)
    else:
        _tell_soak(came, loss)
    if pressed():
        raise KeyboardInterrupt
    if not came.unharmed:
        raise typer.Exit(NOT_DONE)


def _tell_soak(came: Endured, loss: float) -> None:
    told = ", ".join(f"{count} {kind}" for kind, count in came.events.items()) or "nothing"
    rate = came.lasted_s / came.wall_s if came.wall_s else 0.0
    typer.echo(
        f"{came.nodes} nodes, {came.lasted_s / 3600:.2f} simulated hours in {came.wall_s:.0f} s ({rate:.0f} times as fast)"
    )
    typer.echo(f"{came.heartbeats} heartbeats heard, {loss:g} % of all messages lost; told of: {told}")
    typer.echo(f"{came.made} machines made, {came.ended} ended")
    typer.echo(f"trace {came.digest}")
    if came.violation:
        typer.echo(f"broken: {came.violation}")


@command(sim, "plants")
def plants_command(session: Session) -> None:
    """List the bugs that can be planted: mistakes that the simulator must find."""
    if session.output in {Output.JSON, Output.YAML}:
        show_data([{"name": planted.name, "text": planted.text} for planted in PLANTS.values()], session.output)
        return
    for planted in PLANTS.values():
        typer.echo(planted.name if session.output is Output.NAME else f"{planted.name:<20} {planted.text}")


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yields what says whether Ctrl-C was pressed. An exception in the middle of a seed would be lost where it hits the
    finalizer of some object, so the seeds under way end first; who presses twice waits for nothing."""
    pressed = False

    def press(number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(number, before)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # which it is in the background
        signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(what: str, total: float, output: Output) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal, for what takes long; yields what moves it, and says what is to be known of it."""
    shown = sys.stderr.isatty() and output is not Output.NAME
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=total)

        def advance(by: float, news: str) -> None:
            bar.update(task, advance=by, description=f"{what}, {news}" if news else what)

        yield advance


def _tell(summary: Summary, failed: list[Report], plant: str, *, whole: bool) -> None:
    for report in failed:
        violation = report.violation
        assert violation is not None
        typer.echo(f"seed {report.seed}: {violation.invariant} at {violation.at_s:.3f} s: {violation.text}")
        typer.echo(f"  which promises that {INVARIANTS[violation.invariant]}")
    if failed and not plant:
        first = failed[0]
        typer.echo(f"\nseed {first.seed} was run with {msgspec.json.encode(first.options).decode()}")
        lines = first.history if whole else first.history[-HISTORY_LINES:]
        if len(lines) < len(first.history):
            typer.echo(f"its last {len(lines)} of {len(first.history)} moments (all of them: --history):")
        for line in lines:
            typer.echo(line)
        typer.echo(f"\nrun it again: navarch sim seeds 1 --from {first.seed}")
    faults = sum(summary.coverage["faults"].values())
    rate = summary.seeds / summary.wall_s if summary.wall_s else 0.0
    typer.echo(
        f"{summary.seeds} seeds, {len(summary.violations)} failed; {summary.simulated_s:.0f} simulated seconds in "
        f"{summary.wall_s:.1f} s ({rate:.1f} seeds/s); {faults} faults struck, {len(summary.coverage['unseen'])} pairs of "
        "an edge and a fault never met"
    )
    if plant and not failed:
        typer.echo(f"the plant {plant} was not found: {PLANTS[plant].text}")
