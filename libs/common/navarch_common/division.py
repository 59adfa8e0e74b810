"""Who works on what: how the living copies of a service share its pools.

Every copy reads the same leases and computes the same answer, so nobody has to ask. A pool stays with whoever holds it
as long as shares are even, so that little moves:

- each pool has exactly one copy, and no copy has two pools more than another;
- an answer that has come true gives itself again: nothing goes to and fro;
- a copy that dies moves no pools but its own; one that joins is handed its share and no more.

A copy decides this for itself alone, on what it read a moment ago. Two that read different things may want the same pool
for that long; the lease then says whose it is.
"""

from collections.abc import Collection, Mapping


def divide(pools: Collection[str], copies: Collection[str], holders: Mapping[str, str]) -> dict[str, str]:
    """Which copy each pool belongs to. `holders` says who holds a pool now; whoever is not in `copies` holds nothing.

    Without copies nobody has anything.
    """
    if not copies:
        return {}
    held: dict[str, list[str]] = {copy: [] for copy in sorted(copies)}
    free: list[str] = []
    for pool in sorted(pools):
        held.get(holders.get(pool, ""), free).append(pool)
    # Shares are even but for one pool: whoever has most already may have that one more.
    share, more = divmod(len(pools), len(held))
    by_load = sorted(held, key=lambda copy: (-len(held[copy]), copy))
    room = {copy: share + (rank < more) for rank, copy in enumerate(by_load)}
    for copy, mine in held.items():
        free += mine[room[copy] :]
        held[copy] = mine[: room[copy]]
    owner = {pool: copy for copy, mine in held.items() for pool in mine}
    for pool in sorted(free):
        emptiest = min(held, key=lambda copy: (len(held[copy]) - room[copy], copy))
        held[emptiest].append(pool)
        owner[pool] = emptiest
    return owner
