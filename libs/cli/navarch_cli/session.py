"""What all commands share: the server, the output format, the client, and what an exit status means."""

import functools
import getpass
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

from navarch_api.client import DEFAULT_SERVER, Client
from navarch_api.errors import ApiError, ClientError, NotAName, Unreachable

F = TypeVar("F", bound=Callable[..., Any])

DONE, NOT_DONE, WRONG, TIMED_OUT, REFUSED, NOT_ALLOWED = range(6)
"""Exit statuses: done; it could not be done; the command was wrong; timed out waiting; refused by a freeze, hold or
budget; not allowed."""
INTERRUPTED = 130
REFUSALS = frozenset({"frozen", "held", "budget-exhausted", "safe-mode"})
_WRONG = frozenset(
    {"invalid-id", "invalid-parameter", "invalid-field", "invalid-body", "unknown-parameter", "unknown-field"}
)


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True)
class Session:
    """The global options of one call. Those given after a command win over those before it."""

    server: str = DEFAULT_SERVER
    token: str = ""
    output: Output = Output.TABLE
    timeout_s: float = 30.0

    @contextmanager
    def client(self) -> Iterator[Client]:
        with Client(self.server, actor=_actor(), token=self.token, timeout_s=self.timeout_s) as client:
            yield client


class Failure(Exception):
    """Ends the command with one line on stderr and this exit status."""

    def __init__(self, message: str, status: int = NOT_DONE) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: ClientError) -> int:
    """The exit status that tells a script why the server said no."""
    if isinstance(error, NotAName):
        return WRONG
    if not isinstance(error, ApiError):
        return NOT_DONE
    if error.status in (401, 403):
        return NOT_ALLOWED
    if error.code in REFUSALS:
        return REFUSED
    if error.code == "out-of-bounds":
        return NOT_DONE
    if error.status in (400, 422) and (error.code in _WRONG or error.problem.field):
        return WRONG
    return NOT_DONE


def complain(message: str) -> None:
    typer.echo(f"navarch: {message}", err=True)


def hint(error: ClientError) -> str:
    """The error, and what to try where that is not plain from it."""
    if isinstance(error, Unreachable):
        return f"{error}; is the control plane running? Start one with `navarch up`, or name it with --server"
    if isinstance(error, ApiError) and error.code in ("busy", "held"):
        return str(error).replace("or use force", "or use --force")
    return str(error)


def about(subject: str, error: ClientError) -> str:
    """The error with what it is about in front, unless it says that itself."""
    text = hint(error)
    return text if subject in text else f"{subject}: {text}"


def _actor() -> str:
    try:
        return f"operator:{getpass.getuser()}"
    except (KeyError, OSError):
        return "operator:unknown"


_SERVER = typer.Option(
    "--server", "-s", envvar="NAVARCH_SERVER", help="The gateway's HTTP address.", show_default=False
)
_TOKEN = typer.Option("--token", envvar="NAVARCH_AUTH_TOKEN", help="Bearer token.", show_default=False)
_OUTPUT = typer.Option("--output", "-o", help="How to print.", show_default=False, case_sensitive=False)
_TIMEOUT = typer.Option("--timeout", help="Seconds to wait for an answer.", min=0.1, max=3600, show_default=False)
_COMMON = {
    "server": Annotated[str | None, _SERVER],
    "token": Annotated[str | None, _TOKEN],
    "output": Annotated[Output | None, _OUTPUT],
    "timeout": Annotated[float | None, _TIMEOUT],
}


def command(app: typer.Typer, name: str | None = None, *, hidden: bool = False) -> Callable[[F], F]:
    """Registers a function as a command of `app`. Its first parameter is the `Session`; the global options are added, so
    that they may stand before the command or after it."""

    def register(function: F) -> F:
        signature = inspect.signature(function)
        own = list(signature.parameters.values())[1:]
        common = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for option, annotation in _COMMON.items()
        ]
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)

        @functools.wraps(function)
        def call(ctx: typer.Context, **given: Any) -> None:
            options = {option: given.pop(option) for option in _COMMON}
            session = merged(ctx.find_object(Session) or Session(), **options)
            run(function, session, given)

        call.__signature__ = signature.replace(parameters=[context, *own, *common], return_annotation=None)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in [context, *own, *common]}
        app.command(name, hidden=hidden)(call)
        return function

    return register


def merged(
    session: Session, server: str | None, token: str | None, output: Output | None, timeout: float | None
) -> Session:
    """The session with the options that were given."""
    given = {"server": server, "token": token, "output": output, "timeout_s": timeout}
    return replace(session, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]


def run(function: Callable[..., Any], session: Session, given: dict[str, Any]) -> None:
    """Calls a command and turns its trouble into one line and an exit status."""
    try:
        function(session, **given)
    except Failure as failure:
        complain(str(failure))
        raise typer.Exit(failure.status) from failure
    except ClientError as error:
        complain(hint(error))
        raise typer.Exit(status_of(error)) from error
    except BrokenPipeError:
        # The reader (head, less) has had enough. Nothing more may be written, not even at exit.
        sys.stdout = None
        raise typer.Exit(DONE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
