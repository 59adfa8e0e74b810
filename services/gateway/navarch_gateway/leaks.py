"""Leaked machines and safe mode as operators see and steer them: what is shown, and what a request comes to. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import structs

from navarch_api import types as t
from navarch_common.events.kinds import OperatorAction
from navarch_common.model.cluster import MetaRecord
from navarch_common.model.leak import LeakRecord, LeakWish, LeakWishes, machine_name
from navarch_common.model.node import ENDED, NodeRecord
from navarch_gateway.asks import LeakAsk
from navarch_gateway.refusal import Refused, conflict, invalid, not_found

WISH_LIFE = timedelta(minutes=10)
WISHES_KEPT = 32


def leak_view(record: LeakRecord) -> t.Leak:
    return t.Leak(
        provider=record.provider,
        instance_id=record.instance_id,
        kind=record.kind,
        ours=record.ours,
        installation=record.installation,
        pool=record.pool,
        node=record.node,
        instance_type=record.instance_type,
        region=record.region,
        zone=record.zone,
        state=record.state.value,
        price_per_hour=record.price_per_hour,
        launched_at=record.launched_at,
        since=record.first_at,
        leaked_at=record.told_at,
        would=record.fate,
        code=record.code,
        reason=record.text,
        asked=record.asked,
    )


def is_leaked(record: LeakRecord) -> bool:
    return record.ours and record.told_at is not None


def count(records: Iterable[LeakRecord]) -> t.LeakCount:
    records = list(records)
    leaked = [record for record in records if is_leaked(record)]
    return t.LeakCount(
        instances=len(leaked), dollars_per_hour=dollars(leaked), foreign=sum(not one.ours for one in records)
    )


def dollars(records: Iterable[LeakRecord]) -> float:
    return round(sum(record.price_per_hour or 0.0 for record in records), 4)


def chosen(records: Sequence[LeakRecord], ask: LeakAsk) -> tuple[str, ...]:
    """The machines that a request names, in full. Raises `Refused` for one that is not leaked, or not ours."""
    return tuple(dict.fromkeys(machine_name(_found(records, name)) for name in ask.machines))


def _found(records: Sequence[LeakRecord], name: str) -> LeakRecord:
    matches = [record for record in records if name in (machine_name(record), record.instance_id)]
    if not matches:
        raise not_found("leaked machine", name, [machine_name(record) for record in records])
    if len(matches) > 1:
        names = ", ".join(machine_name(record) for record in matches)
        raise invalid(
            "ambiguous", f"{name!r:.100} is the name of several machines: say which of {names}", field="machines"
        )
    [record] = matches
    if not record.ours:
        raise conflict(
            "foreign", f"{machine_name(record)} belongs to installation {record.installation}, and is not ours to touch"
        )
    return record


def with_wish(
    before: LeakWishes | None, verb: Literal["adopt", "gc"], machines: tuple[str, ...], ask: LeakAsk, request_id: str,
    actor: str, now: datetime,
) -> LeakWishes:  # fmt: skip
    """The open wishes with one more. Raises `Refused` where there are too many."""
    standing = tuple(wish for wish in (before.wishes if before else ()) if wish.expires_at > now)
    if len(standing) >= WISHES_KEPT:
        raise conflict(
            "too-many-wishes", f"{len(standing)} wishes about leaked machines are open already; try again later"
        )
    wish = LeakWish(
        id=request_id, verb=verb, machines=machines, actor=actor, reason=ask.reason, at=now, expires_at=now + WISH_LIFE
    )
    return LeakWishes(wishes=(*standing, wish))


def earlier(before: LeakWishes | None, request_id: str) -> LeakWish | None:
    return next((wish for wish in (before.wishes if before else ()) if wish.id == request_id), None)


def action(verb: str, text: str, cluster: str, actor: str, now: datetime, request_id: str = "") -> OperatorAction:
    return OperatorAction(
        at=now, cluster=cluster, reason=text[:1024], code=verb, actor=actor, action=verb, request_id=request_id
    )


def check_adoption(meta: MetaRecord, installation: str, configured: str, nodes: Iterable[NodeRecord]) -> None:
    """Raises `Refused` where `installation` cannot be taken over as ours."""
    if meta.installation == installation:
        raise conflict("ours-already", f"installation {installation} is ours already")
    if meta.safe_mode is None:
        raise conflict("not-in-safe-mode", "an installation is taken over only in safe mode, while nothing is launched")
    if configured not in ("", installation):
        raise conflict(
            "configured", f"the configuration says installation {configured}: correct the key `installation` first"
        )
    living = sum(node.phase not in ENDED for node in nodes)
    if living:
        raise conflict(
            "has-nodes",
            f"{living} nodes of installation {meta.installation} are on record and would be strangers: end them first, or "
            "leave the other installation to whoever it belongs to (`navarch safe-mode leave`)",
        )


def left(meta: MetaRecord, now: datetime, *, mirrored: bool) -> MetaRecord:
    """The meta record without safe mode. Raises `Refused` where there is none, or it may not end yet."""
    if meta.safe_mode is None:
        raise conflict("not-in-safe-mode", "safe mode is not on")
    if not mirrored:
        raise Refused(
            503, "not-mirrored", "the bus does not remember this life of the store yet; try again in a moment"
        )
    return structs.replace(meta, safe_mode=None, safe_mode_left_at=now)
