"""Settings whose name is settled and whose meaning comes with a later release.

Their defaults load, so that a full file loads; another value is refused, because a limit that is read and not kept is
worse than none. Whoever builds one of them removes it here.
"""

from __future__ import annotations

from navarch_common.config.pools import PoolDefaults
from navarch_common.config.problems import Report
from navarch_common.config.schema import Config


def ask_for_later(config: Config, report: Report) -> None:
    """Note every setting that would have no effect yet."""
    paths = [f"pools.{name}.{key}" for name, pool in config.pools.items() for key in _of_pool(pool)]
    for path in paths:
        if not report.is_bad(path):
            report.add(path, "this setting is not available in this release; only its default loads")


def _of_pool(pool: PoolDefaults) -> list[str]:
    wanted = {
        "disruption.windows": bool(pool.disruption.windows),
        "repair": bool(pool.repair),
        "spot": pool.spot,
        "spill": bool(pool.spill),
        "max_price_per_hour": pool.max_price_per_hour is not None,
        "warm": pool.warm > 0,
    }
    return [key for key, is_wanted in wanted.items() if is_wanted]
