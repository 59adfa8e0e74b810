"""`navarch config`: check a file before it is anybody's, and print what a file may say."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from navarch_common.config.autoscaling import strategy_name
from navarch_common.config.describe import json_schema
from navarch_common.config.load import Loaded, load_file, load_text
from navarch_common.config.problems import ConfigError
from navarch_common.config.providers import provider_type

config = typer.Typer(
    name="config",
    help="Check a configuration file, and print its schema.",
    no_args_is_help=True,
    add_completion=False,
)


@config.command("check")
def check_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file; - reads standard input.", show_default=False)],
    insecure: Annotated[bool, typer.Option("--insecure", help="Check it as for a start with --insecure.")] = False,
) -> None:
    """Say whether FILE can come into force. Every mistake is a line: file, line, column, key, what is wrong."""
    try:
        loaded = _load(file, insecure=insecure)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        typer.echo(_verdict(error, file), err=True)
        raise typer.Exit(1) from None
    for line in summary(loaded):
        typer.echo(line)


@config.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def summary(loaded: Loaded) -> list[str]:
    """What a checked file says, in a few lines."""
    checked = loaded.config
    providers = ", ".join(f"{name} ({provider_type(one)})" for name, one in checked.providers.items())
    lines = [
        f"ok: cluster {checked.cluster}, sha256 {loaded.sha256[:12]}",
        f"providers: {providers or 'none'}",
    ]
    for name, pool in checked.pools.items():
        sizing = strategy_name(pool.autoscaling) if pool.autoscaling else "kept at its desired count"
        on = ", ".join(f"{choice.instance_type} on {choice.name}" for choice in pool.choices)
        lines.append(f"pool {name}: {pool.min_nodes} to {pool.max_nodes} nodes, {on}, {sizing}")
    return lines


def _load(file: Path, *, insecure: bool) -> Loaded:
    if str(file) == "-":
        return load_text(sys.stdin.read(), "<stdin>", os.environ, insecure=insecure)
    return load_file(file, os.environ, insecure=insecure)


def _verdict(error: ConfigError, file: Path) -> str:
    count = len(error.problems)
    return f"{file}: {count} {'mistake' if count == 1 else 'mistakes'}; nothing was changed"
