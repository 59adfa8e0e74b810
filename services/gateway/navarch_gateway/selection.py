"""Which records a list shows, and where its next page begins. Pure."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeVar

from navarch_common.model.node import ENDED, NodeRecord
from navarch_common.model.status import health_of, status_of
from navarch_common.store.base import Stored
from navarch_gateway.asks import NodeQuery, Page
from navarch_gateway.known import Known

T = TypeVar("T")


def select_nodes(known: Known, query: NodeQuery) -> list[Stored[NodeRecord]]:
    """Nodes that match, in the order of their ids. Ended ones only where they are asked for, by `all` or by status."""
    with_ended = query.terminated or query.status == "terminated"
    return [
        stored
        for stored in known.nodes.values()
        if (with_ended or stored.record.phase not in ENDED) and matches(stored.record, known, query)
    ]


def matches(node: NodeRecord, known: Known, query: NodeQuery) -> bool:
    if query.pool and node.pool != query.pool:
        return False
    if query.provider and query.provider != provider_of(node):
        return False
    if query.region and query.region != region_of(node):
        return False
    if any(node.labels.get(name) != value for name, value in query.labels.items()):
        return False
    health = known.health_of(node.node)
    if query.status and status_of(node, health) != query.status:
        return False
    return not query.health or health_of(node, health) == query.health


def provider_of(node: NodeRecord) -> str:
    if node.instance:
        return node.instance.provider
    return node.launch.request.provider if node.launch else ""


def region_of(node: NodeRecord) -> str:
    if node.instance and node.instance.region:
        return node.instance.region
    return node.launch.request.region if node.launch else ""


def one_page(items: Sequence[T], names: Sequence[str], page: Page) -> tuple[Sequence[T], str]:
    """The items behind `page.after`, at most `page.limit`, and the token of the next page or nothing. `names` are the
    items' own, sorted. What came or went between two pages is shown or not, but nothing is shown twice."""
    start = bisect_right(names, page.after) if page.after else 0
    chosen = items[start : start + page.limit]
    more = start + page.limit < len(items)
    return chosen, names[start + len(chosen) - 1] if more and chosen else ""
