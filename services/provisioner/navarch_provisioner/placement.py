"""Where the next machine is asked for. Pure: an order of offers, and which of them are cooling down after a refusal.

A refusal is remembered for a while and then forgotten, so no provider is ever locked out: the reference kept the memory
of one failure for ever and never launched again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from navarch_common.config import PoolConfig, ProviderChoice
from navarch_common.model.node import NodeRecord
from navarch_provisioner.cloud.base import CloudError, NoCapacity, Throttled

COOLING = {
    "no-capacity": timedelta(seconds=30),
    "quota": timedelta(minutes=5),
    "throttled": timedelta(seconds=10),
    "auth": timedelta(minutes=1),
    "invalid-config": timedelta(minutes=5),
    "upstream": timedelta(seconds=10),
}
"""How long an offer rests after a refusal, where the cloud does not say itself. Short: capacity comes and goes."""
WANT_OF_CAPACITY = frozenset({"no-capacity", "quota"})
"""Refusals that mean that there is nothing to be had."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One place where a machine may be launched."""

    provider: str
    instance_type: str
    region: str = ""
    zone: str = ""

    @property
    def name(self) -> str:
        return "/".join(part for part in (self.provider, self.region, self.zone) if part)


def offers(config: PoolConfig, nodes: Iterable[NodeRecord] = ()) -> list[Offer]:
    """All offers of a pool, best first, as its strategy orders them.

    `priority` and `availability`: the lowest priority number first, refusals fall back to the next. `round-robin`: the
    provider with the fewest machines for its weight first. `cost`: the lowest price that was seen for a machine of this
    pool first; a provider whose price was never seen comes before, so that it is learned.
    """
    living = list(nodes)
    choices = sorted(enumerate(config.choices), key=lambda pair: (pair[1].priority, pair[0]))
    ordered = [choice for _, choice in choices]
    if config.strategy == "round-robin":
        ordered.sort(key=lambda choice: _count(living, choice.name) / max(choice.weight, 1))
    elif config.strategy == "cost":
        ordered.sort(key=lambda choice: _price(living, choice.name))
    return [offer for choice in ordered for offer in _offers_of(choice, config.zones)]


def _offers_of(choice: ProviderChoice, zones: tuple[str, ...]) -> list[Offer]:
    found = []
    for region in choice.regions or ("",):
        own = tuple(zone for zone in zones if not region or zone.startswith(region)) or ("",)
        found += [Offer(choice.name, choice.instance_type or "", region, zone) for zone in own]
    return found


def _count(nodes: list[NodeRecord], provider: str) -> int:
    return sum(1 for node in nodes if node.launch is not None and node.launch.request.provider == provider)


def _price(nodes: list[NodeRecord], provider: str) -> float:
    prices = [
        node.instance.price_per_hour
        for node in nodes
        if node.instance is not None and node.instance.provider == provider and node.instance.price_per_hour is not None
    ]
    return min(prices, default=-1.0)


def choose(
    found: Iterable[Offer],
    providers: frozenset[str],
    cooling: Mapping[str, datetime],
    now: datetime,
    *,
    tried: frozenset[str] = frozenset(),
) -> Offer | None:
    """The first offer that can be called, is not cooling down and was not tried; None where there is none now."""
    for offer in found:
        if offer.provider in providers and offer.name not in tried and not is_cooling(cooling, offer, now):
            return offer
    return None


def is_cooling(cooling: Mapping[str, datetime], offer: Offer, now: datetime) -> bool:
    """Whether the offer, or its provider as a whole, refused lately."""
    return any(name in cooling and cooling[name] > now for name in (offer.name, offer.provider))


def cooled_until(error: CloudError, offer: Offer, now: datetime) -> tuple[str, datetime]:
    """Which name rests until when after a refusal: a whole provider where the refusal is not about one place."""
    if isinstance(error, NoCapacity):
        name = offer.name if error.scope == "zone" or offer.region else offer.provider
        return name, now + (error.ttl or COOLING["no-capacity"])
    if isinstance(error, Throttled) and error.retry_after_s is not None:
        return offer.provider, now + timedelta(seconds=min(max(error.retry_after_s, 0.0), 3600.0))
    return offer.provider, now + COOLING.get(error.code, timedelta(seconds=30))


def backoff(failures: int, first: timedelta, longest: timedelta) -> timedelta:
    """Doubles with every launch that failed in a row: 5 s, 10 s, 20 s … at most `longest`."""
    doublings = min(max(failures - 1, 0), 16)
    return min(first * (1 << doublings), longest)
