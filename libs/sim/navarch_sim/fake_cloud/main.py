"""`navarch-fake-cloud`: a simulated cloud on the loopback interface, with a memory that survives it.

It holds a lock on its directory and says in `runtime.json` where it listens. SIGTERM shuts its machines down in good
order; they boot again with the next start, and so they do after a kill.
"""

import argparse
import asyncio
import fcntl
import logging
import os
import random
import socket
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import psutil
import uvicorn

from navarch_common import log as logs
from navarch_common.clock import SystemClock
from navarch_common.errors import NavarchError
from navarch_common.process import main as run_main
from navarch_provisioner.cloud.fake_wire import Forecast, Running
from navarch_sim.fake_cloud.cloud import Cloud
from navarch_sim.fake_cloud.http import application

_STOP_GRACE_S = 2
_CONNECTIONS_MAX = 1000


class DirectoryInUse(NavarchError):
    """Another fake cloud holds the directory."""


class PortTaken(NavarchError):
    """Nothing can listen on the port."""


class _Server(uvicorn.Server):
    """Signals belong to the process, not to its server."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Returns 0 after an orderly stop, 1 when it could not run, 2 when the command was wrong."""
    given = _parser().parse_args(argv)
    logs.configure(given.log_level, service="fake-cloud")
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # It would complain of every reply that we lose.
    logging.getLogger("navarch.agent").setLevel(logging.ERROR)  # A thousand machines would all say the same.
    try:
        forecast = msgspec.convert(_forecast(given), Forecast)
    except msgspec.ValidationError as error:
        sys.stderr.write(f"navarch-fake-cloud: {error}\n")
        return 2
    return run_main(_serve(given.data_dir, given.port, forecast, random.Random(given.seed)))


async def _serve(directory: Path, port: int, forecast: Forecast, rng: random.Random) -> None:
    with _held(directory), _listening(port) as listener:
        cloud = Cloud(directory, SystemClock(), rng)
        await cloud.open(forecast)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(cloud.run(), name="cloud")
            try:
                await _answer(cloud, directory, listener)
            finally:
                running.cancel()


async def _answer(cloud: Cloud, directory: Path, listener: socket.socket) -> None:
    """Until cancelled, or told to leave; then calls under way have a moment to finish."""
    config = uvicorn.Config(
        application(cloud), log_config=None, access_log=False, lifespan="off", ws="none", server_header=False,
        limit_concurrency=_CONNECTIONS_MAX, timeout_keep_alive=60, timeout_graceful_shutdown=_STOP_GRACE_S,
    )  # fmt: skip
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    leaving = asyncio.ensure_future(cloud.leaving.wait())
    try:
        with _announced(directory, listener.getsockname()[1]):
            await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        server.should_exit = True
        await asyncio.wait({serving}, timeout=_STOP_GRACE_S + 1.0)
        serving.cancel()


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """The directory is ours. Raises `DirectoryInUse`."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise DirectoryInUse(
            f"another fake cloud works in {directory}: {directory / 'runtime.json'} says which"
        ) from error
    finally:
        os.close(descriptor)


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """A socket on the loopback interface. Raises `PortTaken`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTaken(f"--port {port}: {error.strerror}") from error
        listener.listen(256)
        listener.setblocking(False)
        yield listener


@contextmanager
def _announced(directory: Path, port: int) -> Iterator[None]:
    """While it lasts, `runtime.json` says where to find us."""
    me = Running(url=f"http://127.0.0.1:{port}", pid=os.getpid(), started_at=psutil.Process().create_time())
    draft = directory / ".runtime.json.new"
    draft.write_bytes(msgspec.json.encode(me) + b"\n")
    draft.replace(directory / "runtime.json")
    try:
        yield
    finally:
        (directory / "runtime.json").unlink(missing_ok=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="navarch-fake-cloud", allow_abbrev=False, description="A simulated cloud on the loopback interface."
    )
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="where its machines are remembered")
    parser.add_argument("--port", type=int, default=0, help="where it listens (a free one)")
    weather = parser.add_argument_group("weather", "kept for the next start; changed at any time by PATCH /v1/weather")
    weather.add_argument("--boot-time", type=float, metavar="SECONDS", help="from launch to the agent's first word (2)")
    weather.add_argument("--capacity", type=int, metavar="MACHINES", help="how many there are in all (no bound)")
    weather.add_argument("--failure-rate", type=float, metavar="RATIO", help="part of the calls that fail (0)")
    weather.add_argument("--lost-reply-rate", type=float, metavar="RATIO", help="part of the replies that get lost (0)")
    parser.add_argument("--seed", type=int, help="makes the weather the same each time")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="info")
    parser.add_argument("--version", action="version", version=f"navarch-fake-cloud {version('navarch-sim')}")
    return parser


def _forecast(given: argparse.Namespace) -> dict[str, Any]:
    named = {
        "boot_time_s": given.boot_time,
        "capacity": given.capacity,
        "failure_rate": given.failure_rate,
        "lost_reply_rate": given.lost_reply_rate,
    }
    return {name: value for name, value in named.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
