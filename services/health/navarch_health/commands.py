"""`navarch policy`: check a health policy before it is anybody's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from navarch_health.policy import POLICY_BYTES_MAX, Policy, PolicyError, load_policy

policy = typer.Typer(name="policy", help="Check health policies.", no_args_is_help=True, add_completion=False)


@policy.callback()
def _group() -> None:
    """Keeps `check` a command of its own while it is the only one."""


@policy.command("check")
def check_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file; - reads standard input.", show_default=False)],
) -> None:
    """Say whether FILE can come into force. Every mistake is a line: file, line, column, rule, what is wrong."""
    try:
        loaded = _load(file)
    except PolicyError as error:
        typer.echo(str(error), err=True)
        count = len(error.problems)
        mistakes = "mistake" if count == 1 else "mistakes"
        typer.echo(f"{file}: {count} {mistakes}; nothing was changed", err=True)
        raise typer.Exit(1) from None
    except (OSError, UnicodeDecodeError) as error:
        typer.echo(f"{file}: cannot be read: {error}", err=True)
        raise typer.Exit(1) from None
    for line in summary(loaded):
        typer.echo(line)


def summary(loaded: Policy) -> list[str]:
    """What a checked policy says, a line for each rule."""
    lines = [f"ok: {loaded.name}, {len(loaded.rules)} rules"]
    for number, rule in enumerate(loaded.rules, start=1):
        what = rule.result if rule.action == "none" else f"{rule.result}, {rule.action}"
        if rule.after is not None and rule.after > 1:
            what += f", from episode {rule.after} on"
        lines.append(f"{number:3}  {rule.name}: {what}{' (shadow)' if rule.shadow else ''}")
    return lines + [f"warning: {warning}" for warning in loaded.warnings]


def _load(file: Path) -> Policy:
    if str(file) == "-":
        return load_policy(sys.stdin.read(POLICY_BYTES_MAX + 1), "<stdin>")
    return load_policy(file.read_text(encoding="utf-8"), str(file))
