"""Which wishes are done with: answered for good, or about nothing that still is. Pure.

Each commit expects the owner's record that gives the answer, so that an answer which is taken back is not overtaken.
"""

from datetime import datetime, timedelta

from navarch_common.model.base import AnyKey
from navarch_common.model.node import NODE
from navarch_common.model.pool import POOL
from navarch_common.model.wish import NODE_WISHES, POOL_WISH, NodeWishes
from navarch_common.store.base import ABSENT, Commit
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
        pool = known.pools.get(asked.pool)
        answer = pool.record.answers.get(asked.wish.id) if pool else None
        grace = KEEP_EXPIRED if pool else timedelta(0)
        if is_final(answer) or now >= asked.wish.expires_at + grace:
            key = POOL_WISH.key(asked.pool, asked.wish.verb)
            expect: dict[AnyKey, int] = {
                key: stored.revision,
                POOL.key(asked.pool): pool.revision if pool else ABSENT,
            }
            commits.append(Commit(expect=expect, delete=(key,)))
    return commits
