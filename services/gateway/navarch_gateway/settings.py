"""What the gateway is told: where its doors open, and which file it proposes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from navarch_common.config import Config
from navarch_common.config.addresses import bind_address, is_loopback
from navarch_common.process import UsageError


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration file that this gateway brings into force and watches."""

    path: Path
    env: Mapping[str, str] = field(repr=False)
    """What `${VAR}` in it stands for."""
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """One gateway's settings. Addresses are read at start alone: a door is not moved while people stand in it."""

    http_host: str
    http_port: int
    """0 takes a free one."""
    grpc_host: str
    grpc_port: int
    proposal: Proposal | None = None
    """None: another gateway proposes the file."""

    @classmethod
    def of(
        cls, config: Config, *, http: str | None = None, grpc: str | None = None, proposal: Proposal | None = None
    ) -> "GatewaySettings":
        """`http` and `grpc` are addresses from a command line, and win over the file's. Raises `UsageError`."""
        http_host, http_port = _address("--http", http or config.server.http_address, insecure=config.insecure)
        grpc_host, grpc_port = _address("--grpc", grpc or config.server.address, insecure=config.insecure)
        return cls(http_host, http_port, grpc_host, grpc_port, proposal)


def _address(flag: str, address: str, *, insecure: bool) -> tuple[str, int]:
    try:
        host, port = bind_address(address)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error
    if not (is_loopback(host) or insecure):
        raise UsageError(
            f"{flag} {address}: anyone who reaches {host} could command the fleet, since there is no `auth:` section; "
            "listen on 127.0.0.1, or say --insecure"
        )
    return host, port
