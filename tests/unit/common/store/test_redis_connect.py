"""URLs, and what a client made from them does not do."""

from pathlib import Path

import pytest
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection

from navarch_common.store.base import StoreError
from navarch_common.store.redis_connect import RedisTls, connect, shown
from navarch_common.store.redis_replicas import successors


@pytest.mark.parametrize(
    "url",
    ["redis://h:1", "rediss://h", "unix:///run/redis.sock", "redis+sentinel://a:1,b/name/2", "rediss+sentinel://a/n"],
)
async def test_no_client_retries_by_itself(url: str) -> None:
    client = connect(url, timeout_s=1.5)
    options = client.connection_pool.connection_kwargs
    assert options["retry"]._retries == 0
    assert options["socket_timeout"] == options["socket_connect_timeout"] == 1.5
    client.connection_pool.make_connection()


async def test_a_unix_socket_and_tls_are_used_where_the_url_says_so() -> None:
    assert connect("unix:///run/redis.sock", timeout_s=1).connection_pool.connection_class is UnixDomainSocketConnection
    secure = connect("rediss://h:1", timeout_s=1, tls=RedisTls(ca_file=Path("ca.pem"), cert_file=Path("c.pem")))
    assert secure.connection_pool.connection_class is SSLConnection
    assert secure.connection_pool.connection_kwargs["ssl_ca_certs"] == "ca.pem"


async def test_sentinels_are_asked_for_the_master_with_the_same_credentials() -> None:
    client = connect("rediss+sentinel://ann:s%40cret@one:1,two/main/3", timeout_s=1)
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert (pool.service_name, pool.connection_kwargs["db"]) == ("main", 3)
    assert pool.connection_class is SentinelManagedSSLConnection
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("ann", "s@cret")
    asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"], one["password"]) for one in asked] == [
        ("one", 1, "s@cret"),
        ("two", 26379, "s@cret"),
    ]


@pytest.mark.parametrize(
    "url",
    ["http://h", "redis+sentinel://h", "redis+sentinel://h:x/name", "redis+sentinel://h/name/x", "redis+sentinel:///n"],
)
async def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"state\.url"):
        connect(url, timeout_s=1)


def test_a_url_is_shown_without_its_credentials() -> None:
    assert shown("redis://ann:secret@host:1/0") == "redis://host:1/0"
    assert shown("redis://host:1") == "redis://host:1"


async def test_a_sentinel_that_is_silent_is_passed_over_before_the_call_gives_up() -> None:
    pool = connect("redis+sentinel://one,two/main", timeout_s=2).connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert [one.connection_pool.connection_kwargs["socket_timeout"] for one in pool.sentinel_manager.sentinels] == [
        0.5
    ] * 2


UP = {
    "flags": "slave",
    "is_sdown": False,
    "role-reported": "slave",
    "master-host": "10.0.0.1",
    "down-after-milliseconds": 1000,
}


@pytest.mark.parametrize(
    ("replicas", "count"),
    [
        ([], 0),
        ([UP, UP], 2),
        ([UP | {"is_sdown": True, "s-down-time": 9_000}], 1),
        ([UP | {"is_sdown": True, "s-down-time": 11_000}, UP], 1),
        ([UP | {"is_odown": True, "s-down-time": 11_000}], 0),
        ([UP | {"is_disconnected": True, "master-host": "?"}], 1),
        ([UP | {"is_sdown": True, "s-down-time": 9_000, "master-host": "?"}], 0),
        ([UP | {"role-reported": "master", "role-reported-time": 4_000}], 1),
        ([UP | {"role-reported": "master", "role-reported-time": 6_000}], 0),
    ],
    ids=[
        "none", "both", "down and may come back", "down for too long to take over", "down for all", "known to a Sentinel that has just started",
        "the master that failed", "one just promoted", "an old master that came back",
    ],
)  # fmt: skip
def test_who_could_take_over_is_whoever_may_be_promoted_or_was(replicas: list[dict[str, object]], count: int) -> None:
    assert successors(replicas) == count
