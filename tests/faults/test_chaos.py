"""Everything is killed, hung and broken at random, out of one seed, and nothing is lost, doubled or wrongly ended.

`make chaos SECONDS=600 SEED=7` does it for as long as one likes, and prints what happened. Real processes meet their
faults at other moments in each run, so it is no part of `make test`, which is the same every time.
"""

import asyncio
import json
import os
import re
import time
from pathlib import Path

import pytest

from fixtures.servers import Servers
from navarch_common.store.redis import RedisStore
from support.apart import Apart, apart
from support.books import Books, numbers, read_books, violations
from support.hostile import COPIES, GATEWAY, Cloud, Hostile, cloud_in, hostile_to

SECONDS = float(os.environ.get("NAVARCH_CHAOS_SECONDS") or 40)
SEED = int(os.environ.get("NAVARCH_CHAOS_SEED") or 1)
QUIET_WITHIN_S = 150.0
pytestmark = [
    pytest.mark.skipif(
        "NAVARCH_CHAOS_SECONDS" not in os.environ, reason="it differs from run to run: `make chaos` runs it"
    ),
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(SECONDS + QUIET_WITHIN_S + 150),
]

POOL = "training"
BAD_WEATHER = {"failure_rate": 0.1, "lost_reply_rate": 0.1}
DEMANDS = (24, 28, 30, 32, 36)
CONFIG = """
cluster: {name}
bus: {{prefix: {name}}}
server:
  http_address: '127.0.0.1:0'
  address: '127.0.0.1:0'
  heartbeat_interval: 500ms
  autoscale_interval: 1s
  silence_deadline: 20s
providers:
  cloud: {{type: fake, url: '{url}'}}
pools:
  training:
    provider: cloud
    instance_type: h100-8x
    min_nodes: 20
    max_nodes: 40
    cooldown: 0s
    max_step_up: 20
    autoscaling: {{type: queue, jobs_per_node: 1}}
    scale_down: {{idle_after: 2s}}
    disruption: {{max_unavailable: 50%, max_per_hour: 100000, max_unhealthy: 100%}}
"""


async def test_what_is_killed_hung_and_broken_at_random_heals_without_loss_or_excess(
    tmp_path: Path, killable_servers: Servers, unique: str
) -> None:
    print(f"\nseed {SEED}, {SECONDS:g} s; logs in {tmp_path}")
    with cloud_in(tmp_path / "cloud", "--boot-time", "0.3", seed=SEED) as cloud:
        config = CONFIG.format(name=unique, url=cloud.url)
        with apart(tmp_path, killable_servers, config) as services:
            async with hostile_to(services, killable_servers, cloud, cluster=unique, pool=POOL, seed=SEED) as hostile:
                for copy in (GATEWAY, *COPIES):
                    hostile.start(copy)
                await until_quiet(cloud, killable_servers, unique, at_least=20)
                untouched = services.processes["gateway-0"].pid
                await hostile.rage(SECONDS, DEMANDS, BAD_WEATHER)
                await hostile.relent(DEMANDS[0])
                began = time.monotonic()
                books = await until_quiet(cloud, killable_servers, unique, at_least=20, within_s=QUIET_WITHIN_S)
                (tmp_path / "events.jsonl").write_text("".join(f"{json.dumps(one.event)}\n" for one in books.told))
                print(f"quiet after {time.monotonic() - began:.0f} s")
                print(numbers(books, hostile.deeds))
                wrong = violations(books, hostile.deeds)
                if books.desired != DEMANDS[0]:
                    wrong.append(f"{DEMANDS[0]} nodes are needed, as the last word on demand says, not {books.desired}")
                if services.processes["gateway-0"].pid != untouched:
                    wrong.append("the gateway, which nobody killed, is another process")
                wrong += ending(services, cloud, hostile)
    assert not wrong, "\n".join(wrong)


async def until_quiet(cloud: Cloud, servers: Servers, cluster: str, *, at_least: int, within_s: float = 60.0) -> Books:
    """Waits until nothing goes on any more, for two seconds; or as long as one may wait, and returns what there is."""
    store = RedisStore(servers.redis.url, cluster=cluster)
    began, since, last = time.monotonic(), None, ""
    try:
        while True:
            books = None
            try:
                books = await read_books(
                    cloud.directory, store, nats_url=servers.nats.url, redis_url=servers.redis.url,
                    cluster=cluster, pool=POOL,
                )  # fmt: skip
            except Exception as error:  # noqa: BLE001 - servers come back, streams come into being
                astir = repr(error)
            else:
                astir = books.quiet() or ("too few" if books.desired < at_least else "")
            since = None if astir else since or time.monotonic()
            if astir != last:
                print(f"{time.monotonic() - began:6.1f} s: {astir or 'quiet'}")
                last = astir
            if books is not None and since is not None and time.monotonic() - since > 2:
                return books
            if time.monotonic() - began > within_s:
                assert books is not None, astir
                return books
            await asyncio.sleep(0.5)
    finally:
        await store.close()


def ending(services: Apart, cloud: Cloud, hostile: Hostile) -> list[str]:
    """Ends everything in good order, and says what was not good about it, now or before."""
    statuses = {**services.stop_all(), "cloud": cloud.stop()}
    wrong = [f"{name} ended with {status}" for name, status in statuses.items() if status]
    for log in (*(services.log(f"{service}-{copy}") for service, copy in (GATEWAY, *COPIES)), cloud.log):
        found = re.search(r"^.*(?:crashed|Traceback|\[error|never awaited).*$", log.read_text(), re.MULTILINE)
        if found:
            wrong.append(f"{log.name}: {log.read_text()[found.start() :][:3000]}")
    return wrong
