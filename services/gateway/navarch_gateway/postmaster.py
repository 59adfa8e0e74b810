"""Lists dead letters, and puts them back on their subjects where someone asks for it."""

import asyncio
from collections import deque
from datetime import datetime, timedelta

import structlog

from navarch_api import types as t
from navarch_common import dead
from navarch_common.bus.base import BusError, BusTimeout, StoredMessage
from navarch_common.events.kinds import OperatorAction
from navarch_common.run import Deps
from navarch_common.store.base import Commit, StoreError
from navarch_gateway.asks import ReplayAsk
from navarch_gateway.audits import entry_of
from navarch_gateway.letters import MAX_DELIVERIES_CODE, Letter, letters, may_go_back, replay_id
from navarch_gateway.refusal import bad, not_found, unavailable

log = structlog.get_logger(__name__)

READ_TIMEOUT_S = 8.0
READ_MAX = 20_000
"""Messages kept of what is read: the newest."""
REPLAY_MAX = 1000
"""Letters put back by one request: `all` takes the oldest so many, and says so."""
AT_ONCE = 16


class Postmaster:
    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._stream = deps.subjects.stream("DEAD")

    async def dead(self, since: datetime | None, limit: int) -> t.DeadLetterList:
        """The newest `limit` dead letters, oldest first."""
        kept: list[t.DeadLetter] = []
        for start in _starts(since, self._deps.clock.now()):
            kept = [letter.view for letter in await self._read(start_at=start)]
            if len(kept) > limit:
                break
        return t.DeadLetterList(items=tuple(kept[-limit:]), truncated=len(kept) > limit, as_of=self._deps.clock.now())

    async def replay(self, ask: ReplayAsk, actor: str) -> t.ReplayedList:
        """Puts letters back, each under an id of its own, so that asking again is harmless. One that was put back before is
        left alone. Raises `Refused` where a sequence names no letter: then nothing was put back."""
        if bool(ask.sequences) == ask.all:
            raise bad("bad-field", "name either sequences, or all", field="sequences")
        first = min(ask.sequences, default=1)
        found = {letter.view.sequence: letter for letter in await self._read(start_sequence=first)}
        for sequence in ask.sequences:
            if sequence not in found:
                raise not_found("dead letter", str(sequence))
        open_ = [one for one in found.values() if one.view.replayed_at is None and one.view.code != "terminated"]
        chosen = open_[:REPLAY_MAX] if ask.all else [found[sequence] for sequence in dict.fromkeys(ask.sequences)]
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._replay(one, actor, free), name="replay") for one in chosen]
        items = tuple(task.result() for task in asked)
        await self._tell(items, ask.reason, actor)
        return t.ReplayedList(items=items, as_of=self._deps.clock.now())

    async def _read(self, *, start_at: datetime | None = None, start_sequence: int | None = None) -> list[Letter]:
        kept: deque[StoredMessage] = deque(maxlen=READ_MAX)
        try:
            async with (
                asyncio.timeout(READ_TIMEOUT_S),
                self._deps.bus.read(self._stream, start_at=start_at, start_sequence=start_sequence) as messages,
            ):
                async for message in messages:
                    kept.append(message)
            return letters(kept, self._deps.subjects)
        except TimeoutError:
            raise unavailable(
                "bus-unavailable", f"the stream of dead letters did not answer in {READ_TIMEOUT_S:g} s"
            ) from None

    async def _replay(self, letter: Letter, actor: str, free: asyncio.Semaphore) -> t.Replayed:
        view = letter.view
        if view.replayed_at is not None:
            return t.Replayed(
                sequence=view.sequence, outcome="repeated", detail=f"put back by {view.replayed_by} before"
            )
        async with free:
            try:
                subject, data = await self._message(letter)
                if not may_go_back(subject, self._deps.subjects):
                    detail = f"{subject[:200] or 'its subject, which is not known,'} is not where reports are sent"
                    return t.Replayed(sequence=view.sequence, outcome="refused", detail=detail)
                ack = await self._deps.bus.publish_durable(
                    subject, data, msg_id=replay_id(view), headers=letter.headers
                )
                detail = await self._mark(view, actor)
            except _Gone as gone:
                return t.Replayed(sequence=view.sequence, outcome="refused", detail=str(gone))
            except BusTimeout as error:
                return t.Replayed(sequence=view.sequence, outcome="unknown", detail=str(error))
            except BusError as error:
                return t.Replayed(sequence=view.sequence, outcome="refused", detail=str(error))
        outcome = "repeated" if ack.duplicate else "stored"
        return t.Replayed(
            sequence=view.sequence, outcome=outcome, detail=detail, subject=subject, stream_sequence=ack.sequence
        )

    async def _message(self, letter: Letter) -> tuple[str, bytes]:
        """The message itself: in the letter, or where it lies parked. Raises `_Gone`."""
        view = letter.view
        if view.code != MAX_DELIVERIES_CODE:
            if not view.subject:
                raise _Gone("nothing of it was kept")
            return view.subject, letter.data
        # An advisory is what anyone may write, too: only our own queue is looked into.
        queue = self._deps.subjects.stream("REPORTS")
        parked = await self._deps.bus.message(queue, view.stream_sequence) if view.stream == queue else None
        if parked is None:
            raise _Gone(f"message {view.stream_sequence} lies in {view.stream} no more")
        return parked.subject, parked.data

    async def _mark(self, view: t.DeadLetter, actor: str) -> str:
        """So that the list shows it, and nobody puts it back again once the stream has forgotten its id. Returns what went
        wrong with that."""
        headers = {dead.HEADER_REPLAYED: str(view.sequence), dead.HEADER_BY: dead.header_text(actor)}
        subject = self._deps.subjects.dead(self._deps.subjects.stream("REPORTS"))
        try:
            await self._deps.bus.publish_durable(subject, b"", msg_id=f"mark-{replay_id(view)}", headers=headers)
        except BusError as error:
            return f"not marked as put back: {error}"
        return ""

    async def _tell(self, items: tuple[t.Replayed, ...], reason: str, actor: str) -> None:
        stored = [str(item.sequence) for item in items if item.outcome == "stored"]
        if not stored:
            return
        now = self._deps.clock.now()
        what = f"put back {len(stored)} dead letters: {', '.join(stored[:20])}"
        event = OperatorAction(
            at=now, cluster=self._deps.cluster, reason=f"{what}; {reason}"[:1000] if reason else what,
            code="dead-letters-replayed", actor=actor, action="replay",
        )  # fmt: skip
        try:
            await self._deps.committer.commit(Commit(emit=(event, entry_of(event))))
        except StoreError as error:
            log.warning("replay not told", error=str(error), letters=stored[:20])


def _starts(since: datetime | None, now: datetime) -> tuple[datetime | None, ...]:
    """From when to read: looks ever further back, where nothing is asked for, until there is enough."""
    return (since,) if since is not None else (now - timedelta(days=1), None)


class _Gone(Exception):
    """There is nothing to put back."""
