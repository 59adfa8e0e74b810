"""The ceiling for heartbeats: receive, decode, write in batches, and nothing else. `python -m bench.bare NATS REDIS`.

It keeps how many it has seen in the Redis key `bench:heard`.
"""

import asyncio
import gc
import sys
import time

import msgspec
import nats
import redis.asyncio
from nats.aio.msg import Msg

from navarch_common.events.messages import Heartbeat


async def main(nats_url: str, redis_url: str) -> None:
    client = await nats.connect(nats_url)
    store = redis.asyncio.from_url(redis_url)
    decoder = msgspec.json.Decoder(Heartbeat)
    latest: dict[str, tuple[float, bytes]] = {}
    heard = 0

    async def hear(message: Msg) -> None:
        nonlocal heard
        heard += 1
        latest[decoder.decode(message.data).node] = (time.time(), message.data)

    await client.subscribe("navarch.heartbeat.*", cb=hear, pending_msgs_limit=10_000_000, pending_bytes_limit=1 << 30)
    await client.flush()
    written = 0.0
    while True:
        await asyncio.sleep(0.1)
        pipe = store.pipeline(transaction=False)
        pipe.set("bench:heard", heard)
        if latest and time.monotonic() - written >= 1.0:
            written = time.monotonic()
            batch, latest = latest, {}
            pipe.zadd("bench:due", {node: at for node, (at, _) in batch.items()})
            pipe.hset("bench:samples", mapping={node: data for node, (_, data) in batch.items()})
        await pipe.execute()


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    asyncio.run(main(sys.argv[1], sys.argv[2]))
