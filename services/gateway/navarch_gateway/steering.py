"""What operators may do about leaked machines and about safe mode, made durable. See `leaks` for what is allowed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

import structlog

from navarch_api import types as t
from navarch_common.events.codec import event_id
from navarch_common.events.kinds import SafeModeLeft
from navarch_common.ids import new_token
from navarch_common.model.base import AnyKey
from navarch_common.model.cluster import META, MetaRecord
from navarch_common.model.leak import LEAK, LeakRecord, leak_wishes_key
from navarch_common.model.node import NODE
from navarch_common.run import Deps
from navarch_common.store.base import ABSENT, Commit, Conflict, Stored
from navarch_common.store.meta import taken_over
from navarch_gateway import audits, leaks
from navarch_gateway.asks import AdoptInstallationAsk, LeakAsk, LeaveSafeModeAsk
from navarch_gateway.refusal import conflict, unavailable

log = structlog.get_logger(__name__)
T = TypeVar("T")

ATTEMPTS = 8
READ_TIMEOUT_S = 5.0


class Steering:
    """Raises `Refused`, and what the ports raise: then the outcome is not known."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def leaks(self) -> t.LeakList:
        records = await self._records()
        return t.LeakList(
            items=tuple(leaks.leak_view(record) for record in records),
            dollars_per_hour=leaks.dollars(record for record in records if leaks.is_leaked(record)),
            as_of=self._deps.clock.now(),
        )

    async def wish(self, verb: Literal["adopt", "gc"], ask: LeakAsk, actor: str) -> t.LeakWishAccepted:
        """Accepted while every provisioner is down; considered with the next complete list."""
        request_id = ask.request_id or new_token(self._deps.rng)

        async def attempt() -> t.LeakWishAccepted:
            now = self._deps.clock.now()
            async with asyncio.timeout(READ_TIMEOUT_S):
                stored = await self._deps.store.get(leak_wishes_key())
            before = stored.record if stored else None
            known = leaks.earlier(before, request_id)
            if known is not None:
                return t.LeakWishAccepted(
                    request_id=request_id, event_id="", revision=0, verb=known.verb, machines=known.machines
                )
            meta = (await self._meta()).record
            if verb == "gc" and meta.safe_mode is not None:
                raise conflict("safe-mode", f"nothing is ended in safe mode: {meta.safe_mode.reason}")
            records = await self._records()
            machines = leaks.chosen(records, ask)
            record = leaks.with_wish(before, verb, machines, ask, request_id, actor, now)
            what = "adopted" if verb == "adopt" else "ended"
            said = f": {ask.reason}" if ask.reason else ""
            text = f"{actor} wants {', '.join(machines[:5])}{' and more' if len(machines) > 5 else ''} {what}{said}"
            event = leaks.action(verb, text, self._deps.cluster, actor, now, request_id)
            expect: dict[AnyKey, int] = {leak_wishes_key(): stored.revision if stored else ABSENT}
            revision = await self._deps.committer.commit(
                Commit(expect=expect, put={leak_wishes_key(): record}, emit=(event, audits.entry_of(event)))
            )
            log.info("accepted", verb=verb, machines=machines, actor=actor)
            return t.LeakWishAccepted(
                request_id=request_id, event_id=event_id(revision, 0), revision=revision, verb=verb, machines=machines
            )

        return await self._decided(attempt)

    async def adopt_installation(self, ask: AdoptInstallationAsk, actor: str) -> t.InstallationAdopted:
        async def attempt() -> t.InstallationAdopted:
            now, meta = self._deps.clock.now(), await self._meta()
            async with asyncio.timeout(READ_TIMEOUT_S):
                nodes = [stored.record for stored in await self._deps.store.records(NODE)]
            configured = self._deps.config.current.config.installation or ""
            leaks.check_adoption(meta.record, ask.installation, configured, nodes)
            said = f": {ask.reason}" if ask.reason else ""
            text = f"{actor} takes installation {ask.installation} over as ours{said}"
            event = leaks.action("adopt-installation", text, self._deps.cluster, actor, now)
            record = taken_over(meta.record, ask.installation)
            revision = await self._deps.committer.commit(
                Commit(
                    expect={META.key(): meta.revision},
                    put={META.key(): record},
                    emit=(event, audits.entry_of(event, meta.record, record)),
                )
            )
            log.warning(
                "installation adopted", installation=ask.installation, before=meta.record.installation, actor=actor
            )
            return t.InstallationAdopted(
                installation=ask.installation, before=meta.record.installation,
                event_id=event_id(revision, 0), revision=revision,
            )  # fmt: skip

        return await self._decided(attempt)

    async def leave_safe_mode(self, ask: LeaveSafeModeAsk, actor: str) -> t.SafeModeLeft:
        async def attempt() -> t.SafeModeLeft:
            now, meta = self._deps.clock.now(), await self._meta()
            record = leaks.left(meta.record, now, mirrored=self._deps.life.mirrored)
            safe = meta.record.safe_mode
            assert safe is not None, "`left` has refused otherwise"
            event = SafeModeLeft(
                at=now, cluster=self._deps.cluster, reason=f"{actor} ends safe mode: {ask.reason}"[:1024],
                code="operator", actor=actor,
            )  # fmt: skip
            revision = await self._deps.committer.commit(
                Commit(
                    expect={META.key(): meta.revision},
                    put={META.key(): record},
                    emit=(event, audits.entry_of(event, meta.record, record)),
                )
            )
            log.warning("safe mode left", actor=actor, reason=ask.reason)
            return t.SafeModeLeft(
                left=t.SafeMode(since=safe.since, code=safe.code, reason=safe.reason),
                event_id=event_id(revision, 0), revision=revision,
            )  # fmt: skip

        return await self._decided(attempt)

    async def _records(self) -> list[LeakRecord]:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return [stored.record for stored in await self._deps.store.records(LEAK)]

    async def _meta(self) -> Stored[MetaRecord]:
        async with asyncio.timeout(READ_TIMEOUT_S):
            meta = await self._deps.store.get(META.key())
        if meta is None:
            raise unavailable(
                "state-lost", "the store has lost its own record and is being begun anew; try again in a moment"
            )
        return meta

    async def _decided(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for _ in range(ATTEMPTS):
            try:
                return await attempt()
            except Conflict as error:
                log.debug("deciding again", error=str(error))
        raise unavailable("contended", f"what the request rests on changed {ATTEMPTS} times meanwhile; try again")
