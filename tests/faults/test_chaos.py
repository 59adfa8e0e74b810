"""Everything is killed, hung, cut off and broken at random, out of one seed, and nothing is lost, doubled or wrongly ended.

`make chaos FAILURES=300 SEED=7` goes on until so many machines have failed, `make chaos SECONDS=600` for so long, and
prints what happened. Real processes meet their faults at other moments in each run, so it is no part of `make test`.
"""

import asyncio
import os
import time
from pathlib import Path

import pytest

from support.hostile import Hostile
from support.storm import storm_in

FAILURES = int(os.environ.get("NAVARCH_CHAOS_FAILURES") or 0)
SECONDS = float(os.environ.get("NAVARCH_CHAOS_SECONDS") or (3600 if FAILURES else 40))
SEED = int(os.environ.get("NAVARCH_CHAOS_SEED") or 1)
PROVIDER = os.environ.get("NAVARCH_CHAOS_PROVIDER") or "fake"
QUIET_WITHIN_S = 60.0
PROGRESS_S = 10.0
pytestmark = [
    pytest.mark.skipif(
        not {"NAVARCH_CHAOS_SECONDS", "NAVARCH_CHAOS_FAILURES"} & os.environ.keys(),
        reason="it differs from run to run: `make chaos` runs it",
    ),
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(SECONDS + QUIET_WITHIN_S + 150),
]

BAD_WEATHER = {"failure_rate": 0.1, "lost_reply_rate": 0.1}
DEMANDS = {"fake": (24, 28, 30, 32, 36), "local": (6, 7, 8)}[PROVIDER]


async def test_what_is_killed_hung_and_broken_at_random_heals_without_loss_or_excess(tmp_path: Path) -> None:
    print(f"\nseed {SEED}, {f'{FAILURES} failures' if FAILURES else f'{SECONDS:g} s'}; logs in {tmp_path}")
    least = DEMANDS[0] - 2
    async with storm_in(tmp_path, seed=SEED, least=least, most=DEMANDS[-1] + 4, provider=PROVIDER) as storm:
        progress = asyncio.create_task(tell(storm.hostile))
        await storm.hostile.rage(SECONDS, DEMANDS, BAD_WEATHER, FAILURES)
        progress.cancel()
        await storm.hostile.relent(DEMANDS[0])
        wrong = await storm.judge(DEMANDS[0], within_s=QUIET_WITHIN_S)
    assert not wrong, "\n".join(wrong)


async def tell(hostile: Hostile) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_S)
        deeds = hostile.deeds
        done = sum(count for deed, count in deeds.counts.items() if deed.startswith(("kill", "pause", "network")))
        print(
            f"{time.monotonic() - began:6.0f} s: {deeds.failures} failures{f' of {FAILURES}' if FAILURES else ''}, "
            f"{done} faults, down now: {', '.join(sorted(map(str, hostile.down))) or 'none'}",
            flush=True,
        )
