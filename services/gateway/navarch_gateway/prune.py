"""Which wishes are done with: answered for good, or about nothing that still is. Pure.

Each commit expects the owner's record that gives the answer, so that an answer which is taken back is not overtaken.
"""

from datetime import datetime, timedelta

from navarch_common.model.base import AnyKey, Family
from navarch_common.model.node import NODE
from navarch_common.model.pool import POOL, SUPPLY, PoolRecord, SupplyRecord
from navarch_common.model.wish import CHANGE_WISH, NODE_WISHES, POOL_WISH, ChangeWish, NodeWishes, PoolWish
from navarch_common.store.base import ABSENT, Commit, Stored
from navarch_gateway.known import Known
from navarch_gateway.wishes import KEEP_EXPIRED, is_final, still_open


def pruned_node_wishes(known: Known, now: datetime) -> list[Commit]:
    """One commit for each node whose record of wishes is to be shortened, or is empty and goes."""
    commits: list[Commit] = []
    for name, stored in known.node_wishes.items():
        node = known.nodes.get(name)
        kept = still_open(stored.record.wishes, node.record if node else None, now)
        if kept and len(kept) == len(stored.record.wishes):
            continue
        key = NODE_WISHES.key(name)
        expect: dict[AnyKey, int] = {key: stored.revision, NODE.key(name): node.revision if node else ABSENT}
        if kept:
            record = NodeWishes(node=stored.record.node, pool=stored.record.pool, wishes=kept)
            commits.append(Commit(expect=expect, put={key: record}))
        else:
            commits.append(Commit(expect=expect, delete=(key,)))
    return commits


def pruned_pool_wishes(known: Known, now: datetime) -> list[Commit]:
    """One commit for each pool wish that is done with."""
    commits: list[Commit] = []
    for stored in known.pool_wishes.values():
        asked = stored.record
        # The breaker is the provisioner's, a pool's size the autoscaler's: each answers in its own record.
        family = SUPPLY if asked.wish.verb == "close-breaker" else POOL
        key = POOL_WISH.key(asked.pool, asked.wish.verb)
        if (commit := _done_with(known, asked.pool, family, key, stored, now)) is not None:
            commits.append(commit)
    return commits


def pruned_change_wishes(known: Known, now: datetime) -> list[Commit]:
    """One commit for each wish about a change that is done with."""
    found = (
        _done_with(known, stored.record.pool, SUPPLY, CHANGE_WISH.key(name), stored, now)
        for name, stored in known.change_wishes.items()
    )
    return [commit for commit in found if commit is not None]


def _done_with(
    known: Known,
    pool: str,
    family: Family[PoolRecord] | Family[SupplyRecord],
    key: AnyKey,
    stored: Stored[PoolWish] | Stored[ChangeWish],
    now: datetime,
) -> Commit | None:
    owner = known.pools.get(pool) if family is POOL else known.supply.get(pool)
    wish = stored.record.wish
    answer = owner.record.answers.get(wish.id) if owner else None
    grace = KEEP_EXPIRED if owner else timedelta(0)
    if not is_final(answer) and now < wish.expires_at + grace:
        return None
    return Commit(expect={key: stored.revision, family.key(pool): owner.revision if owner else ABSENT}, delete=(key,))
