"""`navarch xid`: what the codes mean that NVIDIA's drivers print, and what a kernel log says. Asks no server."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from navarch_cli.output import Column, console, counted, pairs, show_data, show_line, show_list
from navarch_cli.session import Failure, Output, Session, command
from navarch_common.xid import CatalogueEntry, Decoded, Decoder, Severity, sxid_entry, sxids, xid_entry, xids
from navarch_common.xid.lines import LINE_BYTES_MAX
from navarch_common.xid.nvlink5 import XIDS as NVLINK_XIDS
from navarch_common.xid.nvlink5 import nvlink_rules

SXID_MIN = 10_000
"""SXids have five digits, Xids three at most."""

xid = typer.Typer(
    name="xid",
    help="What Xid and SXid codes mean; decode a kernel log.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

_COLUMNS = (
    Column[CatalogueEntry]("CODE", lambda entry: entry.code, right=True),
    Column[CatalogueEntry]("SEVERITY", lambda entry: entry.severity.value),
    Column[CatalogueEntry]("ADVICE", lambda entry: entry.action),
    Column[CatalogueEntry]("NAME", lambda entry: entry.name, flexible=True),
    Column[CatalogueEntry]("NOTES", lambda entry: entry.notes, wide=True, flexible=True),
)


@command(xid, "list")
def list_command(
    session: Session,
    switches: Annotated[bool, typer.Option("--sxid", help="The NVSwitch driver's codes (SXid).")] = False,
    severity: Annotated[Severity | None, typer.Option("--severity", help="Only these.", show_default=False)] = None,
) -> None:
    """List every code of the GPU driver (Xid), or of the NVSwitch driver."""
    entries = [entry for entry in (sxids() if switches else xids()) if severity in (None, entry.severity)]
    show_list(entries, _COLUMNS, lambda entry: str(entry.code), session.output, "no code is of this severity")


@command(xid, "show")
def show_command(
    session: Session,
    code: Annotated[
        int, typer.Argument(metavar="CODE", min=0, max=99_999, help="79; five digits are an SXid.", show_default=False)
    ],
) -> None:
    """Show what one code means and what NVIDIA advises. Exit status 1 where no catalogue lists it."""
    family = "SXid" if code >= SXID_MIN else "Xid"
    entry = sxid_entry(code) if code >= SXID_MIN else xid_entry(code)
    if entry.severity is Severity.UNCLASSIFIED:
        raise Failure(f"{family} {code} is in no catalogue: Navarch shows and counts it, and repairs nothing for it")
    if session.output in (Output.JSON, Output.YAML):
        show_data(entry, session.output)
        return
    if session.output is Output.NAME:
        typer.echo(code)
        return
    rows: list[tuple[str, object]] = [
        (family, entry.code),
        ("name", entry.name),
        ("severity", entry.severity.value),
        ("advice", entry.action),
    ]
    for note in filter(None, entry.notes.split("; ")):
        label, is_labelled, text = note.partition("=")
        rows.append((label.replace("_", " "), text) if is_labelled else ("note", label))
    if code in NVLINK_XIDS:
        rows.append(("registers", f"decoded by {len(nvlink_rules(code))} rules: navarch xid decode"))
    console().print(pairs(rows))


@command(xid, "decode")
def decode_command(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="The log; - reads standard input.")] = "-",
) -> None:
    """Say what each line of a kernel log means that tells of a fault: dmesg, syslog, journald, /dev/kmsg.

    As lines come, so that `dmesg -w | navarch xid decode` follows. With -o json one object a line. The default health
    policy decides what Navarch does about each: `navarch policy check` shows a policy's rules.
    """
    decoder, lines, told = Decoder(), 0, 0
    with _opened(file) as log:
        for line in _lines(log):
            lines += 1
            decoded = decoder.line(line)
            if decoded is None:
                continue
            told += 1
            if session.output in (Output.TABLE, Output.WIDE) and told == 1:
                typer.echo(_row("SEVERITY", "CODE", "ENTITY", "ADVICE", "WHAT"))
            _show(decoded, session.output)
    if session.output in (Output.TABLE, Output.WIDE):
        typer.echo(f"{told} of {counted(lines, 'line')} tell of a fault", err=True)


def _show(decoded: Decoded, output: Output) -> None:
    code = decoded.kind if decoded.code is None else f"{decoded.kind} {decoded.code}"
    if output is Output.JSON:
        show_line(decoded)
    elif output is Output.YAML:
        typer.echo("---")
        show_data(decoded, output)
    elif output is Output.NAME:
        typer.echo(code.replace(" ", "-"))
    else:
        what = f"{decoded.name}: {decoded.message}" if output is Output.WIDE else decoded.name
        typer.echo(_row(decoded.severity.value, code, decoded.entity, decoded.action, what))


def _row(severity: str, code: str, entity: str, advice: str, what: str) -> str:
    return f"{severity:<12}  {code:<17}  {entity:<20}  {advice:<17}  {what}"


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as log:
            yield log
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror or error}") from None


def _lines(log: BinaryIO) -> Iterator[str]:
    """Whatever is in the file: what is no text is shown as it is, and of a line without end only the beginning is kept."""
    goes_on = False
    while raw := log.readline(4 * LINE_BYTES_MAX):
        if not goes_on:
            yield raw.decode("utf-8", "backslashreplace")
        goes_on = not raw.endswith(b"\n")
