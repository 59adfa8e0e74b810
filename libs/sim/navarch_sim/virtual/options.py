"""What a seed decides before anything happens: how large the world is, how it is run, and how hostile it is.

Fault rates are drawn too, and most faults are absent from most runs: fixed rates miss bugs, since some faults hide
others (measured: a stale-acknowledgement bug was found in 58 of 300 seeds so, and in none with fixed rates).
"""

import random
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]


class Pool(Struct, frozen=True, kw_only=True):
    name: str
    nodes: int
    queue: bool
    """Sized by demand, not by hand."""
    zones: tuple[str, ...]
    surge: bool
    automation: str = "act"
    max_unhealthy: int | None = None
    """Over it the breaker opens; None leaves what is usual."""
    limits: dict[str, int] = {}


class Options(Struct, frozen=True, kw_only=True):
    """All of it as data: printed with a seed that failed."""

    copies: dict[str, int]
    """By service, processes of its own; where `together` is 0."""
    together: int = 0
    """Processes with every service in each, as `control-plane` is."""
    pools: tuple[Pool, ...]
    calm_s: float
    """Before the first fault."""
    storm_s: float
    heartbeat_s: float
    boot_s: float
    latency_s: float
    registration_s: float = 180.0
    limits: dict[str, int] = {}
    """Of the whole fleet."""
    ratios: dict[str, Ratio] = {}
    """By fault, its chance for each message, call or machine, while the storm lasts."""
    rates: dict[str, float] = {}
    """By fault, how often it strikes in a minute of storm."""

    def config(self) -> str:
        """The configuration file of this world."""
        document = {
            "gc": "terminate",
            "server": {
                "heartbeat_interval": f"{self.heartbeat_s:g}s",
                "heartbeat_timeout": f"{3 * self.heartbeat_s:g}s",
                "silence_deadline": f"{12 * self.heartbeat_s:g}s",
            },
            "providers": {"cloud": {"type": "fake"}},
            "pools": {pool.name: _pool(pool, self.registration_s) for pool in self.pools},
        }
        if self.limits:
            document["limits"] = dict(self.limits)
        return msgspec.json.encode(document).decode()


def _pool(pool: Pool, registration_s: float) -> dict[str, object]:
    disruption: dict[str, object] = {"max_unavailable": "50%", "max_per_hour": 1000}
    if pool.max_unhealthy is not None:
        disruption["max_unhealthy"] = pool.max_unhealthy
    settings: dict[str, object] = {
        "provider": "cloud",
        "instance_type": "h100-8x",
        "zones": list(pool.zones),
        "min_nodes": 1 if pool.queue else pool.nodes,
        "max_nodes": 3 * pool.nodes + 2,
        "cooldown": "20s",
        "registration_timeout": f"{registration_s:g}s",
        "surge": {"enabled": pool.surge},
        "disruption": disruption,
        "scale_down": {"idle_after": "20s"},
        "drain": {"deadline": "60s"},
    }
    if pool.queue:
        settings["autoscaling"] = {"type": "queue", "jobs_per_node": 10}
    if pool.automation != "act":
        settings["automation"] = pool.automation
    if pool.limits:
        settings["limits"] = dict(pool.limits)
    return settings


RATIOS: dict[str, float] = {
    "loss": 0.3, "duplication": 0.2, "reordering": 0.2, "lost-request": 0.05, "lost-reply": 0.05, "lost-ack": 0.3,
    "stale-ack": 0.3, "cloud-refuses": 0.3, "launch-reply-lost": 0.5, "launch-lost": 0.5, "slow-cloud": 0.3,
    "partial-list": 0.5, "stale-list": 0.5, "never-boots": 0.3, "dies-young": 0.3,
}  # fmt: skip
"""Faults that have a chance each time, and the highest chance that a seed draws."""
RATES: dict[str, float] = {
    "crash": 12.0, "crash-at-call": 6.0, "stall": 6.0, "bus-outage": 2.0, "store-outage": 2.0, "partition": 3.0,
    "rollback": 1.0, "xid": 4.0, "death": 3.0, "flap": 2.0, "silence": 2.0, "returns": 2.0, "zone-dark": 1.0, "stock-out": 2.0,
    "wish": 6.0, "freeze": 1.0, "demand": 6.0, "work": 4.0, "purge": 1.0, "app-xid": 2.0,
}  # fmt: skip
"""Faults that strike by themselves, and the highest rate, in strikes a minute, that a seed draws."""
MORE_RATIOS: dict[str, float] = {"late-request": 0.1}
MORE_RATES: dict[str, float] = {
    "crash-at-report": 6.0, "stall-at-commit": 4.0, "xid-burst": 2.0, "xid-in-passing": 8.0, "death-in-passing": 8.0,
    "wish-in-passing": 6.0, "service-outage": 1.5, "deep-rollback": 4.0, "hold": 3.0,
}  # fmt: skip
"""Of both, what came later: drawn apart, so that what a seed was before it still is without them."""
BAD_IMAGE: dict[str, float] = {"no-driver": 0.5}
"""As ratios, drawn apart again."""
RARE: dict[str, dict[str, float]] = {
    "launches-lost": {"launch-reply-lost": 0.7, "dies-young": 0.6, "demand": 12.0},
    "amnesia": {"deep-rollback": 3.0, "xid-in-passing": 12.0, "xid": 6.0},
    "bad-image": {"never-boots": 0.4, "no-driver": 0.5, "demand": 8.0},
}
"""Stories in which seldom edges of a node's life are walked often, and the highest rate or ratio of what they are made of."""
RARE_RATIO = 0.25
RARER: dict[str, dict[str, float]] = {
    "forgotten-launches": {"rollback-in-passing": 8.0, "xid-in-passing": 6.0, "demand": 12.0},
    "no-driver": {"no-driver": 0.7, "never-boots": 0.2, "demand": 8.0},
}
"""More of them, drawn apart."""
RARER_RATIO = 0.15
AMBUSHES: dict[str, dict[str, float]] = {
    "time-is-up": {
        "ambush": 40.0, "never-boots": 0.4, "no-driver": 0.4, "dies-young": 0.3, "rollback-in-passing": 4.0, "demand": 10.0,
    },
    "not-proven": {"ambush": 40.0, "never-boots": 0.2, "no-driver": 0.7, "demand": 10.0},
    "unknown-launches": {
        "ambush": 40.0, "launch-reply-lost": 0.5, "launch-lost": 0.6, "slow-cloud": 0.6, "cloud-refuses": 0.6, "demand": 15.0,
        "freeze": 4.0, "rollback": 2.0, "rollback-in-passing": 4.0,
    },
    "sent-away": {
        "wish": 20.0, "wish-in-passing": 25.0, "demand": 8.0, "xid-burst": 3.0, "rollback": 2.0, "purge": 3.0, "dies-young": 0.4,
    },
    "frozen-out": {
        "frozen-out": 60.0, "never-boots": 0.7, "no-driver": 0.6, "dies-young": 0.6,
        "rollback-in-passing": 4.0, "xid-burst": 1.5, "demand": 20.0,
    },
    "found-broken": {
        "deep-rollback": 4.0, "xid": 10.0, "xid-in-passing": 12.0, "xid-burst": 4.0, "app-xid": 9.0, "death": 2.0,
        "store-outage": 4.0, "dies-young": 0.3, "demand": 14.0,
    },
}  # fmt: skip
"""Those in which whatever there is strikes at such a turn; of operators who end what has just begun, or who let nothing end
while somebody's time runs out; and of machines that a store had forgotten, and that are found again broken. Drawn apart as
well."""
AMBUSH_RATIO = 0.3
_OF_STORIES = {"ambush", "frozen-out"}
_ALL_RATES = {*RATES, *MORE_RATES, *_OF_STORIES, "rollback-in-passing"}
BAD_CLOUD: dict[str, float] = {"launch-reply-lost": 0.5, "launch-lost": 0.4, "never-boots": 0.4, "dies-young": 0.4}


def draw(seed: int) -> Options:
    """The options of a seed: the same for ever."""
    return with_ambush(seed, draw_fourth(seed))


def draw_fourth(seed: int) -> Options:
    """Without the stories of `AMBUSHES`, which came last."""
    return with_rarer(seed, draw_third(seed))


def draw_third(seed: int) -> Options:
    """Without the stories of `RARER`, which came before them."""
    return with_rare(seed, draw_second(seed))


def draw_second(seed: int) -> Options:
    """Without the stories of `RARE`, which came later still."""
    return with_bad_image(seed, with_more(seed, brisk(draw_first(seed))))


def draw_first(seed: int) -> Options:
    """Without what came later: what a seed that once found something was when it did."""
    rng = random.Random(f"options/{seed}")
    zones = tuple(f"zone-{letter}" for letter in "abc"[: rng.randint(1, 3)])
    pools = tuple(
        Pool(
            name=name,
            nodes=rng.choice((1, 2, 3, 4, 6)),
            queue=rng.random() < 0.5,
            zones=zones,
            surge=rng.random() < 0.8,
        )
        for name in ("training", "inference")[: rng.choice((1, 1, 2))]
    )
    hostility = rng.choice((0.3, 0.6, 1.0))
    ratios = {name: hostility * rng.random() ** 2 * top for name, top in RATIOS.items() if rng.random() < 0.4}
    rates = {name: hostility * rng.random() * top for name, top in RATES.items() if rng.random() < 0.5}
    return Options(
        copies={
            "health": rng.choice((1, 2, 2, 3)),
            "provisioner": rng.choice((1, 2, 2, 3)),
            "autoscaler": rng.choice((1, 2)),
            "gateway": 1,
        },
        together=rng.choice((0, 0, 1, 2, 2, 3)),
        pools=pools,
        calm_s=rng.uniform(20.0, 60.0),
        storm_s=rng.uniform(30.0, 180.0),
        heartbeat_s=rng.choice((2.0, 5.0, 10.0)),
        boot_s=rng.choice((2.0, 10.0, 20.0)),
        latency_s=rng.choice((0.0, 0.0, 0.001, 0.02, 0.2)),
        ratios=ratios,
        rates=rates,
    )


def brisk(options: Options) -> Options:
    """As many faults in half the time: what nothing happens in costs as much as what it all happens in, and finds nothing."""
    return msgspec.structs.replace(
        options,
        calm_s=0.4 * options.calm_s,
        storm_s=0.5 * options.storm_s,
        rates={name: 1.8 * rate for name, rate in options.rates.items()},
    )


def with_more(seed: int, options: Options) -> Options:
    """Rare moments, crowds and orders, where the seed has them."""
    rng = random.Random(f"more/{seed}")
    hostility = rng.choice((0.3, 0.6, 1.0))
    rates = {name: hostility * rng.random() * top for name, top in MORE_RATES.items() if rng.random() < 0.3}
    ratios = {name: hostility * rng.random() ** 2 * top for name, top in MORE_RATIOS.items() if rng.random() < 0.3}
    if rng.random() < 0.3:
        ratios |= {name: rng.random() * top for name, top in BAD_CLOUD.items() if rng.random() < 0.6}
    stormy_start = rng.random() < 0.25
    bad_image = rng.random() < 0.12
    if bad_image:
        ratios |= {"never-boots": rng.uniform(0.2, 0.6), "dies-young": rng.uniform(0.0, 0.6)}
    boot_s = 45.0 if rng.random() < 0.15 and not bad_image else options.boot_s
    pools = tuple(
        msgspec.structs.replace(
            pool,
            automation="approve" if rng.random() < 0.12 else "act",
            max_unhealthy=1 if rng.random() < 0.3 else None,
            limits=_limits(rng, pool.nodes) if rng.random() < 0.15 else {},
        )
        for pool in options.pools
    )
    return msgspec.structs.replace(
        options,
        pools=pools,
        calm_s=rng.uniform(0.0, 5.0) if stormy_start else options.calm_s,
        # What is given up after a minute must find the storm still there.
        storm_s=max(options.storm_s, rng.uniform(120.0, 220.0)) if bad_image else options.storm_s,
        boot_s=boot_s,
        registration_s=rng.choice((60.0, 90.0, 180.0)) if rng.random() < 0.3 else 70.0 if bad_image else 180.0,
        limits=_limits(rng, sum(pool.nodes for pool in pools)) if rng.random() < 0.1 else {},
        rates={**options.rates, **rates},
        ratios={**options.ratios, **ratios},
    )


def with_bad_image(seed: int, options: Options) -> Options:
    """One without a GPU driver, where the seed has it, and time enough to give up what came from it."""
    rng = random.Random(f"no-driver/{seed}")
    if rng.random() >= 0.1:
        return options
    return msgspec.structs.replace(
        options,
        ratios={**options.ratios, **{name: rng.uniform(0.1, top) for name, top in BAD_IMAGE.items()}},
        storm_s=max(options.storm_s, rng.uniform(120.0, 220.0)),
        registration_s=rng.choice((60.0, 70.0)),
    )


def with_rare(seed: int, options: Options) -> Options:
    """One of the stories of `RARE`, where the seed has it, and a little of many faults around it."""
    rng = random.Random(f"rare/{seed}")
    return _with_story(rng, options, RARE, registration_s=60.0) if rng.random() < RARE_RATIO else options


def with_rarer(seed: int, options: Options) -> Options:
    """The same, of the stories of `RARER`. A machine has less time to register, so that more of them run out of it, and there
    are more of them."""
    rng = random.Random(f"rarer/{seed}")
    if rng.random() >= RARER_RATIO:
        return options
    return _crowded(_with_story(rng, options, RARER, registration_s=40.0), heartbeat_s=5.0)


def with_ambush(seed: int, options: Options) -> Options:
    """The same, of the stories of `AMBUSHES`."""
    rng = random.Random(f"ambush/{seed}")
    if rng.random() >= AMBUSH_RATIO:
        return options
    told = _crowded(_with_story(rng, options, AMBUSHES, registration_s=40.0), heartbeat_s=2.0)
    if not _OF_STORIES & told.rates.keys():
        return told
    # Little else goes on, or the turn would never be taken; and what is made first is made as badly as what comes later.
    quiet = {name: 0.3 * rate for name, rate in told.rates.items() if name not in {*_OF_STORIES, "demand"}}
    pools = tuple(msgspec.structs.replace(pool, zones=pool.zones[:1]) for pool in told.pools)
    return msgspec.structs.replace(told, calm_s=0.0, pools=pools, rates={**told.rates, **quiet})


def _crowded(options: Options, *, heartbeat_s: float) -> Options:
    pools = tuple(msgspec.structs.replace(pool, nodes=max(pool.nodes, 4)) for pool in options.pools)
    return msgspec.structs.replace(options, pools=pools, heartbeat_s=min(options.heartbeat_s, heartbeat_s))


def _with_story(
    rng: random.Random,
    options: Options,
    stories: dict[str, dict[str, float]],
    *,
    registration_s: float,
) -> Options:
    story = stories[rng.choice(list(stories))]
    little = {name: 0.3 * rng.random() * top for name, top in {**RATES, **MORE_RATES}.items() if rng.random() < 0.6}
    few = {name: 0.2 * rng.random() * top for name, top in {**RATIOS, **MORE_RATIOS}.items() if rng.random() < 0.5}
    of_story = {name: rng.uniform(0.5, 1.0) * top for name, top in story.items()}
    return msgspec.structs.replace(
        options,
        storm_s=max(options.storm_s, rng.uniform(110.0, 160.0)),
        boot_s=min(options.boot_s, 20.0),
        registration_s=registration_s,
        rates={**options.rates, **little, **{name: top for name, top in of_story.items() if name in _ALL_RATES}},
        ratios={**options.ratios, **few, **{name: top for name, top in of_story.items() if name not in _ALL_RATES}},
    )


def _limits(rng: random.Random, nodes: int) -> dict[str, int]:
    """Enough for what is wanted at first, and not for much more."""
    drawn = {
        "nodes": nodes + rng.randint(0, 2),
        "launches_per_hour": nodes + rng.randint(1, 2 * nodes + 2),
        "replacements_per_hour": rng.randint(1, nodes + 2),
    }
    return {name: limit for name, limit in drawn.items() if rng.random() < 0.5}
