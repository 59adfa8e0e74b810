"""Brings streams on a NATS server to what is asked, and says in sentences what stays weaker than that."""

from typing import Any

from nats.aio.client import Client

from navarch_common.bus.base import StreamRefused
from navarch_common.bus.nats_api import NO_REPLICAS, NO_SPACE, STREAM_NOT_FOUND, ApiRefusal, StreamInfo, call
from navarch_common.events.subjects import StreamSpec

MAX_BYTES_LEAST = 64 << 20
"""A stream that cannot even reserve this is refused."""
RETENTION = {"limits": "limits", "work_queue": "workqueue"}


async def ensure_stream(client: Client, spec: StreamSpec, replicas: int) -> list[str]:
    """Creates or widens one stream. Raises `StreamRefused` where it exists and cannot be what is asked."""
    wanted = _config(spec, replicas)
    try:
        found = (await call(client, f"STREAM.INFO.{spec.name}", None, StreamInfo)).config
    except ApiRefusal as refusal:
        if refusal.code != STREAM_NOT_FOUND:
            raise
        return await _apply(client, "STREAM.CREATE", wanted, MAX_BYTES_LEAST)
    _check_possible(spec, found)
    widened = {**found, **_wider(found, wanted)}
    sentences = weaker(spec, found)
    if widened != found:
        sentences += await _apply(client, "STREAM.UPDATE", widened, found.get("max_bytes") or MAX_BYTES_LEAST)
    return sentences


def _config(spec: StreamSpec, replicas: int) -> dict[str, Any]:
    return {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": RETENTION[spec.retention],
        "storage": "file",
        "num_replicas": replicas,
        "max_age": 0 if spec.max_age is None else _nanoseconds(spec.max_age.total_seconds()),
        "max_bytes": spec.max_bytes,
        "max_msgs_per_subject": 1 if spec.last_per_subject else -1,
        "max_msg_size": spec.max_message_bytes,
        "duplicate_window": _nanoseconds(spec.duplicate_window.total_seconds()),
        "discard": "new" if spec.discard_new else "old",
        "max_consumers": -1,
        "max_msgs": -1,
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)


def _check_possible(spec: StreamSpec, found: dict[str, Any]) -> None:
    if found["retention"] != RETENTION[spec.retention]:
        raise StreamRefused(
            f"stream {spec.name} exists with retention {found['retention']}, which cannot become "
            f"{RETENTION[spec.retention]}: choose another bus.prefix, or remove the stream"
        )
    for flag in ("mirror", "sealed", "no_ack"):
        if found.get(flag):
            raise StreamRefused(f"stream {spec.name} exists with {flag} set: choose another bus.prefix, or remove it")


def _wider(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What differs, never narrowing what someone made larger: 0 and -1 mean without bound."""
    return {
        "subjects": sorted({*found.get("subjects", ()), *wanted["subjects"]}),
        "num_replicas": max(found["num_replicas"], wanted["num_replicas"]),
        "max_age": _larger(found["max_age"], wanted["max_age"]),
        "max_bytes": _larger(found["max_bytes"], wanted["max_bytes"]),
        "max_msg_size": _larger(found.get("max_msg_size", -1), wanted["max_msg_size"]),
        "max_msgs_per_subject": wanted["max_msgs_per_subject"],
        "duplicate_window": max(found.get("duplicate_window", 0), wanted["duplicate_window"]),
        "discard": wanted["discard"],
    }


def _larger(found: int, wanted: int) -> int:
    return found if found <= 0 else wanted if wanted <= 0 else max(found, wanted)


def weaker(spec: StreamSpec, found: dict[str, Any]) -> list[str]:
    """A sentence for each setting of an existing stream that loses more than ours would."""
    sentences = []
    if found["storage"] != "file":
        sentences.append(f"{spec.name} keeps its messages in memory: a restart of NATS loses them")
    if found.get("max_msgs", -1) > 0:
        sentences.append(f"{spec.name} holds {found['max_msgs']} messages at most: a slow reader loses what is older")
    if found.get("persist_mode") == "async":
        sentences.append(f"{spec.name} answers before it has written: a crash of NATS loses acknowledged messages")
    return sentences


async def _apply(client: Client, method: str, config: dict[str, Any], bytes_least: int) -> list[str]:
    """Creates or updates, giving up replicas, then size, where the server has not enough of either."""
    sentences: list[str] = []
    config = dict(config)
    while True:
        try:
            await call(client, f"{method}.{config['name']}", config, StreamInfo)
            return sentences
        except ApiRefusal as refusal:
            if refusal.code in NO_REPLICAS and config["num_replicas"] > 1:
                sentences.append(
                    f"{config['name']} has one copy instead of {config['num_replicas']}: this NATS has too few servers"
                )
                config["num_replicas"] = 1
            elif refusal.code in NO_SPACE and config["max_bytes"] > bytes_least:
                config["max_bytes"] = max(config["max_bytes"] // 4, bytes_least)
                sentences.append(
                    f"{config['name']} is limited to {config['max_bytes'] >> 20} MiB: NATS has no room for more"
                )
            else:
                raise
