"""Dead letters: work that nobody could use is kept where people look, and everything else flows on.

A consumer never lets go of a message in silence. What cannot be decoded, and what its handler failed over again and
again, is stored on `navarch.dead.<stream>` first, with headers that say what it was, when and why; only then is it
terminated. The servers' own advisories about the same consumers are captured by the same stream. `navarch events --dead`
lists both, and can put a letter back on its subject.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from navarch_common.bus.base import BusError, Delivery
from navarch_common.events.codec import BadMessage, NewerMessage
from navarch_common.events.kinds import Alarm
from navarch_common.model.base import Service
from navarch_common.store.base import Commit, StoreError
from navarch_common.store.encoding import to_us

if TYPE_CHECKING:
    from navarch_common.run import Deps

HEADER_SUBJECT, HEADER_STREAM, HEADER_SEQUENCE = "Navarch-Subject", "Navarch-Stream", "Navarch-Sequence"
HEADER_MSG_ID, HEADER_STORED_AT, HEADER_DELIVERIES = "Navarch-Msg-Id", "Navarch-Stored-At", "Navarch-Deliveries"
HEADER_CODE, HEADER_ERROR, HEADER_BY = "Navarch-Code", "Navarch-Error", "Navarch-By"
HEADER_REPLAYED = "Navarch-Replayed"
"""On a marker in the same stream: the sequence of the letter that was put back; `Navarch-By` says by whom."""

UNDECODABLE, HANDLER_FAILED = "undecodable", "handler-failed"

FAILURES_MAX = 5
"""A message over which its handler failed so often in this process is poison: the fault is ours, or in the message."""
NEWER_TRIES = 10
"""Deliveries that a message of an unknown type gets: a copy of a later release, which runs beside us while an upgrade is
under way, may know it."""
AGAIN_S = 1.0
AGAIN_MAX_S = 60.0
ANSWER_LIMIT_S = 2.0
"""For the bus to take an acknowledgement or its opposite."""
REMEMBERED_MAX = 1000
"""Messages whose failures are counted; the one that failed longest ago is forgotten first, and begins anew."""
ALARM_QUIET = timedelta(minutes=1)

log = structlog.get_logger(__name__)


class DeadLetters:
    """What one service does with messages of a stream that it cannot use."""

    def __init__(self, deps: "Deps", service: Service, stream: str) -> None:
        self._deps, self._service, self._stream = deps, service, stream
        self._failures: OrderedDict[int, int] = OrderedDict()
        self._alarmed_at: datetime | None = None
        self.buried = 0

    async def undecodable(self, delivery: Delivery, error: BadMessage) -> bool:
        """Buries what cannot be decoded; what a later release may know comes again first. True when it is buried."""
        if isinstance(error, NewerMessage) and delivery.deliveries < NEWER_TRIES:
            await self.put_off(delivery, AGAIN_S)
            return False
        return await self.bury(delivery, UNDECODABLE, str(error))

    async def failed(self, delivery: Delivery, error: Exception) -> None:
        """The handler broke over it, for no reason that time would cure: it comes again later and later, and is buried
        with an alarm after a few tries. Not for a store or a bus that is away: that says nothing of the message."""
        failures = self._failures.pop(delivery.sequence, 0) + 1
        if failures < FAILURES_MAX:
            self._failures[delivery.sequence] = failures
            if len(self._failures) > REMEMBERED_MAX:
                self._failures.popitem(last=False)
            await self.put_off(delivery, min(AGAIN_S * 2 ** (failures - 1), AGAIN_MAX_S))
            return
        why = f"its handler failed {failures} times, last with {type(error).__name__}: {error}"
        if await self.bury(delivery, HANDLER_FAILED, why):
            await self._alarm(f"a message on {delivery.subject[:200]} went to the dead letters: {why}")
        else:
            self._failures[delivery.sequence] = failures

    async def bury(self, delivery: Delivery, code: str, error: str) -> bool:
        """Stores the message among the dead letters, then terminates it. False where that is not certain: the message
        comes again, and is the same letter then."""
        try:
            await self._deps.bus.publish_durable(
                self._deps.subjects.dead(self._stream),
                delivery.data,
                msg_id=f"{self._stream}-{delivery.sequence}-{to_us(delivery.stored_at)}",
                headers=self._headers(delivery, code, error),
            )
        except BusError as failure:
            log.warning("dead letter not stored, message comes again", subject=delivery.subject, error=str(failure))
            await self.put_off(delivery, AGAIN_S * 5)
            return False
        self.buried += 1
        self._deps.metrics.count("navarch_dead_letters_total", service=self._service, code=code)
        log.error("message buried", subject=delivery.subject, sequence=delivery.sequence, code=code, error=error[:300])
        try:
            await delivery.term()
        except BusError as failure:
            log.warning("buried message comes again", subject=delivery.subject, error=str(failure))
        return True

    async def put_off(self, delivery: Delivery, delay_s: float) -> None:
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                await delivery.nak(delay_s)
        except (BusError, TimeoutError) as error:
            log.debug("not put off, comes again by itself", subject=delivery.subject, error=str(error))

    def _headers(self, delivery: Delivery, code: str, error: str) -> Mapping[str, str]:
        headers = {
            HEADER_SUBJECT: delivery.subject,
            HEADER_STREAM: self._stream,
            HEADER_SEQUENCE: str(delivery.sequence),
            HEADER_STORED_AT: delivery.stored_at.isoformat(),
            HEADER_DELIVERIES: str(delivery.deliveries),
            HEADER_MSG_ID: delivery.headers.get("Nats-Msg-Id", ""),
            HEADER_CODE: code,
            HEADER_ERROR: error,
            HEADER_BY: f"{self._service} {self._deps.instance}",
            "traceparent": delivery.headers.get("traceparent", ""),
        }
        return {name: header_text(text) for name, text in headers.items() if text}

    async def _alarm(self, text: str) -> None:
        """At most one a minute: each letter is kept and counted in any case."""
        now = self._deps.clock.now()
        if self._alarmed_at is not None and now - self._alarmed_at < ALARM_QUIET:
            return
        self._alarmed_at = now
        alarm = Alarm(
            at=now, cluster=self._deps.cluster, reason=text[:1000], code="message-buried", actor=self._service
        )
        try:
            async with asyncio.timeout(5.0):
                await self._deps.committer.commit(Commit(emit=(alarm,)))
        except (StoreError, TimeoutError) as error:
            log.warning("alarm not committed", alarm=text[:200], error=str(error))


def header_text(text: str) -> str:
    """As a header may hold it: one line of ASCII, at most 500 characters."""
    return text.encode("unicode_escape").decode("ascii")[:500]
