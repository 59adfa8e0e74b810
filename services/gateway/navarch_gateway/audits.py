"""Entries of the audit: what an act of the gateway is in the books, and which entries are asked for. Pure."""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from navarch_api import types as t
from navarch_common.bus.base import StoredMessage
from navarch_common.events.audit import Audit, changed, facts
from navarch_common.events.base import Event
from navarch_common.events.kinds import ConfigApplied, OperatorAction
from navarch_common.model.base import Record
from navarch_common.model.wish import ChangeWish, NodeWishes, PoolWish

_WISH = ("verb", "nodes", "force", "hold_until", "expires_at")
_RECORD = ("active", "level", "pool", "until", "number", "generation", "sha256", "source", "installation", "safe_mode")


def entry_of(event: Event, before: Record | None = None, after: Record | None = None) -> Audit:
    """The entry of what `event` tells of."""
    was, becomes = changed(_facts(before), _facts(after))
    request_id = event.request_id if isinstance(event, OperatorAction) else ""
    return Audit(
        at=event.at, cluster=event.cluster, pool=event.pool, node=event.node, reason=event.reason, code=event.code,
        actor=event.actor, action=_action(event), request_id=request_id,
        result="accepted" if request_id else "done", before=was, after=becomes,
    )  # fmt: skip


def entries(
    messages: Iterable[StoredMessage], *, actor: str = "", node: str = "", pool: str = ""
) -> list[t.AuditEntry]:
    """Those that match, oldest first. What is no entry is left out: anyone may publish there."""
    found: list[t.AuditEntry] = []
    for message in messages:
        try:
            entry = msgspec.json.decode(message.data, type=t.AuditEntry)
        except (msgspec.DecodeError, RecursionError):
            continue
        if actor in ("", entry.actor) and node in ("", entry.node) and pool in ("", entry.pool):
            found.append(entry)
    return found


def _action(event: Event) -> str:
    if isinstance(event, OperatorAction):
        return event.action
    if isinstance(event, ConfigApplied):
        return "config"
    return {"cluster.frozen": "freeze", "cluster.unfrozen": "unfreeze"}.get(event.KIND, event.KIND.partition(".")[2])


def _facts(record: Record | None) -> dict[str, str]:
    wish: Struct | None = None
    if isinstance(record, NodeWishes) and record.wishes:
        wish = record.wishes[-1]
    elif isinstance(record, PoolWish | ChangeWish):
        wish = record.wish
    return facts(wish, *_WISH) if wish is not None else facts(record, *_RECORD)
