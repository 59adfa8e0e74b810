"""Where a door opens. Without `auth:` a door without a host opens on 127.0.0.1, with it on every address. Pure."""

from __future__ import annotations

from ipaddress import ip_address

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 — only where auth is on


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT` or `:PORT` as host (empty where none is given) and port; port 0 takes any free one.

    Raises ValueError, whose message says what was expected and found.
    """
    host, _, port = address.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"expected HOST:PORT or :PORT with a port from 0 to 65535, found {address!r:.80}")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if ":" in host and not bracketed:
        raise ValueError(f"expected brackets around an IPv6 address, as in [::1]:{port}, found {address!r:.80}")
    return host, int(port)


def bind_address(address: str, *, auth: bool = False) -> tuple[str, int]:
    """The host and port that a server binds for an address of the configuration."""
    host, port = split_address(address)
    return host or (EVERYWHERE if auth else LOOPBACK), port


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host. A name other than localhost may be anything, so it is not."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
