"""An operator's word on the configuration that waits (see `proposal`). The gateway owns it, so that the word is carried out in
the commit that accepts it, and no wish is left open.
"""

import asyncio
from dataclasses import replace

import structlog

from navarch_api import types as t
from navarch_common.events.base import Event
from navarch_common.events.codec import event_id
from navarch_common.events.kinds import OperatorAction
from navarch_common.model.cluster import ConfigRecord, ProposedConfig
from navarch_common.run import Deps
from navarch_common.store.base import Stored
from navarch_gateway import proposal
from navarch_gateway.asks import ChangeAsk
from navarch_gateway.audits import entry_of
from navarch_gateway.config_keeper import remember
from navarch_gateway.refusal import conflict
from navarch_gateway.takings import text_of

log = structlog.get_logger(__name__)

READ_TIMEOUT_S = 5.0


class Spoken:
    """Raises `Refused`, and what the ports raise: then the outcome is not known."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def about(self, change: str) -> Stored[ProposedConfig] | None:
        """The configuration that has this id, waiting or closed; None where the id is something else's."""
        async with asyncio.timeout(READ_TIMEOUT_S):
            found = await self._deps.store.get(proposal.PROPOSED)
        return found if found is not None and found.record.change == change else None

    async def preview(self, proposed: Stored[ProposedConfig], ask: ChangeAsk) -> t.WishPreview:
        await self._in_force(proposed.record)
        return t.WishPreview(verb=ask.verb, would=_would(proposed.record, ask.verb))

    async def say(
        self, proposed: Stored[ProposedConfig], ask: ChangeAsk, request_id: str, actor: str
    ) -> t.WishAccepted:
        """Raises `Conflict` where something changed meanwhile."""
        record = proposed.record
        found, now = await self._in_force(record), self._deps.clock.now()
        why = f": {ask.reason}" if ask.reason else ""
        told = OperatorAction(
            at=now, cluster=self._deps.cluster, reason=f"{actor} asked to {_would(record, ask.verb)}{why}"[:1024],
            code=ask.verb, actor=actor, action=ask.verb, request_id=request_id,
        )  # fmt: skip
        events: tuple[Event, ...] = (told, entry_of(told))
        if ask.verb == "cancel":
            commit = proposal.cancel(proposed, request_id, actor)
        else:
            commit = proposal.approve(found, proposed, request_id, actor, self._deps.cluster, now)
            events = (*events, *commit.emit, entry_of(commit.emit[0], found.record, commit.put[proposal.CURRENT]))
        revision = await self._deps.committer.commit(replace(commit, emit=events))
        log.info("accepted", kind=told.KIND, code=told.code, actor=actor, change=record.change)
        applied = commit.put.get(proposal.CURRENT)
        if isinstance(applied, ConfigRecord):
            await remember(self._deps, applied)
        return t.WishAccepted(request_id=request_id, event_id=event_id(revision, 0), revision=revision, verb=ask.verb)

    async def _in_force(self, record: ProposedConfig) -> Stored[ConfigRecord]:
        """What the waiting one would replace. Raises `Refused` where it waits no longer."""
        if record.closed:
            raise conflict("not-waiting", f"{record.change} waits for nobody's word: it was {record.closed}")
        async with asyncio.timeout(READ_TIMEOUT_S):
            found = await self._deps.store.get(proposal.CURRENT)
        if found is None or found.record.generation != record.generation:
            raise conflict(
                "not-waiting", f"{record.change} rests on generation {record.generation}, which is not in force"
            )
        return found


def _would(record: ProposedConfig, verb: t.ChangeVerb) -> str:
    return f"{verb} {record.change}: the configuration in {record.source}; {text_of(record.takings)}"
