"""What the one-process control plane is told: by its caller, by its configuration, by the environment."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from navarch_common.config import Config
from navarch_common.config.addresses import bind_address, is_loopback
from navarch_common.errors import NavarchError

HTTP_FLAG, GRPC_FLAG = "--http", "--grpc"
DATA_DIR_DEFAULT = Path("navarch-data")


class DoorTaken(NavarchError):
    """Another program listens where we should; the message names the flag that moves us."""


class BadAddress(NavarchError):
    """An address on the command line cannot be served; the message names the flag."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller said."""

    config: Path | None = None
    """None is the data directory's own `navarch.yaml`, written there at the first start."""
    data_dir: Path = DATA_DIR_DEFAULT
    http: str = ""
    """Where HTTP is served, `HOST:PORT` or `:PORT`; empty is what the configuration says."""
    grpc: str = ""
    insecure: bool = False
    command: str = "navarch up"
    """How we were called, for the person whom a second start refuses."""


class ControlPlaneSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the composition needs to know. Durations are in seconds."""

    http: tuple[str, int]
    """Host and port, as bound."""
    grpc: tuple[str, int]
    nats_url: str
    """Empty: run our own."""
    redis_url: str
    ready_timeout_s: float = 60.0
    """For every service to become ready after the servers have. A long outbox or a large pool is read in seconds."""
    open_patience_s: float = 2.5
    """For servers and connections to open once a stop has come before they did. Then no services run."""
    services_stop_timeout_s: float = 1.5
    power_off_timeout_s: float = 6.0
    """For the machines of a clean stop. Ten seconds are promised for all: services, then this, then servers."""

    @classmethod
    def of(cls, config: Config, environ: Mapping[str, str]) -> "ControlPlaneSettings":
        """`NAVARCH_NATS_URL` and `NAVARCH_REDIS_URL` win over the file."""
        return cls(
            http=bind_address(config.server.http_address),
            grpc=bind_address(config.server.address),
            nats_url=environ.get("NAVARCH_NATS_URL") or config.bus.url or "",
            redis_url=environ.get("NAVARCH_REDIS_URL") or config.state.url or "",
        )


def with_doors(config: Config, options: Options) -> Config:
    """The configuration with the addresses that the caller gave. Raises `BadAddress`."""
    for flag, address in ((HTTP_FLAG, options.http), (GRPC_FLAG, options.grpc)):
        if address:
            _check_address(flag, address, insecure=config.insecure or options.insecure)
    server = msgspec.structs.replace(
        config.server,
        http_address=options.http or config.server.http_address,
        address=options.grpc or config.server.address,
    )
    return msgspec.structs.replace(config, server=server, insecure=config.insecure or options.insecure)


def check_doors(settings: ControlPlaneSettings) -> None:
    """Looks whether HTTP and gRPC can be served, before anything is started. Raises `DoorTaken`."""
    for flag, what, (host, port) in ((HTTP_FLAG, "HTTP", settings.http), (GRPC_FLAG, "gRPC", settings.grpc)):
        try:
            _try_to_listen(host, port)
        except OSError as error:
            raise DoorTaken(
                f"cannot serve {what} at {host}:{port}: {os.strerror(error.errno or 0).lower()}; "
                f"name another address with {flag} HOST:PORT"
            ) from error


def _check_address(flag: str, address: str, *, insecure: bool) -> None:
    try:
        host, _ = bind_address(address)
    except ValueError as error:
        raise BadAddress(f"{flag}: {error}") from error
    if not insecure and not is_loopback(host):
        raise BadAddress(
            f"{flag} {address}: without auth only 127.0.0.1 is served; add --insecure if everyone who can reach this "
            "address may command the fleet"
        )


def _try_to_listen(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen(1)
