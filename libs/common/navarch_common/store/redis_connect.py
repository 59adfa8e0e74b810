"""A Redis client as this store needs it: no retries of its own, and every wait bounded.

redis-py retries by default, also a command whose reply was lost. For a commit that turns "applied" into a false
conflict, so its retries are off, and whoever called decides.
"""

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import ConnectionPool, Redis, Sentinel, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from navarch_common.store.base import StoreError

ASK_AGAIN_S = 1.0
"""How often the Sentinels are asked who the master is."""
_SENTINEL = re.compile(r"\Arediss?\+sentinel://")
_CREDENTIALS = re.compile(r"(?<=://)[^@/]*@")


@dataclass(frozen=True, slots=True)
class RedisTls:
    """Files of a TLS connection. None: the system's own trust, and no certificate of ours."""

    ca_file: Path | str | None = None
    cert_file: Path | str | None = None
    key_file: Path | str | None = None


def behind_sentinel(url: str) -> bool:
    return bool(_SENTINEL.match(url))


def shown(url: str) -> str:
    """The URL without user and password: for logs and errors."""
    return _CREDENTIALS.sub("", url)


def connect(url: str, *, timeout_s: float, tls: RedisTls | None = None) -> Redis:
    """Makes a client for `redis://`, `rediss://`, `unix://` or
    `redis+sentinel://[user:password@]host:26379,host2:26379/name[/db]`. Connects on first use. Of the Sentinels, one that
    does not answer within a quarter of `timeout_s` is passed over.

    Raises `StoreError` on a URL that it cannot use.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "protocol": 2,
        "client_name": "navarch",
    }
    if behind_sentinel(url):
        return _behind_sentinel(url, options, tls)
    try:
        pool = ConnectionPool.from_url(url, retry=_no_retry(), **options)
    except ValueError as error:
        raise StoreError(f"state.url {shown(url)}: {error}") from error
    if issubclass(pool.connection_class, UnixDomainSocketConnection):
        pool.connection_kwargs.pop("socket_keepalive", None)
    if issubclass(pool.connection_class, SSLConnection):
        pool.connection_kwargs.update(_tls(tls))
    return Redis.from_pool(pool)


def _behind_sentinel(url: str, options: dict[str, Any], tls: RedisTls | None) -> Redis:
    parts = urlsplit(url)
    name, _, db = parts.path.strip("/").partition("/")
    addresses = [_address(one, url) for one in parts.netloc.rpartition("@")[2].split(",")]
    if not name or (db and not db.isdecimal()):
        raise StoreError(f"state.url {shown(url)}: expected redis+sentinel://host:26379,…/NAME[/DB]")
    credentials = {
        key: unquote(value) for key, value in (("username", parts.username), ("password", parts.password)) if value
    }
    impatient = {name: options[name] / 4 for name in ("socket_timeout", "socket_connect_timeout")}
    asking = {**options, **impatient, "retry": _no_retry(), **credentials}
    sentinel: Any = Sentinel(addresses, sentinel_kwargs=asking, retry=_no_retry(), **options)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    to_master: dict[str, Any] = {**credentials, "db": int(db or 0)}
    if parts.scheme.startswith("rediss"):
        to_master |= {"connection_class": SentinelManagedSSLConnection, **_tls(tls)}
    return cast("Redis", sentinel.master_for(name, connection_pool_class=_MasterPool, **to_master))


class _MasterPool(SentinelConnectionPool):
    """Keeps no connection to a former master, which may live and answer for ten seconds before it is told to follow: what
    it knows is about to be forgotten. redis-py asks who the master is only for a new connection, and then closes the idle
    ones alone; this one asks every second too, and closes those in use when they come back."""

    _asked_s = 0.0

    async def get_connection(self, *args: Any, **options: Any) -> AbstractConnection:
        now_s = asyncio.get_running_loop().time()
        if self.master_address is not None and now_s - self._asked_s > ASK_AGAIN_S:
            self._asked_s = now_s
            with suppress(RedisError, OSError, TimeoutError):
                await self.get_master_address()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        return cast("AbstractConnection", await super().get_connection(*args, **options))  # type: ignore[no-untyped-call]  # redis-py leaves it untyped

    async def release(self, connection: AbstractConnection) -> None:
        if self.master_address != (connection.host, connection.port):  # type: ignore[attr-defined]  # redis-py leaves it untyped
            await connection.disconnect()
        await super().release(connection)


def _address(text: str, url: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if ":" in text else (text, "", "26379")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise StoreError(f"state.url {shown(url)}: {text!r} is no host:port of a Sentinel")
    return host, int(port)


def _tls(tls: RedisTls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    files = {"ssl_ca_certs": tls.ca_file, "ssl_certfile": tls.cert_file, "ssl_keyfile": tls.key_file}
    return {name: str(file) for name, file in files.items() if file}


def _no_retry() -> Retry:
    return Retry(NoBackoff(), 0)
