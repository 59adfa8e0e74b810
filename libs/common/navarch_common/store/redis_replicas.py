"""Commits that count only when replicas have them too.

Redis replicates after it has answered, so a failover forgets what only the old master had: measured, 84 % of what was
acknowledged during a partition of five seconds. `WAIT` in the same round trip tells how many replicas have the commit.
Too few means that the outcome is unknown, with one exception: where the Sentinels still name this very server the master,
and no other server could take over from it, there is nobody to wait for. Without the exception, nothing could be committed
from a failover until the old master is back.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError, RedisError, ResponseError

from navarch_common.store.base import StoreUnavailable

UNHEEDED_MS = 5_000
WAIT_MS = 200
"""A replica that lives answers within a millisecond or two."""

log = structlog.get_logger(__name__)


class Replicas:
    """How one connection pool's commits are waited for."""

    def __init__(self, redis: Redis, wanted: int) -> None:
        self._redis, self._wanted = redis, wanted
        self._alone = False

    async def run(self, script: AsyncScript, keys: list[str], args: list[Any]) -> Any:
        """Runs `script`, returns its answer. Raises `StoreUnavailable` where too few replicas have what it wrote."""
        pool: Any = self._redis.connection_pool
        connection = await pool.get_connection()
        try:
            try:
                answer, confirmed = await self._ask(connection, script, keys, args)
            except NoScriptError:
                await connection.send_command("SCRIPT", "LOAD", script.script)
                await connection.read_response()
                answer, confirmed = await self._ask(connection, script, keys, args)
            if confirmed >= self._wanted or answer[0] != b"ok":
                self._is_alone(False)
            elif await self._others(pool, connection) <= confirmed:
                self._is_alone(True)
            else:
                await connection.disconnect()
                raise StoreUnavailable(
                    f"commit: {confirmed} of {self._wanted} replicas had it within {WAIT_MS} ms; a failover may forget it"
                )
            return answer
        finally:
            await pool.release(connection)

    async def _ask(self, connection: Any, script: AsyncScript, keys: list[str], args: list[Any]) -> tuple[Any, int]:
        asked = connection.pack_commands(
            [("EVALSHA", script.sha, len(keys), *keys, *args), ("WAIT", self._wanted, WAIT_MS)]
        )
        await connection.send_packed_command(asked)
        refused: ResponseError | None = None
        answer: Any = None
        try:
            answer = await connection.read_response()
        except ResponseError as error:
            refused = error
        confirmed = await connection.read_response()
        if refused is not None:
            raise refused
        return answer, int(confirmed)

    async def _others(self, pool: Any, connection: Any) -> int:
        """How many replicas should have confirmed: all that are wanted, unless the Sentinels know of fewer."""
        if not isinstance(pool, SentinelConnectionPool):
            return self._wanted
        try:
            master = await pool.sentinel_manager.discover_master(pool.service_name)
            if master != (connection.host, connection.port):
                return self._wanted
            known = await pool.sentinel_manager.sentinels[0].sentinel_slaves(pool.service_name)
        except (RedisError, OSError, TimeoutError):
            return self._wanted
        return min(self._wanted, successors(known))

    def _is_alone(self, alone: bool) -> None:
        if alone and not self._alone:
            log.warning("commits are on one state server only: no replica could take over from it")
        self._alone = alone


def successors(replicas: Iterable[Mapping[str, Any]]) -> int:
    """Of the other servers that a Sentinel lists, those that could be the master next, or are it already."""
    return sum(_could_take_over(replica) for replica in replicas)


def _could_take_over(replica: Mapping[str, Any]) -> bool:
    if not (replica.get("is_sdown") or replica.get("is_odown")):
        # Also while this Sentinel is not connected to it: it may have just been started, and know nothing yet. But a
        # promotion is known to all Sentinels within seconds: who has called itself master for longer, unheeded, is the
        # old one that came back, and is told to follow soon.
        unheeded = replica.get("role-reported") == "master" and int(replica.get("role-reported-time", 0)) > UNHEEDED_MS
        return not unheeded
    if replica.get("master-host") == "?":
        return False  # it has never been seen to follow: the master that failed, and was replaced by this one
    # Sentinels promote no replica whose link to its master was down for ten times as long as they wait: until then this
    # one may come back in time, and know nothing of what was written meanwhile.
    patience_ms = 10 * int(replica.get("down-after-milliseconds", 30_000))
    return int(replica.get("s-down-time", 0)) <= patience_ms
