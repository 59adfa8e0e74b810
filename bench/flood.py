"""A process that publishes heartbeats of many nodes at a set rate, as cheaply as Python can: `python -m bench.flood`.

It speaks NATS over a plain socket with messages encoded beforehand, so that what is measured is the hearer.
"""

import argparse
import json
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from navarch_common.events.codec import encode
from navarch_common.events.messages import Heartbeat
from navarch_common.events.subjects import Subjects
from navarch_common.model.gpu import GpuSample

_BATCH_S = 0.01


def heartbeat(node: str, sequence: int, *, boot_id: str = "boot") -> Heartbeat:
    """A heartbeat of a machine with eight idle GPUs."""
    gpus = tuple(
        GpuSample(
            index=n, utilization_ratio=0.0, memory_used_bytes=1 << 20, temperature_c=35.0, power_w=70.0, process_count=0
        )
        for n in range(8)
    )
    return Heartbeat(
        node=node, pool="training", generation=1, boot_id=boot_id, sequence=sequence, at=datetime.now(UTC),
        interval_s=5.0, driver_state="ok", gpus=gpus, cpu_ratio=0.1, memory_ratio=0.2,
    )  # fmt: skip


def frames(nodes: list[str], prefix: str) -> list[tuple[bytes, bytes, int]]:
    """For each node what goes before and after the sequence number on the wire, and the payload's length without it."""
    made = []
    for node in nodes:
        head, tail = encode(heartbeat(node, 7_777_777)).split(b"7777777")
        made.append((f"PUB {Subjects(prefix).heartbeat(node)} ".encode(), head, tail))
    return [(subject, head + b"%d" + tail, len(head) + len(tail)) for subject, head, tail in made]


def flood(
    url: str, nodes: list[str], rate: float, seconds: float, first: int, prefix: str = "navarch"
) -> tuple[int, float]:
    """Publishes at `rate` a second for `seconds`; returns how many were sent and how long it took."""
    address = urlsplit(url)
    wire = socket.create_connection((address.hostname or "127.0.0.1", address.port or 4222))
    wire.recv(4096)
    wire.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
    while b"PONG" not in wire.recv(4096):
        continue
    ready = frames(nodes, prefix)
    sent, sequence, at = 0, first, 0
    started = time.perf_counter()
    while (now := time.perf_counter() - started) < seconds:
        batch = []
        for _ in range(max(0, int(rate * min(now + _BATCH_S, seconds)) - sent)):
            subject, payload, length = ready[at]
            digits = b"%d" % sequence
            batch.append(b"%b%d\r\n%b\r\n" % (subject, length + len(digits), payload.replace(b"%d", digits, 1)))
            at += 1
            if at == len(ready):
                at, sequence = 0, sequence + 1
        wire.sendall(b"".join(batch))
        sent += len(batch)
        time.sleep(max(0.0, sent / rate - (time.perf_counter() - started)))
    took = time.perf_counter() - started
    wire.sendall(b"PING\r\n")
    while b"PONG" not in wire.recv(4096):
        continue
    wire.close()
    return sent, took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--nodes", type=Path, required=True, help="file with a node id on each line")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--first", type=int, required=True, help="sequence of the first round")
    given = parser.parse_args()
    nodes = given.nodes.read_text().split()
    sent, took = flood(given.url, nodes, given.rate, given.seconds, given.first)
    print(json.dumps({"sent": sent, "seconds": took}))


if __name__ == "__main__":
    main()
