"""Records: what is known, and which one service writes it.

A record is a frozen, bounded `msgspec.Struct`; a `Family` says who writes it, its schema number and its pool; a `Key`
names one. Every commit that puts a record names the revisions of all records that the decision rested on. See
ARCHITECTURE.md, "Records".
"""

from typing import Any

from navarch_common.model.base import Family, Key, Reason, Record, with_reason
from navarch_common.model.cluster import COMMAND, CONFIG, INBOX, META, PROPOSAL
from navarch_common.model.health import ALARM, HEALTH
from navarch_common.model.leak import LEAK, LEAK_WISHES
from navarch_common.model.node import NODE
from navarch_common.model.pool import GUARD, POOL, SUPPLY, VERDICTS
from navarch_common.model.wish import CHANGE_WISH, NODE_WISHES, POOL_WISH

FAMILIES: tuple[Family[Any], ...] = (
    META,
    CONFIG,
    PROPOSAL,
    NODE_WISHES,
    POOL_WISH,
    CHANGE_WISH,
    LEAK_WISHES,
    GUARD,
    POOL,
    SUPPLY,
    NODE,
    INBOX,
    HEALTH,
    ALARM,
    VERDICTS,
    COMMAND,
    LEAK,
)
"""Every family there is: the store indexes them by name, the house tests hold a golden sample of each."""

__all__ = ["FAMILIES", "Family", "Key", "Reason", "Record", "with_reason"]
