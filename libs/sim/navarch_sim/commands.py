"""`navarch inject`: break a simulated machine, or make it busy, and see what the fleet does about it."""

import re
from typing import Annotated, Any, get_args

import msgspec
import typer

from navarch_agent.inject import READINGS, Injection, Verb
from navarch_cli.output import show_data
from navarch_cli.session import WRONG, Failure, Output, Session, command

VERBS: tuple[str, ...] = get_args(Verb)
_VALUES = {
    "xid": ("code", "CODE"),
    "temperature": ("temperature_c", "DEGREES"),
    "reading": ("reading", "NAME=VALUE"),
    "busy": ("processes", "PROCESSES"),
    "silence": ("for_s", "DURATION"),
}
"""What a verb's value means, and its name. Other verbs take none; these but `xid` and `reading` may go
without."""
_ABOUT_ONE_GPU = frozenset({"xid", "ecc", "nvlink", "temperature", "reading", "gpu-lost"})
_READING = f"NAME=VALUE with one of {', '.join(READINGS)}"
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

inject = typer.Typer(name="inject", add_completion=False, rich_markup_mode=None)


@command(inject, "inject")
def inject_command(
    session: Session,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A machine of the local or the fake provider.")],
    verb: Annotated[str, typer.Argument(metavar="VERB", help=f"One of {', '.join(VERBS)}.")],
    value: Annotated[
        str | None,
        typer.Argument(
            metavar="VALUE",
            help="xid: its code. temperature: degrees C; none ends it. reading: NAME=VALUE, as remap_pending=true. "
            "silence: how long (1h). busy: processes on each GPU (1).",
            show_default=False,
        ),
    ] = None,
    gpu: Annotated[
        int | None, typer.Option("--gpu", metavar="INDEX", help="Which GPU, from 0 (0).", show_default=False)
    ] = None,
    message: Annotated[
        str | None,
        typer.Option("--message", help="xid: what the kernel's line says after the code.", show_default=False),
    ] = None,
) -> None:
    """Break a simulated machine, or make it busy.

    `navarch inject NODE xid 79 --gpu 3` lets its kernel print the line that the driver prints for a lost GPU; `heal` ends
    a temperature, a silence, and what ails the driver.
    """
    body = request(verb, value, gpu=gpu, message=message)
    with session.client() as client:
        answer = client.inject(node, body)
    if session.output in {Output.JSON, Output.YAML}:
        show_data(answer, session.output)
    else:
        typer.echo(node if session.output is Output.NAME else f"{node}: {answer.get('text', 'done')}")


def request(verb: str, value: str | None, *, gpu: int | None, message: str | None) -> dict[str, Any]:
    """What is asked of the machine. Raises `Failure` for what no machine could do."""
    if verb not in VERBS:
        raise Failure(f"{verb!r} is nothing that can be injected: expected one of {', '.join(VERBS)}", WRONG)
    body: dict[str, Any] = {"verb": verb}
    if value is not None:
        if verb not in _VALUES:
            raise Failure(f"{verb} takes no value, found {value!r:.40}", WRONG)
        body |= _reading(value) if verb == "reading" else {_VALUES[verb][0]: _read(verb, value)}
    elif verb == "xid":
        raise Failure("xid: expected its code, as in `navarch inject NODE xid 79`", WRONG)
    elif verb == "reading":
        raise Failure(f"reading: expected {_READING}", WRONG)
    if gpu is not None:
        if verb not in _ABOUT_ONE_GPU:
            raise Failure(f"{verb} is about the whole machine: --gpu means nothing here", WRONG)
        body["gpu"] = gpu
    if message is not None:
        if verb != "xid":
            raise Failure(f"{verb} prints no line: --message means nothing here", WRONG)
        body["message"] = message
    try:
        msgspec.convert(body, Injection)
    except msgspec.ValidationError as error:
        raise Failure(f"{verb}: {error}", WRONG) from error
    return body


def _reading(text: str) -> dict[str, Any]:
    """`remap_pending=true`, `throttle=8`; `=none` is a reading that fails."""
    name, equals, value = text.partition("=")
    if name not in READINGS or not equals:
        raise Failure(f"reading: expected {_READING}, found {text!r:.60}", WRONG)
    try:
        return {
            "reading": name,
            "value": msgspec.json.decode({"none": "null"}.get(value, value), type=bool | int | float | None),
        }
    except msgspec.DecodeError:
        raise Failure(f"reading {name}: expected true, false, a number or none, found {value!r:.40}", WRONG) from None


def _read(verb: str, value: str) -> float | int:
    try:
        match verb:
            case "silence":
                return _duration(value)
            case "temperature":
                return float(value)
            case _:
                return int(value)
    except ValueError:
        wanted = {"silence": "a duration such as 90s, 5m or 1h", "temperature": "degrees such as 91.5"}
        expected = wanted.get(verb, "a whole number")
        raise Failure(f"{verb} {_VALUES[verb][1]}: expected {expected}, found {value!r:.40}", WRONG) from None


def _duration(text: str) -> float:
    if (match := _DURATION.fullmatch(text)) is None:
        raise ValueError(text)
    return float(match[1]) * _SECONDS[match[2] or "s"]
