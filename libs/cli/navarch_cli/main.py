"""`navarch`: builds the command, finds the commands that live elsewhere, and runs."""

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from navarch_cli import audit, changes, cluster, events, leaks, nodes, pools
from navarch_cli.session import _OUTPUT, _SERVER, _TIMEOUT, _TOKEN, NOT_DONE, Output, Session, complain, merged

ELSEWHERE = {
    "up": "Run a whole fleet here: control plane, servers and simulated machines.",
    "config": "Check a configuration file; print its schema.",
    "policy": "Check a health policy, and try it on an event.",
    "inject": "Break a simulated machine, or make it busy.",
    "xid": "What Xid and SXid codes mean; decode a kernel log.",
    "sim": "Run the services in a simulated world, seed by seed.",
}
"""What `--help` says of our own commands that live in other distributions."""


class Commands(TyperGroup):
    """Our own commands, and those of `navarch.commands`, each imported only when it is called or described."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - what typer asks for
        return sorted({*self.commands, *entry_points(group="navarch.commands").names})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        found = entry_points(group="navarch.commands", name=cmd_name)
        return load(next(iter(found))) if found else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - what typer asks for
        """Describes commands of other distributions without importing them: `--help` is to be quick."""
        own = {name: command.get_short_help_str(80) for name, command in self.commands.items() if not command.hidden}
        elsewhere = {name: ELSEWHERE.get(name, "") for name in entry_points(group="navarch.commands").names}
        with formatter.section("Commands"):
            formatter.write_dl(sorted({**elsewhere, **own}.items()))


def load(entry: EntryPoint) -> Any:
    """The command behind an entry point: a `typer.Typer`, or a function."""
    loaded = entry.load()
    if isinstance(loaded, typer.Typer):
        loaded.rich_markup_mode = None  # its help looks like ours
        command = get_command(loaded)
    else:
        app = typer.Typer(add_completion=False)
        app.command(entry.name)(loaded)
        command = get_command(app)
    command.name = entry.name
    return command


app = typer.Typer(
    name="navarch",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Healthy GPU machines from many clouds: see them, size their pools, take one out, read why.",
)


@app.callback()
def navarch(
    ctx: typer.Context,
    server: Annotated[str | None, _SERVER] = None,
    token: Annotated[str | None, _TOKEN] = None,
    output: Annotated[Output | None, _OUTPUT] = None,
    timeout: Annotated[float | None, _TIMEOUT] = None,
) -> None:
    """Healthy GPU machines from many clouds: see them, size their pools, take one out, read why.

    Exit status: 0 done, 1 it could not be done, 2 the command was wrong, 3 timed out waiting, 4 refused by a freeze,
    hold or budget, 5 not allowed.
    """
    ctx.obj = merged(Session(), server=server, token=token, output=output, timeout=timeout)


nodes.register(app)
pools.register(app)
changes.register(app)
events.register(app)
audit.register(app)
cluster.register(app)
leaks.register(app)


def main() -> None:
    """The console script."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except ImportError as error:
        complain(f"this command needs a package that is not installed here: {error.name or error}")
        sys.exit(NOT_DONE)
