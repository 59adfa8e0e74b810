"""GPU utilization of a pool from its nodes' last heartbeats. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from navarch_autoscaler.strategies.base import Utilization
from navarch_common.events.codec import BadMessage, decode
from navarch_common.events.messages import Heartbeat
from navarch_common.store.base import Beat


def utilization(beats: Iterable[Beat | None], now: datetime, fresh_for: timedelta) -> Utilization | None:
    """The mean over all GPUs of the latest fresh sample of each node; None where no node has one.

    A node without a fresh, readable sample is counted as silent, never as idle.
    """
    ratios: list[float] = []
    nodes = silent = 0
    for beat in beats:
        of_node = _ratios(beat, now, fresh_for)
        if of_node:
            nodes += 1
            ratios += of_node
        else:
            silent += 1
    return Utilization(sum(ratios) / len(ratios), nodes, silent) if ratios else None


def _ratios(beat: Beat | None, now: datetime, fresh_for: timedelta) -> list[float]:
    if beat is None or now - beat.at > fresh_for:
        return []
    try:
        heartbeat = decode(beat.sample, Heartbeat)
    except BadMessage:
        return []
    return [gpu.utilization_ratio for gpu in heartbeat.gpus if gpu.utilization_ratio is not None]
