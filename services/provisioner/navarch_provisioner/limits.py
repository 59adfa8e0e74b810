"""What may be had and done at most: `limits:` of the fleet, of a provider and of a pool. Pure.

Each limit is a bucket in which every machine, launch or replacement holds a place, taken in the commit that it belongs
to: so the limit holds whoever else takes places meanwhile. Places for machines go back with the machine, those per hour
by time alone.

Dollars are counted by the prices that providers told of the machines that are there. A bucket counts places, so the
limit is said as the number of places that the money left is worth at the price of the machine that is wanted. A price
that nobody has told yet is learned from one machine at a time; a provider that tells none costs nothing here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from navarch_common.config.limits import LimitsConfig
from navarch_common.model.node import ENDED, NodeRecord, Phase
from navarch_common.store.base import Refund, Spend
from navarch_provisioner.news import Why
from navarch_provisioner.settings import ProvisionerSettings
from navarch_provisioner.view import NodeView, PoolView

HOUR = timedelta(hours=1)
BOUNDLESS = 1_000_000_000
"""The limit of a place that is taken for a machine which is there already."""
REACHED = "limit-reached"


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose limits they are."""

    path: str
    """Where they stand in the configuration."""
    name: str
    limits: LimitsConfig

    def bucket(self, what: str) -> str:
        return f"{what}/{self.name}"


def scopes(settings: ProvisionerSettings, pool: str, provider: str = "") -> Iterator[Scope]:
    """The limits that bind a launch of `pool` at `provider`."""
    yield Scope("limits", "fleet", settings.fleet_limits)
    if provider in settings.providers:
        yield Scope(f"providers.{provider}.limits", f"provider/{provider}", settings.providers[provider].limits)
    if pool in settings.pools:
        yield Scope(f"pools.{pool}.limits", f"pool/{pool}", settings.pools[pool].limits)


def buckets(settings: ProvisionerSettings, pool: str) -> dict[str, timedelta | None]:
    """Every bucket in which this pool takes places, with its window: what is to be read of them."""
    found: dict[str, timedelta | None] = {}
    for provider in settings.providers:
        for scope in scopes(settings, pool, provider):
            known = {
                "nodes": scope.limits.nodes, "dollars": scope.limits.dollars_per_hour,
                "launches": scope.limits.launches_per_hour, "replacements": scope.limits.replacements_per_hour,
            }  # fmt: skip
            for what, limit in known.items():
                if limit is not None:
                    found[scope.bucket(what)] = HOUR if what in ("launches", "replacements") else None
    return found


# --- launches ---


def no_room(pool: PoolView, provider: str, instance_type: str, node: str = "", *, in_place: bool = False) -> Why | None:
    """Why no machine may be launched at `provider`, or None.

    `node` is an intent that is to be launched now; without it a new one is asked for, beside those that wait already.
    `in_place`: it takes the place of a machine that goes first, so that there are no more of them in the end.
    """
    for scope in scopes(pool.settings, pool.pool, provider):
        why = _too_many_launches(pool, scope, node)
        if why is None and not in_place:
            why = _too_many_nodes(pool, scope, node) or _too_dear(pool, scope, node, provider, instance_type)
        if why is not None:
            return why
    return None


def launch_places(pool: PoolView, node: str, provider: str, instance_type: str) -> tuple[Spend, ...]:
    """The places that the launch of `node` takes."""
    places = []
    for scope in scopes(pool.settings, pool.pool, provider):
        limits = scope.limits
        if limits.launches_per_hour is not None:
            places.append(Spend(scope.bucket("launches"), node, limits.launches_per_hour, HOUR))
        if limits.nodes is not None:
            places.append(Spend(scope.bucket("nodes"), node, limits.nodes))
        if limits.dollars_per_hour is not None:
            held = _held(pool, scope.bucket("dollars")) - {node}
            room = _affordable(pool, scope, node, provider, instance_type)
            places.append(Spend(scope.bucket("dollars"), node, len(held) + max(room, 0)))
    return tuple(places)


def _held(pool: PoolView, bucket: str) -> frozenset[str]:
    return pool.spent.get(bucket, frozenset())


def _waiting(pool: PoolView, node: str) -> frozenset[str]:
    """Intents that will take a place before a new one can."""
    return frozenset() if node else frozenset(view.node for view in pool.living if view.phase is Phase.PLANNED)


def _too_many_launches(pool: PoolView, scope: Scope, node: str) -> Why | None:
    limit = scope.limits.launches_per_hour
    taken = (_held(pool, scope.bucket("launches")) | _waiting(pool, node)) - {node}
    if limit is None or len(taken) < limit:
        return None
    return _reached(scope, "launches_per_hour", limit, f"{len(taken)} machines were launched within an hour")


def _too_many_nodes(pool: PoolView, scope: Scope, node: str) -> Why | None:
    limit = scope.limits.nodes
    taken = (_held(pool, scope.bucket("nodes")) | _waiting(pool, node)) - {node}
    if limit is None or len(taken) < limit:
        return None
    return _reached(scope, "nodes", limit, f"{len(taken)} machines are there or on their way")


def _too_dear(pool: PoolView, scope: Scope, node: str, provider: str, instance_type: str) -> Why | None:
    limit = scope.limits.dollars_per_hour
    if limit is None or _affordable(pool, scope, node, provider, instance_type) >= 1:
        return None
    price = price_of(pool, provider, instance_type)
    if price is None:
        text = "the price of the machine that is on its way is not known yet, nor that of another one"
    else:
        spent = sum(pool.prices.get(name) or 0.0 for name in _held(pool, scope.bucket("dollars")))
        text = f"machines for ${spent:.2f} an hour are there, and one more costs ${price:.2f}"
    return _reached(scope, "dollars_per_hour", limit, text)


def _affordable(pool: PoolView, scope: Scope, node: str, provider: str, instance_type: str) -> int:
    """How many machines of this kind the money left is worth, those that wait for it already taken off."""
    limit = scope.limits.dollars_per_hour
    assert limit is not None
    held = _held(pool, scope.bucket("dollars")) - {node}
    pending = sum(1 for name in held if pool.prices.get(name) is None)
    waiting = len(_waiting(pool, node) - held)
    price = price_of(pool, provider, instance_type)
    if price is None:
        return 0 if pending or waiting else 1
    if price == 0:
        return BOUNDLESS
    left = limit - sum(pool.prices.get(name) or 0.0 for name in held)
    return int(left / price + 1e-9) - pending - waiting


def price_of(pool: PoolView, provider: str, instance_type: str) -> float | None:
    """What the provider told last of such a machine in this pool; 0 where it tells none; None where none was there yet."""
    told = [
        record.instance
        for view in pool.nodes.values()
        if (record := view.record).instance is not None
        and record.instance.provider == provider
        and (record.launch is None or record.launch.request.instance_type == instance_type)
    ]
    latest = max(told, key=lambda instance: instance.launched_at, default=None)
    return None if latest is None else latest.price_per_hour or 0.0


def _reached(scope: Scope, key: str, limit: float, text: str) -> Why:
    path = f"{scope.path}.{key}"
    return Why(REACHED, f"{text}; {path} is {limit:g}", limit=path)


# --- replacements ---


def no_replacement(pool: PoolView, view: NodeView) -> Why | None:
    """Why `view` may not be replaced within this hour, or None where its place is free or its own."""
    for scope in scopes(pool.settings, pool.pool, provider_of(view.record)):
        limit = scope.limits.replacements_per_hour
        taken = _held(pool, scope.bucket("replacements"))
        if limit is not None and view.node not in taken and len(taken) >= limit:
            text = f"{len(taken)} nodes were replaced within an hour"
            return _reached(scope, "replacements_per_hour", limit, text)
    return None


def replacement_places(pool: PoolView, view: NodeView) -> tuple[Spend, ...]:
    return tuple(
        Spend(scope.bucket("replacements"), view.node, limit, HOUR)
        for scope in scopes(pool.settings, pool.pool, provider_of(view.record))
        if (limit := scope.limits.replacements_per_hour) is not None
    )


def provider_of(record: NodeRecord) -> str:
    if record.instance is not None:
        return record.instance.provider
    return record.launch.request.provider if record.launch else ""


# --- places and machines, held together ---


def _lasting(pool: PoolView, provider: str) -> Iterator[str]:
    """Buckets whose places last as long as the machine."""
    for scope in scopes(pool.settings, pool.pool, provider):
        if scope.limits.nodes is not None:
            yield scope.bucket("nodes")
        if scope.limits.dollars_per_hour is not None:
            yield scope.bucket("dollars")


def machine_gone(pool: PoolView, record: NodeRecord) -> tuple[Refund, ...]:
    """Gives back the places that a machine held as long as it existed."""
    return tuple(Refund(bucket, record.node) for bucket in _lasting(pool, provider_of(record)))


def moved(pool: PoolView, record: NodeRecord, provider: str) -> tuple[Refund, ...]:
    """Gives back the places of a launch that is tried at another provider now."""
    stays = set(_lasting(pool, provider))
    return tuple(Refund(bucket, record.node) for bucket in _lasting(pool, provider_of(record)) if bucket not in stays)


def uncounted(pool: PoolView) -> Iterator[tuple[str, tuple[Spend, ...]]]:
    """Machines that were there before a limit was, with the places that they take whether or not there is room."""
    held: dict[str, dict[str, frozenset[str]]] = {}
    for view in pool.living:
        if view.record.instance is None:
            continue
        provider = provider_of(view.record)
        if provider not in held:
            held[provider] = {name: _held(pool, name) for name in _lasting(pool, provider)}
        missing = [name for name, holders in held[provider].items() if view.node not in holders]
        if missing:
            yield view.node, tuple(Spend(name, view.node, BOUNDLESS) for name in missing)


def leftovers(pool: PoolView) -> Iterator[tuple[str, tuple[Refund, ...]]]:
    """The net below: places of this pool's nodes that have ended."""
    for view in pool.nodes.values():
        if view.phase not in ENDED:
            continue
        held = [refund for refund in machine_gone(pool, view.record) if view.node in _held(pool, refund.bucket)]
        if held:
            yield view.node, tuple(held)
