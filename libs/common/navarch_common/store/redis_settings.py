"""Judges a server's settings: what would lose records, and what is weaker than recommended."""

import re
from collections.abc import Mapping

from navarch_common.store.base import StoreError

OLDEST = (6, 2)


def check_settings(server: Mapping[str, object], settings: Mapping[str, str], *, replicas: int = 0) -> list[str]:
    """A sentence for each thing that is weaker than recommended; `settings` empty where the server keeps them secret,
    `replicas` how many must have each commit.

    Raises `StoreError` for a server that would lose records silently, or lacks commands that are needed.
    """
    version = str(server.get("redis_version", ""))
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise StoreError(f"the state server is version {version}; 6.2 or newer is needed")
    attached = int(str(server.get("connected_slaves", 0)))
    if attached < replicas:
        return [
            f"the state server has {attached} of {replicas} replicas: what it alone has is lost with it",
            *check_settings(server, settings),
        ]
    if not settings:
        return ["the state server does not tell its settings (CONFIG GET): persistence and eviction are unchecked"]
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        raise StoreError(
            f"the state server has maxmemory-policy {policy}, which deletes records silently when memory is short; "
            "set it to noeviction"
        )
    if settings.get("appendonly") != "yes":
        return ["the state server has appendonly off: a restart loses what was written since its last snapshot"]
    if settings.get("appendfsync") != "always":
        fsync = settings.get("appendfsync")
        return [f"the state server has appendfsync {fsync}: a power cut loses the last writes (recommended: always)"]
    return []
