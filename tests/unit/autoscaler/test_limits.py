"""What keeps desired from what a strategy wants, a row for each rule."""

from datetime import UTC, datetime, timedelta

import pytest

from navarch_autoscaler.limits import Limits, limit
from navarch_autoscaler.strategies.base import PoolInputs
from navarch_common.config.units import Share
from navarch_common.model.pool import Opinion

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
STEP = Share(4, 1.0)


def limited(
    desired: int,
    target: int | None,
    *,
    fresh: bool = True,
    usable: int | None = None,
    cooldown_s: int = 0,
    scaled_s_ago: int | None = None,
    low: int = 1,
    high: int = 100,
    raised: bool = True,
) -> tuple[int, str]:
    inputs = PoolInputs(
        pool="training",
        now=NOW,
        min_nodes=low,
        max_nodes=high,
        desired=desired,
        usable=desired if usable is None else usable,
        coming=0,
        demand=None,
        utilization=None,
    )
    opinion = Opinion(strategy="queue", target=target, code="queue-depth", reason="because", fresh=fresh)
    scaled_at = None if scaled_s_ago is None else NOW - timedelta(seconds=scaled_s_ago)
    sized = limit(opinion, inputs, Limits(timedelta(seconds=cooldown_s), STEP, scaled_at, NOW if raised else None))
    return sized.desired, sized.limit


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        pytest.param(limited(3, 4), (4, ""), id="nothing-in-the-way"),
        pytest.param(limited(3, None), (3, ""), id="no-opinion-keeps-the-size"),
        pytest.param(limited(3, 200), (7, "max-step-up"), id="the-step-bounds-a-jump"),
        pytest.param(limited(20, 200), (40, "max-step-up"), id="a-large-pool-may-double"),
        pytest.param(limited(7, 200, usable=3), (7, "max-step-up"), id="no-second-step-before-the-first-has-come"),
        pytest.param(
            limited(3, 200, usable=0, raised=False), (7, "max-step-up"), id="a-new-pool-need-not-wait-to-grow"
        ),
        pytest.param(limited(3, 20, high=6), (6, "max-nodes"), id="max-nodes"),
        pytest.param(limited(3, 0), (1, "min-nodes"), id="min-nodes"),
        pytest.param(limited(2, None, low=3), (3, "min-nodes"), id="under-the-minimum-is-raised-without-opinion"),
        pytest.param(limited(9, 9, high=6), (6, "max-nodes"), id="over-the-maximum-is-lowered"),
        pytest.param(
            limited(2, 2, low=3, cooldown_s=300, scaled_s_ago=1), (3, "min-nodes"), id="the-minimum-beats-cooldown"
        ),
        pytest.param(limited(3, 4, cooldown_s=300, scaled_s_ago=299), (3, "cooldown"), id="cooldown-holds"),
        pytest.param(limited(3, 4, cooldown_s=300, scaled_s_ago=300), (4, ""), id="cooldown-ends"),
        pytest.param(limited(3, 2, cooldown_s=300, scaled_s_ago=10), (3, "cooldown"), id="cooldown-holds-downwards"),
        pytest.param(limited(3, 4, cooldown_s=300), (4, ""), id="no-cooldown-before-the-first-scaling"),
        pytest.param(limited(5, 2, fresh=False), (5, "stale-input"), id="stale-never-lowers"),
        pytest.param(limited(5, 6, fresh=False), (6, ""), id="stale-may-raise"),
        pytest.param(limited(5, 2), (2, ""), id="down-in-one-step"),
    ],
)
def test_the_limiter(got: tuple[int, str], expected: tuple[int, str]) -> None:
    assert got == expected
